"""Positions on the ellipsoid in a local frame, beside PyCOLMAP's."""

import numpy as np
import pycolmap
import pytest

from anchorsfm.geometry.geodesy import (
    about_origin,
    altitude_problem,
    ecef_from_geodetic,
    enu_from_geodetic,
    geo_positions,
    geodetic_from_enu,
)
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


def fix(longitude_deg: float, *, is_ellipsoidal: bool = False, altitude_m: float = 10.0) -> GeoFix:
    return GeoFix(
        latitude_deg=-16.5,
        longitude_deg=longitude_deg,
        altitude_m=altitude_m,
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


@pytest.mark.parametrize("most", [True, False])
def test_altitudes_that_few_have_above_something_else_are_unknown(most: bool) -> None:
    few = [fix(7.0, is_ellipsoidal=not most, altitude_m=60.0), None]
    fixes = [*few, *(fix(7.0, is_ellipsoidal=most, altitude_m=altitude) for altitude in (10.0, 12.0, 14.0))]
    geo = geo_positions(fixes)
    assert geo.is_ellipsoidal == most and geo.origin[2] == pytest.approx(12.0)
    assert geo.enu_m[[0, 2, 3, 4], 2] == pytest.approx([0.0, -2.0, 0.0, 2.0], abs=1e-6)
    assert geo.sigma_m[[0, 2, 3, 4], 2].tolist() == [30.0, 3.0, 3.0, 3.0]
    there, here = ("sea level", "the ellipsoid") if most else ("the ellipsoid", "sea level")
    assert altitude_problem(fixes) == (
        f"heights of 1 of 4 recorded positions are not used: 1 with one above {there} (most are above {here})"
    )


def test_what_is_said_of_altitudes() -> None:
    none = [fix(7.0, altitude_m=np.nan), fix(7.1, altitude_m=np.nan, is_ellipsoidal=True)]
    assert altitude_problem([fix(7.0), None]) is None and altitude_problem([]) is None
    assert "have no altitude: heights are against the cameras" in altitude_problem(none)
    some = altitude_problem([*none, fix(7.0)])
    assert some == "heights of 2 of 3 recorded positions are not used: 2 without an altitude"


def test_a_frame_whose_altitude_is_above_something_else_says_nothing_of_heights() -> None:
    geo, origin = geo_positions([fix(7.0), None, fix(7.001)]), (-16.5, 7.0, 60.0)
    same, nothing = about_origin(geo, origin, is_ellipsoidal=False)
    assert nothing is None and same.enu_m[0] == pytest.approx([0, 0, -50.0], abs=1e-6)
    other, problem = about_origin(geo, origin, is_ellipsoidal=True)
    assert problem is not None and "above sea level, those of the models above the ellipsoid" in problem
    assert (
        other.is_ellipsoidal and other.enu_m[0] == pytest.approx([0, 0, 0], abs=1e-6) and np.isnan(other.enu_m[1]).all()
    )
    assert other.sigma_m[0].tolist() == [2.0, 2.0, 30.0]
