"""The mapper of poses that are known: nothing is searched for, points come from the tracks (docs/method.md, Mappers).

Matches that the known poses contradict are left out: those further than a few pixels from the epipolar line on which
the other photograph must see them. Poses that are not exact may move the lines by as much as their deviation does,
which the matches themselves show.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from anchorsfm.colmap.cameras import focal_length_px, normalised_from_pixels
from anchorsfm.geometry.transforms import compose, cross_matrix, invert
from anchorsfm.mapping.base import Mapped, MapperInput, MapperSettings, Start, known_held
from anchorsfm.mapping.evidence import STRONG
from anchorsfm.scene.edit import without_points
from anchorsfm.scene.progress import Progress
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.build import build_tracks

MAX_LINE_PX = 4.0
"""Working pixels between a match and its epipolar line, of poses that are kept exactly."""
LOOSE_LINE_PX = 16.0
"""The same where poses or focal lengths are not exact."""
_WIDER = 4.0
"""Poses that are adjusted may be off by this many times what matches of most pairs are off (median) ..."""
_MAX_SHARE = 0.15
"""... and at most by this share of the long side: nine degrees of a usual lens."""


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
    keep, loose_px = np.ones(len(matches.image_i), bool), loose_line_px(given)
    for i, j, rows in known_pairs(given):
        limit_px = loose_px if _are_adjusted(given) else line_limit_px(given, i, j)
        offset = line_offsets_px(given, i, j, matches.xy_i[rows], matches.xy_j[rows])
        keep[rows] = (offset <= limit_px).all(axis=1)
    kept = matches.select(keep)
    return replace(given, matches=kept, free=matches, tracks=build_tracks(kept, given.images.num_images))


def known_pairs(given: MapperInput) -> Iterator[tuple[int, int, Int[np.ndarray, "match"]]]:
    """Images i and j that both have known poses, and the rows of their matches from i to j, in the order of images."""
    matches, poses = given.matches, {} if given.known is None else given.known.poses
    pair = np.stack([matches.image_i, matches.image_j], axis=1)
    order = np.lexsort((pair[:, 1], pair[:, 0]))
    ends = 1 + np.flatnonzero((np.diff(pair[order], axis=0) != 0).any(axis=1))
    for rows in np.split(order, ends) if len(order) else ():
        i, j = pair[rows[0]].tolist()
        if {i, j} <= poses.keys():
            yield i, j, rows


def loose_line_px(given: MapperInput) -> float:
    """Largest distance of a match from the lines of poses that are not exact, working pixels.

    Poses that are adjusted are a start only: a degree is 15 pixels, so that the matches say how far they are off.
    """
    if not _are_adjusted(given):
        return LOOSE_LINE_PX
    off = [middle for _, middle in median_offsets_px(given) if np.isfinite(middle)]
    largest = _MAX_SHARE * float(np.median(given.images.size_wh.max(axis=1) / given.working_scale))
    return float(np.clip(_WIDER * np.median(off), LOOSE_LINE_PX, max(largest, LOOSE_LINE_PX))) if off else LOOSE_LINE_PX


def median_offsets_px(given: MapperInput) -> list[tuple[tuple[int, int], float]]:
    """Images (smaller first) with enough matches to say something of their known poses, and how far these are off the
    lines, working pixels; NaN: the cameras see none of them."""
    matches = given.matches
    of_pair: dict[tuple[int, int], list[np.ndarray]] = {}
    for i, j, rows in known_pairs(given):
        offset = line_offsets_px(given, i, j, matches.xy_i[rows], matches.xy_j[rows]).max(axis=1)
        of_pair.setdefault((min(i, j), max(i, j)), []).append(offset)
    every = [(pair, np.concatenate(parts)) for pair, parts in of_pair.items()]
    found = [(pair, offset[np.isfinite(offset)]) for pair, offset in every if len(offset) >= STRONG]
    return [(pair, float(np.median(offset)) if len(offset) else np.nan) for pair, offset in found]


def _are_adjusted(given: MapperInput) -> bool:
    return given.known is not None and not given.known.config.freeze_poses


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
