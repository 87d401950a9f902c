"""Normal equations of the cameras with all depths eliminated, one source image after the other.

Every observation has one depth, so the depths' block C of the Gauss-Newton matrix is diagonal and the Schur complement
(Brown 1958; Triggs et al. 1999, section 6.1)

    S = A - E C^-1 E^T,        rhs = g_c - E C^-1 g_d

takes a sum over source images: in local unknowns (9 a directed pair and 3 of the source's intrinsics) E^T C^-1 E is one
symmetric product, which is mapped to the unknowns of the cameras, subtracted, and forgotten.

Unknowns are grouped in nodes of 10. A view is a node; its intrinsics are the last three unknowns of its own node, or,
where several views share a camera, of a node of that camera, the rest of which does not exist.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from anchorsfm.align.linearise import (
    NUM_NODE,
    OF_PAIR,
    OF_SOURCE,
    Point,
    SourceBlock,
    Sums,
    Term,
    local_maps,
)
from anchorsfm.align.model import ParameterLayout
from anchorsfm.align.priors import Priors
from anchorsfm.align.state import Constants, State, parents_of

POSE = slice(0, 7)
INTRINSICS = slice(7, 10)
DEPTH_DAMPING = 1e-5
"""Share of the median curvature that is added to that of every depth: what is hardly determined moves little in a step,
which changes where steps lead but not the minimum."""
MEDIAN_OF = 1000
"""About how many curvatures the median is taken of."""


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """Where the unknowns of views and cameras are."""

    num_views: int
    intrinsics: Int[np.ndarray, "view"]
    """Node with the intrinsics of each view."""
    of_camera: Int[np.ndarray, "camera"]
    """Node with the intrinsics of each camera."""
    count: int

    def pose_step(self, step: Float[np.ndarray, "node 10"]) -> Float[np.ndarray, "view 7"]:
        return step[: self.num_views, POSE]

    def intrinsics_step(self, step: Float[np.ndarray, "node 10"]) -> Float[np.ndarray, "camera 3"]:
        return step[self.of_camera, INTRINSICS]


def nodes_of(camera: Int[np.ndarray, "view"]) -> Nodes:
    """One node a view, and one a camera with several views."""
    num_views, members = len(camera), np.bincount(camera)
    own = np.zeros(len(members), np.int64)
    own[camera] = np.arange(num_views)
    of_camera = np.where(members > 1, num_views + np.cumsum(members > 1) - 1, own)
    return Nodes(
        num_views=num_views,
        intrinsics=of_camera[camera],
        of_camera=of_camera,
        count=num_views + int((members > 1).sum()),
    )


@dataclass(frozen=True, kw_only=True)
class SourceLayout:
    """Which nodes the directed pairs of one source image touch, and where each is among them."""

    nodes: Int[np.ndarray, "node"]
    source: int
    source_intrinsics: int
    target: Int[np.ndarray, "pair"]
    target_intrinsics: Int[np.ndarray, "pair"]


def source_layouts(terms: tuple[Term, ...], nodes: Nodes) -> list[SourceLayout]:
    """One layout for every view."""
    layouts = []
    for view in range(nodes.num_views):
        targets = np.concatenate([t.rows.target[slice(*t.rows.first_pair[view : view + 2])] for t in terms])
        own = np.array([view, nodes.intrinsics[view]])
        touched, place = np.unique(np.concatenate([own, targets, nodes.intrinsics[targets]]), return_inverse=True)
        layouts.append(
            SourceLayout(
                nodes=touched,
                source=int(place[0]),
                source_intrinsics=int(place[1]),
                target=place[2 : 2 + len(targets)],
                target_intrinsics=place[2 + len(targets) :],
            )
        )
    return layouts


def fixed_gauge(free: Bool[np.ndarray, "node 10"], layout: ParameterLayout) -> Bool[np.ndarray, "node 10"]:
    """Freedom without that of the whole scene: a pose and, unless something known fixes the scale, a size are held."""
    fixed = layout.pose_fixed.numpy()
    held = int(np.flatnonzero(fixed if fixed.any() else parents_of(layout) < 0)[0])
    free = free.copy()
    free[held, :6] = False
    if layout.normalise:
        free[held, 6] = False
    return free


@dataclass(frozen=True, kw_only=True)
class ReducedSystem:
    """S and the gradient of the cost by the cameras after the depths have followed, and the cost at this point."""

    matrix: "MatrixBlocks"
    gradient: Float[np.ndarray, "node 10"]
    cost: tuple[float, ...]
    loss: tuple[float, ...]


class MatrixBlocks:
    """Sum of symmetric matrices over nodes, in blocks of 10 x 10: all of them, or those of a sparse pattern."""

    def __init__(self, count: int, pattern: tuple[Int[np.ndarray, "block"], Int[np.ndarray, "block"]] | None) -> None:
        self.count = count
        self.pattern = pattern
        if pattern is None:
            self.blocks = np.zeros((count, count, NUM_NODE, NUM_NODE))
        else:
            self.blocks = np.zeros((len(pattern[0]), NUM_NODE, NUM_NODE))
            self._slot = np.full((count, count), -1, np.int32)
            self._slot[pattern] = np.arange(len(pattern[0]))

    def add(self, nodes: Int[np.ndarray, "some"], matrix: Float[np.ndarray, "some 10 some 10"]) -> None:
        """Add a matrix over some different nodes."""
        blocks = matrix.transpose(0, 2, 1, 3)
        if self.pattern is None:
            self.blocks[nodes[:, None], nodes] += blocks
        else:
            slot = self._slot[nodes[:, None], nodes]
            self.blocks[slot.ravel()] += blocks.reshape(-1, NUM_NODE, NUM_NODE)

    def add_each(
        self, row: Int[np.ndarray, "some"], column: Int[np.ndarray, "some"], block: Float[np.ndarray, "some 10 10"]
    ) -> None:
        """Add single blocks."""
        if self.pattern is None:
            np.add.at(self.blocks, (row, column), block)
        else:
            np.add.at(self.blocks, self._slot[row, column], block)

    def add_diagonal(self, node: Int[np.ndarray, "some"], unknown: int, value: Float[np.ndarray, "some"]) -> None:
        """Add to diagonal elements."""
        at = (node, node) if self.pattern is None else (self._slot[node, node],)
        self.blocks[*at, unknown, unknown] += value


@dataclass(frozen=True, kw_only=True)
class Freedoms:
    """What may move in a stage."""

    node: Bool[np.ndarray, "node 10"]
    depth: Bool[np.ndarray, "view"]
    """Views whose depths are corrected."""


def reduced_system(
    sums: Sums,
    point: Point,
    state: State,
    terms: tuple[Term, ...],
    constants: Constants,
    layouts: list[SourceLayout],
    nodes: Nodes,
    priors: Priors,
    freedoms: Freedoms,
    pattern: tuple[Int[np.ndarray, "block"], Int[np.ndarray, "block"]] | None,
) -> ReducedSystem:
    """Form and reduce the normal equations image by image."""
    maps = [local_maps(state, term, constants) for term in terms]
    matrix, gradient = MatrixBlocks(nodes.count, pattern), np.zeros((nodes.count, NUM_NODE))
    cost, loss = np.zeros((2, len(terms)))
    for view, layout in enumerate(layouts):
        if len(layout.target) == 0:
            continue
        coupled = bool(freedoms.depth[view])
        block = sums.source_block(view, point, coupled)
        anchors = slice(*constants.anchor_start[view : view + 2])
        ranges = [slice(*term.rows.first_pair[view : view + 2]) for term in terms]
        source, target = (np.concatenate([m[side][r] for m, r in zip(maps, ranges, strict=True)]) for side in (0, 1))
        mapping = _mapping(source, target, layout)
        local, slope = _rigid(block)
        if block.coupling is not None:
            eliminated = _eliminated(block, state.correction[anchors], priors.depth_weight)
            local -= eliminated[0]
            slope -= eliminated[1]
        hessian, slope = mapping.T @ (local @ mapping), slope @ mapping
        count = len(layout.nodes)
        matrix.add(layout.nodes, hessian.reshape(count, NUM_NODE, count, NUM_NODE))
        gradient[layout.nodes] += slope.reshape(count, NUM_NODE)
        cost += block.cost
        loss += block.loss
    _add_principal_point_prior(matrix, gradient, state, constants, nodes, priors)
    return ReducedSystem(matrix=matrix, gradient=gradient, cost=tuple(cost.tolist()), loss=tuple(loss.tolist()))


def damped(curvature: Float[np.ndarray, "anchor"]) -> Float[np.ndarray, "anchor"]:
    """Second derivatives by depths with what keeps each of them from running away."""
    some = curvature[:: max(len(curvature) // MEDIAN_OF, 1)]
    some = some[some > 0]
    middle = len(some) // 2
    return curvature + (DEPTH_DAMPING * float(np.partition(some, middle)[middle]) if len(some) else 1.0)


def _eliminated(
    block: SourceBlock, correction: Float[np.ndarray, "anchor"], prior: float
) -> tuple[Float[np.ndarray, "local local"], Float[np.ndarray, "local"]]:
    """E C^-1 E^T and E C^-1 g_d: what eliminating the depths takes away. The block's coupling is overwritten."""
    assert block.coupling is not None
    coupling, curvature, slope = block.coupling, block.curvature + prior, block.slope + prior * correction
    seen = np.flatnonzero(block.curvature)
    if 2 * len(seen) < len(curvature):
        coupling, curvature, slope = coupling[seen], curvature[seen], slope[seen]
    root = 1 / np.sqrt(damped(curvature))
    coupling *= root[:, None].astype(coupling.dtype)
    product = (coupling.T @ coupling).astype(np.float64)  # one symmetric product
    return product, ((slope * root).astype(coupling.dtype) @ coupling).astype(np.float64)


