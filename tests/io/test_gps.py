"""Recorded positions: EXIF and the XMP of DJI, and what in them cannot be true."""

import io
import math

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from anchorsfm.io.gps import GpsRecord, read_gps
from anchorsfm.io.images import load_image_set
from geotags import geotagged
from said import Said

DJI = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:drone-dji="http://www.dji.com/drone-dji/1.0/" {attributes}>{elements}</rdf:Description>'
    "</rdf:RDF></x:xmpmeta>"
)


def record(tags: dict, xmp: str | bytes | None = None) -> GpsRecord:
    data = io.BytesIO()
    image = Image.new("RGB", (32, 32))
    exif = Image.Exif()
    exif.get_ifd(0x8825).update({tag: value for tag, value in tags.items() if value is not None})
    more = {} if xmp is None else {"xmp": xmp.encode() if isinstance(xmp, str) else xmp}
    image.save(data, "JPEG", exif=exif, **more)
    opened = Image.open(io.BytesIO(data.getvalue()))
    opened.load()
    return read_gps(opened)


PLACE = {1: "S", 2: (33.0, 51.0, 36.0), 3: "W", 4: (151.0, 12.0, 0.0), 5: b"\1", 6: 12.5}


def test_a_position_with_its_signs() -> None:
    fix = record(PLACE).fix
    assert fix.latitude_deg == pytest.approx(-33.86) and fix.longitude_deg == pytest.approx(-151.2)
    assert fix.altitude_m == pytest.approx(-12.5) and not fix.is_ellipsoidal
    assert fix.sigma_m == (2.0, 2.0, 3.0)


@pytest.mark.parametrize(
    ("version", "reference", "altitude", "is_ellipsoidal"),
    [
        (None, 0, 12.5, False),
        (b"\2\3\0\0", 1, -12.5, False),
        (b"\3\2\0\0", 0, 12.5, False),
        (b"\2\4\0\0", 0, 12.5, True),
        (b"\2\4\0\0", 1, -12.5, True),
        (b"\2\4\0\0", 2, 12.5, False),
        (b"\2\4\0\0", 3, -12.5, False),
        (None, 3, -12.5, False),
    ],
)
def test_altitudes_are_above_or_below_what_the_file_says(
    version: bytes | None, reference: int, altitude: float, is_ellipsoidal: bool
) -> None:
    """As Exif 3.0 (block 2.4) and the versions before have it; DJI writes 3.2 and means sea level."""
    fix = record(PLACE | {0: version, 5: bytes([reference])}).fix
    assert (fix.altitude_m, fix.is_ellipsoidal) == (altitude, is_ellipsoidal)
    rtk = DJI.format(attributes='drone-dji:AltitudeType="RtkAlt"', elements="")
    assert record(PLACE | {5: bytes([reference])}, rtk).fix.is_ellipsoidal


def test_a_claimed_error_is_believed_within_reason() -> None:
    assert record(PLACE | {31: 6.0}).fix.sigma_m == pytest.approx((4.0, 4.0, 6.0))
    assert record(PLACE | {31: 1e9}).fix.sigma_m == (1000.0, 1000.0, 1000.0)
    assert record(PLACE | {31: 0.0}).fix.sigma_m == (2.0, 2.0, 3.0)


def test_dji_says_more() -> None:
    attributes = 'drone-dji:RtkFlag="50" drone-dji:RtkStdLat="0.012" drone-dji:RtkStdLon="0.011"'
    fix = record(PLACE, DJI.format(attributes=attributes, elements="")).fix
    assert fix.sigma_m == pytest.approx((0.011, 0.012, 0.06))
    elements = "<drone-dji:RelativeAltitude>+50.1</drone-dji:RelativeAltitude>"
    assert record(PLACE, DJI.format(attributes="", elements=elements)).fix.sigma_m == (2.0, 2.0, 1.5)
    assert record(PLACE | {31: 6.0}, DJI.format(attributes="", elements=elements)).fix.sigma_m == (4.0, 4.0, 1.5)
    without = {tag: value for tag, value in PLACE.items() if tag != 6}
    attributes = 'drone-dji:AbsoluteAltitude="+77.5"'
    fix = record(without | {5: b"\0"}, DJI.format(attributes=attributes, elements="")).fix
    assert fix.altitude_m == 77.5


