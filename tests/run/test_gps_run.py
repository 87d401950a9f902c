"""A whole run on photographs with recorded positions."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anchorsfm.evaluation import read_poses
from anchorsfm.geometry.geodesy import enu_from_geodetic, geodetic_from_enu
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.pipeline import RunResult, reconstruct
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.folder import RunFolder
from anchorsfm.run.photographs import load_photographs
from geotags import geotagged
from said import Said

ORIGIN = (46.84, -91.99, 200.0)
ENU_FROM_WORLD = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
"""The scene has y down."""
SCALE = 100.0
"""So that positions are far apart beside their deviations."""


@pytest.fixture(scope="module")
def flight(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """The photographs with positions, and these in metres."""
    truth, folder = read_poses(rendered / "truth.json"), tmp_path_factory.mktemp("flight")
    enu_m = SCALE * camera_centres(truth.cam_from_world) @ ENU_FROM_WORLD.T
    ahead = truth.cam_from_world[:, 2, :3] @ ENU_FROM_WORLD.T
    yaw = np.degrees(np.arctan2(ahead[:, 0], ahead[:, 1])) + 3
    for name, place, direction in zip(truth.names, geodetic_from_enu(enu_m, ORIGIN).tolist(), yaw, strict=True):
        photo = np.array(Image.open(rendered / "images" / name))
        geotagged(photo, folder / name, tuple(place), yaw_deg=direction)
    return folder, enu_m


@pytest.fixture(scope="module")
def run(flight: tuple[Path, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> tuple[RunResult, Path, Said]:
    out, lines = tmp_path_factory.mktemp("out"), Said()
    config = PipelineConfig(mapper="tracks", dense=False, epsg=32615)
    return reconstruct(flight[0], out, config, lines), out, lines


def test_the_model_is_where_it_was_taken(flight, run) -> None:
    result, out, lines = run
    (model,) = result.models
    origin = json.loads((out / "georeference.json").read_text())["origin"]
    frame = [origin[key] for key in ("latitude_deg", "longitude_deg", "altitude_m")]
    assert origin["altitude_above"] == "sea level"
    expected = enu_from_geodetic(geodetic_from_enu(flight[1], ORIGIN), frame)
    error = camera_centres(model.cam_from_world) - expected[model.image_index]
    assert np.abs(error).max() < 0.02 * SCALE
    assert any("adjusted with 5 recorded positions" in note for note in lines.notes)
    (directions,) = (note for note in lines.notes if "recorded where they looked" in note)
    assert abs(float(re.search(r"([0-9.]+) degrees in heading", directions)[1]) - 3) < 0.3
    assert result.report.models[0].georeference.mode == "prior"
    assert result.report.models[0].up.source == "positions"
    assert result.report.models[0].figures.top_view.up == (0, 0, 1)


def test_what_is_written_agrees(run) -> None:
    result, out, _ = run
    document = json.loads((out / "georeference.json").read_text())
    images = document["models"][0]["images"]
    points = json.loads((out / "cameras.geojson").read_text())["features"]
    assert [point["properties"]["name"] for point in points] == [image["name"] for image in images]
    assert points[0]["geometry"]["coordinates"][:2] == [images[0]["longitude_deg"], images[0]["latitude_deg"]]
    assert points[0]["geometry"]["coordinates"][0] == pytest.approx(-91.99, abs=0.01)
    assert (out / "cameras.kml").read_text().count("<Placemark>") == 5
    easting, northing, height = images[0]["epsg_xyz"]
    assert 570_000 < easting < 580_000 and 5_180_000 < northing < 5_200_000 and 100 < height < 300
    page = (out / "report.html").read_text()
    assert "Recorded positions" in page and "x east, y north, z up" in page
    centres = camera_centres(result.models[0].cam_from_world)
    assert np.abs(centres - [image["enu_m"] for image in images]).max() < 1e-4


def test_positions_that_are_not_looked_at_say_nothing(flight, tmp_path) -> None:
    """Not which photographs are near each other either."""
    lines, folder = Said(), tmp_path / "in"
    shutil.copytree(flight[0], folder)
    photo = np.array(Image.open(sorted(folder.iterdir())[0]).transpose(Image.Transpose.FLIP_TOP_BOTTOM))
    geotagged(photo, folder / "a.jpg", (200.0, 10.0, 0.0))
    looked = load_photographs(folder, PipelineConfig(), RunFolder(tmp_path / "out"), lines)[0]
    assert looked.geo is not None and any("no such place" in warning for warning in lines.warnings)
    lines.warnings.clear()
    ignored = load_photographs(folder, PipelineConfig(gps="off"), RunFolder(tmp_path / "out"), lines)[0]
    assert ignored.geo is None and not any("position" in warning for warning in lines.warnings)
