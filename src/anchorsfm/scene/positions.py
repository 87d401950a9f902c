"""Where photographs were taken, as their cameras recorded it."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True)
class GeoFix:
    """One recorded position; NaN where a value is missing."""

    latitude_deg: float
    longitude_deg: float
    altitude_m: float
    sigma_m: tuple[float, float, float]
    """Standard deviations to the east, to the north and upwards."""
    is_ellipsoidal: bool = False
    """Whether the altitude is above the WGS 84 ellipsoid; above sea level otherwise."""
    view_deg: tuple[float, float] = (math.nan, math.nan)
    """Where the camera looked: yaw clockwise from north, and pitch upwards."""


@dataclass(frozen=True, kw_only=True)
class GeoPositions:
    """The recorded positions of a set of photographs, also in a local metric frame: x east, y north, z up."""

    lat_lon_alt: Float[np.ndarray, "image 3"]
    """Degrees on WGS 84, and metres; rows of NaN where nothing is recorded."""
    enu_m: Float[np.ndarray, "image 3"]
    """The same in the local frame."""
    sigma_m: Float[np.ndarray, "image 3"]
    """Standard deviations along its axes."""
    origin: tuple[float, float, float]
    """Latitude, longitude and altitude of the local frame's origin."""
    is_ellipsoidal: bool
    """Whether altitudes are above the ellipsoid; above sea level otherwise."""
    view_deg: Float[np.ndarray, "image 2"] | None = None
    """Where cameras looked, as they recorded it: yaw and pitch, see `GeoFix`; NaN, or None, where unknown."""

    @staticmethod
    def unrecorded(
        num_images: int, origin: tuple[float, float, float], *, is_ellipsoidal: bool = False
    ) -> "GeoPositions":
        """A frame in which no photograph has a recorded position."""
        nothing = np.full((num_images, 3), np.nan)
        return GeoPositions(
            lat_lon_alt=nothing, enu_m=nothing, sigma_m=nothing, origin=origin, is_ellipsoidal=is_ellipsoidal
        )

    def select(self, images: Int[np.ndarray, "kept"] | list[int]) -> "GeoPositions":
        """Those of some of the photographs, in the same frame."""
        return GeoPositions(
            lat_lon_alt=self.lat_lon_alt[images],
            enu_m=self.enu_m[images],
            sigma_m=self.sigma_m[images],
            origin=self.origin,
            is_ellipsoidal=self.is_ellipsoidal,
            view_deg=None if self.view_deg is None else self.view_deg[images],
        )
