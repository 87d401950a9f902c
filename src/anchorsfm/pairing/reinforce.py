"""Which pairs a second, dearer method looks at too: those that promise most where photographs hold on to too little.

The first method has matched all pairs. A photograph is well tied if its pairs have many verified matches between them;
others ask, round after round, for their most promising pairs: with some matches, or alike and with common neighbours in
the graph of verified pairs. First of all the best pairs between the components of that graph are tried; single
photographs are no components, but badly tied. What was found is learnt after each round. Photographs that are
disappointed several times ask for no more.

A budget bounds the whole. It counts what the second method has to do for a pair: match it, and find the keypoints of
those of its photographs that it has not seen before. So photographs it knows are asked about first.
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from anchorsfm.geometry.links import connected_groups
from anchorsfm.pairing.config import ReinforceConfig
from anchorsfm.pairing.expansion import DOUBT, STRONG

ENOUGH = 3
"""Pairs with many verified matches that tie a photograph well; those with fewer count by their share of them."""
MAX_FAILURES = 3
"""Pairs without result, one after the other, after which a photograph asks for no more."""
ACROSS = 3
"""Pairs tried between a component and the others in one round."""
MIN_BUDGET = 10
"""What few photographs may ask for, in pairs."""
LITTLE = 1e-3
"""Likeness of photographs that have no words in common: common neighbours speak for them all the same."""
MIN_TIE = 60
"""Verified matches with which a pair ties two components together."""
_ROUNDING = 1e-9


class Reinforcement:
    """The state of the choice: what is known of all pairs, and what was asked for."""

    def __init__(
        self,
        pairs: Int[np.ndarray, "pair 2"],
        verified: Int[np.ndarray, "pair"],
        similarity: Float[np.ndarray, "image image"],
        config: ReinforceConfig,
        photograph_cost: float = 0.0,
    ) -> None:
        """
        Args:
            pairs: those that there are.
            verified: their matches by the first method.
            similarity: of all images, 0 and more.
            config: how much may be done.
            photograph_cost: what the second method does once for a photograph, over what it does for a pair.
        """
        num_images = len(similarity)
        self._pairs, self._verified = pairs, verified.astype(np.int64)
        self._similarity = similarity[pairs[:, 0], pairs[:, 1]].astype(np.float64)
        self._asked = np.zeros(len(pairs), bool)
        self._failures = np.zeros(num_images, np.int64)
        self._seen = np.zeros(num_images, bool)
        self._limit, self._photograph_cost = config.pairs_per_image, photograph_cost
        few = MIN_BUDGET if config.pairs_per_image else 0
        self.budget = max(config.budget * num_images, few)
        """What may be done in all, in pairs."""
        self.spent = 0.0
        """Of the budget, so far."""
        self._num_bridged = -1

    def next_rows(self) -> Int[np.ndarray, "asked"]:
        """Rows of the pairs to look at now, ascending; none: it is done."""
        promise = self._promise()
        chosen = self._affordable(self._between_components(promise))
        if not len(chosen):
            chosen = self._affordable(self._for_needy(promise))
        self._asked[chosen] = True
        return np.sort(chosen)

    def learn(self, rows: Int[np.ndarray, "asked"], verified: Int[np.ndarray, "asked"]) -> None:
        """Take down how many verified matches pairs have with both methods."""
        gained = verified > self._verified[rows]
        self._verified[rows] = verified
        for pair, found in zip(self._pairs[rows].tolist(), gained.tolist(), strict=True):
            for image in pair:
                self._failures[image] = 0 if found else self._failures[image] + 1

    def unrelated(self) -> list[tuple[int, int]]:
        """Every image that no pair ties to another one, with the row of its most promising pair.

        Where that is a pair of two such images, only one of them is named.
        """
        num_images = len(self._failures)
        tied = np.bincount(self._pairs[self._verified >= MIN_TIE].reshape(-1), minlength=num_images) > 0
        ties = tied[self._pairs]
        order = np.lexsort((-self._promise(), ~ties.any(axis=1)))  # first those with images that are tied
        found: dict[int, int] = {}
        met: set[int] = set()
        for row in order[~ties[order].all(axis=1)].tolist():
            i, j = self._pairs[row].tolist()
            image = j if tied[i] else i
            if image not in met:
                found[image] = row
                met.update(end for end in (i, j) if not tied[end])
        return list(found.items())

    def pay(self, num_pairs: int, num_photographs: int) -> bool:
        """Whether the budget allows further pairs and photographs; then they are spent."""
        cost = num_pairs + self._photograph_cost * num_photographs
        allowed = self.spent + cost <= self.budget + _ROUNDING
        self.spent += cost if allowed else 0.0
        return allowed

    def _promise(self) -> Float[np.ndarray, "pair"]:
        """Chance that a pair overlaps, less where it has many matches already.

        Weakly verified pairs do, and gain most; others may as they are alike and have common neighbours.
        """
        strength = np.minimum(self._verified, STRONG) / STRONG
        num_images = len(self._failures)
        half = csr_array((strength, (self._pairs[:, 0], self._pairs[:, 1])), (num_images, num_images))
        graph = csr_array(half + half.T)
        common = np.asarray((graph @ graph).todense())[self._pairs[:, 0], self._pairs[:, 1]]
        score = (LITTLE + self._similarity) * np.sqrt(DOUBT + common)
        is_weak = (self._verified > 0) & (self._verified < STRONG)
        chance = np.where(is_weak, 1.0, score / (1 + score))
        return np.asarray(chance / (1 + self._verified / STRONG))

    def _for_needy(self, promise: Float[np.ndarray, "pair"]) -> Int[np.ndarray, "wanted"]:
        """The best open pair of every image that is not well tied, the best of all first: those of the worst tied."""
        num_images = len(self._failures)
        share = np.minimum(self._verified, STRONG) / STRONG
        ties = np.bincount(self._pairs.reshape(-1), weights=np.repeat(share, 2), minlength=num_images)
        asked = np.bincount(self._pairs[self._asked].reshape(-1), minlength=num_images)
        lacks = np.where((asked < self._limit) & (self._failures < MAX_FAILURES), np.maximum(ENOUGH - ties, 0), 0)
        worth = promise * lacks[self._pairs].max(axis=1) / self._costs()
        return self._best(worth, self._pairs, lacks > 0, 1)

    def _between_components(self, promise: Float[np.ndarray, "pair"]) -> Int[np.ndarray, "wanted"]:
        """The best open pairs of every component but the largest with others; none where that led nowhere before."""
        component = connected_groups(len(self._failures), self._pairs[self._verified >= MIN_TIE])
        ends = component[self._pairs]
        num_components = len(np.unique(component))
        if num_components == self._num_bridged:
            return np.zeros(0, np.int64)
        self._num_bridged = num_components
        size = np.bincount(component, minlength=len(component))
        asks = (np.arange(len(component)) != size.argmax()) & (size > 1)
        worth = np.where(ends[:, 0] != ends[:, 1], promise / self._costs(), -np.inf)
        return self._best(worth, ends, asks, ACROSS)

    def _costs(self) -> Float[np.ndarray, "pair"]:
        """Of each pair, in pairs."""
        return np.asarray(1 + self._photograph_cost * (~self._seen[self._pairs]).sum(axis=1))

    def _affordable(self, wanted: Int[np.ndarray, "wanted"]) -> Int[np.ndarray, "chosen"]:
        """Those that the budget still allows, in their order; what they cost is spent."""
        chosen = []
        for row in wanted.tolist():
            ends = self._pairs[row]
            if self.pay(1, int((~self._seen[ends]).sum())):
                chosen.append(row)
                self._seen[ends] = True
        return np.array(chosen, np.int64)

    def _best(
        self,
        worth: Float[np.ndarray, "pair"],
        ends: Int[np.ndarray, "pair 2"],
        asks: Bool[np.ndarray, "end"],
        count: int,
    ) -> Int[np.ndarray, "wanted"]:
        """The best open pairs of each end that asks (an image, or a component), the best of all first."""
        order = np.argsort(-worth, kind="stable")
        order = order[np.isfinite(worth[order]) & ~self._asked[order]]
        granted = np.zeros(len(asks), np.int64)
        wanted = []
        for row in order.tolist():
            mine = [end for end in ends[row].tolist() if asks[end] and granted[end] < count]
            if mine:
                wanted.append(row)
                granted[mine] += 1
        return np.array(wanted, np.int64)
