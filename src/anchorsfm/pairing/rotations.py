"""Rotations of all images from those of pairs, some of which are wrong (docs/method.md, Which pairs to believe).

First the images are merged into ever larger groups, the best supported first. All pairs between two groups vote for the
rotation that brings one onto the other, and those that agree win: many wrong pairs do no harm while they disagree, or
agree with less evidence than the right ones. Iteratively reweighted least squares distribute what is left over the
cycles (Chatterjee and Govindu, "Efficient and robust large-scale rotation averaging", ICCV 2013, with the weights of
Geman and McClure). What was merged early, by few pairs, may be wrong: where pairs that contradict the result agree with
each other on how a part of the images should be turned, the part is found as a minimum cut (as moves of Boykov, Veksler
and Zabih, PAMI 2001), and turned if that satisfies more evidence than it breaks.
"""

import heapq
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csc_array, csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow
from scipy.sparse.linalg import splu
from scipy.spatial.transform import Rotation

from anchorsfm.geometry.links import connected_groups
from anchorsfm.geometry.transforms import rotation_angle_deg

MOST_VOTES = 48
"""Of the pairs between two groups those with the most evidence vote."""
MOST_WISHES = 384
"""Of all pairs that contradict the rest, those with the most evidence say how a part might be turned."""
MARGIN = 1.05
"""By so much more evidence has to speak for another rotation of a part of the images."""
MOST_TURNS = 20
TURNS_TRIED = 5
MOST_FLOW = 1e9
"""Evidence in a minimum cut is in whole numbers that add up to this."""
TRIPLETS_PER_PAIR = 12
ROUNDS = 20


@dataclass(frozen=True, kw_only=True)
class RelativeRotations:
    """How the cameras of pairs are turned against each other."""

    num_images: int
    pair: Int[np.ndarray, "pair 2"]
    """i < j, each pair once."""
    rotation: Float[np.ndarray, "pair 3 3"]
    """j_from_i."""
    evidence: Float[np.ndarray, "pair"]
    """How much speaks for each pair, above 0: its number of matches."""

    def from_end(self, row: Int[np.ndarray, "row"], image: Int[np.ndarray, "row"]) -> Float[np.ndarray, "row 3 3"]:
        """Rotations of pairs that bring directions of `image`, one end of each, into the frame of the other."""
        rotation = self.rotation[row]
        forward = (self.pair[row, 0] == image)[:, None, None]
        return np.where(forward, rotation, np.swapaxes(rotation, 1, 2))

    def residual(
        self, cam_from_world: Float[np.ndarray, "image 3 3"], row: Int[np.ndarray, "row"] | slice = slice(None)
    ) -> Float[np.ndarray, "row 3 3"]:
        """By what each pair wants its second image turned: it agrees if cam_from_world of j is multiplied by this."""
        i, j = self.pair[row].T
        return np.swapaxes(cam_from_world[j], 1, 2) @ self.rotation[row] @ cam_from_world[i]

    def disagreement_deg(self, cam_from_world: Float[np.ndarray, "image 3 3"]) -> Float[np.ndarray, "pair"]:
        """Angles between relative rotations and what the rotations of all images say."""
        return rotation_angle_deg(self.residual(cam_from_world))


def triplets(given: RelativeRotations) -> Int[np.ndarray, "triplet 3"]:
    """Rows of the three pairs of triplets of images: ij, ik and jk; for each pair ij those with the most evidence."""
    num = len(given.pair)
    ends = np.concatenate([given.pair, given.pair[:, ::-1]])
    order = np.lexsort((ends[:, 1], ends[:, 0]))
    neighbour, row = ends[order, 1], np.tile(np.arange(num), 2)[order]
    start = np.searchsorted(ends[order, 0], np.arange(given.num_images + 1))
    found = [np.zeros((0, 3), np.int64)]
    for pair, (i, j) in enumerate(given.pair.tolist()):
        of_i, of_j = slice(start[i], start[i + 1]), slice(start[j], start[j + 1])
        _, at_i, at_j = np.intersect1d(neighbour[of_i], neighbour[of_j], assume_unique=True, return_indices=True)
        ik, jk = row[of_i][at_i], row[of_j][at_j]
        best = np.argsort(-np.minimum(given.evidence[ik], given.evidence[jk]), kind="stable")[:TRIPLETS_PER_PAIR]
        found.append(np.stack([np.full(len(best), pair), ik[best], jk[best]], axis=1))
    return np.concatenate(found)


def loop_error_deg(given: RelativeRotations, triplet: Int[np.ndarray, "triplet 3"]) -> Float[np.ndarray, "triplet"]:
    """Angle of the rotation i -> j -> k -> i, which is none where all three pairs are right (Zach, Klopschitz and
    Pollefeys, "Disambiguating visual relations using loop constraints", CVPR 2010)."""
    ij, ik, jk = triplet.T
    i, j = given.pair[ij].T
    k = given.pair[ik].sum(axis=1) - i
    return rotation_angle_deg(given.from_end(ik, k) @ given.from_end(jk, j) @ given.rotation[ij])


