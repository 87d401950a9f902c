"""Solving the reduced camera system: dense Cholesky, or sparse where little fills in.

The pattern of S is the square of the view graph: two views are coupled when a third sees both. A minimum degree
elimination of that pattern says how many operations a sparse factorisation takes; a dense one takes n^3 / 3, but about
`DENSE_ADVANTAGE` times more of them a second.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array, csc_array, diags_array
from scipy.sparse.linalg import splu

from anchorsfm.align.linearise import NUM_NODE
from anchorsfm.align.normal_equations import MatrixBlocks

SMALLEST_SPARSE = 200
"""Nodes below which nobody notices a dense factorisation."""
DENSE_ADVANTAGE = 15.0
Pattern = tuple[Int[np.ndarray, "block"], Int[np.ndarray, "block"]]


def sparse_pattern(cliques: Iterable[Int[np.ndarray, "_"]], count: int) -> Pattern | None:
    """Rows and columns of the blocks that can be non-zero, or None if a dense factorisation is cheaper.

    cliques: groups of nodes that are all coupled with each other.
    """
    if count < SMALLEST_SPARSE:
        return None
    neighbours: list[set[int]] = [{node} for node in range(count)]
    for clique in cliques:
        touched = clique.tolist()
        for node in touched:
            neighbours[node].update(touched)
    row = np.repeat(np.arange(count), [len(n) for n in neighbours])
    column = np.concatenate([np.sort(np.fromiter(n, np.int64)) for n in neighbours])
    dense = count**3 / 3
    if elimination_cost([set(n) for n in neighbours], dense / DENSE_ADVANTAGE) >= dense / DENSE_ADVANTAGE:
        return None
    return row, column


def elimination_cost(neighbours: list[set[int]], limit: float) -> float:
    """Block operations of a Cholesky factorisation in minimum degree order; stops counting at the limit."""
    cost = 0.0
    left = set(range(len(neighbours)))
    while left and cost < limit:
        node = min(left, key=lambda v: len(neighbours[v]))
        left.remove(node)
        others = neighbours[node] - {node}
        cost += (len(others) + 1) ** 2
        for other in others:
            neighbours[other] |= others
            neighbours[other].discard(node)
    return cost


def name_of(pattern: Pattern | None) -> str:
    """The linear solver that a pattern stands for."""
    return "dense Cholesky" if pattern is None else "sparse factorisation"


@dataclass(frozen=True, kw_only=True)
class Step:
    """Solution of the damped system for the free unknowns, zero for the others."""

    value: Float[np.ndarray, "node 10"]
    predicted: float
    """Decrease of the quadratic model."""


def solve(
    matrix: MatrixBlocks, gradient: Float[np.ndarray, "node 10"], free: Bool[np.ndarray, "node 10"], damping: float
) -> Step | None:
    """Minimise the quadratic model, with (1 + damping) on its diagonal; None if it is not positive definite."""
    chosen = np.flatnonzero(free.ravel())
    value = np.zeros(free.size)
    if len(chosen) == 0:
        return Step(value=value.reshape(free.shape), predicted=0.0)
    found = (_dense if matrix.pattern is None else _sparse)(matrix, gradient.ravel()[chosen], chosen, damping)
    if found is None or not np.isfinite(found).all():
        return None
    value[chosen] = found
    return Step(value=value.reshape(free.shape), predicted=-0.5 * float(found @ gradient.ravel()[chosen]))


def _scaling(diagonal: Float[np.ndarray, "unknown"]) -> Float[np.ndarray, "unknown"]:
    """Jacobi scaling; unknowns that nothing determines stay where they are."""
    largest = max(float(diagonal.max()), 1e-30)
    return 1 / np.sqrt(np.where(diagonal > 1e-14 * largest, diagonal, largest))


def _dense(
    matrix: MatrixBlocks, gradient: Float[np.ndarray, "unknown"], chosen: Int[np.ndarray, "unknown"], damping: float
) -> Float[np.ndarray, "unknown"] | None:
    size = matrix.count * NUM_NODE
    system = matrix.blocks.transpose(0, 2, 1, 3).reshape(size, size)[np.ix_(chosen, chosen)]
    if not (np.diagonal(system) >= 0).all():
        return None
    scale = _scaling(np.diagonal(system))
    system *= scale
    system *= scale[:, None]
    np.einsum("ii->i", system)[:] = 1 + damping
    try:
        factor = scipy.linalg.cho_factor(system, lower=True, overwrite_a=True, check_finite=False)
    except (scipy.linalg.LinAlgError, ValueError):
        return None
    solution: np.ndarray = scipy.linalg.cho_solve(factor, -scale * gradient, check_finite=False)
    return scale * solution


def _sparse(
    matrix: MatrixBlocks, gradient: Float[np.ndarray, "unknown"], chosen: Int[np.ndarray, "unknown"], damping: float
) -> Float[np.ndarray, "unknown"] | None:
    assert matrix.pattern is not None
    place = np.full(matrix.count * NUM_NODE, -1)
    place[chosen] = np.arange(len(chosen))
    inner = np.arange(NUM_NODE)
    row = place[np.broadcast_to(matrix.pattern[0][:, None, None] * NUM_NODE + inner[:, None], matrix.blocks.shape)]
    column = place[np.broadcast_to(matrix.pattern[1][:, None, None] * NUM_NODE + inner, matrix.blocks.shape)]
    used = (row >= 0) & (column >= 0)
    size = (len(chosen), len(chosen))
    system = coo_array((matrix.blocks[used], (row[used], column[used])), shape=size).tocsc()
    if not (system.diagonal() >= 0).all():
        return None
    scale = _scaling(system.diagonal())
    system = csc_array(diags_array(scale) @ system @ diags_array(scale))
    system.setdiag(1 + damping)
    try:
        factor = splu(system, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    except RuntimeError:
        return None
    if not (factor.U.diagonal() > 0).all():
        return None
    return scale * factor.solve(-scale * gradient)
