"""More photographs for a finished model: what stays, what joins, and what is left as it was."""

import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

import anchorsfm
from anchorsfm import pipeline
from anchorsfm.cli.main import main
from anchorsfm.colmap.models import read_cameras, read_stored_poses
from anchorsfm.evaluation.sources import read_truth
from anchorsfm.export.run import export
from anchorsfm.features.sift import SiftDetector
from anchorsfm.frontend.classical.frontend import ClassicalFrontend
from anchorsfm.geometry.geodesy import enu_from_geodetic, geodetic_from_enu
from anchorsfm.geometry.transforms import camera_centres, rotation_angle_deg
from anchorsfm.io.images import load_image_set
from anchorsfm.results.model import read_models
from anchorsfm.run.earlier import Earlier
from anchorsfm.run.finished import EarthFrame, read_run
from anchorsfm.run.folder import RunFolder
from anchorsfm.scene.errors import InputError
from anchorsfm.stereo import pair as stereo_pair
from anchorsfm.synthetic import SceneConfig, make_scene, write_photographs
from command import COMMAND, assert_one_clear_line
from geotags import geotagged
from maker_notes import acceleration_of, apple_note, with_note
from said import Said
from snapshot import snapshot


@pytest.fixture(scope="module")
def first(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with five photographs (photos) of a phone and a model of all but the last one (out)."""
    folder = tmp_path_factory.mktemp("extend")
    shutil.copy(rendered / "truth.json", folder)
    truth = read_truth(folder / "truth.json")
    (folder / "photos").mkdir()
    for name, pose in zip(truth.names, truth.cam_from_world, strict=True):
        note = apple_note(acceleration_of(pose[:, :3] @ DOWN))
        (folder / "photos" / name).write_bytes(with_note(rendered / "images" / name, note))
    files = sorted((folder / "photos").iterdir())
    anchorsfm.reconstruct(files[:-1], folder / "out", mapper="tracks")
    return folder


def copied(first: Path, target: Path) -> Path:
    shutil.copytree(first / "out", target)
    return target


DOWN = Rotation.from_euler("x", 15, degrees=True).as_matrix() @ np.array([0, 1.0, 0])
"""In the rendered scene, whose ground slopes."""
PLACE = ("latitude_deg", "longitude_deg", "altitude_m")


def read_model_files(output: Path) -> dict[str, dict]:
    """What is said of model 0, and transform.json if it is there."""
    found = {
        name: json.loads((output / f"{name}.json").read_text())["models"][0] for name in ("report", "georeference")
    }
    path = output / "transform.json"
    return found | ({"transform": json.loads(path.read_text())} if path.exists() else {})


def poses_on_disk(folder: Path) -> dict[str, np.ndarray]:
    return {name: pose.cam_from_world for name, pose in read_stored_poses(folder).items()}


def largest(output: Path) -> Path:
    return max(read_models(output), key=lambda entry: len(entry.names)).folder


def relative_rotations(output: Path) -> dict[tuple[str, str], np.ndarray]:
    poses = {name: pose for name, (_, pose) in read_cameras(largest(output)).items() if pose is not None}
    return {(a, b): poses[b][:, :3] @ poses[a][:, :3].T for a in poses for b in poses if a < b}


def test_new_photographs_join_and_everything_else_stays_to_the_bit(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = copied(first, tmp_path / "out")
    detected, depths = [], []
    detect, dense = SiftDetector.detect, stereo_pair.dense_depth
    monkeypatch.setattr(SiftDetector, "detect", lambda *a: detected.append(a[2]) or detect(*a))
    monkeypatch.setattr("anchorsfm.frontend.classical.tools.dense_depth", lambda *a: depths.append(1) or dense(*a))
    opened = []
    open_all = ClassicalFrontend.open
    monkeypatch.setattr(ClassicalFrontend, "open", lambda *a: opened.append(a[1].num_images) or open_all(*a))
    model = anchorsfm.extend(output, first / "photos")
    assert opened == [5], "cameras of the first four are known"
    names = sorted(path.name for path in (first / "photos").iterdir())
    assert sorted(model.poses) == names and detected == [4] and 1 <= len(depths) <= 4

    before, after = poses_on_disk(largest(first / "out")), poses_on_disk(largest(output))
    assert sorted(before) == names[:4]
    for name in before:
        assert after[name].tobytes() == before[name].tobytes()
    (camera,), (same,) = ({c for c, _ in read_cameras(largest(x)).values()} for x in (first / "out", output))
    assert camera == same
    known = read_truth(first / "truth.json")
    truth = dict(zip(known.names, known.cam_from_world, strict=True))
    for (a, b), rotation in relative_rotations(output).items():
        turned = rotation @ (truth[b][:, :3] @ truth[a][:, :3].T).T
        assert rotation_angle_deg(turned[None])[0] < 0.1

    for name, (_, pose) in read_cameras(largest(output)).items():
        assert np.degrees(np.arccos(-pose[:, 2] @ truth[name][:, :3] @ DOWN)) < 0.5, "z is up"
    report = json.loads((output / "report.json").read_text())
    assert report["models"][0]["up"]["source"] == "gravity"
    (extension,) = report["extensions"]
    assert extension == {
        "command": "extend", "sources": [str(first / "photos")], "added": 1, "kept_poses": True,
    }  # fmt: skip
    deviations = report["models"][0]["uncertainty"]["images"]
    assert all(0 < image["position"] < 0.1 for image in deviations)
    assert (output / "dense" / "0.ply").stat().st_size > 1000
    assert report["config"]["mapper"] == "tracks" and len(report["pair_list"]["i"]) == 10
    assert anchorsfm.localise(first / "photos" / names[4], output).placed

    with pytest.raises(InputError, match=r"all 5 photographs are those of .* already"):
        anchorsfm.extend(output, first / "photos")


def test_everything_is_adjusted_if_asked_and_the_frame_stays(first: Path, tmp_path: Path) -> None:
    output = copied(first, tmp_path / "out")
    main(["extend", str(output), str(first / "photos"), "--adjust-all", "--no-dense", "--quiet"])
    before, after = poses_on_disk(largest(first / "out")), poses_on_disk(largest(output))
    moved = [float(np.abs(after[name] - before[name]).max()) for name in before]
    assert len(after) == 5 and max(moved) > 0 and max(moved) < 0.05
    assert not (output / "dense").exists()


def test_an_interrupted_extension_leaves_the_folder_as_it_was_and_continues(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = copied(first, tmp_path / "out")
    before = snapshot(output, without=("cache", ".anchorsfm"))
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_report", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pipeline.extend(output, [first / "photos"], dense=False)
    assert snapshot(output, without=("cache", ".anchorsfm")) == before
    monkeypatch.setattr(SiftDetector, "detect", lambda *_: pytest.fail("a photograph was looked at again"))
    assert len(anchorsfm.extend(output, first / "photos", dense=False).poses) == 5


def test_without_a_cache_the_same_is_computed_anew(first: Path, tmp_path: Path) -> None:
    output = copied(first, tmp_path / "out")
    shutil.rmtree(output / "cache")
    anchorsfm.extend(output, first / "photos", dense=False)
    before, after = poses_on_disk(largest(first / "out")), poses_on_disk(largest(output))
    assert len(after) == 5 and all(after[name].tobytes() == before[name].tobytes() for name in before)


@pytest.fixture(scope="module")
def flight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """Folder with six photographs with positions (photos) and a model of all but the last one (out); the positions,
    degrees and metres."""
    folder = tmp_path_factory.mktemp("flight")
    write_photographs(make_scene(SceneConfig(num_images=6, size_wh=(360, 270), arc_deg=75.0, seed=3)), folder)
    truth = read_truth(folder / "truth.json")
    east_north_up = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # the scene has y down
    places = geodetic_from_enu(100 * camera_centres(truth.cam_from_world) @ east_north_up.T, (46.84, -91.99, 200.0))
    (folder / "photos").mkdir()
    for name, place in zip(truth.names, places.tolist(), strict=True):
        geotagged(np.array(Image.open(folder / "images" / name)), folder / "photos" / f"{name[:-4]}.jpg", tuple(place))
    files = sorted((folder / "photos").iterdir())
    anchorsfm.reconstruct(files[:-1], folder / "out", mapper="tracks", dense=False, keep_descriptors=False)
    return folder, places


@pytest.mark.parametrize("is_moved", [False, True], ids=["the frame of the positions", "a later frame"])
def test_the_frame_of_a_model_its_unit_and_its_place_on_the_earth_stay(
    flight: tuple[Path, np.ndarray], tmp_path: Path, is_moved: bool
) -> None:
    folder, places = flight
    output = copied(folder, tmp_path / "out")
    if is_moved:
        words = ["--scale", "2", "--up", "cameras", "--origin", "5", "5", "5", "--crop-radius", "300"]
        main(["transform", str(output), *words])
    before = read_model_files(output)
    poses = poses_on_disk(largest(output))
    main(["extend", str(output), str(folder / "photos"), "--no-dense", "--quiet"])
    after = read_model_files(output)
    assert after["report"]["up"] == before["report"]["up"]
    entry = after["georeference"]
    assert entry.get("enu_from_model") == before["georeference"].get("enu_from_model")
    assert all(poses_on_disk(largest(output))[name].tobytes() == pose.tobytes() for name, pose in poses.items())
    found = np.array([[image[key] for key in PLACE] for image in entry["images"]])
    found_m, places_m = (enu_from_geodetic(rows, places[0].tolist()) for rows in (found, places))
    assert len(found) == 6 and np.abs(found_m - places_m).max() < 2
    assert max(np.linalg.norm(image["residual_m"]) for image in entry["images"]) < 2
    deviations = after["report"]["uncertainty"]["images"]
    assert all(image["position_m"] == (None if is_moved else image["position"]) for image in deviations)
    assert (output / "transform.json").exists() == is_moved
    if is_moved:
        (was,), (now,) = before["transform"]["models"], after["transform"]["models"]
        assert now["matrix"] == was["matrix"] and was["steps"][0]["crop_radius"] == 300
        assert now["steps"] == [was["steps"][0] | {"crop_radius": None}], "points are made anew"
        assert after["report"]["points"] > before["report"]["points"]
        (output / "transform.json").write_text("[]")
        with pytest.raises(InputError, match=r"transform\.json is damaged"):
            read_run(output)


def test_positions_that_a_transform_has_brought_in_are_looked_at(
    flight: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    """Of a run that was to leave them alone: so has the new photograph a residual, and the model its place."""
    folder, _ = flight
    files, output = sorted((folder / "photos").iterdir()), tmp_path / "out"
    anchorsfm.reconstruct(files[:-1], output, mapper="tracks", dense=False, keep_descriptors=False, gps="off")
    assert not (output / "georeference.json").exists()
    main(["transform", str(output), "--gps"])
    before, poses = read_model_files(output)["georeference"], poses_on_disk(largest(output))
    main(["extend", str(output), str(folder / "photos"), "--no-dense", "--quiet"])
    entry = read_model_files(output)["georeference"]
    assert entry["mode"] == before["mode"] == "align" and "enu_from_model" not in entry
    assert all(poses_on_disk(largest(output))[name].tobytes() == pose.tobytes() for name, pose in poses.items())
    assert len(entry["images"]) == 6
    assert max(np.linalg.norm(image["residual_m"]) for image in entry["images"]) < 2


def test_photographs_that_fit_nowhere_form_a_model_of_their_own(first: Path, tmp_path: Path) -> None:
    """And names become longer where the new photographs lie elsewhere."""
    other = make_scene(SceneConfig(num_images=3, size_wh=(400, 300), arc_deg=20.0, seed=11))
    write_photographs(other, tmp_path / "two")
    output = copied(first, tmp_path / "out")
    model = anchorsfm.extend(output, tmp_path / "two" / "images", dense=False)
    assert len(model.poses) == 4 and [len(other.poses) for other in model.others] == [3]
    assert all(name.startswith("extend") and "/out/" not in name for name in model.poses)
    assert not model.unregistered


def test_what_cannot_be_extended_is_said_before_any_work(first: Path, tmp_path: Path) -> None:
    output = copied(first, tmp_path / "out")
    with pytest.raises(InputError, match="no output folder of anchorsfm reconstruct"):
        anchorsfm.extend(largest(output), first / "photos")
    with pytest.raises(InputError, match="no such folder; give an output folder"):
        anchorsfm.extend(tmp_path / "nothing", first / "photos")
    settings = (output / "config.yaml").read_text()
    elsewhere = settings.replace("ray: null", "ray: 10.0.0.5:6379").replace("cache_url: null", "cache_url: s3://gone/x")
    assert "10.0.0.5" in elsewhere and "s3://gone" in elsewhere
    (output / "config.yaml").write_text(elsewhere)
    assert read_run(output).config == read_run(first / "out").config, "the cluster of a run need not be there any more"
    report = json.loads((output / "report.json").read_text())
    (output / "report.json").write_text(json.dumps(report | {"image_root": str(tmp_path / "gone")}))
    with pytest.raises(InputError, match=r"is not there .*put the photographs back"):
        anchorsfm.extend(output, first / "photos")


def test_files_that_are_no_photographs_leave_everything_as_it_was(first: Path, tmp_path: Path) -> None:
    """Alone they are refused; beside photographs they change no name and are no image."""
    output, bad = copied(first, tmp_path / "out"), tmp_path / "bad.jpg"
    bad.write_text("garbage")
    before = snapshot(output, without=())
    with pytest.raises(InputError, match=r"none of the new photographs can be used: .*/bad\.jpg: "):
        anchorsfm.extend(output, bad)
    known = sorted((first / "photos").iterdir())[:-1]
    with pytest.raises(InputError, match=r"4 photographs are those of .* already, and .*/bad\.jpg: "):
        anchorsfm.extend(output, [*known, bad])
    assert snapshot(output, without=()) == before
    model = anchorsfm.extend(output, [first / "photos", bad], dense=False)
    names = sorted(path.name for path in (first / "photos").iterdir())
    report = json.loads((output / "report.json").read_text())
    assert sorted(model.poses) == names == sorted(image["name"] for image in report["images"])
    assert report["extensions"][0]["added"] == 1
    assert any("skipped" in line and "bad.jpg" in line for line in report["warnings"])


def test_a_folder_of_photographs_is_no_output_folder(first: Path) -> None:
    with pytest.raises(InputError, match="no output folder of anchorsfm reconstruct: give one"):
        anchorsfm.extend(first / "photos", first / "photos")


def test_exports_that_a_stopped_extension_left_behind_follow(
    first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where a transform has brought some of them along."""
    output, names = copied(first, tmp_path / "out"), sorted(path.name for path in (first / "photos").iterdir())
    export(output, ["tum", "undistorted"])
    words = ["extend", str(output), str(first / "photos"), "--no-dense", "--quiet"]
    anchorsfm.extend(output, first / "photos", dense=False)  # as far as the command came
    main(["transform", str(output), "--quiet"])
    assert (output / "export" / "tum" / "names.txt").read_text().split() == names
    capsys.readouterr()
    main(words)
    assert "exports of an earlier model are made again: undistorted\n" in capsys.readouterr().out
    assert sorted(read_models(output / "export" / "undistorted")[0].names) == names
    main(["transform", str(output), "--scale", "2", "--quiet"])  # they follow, and are not behind
    assert_one_clear_line(
        subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=300),
        "all 5 photographs are those of",
    )


@pytest.mark.parametrize("is_ellipsoidal", [True, False])
def test_altitudes_above_something_else_than_those_of_the_models_are_named(
    tmp_path: Path, is_ellipsoidal: bool
) -> None:
    """Those of the models are above sea level."""
    geotagged(np.full((32, 32, 3), 90, np.uint8), tmp_path / "a.jpg", (46.8, 7.4, 500), is_ellipsoidal=is_ellipsoidal)
    images = load_image_set(tmp_path)
    origin = (46.8, 7.4, 450.0)
    earth = EarthFrame(origin=origin, is_ellipsoidal=False, enu_from_model={}, by_control=frozenset())
    earlier: Any = SimpleNamespace(runs=(SimpleNamespace(earth=earth),))
    geo = Earlier.in_frame(earlier, images, said := Said()).geo
    assert geo is not None and geo.origin == origin and not geo.is_ellipsoidal
    assert ["are not used" in line for line in said.warnings] == [True] * is_ellipsoidal
    assert geo.enu_m[0, 2] == pytest.approx(0 if is_ellipsoidal else 50, abs=1e-6)
    assert geo.sigma_m[0, 2] == (30 if is_ellipsoidal else 3)
