"""From the matches of a front end to verified keypoints, the same in all pairs (docs/method.md, Keypoints and tracks).

Three steps. Doubtful matches of each pair are dropped. The rest must agree with one fundamental (or essential) matrix
per pair; where a homography explains nearly as many matches (a plane, or a camera that only turned), that matrix is not
determined, and the homography decides instead.

Dense matches are then made into keypoints. The same surface point has slightly different coordinates in each pair of an
image, so coordinates within a radius of the merging are one keypoint: that with most support, the sum over pairs of the
best confidence. A match is moved to the keypoints at both ends if these moves agree (both ends move along the surface
by about the same amount), else it is dropped. Keypoints that are closer than the radius of the suppression compete by
the support of the whole track they belong to, so that neighbouring images keep the same ones. At the end an image keeps
its best keypoints, spread over the image. Keypoints of a detector are only capped.

All distances are in pixels of the grid that the front end looked at, `pixel_px` original pixels wide.
"""

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree

from anchorsfm.geometry.links import connected_groups
from anchorsfm.scene.errors import InputError
from anchorsfm.tracks.build import KeypointMatches
from anchorsfm.tracks.config import SparsifyConfig

_MIN_MATCHES = 8
"""Of a fundamental matrix; seven and less fit any."""
_HOMOGRAPHY_ITERATIONS = 100
_CERTAIN = 10.0
"""Confidence of a match that is right with probability 1; one that is not right at all has 1."""

Scores = Literal["confidence", "probability"]


class PairGeometry(IntEnum):
    """What the verification found."""

    VERIFIED = 0
    """The matches agree on an epipolar geometry."""
    DEGENERATE = 1
    """They agree on a homography: a plane, or a pure rotation."""
    TRUSTED = 2
    """The front end had verified them."""
    REJECTED = 3
    """Too few of them agree on anything."""


@dataclass(frozen=True, kw_only=True)
class PairReport:
    """Numbers of matches of each pair, in the order of the images."""

    index: Int[np.ndarray, "pair 2"]
    given: Int[np.ndarray, "pair"]
    confident: Int[np.ndarray, "pair"]
    verified: Int[np.ndarray, "pair"]
    kept: Int[np.ndarray, "pair"]
    """Between the keypoints that remain."""
    geometry: Int[np.ndarray, "pair"]
    """`PairGeometry`."""


@dataclass(frozen=True, kw_only=True)
class SparsifyResult:
    """Matches between keypoints, and how they came about."""

    matches: KeypointMatches
    pairs: PairReport
    num_unusable: int
    """Given matches that were left out because a coordinate or the confidence is no number."""


def sparsify(
    matches: KeypointMatches,
    config: SparsifyConfig,
    *,
    pixel_px: Float[np.ndarray, "image"],
    size_wh: Int[np.ndarray, "image 2"],
    are_keypoints: bool = False,
    are_verified: bool = False,
    focal_px: Float[np.ndarray, "image"] | None = None,
    scores: Scores | None = None,
) -> SparsifyResult:
    """Verified matches between keypoints that are the same in all pairs; the order of the input is kept.

    Args:
        matches: matches of any front end, in original pixels.
        config: thresholds.
        pixel_px: original pixels per pixel of the grid that the front end looked at, of each image.
        size_wh: sizes of the images, original pixels.
        are_keypoints: the same physical point has the same coordinates in all pairs already: coordinates stay, and
            the matches' relative confidence is not judged.
        are_verified: the front end has checked the geometry of each pair.
        focal_px: focal lengths in original pixels (NaN where unknown); pairs that have both are verified with an
            essential matrix, principal points in the middle.
        scores: what the matches' confidences are. "confidence": on the scale of `KeypointMatches`; "probability": of
            being right, 0 .. 1; None: confidences, unless they look like probabilities.

    Raises:
        InputError: the matches cannot be used: arrays of different lengths, images that do not exist, a match of an
            image with itself, probabilities outside 0 .. 1, or none above 1 with nothing said about the scale.
    """
    num_given = len(matches.confidence)
    matches = _usable(matches, scores, len(size_wh))
    num_unusable = num_given - len(matches.confidence)
    pair, index = _number_pairs(matches)
    count = _Counter(len(index))
    given = count(pair)
    keep = matches.confidence >= config.min_confidence
    if not are_keypoints:
        keep &= matches.confidence >= _percentile_of_pair(matches.confidence, pair, config.confidence_percentile)
    confident = count(pair[keep])
    if are_verified:
        geometry = np.where(confident > 0, int(PairGeometry.TRUSTED), int(PairGeometry.REJECTED))
    else:
        keep, geometry = _verify_pairs(matches, pair, keep, len(index), config, pixel_px, size_wh, focal_px)
    verified = count(pair[keep])
    matches = matches.select(keep)
    if not are_keypoints:
        matches = _suppress(_merge(matches, pixel_px, config.merge_radius), pixel_px, config.suppress_radius)
    matches = _cap(matches, size_wh, config.max_detected_keypoints if are_keypoints else config.max_keypoints)
    return SparsifyResult(
        matches=matches,
        num_unusable=num_unusable,
        pairs=PairReport(
            index=index,
            given=given,
            confident=confident,
            verified=verified,
            kept=count(_rows_of_pairs(matches, index)),
            geometry=geometry,
        ),
    )


