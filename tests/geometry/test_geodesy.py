"""Positions on the ellipsoid in a local frame, beside PyCOLMAP's."""

import numpy as np
import pycolmap
import pytest

from anchorsfm.geometry.geodesy import ecef_from_geodetic, enu_from_geodetic, geodetic_from_enu

ORIGINS = [(46.8, -92.0, 198.6), (-33.9, 151.2, -12.0), (0.0, 180.0, 0.0), (89.999, 10.0, 3000.0), (-90.0, 0.0, 0.0)]


@pytest.mark.parametrize("origin", ORIGINS)
def test_there_and_back(origin) -> None:
    enu_m = np.random.default_rng(0).normal(0, [2000, 2000, 100], (20, 3))
    places = geodetic_from_enu(enu_m, origin)
    assert np.abs(enu_from_geodetic(places, origin) - enu_m).max() < 1e-6
    theirs = pycolmap.GPSTransform(pycolmap.GPSTransformEllipsoid.WGS84)
    assert np.abs(theirs.ellipsoid_to_ecef(places) - ecef_from_geodetic(places)).max() < 1e-6
    assert np.abs(theirs.ellipsoid_to_enu(places, *origin) - enu_m).max() < 1e-6
