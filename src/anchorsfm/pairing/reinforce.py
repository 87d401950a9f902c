"""Which pairs a second, dearer method looks at too: those that promise most where photographs hold on to too little.

The first method has matched all pairs. A photograph is well tied if enough of its pairs have many verified matches;
others ask, round after round, for their most promising pairs: alike, with common neighbours in the graph of verified
pairs, and with few matches so far. When nobody asks any more, the best pairs between the components of that graph are
tried. What was found is learnt after each round. Photographs that are disappointed several times ask for no more, and
a budget bounds the whole.
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from anchorsfm.geometry.links import connected_groups
from anchorsfm.pairing.config import ReinforceConfig
from anchorsfm.pairing.expansion import DOUBT, STRONG

ENOUGH = 3
"""Pairs with many verified matches that tie a photograph well."""
MAX_FAILURES = 3
"""Pairs without result, one after the other, after which a photograph asks for no more."""
ACROSS = 3
"""Pairs tried between a component and the others in one round."""
MIN_BUDGET = 10
"""Pairs that few photographs may ask for."""
LITTLE = 1e-3
"""Likeness of photographs that have no words in common: common neighbours speak for them all the same."""
MIN_TIE = 60
"""Verified matches with which a pair ties two components together."""


class Reinforcement:
    """The state of the choice: what is known of all pairs, and what was asked for."""

    def __init__(
        self,
        pairs: Int[np.ndarray, "pair 2"],
        verified: Int[np.ndarray, "pair"],
        similarity: Float[np.ndarray, "image image"],
        config: ReinforceConfig,
    ) -> None:
        """`pairs`: those that there are; `verified`: their matches by the first method; `similarity`: 0 and more."""
        num_images = len(similarity)
        self._pairs, self._verified = pairs, verified.astype(np.int64)
        self._similarity = similarity[pairs[:, 0], pairs[:, 1]].astype(np.float64)
        self._asked = np.zeros(len(pairs), bool)
        self._failures = np.zeros(num_images, np.int64)
        self._limit = config.pairs_per_image
        few = MIN_BUDGET if config.pairs_per_image else 0
        self.budget = max(int(np.ceil(config.budget * num_images)), few)
        """Pairs that may be asked for in all."""
        self._left = self.budget
        self._num_bridged = -1

    def next_rows(self) -> Int[np.ndarray, "asked"]:
        """Rows of the pairs to look at now, ascending; none: it is done."""
        score = self._promise()
        wanted = self._for_needy(score)
        if not len(wanted):
            wanted = self._between_components(score)
        chosen = np.sort(wanted[: self._left])
        self._asked[chosen] = True
        self._left -= len(chosen)
        return chosen

    def learn(self, rows: Int[np.ndarray, "asked"], verified: Int[np.ndarray, "asked"]) -> None:
        """Take down how many verified matches pairs have with both methods."""
        gained = verified > self._verified[rows]
        self._verified[rows] = verified
        for pair, found in zip(self._pairs[rows].tolist(), gained.tolist(), strict=True):
            for image in pair:
                self._failures[image] = 0 if found else self._failures[image] + 1

    def _promise(self) -> Float[np.ndarray, "pair"]:
        """Likeness times the root of the number of common neighbours, less for pairs that have many matches."""
        strength = np.minimum(self._verified, STRONG) / STRONG
        num_images = len(self._failures)
        half = csr_array((strength, (self._pairs[:, 0], self._pairs[:, 1])), (num_images, num_images))
        graph = csr_array(half + half.T)
        common = np.asarray((graph @ graph).todense())[self._pairs[:, 0], self._pairs[:, 1]]
        return np.asarray((LITTLE + self._similarity) * np.sqrt(DOUBT + common) / (1 + self._verified / STRONG))

    def _for_needy(self, score: Float[np.ndarray, "pair"]) -> Int[np.ndarray, "wanted"]:
        """The best open pair of every image that is not well tied, the best of all first."""
        num_images = len(self._failures)
        strong = np.bincount(self._pairs[self._verified >= STRONG].reshape(-1), minlength=num_images)
        asked = np.bincount(self._pairs[self._asked].reshape(-1), minlength=num_images)
        asks = (strong < ENOUGH) & (asked < self._limit) & (self._failures < MAX_FAILURES)
        return self._best(score, self._pairs, asks, 1)

    def _between_components(self, score: Float[np.ndarray, "pair"]) -> Int[np.ndarray, "wanted"]:
        """The best open pairs of every component but the largest with others; none where that led nowhere before."""
        component = connected_groups(len(self._failures), self._pairs[self._verified >= MIN_TIE])
        ends = component[self._pairs]
        num_components = len(np.unique(component))
        if num_components == self._num_bridged:
            return np.zeros(0, np.int64)
        self._num_bridged = num_components
        asks = np.arange(len(component)) != np.bincount(component).argmax()
        return self._best(np.where(ends[:, 0] != ends[:, 1], score, -np.inf), ends, asks, ACROSS)

    def _best(
        self,
        score: Float[np.ndarray, "pair"],
        ends: Int[np.ndarray, "pair 2"],
        asks: Bool[np.ndarray, "end"],
        count: int,
    ) -> Int[np.ndarray, "wanted"]:
        """The best open pairs of each end that asks (an image, or a component), the best of all first."""
        order = np.argsort(-score, kind="stable")
        order = order[np.isfinite(score[order]) & ~self._asked[order]]
        granted = np.zeros(len(asks), np.int64)
        wanted = []
        for row in order.tolist():
            mine = [end for end in ends[row].tolist() if asks[end] and granted[end] < count]
            if mine:
                wanted.append(row)
                granted[mine] += 1
        return np.array(wanted, np.int64)