def rotations_of_images(
    given: RelativeRotations, weight: Float[np.ndarray, "pair"], agreement_deg: float
) -> Float[np.ndarray, "image 3 3"]:
    """cam_from_world of every image; images that no pairs connect have worlds of their own.

    weight: of every pair, above 0. agreement_deg: pairs that differ by less agree.
    """
    merged = merge_by_votes(given, weight, agreement_deg)
    averaged = average_rotations(given, weight, merged, agreement_deg)
    turned = turn_parts(given, weight, averaged, agreement_deg)
    return averaged if turned is averaged else average_rotations(given, weight, turned, agreement_deg)


def merge_by_votes(
    given: RelativeRotations, weight: Float[np.ndarray, "pair"], agreement_deg: float
) -> Float[np.ndarray, "image 3 3"]:
    """cam_from_world of every image, from groups that are merged by the votes of the pairs between them."""
    groups = _Groups(given, weight, agreement_deg)
    while groups.merge_next():
        pass
    return groups.cam_from_world


@dataclass(frozen=True, kw_only=True)
class _Vote:
    """What most votes agree on."""

    weight: float
    rotation: Float[np.ndarray, "3 3"]


def _count(
    votes: Float[np.ndarray, "vote 3 3"], weight: Float[np.ndarray, "vote"], agreement_deg: float, most: int
) -> _Vote:
    """The rotation that the most weight agrees on; only the `most` heaviest votes are counted."""
    heaviest = np.argsort(-weight, kind="stable")[:most]
    votes, weight = votes[heaviest], weight[heaviest]
    agrees = rotation_angle_deg(votes[:, None] @ np.swapaxes(votes, 1, 2)) < agreement_deg
    total = agrees @ weight
    best = agrees[int(total.argmax())]
    mean = Rotation.from_matrix(votes[best]).mean(weight[best]).as_matrix()
    return _Vote(weight=float(total.max()), rotation=mean)


class _Groups:
    """Groups of images with rotations against a frame of each; at first every image is one."""

    def __init__(self, given: RelativeRotations, weight: Float[np.ndarray, "pair"], agreement_deg: float) -> None:
        self.cam_from_world = np.tile(np.eye(3), (given.num_images, 1, 1))
        self._given, self._weight, self._agreement_deg = given, weight, agreement_deg
        self._group = np.arange(given.num_images)
        self._members: list[list[int]] = [[image] for image in range(given.num_images)]
        self._between: list[dict[int, list[int]]] = [{} for _ in range(given.num_images)]
        """For each group, the pairs that join it to others."""
        for row, (i, j) in enumerate(given.pair.tolist()):
            self._between[i][j] = self._between[j][i] = [row]
        self._votes: dict[tuple[int, int], _Vote] = {}
        """By groups a < b: of b from a."""
        self._queue: list[tuple[float, int, int]] = []
        for i, j in given.pair.tolist():
            self._count_votes(i, j)

    def merge_next(self) -> bool:
        """Merge the two groups whose pairs agree with the most evidence; False: none are left to merge."""
        while self._queue:
            weight, a, b = heapq.heappop(self._queue)
            vote = self._votes.get((a, b))
            if vote is not None and vote.weight == -weight:  # others were counted anew since
                self._merge(a, b, vote)
                return True
        return False

    def _merge(self, a: int, b: int, vote: _Vote) -> None:
        kept, gone = (a, b) if len(self._members[a]) >= len(self._members[b]) else (b, a)
        moved = np.array(self._members[gone])
        self.cam_from_world[moved] = self.cam_from_world[moved] @ (vote.rotation if gone == b else vote.rotation.T)
        self._group[moved] = kept
        self._members[kept] += self._members[gone]
        self._members[gone] = []
        del self._votes[a, b], self._between[a][b], self._between[b][a]
        for other, rows in sorted(self._between[gone].items()):
            self._votes.pop((min(gone, other), max(gone, other)), None)
            del self._between[other][gone]
            joined = self._between[kept].get(other, []) + rows
            self._between[kept][other] = self._between[other][kept] = joined
            self._count_votes(kept, other)
        self._between[gone] = {}

    def _count_votes(self, first: int, second: int) -> None:
        a, b = min(first, second), max(first, second)
        rows = np.array(self._between[a][b])
        votes = self._given.residual(self.cam_from_world, rows)
        backward = (self._group[self._given.pair[rows, 0]] == b)[:, None, None]
        votes = np.where(backward, np.swapaxes(votes, 1, 2), votes)
        self._votes[a, b] = vote = _count(votes, self._weight[rows], self._agreement_deg, MOST_VOTES)
        heapq.heappush(self._queue, (-vote.weight, a, b))


