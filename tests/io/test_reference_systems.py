"""Coordinate reference systems by number: which can be used, and where."""

import sys

import numpy as np
import pytest

from anchorsfm.io.reference_systems import check_epsg, named_area_without, projected
from anchorsfm.scene.errors import InputError

BERN = (46.95, 7.44)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (9999, "no such coordinate reference system"),
        (5773, "no horizontal coordinates"),
        (22300, "no way from latitude"),
    ],
    ids=["unknown", "heights", "without a transformation"],
)
def test_systems_that_cannot_be_used_are_named(code: int, words: str) -> None:
    with pytest.raises(InputError, match=f"EPSG:{code}.*{words}"):
        check_epsg(code)


@pytest.mark.parametrize("code", [32632, 7415, 4978, 4326], ids=["map", "with heights", "geocentric", "degrees"])
def test_systems_of_every_other_kind_are_used(code: int) -> None:
    check_epsg(code)
    assert np.isfinite(projected(np.array([[*BERN, 500.0]]), code, is_ellipsoidal=False)).all()


@pytest.mark.parametrize(
    ("code", "expected"),
    [(2056, (2_600_104.10, 1_199_879.62)), (32632, (381_290.48, 5_200_788.91)), (4326, (BERN[1], BERN[0]))],
    ids=["Swiss", "UTM", "degrees"],
)
def test_easting_comes_first(code: int, expected: tuple[float, float]) -> None:
    """Whatever order a system has by its definition: that of 4326 is latitude first."""
    (found,) = projected(np.array([[*BERN, 500.0]]), code, is_ellipsoidal=True)
    assert found[:2] == pytest.approx(expected, abs=0.01) and found[2] == 500


def test_a_system_of_elsewhere_is_told() -> None:
    assert named_area_without(BERN, 32632) is None
    assert "northern hemisphere" in named_area_without((-BERN[0], BERN[1]), 32632)
    assert "New Zealand" in named_area_without(BERN, 2193)
    assert named_area_without((-41.3, 174.8), 2193) is None
    assert named_area_without((-18.0, -179.9), 3460) is None and named_area_without(BERN, 3460)  # Fiji, across 180


def test_without_the_extra_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyproj", None)
    with pytest.raises(InputError, match=r"extra package: pip install 'anchorsfm\[geo\]'"):
        check_epsg(32632)
