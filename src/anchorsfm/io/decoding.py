"""The picture in a file's content: opened, decoded no finer than needed, with 8-bit channels, upright.

16-bit pictures map 0..65535 to 0..255.
"""

import hashlib
import io
import math
import threading
import warnings
from collections.abc import Callable

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError, features

from anchorsfm.io.exif import read_exif
from anchorsfm.scene.errors import InputError

_HEIC = (".heic", ".heif")
_NO_HEIC = "HEIC pictures need an extra package: pip install 'anchorsfm[heic]'"
_NO_AVIF = "AVIF pictures need Pillow 11.3 or newer: pip install -U pillow"
_BITS_PER_SAMPLE, _SAMPLE_FORMAT = 258, 339

DAMAGED = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What decoders of damaged files raise, mostly."""
_OPEN_LOCK = threading.Lock()
"""Changing warning filters is not safe in threads."""

_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def photo_digest(data: bytes) -> str:
    """SHA-256 of a file's content, as in `ImageSet.digests`."""
    return hashlib.sha256(data).hexdigest()


def open_picture(data: bytes, name: str) -> Image.Image:
    """The picture in a file's content, not decoded yet. Raises almost anything where it is damaged."""
    if name.lower().endswith(_HEIC):
        _register_heic()
    if name.lower().endswith(".avif") and not features.check("avif"):
        raise InputError(_NO_AVIF)
    with _OPEN_LOCK, warnings.catch_warnings():
        # Photographs of 100 megapixels are no attack; at twice that Pillow refuses, and the file is skipped.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            return Image.open(io.BytesIO(data))
        except UnidentifiedImageError:
            kind = _unusual_tiff(data)
            if kind is not None:
                raise ValueError(f"unsupported kind of pixels ({kind})") from None
            raise


def _unusual_tiff(data: bytes) -> str | None:
    """The kind of pixels of a whole TIFF file that Pillow has no mode for; None if it is none, or damaged."""
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return None
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
        file = io.BytesIO(data)
        file.seek(tags.next)
        tags.load(file)
        bits, kind = max(tags[_BITS_PER_SAMPLE]), max(tags.get(_SAMPLE_FORMAT, (1,)))
    except Exception:  # a damaged directory
        return None
    number = {2: "signed", 3: "float"}.get(kind, "")
    return f"{bits}-bit {number}".strip() if number or bits > 16 else None


def _register_heic() -> None:
    try:
        import pillow_heif
    except ImportError as error:
        raise InputError(_NO_HEIC) from error
    pillow_heif.register_heif_opener()


def draft(image: Image.Image, mode: str, at_least: float) -> tuple[int, int] | None:
    """Let libjpeg decode at 1/2, 1/4 or 1/8, but not below `at_least` of the full size, which is returned; None if the
    picture is no such JPEG."""
    full_wh = image.size
    if image.format not in ("JPEG", "MPO") or image.mode not in ("RGB", "L"):
        return None
    image.draft(mode, (max(1, math.ceil(at_least * full_wh[0])), max(1, math.ceil(at_least * full_wh[1]))))
    return full_wh


def why_unreadable(error: Exception) -> str:
    """What is wrong with a picture, in a few words, from the error of whoever read it."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or damaged at its beginning"
    if isinstance(error, PermissionError):
        return "permission denied"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6} megapixels"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return text.replace("image file is truncated", "truncated")


def decode(image: Image.Image, mode: str, full_wh: tuple[int, int], target_wh: tuple[int, int]) -> Image.Image:
    """Load, convert, resample and turn upright; ValueError if the picture is not of the expected upright size."""
    # Decoding at twice the target keeps the resampling filter's quality; for a target near full size it does nothing.
    scale = max(target_wh[0] / full_wh[0], target_wh[1] / full_wh[1])
    stored_wh = draft(image, mode, at_least=2 * scale)
    image.load()
    turned = read_exif(image).orientation
    stored_wh = stored_wh or image.size
    to_stored: Callable[[tuple[int, int]], tuple[int, int]] = (lambda wh: wh[::-1]) if turned >= 5 else (lambda wh: wh)
    if to_stored(stored_wh) != full_wh:
        raise ValueError("the file has changed since it was first read")
    converted = _convert(image, mode)
    if to_stored(target_wh) != converted.size:
        converted = _resample(converted, stored_wh, to_stored(target_wh))
    return upright(converted, turned)


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """A stored picture turned as its EXIF orientation (1 to 8) asks for."""
    return image.transpose(_TO_UPRIGHT[orientation]) if orientation in _TO_UPRIGHT else image


def _resample(image: Image.Image, stored_wh: tuple[int, int], target_wh: tuple[int, int]) -> Image.Image:
    """Resize what may be a reduced decoding of a picture of size `stored_wh`.

    libjpeg rounds reduced sizes up, so the last column may lie partly outside the picture: the exact box is resized.
    """
    reduced = next((by for by in (1, 2, 4, 8) if image.width == -(-stored_wh[0] // by)), 1)
    box = (0.0, 0.0, stored_wh[0] / reduced, stored_wh[1] / reduced)
    enlarging = target_wh[0] > stored_wh[0] or target_wh[1] > stored_wh[1]
    method = Image.Resampling.BICUBIC if enlarging else Image.Resampling.LANCZOS
    return image.resize(target_wh, method, box=box)


def _convert(image: Image.Image, mode: str) -> Image.Image:
    converted = eight_bits(image)
    if converted is None:
        raise ValueError(f"unsupported kind of pixels ({image.mode})")
    if "transparency" in image.info and image.mode == "P":
        converted = converted.convert("RGBA")
    if mode == "L" and converted.mode not in ("L", "RGB"):
        converted = converted.convert("RGB")
    return converted.convert(mode)


def eight_bits(image: Image.Image) -> Image.Image | None:
    """The picture with 8-bit channels, None if its numbers have no agreed white."""
    if image.mode == "F":
        return None
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.int64)
        return Image.fromarray(((np.clip(values, 0, 65535) * 255 + 32767) // 65535).astype(np.uint8))
    return image
