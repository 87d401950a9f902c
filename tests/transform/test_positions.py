"""A finished model brought into the frame of the positions that its photographs record, and out of it again."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from anchorsfm.cli.parsing import parse
from anchorsfm.cli.wording import in_words
from anchorsfm.export.run import export
from anchorsfm.geometry.geodesy import enu_from_geodetic, geodetic_from_enu
from anchorsfm.geometry.similarity import Similarity
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.io.owned import OwnedFolder
from anchorsfm.results.model import StoredModel, read_models
from anchorsfm.scene.errors import InputError
from anchorsfm.terminal import Terminal
from anchorsfm.transform.config import TransformConfig
from anchorsfm.transform.find import find
from anchorsfm.transform.run import transform
from finished_run import write_finished_run
from geotags import geotagged
from said import Said
from snapshot import snapshot

NUM, METRES, NOISE_M = 9, 20.0, 1.0
ORIGIN = (50.82, -0.14, 40.0)
FILES = ("georeference.json", "cameras.geojson", "cameras.kml")
GPS = TransformConfig(gps=True)
LEVEL = Similarity.of(
    Rotation.from_euler("zx", [37.0, -90.0], degrees=True).as_matrix(), np.array([5, -8, 2.0]), METRES
)
"""From the model, whose y is down, to the metres of the records."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    write_finished_run(folder / "out", NUM)
    return folder / "out"


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """With photographs of its own that record nothing."""
    out = shutil.copytree(finished, tmp_path / "out")
    shutil.copytree(finished.parent / "photos", tmp_path / "photos")
    change_report(out, lambda report: report.update(image_root=str(tmp_path / "photos")))
    return out


def change_report(out: Path, change: Callable[[dict], None]) -> None:
    report = report_of(out)
    change(report)
    with OwnedFolder(out).publication() as publication:
        (publication.path / "report.json").write_text(json.dumps(report))
        publication.publish(["report.json"])


def model_of(out: Path) -> StoredModel:
    return read_models(out)[0]


def report_of(out: Path) -> dict:
    return json.loads((out / "report.json").read_text())


def centres_of(out: Path) -> np.ndarray:
    return camera_centres(model_of(out).model.cam_from_world)


def record(out: Path, enu_m: np.ndarray) -> None:
    """Give the photographs these positions; rows of NaN have none."""
    for name, place in zip(model_of(out).view_names, enu_m, strict=True):
        known = np.isfinite(place).all()
        where = tuple(geodetic_from_enu(place, ORIGIN).tolist()) if known else None
        geotagged(np.full((240, 320, 3), 90, np.uint8), out.parent / "photos" / name, where)


def record_above_ellipsoid(out: Path, enu_m: np.ndarray, names: list[str], undulation_m: float) -> None:
    for name, place in zip(model_of(out).view_names, enu_m, strict=True):
        latitude, longitude, altitude = geodetic_from_enu(place, ORIGIN).tolist()
        if name in names:
            where = (latitude, longitude, altitude + undulation_m)
            geotagged(np.full((240, 320, 3), 90, np.uint8), out.parent / "photos" / name, where, is_ellipsoidal=True)


def true_positions(out: Path, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, NOISE_M, (NUM, 3))
    return LEVEL.points(centres_of(out)) + noise


def in_records_frame(out: Path, origin: dict) -> np.ndarray:
    """Where the frame of georeference.json lies in that of `ORIGIN`."""
    place = [origin[key] for key in ("latitude_deg", "longitude_deg", "altitude_m")]
    return enu_from_geodetic(np.array(place), ORIGIN)


