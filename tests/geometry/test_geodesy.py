"""Positions on the ellipsoid in a local frame, beside PyCOLMAP's."""

import numpy as np
import pycolmap
import pytest

from anchorsfm.geometry.geodesy import ecef_from_geodetic, enu_from_geodetic, geo_positions, geodetic_from_enu
from anchorsfm.scene.positions import GeoFix

ORIGINS = [(46.8, -92.0, 198.6), (-33.9, 151.2, -12.0), (0.0, 180.0, 0.0), (89.999, 10.0, 3000.0), (-90.0, 0.0, 0.0)]


@pytest.mark.parametrize("origin", ORIGINS)
def test_there_and_back(origin) -> None:
    enu_m = np.random.default_rng(0).normal(0, [2000, 2000, 100], (20, 3))
    places = geodetic_from_enu(enu_m, origin)
    assert np.abs(enu_from_geodetic(places, origin) - enu_m).max() < 1e-6
    theirs = pycolmap.GPSTransform(pycolmap.GPSTransformEllipsoid.WGS84)
    assert np.abs(theirs.ellipsoid_to_ecef(places) - ecef_from_geodetic(places)).max() < 1e-6
    assert np.abs(theirs.ellipsoid_to_enu(places, *origin) - enu_m).max() < 1e-6


def fix(longitude_deg: float, *, is_ellipsoidal: bool = False) -> GeoFix:
    return GeoFix(
        latitude_deg=-16.5,
        longitude_deg=longitude_deg,
        altitude_m=10.0,
        sigma_m=(2.0, 2.0, 3.0),
        is_ellipsoidal=is_ellipsoidal,
    )


def test_the_frame_of_places_on_both_sides_of_the_date_line_is_between_them() -> None:
    geo = geo_positions([fix(179.9999), None, fix(-179.9999)])
    assert geo.enu_m[[0, 2], 0] == pytest.approx([-10.7, 10.7], abs=0.1)
    assert np.abs(geo.enu_m[[0, 2], 1:]).max() < 0.01 and np.isnan(geo.enu_m[1]).all()


@pytest.mark.parametrize("kinds", [(True, True), (True, False), (False, False)])
def test_altitudes_are_above_the_ellipsoid_if_all_are(kinds: tuple[bool, bool]) -> None:
    assert geo_positions([fix(7.0, is_ellipsoidal=kind) for kind in kinds]).is_ellipsoidal == all(kinds)
