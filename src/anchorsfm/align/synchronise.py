"""Similarities of all views from those of pairs: a chain along a tree is checked against the pairs it did not use.

A chain is as good as its worst link, and its errors add up until the ends of a loop do not meet. Where pairs outside
the tree contradict it, all pairs decide together: rotations by `pairing.rotations`, then the logarithms of the scales,
then the centres, each the solution with the least sum of absolute residuals, by iteratively reweighted least squares.
With the similarity (s, R, t) of a child in its parent's frame the child has scale s s', rotation R' R and centre
C' + s' R' t, where the primed ones are the parent's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csc_array, csr_array, diags_array
from scipy.sparse.linalg import splu

from anchorsfm.geometry.links import connected_groups
from anchorsfm.geometry.transforms import rotation_angle_deg
from anchorsfm.pairing.rotations import RelativeRotations, rotations_of_images

TOLERATED_DEG, TOLERATED_SCALE = 10.0, 0.25
"""By so much the chain may differ from a pair: rotation, and logarithm of the scale."""
AGREEMENT_DEG = 5.0
"""Rotations of pairs that differ by less agree."""
ROUNDS = 20
LEAST_RESIDUAL = 0.003
"""Smaller ones do not weigh more: in logarithms of scales, and in depths of the parent's view."""


@dataclass(frozen=True, kw_only=True)
class Similarities:
    """world_from_cam of every view with a scale."""

    scale: Float[np.ndarray, "view"]
    rotation: Float[np.ndarray, "view 3 3"]
    centre: Float[np.ndarray, "view 3"]


@dataclass(frozen=True, kw_only=True)
class PairSimilarities:
    """Of the first view of each pair in the frame of the second: x becomes scale R x + shift."""

    pair: Int[np.ndarray, "pair 2"]
    """Child and parent."""
    scale: Float[np.ndarray, "pair"]
    rotation: Float[np.ndarray, "pair 3 3"]
    shift: Float[np.ndarray, "pair 3"]
    evidence: Float[np.ndarray, "pair"]
    """How much speaks for each, above 0."""

    @staticmethod
    def none() -> "PairSimilarities":
        empty = np.zeros(0)
        return PairSimilarities(
            pair=np.zeros((0, 2), np.int64),
            scale=empty,
            rotation=np.zeros((0, 3, 3)),
            shift=np.zeros((0, 3)),
            evidence=empty,
        )

    def select(self, keep: Bool[np.ndarray, "pair"]) -> "PairSimilarities":
        return PairSimilarities(**{part.name: getattr(self, part.name)[keep] for part in fields(self)})


def joined(first: PairSimilarities, second: PairSimilarities) -> PairSimilarities:
    """Both, one after the other."""
    return PairSimilarities(
        **{part.name: np.concatenate([getattr(first, part.name), getattr(second, part.name)]) for part in fields(first)}
    )


def chain(
    start: Similarities, order: Sequence[int], parent: Int[np.ndarray, "view"], links: PairSimilarities
) -> Similarities:
    """Views placed one after the other by the links to their parents; those without one keep their `start`."""
    scale, rotation, centre = start.scale.copy(), start.rotation.copy(), start.centre.copy()
    row_of = {(child, up): row for row, (child, up) in enumerate(links.pair.tolist())}
    for child in order:
        up = int(parent[child])
        row = row_of.get((child, up))
        if row is None:
            continue
        scale[child] = scale[up] * links.scale[row]
        rotation[child] = rotation[up] @ links.rotation[row]
        centre[child] = scale[up] * rotation[up] @ links.shift[row] + centre[up]
    return Similarities(scale=scale, rotation=rotation, centre=centre)


def contradicted(chained: Similarities, pairs: PairSimilarities) -> Bool[np.ndarray, "pair"]:
    """Pairs that want their views turned or sized otherwise."""
    child, parent = pairs.pair.T
    wanted = chained.rotation[parent] @ pairs.rotation
    turn_deg = rotation_angle_deg(np.swapaxes(wanted, 1, 2) @ chained.rotation[child])
    growth = np.log(chained.scale[child]) - np.log(chained.scale[parent] * pairs.scale)
    return np.asarray((turn_deg > TOLERATED_DEG) | (np.abs(growth) > TOLERATED_SCALE))