@pytest.mark.parametrize(
    ("attributes", "sigma_m"),
    [
        ('drone-dji:RtkFlag="50"', (0.03, 0.03, 0.06)),
        ('drone-dji:RtkFlag="34"', (0.5, 0.5, 1.0)),
        ('drone-dji:RtkFlag="16" drone-dji:RtkStdLat="0.01"', (2.0, 2.0, 3.0)),
        ('drone-dji:RtkFlag="50" drone-dji:RtkStdLat="0.0001" drone-dji:RtkStdHgt="0"', (0.03, 0.01, 0.06)),
    ],
    ids=["fixed", "floating", "single", "too good to be true"],
)
def test_the_kind_of_fix_says_how_exact_it_is(attributes: str, sigma_m: tuple[float, float, float]) -> None:
    assert record(PLACE, DJI.format(attributes=attributes, elements="")).fix.sigma_m == sigma_m


@pytest.mark.parametrize(
    ("tags", "problem"),
    [
        ({2: (146.0, 0.0, 0.0)}, "no such place"),
        ({4: (IFDRational(2**31, 1), 0.0, 0.0)}, "no such place"),
        ({4: (200.0, 0.0, 0.0)}, "no such place"),
        ({2: (10.0, 20.0, 30.0, 40.0)}, "missing, or not made of numbers"),
        ({2: (IFDRational(1, 0),) * 3}, "missing, or not made of numbers"),
        ({2: None}, "missing, or not made of numbers"),
        ({1: None}, "north or south"),
        ({3: "Q"}, "east or west"),
        ({2: (0.0, 0.0, 0.0), 4: (0.0, 0.0, 0.0)}, None),
        ({9: "V"}, None),
    ],
)
def test_positions_that_cannot_be_true_are_none(tags: dict, problem: str | None) -> None:
    found = record(PLACE | tags)
    assert found.fix is None
    assert (found.problem is None) if problem is None else (problem in found.problem)


def test_an_absurd_altitude_costs_only_itself() -> None:
    found = record(PLACE | {6: 4e6})
    assert math.isnan(found.fix.altitude_m) and "no such altitude" in found.problem


@pytest.mark.parametrize(
    "xmp",
    [
        b"<x:xmpmeta drone-dji",
        b"drone-dji \xff\xfe\x00",
        b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><a>drone-dji &b;</a>',
        b'<?xml version="1.0" encoding="nonsense"?><a>drone-dji</a>',
    ],
    ids=["cut", "bytes", "entities", "encoding"],
)
def test_xmp_that_is_none_costs_only_itself(xmp: bytes) -> None:
    found = record(PLACE, xmp)
    assert found.fix is not None and "XMP" in found.problem
    assert record(PLACE, b"<other maker's>").problem is None


def test_a_set_has_one_frame_and_its_problems_a_line_each(tmp_path) -> None:
    places = [(46.84, 179.9999, 10.0), (46.84, -179.9999, 20.0), None, (91.5, 0.0, 0.0), (46.8401, 179.9999, math.nan)]
    for k, place in enumerate(places):
        noise = np.random.default_rng(k).integers(0, 255, (32, 32, 3), np.uint8)
        geotagged(noise, tmp_path / f"{k}.jpg", place)
    lines = Said()
    geo = load_image_set(tmp_path, progress=lines).geo
    assert np.isfinite(geo.enu_m).all(axis=1).tolist() == [True, True, False, False, True]
    assert np.linalg.norm(geo.enu_m[0] - geo.enu_m[1]) == pytest.approx(np.hypot(15.26, 10), abs=0.1)
    assert geo.enu_m[4] - geo.enu_m[0] == pytest.approx([0, 11.1, 5.0], abs=0.1) and geo.sigma_m[4, 2] == 30
    (place, altitude) = lines.warnings
    assert "3.jpg" in place and "latitude 91.5" in place
    assert altitude == "heights of 1 of 3 recorded positions are not used: 1 without an altitude"


GIMBAL = " ".join(
    f'drone-dji:Gimbal{name}Degree="{value}"'
    for name, value in (("Yaw", "-12.5"), ("Pitch", "-90.0"), ("Roll", "+0.0"))
)


@pytest.mark.parametrize(
    ("tags", "attributes", "expected"),
    [
        ({}, GIMBAL, (-12.5, -90.0)),
        ({16: "T", 17: 271.5}, "", (271.5, math.nan)),
        ({16: "M", 17: 271.5}, "", (math.nan,) * 2),
        ({17: 271.5}, "", (math.nan,) * 2),
        ({16: "T", 17: 400.0}, "", (math.nan,) * 2),
        ({16: "T", 17: 10.0}, GIMBAL.replace("-90.0", "down"), (10.0, math.nan)),
        ({}, GIMBAL.replace("-90.0", "-900"), (math.nan,) * 2),
    ],
)
def test_where_a_camera_looked(tags: dict, attributes: str, expected: tuple) -> None:
    fix = record(PLACE | tags, DJI.format(attributes=attributes, elements="")).fix
    assert fix.view_deg == pytest.approx(expected, nan_ok=True)
