"""Which pairs to look at, found out by looking: the most similar first, then what those that matched propose.

The verified pairs are a graph of photographs. Photographs with common neighbours in it probably overlap too (query
expansion: Chum et al., "Total recall", ICCV 2007; for pairs of photographs: Agarwal et al., "Building Rome in a day",
ICCV 2009; Heinly et al., "Reconstructing the world in six days", CVPR 2015). So every photograph asks, round after
round, for the pairs that promise most by similarity and common neighbours, until it has enough or finds no more; then
pairs across weak cuts of the graph are tried: between its components, and around pairs that no third photograph
confirms.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Num
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from anchorsfm.pairing.config import Auto

STRONG = 400
"""Verified matches from which on a pair is as good as any other."""
DOUBT = 0.5
"""What similarity counts by itself, in common neighbours by strong pairs."""
ASKED_PER_ROUND = 4
"""Pairs that a photograph asks for in one round."""
MAX_FAILURES = 8
"""Pairs without result, one after the other, after which a photograph asks for no more."""
ACROSS = 10
"""Pairs tried between a component and the others in one round, and beyond the limit of a photograph."""
MAX_FROM_ONE = 3
"""Of these, pairs of one photograph; also pairs that either photograph of an unconfirmed one asks for."""
MAX_ROUNDS = 60

Pairs = Int[np.ndarray, "_ 2"]


@dataclass(frozen=True, kw_only=True)
class TriedPairs:
    """What was looked at, in the order it was."""

    index: Pairs
    """Pairs i < j."""
    verified: Int[np.ndarray, "pair"]
    """Matches that agree with one geometry; 0: unmatched."""
    rounds: int


def expand(
    similarity: Float[np.ndarray, "image image"],
    look_at: Callable[[Pairs], Int[np.ndarray, "pair"]],
    config: Auto,
    *,
    neighbours: Pairs | None = None,
    allowed: Bool[np.ndarray, "image image"] | None = None,
) -> TriedPairs:
    """Look at pairs until enough are known; the work grows with the number of photographs, not of pairs.

    Args:
        similarity: finite, larger is more alike; in any unit.
        look_at: numbers of verified matches of pairs (i < j), each asked for once.
        config: how many pairs an image.
        neighbours: pairs that are likely for other reasons, looked at first.
        allowed: pairs that may be looked at; symmetric.
    """
    search = _Search(similarity, config, allowed)
    found = [search.first(neighbours)]
    while len(found) <= MAX_ROUNDS:
        search.learn(found[-1], look_at(found[-1]))
        proposed = search.asked()
        if not len(proposed):
            proposed = search.across_cuts()
        if not len(proposed):
            break
        found.append(proposed)
    index = np.concatenate(found)
    return TriedPairs(index=index, verified=search.verified[index[:, 0], index[:, 1]], rounds=len(found))


class _Search:
    """What is known of all pairs."""

    def __init__(
        self,
        similarity: Float[np.ndarray, "image image"],
        config: Auto,
        allowed: Bool[np.ndarray, "image image"] | None,
    ) -> None:
        num_images = len(similarity)
        self._config = config
        self._similarity = np.maximum(similarity, similarity.T) - min(float(similarity.min(initial=0.0)), 0.0)
        self._closed = np.eye(num_images, dtype=bool) if allowed is None else ~allowed | np.eye(num_images, dtype=bool)
        """Pairs that are not tried, or not again."""
        self.verified = np.zeros((num_images, num_images), np.int32)
        self._tried = np.zeros(num_images, np.int64)
        self._failures = np.zeros(num_images, np.int64)
        self._asking: list[tuple[int, int]] = []
        """Who asked for the pairs of this round, and with whom."""
        self._num_bridged = -1

    def first(self, neighbours: Pairs | None) -> Pairs:
        """The most similar of every image, and neighbours."""
        given = [] if neighbours is None else [(int(i), int(j)) for i, j in neighbours]
        return self._open(given + self._best(self._similarity, self._config.num_similar, self._everyone), margin=ACROSS)

    def learn(self, pairs: Pairs, verified: Int[np.ndarray, "pair"]) -> None:
        """Take down what pairs came to."""
        self.verified[pairs[:, 0], pairs[:, 1]] = self.verified[pairs[:, 1], pairs[:, 0]] = verified
        for image, other in self._asking:
            self._failures[image] = 0 if self.verified[image, other] else self._failures[image] + 1

    def asked(self) -> Pairs:
        """What images want that have too few verified pairs and were not disappointed too often."""
        degree = (self.verified > 0).sum(1)
        wanting = (degree < self._config.max_verified) & (self._failures < MAX_FAILURES)
        return self._open(self._best(self._score(), ASKED_PER_ROUND, wanting))

    def across_cuts(self) -> Pairs:
        """Pairs between components, and around pairs without common neighbours; none where they led nowhere before."""
        matched = csr_array((self.verified > 0).astype(np.int32))
        num_components, component = connected_components(matched, directed=False)
        score = self._score()
        wanted = self._confirming(score)
        if num_components != self._num_bridged:
            self._num_bridged = num_components
            wanted += self._between(component, score)
        return self._open(wanted, margin=ACROSS)

    @property
    def _everyone(self) -> Bool[np.ndarray, "image"]:
        return np.ones(len(self._closed), bool)

    def _score(self) -> Float[np.ndarray, "image image"]:
        """Similarity times the root of the number of common neighbours, those by weak pairs counted less."""
        strength = np.minimum(self.verified, STRONG) / np.float32(STRONG)
        return np.asarray(self._similarity * np.sqrt(DOUBT + _common(strength)))

    def _best(
        self, score: Float[np.ndarray, "image image"], count: int, wanting: Bool[np.ndarray, "image"]
    ) -> list[tuple[int, int]]:
        """The best open pairs of images, the best of all first: (who wants it, with whom)."""
        full = self._tried >= self._config.max_tried
        masked = np.where(self._closed | full[None], -np.inf, score)
        rows = np.flatnonzero(wanting & ~full)
        count = min(count, len(score))
        nearest = np.argpartition(-masked[rows], count - 1, axis=1)[:, :count] if len(rows) else np.zeros((0, 0), int)
        who, whom = np.repeat(rows, nearest.shape[1]), nearest.reshape(-1)
        value = masked[who, whom]
        order = np.lexsort((whom, who, -value))
        order = order[np.isfinite(value[order])]
        return list(zip(who[order].tolist(), whom[order].tolist(), strict=True))

    def _between(
        self, component: Int[np.ndarray, "image"], score: Float[np.ndarray, "image image"]
    ) -> list[tuple[int, int]]:
        """The best pairs of every component, but the largest, with the others."""
        wanted = []
        largest = np.bincount(component).argmax()
        for part in np.flatnonzero(np.arange(component.max() + 1) != largest):
            rows = np.flatnonzero(component == part)
            masked = np.where(self._closed[rows] | (component == part)[None], -np.inf, score[rows])
            best = np.argsort(-masked, axis=1, kind="stable")[:, :MAX_FROM_ONE]
            who, whom = np.repeat(rows, best.shape[1]), best.reshape(-1)
            value = np.take_along_axis(masked, best, axis=1).reshape(-1)
            order = np.lexsort((whom, who, -value))[:ACROSS]
            order = order[np.isfinite(value[order])]
            wanted += list(zip(who[order].tolist(), whom[order].tolist(), strict=True))
        return wanted

    def _confirming(self, score: Float[np.ndarray, "image image"]) -> list[tuple[int, int]]:
        """For verified pairs without common neighbours: what would be a third image."""
        matched = self.verified > 0
        common = _common(matched.astype(np.int32))
        wanted = []
        for i, j in np.argwhere(np.triu(matched & (common == 0))).tolist():
            for image, other in ((i, j), (j, i)):
                thirds = np.flatnonzero(matched[other] & ~self._closed[image])
                best = thirds[np.argsort(-score[image, thirds], kind="stable")[:MAX_FROM_ONE]]
                wanted += [(image, int(third)) for third in best]
        return wanted

    def _open(self, wanted: list[tuple[int, int]], margin: int = 0) -> Pairs:
        """Those of the wanted pairs that are tried now, i < j, sorted: each once, and not too many of an image."""
        chosen: set[tuple[int, int]] = set()
        self._asking = []
        limit = self._config.max_tried + margin
        for who, whom in wanted:
            pair = (min(who, whom), max(who, whom))
            if pair not in chosen:
                if self._closed[pair] or max(self._tried[who], self._tried[whom]) >= limit:
                    continue
                self._closed[who, whom] = self._closed[whom, who] = True
                self._tried[[who, whom]] += 1
                chosen.add(pair)
            self._asking.append((who, whom))
        return np.array(sorted(chosen), np.int64).reshape(-1, 2)


def _common(strength: Num[np.ndarray, "image image"]) -> Num[np.ndarray, "image image"]:
    """Sums over third images of the products of strengths; most strengths are 0."""
    sparse = csr_array(strength)
    return np.asarray((sparse @ sparse).todense())
