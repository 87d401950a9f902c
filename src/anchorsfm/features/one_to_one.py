"""Matches of descriptors as matches of keypoints, of which each occurs at most once."""

import numpy as np
from jaxtyping import Bool, Float, Int

from anchorsfm.features.base import FeatureMatches


def one_to_one(pairs: Int[np.ndarray, "candidate 2"], score: Float[np.ndarray, "candidate"]) -> FeatureMatches:
    """The better of candidates that share a keypoint; of equal ones the earlier.

    Args:
        pairs: keypoints of i and of j.
        score: 0 .. 1, larger is surer.
    """
    order = np.argsort(-score, kind="stable")
    return one_to_one_of_sorted(pairs[order], score[order])


def one_to_one_of_sorted(
    pairs: Int[np.ndarray, "candidate 2"], score: Float[np.ndarray, "candidate"]
) -> FeatureMatches:
    """Of candidates in the order of their worth, best first, those whose both ends did not occur before."""
    chosen = np.flatnonzero(_first_of_both(pairs))
    chosen = chosen[np.lexsort((pairs[chosen, 1], pairs[chosen, 0]))]
    return FeatureMatches(keypoint=pairs[chosen].astype(np.int32), score=score[chosen].astype(np.float32))


def _first_of_both(pairs: Int[np.ndarray, "candidate 2"]) -> Bool[np.ndarray, "candidate"]:
    first_i = np.zeros(len(pairs), bool)
    first_i[np.unique(pairs[:, 0], return_index=True)[1]] = True
    first_j = np.zeros(len(pairs), bool)
    first_j[np.unique(pairs[:, 1], return_index=True)[1]] = True
    return first_i & first_j
