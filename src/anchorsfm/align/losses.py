"""Robust losses, summed over observations with hand-written gradients (docs/method.md, Losses).

The robust loss is g(d) = (d + b)^gamma - b^gamma with b = (1 / gamma)^(1 / (gamma - 1)), so that g'(0) = 1.

Observations come in chunks: a chunk holds `slot` observations of one directed pair (source image a, target image b), so
that what depends on the pair is one small matrix per chunk. An observation is a source pixel p (homogeneous), tied to
an anchor with depth d and depth ratio o. With z = d (1 + (o - 1) f0 / f) and the pair's H = K_b R_ba K_a^-1 and
k = K_b t_ba its point in the target image is

    Y = z H p + k,        residual  Y_xy / max(Y_z, 1e-3) - q        against the matched pixel q.

The same form without K_b gives the 3D point in frame b, with residual Y - s x against a predicted point x at scale s.

Sums and gradients are computed together, slab by slab, so that intermediate arrays stay in the processor's cache and
memory does not grow with the number of matches: with L = sum w g(|r|) and e = w g'(|r|) r / |r| the gradients are
dL/dk = sum e_Y, dL/dH = sum z e_Y p^T, dL/dz = e_Y . (H p), where e_Y is e carried back through the projection.
The order of all sums is fixed, so a run can be repeated bit by bit.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

SLAB = 128
"""Chunks handled at a time: with 256 slots an array of a slab is 128 KiB in float32."""
MIN_PROJECTION_DEPTH = 1e-3

CLIP_SIDES = (-2, 4)
"""Lowest and highest pixel that a projection is clipped to, as multiples of the image's longer side."""
FIXED_CLIP_PX = (-1000.0, 2000.0)
"""The same where it is not to depend on the image's size."""


def offset_of(gamma: float) -> float:
    """b such that the slope of (d + b)^gamma - b^gamma at d = 0 is 1."""
    return 0.0 if gamma == 1 else (1 / gamma) ** (1 / (gamma - 1))


@dataclass(frozen=True)
class RobustLoss:
    """g(d) = (mul * min(d, clip) + offset)^gamma - offset^gamma; the plain norm for gamma 1 without an offset."""

    gamma: float
    offset: float | None = None
    mul: float = 1.0
    clip: float | None = None

    @property
    def is_plain(self) -> bool:
        return self.gamma == 1 and self.offset is None

    def value_and_slope(
        self, distance: Float[Tensor, "*batch"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """g and dg/dd for distances >= 0."""
        if self.is_plain:
            return distance, torch.ones_like(distance)
        offset = offset_of(self.gamma) if self.offset is None else self.offset
        shifted = distance if self.clip is None else distance.clamp(max=self.clip)
        shifted = shifted * self.mul + offset if self.mul != 1 else shifted + offset
        if self.gamma == 0.5:  # a square root is much cheaper than a general power
            power = shifted.sqrt()
            slope = (0.5 * self.mul) / power
        elif self.gamma == 1.5:
            root = shifted.sqrt()
            power, slope = shifted * root, (1.5 * self.mul) * root
        else:
            power = shifted.pow(self.gamma)
            slope = power / shifted * (self.gamma * self.mul)
        if self.clip is not None:
            slope = torch.where(distance > self.clip, 0.0, slope)
        return power - offset**self.gamma, slope

    def __call__(self, x: Float[Tensor, "*batch dim"], y: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
        """Robust distance between points; the gradient at distance 0 is 0."""
        result: Tensor = _RobustNorm.apply(x - y, self)
        return result


class _RobustNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, residual: Tensor, robust: RobustLoss) -> Tensor:
        distance = residual.square().sum(-1).sqrt()
        value, slope = robust.value_and_slope(distance)
        ctx.save_for_backward(_direction(residual, distance, slope, -1))
        return value

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None]:
        return grad[0].unsqueeze(-1) * ctx.saved_tensors[0], None


def _direction(residual: Tensor, distance: Tensor, slope: Tensor, dim: int) -> Tensor:
    """slope * residual / distance, zero where the residual vanishes."""
    return residual * (slope / distance.clamp(min=1e-30)).unsqueeze(dim)


@dataclass(frozen=True, kw_only=True)
class PointChunks:
    """Pairs of constant 3D points, one in each of two frames."""

    pair: Int[Tensor, "chunk"]
    """Row of the pair matrices."""
    points: Float[Tensor, "chunk 7 slot"]
    """Point in the first frame, in the second frame, and 1."""
    weight: Float[Tensor, "chunk slot"]
    """Confidence; zero in unused slots."""


@dataclass(frozen=True, kw_only=True)
class RayChunks:
    """Pixels of source images and what they should coincide with in the target image."""

    pair: Int[Tensor, "chunk"]
    """Row of the directed pair's matrices."""
    pixel: Float[Tensor, "chunk 3 slot"]
    """Homogeneous source pixel relative to the middle of the image."""
    anchor: Int[Tensor, "chunk slot"]
    relief: Float[Tensor, "chunk slot"]
    """Depth ratio o minus 1."""
    target: Float[Tensor, "chunk target_dim slot"]
    """Matched pixel (2 rows) or predicted point (3 rows)."""
    weight: Float[Tensor, "chunk slot"]


def matching_loss_3d(matrix: Float[Tensor, "pair 3 7"], chunks: PointChunks, robust: RobustLoss) -> Float[Tensor, ""]:
    """Sum of w g(|M (x_i, x_j, 1)|): M holds the relative pose with both scales."""
    total: Tensor = _MatchingLoss3D.apply(matrix, chunks, robust)
    return total


class _MatchingLoss3D(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: Tensor, chunks: PointChunks, robust: RobustLoss) -> Tensor:
        matrices = matrix.index_select(0, chunks.pair)
        gradient = torch.empty_like(matrices)
        total = matrix.new_zeros(())
        for slab in _slabs(len(chunks.pair)):
            points, weight = chunks.points[slab], chunks.weight[slab]
            residual = torch.bmm(matrices[slab], points)
            distance = residual.square().sum(1).sqrt()
            value, slope = robust.value_and_slope(distance)
            total += (value * weight).sum()
            direction = _direction(residual, distance, slope * weight, 1)
            torch.bmm(direction, points.transpose(1, 2), out=gradient[slab])
        ctx.save_for_backward(torch.zeros_like(matrix).index_add_(0, chunks.pair, gradient))
        return total

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, None]:
        return grad[0] * ctx.saved_tensors[0], None, None


