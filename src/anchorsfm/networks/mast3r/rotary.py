"""Rotary position embedding of a grid of patches (Su et al., RoFormer, 2021), in two dimensions.

The channels of an attention head are halved: one half is turned by angles proportional to the row of the patch, the
other by its column. Within a half of 2F channels, channels f and f + F form a plane that is turned by
position * base^(-f / F). The scalar product of two tokens then depends on the difference of their positions alone.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """Cosines and sines of the angles of every token, laid out as the channels they turn (axis, half, frequency)."""

    cos: Float[Tensor, "token 2 1 frequency"]
    sin: Float[Tensor, "token 2 1 frequency"]

    def apply(self, heads: Float[Tensor, "batch head token channel"]) -> Float[Tensor, "batch head token channel"]:
        """Turn queries or keys."""
        frequencies = self.cos.shape[-1]
        first, second = heads.unflatten(-1, (2, 2, frequencies)).chunk(2, dim=-2)
        cos, sin = self.cos.to(heads.dtype), self.sin.to(heads.dtype)
        turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-2)
        return turned.flatten(-3)


def patch_positions(grid_hw: tuple[int, int], device: torch.device | None = None) -> Int[Tensor, "token 2"]:
    """Row and column of every patch, row by row."""
    rows, columns = (torch.arange(count, device=device) for count in grid_hw)
    return torch.cartesian_prod(rows, columns).reshape(-1, 2)


def make_rotation(grid_hw: tuple[int, int], head_width: int, base: float, device: torch.device) -> Rotation:
    """Angles for heads of `head_width` channels, a multiple of 4."""
    frequencies = head_width // 4
    exponents = torch.arange(frequencies, device=device, dtype=torch.float32) / frequencies
    positions = patch_positions(grid_hw, device).to(torch.float32)
    angles = positions[:, :, None, None] * base**-exponents
    return Rotation(cos=angles.cos(), sin=angles.sin())
