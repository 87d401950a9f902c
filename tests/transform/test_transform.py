"""A finished model in another frame: everything in its folder follows, is recorded, and can be taken back."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from anchorsfm.cli.parsing import parse
from anchorsfm.cli.wording import in_words
from anchorsfm.colmap.cameras import project
from anchorsfm.export.run import export
from anchorsfm.geometry.similarity import Similarity, between_poses
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.geometry.upright import normals_of, up_of_cameras, up_of_manhattan, up_of_plane
from anchorsfm.io.owned import OwnedFolder, Publication
from anchorsfm.io.ply import read_mesh, read_ply
from anchorsfm.localisation.index import read_index
from anchorsfm.results.model import StoredModel, read_models
from anchorsfm.scene.edit import moved, select_points
from anchorsfm.scene.errors import InputError, StorageError
from anchorsfm.synthetic import SceneConfig, make_scene
from anchorsfm.terminal import Terminal
from anchorsfm.transform.config import TransformConfig
from anchorsfm.transform.find import find
from anchorsfm.transform.picks import pick
from anchorsfm.transform.run import transform
from export_scene import true_model
from finished_run import write_finished_run
from maker_notes import acceleration_of, apple_note, photograph
from said import Said
from snapshot import snapshot

NOTHING = np.zeros((0, 3))
FORMATS = ("colmap-binary", "colmap-text", "undistorted", "transforms", "ply", "glb", "tum", "kitti")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    write_finished_run(folder / "out")
    return folder / "out"


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "out")


def model_of(out: Path) -> StoredModel:
    return read_models(out)[0]


def report_of(out: Path) -> dict:
    return json.loads((out / "report.json").read_text())


def angle_deg(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(a @ b, -1, 1))))


def test_everything_in_the_folder_is_in_one_frame(out: Path) -> None:
    before, before_cloud, before_report = model_of(out), read_ply(out / "dense/0.ply"), report_of(out)
    before_mesh, before_errors = read_mesh(out / "dense/0-mesh.ply"), before.errors
    config = TransformConfig(up="cameras", camera_distance=("0000.jpg", "0003.jpg", "12"), origin=("0001.jpg",))
    done = transform(out, config)
    after, way = model_of(out), done.similarity

    assert way.scale == pytest.approx(2.0, rel=0.01)  # cameras opposite each other on a ring of radius 3
    np.testing.assert_allclose(after.model.points, way.points(before.model.points), atol=1e-9)
    np.testing.assert_allclose(after.model.cam_from_world, way.poses(before.model.cam_from_world), atol=1e-9)
    np.testing.assert_allclose(after.residual, before.residual, atol=1e-6)
    centres = camera_centres(after.model.cam_from_world)
    assert np.linalg.norm(centres[0] - centres[3]) == pytest.approx(12)
    np.testing.assert_allclose(centres[1], 0, atol=1e-9)
    np.testing.assert_allclose(centres[:, 2], 0, atol=1e-6)  # the ring is level

    cloud, normals = read_ply(out / "dense/0.ply"), ("nx", "ny", "nz")
    np.testing.assert_allclose(cloud.xyz, way.points(before_cloud.xyz), atol=1e-5)
    turned = np.stack([before_cloud.others[name] for name in normals], axis=1) @ way.rotation.T
    np.testing.assert_allclose(np.stack([cloud.others[name] for name in normals], axis=1), turned, atol=1e-6)
    np.testing.assert_array_equal(cloud.others["confidence"], before_cloud.others["confidence"])
    np.testing.assert_array_equal(cloud.rgb, before_cloud.rgb)
    mesh, faces = read_mesh(out / "dense/0-mesh.ply")
    np.testing.assert_allclose(mesh.xyz, way.points(before_mesh[0].xyz), atol=1e-5)
    np.testing.assert_array_equal(faces, before_mesh[1])
    np.testing.assert_array_equal(mesh.others["value"], before_mesh[0].others["value"])

    cameras = json.loads((out / "dense/depth/cameras.json").read_text())
    for name, pose in zip(after.view_names, after.model.cam_from_world, strict=True):
        np.testing.assert_allclose(cameras[name]["cam_from_world"], pose, atol=1e-9)
        np.testing.assert_allclose(np.load(out / f"dense/depth/{name}.depth.npy"), 2.5 * way.scale, rtol=1e-6)
        np.testing.assert_array_equal(np.load(out / f"dense/depth/{name}.confidence.npy"), np.float32(2.5))

    report, old = report_of(out), before_report["models"][0]
    (entry,) = report["models"]
    assert json.loads((out / "uncertainty.json").read_text()) == [entry["uncertainty"]]
    assert entry["uncertainty"]["scene_size"] == pytest.approx(way.scale * old["uncertainty"]["scene_size"], rel=1e-5)
    for image, was in zip(entry["uncertainty"]["images"], old["uncertainty"]["images"], strict=True):
        assert image["position"] == image["position_m"] == pytest.approx(way.scale * was["position"], rel=1e-3)
        assert image["rotation_deg"] == was["rotation_deg"] and was["position_m"] is None
    assert before_errors is not None and after.errors is not None
    expected = before_errors.moved(way)
    np.testing.assert_allclose(after.errors.position, expected.position, rtol=1e-5, atol=1e-9)
    np.testing.assert_array_equal(after.errors.rotation, before_errors.rotation)
    np.testing.assert_array_equal(after.errors.params, before_errors.params)
    axes = {image["name"]: image["position_axes"] for image in entry["uncertainty"]["images"]}
    for name, deviations in zip(after.view_names, expected.position_deviations, strict=True):
        np.testing.assert_allclose(axes[name], deviations, rtol=1e-3)
    assert entry["up"] == {"source": "cameras", "deviation_deg": pytest.approx(3, abs=2)} and old.get("up") is None
    view = entry["figures"]["top_view"]
    assert view["up"] == [0, 0, 1]
    flat = np.stack([view["x"], view["y"]], axis=1)
    expected = np.linalg.norm(centres[:, None, :2] - centres[None, :, :2], axis=2)
    np.testing.assert_allclose(np.linalg.norm(flat[:, None] - flat[None], axis=2), expected, atol=1e-3)
    np.testing.assert_allclose(report["depth"]["limits"], way.scale * np.array(before_report["depth"]["limits"]))
    near, was_near = (r["depth"]["images"][0]["near"] for r in (report, before_report))
    assert near == pytest.approx(way.scale * was_near, rel=1e-3)
    assert "data:image/jpeg" in (out / "report.html").read_text()
    assert not OwnedFolder(out).changed([""])


def test_exports_follow_in_the_frame_that_their_format_asks_for(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(out, FORMATS)
    before = snapshot(out / "export")
    transform(out, TransformConfig(up="cameras", scale=3.0))
    moved = {name: content for name, content in snapshot(out / "export").items() if before.get(name) != content}
    assert not any(name.endswith((".jpg", ".png")) for name in moved)
    shutil.rmtree(out / "export" / "undistorted" / ".anchorsfm")  # ... and what is made anew is the same
    anew = out.parent / "anew"
    export(out, FORMATS, anew)
    model = model_of(out).model
    for name in ("colmap-binary", "colmap-text", "undistorted/sparse/0"):
        there = read_models(out / "export" / name)[0].model
        np.testing.assert_allclose(there.cam_from_world, model.cam_from_world, atol=1e-9)
        np.testing.assert_allclose(there.points, model.points, atol=1e-9)
    for name in ("ply/points.ply", "glb/model.glb", "tum/poses.txt", "kitti/poses.txt"):
        assert (out / "export" / name).read_bytes() == (anew / name).read_bytes()
    frames, wanted = (
        json.loads((folder / "transforms" / "transforms.json").read_text()) for folder in (out / "export", anew)
    )
    for frame, other in zip(frames["frames"], wanted["frames"], strict=True):
        np.testing.assert_allclose(frame["transform_matrix"], other["transform_matrix"], atol=1e-9)
    clouds = [read_ply(folder / "transforms" / "sparse_pc.ply").xyz for folder in (out / "export", anew)]
    np.testing.assert_allclose(*clouds, atol=1e-5)


def test_gltf_has_y_up_once_the_model_is_level(out: Path) -> None:
    import trimesh

    transform(out, TransformConfig(up="cameras"))
    export(out, ["glb"])
    scene = trimesh.load(out / "export" / "glb" / "model.glb")
    model = model_of(out)
    for name, centre in zip(model.view_names, camera_centres(model.model.cam_from_world), strict=True):
        there = scene.graph.get(name)[0][:3, 3]
        np.testing.assert_allclose(there, [centre[0], centre[2], -centre[1]], atol=1e-5)


def test_a_crop_removes_points_surfaces_and_descriptors(out: Path) -> None:
    export(out, ["undistorted", "transforms"])
    before, index = model_of(out), read_index(out / "localisation/0.safetensors")
    assert index is not None
    transform(out, TransformConfig(crop_box=(-2, -2, -2, 2, 2, 0.5)))
    kept = (before.model.points[:, 2] <= 0.5) & (np.abs(before.model.points) <= 2).all(axis=1)
    after = model_of(out)
    assert 0.2 < kept.mean() < 0.8
    np.testing.assert_allclose(after.model.points, before.model.points[kept], atol=1e-12)
    assert len(after.names) == len(before.names)
    assert read_ply(out / "dense/0.ply").xyz[:, 2].max() <= 0.5
    mesh, faces = read_mesh(out / "dense/0-mesh.ply")
    assert len(faces) and mesh.xyz[:, 2].max() <= 0.5 and sorted(set(faces.ravel())) == list(range(len(mesh.xyz)))
    cut = read_index(out / "localisation/0.safetensors")
    assert cut is not None and cut.num_points == kept.sum()
    rows = kept[index.point]
    np.testing.assert_array_equal(cut.descriptor, index.descriptor[rows])
    np.testing.assert_array_equal(np.flatnonzero(kept)[cut.point], index.point[rows])
    for view in range(index.num_views):
        expected = kept[index.point[index.rows(view)]].sum()
        assert cut.start[view + 1] - cut.start[view] == expected
    (entry,) = report_of(out)["models"]
    assert entry["points"] == kept.sum() and entry["observations"] == len(after.model.tracks.obs_point)
    assert sum(image["observations"] for image in report_of(out)["images"]) == entry["observations"]
    assert read_models(out / "export/undistorted")[0].model.points[:, 2].max() <= 0.5
    assert read_ply(out / "export/transforms/sparse_pc.ply").xyz[:, 2].max() <= 0.5
    with pytest.raises(InputError, match="cannot be taken back"):
        transform(out, TransformConfig(reset=True))

    transform(out, TransformConfig(origin=("0", "0", "-1"), crop_radius=1.5))
    assert np.linalg.norm(model_of(out).model.points, axis=1).max() <= 1.5


@pytest.mark.parametrize("crop", [{"crop_radius": 1e-6}, {"crop_box": (90.0, 90.0, 90.0, 91.0, 91.0, 91.0)}])
def test_a_crop_that_leaves_no_point_is_refused(out: Path, crop: dict) -> None:
    before, count = snapshot(out), len(model_of(out).model.points)
    with pytest.raises(InputError, match=rf"the crop leaves none of the {count} points of the model, which "):
        transform(out, TransformConfig(scale=2.0, **crop))
    assert snapshot(out) == before


def test_how_many_points_a_crop_removed_is_said(out: Path) -> None:
    before = len(model_of(out).model.points)
    for box in ((-2.0, -2.0, -2.0, 2.0, 2.0, 0.5), (-99.0, -99.0, -99.0, 99.0, 99.0, 99.0)):
        done = transform(out, TransformConfig(crop_box=box))
        after = len(model_of(out).model.points)
        assert f"the crop removed {before - after} of {before} points" in done.notes
        before = after


def test_all_changes_are_recorded_and_taken_back(out: Path) -> None:
    before, report = model_of(out), report_of(out)
    transform(out, TransformConfig(up="plane"))
    transform(out, TransformConfig(north=("0002.jpg", "40"), camera_distance=("0000.jpg", "0001.jpg", "2")))
    transform(out, TransformConfig(scale=0.5))
    (entry,) = json.loads((out / "transform.json").read_text())["models"]
    assert [step["asked"] for step in entry["steps"]] == [
        {"up": "plane"},
        {"north": ["0002.jpg", "40"], "camera_distance": ["0000.jpg", "0001.jpg", "2"]},
        {"scale": 0.5},
    ]
    total = np.eye(4)
    for step in entry["steps"]:
        total = np.array(step["matrix"]) @ total
    np.testing.assert_allclose(entry["matrix"], total, atol=1e-12)
    way = Similarity.of_matrix(np.array(entry["matrix"]))
    np.testing.assert_allclose(model_of(out).model.points, way.points(before.model.points), atol=1e-9)
    heading = model_of(out).model.cam_from_world[2, 2, :2]
    assert np.degrees(np.arctan2(*heading)) == pytest.approx(40)  # east over north

    transform(out, TransformConfig(reset=True))
    after = model_of(out)
    np.testing.assert_allclose(after.model.points, before.model.points, atol=1e-9)
    np.testing.assert_allclose(after.model.cam_from_world, before.model.cam_from_world, atol=1e-9)
    assert not (out / "transform.json").exists()
    there = report_of(out)["models"][0]
    assert there["up"] is None
    for image, was in zip(there["uncertainty"]["images"], report["models"][0]["uncertainty"]["images"], strict=True):
        assert image["position"] == pytest.approx(was["position"], rel=2e-3) and image["position_m"] is None
    with pytest.raises(InputError, match="nothing to take back"):
        transform(out, TransformConfig(reset=True))


def test_up_is_where_the_plane_of_the_floor_says(out: Path) -> None:
    floor = model_of(out).model.points[:, 1] > 1 - 1e-9
    for name in ("cameras", "plane"):
        transform(out, TransformConfig(up=name))  # type: ignore[arg-type]
        points = model_of(out).model.points
        assert np.ptp(points[floor, 2]) < 1e-3
        assert points[floor, 2].mean() < points[~floor, 2].mean() - 0.5
    assert model_of(out).is_level and angle_deg(model_of(out).up, np.array([0, 0, 1.0])) == 0


def test_up_is_where_the_photographs_say_that_gravity_was(out: Path) -> None:
    """Of those that are there and were not turned since."""
    report, model = report_of(out), model_of(out)
    (out.parent / "photos").mkdir()
    (out / "report.json").write_text(json.dumps(report | {"image_root": str(out.parent / "photos")}))
    with pytest.raises(InputError, match="--up gravity: of 0 photographs that could be read 0 record gravity"):
        find(model_of(out), TransformConfig(up="gravity"))
    up = (
        Rotation.from_euler("x", 10, degrees=True).as_matrix()
        @ up_of_cameras(model.model.cam_from_world, NOTHING).direction
    )
    down = -model.model.cam_from_world[:, :, :3] @ up
    for view, name in enumerate(model.view_names[:5]):
        camera = model.model.cameras[model.model.camera_index[view]]
        size_wh = (camera.width, camera.height) if view else (camera.width + 8, camera.height)
        note = apple_note(acceleration_of(down[view] if view else np.array([0, 0, 1.0])))
        photograph(out.parent / "photos" / name, size_wh, note)
    found = find(model_of(out), TransformConfig(up="gravity"))
    assert found.up.source == "gravity" and angle_deg(found.up.direction, up) < 0.01
    for name in model.view_names[2:4]:
        (out.parent / "photos" / name).unlink()
    with pytest.raises(InputError, match="of 3 photographs that could be read 2 record gravity, as iPhones do; take"):
        find(model_of(out), TransformConfig(up="gravity"))


def test_a_killed_transform_leaves_the_former_result(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(out, ["undistorted"])
    before = snapshot(out)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Publication, "publish", killed)
        with pytest.raises(KeyboardInterrupt):
            transform(out, TransformConfig(scale=2.0))
    assert snapshot(out) == before
    with monkeypatch.context() as patched:  # after its result, before the exports
        patched.setattr("anchorsfm.transform.run.follow", killed)
        with pytest.raises(KeyboardInterrupt):
            transform(out, TransformConfig(scale=2.0))
    sparse = read_models(out)[0].model, read_models(out / "export/undistorted")[0].model
    assert np.abs(sparse[0].points - sparse[1].points).max() > 0.1
    transform(out, TransformConfig())
    np.testing.assert_allclose(read_models(out / "export/undistorted")[0].model.points, sparse[0].points, atol=1e-9)


def test_exports_catch_up_with_all_they_have_missed(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(out, ["undistorted", "transforms"])
    with monkeypatch.context() as patched:
        patched.setattr("anchorsfm.transform.run.follow", lambda *_: [])
        transform(out, TransformConfig(crop_box=(-2, -2, -2, 2, 2, 0.5), scale=2.0))
        transform(out, TransformConfig(origin=("0", "0", "-1")))
    done = transform(out, TransformConfig(crop_radius=2.0))
    assert len(done.exports) == 2
    points = model_of(out).model.points
    np.testing.assert_allclose(read_models(out / "export/undistorted")[0].model.points, points, atol=1e-9)
    assert len(read_ply(out / "export/transforms/sparse_pc.ply").xyz) == len(points)
    assert not transform(out, TransformConfig()).exports  # there is nothing left to do


def test_what_lies_in_the_frame_of_positions_keeps_the_way_back(out: Path) -> None:
    """A model in metres on the Earth: files of places stay, the unit is the metre as long as nobody scales it."""
    report = report_of(out)
    (entry,) = report["models"]
    entry["georeference"] = {"mode": "align", "problem": None, "rms_m": [0.1, 0.1, 0.1], "residuals": []}
    for image in entry["uncertainty"]["images"]:
        image["position_m"] = image["position"]
    files = {
        "report.json": report,
        "uncertainty.json": [entry["uncertainty"]],
        "georeference.json": {"models": [{"number": 0, "mode": "align", "images": []}]},
        "ground_control.json": {"models": []},
    }
    with OwnedFolder(out).publication() as publication:
        for name, content in files.items():
            (publication.path / name).write_text(json.dumps(content))
        publication.publish(list(files))
    places, control = model_of(out).model.points, (out / "ground_control.json").read_bytes()
    said = Said()
    transform(out, TransformConfig(north=("0001.jpg", "30"), origin=("0002.jpg",)), said)
    assert any("frame of its recorded positions" in line for line in said.lines)
    assert any("stays in the frame of the survey" in line for line in said.lines)
    assert model_of(out).is_metric
    transform(out, TransformConfig(scale=3.0))
    assert not model_of(out).is_metric
    (moved_entry,) = json.loads((out / "georeference.json").read_text())["models"]
    back = np.array(moved_entry["enu_from_model"])
    np.testing.assert_allclose(model_of(out).model.points @ back[:3, :3].T + back[:3, 3], places, atol=1e-9)
    assert (out / "ground_control.json").read_bytes() == control
    said = Said()
    transform(out, TransformConfig(reset=True), said)
    assert not said.lines
    now = report_of(out)["models"][0]["uncertainty"]["images"]
    for image, was in zip(now, entry["uncertainty"]["images"], strict=True):
        assert image["position_m"] == image["position"] == pytest.approx(was["position"], rel=2e-3)


def test_north_of_a_model_that_is_not_level_is_doubted(finished: Path) -> None:
    stored = model_of(finished)
    asked = {"north": ("0002.jpg", "40")}
    assert any("not known to be up" in note for note in find(stored, TransformConfig(**asked)).notes)  # type: ignore
    assert not any("not known" in note for note in find(stored, TransformConfig(up="plane", **asked)).notes)  # type: ignore


def test_what_was_moved_away_stays_away(out: Path) -> None:
    (out / "localisation/0.safetensors").rename(out.parent / "away")
    before = model_of(out).model.points
    transform(out, TransformConfig(scale=2.0))
    np.testing.assert_allclose(model_of(out).model.points, 2 * before, atol=1e-9)
    assert not (out / "localisation").exists() or not list((out / "localisation").iterdir())


def test_what_was_changed_by_hand_is_not_replaced(out: Path) -> None:
    (out / "report.html").write_text("mine") if (out / "report.html").exists() else None
    (out / "dense/0.ply").write_bytes((out / "dense/0.ply").read_bytes() + b"0")
    before = snapshot(out)
    with pytest.raises(StorageError, match=r"0\.ply was changed after"):
        transform(out, TransformConfig(scale=2.0))
    assert snapshot(out) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--camera-distance", "0000.jpg", "none.jpg", "2"], "none.jpg is not among the 6 photographs"),
        (["--camera-distance", "0000.jpg", "0000.jpg", "2"], "same place"),
        (["--camera-distance", "0000.jpg", "0001.jpg"], "IMAGE_A IMAGE_B METRES"),
        (["--camera-distance", "0000.jpg", "0001.jpg", "-2"], "a distance of -2"),
        (["--distance", "0000.jpg", "80", "0000.jpg", "160,120", "2"], "is no pixel"),
        (["--distance", "0000.jpg", "1700,60", "0000.jpg", "160,120", "2"], "outside of the picture"),
        (["--distance", "0000.jpg", "1,1", "0000.jpg", "160,120", "2"], "nothing is known"),
        (["--distance", "0000.jpg", "x,y", "0000.jpg", "160,120", "2"], "x is no number"),
        (["--up", "manhattan"], "three directions at right angles"),
        (["--crop-box", "0", "0", "0", "1", "1", "-1"], "the lower corner first"),
        (["--crop-box", "0", "0", "0", "1", "1"], "X0 Y0 Z0 X1 Y1 Z1"),
        (["--north", "0000.jpg"], "IMAGE DEGREES"),
        (["--origin", "a", "b", "c"], "a is no number"),
        (["--scale", "2", "--camera-distance", "0000.jpg", "0001.jpg", "3"], "give one of them"),
        (["--reset", "--scale", "2"], "takes everything back"),
        (["--model", "7", "--scale", "2"], "has no model 7"),
        (["--crop-radius", "0"], "more than 0"),
    ],
)
def test_what_cannot_be_done_is_one_line(finished: Path, words: list[str], said: str) -> None:
    before = snapshot(finished)
    with pytest.raises(InputError) as raised:
        parse("transform", [str(finished), *words]).run(Terminal())
    assert said in in_words(raised.value) and "\n" not in in_words(raised.value)
    assert snapshot(finished) == before


def test_a_folder_that_is_none_of_ours_is_refused(tmp_path: Path, finished: Path) -> None:
    shutil.copytree(finished / "sparse", tmp_path / "sparse")
    with pytest.raises(InputError, match="is no output folder"):
        transform(tmp_path, TransformConfig(scale=2.0))


def test_one_measured_distance_gives_all_others() -> None:
    """The distance of two corners in one photograph, marked within half a pixel; the model has noise of .3 pixels."""
    scene = make_scene(SceneConfig(num_images=5, size_wh=(800, 600), arc_deg=50.0, seed=3))
    true = true_model((scene,) * 5, [0] * 5, per_image=120)
    rng = np.random.default_rng(0)
    tracks = replace(true.tracks, obs_xy=true.tracks.obs_xy + rng.normal(0, 0.3, true.tracks.obs_xy.shape))
    turn = Rotation.from_euler("xyz", [130, 40, -70], degrees=True).as_matrix()
    there = moved(replace(true, tracks=tracks), 0.17, Similarity.of(turn, np.array([3.0, -2.0, 5.0])).pose)
    stored = StoredModel(folder=Path("0"), model=there, names=tuple(f"{k}.jpg" for k in range(5)))

    seen = stored.observations(2)
    xy, point = tracks.obs_xy[seen], tracks.obs_point[seen]
    first, second = int(xy[:, 0].argmin()), int(xy[:, 0].argmax())
    metres = np.linalg.norm(true.points[point[first]] - true.points[point[second]])
    marks = [f"{x:.1f},{y:.1f}" for x, y in xy[[first, second]] + rng.uniform(-0.5, 0.5, (2, 2))]
    found = find(stored, TransformConfig(distance=("2.jpg", marks[0], "2.jpg", marks[1], f"{metres:.4f}")))
    assert found.metric
    for here, truth in (
        (camera_centres(there.cam_from_world), camera_centres(true.cam_from_world)),
        (there.points, true.points),
    ):
        ratio = found.similarity.scale * distances(here) / distances(truth)
        assert np.abs(ratio - 1).max() < 0.002


def test_several_distances_say_how_far_they_agree(finished: Path) -> None:
    words = ("0000.jpg", "0003.jpg", "12", "0001.jpg", "0004.jpg", "12.12")
    found = find(model_of(finished), TransformConfig(camera_distance=words))
    assert found.similarity.scale == pytest.approx(np.sqrt(12 * 12.12) / 6, rel=0.02)
    assert "by up to 0.5 %" in found.notes[-1]


def distances(points: np.ndarray) -> np.ndarray:
    """Of all pairs."""
    i, j = np.triu_indices(len(points), 1)
    return np.asarray(np.linalg.norm(points[i] - points[j], axis=1))


def test_a_place_between_the_points_is_found_in_the_dense_cloud(finished: Path) -> None:
    stored = model_of(finished)
    pose, cloud = stored.model.cam_from_world[2], stored.read_cloud()
    assert cloud is not None
    on_ball = cloud.xyz[np.abs(np.linalg.norm(cloud.xyz, axis=1) - 1) < 1e-6]
    facing = on_ball[(on_ball @ camera_centres(pose)).argmax()]
    mark = project(stored.model.cameras[0], (pose[:, :3] @ facing + pose[:, 3])[None])[0][0]
    free = replace(stored, model=select_points(stored.model, np.zeros(len(stored.model.tracks.obs_point), bool)))
    place = pick(free, "0002.jpg", mark + 0.4)
    assert place.found_in == "cloud" and np.linalg.norm(place.xyz - facing) < 0.02
    assert pick(stored, "0002.jpg", stored.model.tracks.obs_xy[stored.observations(2)[0]]).found_in == "points"


def tilted(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Points of a floor and walls, z up, tilted against cameras that say up is z; and up."""
    rng = np.random.default_rng(4)
    u, v = rng.uniform(-2, 2, (2, 3000))
    flat = [np.stack([u, v, 0 * u], axis=1)]
    if kind == "manhattan":
        flat = [flat[0][:900], np.stack([u, 0 * u + 2, v], axis=1)[:1500], np.stack([0 * u - 2, u, v], axis=1)[:1000]]
    turn = Rotation.from_euler("xy", [12, -9], degrees=True).as_matrix()
    points = np.concatenate([*flat, rng.uniform(-2, 2, (400, 3))]) + rng.normal(0, 0.003, (1, 3))
    return points @ turn.T, turn[:, 2]