def synchronise(chained: Similarities, pairs: PairSimilarities, root: int) -> Similarities:
    """The similarities that all pairs say together, for the views that pairs connect with the root, which stays."""
    group = connected_groups(len(chained.scale), pairs.pair)
    rows = np.flatnonzero(group == group[root])
    place = np.full(len(group), -1)
    place[rows] = np.arange(len(rows))
    mine = pairs.select(group[pairs.pair[:, 0]] == group[root])
    child, parent = place[mine.pair].T
    start = int(place[root])
    world_from_cam = _rotations(mine, child, parent, len(rows))
    turn_deg = rotation_angle_deg(np.swapaxes(world_from_cam[child], 1, 2) @ world_from_cam[parent] @ mine.rotation)
    evidence = mine.evidence / (1 + (turn_deg / AGREEMENT_DEG) ** 2) ** 2
    world_from_cam = chained.rotation[root] @ world_from_cam[start].T @ world_from_cam
    log_scale = _least_residuals(child, parent, np.log(mine.scale)[:, None], evidence, np.ones(len(child)), start)[:, 0]
    scale = chained.scale[root] * np.exp(log_scale)
    step = scale[parent, None] * np.einsum("pij,pj->pi", world_from_cam[parent], mine.shift)
    centre = chained.centre[root] + _least_residuals(child, parent, step, evidence, scale[parent], start)
    result = Similarities(scale=chained.scale.copy(), rotation=chained.rotation.copy(), centre=chained.centre.copy())
    result.scale[rows], result.rotation[rows], result.centre[rows] = scale, world_from_cam, centre
    return result


def _rotations(
    pairs: PairSimilarities, child: Int[np.ndarray, "pair"], parent: Int[np.ndarray, "pair"], num_views: int
) -> Float[np.ndarray, "view 3 3"]:
    """world_from_cam."""
    backward = (child > parent)[:, None, None]
    given = RelativeRotations(
        num_images=num_views,
        pair=np.sort(np.stack([child, parent], axis=1), axis=1),
        rotation=np.where(backward, np.swapaxes(pairs.rotation, 1, 2), pairs.rotation),
        evidence=pairs.evidence,
    )
    return np.swapaxes(rotations_of_images(given, pairs.evidence, AGREEMENT_DEG), 1, 2)


def _least_residuals(
    child: Int[np.ndarray, "pair"],
    parent: Int[np.ndarray, "pair"],
    difference: Float[np.ndarray, "pair value"],
    evidence: Float[np.ndarray, "pair"],
    unit: Float[np.ndarray, "pair"],
    root: int,
) -> Float[np.ndarray, "view value"]:
    """Values x of all views with x[child] - x[parent] = `difference` but for residuals, in `unit`; x[root] = 0."""
    num_pairs, num_views = len(child), int(max(child.max(), parent.max())) + 1
    row, ones = np.arange(num_pairs), np.ones(num_pairs)
    design = csr_array(
        (np.concatenate([ones, -ones]), (np.tile(row, 2), np.concatenate([child, parent]))),
        shape=(num_pairs, num_views),
    )
    held = np.zeros(num_views)
    held[root] = 1.0
    robust = np.ones(num_pairs)
    for _ in range(ROUNDS):
        weight = evidence / unit**2 * robust
        weight = weight / weight.mean()
        normal = csc_array(design.T @ diags_array(weight) @ design + diags_array(held))
        value = splu(normal).solve(design.T @ (weight[:, None] * difference))
        residual = np.linalg.norm(design @ value - difference, axis=1) / unit
        robust = 1 / np.maximum(residual, LEAST_RESIDUAL)
    return np.asarray(value - value[root])