def _usable(matches: KeypointMatches, scores: Scores | None, num_images: int) -> KeypointMatches:
    """Matches that are numbers throughout, with confidences on our scale."""
    arrays = (matches.image_i, matches.image_j, matches.xy_i, matches.xy_j, matches.confidence)
    lengths = {len(array) for array in arrays}
    if len(lengths) > 1:
        raise InputError(f"the arrays of the matches have different lengths: {', '.join(map(str, sorted(lengths)))}")
    for images in (matches.image_i, matches.image_j):
        outside = images[(images < 0) | (images >= num_images)]
        if len(outside):
            raise InputError(f"a match names image {outside[0]}, but there are {num_images} images, counted from 0")
    own = np.flatnonzero(matches.image_i == matches.image_j)
    if len(own):
        raise InputError(f"match {own[0]} joins image {matches.image_i[own[0]]} with itself")
    matches = matches.finite()
    score = matches.confidence
    if scores == "probability":
        wrong = score[(score < 0) | (score > 1)]
        if len(wrong):
            raise InputError(f"the matches' scores are said to be probabilities, but one of them is {wrong[0]:g}")
        return replace(matches, confidence=1 + (_CERTAIN - 1) * score)
    if scores is None and len(score) and score.min() >= 0 and score.max() <= 1:
        raise InputError(
            f"the matches' confidences are {score.min():g} to {score.max():g}: if they are probabilities pass "
            'scores="probability", else scores="confidence" (1 and below say nothing, 10 is certain)'
        )
    return matches


class _Counter:
    """Counts rows by pair."""

    def __init__(self, num_pairs: int) -> None:
        self._num_pairs = num_pairs

    def __call__(self, pair: Int[np.ndarray, "match"]) -> Int[np.ndarray, "pair"]:
        return np.bincount(pair, minlength=self._num_pairs).astype(np.int64)


def _number_pairs(matches: KeypointMatches) -> tuple[Int[np.ndarray, "match"], Int[np.ndarray, "pair 2"]]:
    """The pair of each match, and the pairs in order."""
    first, pair = _distinct(matches.image_i, matches.image_j)
    return pair, np.column_stack([matches.image_i[first], matches.image_j[first]]).astype(np.int64)


def _distinct(*columns: np.ndarray) -> tuple[Int[np.ndarray, "distinct"], Int[np.ndarray, "row"]]:
    """A row of each distinct combination of values, in their order; and the number of the combination of each row."""
    order = np.lexsort(columns[::-1])
    new = np.zeros(len(order), bool)
    new[:1] = True
    for column in columns:
        new[1:] |= np.diff(column[order]) != 0
    number = np.empty(len(order), np.int64)
    number[order] = np.cumsum(new) - 1
    return order[new], number


