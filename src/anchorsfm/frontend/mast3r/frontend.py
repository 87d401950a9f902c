"""The configuration of the MASt3R front end: light to import, the work is in `predictor`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from anchorsfm.frontend.run_settings import RunSettings
from anchorsfm.io.store import Store
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.pairs import PairList
from anchorsfm.scene.progress import Progress
from anchorsfm.scene.settings import Range, Settings

if TYPE_CHECKING:
    from anchorsfm.frontend.mast3r.predictor import Mast3rPredictor


_MIN_IMAGE_SIZE = 32


@dataclass(frozen=True, kw_only=True)
class Mast3rFrontend(Settings):
    """Predictions of a trained pair network, MASt3R or DUSt3R: needs its weights, and a GPU for more than few pairs."""

    weights: str = "naver/MASt3R_ViTLarge_BaseDecoder_512_catmlpdpt_metric"
    """Hugging Face id, or a local .safetensors or .pth file."""
    accept_weights_license: bool = False
    """Accept the terms the weights come under; asked for once."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the network runs: auto takes a GPU if there is one."""
    half_precision: Literal["auto", "on", "off"] = "auto"
    """Encoder and decoders in half precision: auto does on CUDA GPUs. Heads are always in float32."""
    batch_size: Annotated[int, Range(0, 4096)] = 0
    """Pairs predicted at once; 0 takes what fits into the GPU's memory (on a processor one). Halved when too many."""
    token_memory_mib: Annotated[int, Range(0, 1_000_000)] = 1024
    """Encoder tokens kept in memory, on the device; beyond it they go to disk (3 MiB per image of 512x384)."""
    match_stride: Annotated[int, Range(1, 256)] = 8
    """Every how many pixels of either image the search for matches starts."""
    image_size: Annotated[int, Range(0, 8192)] = 0
    """Long side in pixels of the images the network sees; 0 takes what it was trained on."""

    def check_together(self) -> None:
        if not self.weights:
            raise self.refused("weights", "must be a Hugging Face id or a file")
        if 0 < self.image_size < _MIN_IMAGE_SIZE:
            raise self.refused("image_size", f"must be 0 or at least {_MIN_IMAGE_SIZE}")

    def for_run(self, run: RunSettings) -> "Mast3rFrontend":
        """The same: the network decides by itself, and its predictions come whole."""
        return self

    def open(self, images: ImageSet, pairs: PairList, store: Store, progress: Progress) -> "Mast3rPredictor":
        """Find and check weights and device, plan the images; the network is loaded for the first prediction."""
        from anchorsfm.frontend.mast3r.predictor import open_predictor

        return open_predictor(self, images, pairs, store, progress)
