"""Coordinate reference systems, through pyproj: an extra."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from anchorsfm.scene.errors import InputError
from anchorsfm.scene.printable import printable

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


def check_system(text: str, where: str) -> None:
    """Raise InputError, which says where it is named, if a system is unknown or has no horizontal coordinates."""
    pyproj = _pyproj(f"{where}: {text}")
    try:
        system = pyproj.CRS.from_user_input(text)
        pyproj.Transformer.from_crs(system, _WGS84[False])
    except (pyproj.exceptions.CRSError, pyproj.exceptions.ProjError):
        raise InputError(
            f"{where}: {printable(text)[:80]!r} is no coordinate reference system; use EPSG:number (epsg.io lists "
            "them), WGS84, WGS84 UTM 32N, or a PROJ string"
        ) from None
    if not (system.is_projected or system.is_geographic or system.is_geocentric):
        raise InputError(f"{where}: {system.name} has no horizontal coordinates: choose another; epsg.io lists them")


def geodetic(xyz: Float[np.ndarray, "place 3"], system: str) -> Float[np.ndarray, "place 3"]:
    """Latitude, longitude in degrees and height in metres of coordinates in a system, easting or longitude first.

    Heights are not changed unless the system has its own. Raises InputError like `check_system`; not finite where
    coordinates are no place in the system.
    """
    pyproj = _pyproj(system)
    own = pyproj.CRS.from_user_input(system)
    wanted = _WGS84[own.is_geocentric or own.is_compound or len(own.axis_info) == 3]
    transformer = pyproj.Transformer.from_crs(own, wanted, always_xy=True)
    longitude, latitude, height = transformer.transform(*xyz.T)
    return np.stack([latitude, longitude, height], axis=1)


def _pyproj(what: str = "epsg") -> Any:
    try:
        import pyproj
    except ImportError as error:
        raise InputError(f"{what} needs an extra package: pip install 'anchorsfm[geo]'") from error
    return pyproj
