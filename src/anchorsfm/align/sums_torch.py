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

from anchorsfm.align.linearise import (
    CENTRE,
    FOCAL,
    FOCAL_RATIO,
    HIGHEST,
    LOWEST,
    NUM_LOCAL,
    OF_PAIR,
    OF_SOURCE,
    ROTATION,
    SHIFT,
    SIZE,
    SOURCE_CENTRE,
    SOURCE_INVERSE_FOCAL,
    UNIT,
    DepthSums,
    Point,
    SourceBlock,
    Term,
)
from anchorsfm.align.losses import RobustLoss
from anchorsfm.align.observations import lay_out
from anchorsfm.align.state import Constants

NEAR, CLOSEST = 1e-2, 1e-3
"""Depth in the target, as a share of that in the source and in scene units, below which an observation says nothing."""
SLOT = 128
SLAB_ROWS = {"cpu": 1 << 15}
"""Observations handled at a time; on other devices all of a source image."""
MOST_COUPLING = 1 << 20
"""Numbers in the coupling of images that are summed together, about."""


@dataclass(frozen=True, kw_only=True)
class _Chunks:
    """`SortedRows` in chunks; unused slots repeat an observation at zero weight."""

    pair: Int[np.ndarray, "chunk"]
    source: Int[np.ndarray, "chunk"]
    number: Int[np.ndarray, "chunk"]
    """Of the directed pair, among all of its source image."""
    first: Int[np.ndarray, "view_plus_1"]
    """First chunk of every source image."""
    xy: Float[Tensor, "chunk 2 slot"]
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
    valid: Float[Tensor, "chunk slot"] | None
    """0 for what says nothing; None: all of it does."""
    point: Float[Tensor, "chunk _ slot"]
    """Y, or its pixel where it is projected."""
    inverse: Float[Tensor, "chunk slot"] | None
    """1 / Y_2 where it is projected."""
    depth: Float[Tensor, "chunk slot"]
    relief: Float[Tensor, "chunk slot"]
    """(o - 1) f0 / f_s."""
    distance: Float[Tensor, "chunk slot"]
    slope: Float[Tensor, "chunk slot"]
    """Smoothed length of the residual, and derivative of the loss by it."""
    confidence: Float[Tensor, "chunk slot"]
    cost: Float[Tensor, "chunk"]
    """Smoothed loss."""

    def fresh_weight(self) -> Float[Tensor, "chunk slot"]:
        """Of iterative reweighting."""
        return self.masked((self.slope / self.distance).mul_(self.confidence))

    def masked(self, weight: Float[Tensor, "chunk slot"]) -> Float[Tensor, "chunk slot"]:
        return weight if self.valid is None else weight * self.valid


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """Normal equations of the source images first .. last - 1, which are summed together."""

    point: Point
    coupled: bool
    first: int
    last: int
    pair_start: Int[np.ndarray, "view_plus_1"]
    anchor_start: Int[np.ndarray, "view_plus_1"]
    summed: Float[np.ndarray, "pair 12 13"]
    """Matrix and gradient of every directed pair."""
    coupling: Float[np.ndarray, "column _"]
    """Columns of the first, second, ... pair of each image, then those of the images' intrinsics; of all anchors, or
    of none where depths are rigid."""
    curvature: Float[np.ndarray, "anchor"]
    slope: Float[np.ndarray, "anchor"]
    cost: Float[np.ndarray, "view term"]
    loss: Float[np.ndarray, "view term"]

    def holds(self, view: int, point: Point, coupled: bool) -> bool:
        return self.first <= view < self.last and self.point is point and self.coupled == coupled

    def block(self, view: int) -> SourceBlock:
        """Of one image."""
        pairs = slice(*(self.pair_start[view : view + 2] - self.pair_start[self.first]))
        anchors = slice(*(self.anchor_start[view : view + 2] - self.anchor_start[self.first]))
        coupling, used = self.coupling[:, anchors], (pairs.stop - pairs.start) * len(OF_PAIR)
        if used + len(OF_SOURCE) < len(coupling):
            coupling = np.concatenate([coupling[:used], coupling[-len(OF_SOURCE) :]])
        return SourceBlock(
            hessian=self.summed[pairs, :, :NUM_LOCAL],
            gradient=self.summed[pairs, :, NUM_LOCAL],
            coupling=coupling.T if self.coupled else None,
            curvature=self.curvature[anchors],
            slope=self.slope[anchors],
            cost=tuple(self.cost[view - self.first].tolist()),
            loss=tuple(self.loss[view - self.first].tolist()),
        )


