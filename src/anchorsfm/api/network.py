"""MASt3R and DUSt3R networks by themselves: two pictures in, matches and pointmaps out."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image

from anchorsfm.api import arguments
from anchorsfm.api.images import open_images, rgb_array
from anchorsfm.api.settings import with_settings
from anchorsfm.frontend.mast3r.devices import automatic_batch, trunk_dtype
from anchorsfm.frontend.mast3r.frontend import Mast3rFrontend
from anchorsfm.frontend.mast3r.predictor import make_prediction, select_pair
from anchorsfm.frontend.mast3r.preparation import Preparation, image_grid, plan_preparation, to_network_input
from anchorsfm.frontend.mast3r.weights import DEFAULT_WEIGHTS, WeightsFile, load_network, resolve_weights
from anchorsfm.geometry.pixels import pixel_centres
from anchorsfm.io.pictures import load_rgb
from anchorsfm.io.store import Store
from anchorsfm.networks.devices import inference, resolve_device
from anchorsfm.networks.mast3r import EncodedImages, PairNetwork
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.pairs import PairList, Pointmaps
from anchorsfm.scene.progress import Progress

if TYPE_CHECKING:
    from anchorsfm.frontend.mast3r.predictor import Mast3rPredictor

Picture = str | Path | np.ndarray | Any
"""A file, or an array or tensor (height, width, 3) of uint8 or of floats in 0 .. 1."""


@dataclass(frozen=True, kw_only=True)
class PairMatch:
    """What a network says about two pictures a and b."""

    xy_a: Float[np.ndarray, "match 2"]
    """Pixels of the original pictures; (0.5, 0.5) is the centre of the top-left one."""
    xy_b: Float[np.ndarray, "match 2"]
    confidence: Float[np.ndarray, "match"]
    """About 1 knows nothing, 5 is doubtful, 10 and more certain."""
    frame_a: Pointmaps
    """Pointmaps of a (own) and b (other) in the frame of camera a, with confidences, on the network's grid."""
    frame_b: Pointmaps
    """Those of b (own) and a (other) in the frame of camera b."""
    size_a: tuple[int, int]
    """Width and height of the original picture."""
    size_b: tuple[int, int]
    _plans: tuple[Preparation, Preparation]

    def __len__(self) -> int:
        """Number of matches."""
        return len(self.confidence)

    def pixels_a(self) -> Float[np.ndarray, "h w 2"]:
        """Original pixel of every point of the pointmaps of a."""
        return _original_pixels(self._plans[0])

    def pixels_b(self) -> Float[np.ndarray, "h w 2"]:
        """Original pixel of every point of the pointmaps of b."""
        return _original_pixels(self._plans[1])

    def __repr__(self) -> str:
        return f"<PairMatch: {len(self)} matches of pictures of {self.size_a} and {self.size_b} pixels>"