def _rigid(block: SourceBlock) -> tuple[Float[np.ndarray, "local local"], Float[np.ndarray, "local"]]:
    """Matrix and gradient of the local unknowns of a source image, of its pairs and then its own, at fixed depths."""
    count, width = len(block.hessian), len(OF_PAIR)
    own, shared = np.array(OF_PAIR), np.array(OF_SOURCE)
    split = count * width
    matrix = np.zeros((split + len(shared), split + len(shared)))
    each = np.arange(count)
    matrix[:split, :split].reshape(count, width, count, width)[each, :, each] = block.hessian[:, own[:, None], own]
    mixed = block.hessian[:, own[:, None], shared].reshape(split, len(shared))
    matrix[:split, split:], matrix[split:, :split] = mixed, mixed.T
    matrix[split:, split:] = block.hessian[:, shared[:, None], shared].sum(axis=0)
    return matrix, np.concatenate([block.gradient[:, own].ravel(), block.gradient[:, shared].sum(axis=0)])


def _mapping(
    source: Float[np.ndarray, "pair 12 10"], target: Float[np.ndarray, "pair 12 10"], layout: SourceLayout
) -> Float[np.ndarray, "local unknown"]:
    """L: local unknowns of one source image from the unknowns of the nodes it touches."""
    count, width = len(source), len(OF_PAIR)
    mapping = np.zeros((count * width + len(OF_SOURCE), len(layout.nodes), NUM_NODE))
    by_pair = mapping[: count * width].reshape(count, width, len(layout.nodes), NUM_NODE)
    source_of_pair, target_of_pair = source[:, OF_PAIR], target[:, OF_PAIR]
    by_pair[:, :, layout.source, POSE] += source_of_pair[:, :, POSE]
    by_pair[:, :, layout.source_intrinsics, INTRINSICS] += source_of_pair[:, :, INTRINSICS]
    row = np.arange(count)
    by_pair[row, :, layout.target, POSE] += target_of_pair[:, :, POSE]
    by_pair[row, :, layout.target_intrinsics, INTRINSICS] += target_of_pair[:, :, INTRINSICS]
    mapping[count * width :, layout.source_intrinsics] = source[0, OF_SOURCE]
    return mapping.reshape(len(mapping), -1)


def _add_principal_point_prior(
    matrix: MatrixBlocks,
    gradient: Float[np.ndarray, "node 10"],
    state: State,
    constants: Constants,
    nodes: Nodes,
    priors: Priors,
) -> None:
    offset = state.principal_point - 0.5
    for axis in (0, 1):
        matrix.add_diagonal(nodes.of_camera, 8 + axis, priors.principal_point_weight[:, axis])
        gradient[nodes.of_camera, 8 + axis] += priors.principal_point_weight[:, axis] * offset[:, axis]