def test_positions_give_metres_up_north_and_a_place(out: Path) -> None:
    """Noise of a metre, and one position that is 100 m off."""
    export(out, ["tum"])
    before, positions = model_of(out), true_positions(out)
    wrong = positions.copy()
    wrong[4] += [60, 80, 0]
    record(out, wrong)
    said, errors = Said(), before.errors
    done = transform(out, GPS, said)

    (warning,) = said.warnings
    assert "0004.jpg (99 m)" in warning and "contradict" in warning
    assert any("brought onto 8 recorded positions" in note for note in done.notes)
    assert any("up and north from recorded positions, within about" in note for note in done.notes)
    assert abs(done.similarity.scale / METRES - 1) < 0.02 and model_of(out).is_metric and model_of(out).is_level
    turned = done.similarity.rotation @ LEVEL.rotation.T
    assert np.degrees(Rotation.from_matrix(turned).magnitude()) < 2
    document = json.loads((out / "georeference.json").read_text())
    (entry,) = document["models"]
    assert (entry["number"], entry["mode"]) == (0, "align") and "enu_from_model" not in entry
    shift = in_records_frame(out, document["origin"])
    true_m = LEVEL.points(camera_centres(before.model.cam_from_world))
    off_m = np.linalg.norm(centres_of(out) + shift - true_m, axis=1)
    assert np.sqrt((off_m**2).mean()) < 1.2 * NOISE_M
    for image, centre, place in zip(entry["images"], centres_of(out), wrong, strict=True):
        np.testing.assert_allclose(image["enu_m"], centre, atol=1e-3)
        np.testing.assert_allclose(image["residual_m"], centre + shift - place, atol=0.01)
        assert image["outlier"] == (image["name"] == "0004.jpg")
    features = json.loads((out / "cameras.geojson").read_text())["features"]
    assert [feature["properties"]["name"] for feature in features] == model_of(out).view_names
    assert (out / "cameras.kml").read_text().count("<Placemark>") == NUM
    (model,) = report_of(out)["models"]
    assert model["up"] == {"source": "positions", "deviation_deg": None}
    assert model["georeference"]["mode"] == "align" and max(model["georeference"]["rms_m"]) < 2 * NOISE_M
    assert [one["name"] for one in model["georeference"]["residuals"] if one["outlier"]] == ["0004.jpg"]
    for image in model["uncertainty"]["images"]:
        assert image["position_m"] == image["position"] > 0
    after = model_of(out).errors
    assert errors is not None and after is not None
    np.testing.assert_allclose(after.position, errors.moved(done.similarity).position, rtol=1e-5, atol=1e-6)
    assert len(done.exports) == 1
    there = np.loadtxt(out / "export/tum/poses.txt", usecols=(1, 2, 3))
    np.testing.assert_allclose(there, centres_of(out), atol=1e-4)
    assert not OwnedFolder(out).changed([""])


def test_what_leaves_the_frame_comes_back_exactly_and_all_of_it_can_be_undone(out: Path) -> None:
    former = snapshot(out)
    record(out, true_positions(out))
    transform(out, GPS)
    placed, uncertainty = model_of(out), report_of(out)["models"][0]["uncertainty"]
    for config in (GPS, TransformConfig(gps=True, crop_radius=900.0)):
        with pytest.raises(InputError, match="in the frame of its recorded positions already"):
            transform(out, config)
    said = Said()
    transform(out, TransformConfig(up="plane", scale=0.1), said)
    assert any("not in the frame of its recorded positions any more" in note for note in said.notes)
    assert not model_of(out).is_metric
    with pytest.raises(InputError, match=r"has the way to the frame .* leave out --up"):
        transform(out, TransformConfig(gps=True, up="plane"))
    record(out, np.full((NUM, 3), np.nan))  # nothing is read again
    done = transform(out, GPS)
    assert any("knows" in note for note in done.notes) and done.similarity.scale == pytest.approx(10)
    np.testing.assert_allclose(model_of(out).model.points, placed.model.points, atol=1e-8)
    (entry,) = json.loads((out / "georeference.json").read_text())["models"]
    assert "enu_from_model" not in entry and model_of(out).is_metric
    (model,) = report_of(out)["models"]
    assert model["up"] == {"source": "positions", "deviation_deg": None}
    for image, was in zip(model["uncertainty"]["images"], uncertainty["images"], strict=True):
        assert image["position_m"] == pytest.approx(was["position_m"], rel=2e-3)

    transform(out, TransformConfig(reset=True))
    assert not any((out / name).exists() for name in (*FILES, "transform.json"))
    (model,) = report_of(out)["models"]
    assert model["georeference"] is None and model.get("up") is None and not model_of(out).is_metric
    assert set(snapshot(out)) - {"report.html"} == set(former) - {"report.html"}


