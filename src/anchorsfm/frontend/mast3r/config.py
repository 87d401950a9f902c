"""What a user can set about the MASt3R front end."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro.conf

from anchorsfm.scene.settings import NotEmpty, Range, Settings

_MIN_IMAGE_SIZE = 32


@dataclass(frozen=True, kw_only=True)
class Mast3rConfig(Settings):
    """Settings of the MASt3R front end."""

    weights: Annotated[str, NotEmpty(), tyro.conf.Suppress] = "naver/MASt3R_ViTLarge_BaseDecoder_512_catmlpdpt_metric"
    """Weights of the network: a Hugging Face id, or a local .safetensors or .pth file."""
    accept_weights_license: Annotated[bool, tyro.conf.Suppress] = False
    """Accept the terms the weights come under; asked for once."""
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], tyro.conf.Suppress] = "auto"
    """Where the network runs: auto takes a GPU if there is one."""
    half_precision: Literal["auto", "on", "off"] = "auto"
    """Run encoder and decoders in half precision: auto does so on CUDA GPUs. Heads always run in float32."""
    batch_size: Annotated[int, Range(0, 4096)] = 0
    """Pairs predicted at once; 0 takes what fits into the GPU's memory, or one on a processor. Halved where that is too
    many."""
    token_memory_mib: Annotated[int, Range(0, 1_000_000)] = 1024
    """Memory for encoder tokens in MiB, on the network's device; further tokens go to disk (3 MiB per image of
    512x384)."""
    match_stride: Annotated[int, Range(1, 256)] = 8
    """Stride in pixels of the places in either image from which the search for matches starts."""
    image_size: Annotated[int, Range(0, 8192)] = 0
    """Long side in pixels of the images the network sees; 0 takes what it was trained on."""

    def check_together(self) -> None:
        if 0 < self.image_size < _MIN_IMAGE_SIZE:
            raise self.refused("image_size", f"must be 0 or at least {_MIN_IMAGE_SIZE}")
