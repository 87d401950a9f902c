"""Pixels of verified photographs, read again whenever a stage needs them.

Every time the file is read anew and must have the digest it had when the set was made: what is computed from a picture
is cached under that digest. Pictures are upright (EXIF orientation applied) everywhere behind this module. Alpha is
dropped from pixels; `masks` takes it for a mask.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, UInt8
from PIL import Image

from anchorsfm.io.decoding import DAMAGED, decode, open_picture, photo_digest, upright, why_unreadable
from anchorsfm.io.exif import exif_down, read_exif
from anchorsfm.io.files import read_regular
from anchorsfm.io.gps import GpsRecord, read_gps
from anchorsfm.io.remote import RemoteFolder
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.images import ImageSet

_OPAQUE = 128
_WITH_ALPHA = (".png", ".webp", ".tif", ".tiff", ".heic", ".heif", ".avif")
_TO_TURNED = {1: Image.Transpose.ROTATE_90, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_270}


def load_rgb(
    images: ImageSet, index: int, size_wh: Int[np.ndarray, "2"] | tuple[int, int] | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """Upright pixels of one image, resampled (anti-aliased) to exactly `size_wh` if given.

    Pixel edges map to pixel edges: x_resized = x * width_resized / width in COLMAP pixels.

    Raises InputError if the file can no longer be read or is not the one that was verified.
    """
    return np.array(_load(images, index, "RGB", size_wh))


def load_grey(
    images: ImageSet, index: int, size_wh: Int[np.ndarray, "2"] | tuple[int, int] | None = None
) -> UInt8[np.ndarray, "h w"]:
    """Like `load_rgb`, as luminance (ITU-R 601)."""
    return np.array(_load(images, index, "L", size_wh))


def load_alpha(images: ImageSet, index: int) -> Bool[np.ndarray, "h w"] | None:
    """Where the upright picture is opaque, more or less; None if it has no transparency.

    Raises InputError like `load_rgb`.
    """
    path = images.path(index)
    return _opaque(photo_bytes(images, index), path) if path.name.lower().endswith(_WITH_ALPHA) else None


def load_file_alpha(path: Path) -> Bool[np.ndarray, "h w"] | None:
    """Like `load_alpha`, of a file of which nothing is known. Raises InputError if it cannot be read."""
    return _opaque(_file_bytes(path), path) if path.name.lower().endswith(_WITH_ALPHA) else None


def _opaque(data: bytes, path: Path) -> Bool[np.ndarray, "h w"] | None:
    try:
        with open_picture(data, path.name) as image:
            if "A" not in image.getbands() and "transparency" not in image.info:
                return None
            image.load()
            turned = read_exif(image).orientation
            alpha = image.convert("RGBA").getchannel("A")
    except DAMAGED as error:
        raise InputError(f"cannot read {path}: {why_unreadable(error)}") from error
    return np.asarray(upright(alpha, turned)) >= _OPAQUE


def load_file_rgb(
    path: Path, full_wh: tuple[int, int], size_wh: Int[np.ndarray, "2"] | tuple[int, int]
) -> UInt8[np.ndarray, "h w 3"]:
    """Like `load_rgb`, of a file of which nothing is known but the upright size that it should have.

    Raises InputError if it cannot be read or has another size.
    """
    return np.array(_decoded(path, _file_bytes(path), "RGB", full_wh, size_wh))


def photo_bytes(images: ImageSet, index: int) -> bytes:
    """The file of one image, whose content is that which was verified when the set was made.

    Raises InputError if it can no longer be read or has changed, and StorageError if it is read from a URL that fails.
    """
    path = images.path(index)
    fetched = _from_origin(images, path)
    data = _file_bytes(path) if fetched is None else fetched
    if images.digests[index] != photo_digest(data):
        raise InputError(f"{path} has changed since it was first read: run the same command again")
    return data


def _from_origin(images: ImageSet, path: Path) -> bytes | None:
    """The content of a file that is not here, from where it was fetched; None if it is here, or nowhere."""
    found = images.origin(path)
    if found is None or path.exists():
        return None
    url, name = found
    return _remote(url).read(name)


@lru_cache(maxsize=8)
def _remote(url: str) -> RemoteFolder:
    return RemoteFolder(url)


def _file_bytes(path: Path) -> bytes:
    try:
        return read_regular(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {why_unreadable(error)}") from error


@dataclass(frozen=True, kw_only=True)
class PhotoHeader:
    """What a file says about itself without being decoded."""

    digest: str
    """SHA-256 of the file's bytes, as in `ImageSet.digests`."""

    size_wh: tuple[int, int]
    """Of the upright picture."""
    is_upright: bool
    """Whether the pixels are stored upright and no tag asks for a turn."""
    mode: str
    """Pillow's name for the kind of pixels, such as RGB."""
    icc_profile: bytes | None
    """Colour space of the pixels."""
    down: tuple[float, float, float] | None
    """As in `ImageSet.down`."""
    gps: GpsRecord
    """Where it was taken."""

    @property
    def is_plain(self) -> bool:
        """Whether every program shows the pixels that `load_rgb` returns."""
        return self.is_upright and self.mode == "RGB"


def read_header(path: Path) -> PhotoHeader:
    """Size, orientation and colour space of a picture.

    Raises InputError if the file cannot be read or is no picture.
    """
    try:
        data = read_regular(path)
        with open_picture(data, path.name) as image:
            width, height = image.size
            tagged = read_exif(image).orientation
            if image.format == "TIFF":  # turned by Pillow itself, which then knows the turned size
                image.load()
                width, height = image.size
            exif = read_exif(image)
            size_wh = (height, width) if exif.orientation >= 5 else (width, height)
            return PhotoHeader(
                digest=photo_digest(data),
                size_wh=size_wh,
                is_upright=tagged == 1,
                mode=image.mode,
                icc_profile=image.info.get("icc_profile"),
                down=exif_down(exif, size_wh),
                gps=read_gps(image),
            )
    except DAMAGED as error:
        raise InputError(f"cannot read {path}: {why_unreadable(error)}") from error


def working_size_wh(size_wh: Int[np.ndarray, "*batch 2"], max_size: int) -> Int[np.ndarray, "*batch 2"]:
    """Sizes whose longer side is at most `max_size`, aspect kept to the nearest pixel; never enlarged."""
    scale = np.minimum(1.0, max_size / size_wh.max(axis=-1, keepdims=True))
    return np.maximum(1, np.floor(size_wh * scale + 0.5)).astype(np.int64)


def _load(images: ImageSet, index: int, mode: str, size_wh: np.ndarray | tuple[int, int] | None) -> Image.Image:
    full_wh = (int(images.size_wh[index, 0]), int(images.size_wh[index, 1]))
    target_wh = full_wh if size_wh is None else (int(size_wh[0]), int(size_wh[1]))
    data = photo_bytes(images, index)
    turns = 0 if images.quarter_turns is None else int(images.quarter_turns[index]) % 4
    if turns % 2:
        full_wh, target_wh = full_wh[::-1], target_wh[::-1]
    stored = _decoded(images.path(index), data, mode, full_wh, target_wh)
    return stored.transpose(_TO_TURNED[turns]) if turns else stored


def _decoded(
    path: Path, data: bytes, mode: str, full_wh: tuple[int, int], size_wh: np.ndarray | tuple[int, int]
) -> Image.Image:
    target_wh = (int(size_wh[0]), int(size_wh[1]))
    try:
        with open_picture(data, path.name) as image:
            return decode(image, mode, full_wh, target_wh)
    except DAMAGED as error:
        raise InputError(f"cannot read {path}: {why_unreadable(error)}") from error