@pytest.mark.parametrize(("kind", "limit"), [("plane", 0.3), ("manhattan", 1.0)])
def test_up_of_points_that_say_more_than_the_cameras(kind: str, limit: float) -> None:
    points, up = tilted(kind)
    about = np.array([0.0, 0.0, 1.0])
    found = up_of_plane(points, about) if kind == "plane" else up_of_manhattan(normals_of(points), about)
    assert found is not None and found.source == kind
    assert angle_deg(found.direction, up) < limit and found.deviation_deg < 3
    rng = np.random.default_rng(1)
    nothing = rng.normal(0, 1, (2000, 3))
    assert up_of_plane(nothing, about) is None and up_of_manhattan(nothing, about) is None


def test_a_few_photographs_on_their_side_do_not_tilt_the_model() -> None:
    rng = np.random.default_rng(2)
    turn = Rotation.from_euler("y", np.linspace(0, 300, 12)[:, None], degrees=True).as_matrix()
    roll = np.array([90.0 if k in (2, 7) else rng.normal(0, 1.5) for k in range(12)])
    rotation = Rotation.from_euler("z", roll[:, None], degrees=True).as_matrix() @ turn
    poses = np.concatenate([rotation, rng.normal(0, 1, (12, 3, 1))], axis=2)
    found = up_of_cameras(poses, np.zeros((0, 3)))
    assert angle_deg(found.direction, np.array([0, -1.0, 0])) < 1 and found.deviation_deg < 5


def test_similarities_undo_and_follow_each_other() -> None:
    rng = np.random.default_rng(0)
    one, two = (
        Similarity.of(Rotation.random(rng=rng).as_matrix(), rng.normal(size=3), float(rng.uniform(0.1, 9)))
        for _ in range(2)
    )
    points = rng.normal(size=(5, 3))
    np.testing.assert_allclose(one.inverse.points(one.points(points)), points, atol=1e-12)
    np.testing.assert_allclose(two.after(one).points(points), two.points(one.points(points)), atol=1e-12)
    np.testing.assert_allclose(Similarity.of_matrix(one.matrix).matrix, one.matrix, atol=1e-12)
    poses = np.concatenate([Rotation.random(4, rng=rng).as_matrix(), rng.normal(size=(4, 3, 1))], axis=2)
    np.testing.assert_allclose(between_poses(poses, one.poses(poses)).matrix, one.matrix, atol=1e-9)
    line = np.repeat(poses[:1], 3, axis=0)
    line[:, 0, 3] += np.arange(3)
    np.testing.assert_allclose(between_poses(line, two.poses(line)).matrix, two.matrix, atol=1e-9)