@dataclass(frozen=True)
class PixelClip:
    """Projected pixels are clipped to [lowest, highest] (per directed pair); no gradient outside."""

    lowest: Float[Tensor, "pair 2"]
    highest: Float[Tensor, "pair 2"]


def reprojection_loss(
    rotation: Float[Tensor, "pair 3 3"],
    offset: Float[Tensor, "pair 3"],
    depth: Float[Tensor, "anchor"],
    relief_factor: Float[Tensor, "pair"],
    chunks: RayChunks,
    robust: RobustLoss,
    clip: PixelClip,
) -> Float[Tensor, ""]:
    """Sum of w g(|projection - matched pixel|); rotation and offset are H and k, relief_factor is f0 / f."""
    total: Tensor = _RayLoss.apply(rotation, offset, depth, relief_factor, None, chunks, robust, clip)
    return total


def regression_loss(
    rotation: Float[Tensor, "pair 3 3"],
    offset: Float[Tensor, "pair 3"],
    depth: Float[Tensor, "anchor"],
    relief_factor: Float[Tensor, "pair"],
    scale: Float[Tensor, "pair"],
    chunks: RayChunks,
    robust: RobustLoss,
) -> Float[Tensor, ""]:
    """Sum of w g(|point - scale * predicted point|) in the frame of the target camera."""
    total: Tensor = _RayLoss.apply(rotation, offset, depth, relief_factor, scale, chunks, robust, None)
    return total


