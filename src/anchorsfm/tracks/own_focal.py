"""Whether views that share a camera have focal lengths of their own (docs/method.md, Photographs that are zoomed).

An adjustment with one camera for all hides a zoom well: poses make up for most of it, and are wrong by it. Adjusted
with a focal length for each view, all together, models find their way back from there, if observations that this has
not seen say that it is worth more than the noise that it fits (`held_out`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from anchorsfm.colmap.bundle import BundleOptions, Held, adjust
from anchorsfm.colmap.cameras import focal_length_px, with_focal_length
from anchorsfm.scene.edit import select_observations, with_cameras_of_views
from anchorsfm.scene.reconstruction import Camera, Reconstruction, Tracks
from anchorsfm.tracks.config import AdjustConfig
from anchorsfm.tracks.held_out import MAX_TRACKS, HeldOut, held_out, is_sure_gain, robust_cost, sample_of
from anchorsfm.tracks.points import triangulate_model
from anchorsfm.tracks.residuals import loss_scale_px

_ROUNDS = 2
"""Times that points are made again from all observations."""
_TRACKS_A_VIEW = 60
"""Of large models more tracks are looked at: each view is to say something of its own."""
_SURE = 5.0
"""Deviations by which errors of observations must fall that the focal lengths were not adjusted to."""


@dataclass(frozen=True, kw_only=True)
class OwnFocalLengths:
    """A model whose views have a camera each."""

    model: Reconstruction
    """Of a sample of the points. Views that were not asked share their cameras."""
    deviation: Float[np.ndarray, "view"]
    """Of the logarithm of each focal length, from what two halves of the sample say; a rough value."""

    @property
    def focal_px(self) -> Float[np.ndarray, "view"]:
        return _focal_px(self.model)


def own_focal_lengths(
    model: Reconstruction,
    tracks: Tracks,
    asked: Bool[np.ndarray, "view"],
    started: Sequence[Camera],
    held: Held,
    config: AdjustConfig,
    *,
    working_scale: float,
) -> OwnFocalLengths | None:
    """The model with a focal length for each view that is asked; None where that is not surely better.

    Tried with the lenses as they are, and as their adjustment started: those of a bent model may be bent themselves.

    Args:
        model: adjusted, with points.
        tracks: that the points were made from, with all observations.
        asked: views that may have a focal length of their own.
        started: camera of each view before anything was adjusted.
        held: what stays; cameras as far as views that are not asked have them.
        config: thresholds of the adjustment.
        working_scale: original pixels per pixel of the images that keypoints were found on.
    """
    most = max(MAX_TRACKS, _TRACKS_A_VIEW * len(model.image_index))
    sample = sample_of(model, most)
    options = BundleOptions(loss_scale_px=loss_scale_px(sample, working_scale), refine_distortion=False)
    better = _better_cameras(sample, asked, started, held, options)
    if better is None:
        return None
    free, kept = better
    found = adjust(free, options, kept)[0]
    stride = -(-tracks.num_points // most)
    chosen = np.isin(tracks.obs_image, model.image_index) & (tracks.obs_point % stride == 0)
    some, _ = select_observations(tracks, chosen)
    limit_px = config.second_error * np.array([max(c.width, c.height) for c in found.cameras])[found.camera_index]
    for _ in range(_ROUNDS):  # what did not agree with the bent model has been left out of it
        again = triangulate_model(found, some, max_error_px=limit_px, min_angle_deg=config.min_angle_deg)
        found = adjust(again, options, kept)[0]
    halves = held_out(found, options, lambda half: adjust(half, options, kept)[0])
    return OwnFocalLengths(model=found, deviation=_deviation(halves))


def _better_cameras(
    sample: Reconstruction,
    asked: Bool[np.ndarray, "view"],
    started: Sequence[Camera],
    held: Held,
    options: BundleOptions,
) -> tuple[Reconstruction, Held] | None:
    """The sample with cameras that predict held-out observations better, and what is held of it; None: none do."""
    shared = held_out(sample, options, lambda half: adjust(half, options, held)[0])
    cost, best = robust_cost(shared.error_px, options), None
    for lenses in ([sample.cameras[camera] for camera in sample.camera_index], started):
        free = _with_own_cameras(sample, asked, lenses)
        kept = replace(held, camera=_held_cameras(sample, free, asked, held))

        def fit(half: Reconstruction, kept: Held = kept) -> Reconstruction:
            return adjust(half, options, kept)[0]

        now = robust_cost(held_out(free, options, fit).error_px, options)
        if is_sure_gain(cost - now, sample.tracks.obs_point, _SURE if best is None else 0.0):
            cost, best = now, (free, kept)
        elif now.sum() >= cost.sum():
            break  # nor would other lenses help
    return best


def _with_own_cameras(
    model: Reconstruction, asked: Bool[np.ndarray, "view"], lenses: Sequence[Camera]
) -> Reconstruction:
    """A camera for each view that is asked, with its lens and the focal length that it has; the others keep theirs."""
    cameras, camera_index = list(model.cameras), model.camera_index.copy()
    for view in np.flatnonzero(asked).tolist():
        focal_px = focal_length_px(model.cameras[model.camera_index[view]])
        camera_index[view] = len(cameras)
        cameras.append(with_focal_length(lenses[view], focal_px))
    return with_cameras_of_views(replace(model, cameras=tuple(cameras), camera_index=camera_index))


def _held_cameras(
    shared: Reconstruction, free: Reconstruction, asked: Bool[np.ndarray, "view"], held: Held
) -> Bool[np.ndarray, "camera"]:
    out = np.zeros(len(free.cameras), bool)
    out[free.camera_index[~asked]] = held.camera[shared.camera_index[~asked]]
    return out


def _deviation(found: HeldOut) -> Float[np.ndarray, "view"]:
    first, second = (np.log(_focal_px(model)) for model in found.fitted)
    return np.asarray(np.abs(first - second) / 2)


def _focal_px(model: Reconstruction) -> Float[np.ndarray, "view"]:
    return np.array([focal_length_px(model.cameras[camera]) for camera in model.camera_index])
