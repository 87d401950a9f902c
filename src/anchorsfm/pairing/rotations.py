"""Rotations of all images from those of pairs, some of which are wrong (docs/method.md, Which pairs to believe).

First the images are merged into ever larger groups, the best supported first. All pairs between two groups vote for the
rotation that brings one onto the other, and those that agree win: many wrong pairs do no harm while they disagree, or
agree with less evidence than the right ones. From there on iteratively reweighted least squares distributes what is
left over the cycles (Chatterjee and Govindu, "Efficient and robust large-scale rotation averaging", ICCV 2013, with the
weights of Geman and McClure).
"""

import heapq
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array, csc_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu
from scipy.spatial.transform import Rotation

from anchorsfm.geometry.transforms import rotation_angle_deg

MOST_VOTES = 48
"""Of the pairs between two groups those with the most evidence vote."""
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

    def disagreement_deg(self, cam_from_world: Float[np.ndarray, "image 3 3"]) -> Float[np.ndarray, "pair"]:
        """Angles between relative rotations and what the rotations of all images say."""
        i, j = self.pair.T
        return rotation_angle_deg(np.swapaxes(cam_from_world[j], 1, 2) @ self.rotation @ cam_from_world[i])


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


def merge_by_votes(
    given: RelativeRotations, weight: Float[np.ndarray, "pair"], agreement_deg: float
) -> Float[np.ndarray, "image 3 3"]:
    """cam_from_world of every image; images that no pairs connect have worlds of their own.

    agreement_deg: votes that differ by less agree.
    """
    groups = _Groups(given, weight, agreement_deg)
    while groups.merge_next():
        pass
    return groups.cam_from_world


@dataclass(frozen=True, kw_only=True)
class _Vote:
    """What the pairs between groups a < b agree on."""

    weight: float
    b_from_a: Float[np.ndarray, "3 3"]


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
        self.cam_from_world[moved] = self.cam_from_world[moved] @ (vote.b_from_a if gone == b else vote.b_from_a.T)
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
        rows = rows[np.argsort(-self._weight[rows], kind="stable")[:MOST_VOTES]]
        i, j = self._given.pair[rows].T
        rotation = np.swapaxes(self.cam_from_world[j], 1, 2) @ self._given.rotation[rows] @ self.cam_from_world[i]
        swapped = (self._group[i] != a)[:, None, None]
        b_from_a = np.where(swapped, np.swapaxes(rotation, 1, 2), rotation)
        agrees = rotation_angle_deg(b_from_a[:, None] @ np.swapaxes(b_from_a, 1, 2)) < self._agreement_deg
        weight = self._weight[rows]
        total = agrees @ weight
        best = agrees[int(total.argmax())]
        mean = Rotation.from_matrix(b_from_a[best]).mean(weight[best]).as_matrix()
        self._votes[a, b] = _Vote(weight=float(total.max()), b_from_a=mean)
        heapq.heappush(self._queue, (-float(total.max()), a, b))


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
    links = coo_array((np.ones(len(i)), (i, j)), shape=(num, num))
    held = np.zeros(num)
    held[np.unique(connected_components(links, directed=False)[1], return_index=True)[1]] = 1.0
    cam_from_world = start
    for _ in range(ROUNDS):
        residual = np.swapaxes(cam_from_world[j], 1, 2) @ given.rotation @ cam_from_world[i]
        turn = Rotation.from_matrix(residual).as_rotvec()
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
