"""Which pairs get dense depth: a few an image, those that show depth best, and enough of them to hold the set together.

Dense depth costs most of what a pair costs, and an image's depth gains little beyond a few partners: the other pairs
tie the images together by their keypoints alone. How well a pair shows depth is its number of matches times a weight of
its parallax a, exp(-(a - A)^2 / (2 s^2)) with s = NARROW_DEG below A = BEST_PARALLAX_DEG and WIDE_DEG above it (the
choice of views in Yao et al., "MVSNet: depth inference for unstructured multi-view stereo", ECCV 2018).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array
from scipy.sparse.csgraph import minimum_spanning_tree

from anchorsfm.frontend.classical.two_view import RelativePose
from anchorsfm.scene.pairs import PairStatus

BEST_PARALLAX_DEG, NARROW_DEG, WIDE_DEG = 5.0, 2.0, 10.0
"""Smaller angles show depth less exactly, larger ones are harder to match."""
SMALLEST = 1e-6
"""Of the weight: among pairs of hardly any parallax, or of very much, numbers of matches decide."""


def choose_depth_pairs(
    pairs: Int[np.ndarray, "pair 2"], poses: Sequence[RelativePose], per_image: int
) -> Bool[np.ndarray, "pair"]:
    """The pairs of known relative pose that get depth: up to `per_image` of every image, and more where needed.

    First the maximum spanning forest of the scores, so that no group of images is cut from the rest; then pairs by
    falling score while either of their images has fewer than half of `per_image`, or both have fewer than that.
    """
    num_images = int(pairs.max(initial=-1)) + 1
    score = _scores(poses)
    order = np.argsort(-score, kind="stable")
    order = order[score[order] > 0]
    chosen = np.zeros(len(pairs), bool)
    chosen[_spanning_forest(pairs, score, num_images)] = True
    degree = np.bincount(pairs[chosen].ravel(), minlength=num_images)
    for row in order.tolist():
        i, j = pairs[row].tolist()
        fewer, more = sorted((int(degree[i]), int(degree[j])))
        if not chosen[row] and (fewer < (per_image + 1) // 2 or more < per_image):
            chosen[row] = True
            degree[[i, j]] += 1
    return chosen


def _scores(poses: Sequence[RelativePose]) -> Float[np.ndarray, "pair"]:
    """0 for pairs without depth."""
    parallax = np.array([pose.parallax_deg for pose in poses], np.float64)
    matches = np.array([len(pose.keypoint) if pose.status is PairStatus.OK else 0 for pose in poses], np.float64)
    spread = np.where(parallax < BEST_PARALLAX_DEG, NARROW_DEG, WIDE_DEG)
    return matches * np.maximum(np.exp(-((parallax - BEST_PARALLAX_DEG) ** 2) / (2 * spread**2)), SMALLEST)


def _spanning_forest(
    pairs: Int[np.ndarray, "pair 2"], score: Float[np.ndarray, "pair"], num_images: int
) -> Int[np.ndarray, "edge"]:
    """Rows of the pairs."""
    rows = np.flatnonzero(score > 0)
    # ranks, not scores, are what a spanning tree depends on, and they cannot be lost in rounding; 0 would be no edge
    rank = np.empty(len(rows), np.int64)
    rank[np.argsort(-score[rows], kind="stable")] = np.arange(1, len(rows) + 1)
    tree = minimum_spanning_tree(csr_array((rank, tuple(pairs[rows].T)), shape=(num_images, num_images)))
    return rows[np.isin(rank, np.asarray(tree.data, np.int64))]
