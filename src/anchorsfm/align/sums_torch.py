"""Sums over observations in torch, on any device: one source image at a time, vectorised over its observations.

Notation and columns as in `linearise.py`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from anchorsfm.align.linearise import NUM_LOCAL, OF_PAIR, OF_SOURCE, DepthSums, Point, SourceBlock, Term
from anchorsfm.align.losses import RobustLoss
from anchorsfm.align.state import Constants

NEAR, CLOSEST = 1e-2, 1e-3
"""Depth in the target, as a share of that in the source and in scene units, below which an observation says nothing."""


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """`SortedRows` as tensors."""

    xy: Float[Tensor, "row 2"]
    goal: Float[Tensor, "row goal_dim"]
    anchor: Int[Tensor, "row"]
    relief: Float[Tensor, "row"]
    weight: Float[Tensor, "row"]
    start: list[int]
    first_pair: list[int]


@dataclass(frozen=True, kw_only=True)
class _Views:
    """Constants of the directed pair of each of some observations."""

    rotation: Float[Tensor, "row 9"]
    shift: Float[Tensor, "row 3"]
    target: Float[Tensor, "row 3"]
    """f_t and c_t, or n, size and nothing."""
    inverse_focal: Float[Tensor, "row"]
    centre: Float[Tensor, "row 2"]
    focal_ratio: Float[Tensor, "row"]
    lowest: Float[Tensor, "row 2"]
    highest: Float[Tensor, "row 2"]


@dataclass(frozen=True, kw_only=True)
class _Residuals:
    """Residuals of some observations and what their derivatives are made of."""

    value: Float[Tensor, "row dim"]
    along: Float[Tensor, "row dim"]
    """Derivative by the log depth."""
    valid: Float[Tensor, "row"]
    point: Float[Tensor, "row 3"]
    """Y, or (x, y, f_t / Y_2) where it is projected."""
    depth: Float[Tensor, "row"]
    bracket: Float[Tensor, "row"]


class TorchSums:
    """See `linearise.Sums`."""

    def __init__(
        self, terms: tuple[Term, ...], constants: Constants, dtype: np.dtype[Any], device: str = "cpu"
    ) -> None:
        self._terms = terms
        self._device = torch.device(device)
        self._start = constants.anchor_start.tolist()
        self._rows = [_rows(term, self._device) for term in terms]
        self._weights = [torch.zeros_like(rows.weight) for rows in self._rows]

    def source_block(self, view: int, point: Point, coupled: bool) -> SourceBlock:
        first, last = self._start[view], self._start[view + 1]
        ranges = [rows.first_pair[view : view + 2] for rows in self._rows]
        num_pairs = sum(end - begin for begin, end in ranges)
        dtype = self._rows[0].weight.dtype
        summed = torch.zeros(num_pairs, NUM_LOCAL, NUM_LOCAL + 1, dtype=dtype, device=self._device)
        anchors = last - first if coupled else 0
        coupling = torch.zeros(num_pairs, anchors, NUM_LOCAL, dtype=dtype, device=self._device)
        curvature, slope = torch.zeros(2, last - first, dtype=torch.float64, device=self._device)
        cost, loss, done = [], [], 0
        for k, ((begin, end), rows) in enumerate(zip(ranges, self._rows, strict=True)):
            chosen = slice(rows.start[begin], rows.start[end])
            views = self._views(point.pairs[k][begin:end], rows.start[begin : end + 1])
            residuals = self._residuals(k, chosen, views, self._tensor(point.depth))
            weight, *sums = self._weighed(k, chosen, residuals)
            self._weights[k][chosen] = weight
            cost.append(sums[0])
            loss.append(sums[1])
            kappa = self._tensor(point.kappa).index_select(0, rows.anchor[chosen])
            jacobian = self._jacobian(k, chosen, views, residuals, kappa)
            weighted = jacobian * weight
            with_residual = torch.cat([jacobian, residuals.value.T[None]])
            for pair in range(begin, end):
                here = slice(rows.start[pair] - chosen.start, rows.start[pair + 1] - chosen.start)
                left, right = weighted[:, :, here].flatten(1), with_residual[:, :, here].flatten(1)
                summed[done + pair - begin] = left @ right.T
            if coupled:
                along = residuals.along.T
                anchor = rows.anchor[chosen].long() - first
                lengths = torch.tensor(np.diff(rows.start[begin : end + 1]), device=self._device)
                pair_of_row = torch.repeat_interleave(torch.arange(done, done + end - begin, device=self._device), lengths)
                mixed = (weighted * along).sum(1).T.contiguous()
                coupling.view(-1, NUM_LOCAL).index_add_(0, pair_of_row * anchors + anchor, mixed)
                curvature.index_add_(0, anchor, (weight * along.square().sum(0)).double())
                slope.index_add_(0, anchor, (weight * (along * residuals.value.T).sum(0)).double())
            done += end - begin
        pair_columns = coupling[:, :, list(OF_PAIR)] if coupled else None
        return SourceBlock(
            hessian=_array(summed[:, :, :NUM_LOCAL].double()),
            gradient=_array(summed[:, :, NUM_LOCAL].double()),
            coupling=None if pair_columns is None else _array(pair_columns),
            shared_coupling=_array(coupling[:, :, list(OF_SOURCE)].sum(0)) if coupled else None,
            curvature=_array(curvature),
            slope=_array(slope),
            cost=tuple(cost),
            loss=tuple(loss),
        )

    def depth_sums(self, point: Point, stored: bool) -> DepthSums:
        curvature, slope = torch.zeros(2, len(point.depth), dtype=torch.float64, device=self._device)
        cost, loss = np.zeros((2, len(self._terms)))
        depth = self._tensor(point.depth)
        for k, rows in enumerate(self._rows):
            for begin, end in zip(rows.first_pair[:-1], rows.first_pair[1:], strict=True):
                chosen = slice(rows.start[begin], rows.start[end])
                if chosen.start == chosen.stop:
                    continue
                views = self._views(point.pairs[k][begin:end], rows.start[begin : end + 1])
                residuals = self._residuals(k, chosen, views, depth)
                fresh, *sums = self._weighed(k, chosen, residuals)
                weight = self._weights[k][chosen] * residuals.valid if stored else fresh
                cost[k] += sums[0]
                loss[k] += sums[1]
                anchor = rows.anchor[chosen]
                curvature.index_add_(0, anchor, (weight * residuals.along.square().sum(1)).double())
                slope.index_add_(0, anchor, (weight * (residuals.along * residuals.value).sum(1)).double())
        return DepthSums(
            curvature=_array(curvature), slope=_array(slope), cost=tuple(cost.tolist()), loss=tuple(loss.tolist())
        )

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self._device)

    def _views(self, pairs: Float[np.ndarray, "pair 23"], start: list[int]) -> _Views:
        lengths = torch.tensor(np.diff(start), device=self._device)
        p = torch.repeat_interleave(self._tensor(np.ascontiguousarray(pairs)), lengths, dim=0)
        return _Views(
            rotation=p[:, :9],
            shift=p[:, 9:12],
            target=p[:, 12:15],
            inverse_focal=p[:, 15],
            centre=p[:, 16:18],
            focal_ratio=p[:, 18],
            lowest=p[:, 19:21],
            highest=p[:, 21:23],
        )

    def _residuals(self, k: int, chosen: slice, views: _Views, depth: Float[Tensor, "anchor"]) -> _Residuals:
        rows = self._rows[k]
        ray = (rows.xy[chosen] - views.centre) * views.inverse_focal[:, None]
        bracket = 1 + rows.relief[chosen] * views.focal_ratio
        z = depth.index_select(0, rows.anchor[chosen]) * bracket
        r = views.rotation
        turned = torch.stack([r[:, d] * ray[:, 0] + r[:, d + 1] * ray[:, 1] + r[:, d + 2] for d in (0, 3, 6)], dim=1)
        spread = z[:, None] * turned
        y = spread + views.shift
        if not self._terms[k].projected:
            unit, size = views.target[:, :1], views.target[:, 1:2]
            return _Residuals(
                value=unit * (y - size * rows.goal[chosen]),
                along=unit * spread,
                valid=torch.ones_like(z),
                point=y,
                depth=z,
                bracket=bracket,
            )
        inverse = y[:, 2].clamp(min=CLOSEST).reciprocal()
        plane = y[:, :2] * inverse[:, None]
        focal = views.target[:, 0]
        pixel = focal[:, None] * plane + views.target[:, 1:]
        clipped = torch.minimum(torch.maximum(pixel, views.lowest), views.highest)
        seen = (y[:, 2] > NEAR * z) & (y[:, 2] > CLOSEST) & (clipped == pixel).all(1)
        scale = focal * inverse
        shift = views.shift
        return _Residuals(
            value=clipped - rows.goal[chosen],
            along=-scale[:, None] * (shift[:, :2] - plane * shift[:, 2:]),
            valid=seen.to(z.dtype),
            point=torch.cat([plane, scale[:, None]], dim=1),
            depth=z,
            bracket=bracket,
        )

    def _weighed(self, k: int, chosen: slice, residuals: _Residuals) -> tuple[Tensor, float, float]:
        """Fresh weights, smoothed cost and plain loss."""
        term, confidence = self._terms[k], self._rows[k].weight[chosen]
        robust = RobustLoss(term.gamma)
        square = residuals.value.square().sum(1)
        distance = (square + term.robust[2]).sqrt()
        value, slope = robust.value_and_slope(distance)
        plain, _ = robust.value_and_slope(square.sqrt())
        weight = residuals.valid * confidence * slope / distance.clamp(min=1e-12)
        cost, loss = (confidence * value).sum(), (confidence * plain).sum()
        return weight, float(cost), float(loss)

    def _jacobian(
        self, k: int, chosen: slice, views: _Views, residuals: _Residuals, kappa: Float[Tensor, "row"]
    ) -> Float[Tensor, "12 dim row"]:
        rows = self._rows[k]
        e = kappa - 1 - rows.relief[chosen] * views.focal_ratio / residuals.bracket
        if self._terms[k].projected:
            return _projected_jacobian(views, residuals, e)
        return _regressed_jacobian(views, residuals, e, views.target[:, 1:2] * rows.goal[chosen])


def _projected_jacobian(views: _Views, residuals: _Residuals, e: Float[Tensor, "row"]) -> Float[Tensor, "12 2 row"]:
    valid = residuals.valid
    x, y, fz = (residuals.point * valid[:, None]).unbind(1)
    f, r, zero = views.target[:, 0] * valid, views.rotation, torch.zeros_like(x)
    zf = residuals.depth * fz
    g = -zf * views.inverse_focal
    lu, lv = (residuals.along * valid[:, None]).unbind(1)
    u = [-f * x * y, f + f * x * x, -f * y, fz, zero, -fz * x, e * lu + zf * (r[:, 2] - x * r[:, 8]),
         g * (r[:, 0] - x * r[:, 6]), g * (r[:, 1] - x * r[:, 7]), f * x, valid, zero]  # fmt: skip
    v = [-f - f * y * y, f * x * y, f * x, zero, fz, -fz * y, e * lv + zf * (r[:, 5] - y * r[:, 8]),
         g * (r[:, 3] - y * r[:, 6]), g * (r[:, 4] - y * r[:, 7]), f * y, zero, valid]  # fmt: skip
    return torch.stack([torch.stack(u), torch.stack(v)], dim=1)


def _regressed_jacobian(
    views: _Views, residuals: _Residuals, e: Float[Tensor, "row"], target: Float[Tensor, "row 3"]
) -> Float[Tensor, "12 3 row"]:
    unit, z, r = views.target[:, 0], residuals.depth, views.rotation
    y = (unit[:, None] * residuals.point).T
    zero = torch.zeros_like(z)
    lateral = -unit * z * views.inverse_focal
    dims = []
    for d in range(3):
        cross = [zero, zero, zero]  # a x Y
        cross[(d + 1) % 3], cross[(d + 2) % 3] = y[(d + 2) % 3], -y[(d + 1) % 3]
        shift = [zero, zero, zero]
        shift[d] = unit
        along = residuals.along[:, d]
        dims.append(
            torch.stack(
                [*cross, *shift, e * along + unit * z * r[:, 3 * d + 2], lateral * r[:, 3 * d],
                 lateral * r[:, 3 * d + 1], -unit * target[:, d], along, zero]
            )  # fmt: skip
        )
    return torch.stack(dims, dim=1)


def _rows(term: Term, device: torch.device) -> _Rows:
    rows = term.rows
    return _Rows(
        xy=torch.from_numpy(rows.xy).to(device),
        goal=torch.from_numpy(rows.goal).to(device),
        anchor=torch.from_numpy(rows.anchor).to(device),
        relief=torch.from_numpy(rows.relief).to(device),
        weight=torch.from_numpy(rows.weight).to(device),
        start=rows.start.tolist(),
        first_pair=rows.first_pair.tolist(),
    )


def _array(values: Tensor) -> np.ndarray:
    return values.cpu().numpy()
