"""Photographs as the networks were trained to see them: which resize, which crop, and the way back to original pixels.

Networks of image size 512 (and any other but 224) get the long side resized to the image size, then a centred crop to
sides that are multiples of 16; square results are cropped to 4:3, as there were no squares in training. Networks of
size 224 get the short side resized to 224, then a centred square. Pillow's LANCZOS filter shrinks, BICUBIC enlarges.

Resizing maps pixel edges to pixel edges, so in COLMAP pixels (edges at integers) the map is exactly
    x_grid = x_image * resized_width / width - left of the crop.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from anchorsfm.io.pictures import load_rgb
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.images import ImageGrid, ImageSet

PATCH_SIZE = 16
_SQUARE_SIZE = 224
"""Networks of this size see squares."""


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How an image of one size is resized and cropped."""

    size_wh: tuple[int, int]
    """Of the upright original."""
    resized_wh: tuple[int, int]
    box: tuple[int, int, int, int]
    """Left, top, right, bottom of the crop in the resized image."""

    @property
    def grid_wh(self) -> tuple[int, int]:
        left, top, right, bottom = self.box
        return right - left, bottom - top

    def apply(self, image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
        """Pixels of the upright RGB picture as the network sees them."""
        shrinks = max(image.size) > max(self.resized_wh)
        method = Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC
        return np.array(image.resize(self.resized_wh, method).crop(self.box))


def plan_preparation(
    size_wh: tuple[int, int], image_size: int, *, name: str = "image", square_ok: bool = False
) -> Preparation:
    """Resize and crop for an image of a size; `square_ok` keeps square images square.

    Raises InputError, naming the image, if it is so long and thin that nothing would be left of it.
    """
    if image_size == _SQUARE_SIZE:
        resized_wh, half_wh = _plan_square(size_wh)
    else:
        resized_wh, half_wh = _plan_long_side(size_wh, image_size, square_ok)
    centre_x, centre_y = resized_wh[0] // 2, resized_wh[1] // 2
    half_w, half_h = half_wh
    if min(half_wh) == 0:
        limit = image_size // PATCH_SIZE
        raise InputError(
            f"{name} is {size_wh[0]}x{size_wh[1]} pixels: too long and thin, the network sees images of an aspect "
            f"ratio up to {limit}:1; crop it or leave it out"
        )
    box = (centre_x - half_w, centre_y - half_h, centre_x + half_w, centre_y + half_h)
    return Preparation(size_wh=size_wh, resized_wh=resized_wh, box=box)


def plan_images(images: ImageSet, image_size: int) -> tuple[Preparation, ...]:
    """One preparation per image. Raises InputError for an image that cannot be used."""
    sizes = [(int(width), int(height)) for width, height in images.size_wh]
    return tuple(plan_preparation(size, image_size, name=name) for name, size in zip(images.names, sizes, strict=True))


def image_grid(plans: tuple[Preparation, ...]) -> ImageGrid:
    """The network's pixels and the exact map to them from original pixels."""
    original, resized = (np.array([getattr(plan, key) for plan in plans], float) for key in ("size_wh", "resized_wh"))
    return ImageGrid(
        size_wh=np.array([plan.grid_wh for plan in plans], np.int64).reshape(-1, 2),
        scale=(resized / original).reshape(-1, 2),
        offset=-np.array([plan.box[:2] for plan in plans], float).reshape(-1, 2),
    )


def load_prepared(images: ImageSet, index: int, plan: Preparation) -> UInt8[np.ndarray, "h w 3"]:
    """Read one image and prepare it. Raises InputError if the file can no longer be read."""
    return plan.apply(Image.fromarray(load_rgb(images, index)))


def to_network_input(pixels: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "3 h w"]:
    """Values in [-1, 1]."""
    return torch.from_numpy(pixels).permute(2, 0, 1).float().div(255).sub(0.5).div(0.5).contiguous()


def _plan_long_side(
    size_wh: tuple[int, int], image_size: int, square_ok: bool
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Resized size and half the size of the crop."""
    width, height = resized_wh = _resize_long_side(size_wh, image_size)
    unit = PATCH_SIZE // 2
    half_w, half_h = (side // 2 * 2 // PATCH_SIZE * unit for side in resized_wh)
    if width == height and not square_ok:
        half_h = half_w * 3 // 4 // unit * unit
    return resized_wh, (half_w, half_h)


def _plan_square(size_wh: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    width, height = size_wh
    resized_wh = _resize_long_side(size_wh, round(_SQUARE_SIZE * max(width / height, height / width)))
    half = min(resized_wh[0] // 2, resized_wh[1] // 2)
    return resized_wh, (half, half)


def _resize_long_side(size_wh: tuple[int, int], target: int) -> tuple[int, int]:
    """Sides rounded to the nearest pixel, halves to even."""
    width, height = size_wh
    long_side = max(width, height)
    return round(width * target / long_side), round(height * target / long_side)