class Mast3r:
    """A network that is loaded once; also a front end: `reconstruct(..., frontend=net)`."""

    def __init__(self, weights: WeightsFile, config: Mast3rFrontend) -> None:
        """See `load_mast3r`."""
        self.config = config
        """Its settings."""
        self.device = resolve_device(config.device)
        """Where it runs."""
        dtype = trunk_dtype(self.device, config.half_precision)
        network = load_network(weights)
        if dtype != torch.float32:
            network.set_trunk_dtype(dtype)
        self.network: PairNetwork = network.to(self.device)
        """The plain torch module."""
        self.image_size = config.image_size or weights.architecture.image_size
        """Long side in pixels of the pictures that it sees."""
        self.licence = weights.licence
        """Terms of its weights."""

    def match(self, a: Picture | Sequence[Picture], b: Picture | Sequence[Picture]) -> Any:
        """Matches and pointmaps of two pictures, a `PairMatch`; of two lists of equal length a list of them.

        Pairs of pictures of equal sizes are predicted together. Raises InputError for pictures that cannot be used.
        """
        batch_a, batch_b = (_batch(name, value) for name, value in (("a", a), ("b", b)))
        if (batch_a is None) != (batch_b is None):
            raise InputError("a and b: expected two pictures, or two lists of pictures")
        if batch_a is None or batch_b is None:
            return self._match([_picture("a", a)], [_picture("b", b)])[0]
        if len(batch_a) != len(batch_b):
            raise InputError(f"a and b: {len(batch_a)} and {len(batch_b)} pictures; expected one of b for each of a")
        first = [_picture(f"a[{k}]", picture) for k, picture in enumerate(batch_a)]
        return self._match(first, [_picture(f"b[{k}]", picture) for k, picture in enumerate(batch_b)])

    def open(self, images: ImageSet, pairs: PairList, store: Store, progress: Progress) -> "Mast3rPredictor":
        """Of the protocol `anchorsfm.Frontend`."""
        predictor = self.config.open(images, pairs, store, progress)
        predictor.network = self.network  # which it would load again
        return predictor

    def __repr__(self) -> str:
        return f"<Mast3r: {self.config.weights} on {self.device}, pictures of {self.image_size} pixels>"

    def _match(
        self, first: Sequence[UInt8[np.ndarray, "_ha _wa 3"]], second: Sequence[UInt8[np.ndarray, "_hb _wb 3"]]
    ) -> list[PairMatch]:
        plans = [(self._plan("a", a), self._plan("b", b)) for a, b in zip(first, second, strict=True)]
        found: dict[int, PairMatch] = {}
        rows = sorted(range(len(plans)), key=lambda row: tuple(plan.grid_wh for plan in plans[row]))
        for sizes, group in groupby(rows, lambda row: tuple(plan.grid_wh for plan in plans[row])):
            members = list(group)
            pixels = max(width * height for width, height in sizes)
            size = self.config.batch_size or automatic_batch(self.device, pixels, 0)
            for start in range(0, len(members), size):
                batch = members[start : start + size]
                for row, match in zip(batch, self._predict(batch, first, second, plans), strict=True):
                    found[row] = match
        return [found[row] for row in range(len(plans))]

    @inference()
    def _predict(
        self,
        rows: Sequence[int],
        first: Sequence[np.ndarray],
        second: Sequence[np.ndarray],
        plans: Sequence[tuple[Preparation, Preparation]],
    ) -> list[PairMatch]:
        encoded = [
            self._encode([pictures[row] for row in rows], [plans[row][end] for row in rows])
            for end, pictures in enumerate((first, second))
        ]
        output = self.network.predict_symmetric(*encoded)
        matches = []
        for k, row in enumerate(rows):
            grid = image_grid(plans[row])
            said = make_prediction(0, 1, select_pair(output, k), self.config.match_stride)
            assert said.frame_i is not None and said.frame_j is not None
            matches.append(
                PairMatch(
                    xy_a=grid.to_image(0, said.matches.xy_i),
                    xy_b=grid.to_image(1, said.matches.xy_j),
                    confidence=said.matches.confidence,
                    frame_a=said.frame_i,
                    frame_b=said.frame_j,
                    size_a=plans[row][0].size_wh,
                    size_b=plans[row][1].size_wh,
                    _plans=plans[row],
                )
            )
        return matches

    def _plan(self, name: str, picture: UInt8[np.ndarray, "h w 3"]) -> Preparation:
        return plan_preparation((picture.shape[1], picture.shape[0]), self.image_size, name=name)

    def _encode(self, pictures: Sequence[np.ndarray], plans: Sequence[Preparation]) -> EncodedImages:
        prepared = [plan.apply(Image.fromarray(picture)) for picture, plan in zip(pictures, plans, strict=True)]
        return self.network.encode(torch.stack([to_network_input(pixels) for pixels in prepared]).to(self.device))


def load_mast3r(weights: str | Path = DEFAULT_WEIGHTS, *, device: str = "auto", **settings: object) -> Mast3r:
    """Load a MASt3R or DUSt3R network.

    Args:
        weights: Hugging Face id, or a local .safetensors or .pth file.
        device: auto (a GPU if there is one), cpu, cuda or mps.
        settings: of `Mast3rFrontend`: accept_weights_license, half_precision, batch_size, match_stride, image_size.

    Raises:
        InputError: the weights cannot be had or are damaged, their licence is not accepted, or an argument is wrong.
    """
    if not isinstance(weights, (str, Path)) or not str(weights).strip():
        raise InputError(f"weights: expected a Hugging Face id or a file, not {arguments.describe(weights)}")
    config = with_settings(Mast3rFrontend(), {"weights": str(weights), "device": device, **settings})
    resolve_device(config.device)
    found = resolve_weights(config.weights, accept_license=config.accept_weights_license)
    return Mast3r(found, config)


def _batch(name: str, value: Any) -> list[Any] | None:
    """The pictures of a batch, None for a single one."""
    if isinstance(value, (list, tuple)):
        if not value:
            raise InputError(f"{name} is empty: expected pictures")
        return list(value)
    if getattr(value, "ndim", 0) == 4:
        return list(value)
    return None


def _picture(name: str, value: Any) -> UInt8[np.ndarray, "h w 3"]:
    if not isinstance(value, (str, Path)):
        return rgb_array(name, value)
    path = arguments.path(name, value)
    if path.is_dir():
        raise InputError(f"{name} = {path} is a folder: expected a picture")
    return load_rgb(open_images([path], argument=name), 0)


def _original_pixels(plan: Preparation) -> Float[np.ndarray, "h w 2"]:
    width, height = plan.grid_wh
    return image_grid((plan,)).to_image(0, pixel_centres((width, height)).reshape(-1, 2)).reshape(height, width, 2)
