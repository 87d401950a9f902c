"""Photographs with recorded positions."""

import math
from pathlib import Path

import numpy as np
from PIL import Image

_GPS, _EXIF = 0x8825, 0x8769


def geotagged(
    pixels: np.ndarray,
    path: Path,
    lat_lon_alt: tuple[float, float, float] | None,
    *,
    focal_px: float | None = None,
    yaw_deg: float | None = None,
    is_ellipsoidal: bool = False,
    quality: int = 95,
) -> None:
    """Write a JPEG with a position (degrees, metres; an altitude of NaN is left out), a focal length and a direction.

    The altitude is above sea level, or above the ellipsoid.

    A focal length is written as 10 mm on a sensor with as many pixels a millimetre as it takes.
    """
    exif = geotag(lat_lon_alt)
    if is_ellipsoidal:
        exif.get_ifd(_GPS)[0] = b"\2\4\0\0"
    if focal_px is not None:
        exif[271], exif[272] = "Nobody", "Rendered"
        height, width = pixels.shape[:2]
        exif.get_ifd(_EXIF).update({37386: 10.0, 41486: focal_px / 10, 41488: 4, 40962: width, 40963: height})
    if yaw_deg is not None:
        exif.get_ifd(_GPS).update({16: "T", 17: yaw_deg % 360})
    Image.fromarray(pixels).save(path, exif=exif, quality=quality)


def geotag(lat_lon_alt: tuple[float, float, float] | None) -> Image.Exif:
    """The EXIF block of a position."""
    exif = Image.Exif()
    if lat_lon_alt is not None:
        latitude, longitude, altitude = lat_lon_alt
        gps = exif.get_ifd(_GPS)
        gps.update({1: "N" if latitude >= 0 else "S", 2: _parts(latitude)})
        gps.update({3: "E" if longitude >= 0 else "W", 4: _parts(longitude)})
        if math.isfinite(altitude):
            gps.update({5: b"\0" if altitude >= 0 else b"\1", 6: abs(altitude)})
    return exif


def _parts(degrees: float) -> tuple[float, float, float]:
    whole, rest = divmod(abs(degrees), 1)
    minutes, rest = divmod(60 * rest, 1)
    return whole, minutes, 60 * rest
