"""Which pairs to believe (docs/method.md, Which pairs to believe).

Repeated structure, and scenes that two views alone leave ambiguous, give pairs with many verified matches and a wrong
relative pose. Alone such a pair looks like any other; but relative rotations must close around every cycle of pairs.
Rotations of all images are estimated from all pairs (see `rotations`); a pair is

- confirmed, if it agrees with them and lies on a cycle of pairs that do;
- rejected, if it contradicts them although confirmed pairs tie its images together otherwise, or if it ties two groups
  of images together in a way that others, with nearly as much evidence, contradict;
- unconfirmed otherwise: nothing speaks against it, or nothing but itself for it.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import depth_first_order

from anchorsfm.geometry.links import connected_groups
from anchorsfm.pairing.config import ConsistencyConfig
from anchorsfm.pairing.rotations import (
    RelativeRotations,
    find_turn,
    loop_error_deg,
    rotations_of_images,
    triplets,
)

MIN_GROUP = 3
"""Groups of fewer images stay with the others whatever ties them: their points, later, are better evidence."""
CONTRADICTION = 0.5
"""One pair alone does not tie two groups together if pairs that contradict it have this share of its evidence."""
CONTEST = 0.75
"""Two groups are not tied together if the pairs that say so, and others that agree on another way, are so nearly equal
in evidence: which are wrong, nothing tells."""
MOST_SPLITS = 5
LITTLE = 1e-6
NOISE = 4.0
"""Relative rotations agree within this many times their median disagreement, where they are noisy."""


@dataclass(frozen=True, kw_only=True)
class Belief:
    """What the consistency of all pairs says about each."""

    confirmed: Bool[np.ndarray, "pair"]
    rejected: Bool[np.ndarray, "pair"]
    disagreement_deg: Float[np.ndarray, "pair"]
    """Angle between the relative rotation and what the rotations of all images say; NaN: it is not known."""

    def among(self, known: Bool[np.ndarray, "every"]) -> "Belief":
        """The same with others in between that nothing is known about."""
        confirmed, rejected = np.zeros(len(known), bool), np.zeros(len(known), bool)
        disagreement_deg = np.full(len(known), np.nan)
        confirmed[known], rejected[known], disagreement_deg[known] = (
            self.confirmed,
            self.rejected,
            self.disagreement_deg,
        )
        return Belief(confirmed=confirmed, rejected=rejected, disagreement_deg=disagreement_deg)


def judge_pairs(given: RelativeRotations, config: ConsistencyConfig) -> Belief:
    """Compare every pair with all others; where there are no cycles, nothing is confirmed and nothing contradicts."""
    num = len(given.pair)
    if not (config.enabled and num):
        none = np.zeros(num, bool)
        return Belief(confirmed=none, rejected=none, disagreement_deg=np.zeros(num))
    weight = given.evidence * _closing_share(given, config.agreement_deg)
    cam_from_world = rotations_of_images(given, weight, config.agreement_deg)
    disagreement_deg = given.disagreement_deg(cam_from_world)
    contested = _contested(given, weight, cam_from_world, config.agreement_deg)
    tolerance = max(1.0, NOISE * _weighted_median(disagreement_deg, weight) / config.agreement_deg)
    agrees = (disagreement_deg < tolerance * config.agreement_deg) & ~contested
    contradicts = disagreement_deg > tolerance * config.max_disagreement_deg
    forest = _Forest(given, agrees)
    confirmed = agrees & ~forest.is_bridge
    solid = _labels(given, confirmed)
    i, j = given.pair.T
    rejected = contradicts & (solid[i] == solid[j])
    rejected |= contested | _untied(given, forest, contradicts, config)
    return Belief(confirmed=confirmed & ~rejected, rejected=rejected, disagreement_deg=disagreement_deg)


def _contested(
    given: RelativeRotations,
    weight: Float[np.ndarray, "pair"],
    cam_from_world: Float[np.ndarray, "image 3 3"],
    agreement_deg: float,
) -> Bool[np.ndarray, "pair"]:
    """Pairs between two groups of images that others tie together in another way with nearly as much evidence."""
    i, j = given.pair.T
    contested = np.zeros(len(given.pair), bool)
    for _ in range(MOST_SPLITS):
        left = np.where(contested, LITTLE * weight, weight)
        turn = find_turn(given, left, cam_from_world, agreement_deg, CONTEST)
        if turn is None or min(turn.part.sum(), (~turn.part).sum()) < MIN_GROUP:
            break
        contested |= turn.part[i] != turn.part[j]
    return contested


def _closing_share(given: RelativeRotations, agreement_deg: float) -> Float[np.ndarray, "pair"]:
    """The share of its triplets that close, for each pair; half where there are none."""
    triplet = triplets(given)
    num = len(given.pair)
    closing = np.bincount(triplet[:, 0], loop_error_deg(given, triplet) < agreement_deg, num)
    return np.asarray((1 + closing) / (2 + np.bincount(triplet[:, 0], minlength=num)))


def _weighted_median(values: Float[np.ndarray, "value"], weight: Float[np.ndarray, "value"]) -> float:
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weight[order])
    return float(values[order[np.searchsorted(total, total[-1] / 2)]])


def _labels(given: RelativeRotations, used: Bool[np.ndarray, "pair"]) -> Int[np.ndarray, "image"]:
    """Which images the used pairs connect."""
    return connected_groups(given.num_images, given.pair[used])


def _adjacency(given: RelativeRotations, used: Bool[np.ndarray, "pair"]) -> coo_array:
    i, j = given.pair[used].T
    return coo_array((np.ones(len(i)), (i, j)), shape=(given.num_images, given.num_images))


class _Forest:
    """A spanning tree of each group of images that the used pairs connect, and which of these pairs are on no cycle."""

    def __init__(self, given: RelativeRotations, used: Bool[np.ndarray, "pair"]) -> None:
        adjacency = _adjacency(given, used).tocsr()
        self.label = _labels(given, used)
        self.place = np.empty(given.num_images, np.int64)
        """Of every image in the order of a depth-first traversal: those below an image follow it."""
        parent = np.full(given.num_images, -1)
        count = 0
        for root in np.unique(self.label, return_index=True)[1].tolist():
            order, before = depth_first_order(adjacency, root, directed=False)
            self.place[order] = count + np.arange(len(order))
            parent[order[1:]] = before[order[1:]]
            count += len(order)
        self.size = np.ones(given.num_images, np.int64)
        """Number of images at and below each."""
        for image in np.argsort(self.place)[::-1].tolist():
            if parent[image] >= 0:
                self.size[parent[image]] += self.size[image]
        self.is_bridge, self.below = self._bridges(given.pair, used, parent)

    def _bridges(
        self, pair: Int[np.ndarray, "pair 2"], used: Bool[np.ndarray, "pair"], parent: Int[np.ndarray, "image"]
    ) -> tuple[Bool[np.ndarray, "pair"], Int[np.ndarray, "pair"]]:
        """Which used pairs are tree edges that no other used pair spans; and the lower image of every tree edge."""
        i, j = pair.T
        below = np.where(parent[i] == j, i, np.where(parent[j] == i, j, -1))
        is_tree = used & (below >= 0)
        place, up = self.place.tolist(), parent.tolist()
        above = list(range(len(up)))
        """Images that another pair ties to what is above them are one with it."""

        def top(image: int) -> int:
            while above[image] != image:
                above[image] = above[above[image]]
                image = above[image]
            return image

        for row in np.flatnonzero(used & ~is_tree).tolist():
            a, b = top(int(i[row])), top(int(j[row]))
            while a != b:
                if place[a] < place[b]:
                    a, b = b, a
                above[a] = up[a]
                a = top(a)
        return is_tree & (np.array(above)[below] == below), below

    def separates(self, bridge: int, pair: Int[np.ndarray, "pair 2"]) -> Bool[np.ndarray, "pair"]:
        """Pairs with one image at and below the lower end of a bridge, and the other elsewhere in its group."""
        image = int(self.below[bridge])
        lower = (self.place >= self.place[image]) & (self.place < self.place[image] + self.size[image])
        group = self.label == self.label[image]
        i, j = pair.T
        return np.asarray((lower[i] != lower[j]) & group[i] & group[j])


def _untied(
    given: RelativeRotations, forest: _Forest, contradicts: Bool[np.ndarray, "pair"], config: ConsistencyConfig
) -> Bool[np.ndarray, "pair"]:
    """Pairs between two groups of images that only one pair ties together, where that is too little."""
    rejected = np.zeros(len(given.pair), bool)
    group_size = np.bincount(forest.label)
    for bridge in np.flatnonzero(forest.is_bridge).tolist():
        lower = forest.size[forest.below[bridge]]
        if min(lower, group_size[forest.label[forest.below[bridge]]] - lower) < MIN_GROUP:
            continue
        between = forest.separates(bridge, given.pair)
        against = given.evidence[between & contradicts].sum()
        for_it = given.evidence[between & ~contradicts].sum()
        if against > CONTRADICTION * for_it or for_it < config.min_bridge_matches:
            rejected |= between
    return rejected
