"""Coordinate reference systems by EPSG number, through pyproj: an extra."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from anchorsfm.scene.errors import InputError

_WGS84 = {True: 4979, False: 4326}
"""Latitude, longitude and height above the ellipsoid; without one, heights pass through as they are."""


def check_epsg(code: int) -> None:
    """Raise InputError if pyproj is missing, knows no such system, or finds no horizontal coordinates in it."""
    pyproj = _pyproj()
    try:
        system = pyproj.CRS.from_epsg(code)
        pyproj.Transformer.from_crs(_WGS84[False], code)
    except pyproj.exceptions.CRSError:
        raise InputError(f"EPSG:{code}: no such coordinate reference system; epsg.io lists them") from None
    except pyproj.exceptions.ProjError:
        raise InputError(f"EPSG:{code}: no way from latitude and longitude to this system is known") from None
    if not (system.is_projected or system.is_geographic or system.is_geocentric):
        raise InputError(
            f"EPSG:{code} ({system.name}) has no horizontal coordinates: choose another; epsg.io lists them"
        )


def named_area_without(lat_lon: Sequence[float], code: int) -> str | None:
    """Where a system is used, if that is elsewhere. Raises InputError like `check_epsg`."""
    check_epsg(code)
    area, (latitude, longitude) = _pyproj().CRS.from_epsg(code).area_of_use, lat_lon
    if area is None:
        return None
    wraps = area.west > area.east
    across = longitude >= area.west or longitude <= area.east if wraps else area.west <= longitude <= area.east
    return None if across and area.south <= latitude <= area.north else str(area.name).split(" - ")[0]


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