def test_what_a_run_that_only_compared_has_said_comes_back(out: Path) -> None:
    checked = {"mode": "check", "problem": None, "rms_m": [1.0, 1.0, 2.0], "residuals": [], "straightened_m": None}
    change_report(out, lambda report: report["models"][0].update(georeference=checked))
    record(out, true_positions(out))
    transform(out, GPS)
    assert report_of(out)["models"][0]["georeference"]["mode"] == "align"
    transform(out, TransformConfig(reset=True))
    assert report_of(out)["models"][0]["georeference"] == checked


def test_metres_that_were_others_before_are_so_again(out: Path) -> None:
    """Of a model with known poses, say."""

    def in_metres(report: dict) -> None:
        for image in report["models"][0]["uncertainty"]["images"]:
            image["position_m"] = image["position"]

    change_report(out, in_metres)
    with OwnedFolder(out).publication() as publication:
        entries = [entry["uncertainty"] for entry in report_of(out)["models"]]
        (publication.path / "uncertainty.json").write_text(json.dumps(entries))
        publication.publish(["uncertainty.json"])
    record(out, true_positions(out))
    for config in (GPS, TransformConfig(reset=True)):
        transform(out, config)
        for image in report_of(out)["models"][0]["uncertainty"]["images"]:
            assert image["position_m"] == image["position"] > 0


def test_an_origin_of_ones_own_keeps_the_way_to_the_earth(out: Path) -> None:
    record(out, true_positions(out))
    transform(out, TransformConfig(gps=True, origin=("0001.jpg",)))
    np.testing.assert_allclose(centres_of(out)[1], 0, atol=1e-9)
    (entry,) = json.loads((out / "georeference.json").read_text())["models"]
    way = Similarity.of_matrix(np.array(entry["enu_from_model"]))
    np.testing.assert_allclose(way.rotation, np.eye(3), atol=1e-9)
    for image, centre in zip(entry["images"], way.points(centres_of(out)), strict=True):
        np.testing.assert_allclose(image["enu_m"], centre, atol=1e-3)
        assert np.abs(image["residual_m"]).max() < 4 * NOISE_M