def _rows_of_pairs(matches: KeypointMatches, index: Int[np.ndarray, "pair 2"]) -> Int[np.ndarray, "match"]:
    if not len(matches.image_i):
        return np.zeros(0, np.int64)
    base = int(index.max()) + 1
    return np.searchsorted(index[:, 0] * base + index[:, 1], matches.image_i * base + matches.image_j)


def _percentile_of_pair(
    values: Float[np.ndarray, "match"], pair: Int[np.ndarray, "match"], percentile: float
) -> Float[np.ndarray, "match"]:
    """The value of its pair's matches at a percentile (a value that occurs: the lower one), for each match."""
    order = np.lexsort((values, pair))
    length = np.bincount(pair)
    start = np.cumsum(length) - length
    at = start + np.floor(percentile / 100 * np.maximum(length - 1, 0)).astype(np.int64)
    return values[order[np.minimum(at, len(values) - 1)]][pair]


# -------------------------------------------------------------------------------------------------- verifying pairs


def _verify_pairs(
    matches: KeypointMatches,
    pair: Int[np.ndarray, "match"],
    keep: Bool[np.ndarray, "match"],
    num_pairs: int,
    config: SparsifyConfig,
    pixel_px: Float[np.ndarray, "image"],
    size_wh: Int[np.ndarray, "image 2"],
    focal_px: Float[np.ndarray, "image"] | None,
) -> tuple[Bool[np.ndarray, "match"], Int[np.ndarray, "pair"]]:
    """Which matches agree with the geometry of their pair, and what kind it is."""
    verified = np.zeros(len(keep), bool)
    geometry = np.full(num_pairs, int(PairGeometry.REJECTED))
    rows = np.flatnonzero(keep)
    rows = rows[np.argsort(pair[rows], kind="stable")]
    ends = np.searchsorted(pair[rows], np.arange(num_pairs + 1))
    for number in range(num_pairs):
        here = rows[ends[number] : ends[number + 1]]
        if len(here) < max(config.min_inliers, _MIN_MATCHES):
            continue
        i, j = int(matches.image_i[here[0]]), int(matches.image_j[here[0]])
        xy_i = (matches.xy_i[here] - size_wh[i] / 2) / pixel_px[i]
        xy_j = (matches.xy_j[here] - size_wh[j] / 2) / pixel_px[j]
        focal = None if focal_px is None else (float(focal_px[i] / pixel_px[i]), float(focal_px[j] / pixel_px[j]))
        inlier = _epipolar_inliers(xy_i, xy_j, focal, config)
        if inlier.sum() < config.min_inliers:
            continue
        here = here[inlier]
        on_plane = _homography_inliers(xy_i[inlier], xy_j[inlier], config)
        degenerate = on_plane.sum() >= max(config.degenerate_ratio * len(here), config.min_inliers)
        verified[here[on_plane] if degenerate else here] = True
        geometry[number] = PairGeometry.DEGENERATE if degenerate else PairGeometry.VERIFIED
    return verified, geometry


def _epipolar_inliers(
    xy_i: Float[np.ndarray, "match 2"],
    xy_j: Float[np.ndarray, "match 2"],
    focal: tuple[float, float] | None,
    config: SparsifyConfig,
) -> Bool[np.ndarray, "match"]:
    """Inliers of an essential matrix if the focal lengths are known, else of a fundamental matrix; centred pixels."""
    import poselib

    options = {"max_epipolar_error": config.max_error, "max_iterations": config.max_iterations, "seed": 0}
    if focal is not None and np.isfinite(focal).all():
        cameras = [{"model": "SIMPLE_PINHOLE", "width": 0, "height": 0, "params": [f, 0.0, 0.0]} for f in focal]
        _, info = poselib.estimate_relative_pose(xy_i, xy_j, *cameras, options, {})
    else:
        _, info = poselib.estimate_fundamental(xy_i, xy_j, options, {})
    return np.array(info["inliers"], bool)


