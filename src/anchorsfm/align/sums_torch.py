"""Sums over observations in torch, on any device.

Observations lie in chunks of one directed pair each (`observations.lay_out`), so that what depends on the pair is a
number a chunk and products with Jacobians are batched matrix products. The chunks of a source image are handled in
slabs that stay in the processor's cache. Notation and columns as in `linearise.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from anchorsfm.align.linearise import NUM_LOCAL, OF_PAIR, OF_SOURCE, DepthSums, Point, SourceBlock, Term
from anchorsfm.align.losses import RobustLoss
from anchorsfm.align.observations import lay_out
from anchorsfm.align.state import Constants

NEAR, CLOSEST = 1e-2, 1e-3
"""Depth in the target, as a share of that in the source and in scene units, below which an observation says nothing."""
SLOT = 128
SLAB_ROWS = {"cpu": 1 << 14}
"""Observations handled at a time; on other devices all of a source image."""


@dataclass(frozen=True, kw_only=True)
class _Chunks:
    """`SortedRows` in chunks; unused slots repeat an observation at zero weight."""

    pair: Int[np.ndarray, "chunk"]
    first: Int[np.ndarray, "view_plus_1"]
    """First chunk of every source image."""
    x: Float[Tensor, "chunk slot"]
    y: Float[Tensor, "chunk slot"]
    goal: Float[Tensor, "chunk goal_dim slot"]
    anchor: Int[Tensor, "chunk slot"]
    relief: Float[Tensor, "chunk slot"]
    weight: Float[Tensor, "chunk slot"]


@dataclass(frozen=True, kw_only=True)
class _Slab:
    """Some chunks at some values of the unknowns."""

    here: slice
    pairs: Float[Tensor, "chunk 23 1"]
    """Constants of the directed pair of each chunk (`linearise.Point`)."""
    residual: Float[Tensor, "chunk dim slot"]
    along: Float[Tensor, "chunk dim slot"]
    """Derivative of the residual by the log depth."""
    valid: Float[Tensor, "chunk slot"]
    point: Float[Tensor, "chunk _ slot"]
    """Y, or (x, y) where it is projected."""
    scale: Float[Tensor, "chunk slot"] | None
    """f_t / Y_2 where it is projected."""
    depth: Float[Tensor, "chunk slot"]
    relief: Float[Tensor, "chunk slot"]
    """(o - 1) f0 / f_s."""
    weight: Float[Tensor, "chunk slot"]
    """Of iterative reweighting, fresh."""
    cost: float


class TorchSums:
    """See `linearise.Sums`."""

    def __init__(
        self, terms: tuple[Term, ...], constants: Constants, dtype: np.dtype[Any], device: str = "cpu"
    ) -> None:
        self._terms = terms
        self._device = torch.device(device)
        self._start = constants.anchor_start.tolist()
        self._chunks = [_chunks(term, self._device) for term in terms]
        self._weights = [torch.zeros_like(chunks.weight) for chunks in self._chunks]
        self._buffers: list[Tensor | None] = [None] * len(terms)
        self._dtype = torch.from_numpy(np.zeros(1, dtype)).dtype

    def source_block(self, view: int, point: Point, coupled: bool) -> SourceBlock:
        first, last = self._start[view], self._start[view + 1]
        ranges = [term.rows.first_pair[view : view + 2] for term in self._terms]
        num_pairs = int(sum(end - begin for begin, end in ranges))
        anchors = last - first if coupled else 0
        summed = torch.zeros(num_pairs, NUM_LOCAL, NUM_LOCAL + 1, dtype=torch.float64, device=self._device)
        coupling = torch.zeros(
            num_pairs * len(OF_PAIR) + len(OF_SOURCE), anchors, dtype=self._dtype, device=self._device
        )
        curvature, slope = self._zeros(last - first)
        cost, loss = np.zeros((2, len(self._terms)))
        depth, kappa = self._tensor(point.depth), self._tensor(point.kappa)
        done = 0
        for k, (term, (begin, end)) in enumerate(zip(self._terms, ranges, strict=True)):
            for slab in self._slabs(k, view, point, depth):
                cost[k] += slab.cost
                loss[k] += _plain_loss(term.gamma, self._chunks[k].weight[slab.here], slab)
                self._weights[k][slab.here] = slab.weight
                anchor = self._chunks[k].anchor[slab.here]
                e = _gathered(kappa, anchor) - 1 - slab.relief / (1 + slab.relief)
                jacobian = self._columns(k, len(e))
                if term.projected:
                    _project(jacobian, slab, e)
                else:
                    _regress(jacobian, slab, e, self._chunks[k].goal[slab.here])
                weighted = jacobian[:, :NUM_LOCAL] * slab.weight[:, None, None]
                pair = self._tensor(self._chunks[k].pair[slab.here] - begin + done)
                product = torch.bmm(weighted.flatten(2), jacobian.flatten(2).transpose(1, 2))
                summed.index_add_(0, pair, product.double())
                if coupled:
                    row = anchor.long() - first
                    _couple(coupling, pair, row, _along_depths(weighted, slab.along))
                    _add_depths(curvature, slope, row, slab, slab.weight)
            done += end - begin
        return SourceBlock(
            hessian=_array(summed[:, :, :NUM_LOCAL].contiguous()),
            gradient=_array(summed[:, :, NUM_LOCAL].contiguous()),
            coupling=_array(coupling).T if coupled else None,
            curvature=_array(curvature),
            slope=_array(slope),
            cost=tuple(cost.tolist()),
            loss=tuple(loss.tolist()),
        )

    def depth_sums(self, point: Point, stored: bool) -> DepthSums:
        curvature, slope = self._zeros(len(point.depth))
        cost = np.zeros(len(self._terms))
        depth = self._tensor(point.depth)
        for k, chunks in enumerate(self._chunks):
            for slab in self._slabs(k, None, point, depth):
                cost[k] += slab.cost
                weight = self._weights[k][slab.here] * slab.valid if stored else slab.weight
                _add_depths(curvature, slope, chunks.anchor[slab.here], slab, weight)
        return DepthSums(curvature=_array(curvature), slope=_array(slope), cost=tuple(cost.tolist()))

    def _columns(self, k: int, count: int) -> Float[Tensor, "chunk 13 dim slot"]:
        """A buffer for Jacobian columns and residuals; what is zero in all of them is zero."""
        chunks = self._chunks[k]
        shape = (NUM_LOCAL + 1, chunks.goal.shape[1], chunks.goal.shape[2])
        buffer = self._buffers[k]
        if buffer is None or len(buffer) < count:
            self._buffers[k] = buffer = torch.zeros(count, *shape, dtype=self._dtype, device=self._device)
        return buffer[:count]

    def _zeros(self, count: int) -> tuple[Tensor, Tensor]:
        first, second = torch.zeros(2, count, dtype=torch.float64, device=self._device)
        return first, second

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self._device)

    def _slabs(self, k: int, view: int | None, point: Point, depth: Float[Tensor, "anchor"]) -> Iterator[_Slab]:
        """Slabs of one source image, or of all."""
        chunks = self._chunks[k]
        first, last = (0, len(chunks.pair)) if view is None else chunks.first[view : view + 2].tolist()
        size = SLAB_ROWS.get(self._device.type, 1 << 20) // max(chunks.weight.shape[1], 1)
        for begin in range(first, last, max(size, 1)):
            here = slice(begin, min(begin + max(size, 1), last))
            constants = self._tensor(point.pairs[k][chunks.pair[here]])[:, :, None]
            yield _slab(self._terms[k].projected, point.robust[k], chunks, here, constants, depth)


def _slab(
    projected: bool,
    robust: tuple[float, float, float],
    chunks: _Chunks,
    here: slice,
    pairs: Float[Tensor, "chunk 23 1"],
    depth: Float[Tensor, "anchor"],
) -> _Slab:
    inverse_focal, relief = pairs[:, 15], chunks.relief[here] * pairs[:, 18]
    ray_x, ray_y = (chunks.x[here] - pairs[:, 16]) * inverse_focal, (chunks.y[here] - pairs[:, 17]) * inverse_focal
    z = _gathered(depth, chunks.anchor[here]) * (1 + relief)
    turned = torch.bmm(pairs[:, :9, 0].view(-1, 3, 3), torch.stack([ray_x, ray_y, torch.ones_like(ray_x)], dim=1))
    spread = turned * z[:, None]
    y = spread + pairs[:, 9:12]
    goal = chunks.goal[here]
    if projected:
        inverse = y[:, 2].clamp(min=CLOSEST).reciprocal()
        plane = y[:, :2] * inverse[:, None]
        focal = pairs[:, 12]
        pixel = plane * focal[:, None] + pairs[:, 13:15]
        clipped = torch.minimum(torch.maximum(pixel, pairs[:, 19:21]), pairs[:, 21:23])
        inside = clipped == pixel
        seen = (y[:, 2] > (NEAR * z).clamp(min=CLOSEST)) & inside[:, 0] & inside[:, 1]
        scale = inverse * focal
        residual, valid = clipped - goal, seen.to(z.dtype)
        along = (plane * pairs[:, 11:12] - pairs[:, 9:11]) * scale[:, None]
        point = plane
    else:
        unit, size = pairs[:, 12:13], pairs[:, 13:14]
        residual, along, valid, point = unit * (y - size * goal), unit * spread, torch.ones_like(z), y
        scale = None
    confidence, (gamma, _, square) = chunks.weight[here], robust
    distance = (_summed_squares(residual) + square).sqrt()
    value, slope = RobustLoss(gamma).value_and_slope(distance)
    return _Slab(
        here=here,
        pairs=pairs,
        residual=residual,
        along=along,
        valid=valid,
        point=point,
        scale=scale,
        depth=z,
        relief=relief,
        weight=valid * confidence * slope / distance.clamp(min=1e-12),
        cost=float(torch.dot(confidence.flatten(), value.flatten())),
    )


def _couple(
    coupling: Float[Tensor, "column anchor"],
    pair: Int[Tensor, "chunk"],
    row: Int[Tensor, "chunk slot"],
    mixed: Float[Tensor, "chunk 12 slot"],
) -> None:
    """Add products with the derivative by the log depth, in place: columns of pairs, then those of the source."""
    flat, anchors = coupling.view(-1), coupling.shape[1]
    own = (row + (pair * (len(OF_PAIR) * anchors))[:, None]).view(-1)
    for k, column in enumerate(OF_PAIR):
        flat[k * anchors :].scatter_add_(0, own, mixed[:, column].reshape(-1))
    shared = row.view(-1)
    for k, column in enumerate(OF_SOURCE):
        coupling[k - len(OF_SOURCE)].scatter_add_(0, shared, mixed[:, column].reshape(-1))


def _along_depths(
    columns: Float[Tensor, "chunk 12 dim slot"], along: Float[Tensor, "chunk dim slot"]
) -> Float[Tensor, "chunk 12 slot"]:
    """Products of columns with the derivative by the log depth, summed over the residual's dimensions."""
    total = columns[:, :, 0] * along[:, None, 0]
    for k in range(1, along.shape[1]):
        total.addcmul_(columns[:, :, k], along[:, None, k])
    return total