def average_rotations(
    given: RelativeRotations,
    weight: Float[np.ndarray, "pair"],
    start: Float[np.ndarray, "image 3 3"],
    agreement_deg: float,
) -> Float[np.ndarray, "image 3 3"]:
    """cam_from_world that fit all pairs, with less weight the more a pair disagrees (tolerance `agreement_deg`)."""
    num = given.num_images
    i, j = given.pair.T
    every = np.arange(num)
    held = np.zeros(num)
    held[np.unique(connected_groups(num, given.pair), return_index=True)[1]] = 1.0
    cam_from_world = start
    for _ in range(ROUNDS):
        turn = Rotation.from_matrix(given.residual(cam_from_world)).as_rotvec()
        relative = np.degrees(np.linalg.norm(turn, axis=1)) / agreement_deg
        current = weight / weight.max() / (1 + relative**2) ** 2
        current = np.maximum(current, 1e-9)
        degree = np.bincount(i, current, num) + np.bincount(j, current, num) + held
        values = np.concatenate([degree, -current, -current])
        rows, columns = np.concatenate([every, i, j]), np.concatenate([every, j, i])
        laplacian = csc_array((values, (rows, columns)), shape=(num, num))
        right = np.stack(
            [np.bincount(i, current * axis, num) - np.bincount(j, current * axis, num) for axis in turn.T], axis=1
        )
        step = splu(laplacian).solve(right)
        cam_from_world = cam_from_world @ Rotation.from_rotvec(-step).as_matrix()
        if np.abs(step).max() < 1e-6:
            break
    return cam_from_world


def turn_parts(
    given: RelativeRotations,
    weight: Float[np.ndarray, "pair"],
    cam_from_world: Float[np.ndarray, "image 3 3"],
    agreement_deg: float,
) -> Float[np.ndarray, "image 3 3"]:
    """cam_from_world with those parts of the images turned for which pairs with more weight ask than speak against."""
    for _ in range(MOST_TURNS):
        turn = find_turn(given, weight, cam_from_world, agreement_deg, MARGIN)
        if turn is None:
            break
        cam_from_world = np.where(turn.part[:, None, None], cam_from_world @ turn.rotation, cam_from_world)
    return cam_from_world


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Another place for a part of the images."""

    part: Bool[np.ndarray, "image"]
    rotation: Float[np.ndarray, "3 3"]
    """What cam_from_world of the part would be multiplied by."""


def find_turn(
    given: RelativeRotations,
    weight: Float[np.ndarray, "pair"],
    cam_from_world: Float[np.ndarray, "image 3 3"],
    agreement_deg: float,
    share: float,
) -> Turn | None:
    """A part of the images that pairs want turned with more than this share of the weight that speaks against."""
    residual = given.residual(cam_from_world)
    disagreement_deg = rotation_angle_deg(residual)
    agrees = disagreement_deg < agreement_deg
    against = np.flatnonzero(disagreement_deg > 2 * agreement_deg)
    turns = np.concatenate([residual[against], np.swapaxes(residual[against], 1, 2)])
    # each pair wants its second image turned against the first, or the first the other way
    ends = np.concatenate([given.pair[against], given.pair[against, ::-1]])
    wanted = np.tile(weight[against], 2)
    left = wanted.copy()
    for _ in range(TURNS_TRIED):
        if not left.any():
            break
        rotation = _count(turns, left, agreement_deg, MOST_WISHES).rotation
        agree = rotation_angle_deg(turns @ rotation.T) < agreement_deg
        if not agree.any():
            break
        part = _cut(given, np.where(agrees, weight, 0), ends[agree], wanted[agree] / share)
        first, second = ends[agree].T
        gained = wanted[agree][part[second] & ~part[first]].sum()
        i, j = given.pair[agrees].T
        lost = weight[agrees][part[i] != part[j]].sum()
        if gained > share * lost:
            return Turn(part=part, rotation=rotation)
        left[agree] = 0
    return None


def _cut(
    given: RelativeRotations,
    tie: Float[np.ndarray, "pair"],
    ends: Int[np.ndarray, "wish 2"],
    wish: Float[np.ndarray, "wish"],
) -> Bool[np.ndarray, "image"]:
    """The part of the images that takes in second ends and leaves first ends out, and cuts few ties."""
    num = given.num_images
    pull = np.bincount(ends[:, 1], wish, num) - np.bincount(ends[:, 0], wish, num)
    inward, outward = np.flatnonzero(pull > 0), np.flatnonzero(pull < 0)
    source, sink = num, num + 1
    i, j = given.pair.T
    rows = np.concatenate([i, j, np.full(len(inward), source), outward])
    columns = np.concatenate([j, i, inward, np.full(len(outward), sink)])
    capacity = np.concatenate([tie, tie, pull[inward], -pull[outward]])
    whole = np.round(capacity * (MOST_FLOW / capacity.sum())).astype(np.int32)
    network = csr_array((whole, (rows, columns)), shape=(num + 2, num + 2))
    flow = maximum_flow(network, source, sink).flow
    residual = network - flow
    residual.data[residual.data < 0] = 0
    residual.eliminate_zeros()
    reached = breadth_first_order(residual, source, return_predecessors=False)
    part = np.zeros(num + 2, bool)
    part[reached] = True
    return part[:num]