class _RayLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rotation: Tensor,
        offset: Tensor,
        depth: Tensor,
        relief_factor: Tensor,
        scale: Tensor | None,
        chunks: RayChunks,
        robust: RobustLoss,
        clip: PixelClip | None,
    ) -> Tensor:
        pair = chunks.pair
        grads = _RayGradients.zeros(len(pair), depth)
        rotations, offsets, factors = (v.index_select(0, pair) for v in (rotation, offset, relief_factor))
        scales = None if scale is None else scale.index_select(0, pair)
        clips = None if clip is None else (clip.lowest.index_select(0, pair), clip.highest.index_select(0, pair))
        total = depth.new_zeros(())
        for slab in _slabs(len(pair)):
            anchor, relief, weight = chunks.anchor[slab], chunks.relief[slab], chunks.weight[slab]
            anchor_depth = depth.index_select(0, anchor.view(-1)).view(anchor.shape)
            ratio = relief * factors[slab, None] + 1
            z = anchor_depth * ratio
            ray = torch.bmm(rotations[slab], chunks.pixel[slab])
            point = torch.addcmul(offsets[slab, :, None], ray, z[:, None])
            if clips is not None:
                value, e = _project(point, chunks.target[slab], weight, robust, (clips[0][slab], clips[1][slab]))
            else:
                assert scales is not None
                value, e = _regress(point, chunks.target[slab], weight, robust, scales[slab])
                grads.scale[slab] = -(e * chunks.target[slab]).sum((1, 2))
            total += value
            grads.offset[slab] = e.sum(2)
            grad_z = (e * ray).sum(1)
            grads.depth.index_add_(0, anchor.view(-1), (grad_z * ratio).view(-1))
            grads.relief_factor[slab] = (grad_z * anchor_depth * relief).sum(1)
            torch.bmm(e.mul_(z[:, None]), chunks.pixel[slab].transpose(1, 2), out=grads.rotation[slab])
        ctx.with_scale = scale is not None
        num = len(rotation)
        ctx.save_for_backward(
            _per_pair(grads.rotation, pair, num),
            _per_pair(grads.offset, pair, num),
            grads.depth,
            _per_pair(grads.relief_factor, pair, num),
            _per_pair(grads.scale, pair, num),
        )
        return total

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        *first, scale = (grad[0] * saved for saved in ctx.saved_tensors)
        return (*first, scale if ctx.with_scale else None, None, None, None)


@dataclass(frozen=True)
class _RayGradients:
    rotation: Float[Tensor, "chunk 3 3"]
    offset: Float[Tensor, "chunk 3"]
    depth: Float[Tensor, "anchor"]
    relief_factor: Float[Tensor, "chunk"]
    scale: Float[Tensor, "chunk"]

    @staticmethod
    def zeros(num_chunks: int, depth: Float[Tensor, "anchor"]) -> "_RayGradients":
        shapes = ((num_chunks, 3, 3), (num_chunks, 3), depth.shape, (num_chunks,), (num_chunks,))
        return _RayGradients(*(depth.new_zeros(shape) for shape in shapes))


def _project(
    point: Float[Tensor, "chunk 3 slot"],
    target: Float[Tensor, "chunk 2 slot"],
    weight: Float[Tensor, "chunk slot"],
    robust: RobustLoss,
    clip: tuple[Float[Tensor, "chunk 2"], Float[Tensor, "chunk 2"]],
) -> tuple[Float[Tensor, ""], Float[Tensor, "chunk 3 slot"]]:
    """Loss of projected points and its gradient with respect to them."""
    z = point[:, 2]
    inverse = z.clamp(min=MIN_PROJECTION_DEPTH).reciprocal()
    pixel = point[:, :2] * inverse[:, None]
    clipped = torch.minimum(torch.maximum(pixel, clip[0][..., None]), clip[1][..., None])
    residual = clipped - target
    distance = residual.square().sum(1).sqrt()
    value, slope = robust.value_and_slope(distance)
    e = _direction(residual, distance, slope * weight, 1)
    e.mul_(clipped == pixel)
    e.mul_(inverse[:, None])
    e_z = (e * pixel).sum(1).neg_().mul_(z >= MIN_PROJECTION_DEPTH)
    return (value * weight).sum(), torch.cat([e, e_z[:, None]], 1)


def _regress(
    point: Float[Tensor, "chunk 3 slot"],
    target: Float[Tensor, "chunk 3 slot"],
    weight: Float[Tensor, "chunk slot"],
    robust: RobustLoss,
    scale: Float[Tensor, "chunk"],
) -> tuple[Float[Tensor, ""], Float[Tensor, "chunk 3 slot"]]:
    """Loss of points against predicted points and its gradient with respect to the former."""
    residual = point - target * scale[:, None, None]
    distance = residual.square().sum(1).sqrt()
    value, slope = robust.value_and_slope(distance)
    return (value * weight).sum(), _direction(residual, distance, slope * weight, 1)


def _per_pair(value: Float[Tensor, "chunk *rest"], pair: Int[Tensor, "chunk"], num: int) -> Float[Tensor, "pair *rest"]:
    return value.new_zeros((num, *value.shape[1:])).index_add_(0, pair, value)


def _slabs(num_chunks: int) -> list[slice]:
    return [slice(first, min(first + SLAB, num_chunks)) for first in range(0, num_chunks, SLAB)]
