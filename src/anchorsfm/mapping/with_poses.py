"""The mapper of poses that are known: nothing is searched for, points come from the tracks (docs/method.md, Mappers).

Matches that the known poses contradict are left out: those further than a few pixels from the epipolar line on which
the other photograph must see them. Poses that are not exact may move the lines by as much as their deviation does.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from anchorsfm.colmap.cameras import focal_length_px, normalised_from_pixels
from anchorsfm.geometry.transforms import compose, cross_matrix, invert
from anchorsfm.mapping.base import Mapped, MapperInput, MapperSettings, Start, known_held
from anchorsfm.scene.edit import without_points
from anchorsfm.scene.progress import Progress
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.build import build_tracks

MAX_LINE_PX = 4.0
"""Working pixels between a match and its epipolar line, of poses that are kept exactly."""
LOOSE_LINE_PX = 16.0
"""The same where poses or focal lengths are not exact."""


def map_with_poses(given: MapperInput, settings: MapperSettings, progress: Progress) -> Mapped:
    """One start of all images with a known pose; other images are left to those who register what is missing.

    Raises ValueError if no poses are known.
    """
    del settings, progress
    model, known = model_of_poses(given), given.known
    assert known is not None, "the model is made of them"
    image = model.image_index
    frozen = np.full(len(image), known.config.freeze_poses)
    held = replace(
        known_held(model, given),
        pose=frozen,
        positions=known.position_priors(image),
        rotations=known.rotation_priors(image),
    )
    return Mapped(starts=(Start(model=model, held=held),), reasons={})


def model_of_poses(given: MapperInput) -> Reconstruction:
    """All images with a known pose, without points. Raises ValueError if there are none."""
    known = given.known
    if known is None or not known.poses:
        raise ValueError("no pose is known")
    image = np.array(sorted(known.poses), np.int64)
    rows, camera_index = np.unique(given.images.camera_index[image], return_inverse=True)
    return without_points(
        image,
        np.stack([known.poses[k] for k in image.tolist()]),
        tuple(given.cameras[row] for row in rows),
        camera_index.reshape(-1),
    )


def along_epipolar_lines(given: MapperInput) -> MapperInput:
    """The input with the matches that known poses do not contradict, and the tracks of these.

    All are kept as evidence on the poses (`free`).
    """
    matches = given.matches
    keep = np.ones(len(matches.image_i), bool)
    pair = np.stack([matches.image_i, matches.image_j], axis=1)
    order = np.lexsort((pair[:, 1], pair[:, 0]))
    ends = 1 + np.flatnonzero((np.diff(pair[order], axis=0) != 0).any(axis=1))
    for rows in np.split(order, ends) if len(order) else ():
        i, j = pair[rows[0]].tolist()
        keep[rows] = _near_lines(given, i, j, matches.xy_i[rows], matches.xy_j[rows])
    kept = matches.select(keep)
    return replace(given, matches=kept, free=matches, tracks=build_tracks(kept, given.images.num_images))


def line_limit_px(given: MapperInput, i: int, j: int) -> float:
    """Largest distance of a match of two images from the epipolar lines of their known poses, working pixels."""
    known = given.known
    rows = given.images.camera_index[[i, j]].tolist()
    is_exact = known is not None and known.config.freeze_poses and bool(given.known_camera[rows].all())
    return MAX_LINE_PX if is_exact else LOOSE_LINE_PX


def line_offsets_px(
    given: MapperInput, i: int, j: int, xy_i: Float[np.ndarray, "match 2"], xy_j: Float[np.ndarray, "match 2"]
) -> Float[np.ndarray, "match 2"]:
    """Distances of matches of images with known poses from each other's epipolar lines, in i and j, working pixels."""
    known = given.known
    assert known is not None, "poses of both images are known"
    cameras = [given.cameras[row] for row in given.images.camera_index[[i, j]].tolist()]
    j_from_i = compose(known.poses[j], invert(known.poses[i]))
    essential = cross_matrix(j_from_i[:, 3]) @ j_from_i[:, :3]
    x, y = (
        np.column_stack([normalised_from_pixels(camera, xy), np.ones(len(xy))])
        for camera, xy in zip(cameras, (xy_i, xy_j), strict=True)
    )
    line_j, line_i = x @ essential.T, y @ essential
    residual = np.abs((y * line_j).sum(axis=1))
    off = []
    for image, camera, line in ((i, cameras[0], line_i), (j, cameras[1], line_j)):
        distance = residual / np.maximum(np.linalg.norm(line[:, :2], axis=1), 1e-300)
        off.append(distance * focal_length_px(camera) / given.working_scale[image])
    return np.stack(off, axis=1)


def _near_lines(
    given: MapperInput, i: int, j: int, xy_i: Float[np.ndarray, "match 2"], xy_j: Float[np.ndarray, "match 2"]
) -> Bool[np.ndarray, "match"]:
    """Which matches of two images lie near each other's epipolar lines; all where a pose is not known."""
    known = given.known
    if known is None or not {i, j} <= known.poses.keys():
        return np.ones(len(xy_i), bool)
    return np.asarray((line_offsets_px(given, i, j, xy_i, xy_j) <= line_limit_px(given, i, j)).all(axis=1))
