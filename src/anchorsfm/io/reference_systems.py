"""Coordinate reference systems by EPSG number, through pyproj: an extra."""

from typing import Any

import numpy as np
from jaxtyping import Float

from anchorsfm.scene.errors import InputError

_WGS84 = {True: 4979, False: 4326}
"""Latitude, longitude and height above the ellipsoid; without one, heights pass through as they are."""


def check_epsg(code: int) -> None:
    """Raise InputError if pyproj is missing or knows no such system."""
    pyproj = _pyproj()
    try:
        pyproj.CRS.from_epsg(code)
    except pyproj.exceptions.CRSError:
        raise InputError(f"epsg = {code}: no such coordinate reference system; epsg.io lists them") from None


def projected(
    lat_lon_alt: Float[np.ndarray, "place 3"], code: int, *, is_ellipsoidal: bool
) -> Float[np.ndarray, "place 3"]:
    """Coordinates of places in a reference system, easting or longitude first.

    Raises InputError like `check_epsg`.
    """
    check_epsg(code)
    transformer = _pyproj().Transformer.from_crs(_WGS84[is_ellipsoidal], code, always_xy=True)
    latitude, longitude, altitude = lat_lon_alt.T
    return np.stack(transformer.transform(longitude, latitude, altitude), axis=1)


def _pyproj() -> Any:
    try:
        import pyproj
    except ImportError as error:
        raise InputError("epsg needs an extra package: pip install 'anchorsfm[geo]'") from error
    return pyproj
