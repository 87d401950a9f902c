"""Two methods as one: keypoints of the first in every photograph, those of a second where it was asked to help.

The keypoints of a photograph are one list: those of the first detector, followed by those of the second. Matches of a
pair are rows of these lists, whichever matcher found them; what verifies them or builds tracks need not know. A pair
that the second method never looked at has the keys and the matches that it has without it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree

from anchorsfm.features.base import FeatureMatches
from anchorsfm.features.store import FeatureStore, MatchStore
from anchorsfm.io.store import digest


@dataclass(frozen=True, kw_only=True)
class JointMatchStore:
    """Matches by one method, and for some pairs by a second one too."""

    first: MatchStore
    second: MatchStore
    pairs: frozenset[tuple[int, int]]
    """Pairs (i, j) that both methods match."""

    @property
    def features(self) -> FeatureStore:
        """Those of the first method."""
        return self.first.features

    def key(self, i: int, j: int) -> str:
        """Identifies the matches of a pair."""
        key = self.first.key(i, j)
        return digest("joint matches", key, self.second.key(i, j)) if (i, j) in self.pairs else key

    def with_pairs(self, pairs: Int[np.ndarray, "pair 2"]) -> "JointMatchStore":
        """With further pairs that both match."""
        added = frozenset((int(i), int(j)) for i, j in pairs)
        return JointMatchStore(first=self.first, second=self.second, pairs=self.pairs | added)


def joined(
    first: Int[np.ndarray, "match 2"], second: FeatureMatches, num_first: tuple[int, int]
) -> Int[np.ndarray, "both 2"]:
    """Matches of both methods; `num_first`: keypoints of the first in i and in j, which those of the second follow."""
    return np.concatenate([first, second.keypoint + np.array(num_first, first.dtype)]).astype(first.dtype)


def same_points(
    xy: Sequence[Float[np.ndarray, "_ 2"]],
    num_first: Sequence[int],
    radius_px: Float[np.ndarray, "image"],
    pairs: Int[np.ndarray, "pair 2"],
    matches: Sequence[Int[np.ndarray, "_ 2"]],
) -> list[Int[np.ndarray, "_"]]:
    """For every keypoint of an image the one that stands for it: itself, or the same point by the first method.

    A keypoint of the second method is the same point where a verified match of each method joins the same two places:
    both ends within the radius. One end alone means little where keypoints are dense. Of several candidates the one
    that most pairs propose is taken, then the nearest.

    Args:
        xy: keypoints of every image, original pixels, those of the first method first.
        num_first: how many these are.
        radius_px: of each image, original pixels.
        pairs: of images.
        matches: verified ones of every pair, rows of the keypoints.
    """
    votes: list[list[Int[np.ndarray, "2 _"]]] = [[] for _ in xy]
    for (i, j), keypoint in zip(pairs.tolist(), matches, strict=True):
        by_second = (keypoint >= (num_first[i], num_first[j])).all(axis=1)
        ours, theirs = keypoint[~by_second], keypoint[by_second]
        if not len(ours) or not len(theirs):
            continue
        places = [
            np.hstack([xy[i][rows[:, 0]] / radius_px[i], xy[j][rows[:, 1]] / radius_px[j]]) for rows in (ours, theirs)
        ]
        nearest = np.asarray(cKDTree(places[0]).query(places[1], p=np.inf, distance_upper_bound=1.0)[1])
        found = np.flatnonzero(nearest < len(ours))
        for end, image in enumerate((i, j)):
            votes[image].append(np.stack([theirs[found, end], ours[nearest[found], end]]))
    return [_elected(points, cast) for points, cast in zip(xy, votes, strict=True)]


def _elected(xy: Float[np.ndarray, "keypoint 2"], votes: list[Int[np.ndarray, "2 _"]]) -> Int[np.ndarray, "keypoint"]:
    """The keypoint that stands for each."""
    stands = np.arange(len(xy))
    if votes:
        proposed, count = np.unique(np.concatenate(votes, axis=1), axis=1, return_counts=True)
        apart = np.linalg.norm(xy[proposed[0]] - xy[proposed[1]], axis=1)
        order = np.lexsort((apart, -count, proposed[0]))
        theirs, place = np.unique(proposed[0][order], return_index=True)
        stands[theirs] = proposed[1][order][place]
    return stands


def once_each(keypoint: Int[np.ndarray, "match 2"]) -> Bool[np.ndarray, "match"]:
    """Which matches of a pair to keep so that every keypoint is in one at most: the earlier of two that share one."""
    kept = np.zeros(len(keypoint), bool)
    seen: tuple[set[int], set[int]] = (set(), set())
    for row, (i, j) in enumerate(keypoint.tolist()):
        if i not in seen[0] and j not in seen[1]:
            kept[row] = True
            seen[0].add(i)
            seen[1].add(j)
    return kept
