"""From pairwise matches to multi-view tracks (docs/method.md, Keypoints and tracks).

Keypoints of one image with the same coordinates are one node; matches join nodes. A connected set of nodes is a track
if it sees every image at most once. Where it sees an image twice it contradicts itself and is split: its matches are
taken again, most confident first, and a match that would bring a second observation of an image is left out.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from anchorsfm.geometry.links import connected_groups
from anchorsfm.geometry.rows import distinct_rows
from anchorsfm.scene.images import ImageGrid
from anchorsfm.scene.pairs import Matches, PairPrediction, PairStatus
from anchorsfm.scene.reconstruction import Tracks
from anchorsfm.tracks.coarse import CoarseKeypoints


@dataclass(frozen=True, kw_only=True)
class KeypointMatches:
    """Verified matches of all pairs, flat, in original pixels."""

    image_i: Int[np.ndarray, "match"]
    image_j: Int[np.ndarray, "match"]
    xy_i: Float[np.ndarray, "match 2"]
    xy_j: Float[np.ndarray, "match 2"]
    confidence: Float[np.ndarray, "match"]
    """On the scale of `scene.pairs.Matches`: 1 and below say nothing, 5 is doubtful, 10 and more certain. `sparsify`
    takes probabilities too."""

    def select(self, keep: np.ndarray) -> "KeypointMatches":
        """Those of a mask or of rows."""
        return KeypointMatches(
            image_i=self.image_i[keep],
            image_j=self.image_j[keep],
            xy_i=self.xy_i[keep],
            xy_j=self.xy_j[keep],
            confidence=self.confidence[keep],
        )

    def without_pairs(self, pairs: Int[np.ndarray, "pair 2"]) -> "KeypointMatches":
        """Those of other pairs than these, which have i < j."""
        if not len(pairs):
            return self
        stride = 1 + max(int(pairs.max()), int(self.image_j.max(initial=0)))
        return self.select(~np.isin(self.image_i * stride + self.image_j, pairs[:, 0] * stride + pairs[:, 1]))

    def finite(self) -> "KeypointMatches":
        """Those whose coordinates and confidence are numbers."""
        known = np.isfinite(self.xy_i).all(axis=1) & np.isfinite(self.xy_j).all(axis=1) & np.isfinite(self.confidence)
        return self if known.all() else self.select(known)


class KeypointMatchCollector:
    """Keeps the keypoint matches of predictions that stream past on their way to the scene graph."""

    def __init__(self, grid: ImageGrid, *, detects_keypoints: bool) -> None:
        """`detects_keypoints`: whether keypoint matches are taken, or those on the front end's grid."""
        self._grid = grid
        self._detects_keypoints = detects_keypoints
        self._pairs: list[tuple[int, int, Matches]] = []
        self._coarse: dict[int, list[Float[np.ndarray, "_ 2"]]] = {}

    def watch(self, predictions: Iterable[PairPrediction]) -> Iterator[PairPrediction]:
        """The same predictions, unchanged."""
        for prediction in predictions:
            matches = self._in_original_pixels(prediction)
            if len(matches):
                self._pairs.append((prediction.i, prediction.j, matches))
                if matches.is_coarse is not None:
                    self._coarse.setdefault(prediction.i, []).append(matches.xy_i[matches.is_coarse[:, 0]])
                    self._coarse.setdefault(prediction.j, []).append(matches.xy_j[matches.is_coarse[:, 1]])
            yield prediction

    def _in_original_pixels(self, prediction: PairPrediction) -> Matches:
        if prediction.status is PairStatus.CONTRADICTED:
            return Matches.empty()
        if self._detects_keypoints:
            return prediction.keypoint_matches or Matches.empty()
        return Matches(
            xy_i=self._grid.to_image(prediction.i, prediction.matches.xy_i),
            xy_j=self._grid.to_image(prediction.j, prediction.matches.xy_j),
            confidence=prediction.matches.confidence,
        )

    def coarse(self) -> CoarseKeypoints | None:
        """Which keypoints are less exact than others; None: there is one kind."""
        if not self._coarse:
            return None
        return CoarseKeypoints(xy={image: np.concatenate(parts) for image, parts in self._coarse.items()})

    def finish(self) -> KeypointMatches:
        """Everything seen so far."""
        return KeypointMatches(
            image_i=np.concatenate([np.full(len(m), i) for i, _, m in self._pairs] or [np.zeros(0, np.int64)]),
            image_j=np.concatenate([np.full(len(m), j) for _, j, m in self._pairs] or [np.zeros(0, np.int64)]),
            xy_i=np.concatenate([m.xy_i for _, _, m in self._pairs] or [np.zeros((0, 2))]),
            xy_j=np.concatenate([m.xy_j for _, _, m in self._pairs] or [np.zeros((0, 2))]),
            confidence=np.concatenate([m.confidence for _, _, m in self._pairs] or [np.zeros(0)]),
        )


def build_tracks(matches: KeypointMatches, num_images: int) -> Tracks:
    """Tracks of at least two observations, at most one per image, in a fixed order.

    Matches whose coordinates are no numbers are left out.
    """
    matches = matches.finite()
    if not len(matches.confidence):
        return Tracks.empty()
    image = np.concatenate([matches.image_i, matches.image_j])
    xy = np.concatenate([matches.xy_i, matches.xy_j])
    keypoints, node = distinct_rows(np.column_stack([image, xy]))
    node_image = keypoints[:, 0].astype(np.int64)
    ends = np.stack([node[: len(matches.image_i)], node[len(matches.image_i) :]], axis=1)
    label = connected_groups(len(keypoints), ends)
    label = _split_conflicts(label, ends, node_image, matches.confidence, num_images)
    return _tracks_from_labels(label, node_image, keypoints[:, 1:])


def _split_conflicts(
    label: Int[np.ndarray, "node"],
    ends: Int[np.ndarray, "match 2"],
    node_image: Int[np.ndarray, "node"],
    confidence: Float[np.ndarray, "match"],
    num_images: int,
) -> Int[np.ndarray, "node"]:
    seen, count = np.unique(label * num_images + node_image, return_counts=True)
    conflicting = np.unique(seen[count > 1] // num_images)
    if not len(conflicting):
        return label
    rows = np.flatnonzero(np.isin(label[ends[:, 0]], conflicting))
    rows = rows[np.argsort(-confidence[rows], kind="stable")]
    members = {n: {int(node_image[n])} for n in np.unique(ends[rows]).tolist()}
    parent = {n: n for n in members}

    def find(n: int) -> int:
        while parent[n] != n:
            parent[n] = parent[parent[n]]
            n = parent[n]
        return n

    for a, b in ends[rows].tolist():
        root_a, root_b = find(a), find(b)
        if root_a != root_b and members[root_a].isdisjoint(members[root_b]):
            parent[root_b] = root_a
            members[root_a] |= members.pop(root_b)
    out = label.copy()
    base = int(label.max()) + 1
    for n in parent:
        out[n] = base + find(n)
    return out


def _tracks_from_labels(
    label: Int[np.ndarray, "node"], node_image: Int[np.ndarray, "node"], xy: Float[np.ndarray, "node 2"]
) -> Tracks:
    _, label, length = np.unique(label, return_inverse=True, return_counts=True)
    keep = length[label] >= 2
    order = np.lexsort((node_image[keep], label[keep]))
    point = np.unique(label[keep][order], return_inverse=True)[1]
    return Tracks(obs_point=point, obs_image=node_image[keep][order], obs_xy=xy[keep][order])
