"""Matches along the epipolar lines of known poses, besides others (docs/method.md, Matches along known lines).

They are no evidence on the poses: that stays with the matches that were verified without them (`MapperInput.free`).
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from anchorsfm.colmap.cameras import focal_length_px, normalised_from_pixels
from anchorsfm.features.guided import LineMatches, LineView, line_view, match_along_lines
from anchorsfm.features.store import FeatureStore
from anchorsfm.geometry.rows import distinct_rows
from anchorsfm.geometry.transforms import compose, invert
from anchorsfm.io.workers import map_stage, single_threaded_libraries
from anchorsfm.mapping.base import MapperInput
from anchorsfm.mapping.with_poses import line_limit_px, line_offsets_px
from anchorsfm.scene.progress import SILENT, Progress
from anchorsfm.tracks.build import KeypointMatches, build_tracks

CONFIDENCE = 5.0
"""Of a match along the lines: less than of those that were verified without the poses."""
MIN_BAND_PX = 1.0
"""Narrowest band to either side of a line, working pixels: twice the noise of keypoints."""
_PERCENTILE, _WIDER = 90.0, 1.5
"""The band of a pair is this percentile of the offsets of its matches times this."""
_ENOUGH = 30
"""Matches of a pair that say how wide its band must be; others take the median of the pairs that have them."""
_MIN_BASELINE = 1e-9
"""Shortest baseline, in parts of the longest of a set: shorter ones have no direction."""


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """Two images with known poses."""

    i: int
    j: int
    j_from_i: Float[np.ndarray, "3 4"]
    rows: Int[np.ndarray, "match"]
    """Of the matches that it has."""
    band_px: float
    """Working pixels; NaN: too few matches to tell."""


def with_matches_along_lines(
    given: MapperInput,
    pairs: Int[np.ndarray, "pair 2"],
    features: FeatureStore,
    max_ratio: float,
    num_workers: int,
    progress: Progress = SILENT,
) -> MapperInput:
    """The input with more matches between images whose poses are known, and the tracks of all.

    Args:
        given: the input with matches near the lines (`along_epipolar_lines`), between keypoints of `features`.
        pairs: images (i, j) that are looked at.
        features: keypoints and descriptors of all images.
        max_ratio: largest ratio of the distances to the best and the second best descriptor of a band.
        num_workers: threads.
        progress: receives one stage with a step per pair.
    """
    chosen = _with_bands(_pairs(given, pairs), given)

    def search(number: int) -> KeypointMatches:
        return _searched(chosen[number], given, features, max_ratio)

    with single_threaded_libraries():
        found = map_stage("matching along known lines", search, len(chosen), progress, num_workers)
    parts = [given.matches, *found]
    matches = KeypointMatches(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(given.matches)}
    )
    added = len(matches.confidence) - len(given.matches.confidence)
    progress.note(f"{added} matches along the lines of known poses, besides {len(given.matches.confidence)} others")
    return replace(given, matches=matches, tracks=build_tracks(matches, given.images.num_images))


def _pairs(given: MapperInput, pairs: Int[np.ndarray, "pair 2"]) -> list[_Pair]:
    """The pairs whose poses are known, and which differ in place."""
    poses = {} if given.known is None else given.known.poses
    low, high = (
        np.minimum(given.matches.image_i, given.matches.image_j),
        np.maximum(given.matches.image_i, given.matches.image_j),
    )
    key, wanted = low * given.images.num_images + high, np.sort(pairs, axis=1) @ [given.images.num_images, 1]
    order = np.argsort(key, kind="stable")
    first, last = (np.searchsorted(key[order], wanted, side) for side in ("left", "right"))
    found = []
    for row, (i, j) in enumerate(pairs.tolist()):
        if not {i, j} <= poses.keys():
            continue
        j_from_i = compose(poses[j], invert(poses[i]))
        rows = order[first[row] : last[row]]
        found.append(_Pair(i=i, j=j, j_from_i=j_from_i, rows=rows, band_px=np.nan))
    length = np.array([np.linalg.norm(pair.j_from_i[:, 3]) for pair in found])
    apart = length > _MIN_BASELINE * length.max(initial=0.0)
    return [pair for pair, is_apart in zip(found, apart.tolist(), strict=True) if is_apart]


def _with_bands(pairs: list[_Pair], given: MapperInput) -> list[_Pair]:
    """How far matches of each pair are off the lines says how exact its poses are."""
    band = np.full(len(pairs), np.nan)
    for number, pair in enumerate(pairs):
        if len(pair.rows) >= _ENOUGH:
            i, j, xy_i, xy_j = _oriented(given, pair)
            offset = line_offsets_px(given, i, j, xy_i, xy_j).max(axis=1)
            band[number] = _WIDER * np.percentile(offset, _PERCENTILE)
    known = band[np.isfinite(band)]
    usual = float(np.median(known)) if len(known) else np.inf
    limits = [line_limit_px(given, pair.i, pair.j) for pair in pairs]
    band = np.clip(np.where(np.isfinite(band), band, usual), MIN_BAND_PX, limits)
    return [replace(pair, band_px=float(width)) for pair, width in zip(pairs, band, strict=True)]


def _oriented(
    given: MapperInput, pair: _Pair
) -> tuple[int, int, Float[np.ndarray, "match 2"], Float[np.ndarray, "match 2"]]:
    """The matches of a pair as points of i and points of j."""
    matches = given.matches
    is_same = (matches.image_i[pair.rows] == pair.i)[:, None]
    xy_i, xy_j = matches.xy_i[pair.rows], matches.xy_j[pair.rows]
    return pair.i, pair.j, np.where(is_same, xy_i, xy_j), np.where(is_same, xy_j, xy_i)


def _searched(pair: _Pair, given: MapperInput, features: FeatureStore, max_ratio: float) -> KeypointMatches:
    """What matches along the lines of a pair besides what it has."""
    i, j, xy_i, xy_j = _oriented(given, pair)
    mine, theirs = features.features(i), features.features(j)
    taken = np.stack([_keypoints_at(mine.xy, xy_i), _keypoints_at(theirs.xy, xy_j)], axis=1)
    found = match_along_lines(
        _view(given, i, pair.band_px, features),
        _view(given, j, pair.band_px, features),
        pair.j_from_i,
        max_ratio,
        taken,
    )
    return _as_matches(i, j, mine.xy, theirs.xy, found)


def _view(given: MapperInput, image: int, band_px: float, features: FeatureStore) -> LineView:
    found = features.features(image)
    camera = given.cameras[int(given.images.camera_index[image])]
    plane = normalised_from_pixels(camera, found.xy.astype(np.float64))
    return line_view(found, plane, band_px * float(given.working_scale[image]) / focal_length_px(camera))


def _keypoints_at(xy: Float[np.ndarray, "keypoint 2"], at: Float[np.ndarray, "match 2"]) -> Int[np.ndarray, "match"]:
    """Which keypoint has the coordinates of each match; -1 where none has."""
    _, number = distinct_rows(np.concatenate([xy.astype(np.float64), at]))
    keypoint = np.full(len(number), -1, np.int64)
    keypoint[number[: len(xy)]] = np.arange(len(xy))
    return keypoint[number[len(xy) :]]


def _as_matches(
    i: int, j: int, xy_i: Float[np.ndarray, "_ 2"], xy_j: Float[np.ndarray, "_ 2"], found: LineMatches
) -> KeypointMatches:
    count = len(found.distance)
    return KeypointMatches(
        image_i=np.full(count, i),
        image_j=np.full(count, j),
        xy_i=xy_i[found.keypoint[:, 0]].astype(np.float64),
        xy_j=xy_j[found.keypoint[:, 1]].astype(np.float64),
        confidence=np.full(count, CONFIDENCE),
    )
