"""From decoder tokens to what is said about every pixel of a view: 3D point, confidence, descriptor.

Activations (Leroy et al., MASt3R, 2024): a raw point v becomes v/|v| * (e^|v| - 1), a raw confidence c becomes 1 + e^c,
a raw descriptor confidence q becomes e^q, and descriptors have unit length. All of it in float32.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from anchorsfm.networks.mast3r.architecture import Architecture
from anchorsfm.networks.mast3r.blocks import Mlp
from anchorsfm.networks.mast3r.dpt import Dpt

_POINT_CHANNELS = 4
"""Raw point and raw confidence."""


@dataclass(frozen=True, kw_only=True)
class DecodedView:
    """Tokens of one view of each pair at the layers the heads look at, the encoder's output first if it is one."""

    layers: tuple[Float[Tensor, "pair token _"], ...]
    encoded: Float[Tensor, "pair token encoder_width"]
    grid_hw: tuple[int, int]
    """Rows and columns of patches."""


@dataclass(frozen=True, kw_only=True)
class ViewPrediction:
    """What one view of each pair shows, in the camera frame of the pair's first view."""

    points: Float[Tensor, "pair h w 3"]
    confidence: Float[Tensor, "pair h w"]
    """At least 1, where 1 means "know nothing"."""
    descriptors: Float[Tensor, "pair h w channel"] | None
    """Of unit length. None for networks without."""
    descriptor_confidence: Float[Tensor, "pair h w"] | None
    """Positive."""


class LinearHead(nn.Module):
    """Points and confidences of a patch's pixels by one linear layer on its last token (DUSt3R)."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.patch_size = architecture.patch_size
        self.proj = nn.Linear(architecture.decoder_width, _POINT_CHANNELS * self.patch_size**2)

    def forward(self, view: DecodedView) -> ViewPrediction:
        return _activate(_to_pixels(self.proj(view.layers[-1].float()), view.grid_hw, self.patch_size), None)


class DptHead(nn.Module):
    """Points and confidences by a DPT (DUSt3R)."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        encoder, decoder = architecture.encoder_width, architecture.decoder_width
        self.dpt = Dpt((encoder, decoder, decoder, decoder), architecture.dpt, _POINT_CHANNELS)

    def forward(self, view: DecodedView) -> ViewPrediction:
        return _activate(self._points(view), None)

    def _points(self, view: DecodedView) -> Float[Tensor, "pair 4 h w"]:
        return self.dpt(tuple(layer.float() for layer in view.layers), view.grid_hw)


class DescriptorHead(DptHead):
    """Points by a DPT, and descriptors of a patch's pixels by an MLP on its encoder and last decoder token (MASt3R)."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        self.patch_size = architecture.patch_size
        width = architecture.encoder_width + architecture.decoder_width
        channels = architecture.descriptor_width + 1
        self.head_local_features = Mlp(width, 4 * width, channels * self.patch_size**2)

    def forward(self, view: DecodedView) -> ViewPrediction:
        tokens = torch.cat((view.encoded.float(), view.layers[-1].float()), dim=-1)
        features = _to_pixels(self.head_local_features(tokens), view.grid_hw, self.patch_size)
        return _activate(self._points(view), features)


def make_head(architecture: Architecture) -> nn.Module:
    """The head of the architecture: a module from DecodedView to ViewPrediction."""
    kinds = {"linear": LinearHead, "dpt": DptHead, "catmlp+dpt": DescriptorHead}
    return kinds[architecture.head](architecture)


def _to_pixels(
    tokens: Float[Tensor, "pair token width"], grid_hw: tuple[int, int], patch_size: int
) -> Float[Tensor, "pair channel h w"]:
    """The channels of a token are (channel, row, column) of its patch."""
    return functional.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, grid_hw), patch_size)


def _activate(raw: Float[Tensor, "pair 4 h w"], features: Float[Tensor, "pair channel h w"] | None) -> ViewPrediction:
    directed = raw[:, :3].permute(0, 2, 3, 1)
    length = directed.norm(dim=-1, keepdim=True)
    descriptors = confidence = None
    if features is not None:
        unscaled = features[:, :-1].permute(0, 2, 3, 1)
        descriptors = (unscaled / unscaled.norm(dim=-1, keepdim=True)).contiguous()
        confidence = features[:, -1].exp()
    return ViewPrediction(
        points=directed / length.clip(min=1e-8) * length.expm1(),
        confidence=1 + raw[:, 3].exp(),
        descriptors=descriptors,
        descriptor_confidence=confidence,
    )
