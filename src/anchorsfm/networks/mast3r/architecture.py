"""The numbers that define a network of the MASt3R / DUSt3R family, and where they can be read from.

Three sources: the arguments the network was constructed with (`config.json` or the record in a checkpoint), or, when
there are none, the shapes of the parameters. Shapes do not tell how many heads an attention has (all published networks
have 64 channels per head), the base of the rotary embedding (100) or the image size it was trained on.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from anchorsfm.scene.errors import InputError

HeadType = Literal["catmlp+dpt", "dpt", "linear"]
"""`catmlp+dpt`: pointmaps by DPT and descriptors by an MLP (MASt3R); `dpt`, `linear`: pointmaps only (DUSt3R)."""

Shapes = Mapping[str, tuple[int, ...]]

_CHANNELS_PER_HEAD = 64
_MLP_RATIO = 4
_LARGEST_DEPTH, _LARGEST_WIDTH, _LARGEST_SIDE, _LARGEST_PATCH = 128, 16384, 16384, 128
"""Several times what published networks of any kind have; more would be built in vain, for hours."""


@dataclass(frozen=True, kw_only=True)
class DptWidths:
    """Channels inside a DPT head."""

    levels: tuple[int, int, int, int] = (96, 192, 384, 768)
    """Of the four levels, finest first, before they are fused."""
    fused: int = 256
    """Of every level while they are fused; a multiple of 2."""
    last: int = 128
    """Before the final 1x1 convolution."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Everything needed to construct the network. The defaults are the published ViT-L MASt3R."""

    image_size: int = 512
    """Long side in pixels of the images it was trained on."""
    patch_size: int = 16
    encoder_width: int = 1024
    encoder_depth: int = 24
    encoder_heads: int = 16
    decoder_width: int = 768
    decoder_depth: int = 12
    decoder_heads: int = 12
    rotary_base: float = 100.0
    head: HeadType = "catmlp+dpt"
    descriptor_width: int = 24
    """Channels of a pixel's descriptor, 0 for networks without."""
    dpt: DptWidths = DptWidths()
    """Not used by linear heads."""

    def __post_init__(self) -> None:
        widths = (*self.dpt.levels, self.dpt.fused, self.dpt.last, self.encoder_width, self.decoder_width)
        for what, values, most in (
            ("an image size", (self.image_size,), _LARGEST_SIDE),
            ("a patch size", (self.patch_size,), _LARGEST_PATCH),
            ("a depth", (self.encoder_depth, self.decoder_depth), _LARGEST_DEPTH),
            ("a width", (*widths, self.descriptor_width or 1), _LARGEST_WIDTH),
        ):
            wrong = [value for value in values if not 1 <= value <= most]
            if wrong:
                raise InputError(f"{what} of {_short(wrong[0])} is not that of a network (1 to {most})")
        if not 0 < self.rotary_base < 1e9 or self.dpt.fused % 2:
            raise InputError("the base of the rotary embedding or the width of the DPT head cannot be used")
        for part, width, heads in (
            ("encoder", self.encoder_width, self.encoder_heads),
            ("decoder", self.decoder_width, self.decoder_heads),
        ):
            if heads < 1 or width % (4 * heads):
                raise InputError(f"{part} width {width} cannot be shared by {heads} heads of a multiple of 4 channels")
        if (self.head == "catmlp+dpt") != (self.descriptor_width > 0):
            raise InputError(f"a {self.head} head cannot have descriptors of width {self.descriptor_width}")

    @property
    def head_layers(self) -> tuple[int, ...]:
        """Decoder layers that the heads look at: 0 is the encoder's output, `decoder_depth` the normalised last."""
        depth = self.decoder_depth
        return (depth,) if self.head == "linear" else (0, depth * 2 // 4, depth * 3 // 4, depth)


# ------------------------------------------------------------------------------------------ constructor arguments


def _short(value: int) -> str:
    """A number that may have thousands of digits."""
    return str(value) if abs(value) < 10**12 else f"{'-' if value < 0 else ''}10^12 or more"


def architecture_from_arguments(arguments: Mapping[str, Any], source: str) -> Architecture:
    """From the keyword arguments a published network was constructed with; `source` names them in errors.

    Arguments that are not given have the published default. Raises InputError for a variant that is not supported.
    """
    try:
        _check_supported(arguments)
        output, head = str(arguments.get("output_mode", "pts3d")), str(arguments.get("head_type", "linear"))
        return Architecture(
            image_size=max(int(side) for side in _pair(arguments.get("img_size", 224))),
            patch_size=int(arguments.get("patch_size", 16)),
            encoder_width=int(arguments.get("enc_embed_dim", 768)),
            encoder_depth=int(arguments.get("enc_depth", 12)),
            encoder_heads=int(arguments.get("enc_num_heads", 12)),
            decoder_width=int(arguments.get("dec_embed_dim", 512)),
            decoder_depth=int(arguments.get("dec_depth", 8)),
            decoder_heads=int(arguments.get("dec_num_heads", 16)),
            rotary_base=float(str(arguments.get("pos_embed", "RoPE100")).removeprefix("RoPE")),
            head=_head_type(head),
            descriptor_width=int(output.removeprefix("pts3d+desc")) if output != "pts3d" else 0,
            dpt=_dpt_widths(arguments.get("dpt_overrides")),
        )
    except (TypeError, ValueError, KeyError, OverflowError, AttributeError) as error:
        raise InputError(f"{source}: cannot use this network description ({error})") from error
    except InputError as error:
        raise InputError(f"{source}: {error}") from error


def _pair(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def _head_type(name: str) -> HeadType:
    if name not in get_args(HeadType):
        raise InputError(f"head_type {name!r} is not supported (those are {', '.join(get_args(HeadType))})")
    return cast(HeadType, name)


def _dpt_widths(overrides: Any) -> DptWidths:
    """Published networks all have the same widths; small test networks state theirs."""
    if not overrides:
        return DptWidths()
    if not isinstance(overrides, Mapping):
        raise InputError(f"dpt_overrides={str(overrides)[:40]!r} is not supported")
    a, b, c, d = (int(width) for width in overrides["layer_dims"])
    return DptWidths(levels=(a, b, c, d), fused=int(overrides["feature_dim"]), last=int(overrides["last_dim"]))


_SUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "depth_mode": (("exp", -math.inf, math.inf),),
    "conf_mode": (("exp", 1.0, math.inf),),
    "desc_conf_mode": (("exp", 0.0, math.inf), None),
    "desc_mode": (("norm",), "norm", None),
    "two_confs": (True,),
    "mlp_ratio": (4,),
}


def _check_supported(arguments: Mapping[str, Any]) -> None:
    """Activations other than those of the published networks would silently give wrong numbers."""
    for name, allowed in _SUPPORTED.items():
        if name == "two_confs" and arguments.get("head_type") != "catmlp+dpt":
            continue
        if name in arguments and _plain(arguments[name]) not in allowed:
            raise InputError(f"{name}={arguments[name]!r} is not supported")
    if not re.fullmatch(r"RoPE\d+(\.\d+)?", str(arguments.get("pos_embed", "RoPE100"))):
        raise InputError(f"pos_embed={arguments['pos_embed']!r} is not supported (RoPE100 is)")
    if not re.fullmatch(r"pts3d(\+desc[1-9]\d*)?", str(arguments.get("output_mode", "pts3d"))):
        raise InputError(f"output_mode={arguments['output_mode']!r} is not supported")


def _plain(value: Any) -> Any:
    """Lists as tuples, infinities spelled as text as numbers."""
    if isinstance(value, (list, tuple)):
        return tuple(_plain(item) for item in value)
    if isinstance(value, str) and value.lower().lstrip("+-") in ("inf", "infinity"):
        return float(value)
    return value


# ------------------------------------------------------------------------------------------------ parameter shapes


def architecture_from_shapes(shapes: Shapes, source: str, image_size: int = 512) -> Architecture:
    """From the names and shapes of the parameters alone; `source` names them in errors.

    Raises InputError if they are not those of such a network, or if the number of heads cannot be told.
    """
    try:
        encoder_width, _, patch_size, _ = shapes["patch_embed.proj.weight"]
        decoder_width = shapes["decoder_embed.weight"][0]
        head = _head_of(shapes)
        return Architecture(
            image_size=image_size,
            patch_size=patch_size,
            encoder_width=encoder_width,
            encoder_depth=_count(shapes, "enc_blocks"),
            encoder_heads=_heads(encoder_width),
            decoder_width=decoder_width,
            decoder_depth=_count(shapes, "dec_blocks"),
            decoder_heads=_heads(decoder_width),
            head=head,
            descriptor_width=_descriptor_width(shapes, patch_size) if head == "catmlp+dpt" else 0,
            dpt=DptWidths() if head == "linear" else _dpt_widths_of(shapes),
        )
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(f"{source}: these are not the parameters of a MASt3R or DUSt3R network ({error})") from error
    except InputError as error:
        raise InputError(f"{source}: {error}") from error


def _count(shapes: Shapes, blocks: str) -> int:
    found = [re.match(rf"{blocks}\.(\d+)\.", name) for name in shapes]
    return 1 + max(int(match.group(1)) for match in found if match)


def _heads(width: int) -> int:
    if width % _CHANNELS_PER_HEAD:
        raise InputError(
            f"shapes do not tell the number of attention heads of a network of width {width}: "
            "put its config.json beside it"
        )
    return width // _CHANNELS_PER_HEAD


def _head_of(shapes: Shapes) -> HeadType:
    if "downstream_head1.head_local_features.fc1.weight" in shapes:
        return "catmlp+dpt"
    return "linear" if "downstream_head1.proj.weight" in shapes else "dpt"


def _descriptor_width(shapes: Shapes, patch_size: int) -> int:
    """The MLP makes, for every pixel of a patch, the descriptor and its confidence."""
    return shapes["downstream_head1.head_local_features.fc2.weight"][0] // patch_size**2 - 1


def _dpt_widths_of(shapes: Shapes) -> DptWidths:
    dpt = "downstream_head1.dpt"
    a, b, c, d = (shapes[f"{dpt}.act_postprocess.{level}.0.weight"][0] for level in range(4))
    fused, last = shapes[f"{dpt}.scratch.layer1_rn.weight"][0], shapes[f"{dpt}.head.2.weight"][0]
    return DptWidths(levels=(a, b, c, d), fused=fused, last=last)