def test_a_model_that_agrees_in_parts_is_named(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(out, true_positions(out))
    monkeypatch.setattr("anchorsfm.transform.positions.problem_of_parts", lambda *_: "a part of the model is bent")
    transform(out, GPS, said := Said())
    assert any("a part of the model is bent" in line for line in said.warnings)
    assert report_of(out)["models"][0]["georeference"]["problem"] == "a part of the model is bent"


def test_a_survey_whose_frame_the_model_leaves_is_named(out: Path) -> None:
    with OwnedFolder(out).publication() as publication:
        (publication.path / "ground_control.json").write_text("{}")
        publication.publish(["ground_control.json"])
    record(out, true_positions(out))
    noted = []
    for config in (GPS, TransformConfig(scale=2.0), GPS):
        transform(out, config, said := Said())
        noted.append(any("stays in the frame of the survey" in note for note in said.notes))
    assert noted == [True, True, False]


def test_other_models_keep_their_places_in_one_frame(out: Path) -> None:
    origin = {"latitude_deg": 50.821, "longitude_deg": -0.141, "altitude_m": 45.0, "altitude_above": "sea level"}
    place = {"latitude_deg": 50.8, "longitude_deg": -0.1, "altitude_m": 3.0}
    image = {"name": "other.jpg", "enu_m": [1.0, 2.0, 3.0], **place, "residual_m": None, "outlier": False}
    other = {"number": 1, "mode": "prior", "images": [image]}
    with OwnedFolder(out).publication() as publication:
        document = {"frame": "metres", "origin": origin, "epsg": None, "models": [other]}
        (publication.path / "georeference.json").write_text(json.dumps(document))
        publication.publish(["georeference.json"])
    true_m = LEVEL.points(centres_of(out))
    record(out, true_positions(out))
    transform(out, GPS)
    document = json.loads((out / "georeference.json").read_text())
    assert document["origin"] == origin and document["models"][1] == other
    off_m = centres_of(out) + in_records_frame(out, origin) - true_m
    assert np.sqrt((off_m**2).sum(axis=1).mean()) < 1.2 * NOISE_M
    names = [feature["properties"]["name"] for feature in json.loads((out / "cameras.geojson").read_text())["features"]]
    assert names == [*model_of(out).view_names, "other.jpg"]
    transform(out, TransformConfig(reset=True))
    assert json.loads((out / "georeference.json").read_text())["models"] == [other]


def test_altitudes_above_the_ellipsoid_among_others_above_sea_level_have_no_say(out: Path) -> None:
    positions, names = true_positions(out), model_of(out).view_names
    record(out, positions)
    record_above_ellipsoid(out, positions, names[:2], 12.0)
    said, true_m = Said(), LEVEL.points(centres_of(out))
    transform(out, GPS, said)
    (warning,) = said.warnings
    assert "2 have one above the ellipsoid, the others above sea level" in warning
    origin = json.loads((out / "georeference.json").read_text())["origin"]
    assert origin["altitude_above"] == "sea level"
    off_m = centres_of(out) + in_records_frame(out, origin) - true_m
    assert np.sqrt((off_m**2).sum(axis=1).mean()) < 1.5 * NOISE_M


def test_the_frame_of_other_models_may_be_above_something_else(out: Path) -> None:
    origin = {"latitude_deg": 50.821, "longitude_deg": -0.141, "altitude_m": 85.0, "altitude_above": "ellipsoid"}
    with OwnedFolder(out).publication() as publication:
        document = {"frame": "metres", "origin": origin, "epsg": None, "models": []}
        (publication.path / "georeference.json").write_text(json.dumps(document))
        publication.publish(["georeference.json"])
    record(out, 2 * LEVEL.points(centres_of(out)))
    transform(out, TransformConfig(gps=True, up="plane"), said := Said())
    assert any("above sea level, those of the models above the ellipsoid" in line for line in said.warnings)
    document = json.loads((out / "georeference.json").read_text())
    assert document["origin"] == origin and abs(centres_of(out)[:, 2].mean()) < 5  # not 45


def on_a_line(stored: StoredModel) -> StoredModel:
    """The cameras of a level model in a row along its x."""
    poses = stored.model.cam_from_world.copy()
    centres = np.stack([np.linspace(-3, 3, NUM), np.zeros(NUM), np.zeros(NUM)], axis=1)
    poses[:, :, 3] = -np.einsum("vij,vj->vi", poses[:, :, :3], centres)
    return replace(stored, model=replace(stored.model, cam_from_world=poses))


def test_a_line_of_positions_says_scale_and_north_and_up_stays(out: Path) -> None:
    """It leads to the north-east, and one position is 100 m off."""
    line = on_a_line(model_of(out))
    along = METRES * np.linspace(-3, 3, NUM)[:, None] * [np.sqrt(0.5), np.sqrt(0.5), 0.0]
    along += np.random.default_rng(1).normal(0, 0.5, (NUM, 3))
    along[2, 0] += 100
    record(out, along)
    with pytest.raises(InputError, match=r"do not say what is up: .*too close to a line.*; give --up too"):
        find(line, GPS)
    transform(out, TransformConfig(up="cameras"))
    level = on_a_line(model_of(out))
    found = find(level, GPS)
    assert any("z stays as it was" in note for note in found.notes)
    assert any("north from recorded positions" in note for note in found.notes)
    assert not found.up_of_positions and "0002.jpg" in found.warnings[0]
    asked = find(line, TransformConfig(gps=True, up="cameras"))
    assert asked.up is not None and asked.up.source == "cameras" and not asked.up_of_positions
    np.testing.assert_allclose(found.similarity.rotation[2], [0, 0, 1], atol=1e-9)
    ahead = found.similarity.points(camera_centres(level.model.cam_from_world))
    direction = ahead[-1] - ahead[0]
    assert np.degrees(np.arctan2(direction[0], direction[1])) == pytest.approx(45, abs=1)
    assert found.similarity.scale == pytest.approx(METRES, rel=0.02) and found.metric


def test_up_of_the_plane_with_scale_and_north_of_the_positions(out: Path) -> None:
    record(out, true_positions(out))
    transform(out, TransformConfig(gps=True, up="plane"))
    (model,) = report_of(out)["models"]
    assert model["up"]["source"] == "plane" and model["georeference"]["mode"] == "align"
    alone = find(model_of(out), TransformConfig(up="plane")).similarity
    np.testing.assert_allclose(alone.rotation[2], [0, 0, 1], atol=1e-6)
    transform(out, TransformConfig(north=("0000.jpg", "10")))
    transform(out, GPS)
    assert report_of(out)["models"][0]["up"]["source"] == "plane"


@pytest.mark.parametrize(
    ("kept", "far", "said"),
    [
        (3, 1.0, "only 3 of its photographs have a position, 4 are needed"),
        (NUM, 0.0, "they do not differ"),
        (NUM, 0.02, "too close together to determine the scale"),
        (NUM, np.nan, "the recorded positions of the model cannot be used"),
        (0, 1.0, "none of the 9 photographs that could be read has a recorded position"),
    ],
)
def test_positions_that_place_nothing_are_refused(out: Path, kept: int, far: float, said: str) -> None:
    enu_m = true_positions(out)
    enu_m = far * enu_m if np.isfinite(far) else np.random.default_rng(0).uniform(-900, 900, enu_m.shape)
    enu_m[kept:] = np.nan
    record(out, enu_m)
    before = snapshot(out)
    with pytest.raises(InputError, match=said):
        transform(out, GPS)
    assert snapshot(out) == before


def test_positions_with_east_for_west_do_not_turn_a_flat_flight_over(
    out: Path,
) -> None:
    """Positions in a plane fit their mirror image, seen from below."""
    stored = model_of(out)
    poses = stored.model.cam_from_world.copy()
    centres = np.stack(np.meshgrid([-3.0, 0.0, 3.0], [0.0], [-2.0, 0.0, 2.0], indexing="ij"), axis=-1).reshape(-1, 3)
    poses[:, :, 3] = -np.einsum("vij,vj->vi", poses[:, :, :3], centres)
    flat = replace(stored, model=replace(stored.model, cam_from_world=poses))
    record(out, LEVEL.points(centres))
    np.testing.assert_allclose(find(flat, GPS).similarity.rotation, LEVEL.rotation, atol=1e-3)
    record(out, LEVEL.points(centres) * [-1, 1, 1])
    with pytest.raises(InputError, match="upside down, as ones do of which east and west"):
        find(flat, GPS)


def test_photographs_that_are_gone_are_named(out: Path) -> None:
    shutil.rmtree(out.parent / "photos")
    with pytest.raises(InputError, match=f"none of the {NUM} photographs .* put them back"):
        transform(out, GPS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--distance", "a", "1,1", "b", "1,1", "2"], "say the scale already"),
        (["--scale", "2"], "say the scale already"),
        (["--north", "a", "10"], "say where north is"),
        (["--reset"], "takes everything back"),
    ],
)
def test_what_contradicts_positions_is_one_line(finished: Path, words: list[str], said: str) -> None:
    with pytest.raises(InputError) as raised:
        parse("transform", [str(finished), "--gps", *words]).run(Terminal())
    assert said in in_words(raised.value) and "\n" not in in_words(raised.value)


@pytest.mark.parametrize("content", ["[]", '{"origin": {}}', '{"models": [{"number": 0, "enu_from_model": [[1]]}]}'])
def test_a_damaged_record_of_places_is_named(out: Path, content: str) -> None:
    record(out, true_positions(out))
    with OwnedFolder(out).publication() as publication:
        (publication.path / "georeference.json").write_text(content)
        publication.publish(["georeference.json"])
    with pytest.raises(InputError, match=r"georeference\.json is damaged"):
        transform(out, GPS)