class TorchSums:
    """See `linearise.Sums`. Images that have few observations are summed together, because every operation takes its
    time however short it is."""

    name = "torch"

    def __init__(
        self, terms: tuple[Term, ...], constants: Constants, dtype: np.dtype[Any], device: str = "cpu"
    ) -> None:
        self._terms = terms
        self._device = torch.device(device)
        self._anchor_start = constants.anchor_start
        pairs = np.array([np.diff(term.rows.first_pair) for term in terms])
        self._pair_start = np.concatenate([[0], np.cumsum(pairs.sum(axis=0))])
        before = np.cumsum(pairs, axis=0) - pairs
        self._chunks = [_chunks(term, of_view, self._device) for term, of_view in zip(terms, before, strict=True)]
        self._weights = [torch.zeros_like(chunks.weight) for chunks in self._chunks]
        self._buffers: list[Tensor | None] = [None] * len(terms)
        self._dtype = torch.from_numpy(np.zeros(1, dtype)).dtype
        self._slab_rows = SLAB_ROWS.get(self._device.type, 1 << 20)
        self._batch: _Batch | None = None

    def source_block(self, view: int, point: Point, coupled: bool) -> SourceBlock:
        batch = self._batch
        if batch is None or not batch.holds(view, point, coupled):
            batch = self._sums_of(view, self._end_of_batch(view), point, coupled)
        self._batch = batch if view + 1 < batch.last else None
        return batch.block(view)

    def _end_of_batch(self, first: int) -> int:
        """As many images as make a slab, unless their coupling takes much memory, but at least one."""
        rows = sum((chunks.first - chunks.first[first]) * chunks.weight.shape[1] for chunks in self._chunks)
        coupling = (self._pair_start - self._pair_start[first]) * len(OF_PAIR) * np.diff(self._anchor_start).max()
        ends = [np.searchsorted(rows, self._slab_rows, "right"), np.searchsorted(coupling, MOST_COUPLING, "right")]
        return max(first + 1, int(min(ends)) - 1)

    def _sums_of(self, first: int, last: int, point: Point, coupled: bool) -> _Batch:
        pair_start, anchor_start = self._pair_start, self._anchor_start
        first_anchor, num_anchors = int(anchor_start[first]), int(anchor_start[last] - anchor_start[first])
        most_pairs = int(np.diff(pair_start[first : last + 1]).max())
        num_pairs = int(pair_start[last] - pair_start[first])
        summed = torch.zeros(num_pairs, NUM_LOCAL, NUM_LOCAL + 1, dtype=torch.float64, device=self._device)
        shape = (most_pairs * len(OF_PAIR) + len(OF_SOURCE), num_anchors if coupled else 0)
        coupling = torch.zeros(shape, dtype=self._dtype, device=self._device)
        curvature, slope = self._zeros(num_anchors)
        cost, loss = np.zeros((2, last - first, len(self._terms)))
        depth, kappa = self._tensor(point.depth), self._tensor(point.kappa)
        for k, (term, chunks) in enumerate(zip(self._terms, self._chunks, strict=True)):
            for slab in self._slabs(k, first, last, point, depth):
                source, number = chunks.source[slab.here], chunks.number[slab.here]
                np.add.at(cost[:, k], source - first, _array(slab.cost))
                np.add.at(loss[:, k], source - first, _array(_plain_loss(term.gamma, slab)))
                weight = slab.fresh_weight()
                self._weights[k][slab.here] = weight
                anchor = chunks.anchor[slab.here]
                e = _gathered(kappa, anchor) - 1 - slab.relief / (1 + slab.relief)
                jacobian = self._columns(k, len(e))
                if term.projected:
                    _project(jacobian, slab, e)
                else:
                    _regress(jacobian, slab, e, chunks.goal[slab.here])
                root = weight.sqrt()[:, None]
                scaled = jacobian.mul_(root[:, None]).flatten(2)
                product = torch.bmm(scaled[:, :NUM_LOCAL], scaled.transpose(1, 2))
                place = self._tensor(number + pair_start[source] - pair_start[first])
                summed.index_add_(0, place, product.double())
                if coupled:
                    row = anchor.long() - first_anchor
                    mixed = _along_depths(jacobian[:, :NUM_LOCAL], slab.along * root)
                    _couple(coupling, self._tensor(number), row, mixed)
                    _add_depths(curvature, slope, row, slab, weight)
        return _Batch(
            point=point,
            coupled=coupled,
            first=first,
            last=last,
            pair_start=pair_start,
            anchor_start=anchor_start,
            summed=_array(summed),
            coupling=_array(coupling),
            curvature=_array(curvature.double()),
            slope=_array(slope.double()),
            cost=cost,
            loss=loss,
        )

    def depth_sums(self, point: Point, stored: bool) -> DepthSums:
        curvature, slope = self._zeros(len(point.depth))
        cost = np.zeros(len(self._terms))
        depth = self._tensor(point.depth)
        for k, chunks in enumerate(self._chunks):
            for slab in self._slabs(k, 0, -1, point, depth):
                cost[k] += float(slab.cost.sum())
                weight = slab.masked(self._weights[k][slab.here]) if stored else slab.fresh_weight()
                _add_depths(curvature, slope, chunks.anchor[slab.here].long(), slab, weight)
        return DepthSums(curvature=_array(curvature.double()), slope=_array(slope.double()), cost=tuple(cost.tolist()))

    def _columns(self, k: int, count: int) -> Float[Tensor, "chunk 13 dim slot"]:
        """A buffer for Jacobian columns and residuals; what is zero in all of them is zero."""
        chunks = self._chunks[k]
        shape = (NUM_LOCAL + 1, chunks.goal.shape[1], chunks.goal.shape[2])
        buffer = self._buffers[k]
        if buffer is None or len(buffer) < count:
            self._buffers[k] = buffer = torch.zeros(count, *shape, dtype=self._dtype, device=self._device)
        return buffer[:count]

    def _zeros(self, count: int) -> tuple[Tensor, Tensor]:
        first, second = torch.zeros(2, count, dtype=self._dtype, device=self._device)
        return first, second

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self._device)

    def _slabs(self, k: int, first: int, last: int, point: Point, depth: Float[Tensor, "anchor"]) -> Iterator[_Slab]:
        """Slabs of the source images first .. last - 1 (-1: all from the first on)."""
        chunks = self._chunks[k]
        size = max(self._slab_rows // max(chunks.weight.shape[1], 1), 1)
        stop = int(chunks.first[last])
        for begin in range(int(chunks.first[first]), stop, size):
            here = slice(begin, min(begin + size, stop))
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
    relief, gathered = chunks.relief[here] * pairs[:, FOCAL_RATIO], _gathered(depth, chunks.anchor[here])
    z = torch.addcmul(gathered, gathered, relief)
    rotation, shift, goal = pairs[:, ROTATION, 0].view(-1, 3, 3), pairs[:, SHIFT], chunks.goal[here]
    if projected:  # in homogeneous pixels of the target, K_t Y
        rotation, shift = (_calibrated(v, pairs) for v in (rotation, shift))
    of_pixel = rotation[:, :, :2] * pairs[:, SOURCE_INVERSE_FOCAL, None]
    y = torch.bmm(of_pixel, chunks.xy[here]).add_(rotation[:, :, 2:] - of_pixel @ pairs[:, SOURCE_CENTRE])
    y.mul_(z[:, None]).add_(shift)
    if projected:
        inverse = y[:, 2].clamp(min=CLOSEST).reciprocal_()
        point = y[:, :2] * inverse[:, None]
        clipped = _clipped(point, pairs)
        valid, residual = _seen(y[:, 2], z, clipped - point), clipped.sub_(goal)
        along = (point * shift[:, 2:]).sub_(shift[:, :2]).mul_(inverse[:, None])
    else:
        unit, size = pairs[:, UNIT, None], pairs[:, SIZE, None]
        residual, along, valid, point, inverse = unit * (y - size * goal), unit * (y - shift), None, y, None
    confidence, (gamma, _, square) = chunks.weight[here], robust
    distance = _summed_products(residual, residual).add_(max(square, 1e-24)).sqrt_()
    value, slope = RobustLoss(gamma).value_and_slope(distance)
    return _Slab(
        here=here,
        pairs=pairs,
        residual=residual,
        along=along,
        valid=valid,
        point=point,
        inverse=inverse,
        depth=z,
        relief=relief,
        distance=distance,
        slope=slope,
        confidence=confidence,
        cost=(confidence * value).sum(1),
    )


def _calibrated(vectors: Float[Tensor, "chunk 3 _"], pairs: Float[Tensor, "chunk 23 1"]) -> Float[Tensor, "chunk 3 _"]:
    """K_t times vectors in the frame of the target."""
    last = vectors[:, 2:]
    return torch.cat([vectors[:, :2] * pairs[:, FOCAL, None] + pairs[:, CENTRE] * last, last], dim=1)


def _clipped(pixel: Float[Tensor, "chunk 2 slot"], pairs: Float[Tensor, "chunk 23 1"]) -> Float[Tensor, "chunk 2 slot"]:
    """Brought into the bounds of each target, which are usually the same: clamping to numbers is much faster."""
    low, high = pairs[:, LOWEST], pairs[:, HIGHEST]
    if low.min() == low.max() and high.min() == high.max():
        return pixel.clamp(low[0, 0].item(), high[0, 0].item())
    return pixel.clamp(low, high)


def _seen(
    depth: Float[Tensor, "chunk slot"],
    source_depth: Float[Tensor, "chunk slot"],
    excess: Float[Tensor, "chunk 2 slot"],
) -> Float[Tensor, "chunk slot"]:
    """1 for what lies in front of the target and was not clipped, else 0; in floating point, which is faster than with
    flags."""
    excess = excess.abs_()
    wrong = (NEAR * source_depth).clamp_(min=CLOSEST).sub_(depth).clamp_(min=0)
    return 1 - wrong.add_(excess[:, 0]).add_(excess[:, 1]).sign_()


def _couple(
    coupling: Float[Tensor, "column anchor"],
    number: Int[Tensor, "chunk"],
    row: Int[Tensor, "chunk slot"],
    mixed: Float[Tensor, "12 chunk slot"],
) -> None:
    """Add products with the derivative by the log depth, in place: columns of pairs, then those of the source."""
    flat, anchors = coupling.view(-1), coupling.shape[1]
    own = (row + (number * (len(OF_PAIR) * anchors))[:, None]).view(-1)
    for k, column in enumerate(OF_PAIR):
        flat[k * anchors :].scatter_add_(0, own, mixed[column].view(-1))
    shared = row.view(-1)
    for k, column in enumerate(OF_SOURCE):
        coupling[k - len(OF_SOURCE)].scatter_add_(0, shared, mixed[column].view(-1))


def _along_depths(
    columns: Float[Tensor, "chunk 12 dim slot"], along: Float[Tensor, "chunk dim slot"]
) -> Float[Tensor, "12 chunk slot"]:
    """Products of weighted columns with the derivative by the log depth, summed over the residual's dimensions."""
    by_column = columns.transpose(0, 1)
    total = (by_column[:, :, 0] * along[:, 0]).contiguous()
    for k in range(1, along.shape[1]):
        total.addcmul_(by_column[:, :, k], along[:, k])
    return total


def _plain_loss(gamma: float, slab: _Slab) -> Float[Tensor, "chunk"]:
    value, _ = RobustLoss(gamma).value_and_slope(_summed_products(slab.residual, slab.residual).sqrt())
    return (slab.confidence * value).sum(1)


def _summed_products(
    first: Float[Tensor, "chunk dim slot"], second: Float[Tensor, "chunk dim slot"]
) -> Float[Tensor, "chunk slot"]:
    """Summed over the second axis, which is short."""
    total = first[:, 0] * second[:, 0]
    for k in range(1, first.shape[1]):
        total.addcmul_(first[:, k], second[:, k])
    return total


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
    curvature.scatter_add_(0, index, _summed_products(slab.along, slab.along).mul_(weight).view(-1))
    slope.scatter_add_(0, index, _summed_products(slab.along, slab.residual).mul_(weight).view(-1))


def _project(out: Float[Tensor, "chunk 13 2 slot"], slab: _Slab, e: Float[Tensor, "chunk slot"]) -> None:
    """Columns of the local unknowns, then the residual, into a buffer; weights leave out what says nothing."""
    pairs = slab.pairs
    assert slab.inverse is not None
    f = pairs[:, FOCAL]
    scaled = torch.sub(slab.point, pairs[:, CENTRE], out=out[:, 9])  # f (x, y)
    point, scale = scaled / pairs[:, FOCAL, None], slab.inverse * f
    (fx, fy), (x, y) = scaled.unbind(1), point.unbind(1)
    torch.mul(fx, y, out=out[:, 1, 1])
    torch.neg(out[:, 1, 1], out=out[:, 0, 0])
    torch.mul(fx, x, out=out[:, 1, 0]).add_(f)
    torch.mul(fy, y, out=out[:, 0, 1]).add_(f).neg_()
    torch.neg(fy, out=out[:, 2, 0])
    out[:, 2, 1] = fx
    out[:, 3, 0], out[:, 4, 1] = scale, scale
    torch.mul(scaled, slab.inverse[:, None], out=out[:, 5]).neg_()
    lateral = torch.empty_like(out[:, :3, 0])
    torch.mul(slab.depth, scale, out=lateral[:, 0])
    torch.mul(point, lateral[:, :1], out=lateral[:, 1:])
    out[:, 6:9] = torch.bmm(_of_calibration(pairs), lateral).unflatten(1, (3, 2))
    out[:, 6].addcmul_(slab.along, e[:, None])
    out[:, 10, 0], out[:, 11, 1] = 1, 1
    out[:, 12] = slab.residual


def _of_calibration(pairs: Float[Tensor, "chunk 23 1"]) -> Float[Tensor, "chunk 6 3"]:
    """z f_t / Y_2 (1, x, y) -> derivatives of both residuals by what moves the ray: log focal length (along the axis of
    the source), then principal point."""
    rotation = pairs[:, ROTATION, 0].view(-1, 3, 3)
    turned = torch.cat([rotation[:, :, 2:], rotation[:, :, :2] * -pairs[:, SOURCE_INVERSE_FOCAL, None]], dim=2)
    matrix = turned.new_zeros(len(turned), 3, 2, 3)
    matrix[:, :, 0, 0], matrix[:, :, 1, 0] = turned[:, 0], turned[:, 1]
    matrix[:, :, 0, 1] = matrix[:, :, 1, 2] = -turned[:, 2]
    return matrix.flatten(1, 2)


def _regress(
    out: Float[Tensor, "chunk 13 3 slot"],
    slab: _Slab,
    e: Float[Tensor, "chunk slot"],
    goal: Float[Tensor, "chunk 3 slot"],
) -> None:
    """As `_project` for distances from predicted points."""
    pairs, z = slab.pairs, slab.depth
    unit, size = pairs[:, UNIT], pairs[:, SIZE]
    y = unit[:, None] * slab.point
    lateral = -unit * z * pairs[:, SOURCE_INVERSE_FOCAL]
    for d in range(3):
        after, before = (d + 1) % 3, (d + 2) % 3
        out[:, after, d], out[:, before, d] = y[:, before], -y[:, after]  # a x Y
        out[:, 3 + d, d] = unit
        out[:, 6, d] = e * slab.along[:, d] + unit * z * pairs[:, 3 * d + 2]
        out[:, 7, d], out[:, 8, d] = lateral * pairs[:, 3 * d], lateral * pairs[:, 3 * d + 1]
        out[:, 9, d] = -unit * size * goal[:, d]
        out[:, 10, d] = slab.along[:, d]
    out[:, 12] = slab.residual


def _chunks(term: Term, pairs_before: Int[np.ndarray, "view"], device: torch.device) -> _Chunks:
    """pairs_before: of other terms, which come first among the pairs of a source image."""
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

    source = rows.source[pair]
    return _Chunks(
        pair=pair,
        source=source,
        number=pair - rows.first_pair[source] + pairs_before[source],
        first=np.searchsorted(source, np.arange(len(rows.first_pair))),
        xy=torch.stack([packed(rows.xy[:, k]) for k in range(2)], dim=1),
        goal=torch.stack([packed(rows.goal[:, k]) for k in range(rows.goal.shape[1])], dim=1),
        anchor=packed(rows.anchor),
        relief=packed(rows.depth_ratio).sub_(1),
        weight=packed(rows.weight).mul_(used.to(device)),
    )


def _array(values: Tensor) -> np.ndarray:
    return values.cpu().numpy()
