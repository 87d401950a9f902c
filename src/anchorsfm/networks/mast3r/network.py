"""MASt3R (Leroy, Cabon, Revaud 2024) and DUSt3R (Wang et al. 2024): pointmaps and descriptors of a pair of images.

    images -> encode -> tokens of each image -> decode (two decoders that look at each other) -> heads -> predictions

The encoder sees one image at a time, so its tokens serve every pair of the image. The decoders and heads are not
symmetric: both views of a pair are described in the frame of the first. `forward_symmetric` runs both orders.
Parameters have the names of the published checkpoints.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from anchorsfm.networks.mast3r.architecture import Architecture
from anchorsfm.networks.mast3r.blocks import NORM_EPS, DecoderBlock, EncoderBlock, PatchEmbedding
from anchorsfm.networks.mast3r.heads import DecodedView, ViewPrediction, make_head
from anchorsfm.networks.mast3r.rotary import Rotation, make_rotation


@dataclass(frozen=True, kw_only=True)
class EncodedImages:
    """Encoder tokens of images of one size."""

    tokens: Float[Tensor, "image token encoder_width"]
    grid_hw: tuple[int, int]
    """Rows and columns of patches."""


@dataclass(frozen=True, kw_only=True)
class PairOutput:
    """Both views of each pair in the frame of the first."""

    first: ViewPrediction
    second: ViewPrediction


@dataclass(frozen=True, kw_only=True)
class SymmetricOutput:
    """A pair of images in both orders: `frame_i` holds (i, j) in the frame of i, `frame_j` (j, i) in that of j."""

    frame_i: PairOutput
    frame_j: PairOutput


class PairNetwork(nn.Module):
    """Encoder, two decoders, two heads. Use `build_network` to make one with weights."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        width, heads = architecture.encoder_width, architecture.encoder_heads
        self.patch_embed = PatchEmbedding(architecture.patch_size, width)
        self.enc_blocks = nn.ModuleList(EncoderBlock(width, heads) for _ in range(architecture.encoder_depth))
        self.enc_norm = nn.LayerNorm(width, eps=NORM_EPS)

        width, heads = architecture.decoder_width, architecture.decoder_heads
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))  # left over from pretraining, not used
        self.decoder_embed = nn.Linear(architecture.encoder_width, width)
        self.dec_blocks = nn.ModuleList(DecoderBlock(width, heads) for _ in range(architecture.decoder_depth))
        self.dec_blocks2 = nn.ModuleList(DecoderBlock(width, heads) for _ in range(architecture.decoder_depth))
        self.dec_norm = nn.LayerNorm(width, eps=NORM_EPS)

        self.downstream_head1 = make_head(architecture)
        self.downstream_head2 = make_head(architecture)

    def encode(self, images: Float[Tensor, "image 3 h w"]) -> EncodedImages:
        """Tokens of images with values in [-1, 1] and sides that are multiples of the patch size."""
        patch = self.architecture.patch_size
        grid_hw = (images.shape[2] // patch, images.shape[3] // patch)
        assert images.shape[2] % patch == 0 and images.shape[3] % patch == 0, images.shape
        rotation = self._rotation(grid_hw, self.architecture.encoder_width // self.architecture.encoder_heads)
        tokens = self.patch_embed(images)
        for block in self.enc_blocks:
            tokens = block(tokens, rotation)
        return EncodedImages(tokens=self.enc_norm(tokens), grid_hw=grid_hw)

    def decode(self, first: EncodedImages, second: EncodedImages) -> tuple[DecodedView, DecodedView]:
        """Row k of `first` and of `second` are pair k. The two may differ in size."""
        head_width = self.architecture.decoder_width // self.architecture.decoder_heads
        rotation1 = self._rotation(first.grid_hw, head_width)
        rotation2 = self._rotation(second.grid_hw, head_width)
        x1, x2 = (self._embed(view) for view in (first, second))
        kept: list[tuple[Tensor, Tensor]] = []
        if 0 in self.architecture.head_layers:
            kept.append((first.tokens, second.tokens))
        for layer, (block1, block2) in enumerate(zip(self.dec_blocks, self.dec_blocks2, strict=True), start=1):
            x1, x2 = block1(x1, x2, rotation1, rotation2), block2(x2, x1, rotation2, rotation1)
            if layer == self.architecture.decoder_depth:
                x1, x2 = self.dec_norm(x1), self.dec_norm(x2)
            if layer in self.architecture.head_layers:
                kept.append((x1, x2))
        layers1, layers2 = zip(*kept, strict=True)
        return (
            DecodedView(layers=layers1, encoded=first.tokens, grid_hw=first.grid_hw),
            DecodedView(layers=layers2, encoded=second.tokens, grid_hw=second.grid_hw),
        )

    def predict(self, first: EncodedImages, second: EncodedImages) -> PairOutput:
        """Decoders and heads for pairs in one order."""
        view1, view2 = self.decode(first, second)
        return PairOutput(first=self.downstream_head1(view1), second=self.downstream_head2(view2))

    def predict_symmetric(self, images_i: EncodedImages, images_j: EncodedImages) -> SymmetricOutput:
        """Decoders and heads for pairs in both orders: in one batch if the two images have the same size."""
        if images_i.grid_hw != images_j.grid_hw:
            frame_i, frame_j = self.predict(images_i, images_j), self.predict(images_j, images_i)
            return SymmetricOutput(frame_i=frame_i, frame_j=frame_j)
        both = torch.cat((images_i.tokens, images_j.tokens))
        swapped = torch.cat((images_j.tokens, images_i.tokens))
        output = self.predict(
            EncodedImages(tokens=both, grid_hw=images_i.grid_hw),
            EncodedImages(tokens=swapped, grid_hw=images_i.grid_hw),
        )
        count = len(images_i.tokens)
        return SymmetricOutput(
            frame_i=_rows(output, slice(None, count)),
            frame_j=_rows(output, slice(count, None)),
        )

    def set_trunk_dtype(self, dtype: torch.dtype) -> None:
        """Run the linear layers of encoder and decoders in a reduced precision; heads and norms stay in float32."""
        trunk = (self.patch_embed, self.enc_blocks, self.decoder_embed, self.dec_blocks, self.dec_blocks2)
        for part in trunk:
            for module in part.modules():
                if isinstance(module, nn.Linear | nn.Conv2d):
                    module.to(dtype)

    def _embed(self, view: EncodedImages) -> Float[Tensor, "image token decoder_width"]:
        return self.decoder_embed(view.tokens.to(self.decoder_embed.weight.dtype)).float()

    def _rotation(self, grid_hw: tuple[int, int], head_width: int) -> Rotation:
        return make_rotation(grid_hw, head_width, self.architecture.rotary_base, self.enc_norm.weight.device)


def _rows(output: PairOutput, rows: slice) -> PairOutput:
    return PairOutput(first=_view_rows(output.first, rows), second=_view_rows(output.second, rows))


def _view_rows(view: ViewPrediction, rows: slice) -> ViewPrediction:
    return ViewPrediction(
        points=view.points[rows],
        confidence=view.confidence[rows],
        descriptors=None if view.descriptors is None else view.descriptors[rows],
        descriptor_confidence=None if view.descriptor_confidence is None else view.descriptor_confidence[rows],
    )
