"""Where a photograph was taken, and where its camera looked: its EXIF block, and what DJI's cameras add as XMP.

Standard deviations are what the file claims (`GPSHPositioningError`, the real-time kinematic figures of DJI) or, where
it claims nothing, usual ones of a receiver without corrections. DJI's relative altitude comes from a barometer: its
changes are better known than those of a satellite altitude.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image

from anchorsfm.io.xmp import read_xmp
from anchorsfm.scene.positions import GeoFix

USUAL_SIGMA_M = (2.0, 2.0, 3.0)
"""East, north and up, of a receiver without corrections."""
_BAROMETER_SIGMA_M = 1.5
_RTK_SIGMA_M = {50: (0.03, 0.03, 0.06), 34: (0.5, 0.5, 1.0)}
"""By DJI's RtkFlag: 50 with fixed ambiguities, 34 with floating ones."""
_SIGMA_RANGE_M = (0.01, 1000.0)
_RADIUS_OVER_SIGMA = 1.5
"""Of the circle that holds a position with a probability of two thirds, to the deviation of each coordinate."""
_UP_OVER_ACROSS = 1.5
_ALTITUDE_RANGE_M = (-1000.0, 100_000.0)

_GPS_IFD = 0x8825
_VERSION, _LATITUDE_REF, _LATITUDE, _LONGITUDE_REF, _LONGITUDE, _ALTITUDE_REF, _ALTITUDE = 0, 1, 2, 3, 4, 5, 6
_STATUS, _DIRECTION_REF, _DIRECTION, _HORIZONTAL_ERROR = 9, 16, 17, 31
_EXIF_3 = b"\2\4"
"""First two numbers of the version of the GPS block since Exif 3.0."""
_LATITUDES, _LONGITUDES = ("N", "S"), ("E", "W")
_DJI = "http://www.dji.com/drone-dji/1.0/"


@dataclass(frozen=True, kw_only=True)
class GpsRecord:
    """What a file says about its place."""

    fix: GeoFix | None = None
    problem: str | None = None
    """What in it cannot be used, in a few words."""


def read_gps(image: Image.Image) -> GpsRecord:
    """The recorded position of a loaded picture; values that cannot be true are named and ignored."""
    try:
        tags = dict(image.getexif().get_ifd(_GPS_IFD))
    except Exception:  # parsers of foreign blocks raise anything; the pixels are still good
        return GpsRecord()
    dji, problem = read_xmp(image.info.get("xmp"), _DJI, "drone-dji")
    if _LATITUDE not in tags and _LONGITUDE not in tags:
        return GpsRecord(problem=problem)
    latitude = _degrees(tags.get(_LATITUDE), _letter(tags.get(_LATITUDE_REF)), "S")
    longitude = _degrees(tags.get(_LONGITUDE), _letter(tags.get(_LONGITUDE_REF)), "W")
    if latitude == longitude == 0 or _letter(tags.get(_STATUS)) == "V":
        return GpsRecord(problem=problem)  # how receivers say that they did not know
    if not (math.isfinite(latitude) and math.isfinite(longitude)):
        return GpsRecord(problem="its latitude or longitude is missing, or not made of numbers")
    if not (abs(latitude) <= 90 and abs(longitude) <= 180):
        return GpsRecord(problem=f"no such place: latitude {latitude:g}, longitude {longitude:g}")
    if _letter(tags.get(_LATITUDE_REF)) not in _LATITUDES or _letter(tags.get(_LONGITUDE_REF)) not in _LONGITUDES:
        return GpsRecord(problem="it does not say whether it is north or south, east or west")
    altitude, is_ellipsoidal = _altitude(tags, dji)
    if math.isfinite(altitude) and not _ALTITUDE_RANGE_M[0] <= altitude <= _ALTITUDE_RANGE_M[1]:
        altitude, problem = math.nan, f"no such altitude: {altitude:g} m"
    return GpsRecord(
        fix=GeoFix(
            latitude_deg=latitude,
            longitude_deg=longitude,
            altitude_m=altitude,
            sigma_m=_sigma(tags, dji),
            is_ellipsoidal=is_ellipsoidal,
            view_deg=_view(tags, dji),
        ),
        problem=problem,
    )


