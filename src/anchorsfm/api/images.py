"""Photographs as Python users have them: folders, files, arrays in memory, or only their names and sizes."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from anchorsfm.api import arguments
from anchorsfm.colmap.sensors import sensor_width_mm
from anchorsfm.io.images import load_image_set
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.progress import SILENT, Progress

_IN_MEMORY: list[tempfile.TemporaryDirectory[str]] = []
"""Folders of pictures that came as arrays; they go when the program ends."""


def open_images(
    value: Any, *, argument: str = "images", focal_px: object = None, progress: Progress = SILENT
) -> ImageSet:
    """Photographs of a folder, list file, list of files, list or batch of arrays, or an `ImageSet`.

    Arrays are (height, width, 3) of uint8, or of floats in 0 .. 1; they are named 0000.png, 0001.png ... in order and
    kept as lossless files, so that they need no memory and their predictions can be cached. `focal_px` is that of all,
    in their pixels, if it is known.

    Raises InputError, naming argument and element.
    """
    focal = None if focal_px is None else arguments.number("focal_px", focal_px, low=0.0, above=True)
    if isinstance(value, ImageSet):
        return value
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, (str, Path)) for item in value):
        files = [arguments.path(f"{argument}[{k}]", item) for k, item in enumerate(value)]
        return load_image_set(files, focal_px=focal, sensor_widths=sensor_width_mm, progress=progress)
    if isinstance(value, (list, tuple)) or hasattr(value, "shape"):
        value = list(value)
        if not value:
            raise InputError(f"{argument} is empty: expected images")
        folder = _write([rgb_array(f"{argument}[{k}]", item) for k, item in enumerate(value)])
        return load_image_set(folder, focal_px=focal, progress=progress)
    source = arguments.path(argument, value)
    return load_image_set(source, focal_px=focal, sensor_widths=sensor_width_mm, progress=progress)


def described_images(
    names: Sequence[str], size_wh: Int[np.ndarray, "image 2"], camera_index: Int[np.ndarray, "image"] | None = None
) -> ImageSet:
    """Images of which no picture is needed; by default each has a camera of its own."""
    return ImageSet(
        root=Path(),
        names=tuple(names),
        size_wh=size_wh.astype(np.int64),
        camera_index=np.arange(len(names)) if camera_index is None else camera_index,
        focal_prior_px=np.full(len(names), np.nan),
        digests=tuple(f"picture of {name} unknown" for name in names),
    )


def rgb_array(argument: str, value: object) -> UInt8[np.ndarray, "h w 3"]:
    """A picture from an array or tensor (height, width, 3), or (height, width) for a grey one."""
    if isinstance(value, Image.Image):
        return np.asarray(value.convert("RGB"))
    if isinstance(value, (str, bytes, Mapping)) or not hasattr(value, "shape"):
        raise InputError(
            f"{argument}: expected all files or all arrays (height, width, 3), not {arguments.describe(value)}"
        )
    array = arguments.plain_array(argument, value)
    shape = arguments.shape_text(array.shape)
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.ndim == 3 and array.shape[2] == 4:
        array = array[..., :3]
    if array.ndim != 3 or array.shape[2] != 3:
        way_out = "; move the channels last" if array.ndim == 3 and array.shape[0] in (1, 3, 4) else ""
        raise InputError(f"{argument}: expected an image (height, width, 3), got {shape}{way_out}")
    if min(array.shape[:2]) < 16:
        raise InputError(f"{argument}: an image (height, width, 3) of shape {shape} is too small: at least 16 pixels")
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f" or not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
        raise InputError(f"{argument}: expected uint8, or floats from 0 to 1 without NaN, got {array.dtype} values")
    return np.round(array * 255).astype(np.uint8)


def _write(pictures: Sequence[UInt8[np.ndarray, "h w 3"]]) -> Path:
    folder = tempfile.TemporaryDirectory(prefix="anchorsfm-pictures-")
    _IN_MEMORY.append(folder)
    digits = max(4, len(str(len(pictures))))
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(Path(folder.name) / f"{number:0{digits}d}.png", compress_level=1)
    return Path(folder.name)