def _plain_loss(gamma: float, confidence: Float[Tensor, "chunk slot"], slab: _Slab) -> float:
    value, _ = RobustLoss(gamma).value_and_slope(_summed_squares(slab.residual).sqrt())
    return float(torch.dot(confidence.flatten(), value.flatten()))


def _summed_squares(values: Float[Tensor, "chunk dim slot"]) -> Float[Tensor, "chunk slot"]:
    return _over_dimensions(values * values)


def _over_dimensions(values: Float[Tensor, "chunk dim slot"]) -> Float[Tensor, "chunk slot"]:
    """Summed over the second axis, which is short."""
    total = values[:, 0] + values[:, 1]
    return total if values.shape[1] == 2 else total + values[:, 2]


def _gathered(values: Float[Tensor, "anchor"], index: Int[Tensor, "chunk slot"]) -> Float[Tensor, "chunk slot"]:
    return values.index_select(0, index.view(-1)).view(index.shape)


def _add_depths(
    curvature: Float[Tensor, "anchor"],
    slope: Float[Tensor, "anchor"],
    row: Int[Tensor, "chunk slot"],
    slab: _Slab,
    weight: Float[Tensor, "chunk slot"],
) -> None:
    """Add derivatives by log depths, in place."""
    index = row.reshape(-1)
    curvature.index_add_(0, index, (weight * _summed_squares(slab.along)).double().view(-1))
    slope.index_add_(0, index, (weight * _over_dimensions(slab.along * slab.residual)).double().view(-1))