def _altitude(tags: Mapping[int, object], dji: Mapping[str, str]) -> tuple[float, bool]:
    """Metres, and whether above the ellipsoid.

    References 0 and 1 (above and below) are to sea level up to Exif 2.32, and to the ellipsoid since Exif 3.0 (CIPA
    DC-008-2023), whose blocks have version 2.4; 2 and 3 are those to sea level there. DJI writes version 3.2, which
    there is not, above sea level.
    """
    is_rtk = dji.get("AltitudeType", "").lower().startswith("rtk")
    reference = tags.get(_ALTITUDE_REF)
    kind = reference[0] if isinstance(reference, bytes) and reference else reference
    altitude = _number(tags.get(_ALTITUDE)) * (-1 if kind in (1, 3) else 1)
    if not math.isfinite(altitude):
        return _number(dji.get("AbsoluteAltitude")), is_rtk
    version = tags.get(_VERSION)
    is_exif_3 = isinstance(version, bytes) and version[:2] == _EXIF_3
    return altitude, (kind in (0, 1) and is_exif_3) or is_rtk


def _sigma(tags: Mapping[int, object], dji: Mapping[str, str]) -> tuple[float, float, float]:
    east, north, up = USUAL_SIGMA_M
    if "RelativeAltitude" in dji:
        up = _BAROMETER_SIGMA_M
    radius = _number(tags.get(_HORIZONTAL_ERROR))
    if radius > 0:
        east = north = radius / _RADIUS_OVER_SIGMA
        up = _UP_OVER_ACROSS * east if "RelativeAltitude" not in dji else up
    flag = _number(dji.get("RtkFlag"))
    if flag in _RTK_SIGMA_M:
        east, north, up = _RTK_SIGMA_M[int(flag)]
        claimed = (_number(dji.get(f"RtkStd{axis}")) for axis in ("Lon", "Lat", "Hgt"))
        east, north, up = (
            claim if claim > 0 else usual for claim, usual in zip(claimed, (east, north, up), strict=True)
        )
    low, high = _SIGMA_RANGE_M
    return min(max(east, low), high), min(max(north, low), high), min(max(up, low), high)


def _view(tags: Mapping[int, object], dji: Mapping[str, str]) -> tuple[float, float]:
    """Yaw and pitch of DJI's gimbal, or the yaw that EXIF gives; of a magnetic one nobody knows what it means."""
    yaw, pitch = (_number(dji.get(f"Gimbal{angle}Degree")) for angle in ("Yaw", "Pitch"))
    if abs(yaw) <= 360 and abs(pitch) <= 90:
        return yaw, pitch
    yaw = _number(tags.get(_DIRECTION)) if _letter(tags.get(_DIRECTION_REF)) == "T" else math.nan
    return yaw if 0 <= yaw <= 360 else math.nan, math.nan


def _degrees(value: object, reference: str, negative: str) -> float:
    """Degrees of a triple of degrees, minutes and seconds; NaN if it is none."""
    parts = [_number(part) for part in value] if isinstance(value, (tuple, list)) else [_number(value)]
    if len(parts) > 3 or not parts or not all(part >= 0 for part in parts):
        return math.nan
    degrees = sum(part / 60**place for place, part in enumerate(parts))
    return -degrees if reference == negative else degrees


def _letter(value: object) -> str:
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
    return text.strip("\0 ").upper()[:1] if isinstance(text, str) else ""


def _number(value: object) -> float:
    """A finite number, NaN for everything else."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ArithmeticError):
        return math.nan
    return number if math.isfinite(number) else math.nan
