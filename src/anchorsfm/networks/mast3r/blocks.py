"""Transformer blocks of the encoder and the decoders (pre-norm, Dosovitskiy et al. 2020; cross attention as in CroCo).

The linear layers may be in half precision; what runs along the residual connections and the normalisations stays in
float32. So each linear stage casts its input to its own precision, and adding its output casts back.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from anchorsfm.networks.mast3r.rotary import Rotation

NORM_EPS = 1e-6


class Mlp(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, out)

    def forward(self, x: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token out"]:
        return self.fc2(functional.gelu(self.fc1(x.to(self.fc1.weight.dtype))))


class SelfAttention(nn.Module):
    """Every token of an image attends to all of them; queries and keys are turned by their positions."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "batch token width"], rotation: Rotation) -> Float[Tensor, "batch token width"]:
        projected = self.qkv(x.to(self.qkv.weight.dtype))
        queries, keys, values = projected.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(rotation.apply(queries), rotation.apply(keys), values)
        return self.proj(seen.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Every token of one image attends to all tokens of the other."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.projq = nn.Linear(width, width)
        self.projk = nn.Linear(width, width)
        self.projv = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "batch token width"],
        other: Float[Tensor, "batch other_token width"],
        rotation: Rotation,
        other_rotation: Rotation,
    ) -> Float[Tensor, "batch token width"]:
        x, other = x.to(self.projq.weight.dtype), other.to(self.projk.weight.dtype)
        queries = rotation.apply(self._heads(self.projq(x)))
        keys = other_rotation.apply(self._heads(self.projk(other)))
        seen = functional.scaled_dot_product_attention(queries, keys, self._heads(self.projv(other)))
        return self.proj(seen.transpose(1, 2).flatten(2))

    def _heads(self, x: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch head token channel"]:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class EncoderBlock(nn.Module):
    """Self attention, then an MLP."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = SelfAttention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, 4 * width, width)

    def forward(self, x: Float[Tensor, "image token width"], rotation: Rotation) -> Float[Tensor, "image token width"]:
        x = x + self.attn(self.norm1(x), rotation)
        return x + self.mlp(self.norm2(x))


class DecoderBlock(nn.Module):
    """Self attention, attention to the other image, then an MLP."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = SelfAttention(width, num_heads)
        self.cross_attn = CrossAttention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.norm3 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, 4 * width, width)
        self.norm_y = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(
        self,
        x: Float[Tensor, "pair token width"],
        other: Float[Tensor, "pair other_token width"],
        rotation: Rotation,
        other_rotation: Rotation,
    ) -> Float[Tensor, "pair token width"]:
        x = x + self.attn(self.norm1(x), rotation)
        x = x + self.cross_attn(self.norm2(x), self.norm_y(other), rotation, other_rotation)
        return x + self.mlp(self.norm3(x))


class PatchEmbedding(nn.Module):
    """One token per patch of pixels."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch_size, stride=patch_size)

    def forward(self, images: Float[Tensor, "image 3 h w"]) -> Float[Tensor, "image token width"]:
        tokens: Tensor = self.proj(images.to(self.proj.weight.dtype)).flatten(2).transpose(1, 2)
        return tokens.to(torch.float32)