def _homography_inliers(
    xy_i: Float[np.ndarray, "match 2"], xy_j: Float[np.ndarray, "match 2"], config: SparsifyConfig
) -> Bool[np.ndarray, "match"]:
    """Inliers of a homography among matches most of which it would explain: few samples find it, or there is none."""
    import poselib

    options = {"max_reproj_error": config.max_error, "max_iterations": _HOMOGRAPHY_ITERATIONS, "seed": 0}
    _, info = poselib.estimate_homography(xy_i, xy_j, options, {})
    return np.array(info["inliers"], bool)


# ------------------------------------------------------------------------------------------------ making keypoints


@dataclass(frozen=True, kw_only=True)
class _Nodes:
    """The different coordinates of the matches in all images."""

    image: Int[np.ndarray, "node"]
    """Ascending."""
    xy: Float[np.ndarray, "node 2"]
    of_match: Int[np.ndarray, "match 2"]
    """Nodes at both ends of each match."""


def _nodes(matches: KeypointMatches) -> _Nodes:
    image = np.concatenate([matches.image_i, matches.image_j])
    xy = np.concatenate([matches.xy_i, matches.xy_j])
    first, node = _distinct(image, xy[:, 0], xy[:, 1])
    return _Nodes(image=image[first].astype(np.int64), xy=xy[first], of_match=node.reshape(2, -1).T)


def _merge(matches: KeypointMatches, pixel_px: Float[np.ndarray, "image"], radius: float) -> KeypointMatches:
    """Matches between keypoints: coordinates that are close in an image become one."""
    if not len(matches.image_i):
        return matches
    nodes = _nodes(matches)
    support = _support(matches, nodes)
    keypoint = np.arange(len(nodes.image))
    for rows in _rows_by_image(nodes.image):
        keypoint[rows] = rows[_suppressors(nodes.xy[rows] / pixel_px[nodes.image[rows[0]]], support[rows], radius)]
    moved = (nodes.xy[keypoint] - nodes.xy) / pixel_px[nodes.image][:, None]
    disagreement = np.linalg.norm(moved[nodes.of_match[:, 0]] - moved[nodes.of_match[:, 1]], axis=1)
    ends = keypoint[nodes.of_match]
    merged = replace(matches, xy_i=nodes.xy[ends[:, 0]], xy_j=nodes.xy[ends[:, 1]])
    return _one_to_one(merged.select(disagreement <= radius), disagreement[disagreement <= radius])


def _support(matches: KeypointMatches, nodes: _Nodes) -> Float[np.ndarray, "node"]:
    """Sum over pairs of the best confidence at each node."""
    pair, _ = _number_pairs(matches)
    node = nodes.of_match.T.ravel()
    pair, confidence = np.tile(pair, 2), np.tile(matches.confidence, 2)
    order = np.lexsort((-confidence, pair, node))
    first = np.r_[True, (np.diff(node[order]) != 0) | (np.diff(pair[order]) != 0)]
    best = order[first]
    return np.bincount(node[best], weights=confidence[best], minlength=len(nodes.image))


def _rows_by_image(image: Int[np.ndarray, "node"]) -> list[Int[np.ndarray, "row"]]:
    """Rows of each image, for ascending `image`."""
    return np.split(np.arange(len(image)), np.flatnonzero(np.diff(image)) + 1)


def _suppressors(xy: Float[np.ndarray, "n 2"], priority: Float[np.ndarray, "n"], radius: float) -> Int[np.ndarray, "n"]:
    """Greedy non-maximum suppression: the point that each point is represented by (itself if it stays).

    The result is that of going through the points from the highest priority (equal ones by row) and dropping all
    within the radius of one that stays, each to the nearest that stays. All points that are the best among their
    undecided neighbours are taken at once.
    """
    count = len(xy)
    near = cKDTree(xy).query_pairs(radius, output_type="ndarray").astype(np.int64)
    rank = np.empty(count, np.int64)
    rank[np.lexsort((np.arange(count), -priority))] = np.arange(count)
    a, b = near[:, 0], near[:, 1]
    stays, open_ = np.zeros(count, bool), np.ones(count, bool)
    while open_.any():
        best_near = np.full(count, count)
        live = open_[a] & open_[b]
        np.minimum.at(best_near, a[live], rank[b[live]])
        np.minimum.at(best_near, b[live], rank[a[live]])
        new = open_ & (rank < best_near)
        stays |= new
        open_ &= ~new
        open_[b[new[a]]] = False
        open_[a[new[b]]] = False
    kept = np.flatnonzero(stays)
    out = kept[cKDTree(xy[kept]).query(xy)[1]]
    out[kept] = kept
    return out


