"""Dense prediction head on tokens of four layers (Ranftl et al., Vision Transformers for Dense Prediction, 2021).

Tokens of four layers become maps at 4, 2, 1 and 1/2 cells per patch; from the coarsest to the finest they are fused and
doubled in size, and a small convolutional head doubles once more, to 16 pixels per patch.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from anchorsfm.networks.mast3r.architecture import DptWidths


def _double(x: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch channel h2 w2"]:
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


class _Double(nn.Module):
    """`_double` as a stage of a sequence."""

    def forward(self, x: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch channel h2 w2"]:
        return _double(x)


class ResidualUnit(nn.Module):
    """Two convolutions with rectified inputs, added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch channel h w"]:
        return x + self.conv2(functional.relu(self.conv1(functional.relu(x))))


class Fusion(nn.Module):
    """Add a finer level to what the coarser ones gave, and double the size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(width, width, 1)
        self.resConfUnit1 = ResidualUnit(width)
        self.resConfUnit2 = ResidualUnit(width)

    def forward(
        self, x: Float[Tensor, "batch channel h w"], level: Float[Tensor, "batch channel h w"] | None = None
    ) -> Float[Tensor, "batch channel h2 w2"]:
        if level is not None:
            x = x + self.resConfUnit1(level)
        # A 1x1 convolution and an interpolation commute; in this order the convolution sees a quarter of the pixels.
        return _double(self.out_conv(self.resConfUnit2(x)))


class Scratch(nn.Module):
    """The levels brought to one width, and their fusion."""

    def __init__(self, widths: DptWidths) -> None:
        super().__init__()
        first, second, third, fourth = (
            nn.Conv2d(level, widths.fused, 3, padding=1, bias=False) for level in widths.levels
        )
        self.layer1_rn, self.layer2_rn, self.layer3_rn, self.layer4_rn = first, second, third, fourth
        # Published checkpoints list these four under a second name as well.
        self.layer_rn = nn.ModuleList([first, second, third, fourth])
        self.refinenet1 = Fusion(widths.fused)
        self.refinenet2 = Fusion(widths.fused)
        self.refinenet3 = Fusion(widths.fused)
        self.refinenet4 = Fusion(widths.fused)

    def forward(self, levels: list[Tensor]) -> Float[Tensor, "batch fused h w"]:
        first, second, third, fourth = (conv(level) for conv, level in zip(self.layer_rn, levels, strict=True))
        # With an odd number of patches the coarsest level, doubled, is one cell too large.
        fused = self.refinenet4(fourth)[:, :, : third.shape[2], : third.shape[3]]
        fused = self.refinenet3(fused, third)
        fused = self.refinenet2(fused, second)
        return self.refinenet1(fused, first)


class Dpt(nn.Module):
    """Maps of `out` channels, one value per pixel, from the tokens of four layers of the given widths."""

    def __init__(self, token_widths: tuple[int, int, int, int], widths: DptWidths, out: int) -> None:
        super().__init__()
        a, b, c, d = widths.levels
        self.act_postprocess = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(token_widths[0], a, 1), nn.ConvTranspose2d(a, a, 4, stride=4)),
                nn.Sequential(nn.Conv2d(token_widths[1], b, 1), nn.ConvTranspose2d(b, b, 2, stride=2)),
                nn.Sequential(nn.Conv2d(token_widths[2], c, 1)),
                nn.Sequential(nn.Conv2d(token_widths[3], d, 1), nn.Conv2d(d, d, 3, stride=2, padding=1)),
            ]
        )
        self.scratch = Scratch(widths)
        self.head = nn.Sequential(
            nn.Conv2d(widths.fused, widths.fused // 2, 3, padding=1),
            _Double(),
            nn.Conv2d(widths.fused // 2, widths.last, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(widths.last, out, 1),
        )

    def forward(
        self, layers: tuple[Float[Tensor, "batch token _"], ...], grid_hw: tuple[int, int]
    ) -> Float[Tensor, "batch out h w"]:
        maps = [tokens.transpose(1, 2).unflatten(2, grid_hw) for tokens in layers]
        levels = [resample(level) for resample, level in zip(self.act_postprocess, maps, strict=True)]
        return self.head(self.scratch(levels))