def _project(out: Float[Tensor, "chunk 13 2 slot"], slab: _Slab, e: Float[Tensor, "chunk slot"]) -> None:
    """Columns of the local unknowns, then the residual, into a buffer; observations that say nothing have no weight."""
    valid, pairs = slab.valid, slab.pairs
    assert slab.scale is not None
    x, y = (slab.point * valid[:, None]).unbind(1)
    fz = slab.scale * valid
    f = pairs[:, 12]
    r = pairs[:, :9].unbind(1)
    zf = slab.depth * fz
    zf_x, zf_y, g = zf * x, zf * y, -pairs[:, 15]
    fx, fy = f * x, f * y
    out[:, 0, 0], out[:, 1, 0], out[:, 2, 0] = -fx * y, f + fx * x, -fy
    out[:, 0, 1], out[:, 1, 1], out[:, 2, 1] = -f - fy * y, fx * y, fx
    out[:, 3, 0], out[:, 4, 1] = fz, fz
    out[:, 5, 0], out[:, 5, 1] = -fz * x, -fz * y
    along = slab.along * (e * valid)[:, None]
    out[:, 6, 0], out[:, 6, 1] = along[:, 0] + zf * r[2] - zf_x * r[8], along[:, 1] + zf * r[5] - zf_y * r[8]
    out[:, 7, 0], out[:, 7, 1] = zf * (g * r[0]) - zf_x * (g * r[6]), zf * (g * r[3]) - zf_y * (g * r[6])
    out[:, 8, 0], out[:, 8, 1] = zf * (g * r[1]) - zf_x * (g * r[7]), zf * (g * r[4]) - zf_y * (g * r[7])
    out[:, 9, 0], out[:, 9, 1] = fx, fy
    out[:, 10, 0], out[:, 11, 1] = valid, valid
    out[:, 12] = slab.residual