def _one_to_one(matches: KeypointMatches, disagreement: Float[np.ndarray, "match"]) -> KeypointMatches:
    """At most one match of a keypoint in each pair: the most confident, then the one that was moved least."""
    nodes = _nodes(matches)
    pair, _ = _number_pairs(matches)
    order = np.lexsort((disagreement, -matches.confidence))
    for end in (0, 1):
        key = pair[order] * len(nodes.image) + nodes.of_match[order, end]
        order = order[np.sort(np.unique(key, return_index=True)[1])]
    return matches.select(np.sort(order))


def _suppress(matches: KeypointMatches, pixel_px: Float[np.ndarray, "image"], radius: float) -> KeypointMatches:
    """Matches between keypoints that keep their distance in every image; those of well supported tracks stay."""
    if not len(matches.image_i):
        return matches
    nodes = _nodes(matches)
    priority = _track_support(matches, nodes)
    stays = np.zeros(len(nodes.image), bool)
    for rows in _rows_by_image(nodes.image):
        kept = _suppressors(nodes.xy[rows] / pixel_px[nodes.image[rows[0]]], priority[rows], radius)
        stays[rows] = kept == np.arange(len(rows))
    return matches.select(stays[nodes.of_match].all(axis=1))


def _track_support(matches: KeypointMatches, nodes: _Nodes) -> Float[np.ndarray, "node"]:
    """Confidence of all matches of the track that a keypoint is in, over its keypoints per image.

    The division keeps tracks that see images several times, and so contradict themselves, from winning everywhere.
    """
    label = connected_groups(len(nodes.image), nodes.of_match)
    confidence = np.bincount(label[nodes.of_match[:, 0]], weights=matches.confidence)
    keypoints = np.bincount(label)
    seen = label[_distinct(label, nodes.image)[0]]
    images = np.bincount(seen, minlength=len(keypoints))
    return (confidence * images / keypoints)[label]


def _cap(matches: KeypointMatches, size_wh: Int[np.ndarray, "image 2"], max_keypoints: int) -> KeypointMatches:
    """At most so many keypoints per image: the best of every part of the image first, then the second best ..."""
    if not len(matches.image_i):
        return matches
    nodes = _nodes(matches)
    stays = np.ones(len(nodes.image), bool)
    if np.bincount(nodes.image).max() <= max_keypoints:
        return matches
    priority = _track_support(matches, nodes)
    for rows in _rows_by_image(nodes.image):
        if len(rows) > max_keypoints:
            kept = _spread(nodes.xy[rows], priority[rows], size_wh[nodes.image[rows[0]]], max_keypoints)
            stays[rows] = False
            stays[rows[kept]] = True
    return matches.select(stays[nodes.of_match].all(axis=1))


def _spread(
    xy: Float[np.ndarray, "n 2"], priority: Float[np.ndarray, "n"], size_wh: Int[np.ndarray, "2"], number: int
) -> Int[np.ndarray, "kept"]:
    """Rows of `number` points: by their place in their square cell, about four points of the answer in each."""
    cell = max(1.0, float(np.sqrt(4 * size_wh.prod() / number)))
    column, row = np.floor(xy / cell).astype(np.int64).T
    key = row * (int(column.max()) + 1) + column
    order = np.lexsort((-priority, key))
    first = np.r_[0, np.flatnonzero(np.diff(key[order])) + 1]
    place = np.empty(len(xy), np.int64)
    place[order] = np.arange(len(xy)) - np.repeat(first, np.diff(np.r_[first, len(xy)]))
    return np.sort(np.lexsort((np.arange(len(xy)), -priority, place))[:number])
