"""What speaks for and against a finished model, pair by pair, and the groups of views that it falls into.

Two kinds of evidence, both of which the adjustment does not use: verified matches that disagree with the poses
(`tracks.agreement`), and points that a view should see of another's and does not (`tracks.missing`). Each pair of views
gets a weight, positive if they belong together as the model says. The views are then grouped so that weights within
groups are as large as possible: correlation clustering by greedy additive edge contraction (Keuper et al., "Efficient
decomposition of image and mesh graphs by lifted multicuts", ICCV 2015), near-linear in the number of pairs. A model
that is right is one group: a chain of pairs that agree holds it together, and single wrong pairs are outweighed.
"""

import heapq
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from anchorsfm.scene.reconstruction import Reconstruction, Tracks
from anchorsfm.tracks.agreement import pair_agreement
from anchorsfm.tracks.build import KeypointMatches
from anchorsfm.tracks.missing import compare_views
from anchorsfm.tracks.points import triangulate_model

STRONG = 30
"""Verified matches of a pair that says something about a model."""
_SURE = 100
"""Verified matches from which on a pair counts in full."""
_CONFIRMING, _CONTRADICTING = 0.64, 2.3
"""Logarithms of likelihood ratios of a cell: half the cells of wrong pairs confirm them (on the thing that looks alike)
and half contradict them; of right pairs 95 % confirm them and 5 % contradict them."""
_MIN_CELLS, _FULL_CELLS = 4, 8
_AGREEING, _DISAGREEING = 0.15, 0.5
"""Weight of a pair all of whose matches agree (the model was made from them), and of one whose matches disagree."""


@dataclass(frozen=True, kw_only=True)
class PairEvidence:
    """Of pairs of views of a model that have verified matches or share points."""

    view: Int[np.ndarray, "pair 2"]
    """Rows of the model's views, the smaller one first, sorted."""
    matches: Int[np.ndarray, "pair"]
    """Verified."""
    agreeing: Int[np.ndarray, "pair"]
    """Of them, with the model."""
    looks: Float[np.ndarray, "pair"]
    """What the pictures say, as far as they can be compared: positive if they show the same, negative if they only look
    alike."""

    @property
    def contradicted(self) -> Bool[np.ndarray, "pair"]:
        """Pairs with enough verified matches, most of which disagree with the model."""
        return (self.matches >= STRONG) & (2 * self.agreeing < self.matches)

    @property
    def weight(self) -> Float[np.ndarray, "pair"]:
        """For (positive) or against the two views being placed as they are."""
        share = self.agreeing / np.maximum(self.matches, 1)
        sure = np.where(self.matches >= STRONG, np.minimum(self.matches / _SURE, 1.0), 0.0)
        poses = sure * np.where(share < 0.5, _DISAGREEING, _AGREEING) * (2 * share - 1)
        return np.where(self.contradicted, poses, poses + self.looks)


def gather_evidence(
    model: Reconstruction,
    matches: KeypointMatches,
    tracks: Tracks,
    *,
    max_error_px: Float[np.ndarray, "image"],
    min_angle_deg: float,
) -> PairEvidence:
    """Evidence on all pairs.

    Args:
        model: cameras and poses; its points are not used.
        matches: verified matches of the whole ImageSet, original pixels.
        tracks: those built from them.
        max_error_px: largest reprojection error in every image, original pixels; matches are allowed twice as much.
        min_angle_deg: smallest triangulation angle of a point.
    """
    agreement = pair_agreement(model, matches, tolerance_px=2 * max_error_px)
    threshold = max_error_px[model.image_index]
    cells = compare_views(
        triangulate_model(model, tracks, max_error_px=threshold, min_angle_deg=min_angle_deg, keep_all=True)
    )
    views = max(len(model.image_index), 1)
    keys = [pairs[:, 0] * views + pairs[:, 1] for pairs in (agreement.view, cells.view)]
    key = np.union1d(*keys)
    rows = [np.searchsorted(key, of) for of in keys]
    counts = np.zeros((2, len(key)), np.int64)
    counts[:, rows[0]] = agreement.matches, agreement.agreeing
    decided = cells.confirming + cells.contradicting
    looks = np.zeros(len(key))
    looks[rows[1]] = np.where(
        decided >= _MIN_CELLS,
        (_CONFIRMING * cells.confirming - _CONTRADICTING * cells.contradicting) / np.maximum(decided, _FULL_CELLS),
        0.0,
    )
    return PairEvidence(
        view=np.stack(np.divmod(key, views), axis=1), matches=counts[0], agreeing=counts[1], looks=looks
    )


def group_views(
    num_views: int, pairs: Int[np.ndarray, "pair 2"], weight: Float[np.ndarray, "pair"]
) -> Int[np.ndarray, "view"]:
    """Group of every view, 0 for the largest (of equal ones that with the first view).

    The two groups with the largest total weight between them are joined as long as it is positive.
    """
    near: list[dict[int, float]] = [{} for _ in range(num_views)]
    for (i, j), value in zip(pairs.tolist(), weight.tolist(), strict=True):
        if value != 0:
            near[i][j] = near[j][i] = value
    heap = [(-value, i, j) for i, others in enumerate(near) for j, value in others.items() if i < j and value > 0]
    heapq.heapify(heap)
    label = np.arange(num_views)
    while heap:
        value, i, j = heapq.heappop(heap)
        if near[i].get(j) != -value:
            continue  # joined with others since
        label[label == j] = i
        del near[i][j]
        for k, more in near[j].items():
            if k != i:
                total = near[i].get(k, 0.0) + more
                near[i][k] = near[k][i] = total
                del near[k][j]
                if total > 0:
                    heapq.heappush(heap, (-total, min(i, k), max(i, k)))
        near[j] = {}
    _, first, label, size = np.unique(label, return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(size), np.int64)
    rank[np.lexsort((first, -size))] = np.arange(len(size))
    return rank[label.reshape(-1)]
