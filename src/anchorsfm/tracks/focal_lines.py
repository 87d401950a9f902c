"""What straight edges show of the focal length of two photographs (docs/method.md, Recorded focal lengths).

Matches of two photographs may leave the focal length open (parallel cameras, optical axes that meet), but then they say
which rotation belongs to each: the model is adjusted with the focal length held at steps over the range of usual ones,
rotations in between are interpolated, and `right_angles` says with which of them straight edges are at right angles.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation, Slerp

from anchorsfm.colmap.cameras import focal_length_px, normalised_from_pixels
from anchorsfm.features.segments import straight_edges
from anchorsfm.geometry.right_angles import FEWEST, LineFocal, Segments, focal_of_lines
from anchorsfm.geometry.transforms import rotation_angle_deg
from anchorsfm.scene.errors import InputError, StorageError
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.scene.settings import TYPICAL_FOCAL
from anchorsfm.tracks.adjust import AdjustResult
from anchorsfm.tracks.config import AdjustConfig
from anchorsfm.tracks.held_focal import scaled, with_focal_held

_LEAST_TURN_DEG = 3.0
"""Between two views: with less nothing checks whether edges are at right angles."""
_RANGE = 0.8
"""Of logarithms on either side of the usual focal length."""
_TRIED = 65
"""Focal lengths in this range: steps of 2.5 %."""
_EVERY = 4
"""Tried focal lengths from one adjusted model to the next."""


def can_ask_lines(model: Reconstruction) -> bool:
    """Whether a model is of two views of one camera."""
    return len(model.image_index) == 2 and len(model.cameras) == 1


def focal_in_lines(result: AdjustResult, images: ImageSet, config: AdjustConfig) -> LineFocal | None:
    """What straight edges say about the focal length of a model of two views of one camera.

    None where there are few or views are hardly turned against each other, and where a photograph cannot be read any
    more, or is another one.
    """
    model = result.at_optimum
    if rotation_angle_deg(_second_from_first(model)[None])[0] < _LEAST_TURN_DEG:
        return None
    try:
        segments = _segments(model, images)
    except (InputError, StorageError):
        return None
    if len(segments.view) < FEWEST:
        return None
    usual_px = TYPICAL_FOCAL * max(model.cameras[0].width, model.cameras[0].height)
    focal_px = usual_px * np.exp(np.linspace(-_RANGE, _RANGE, _TRIED))
    return focal_of_lines(segments, focal_px, _rotations(result, focal_px, config))


def _segments(model: Reconstruction, images: ImageSet) -> Segments:
    """As a pinhole with the focal length and the principal point of the camera has them."""
    camera, ends, views, sigmas = model.cameras[0], [], [], []
    for view, image in enumerate(model.image_index.tolist()):
        edges = straight_edges(images, image)
        rays = normalised_from_pixels(camera, edges.ends_px.reshape(-1, 2)).reshape(-1, 2, 2)
        kept = np.isfinite(rays).all(axis=(1, 2))
        ends.append(focal_length_px(camera) * rays[kept])
        views.append(np.full(int(kept.sum()), view))
        sigmas.append(edges.sigma[kept])
    return Segments(ends_px=np.concatenate(ends), view=np.concatenate(views), sigma=np.concatenate(sigmas))


@dataclass(frozen=True, kw_only=True)
class _Knot:
    log_focal: float
    second_from_first: Float[np.ndarray, "3 3"]


def _rotations(
    result: AdjustResult, focal_px: Float[np.ndarray, " try"], config: AdjustConfig
) -> Float[np.ndarray, "try 2 3 3"]:
    """Of both views, the first one's being the identity, that the matches want with each focal length."""
    start = focal_length_px(result.at_optimum.cameras[0])
    knots = [_knot(result)]
    wanted = np.append(focal_px[::_EVERY], focal_px[-1])
    for side in (wanted[wanted > start], wanted[wanted < start][::-1]):
        held = result
        for focal in side.tolist():
            camera = held.at_optimum.cameras[0]
            held = with_focal_held(held, [scaled(camera, focal / focal_length_px(camera))], config)
            knots.append(_knot(held))
    knots = sorted({knot.log_focal: knot for knot in knots}.values(), key=lambda knot: knot.log_focal)
    turns = Slerp(
        [knot.log_focal for knot in knots], Rotation.from_matrix(np.stack([k.second_from_first for k in knots]))
    )
    second = turns(np.clip(np.log(focal_px), knots[0].log_focal, knots[-1].log_focal)).as_matrix()
    return np.stack([np.broadcast_to(np.eye(3), second.shape), second], axis=1)


def _knot(result: AdjustResult) -> _Knot:
    model = result.at_optimum
    return _Knot(
        log_focal=float(np.log(focal_length_px(model.cameras[0]))), second_from_first=_second_from_first(model)
    )


def _second_from_first(model: Reconstruction) -> Float[np.ndarray, "3 3"]:
    first, second = model.cam_from_world[:, :, :3]
    return np.asarray(second @ first.T)