def _regress(
    out: Float[Tensor, "chunk 13 3 slot"],
    slab: _Slab,
    e: Float[Tensor, "chunk slot"],
    goal: Float[Tensor, "chunk 3 slot"],
) -> None:
    """As `_project` for distances from predicted points."""
    pairs, z = slab.pairs, slab.depth
    unit, size = pairs[:, 12], pairs[:, 13]
    y = unit[:, None] * slab.point
    lateral = -unit * z * pairs[:, 15]
    for d in range(3):
        after, before = (d + 1) % 3, (d + 2) % 3
        out[:, after, d], out[:, before, d] = y[:, before], -y[:, after]  # a x Y
        out[:, 3 + d, d] = unit
        out[:, 6, d] = e * slab.along[:, d] + unit * z * pairs[:, 3 * d + 2]
        out[:, 7, d], out[:, 8, d] = lateral * pairs[:, 3 * d], lateral * pairs[:, 3 * d + 1]
        out[:, 9, d] = -unit * size * goal[:, d]
        out[:, 10, d] = slab.along[:, d]
    out[:, 12] = slab.residual


def _chunks(term: Term, device: torch.device) -> _Chunks:
    rows = term.rows
    length = rows.length
    before = np.cumsum(length) - length
    layout = lay_out(np.repeat(np.arange(rows.num_pairs), length), SLOT)
    shift = (rows.span[:, 0] - before)[layout.pair]
    row = torch.from_numpy((layout.row + shift[:, None]).astype(np.int32))
    pair, used = layout.pair, torch.from_numpy(layout.used)
    del layout

    def packed(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).index_select(0, row.view(-1)).view(row.shape).to(device)

    return _Chunks(
        pair=pair,
        first=np.searchsorted(rows.source[pair], np.arange(len(rows.first_pair))),
        x=packed(rows.xy[:, 0]),
        y=packed(rows.xy[:, 1]),
        goal=torch.stack([packed(rows.goal[:, k]) for k in range(rows.goal.shape[1])], dim=1),
        anchor=packed(rows.anchor),
        relief=packed(rows.depth_ratio).sub_(1),
        weight=packed(rows.weight).mul_(used.to(device)),
    )


def _array(values: Tensor) -> np.ndarray:
    return values.cpu().numpy()
