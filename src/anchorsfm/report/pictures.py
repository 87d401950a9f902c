"""Small pictures for the page: thumbnails of the photographs, and depth maps in false colours.

All pictures of one kind share a budget of bytes, so that the page stays usable with thousands of photographs: their
side is at most `MAX_SIDE` and shrinks with the square root of their number. Few photographs, which can be enlarged, are
larger.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from anchorsfm.io.pictures import load_file_rgb, working_size_wh
from anchorsfm.scene.errors import InputError

MAX_SIDE, MIN_SIDE = 320, 48
"""Longer side of a picture in pixels."""
BUDGET = 5_000_000
"""Bytes that all pictures of one kind should take together."""
LARGE_SIDE, LARGE_BUDGET = 480, 2_000_000
"""The same of photographs as long as they are few."""
_BYTES_PER_PIXEL = 0.3
"""Of a JPEG of this size and quality, header included."""
_QUALITY = 78
_UNKNOWN_RGB = (70, 74, 80)
MANY_VIEWS = 8.0
"""Agreeing views at the upper end of the colour scale of confidences."""


def picture_side(count: int, budget: int = BUDGET, largest: int = MAX_SIDE) -> int:
    """Longer side in pixels of `count` pictures of 4:3 that share a budget."""
    fitting = np.sqrt(budget / (max(count, 1) * _BYTES_PER_PIXEL * 0.75))
    return int(np.clip(fitting, MIN_SIDE, largest))


def photograph_side(count: int) -> int:
    """Longer side in pixels of thumbnails of `count` photographs."""
    return max(picture_side(count), picture_side(count, LARGE_BUDGET, LARGE_SIDE))


def thumbnails(photographs: Sequence[tuple[Path, tuple[int, int]]]) -> Iterator[tuple[bytes | None, str | None]]:
    """A JPEG of each photograph, of which file and upright size are given, or why there is none."""
    side = photograph_side(len(photographs))
    for path, full_wh in photographs:
        try:
            yield jpeg(load_file_rgb(path, full_wh, working_size_wh(np.array(full_wh), side))), None
        except InputError as error:
            yield None, str(error)


def jpeg(rgb: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """A small file of a picture."""
    content = io.BytesIO()
    Image.fromarray(rgb).save(content, "JPEG", quality=_QUALITY, optimize=True)
    return content.getvalue()


def png(rgba: UInt8[np.ndarray, "h w 4"]) -> bytes:
    """A lossless file of a picture with transparency."""
    content = io.BytesIO()
    Image.fromarray(rgba).save(content, "PNG", optimize=True)
    return content.getvalue()


def depth_picture(
    depth: Float[np.ndarray, "h w"], known: Bool[np.ndarray, "h w"], limits: tuple[float, float], side: int = MAX_SIDE
) -> bytes:
    """A depth map in false colours, near red and far blue on a logarithmic scale; grey where nothing is known."""
    size_wh = _size_wh(depth, side)
    near, far = np.log(limits)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (np.log(depth) - near) / max(far - near, 1e-9)
    share = np.where(known & np.isfinite(share), share, 0.0)
    shown = _false_colours(1 - share, cv2.COLORMAP_TURBO)
    shown[~known] = _UNKNOWN_RGB
    return jpeg(np.asarray(cv2.resize(shown, size_wh, interpolation=cv2.INTER_AREA), np.uint8))


def confidence_picture(confidence: Float[np.ndarray, "h w"], side: int = MAX_SIDE) -> bytes:
    """Confidences of a cleaned depth map, numbers of views, from 0 to `MANY_VIEWS`."""
    shown = _false_colours(confidence / MANY_VIEWS, cv2.COLORMAP_VIRIDIS)
    return jpeg(np.asarray(cv2.resize(shown, _size_wh(confidence, side), interpolation=cv2.INTER_AREA), np.uint8))


def colour_bar(scale: int, steps: int = 9) -> list[str]:
    """Colours of an OpenCV scale from low to high, as CSS."""
    colours = _false_colours(np.linspace(0, 1, steps)[None, :], scale)[0]
    return ["#" + bytes(colour.tolist()).hex() for colour in colours]


def _false_colours(share: Float[np.ndarray, "h w"], scale: int) -> UInt8[np.ndarray, "h w 3"]:
    levels = np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(levels, scale)[:, :, ::-1])


def _size_wh(picture: Float[np.ndarray, "h w"], side: int) -> Sequence[int]:
    width, height = working_size_wh(np.array(picture.shape[::-1]), side).tolist()
    return width, height
