"""Points that two methods have found both: one keypoint stands for them, and every keypoint is in one match of a pair.

Apart from `features.joint`, as workers of a cluster need only that, and no search for neighbours.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree


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
