"""Widths of the sensors of cameras, as COLMAP's own table has them."""

import math
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pycolmap
from PIL import Image, TiffImagePlugin

_SIDE = 16
_FOCAL_MM = 10
_MAKE, _MODEL, _ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 271, 272, 274, 282, 283, 296
_EXIF_IFD, _FOCAL_LENGTH = 0x8769, 37386
_LONGEST_NAME = 100


@lru_cache(maxsize=1024)
def sensor_width_mm(make: str, model: str) -> float:
    """Width of the sensor of a camera by its names in EXIF, NaN if COLMAP does not know it.

    The table has short names of makers: NIKON CORPORATION is NIKON there, as its models say. A model without a maker is
    nobody's: any name that has it as a part would count.
    """
    if not make.strip() or not model.strip():
        return math.nan
    short = make.split()[0]
    names = [short, make] if model.upper().startswith(short.upper()) else [make]
    found = (_width_mm(name, model) for name in dict.fromkeys(names))
    return next((width for width in found if math.isfinite(width)), math.nan)


def _width_mm(make: str, model: str) -> float:
    """PyCOLMAP gives its table away only by the focal length in pixels of a picture, so it is shown one."""
    if not model.isascii() or not model.isprintable() or len(model) > _LONGEST_NAME:
        return math.nan
    if not make.isascii() or not make.isprintable() or len(make) > _LONGEST_NAME:
        return math.nan
    exif = Image.Exif()
    exif[_MAKE], exif[_MODEL], exif[_ORIENTATION] = make, model, 1
    exif[_X_RESOLUTION] = exif[_Y_RESOLUTION] = TiffImagePlugin.IFDRational(72)
    exif[_RESOLUTION_UNIT] = 2
    exif.get_ifd(_EXIF_IFD)[_FOCAL_LENGTH] = TiffImagePlugin.IFDRational(_FOCAL_MM)
    with TemporaryDirectory(prefix="anchorsfm-") as folder:
        path = Path(folder) / "camera.jpg"
        Image.new("L", (_SIDE, _SIDE)).save(path, exif=exif)
        bitmap = pycolmap.Bitmap.read(path, as_rgb=False)
        focal_px = None if bitmap is None else bitmap.exif_focal_length()
    return round(_FOCAL_MM * _SIDE / focal_px, 3) if focal_px else math.nan
