"""Positions on the WGS 84 ellipsoid in a local frame with x east, y north and z up, and back.

Altitudes are taken for heights above the ellipsoid. Those above sea level give the same frame shifted along z, to what
the geoid changes over the scene: centimetres in a kilometre.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from anchorsfm.scene.positions import GeoFix, GeoPositions

_RADIUS_M, _FLATTENING = 6378137.0, 1 / 298.257223563
_ECCENTRICITY_2 = _FLATTENING * (2 - _FLATTENING)
_UNKNOWN_ALTITUDE_SIGMA_M = 30.0
_STEPS = 10
"""Of the fixed-point iteration for the latitude, which gains three digits a step near the ground."""


def ecef_from_geodetic(lat_lon_alt: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
    """Earth-centred coordinates in metres of degrees and metres."""
    latitude, longitude = np.radians(lat_lon_alt[..., 0]), np.radians(lat_lon_alt[..., 1])
    altitude, sine = lat_lon_alt[..., 2], np.sin(latitude)
    normal = _RADIUS_M / np.sqrt(1 - _ECCENTRICITY_2 * sine**2)
    across = (normal + altitude) * np.cos(latitude)
    up = ((1 - _ECCENTRICITY_2) * normal + altitude) * sine
    return np.stack([across * np.cos(longitude), across * np.sin(longitude), up], axis=-1)


def geodetic_from_ecef(xyz: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
    """Degrees and metres of Earth-centred coordinates."""
    across, up = np.hypot(xyz[..., 0], xyz[..., 1]), xyz[..., 2]
    latitude = np.arctan2(up, across * (1 - _ECCENTRICITY_2))
    for _ in range(_STEPS):
        sine = np.sin(latitude)
        normal = _RADIUS_M / np.sqrt(1 - _ECCENTRICITY_2 * sine**2)
        latitude = np.arctan2(up + _ECCENTRICITY_2 * normal * sine, across)
    sine, cosine = np.sin(latitude), np.cos(latitude)
    altitude = across * cosine + up * sine - _RADIUS_M * np.sqrt(1 - _ECCENTRICITY_2 * sine**2)
    longitude = np.arctan2(xyz[..., 1], xyz[..., 0])
    return np.stack([np.degrees(latitude), np.degrees(longitude), altitude], axis=-1)


def enu_from_geodetic(
    lat_lon_alt: Float[np.ndarray, "*batch 3"], origin: Sequence[float]
) -> Float[np.ndarray, "*batch 3"]:
    """Metres to the east, to the north and upwards of an origin (latitude, longitude, altitude)."""
    centre = np.array(origin, float)
    return (ecef_from_geodetic(lat_lon_alt) - ecef_from_geodetic(centre)) @ _enu_axes(centre).T


def geodetic_from_enu(enu_m: Float[np.ndarray, "*batch 3"], origin: Sequence[float]) -> Float[np.ndarray, "*batch 3"]:
    """The inverse of `enu_from_geodetic`."""
    centre = np.array(origin, float)
    return geodetic_from_ecef(enu_m @ _enu_axes(centre) + ecef_from_geodetic(centre))


def geo_positions(fixes: Sequence[GeoFix | None]) -> GeoPositions | None:
    """Recorded positions of photographs in a frame about their median; None if there are none.

    Altitudes are above what most of them are above, sea level or the ellipsoid, which differ by up to 100 m. A missing
    altitude, or one above the other, is taken for the median of the rest, with a large deviation (`altitude_problem`
    says so).
    """
    known = [fix for fix in fixes if fix is not None]
    if not known:
        return None
    is_ellipsoidal = _are_mostly_ellipsoidal(known)
    place, sigma = np.full((len(fixes), 3), np.nan), np.full((len(fixes), 3), np.nan)
    for row, fix in enumerate(fixes):
        if fix is not None:
            altitude = fix.altitude_m if fix.is_ellipsoidal == is_ellipsoidal else np.nan
            place[row] = fix.latitude_deg, fix.longitude_deg, altitude
            sigma[row] = fix.sigma_m
    low = np.isfinite(place[:, 0]) & ~np.isfinite(place[:, 2])
    place[low, 2] = np.median(place[np.isfinite(place[:, 2]), 2]) if np.isfinite(place[:, 2]).any() else 0.0
    sigma[low, 2] = _UNKNOWN_ALTITUDE_SIGMA_M
    middle = np.nanmedian(ecef_from_geodetic(place), axis=0)  # of degrees it would fail where they jump by 360
    latitude, longitude, _ = geodetic_from_ecef(middle).tolist()
    origin = (latitude, longitude, float(np.nanmedian(place[:, 2])))
    return GeoPositions(
        lat_lon_alt=place,
        enu_m=enu_from_geodetic(place, origin),
        sigma_m=sigma,
        origin=origin,
        is_ellipsoidal=is_ellipsoidal,
        view_deg=np.array([(np.nan, np.nan) if fix is None else fix.view_deg for fix in fixes]),
    )


def altitude_problem(fixes: Sequence[GeoFix | None]) -> str | None:
    """What is to be said of altitudes that `geo_positions` does not use, in one line; None: nothing."""
    known = [fix for fix in fixes if fix is not None]
    missing = sum(not np.isfinite(fix.altitude_m) for fix in known)
    if not missing and len({fix.is_ellipsoidal for fix in known}) < 2:
        return None
    if missing == len(known):
        return "the recorded positions have no altitude: heights are against the cameras, not above sea level"
    is_ellipsoidal = _are_mostly_ellipsoidal(known)
    other = sum(np.isfinite(fix.altitude_m) and fix.is_ellipsoidal != is_ellipsoidal for fix in known)
    names = ("the ellipsoid", "sea level")
    of_most, of_few = names if is_ellipsoidal else names[::-1]
    parts = [f"{missing} without an altitude"] if missing else []
    parts += [f"{other} with one above {of_few} (most are above {of_most})"] if other else []
    if not parts:
        return None
    return f"heights of {missing + other} of {len(known)} recorded positions are not used: {', '.join(parts)}"


def _are_mostly_ellipsoidal(fixes: Sequence[GeoFix]) -> bool:
    """Whether most altitudes are above the ellipsoid."""
    kinds = [fix.is_ellipsoidal for fix in fixes if np.isfinite(fix.altitude_m)]
    return 2 * sum(kinds) > len(kinds)


def about_origin(
    geo: GeoPositions, origin: tuple[float, float, float], *, is_ellipsoidal: bool
) -> tuple[GeoPositions, str | None]:
    """The same positions in the local frame of another origin, and what is to be said of their altitudes.

    Args:
        geo: recorded positions.
        origin: latitude, longitude and altitude.
        is_ellipsoidal: whether this altitude is above the ellipsoid. Positions whose altitudes are above the other
            have none in the frame.
    """
    problem = None
    if geo.is_ellipsoidal != is_ellipsoidal:
        known = np.isfinite(geo.lat_lon_alt[:, 0])
        place, sigma = geo.lat_lon_alt.copy(), geo.sigma_m.copy()
        place[known, 2], sigma[known, 2] = origin[2], _UNKNOWN_ALTITUDE_SIGMA_M
        geo = replace(geo, lat_lon_alt=place, sigma_m=sigma, is_ellipsoidal=is_ellipsoidal)
        names = ("above the ellipsoid", "above sea level")
        here, there = names if is_ellipsoidal else names[::-1]
        problem = f"recorded altitudes are {there}, those of the models {here}: the recorded ones are not used"
    return replace(geo, enu_m=enu_from_geodetic(geo.lat_lon_alt, origin), origin=origin), problem


def _enu_axes(origin: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """Unit vectors to the east, to the north and upwards, in Earth-centred coordinates."""
    (sin_lat, sin_lon), (cos_lat, cos_lon) = np.sin(np.radians(origin[:2])), np.cos(np.radians(origin[:2]))
    return np.array(
        [
            [-sin_lon, cos_lon, 0.0],
            [-sin_lat * cos_lon, -sin_lat * sin_lon, cos_lat],
            [cos_lat * cos_lon, cos_lat * sin_lon, sin_lat],
        ]
    )
