"""Two methods as one: keypoints of the first in every photograph, those of a second where it was asked to help.

The keypoints of a photograph are one list: those of the first detector, followed by those of the second. Matches of a
pair are rows of these lists, whichever matcher found them; what verifies them or builds tracks need not know. A pair
that the second method never looked at has the keys and the matches that it has without it.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

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
