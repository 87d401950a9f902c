"""Exports that need no resampling: transforms.json, GLB, COLMAP files, database, camera paths."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from anchorsfm.colmap.write import write_models
from anchorsfm.export.config import ExportConfig
from anchorsfm.export.names import flat_names, without_spaces
from anchorsfm.export.run import export
from anchorsfm.export.trajectories import timestamps
from anchorsfm.export.transforms import nerfstudio_camera
from anchorsfm.io.ply import write_ply
from anchorsfm.results.model import StoredModel, read_stored_model
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.progress import Progress, RecordingProgress
from anchorsfm.scene.reconstruction import Camera, Reconstruction
from dataset_readers import read_transforms
from export_scene import BARREL, FISHEYE, PINCUSHION, ExportScene, write_export_scene
from point_scene import make_lens_scene

OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> ExportScene:
    return write_export_scene(tmp_path_factory.mktemp("scene"))


def world_from_cam(model: Reconstruction) -> np.ndarray:
    return np.stack([np.linalg.inv(np.vstack([pose, [0, 0, 0, 1]])) for pose in model.cam_from_world])


def as_nerfstudio_projects(frame: dict, matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Pixels with (0.5, 0.5) in the middle of the first, by the documented lens models."""
    local = np.column_stack([points, np.ones(len(points))]) @ np.linalg.inv(matrix).T
    xy = np.column_stack([local[:, 0], -local[:, 1]]) / -local[:, 2:3]
    r2 = (xy**2).sum(axis=1)
    k1, k2, k3, k4, p1, p2 = (frame.get(key, 0.0) for key in ("k1", "k2", "k3", "k4", "p1", "p2"))
    if frame["camera_model"] == "OPENCV_FISHEYE":
        theta = np.arctan(np.sqrt(r2))
        t2 = theta**2
        xy = xy * (theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4)))) / np.sqrt(r2))[:, None]
    else:
        assert frame["camera_model"] == "OPENCV" and k4 == 0
        x, y = xy.T
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        tangential = [2 * p1 * x * y + p2 * (r2 + 2 * x**2), 2 * p2 * x * y + p1 * (r2 + 2 * y**2)]
        xy = xy * radial[:, None] + np.column_stack(tangential)
    return xy * [frame["fl_x"], frame["fl_y"]] + [frame["cx"], frame["cy"]]


def read_ply(path: Path) -> np.ndarray:
    import trimesh

    return np.asarray(trimesh.load(path).vertices)


@pytest.mark.parametrize("lenses", [(BARREL, PINCUSHION, None), (BARREL,), (FISHEYE,)])
def test_transforms_project_points_to_their_observations(tmp_path: Path, lenses: tuple) -> None:
    scene = write_export_scene(tmp_path, lenses=lenses)
    export(tmp_path, ["transforms"], tmp_path / "out", ExportConfig(images=tmp_path / "images"))
    folder = tmp_path / "out" / "transforms"
    content, frames = read_transforms(folder)
    points = read_ply(folder / content["ply_file_path"])
    np.testing.assert_allclose(points, scene.model.points, atol=1e-6)
    assert content["applied_transform"] == np.eye(4)[:3].tolist(), "points and poses are in one frame"
    assert ("fl_x" in content) == (len(lenses) == 1)
    tracks = scene.model.tracks
    for view, (frame, matrix) in enumerate(frames):
        rows = tracks.obs_image == view
        found = as_nerfstudio_projects(frame, matrix, scene.model.points[tracks.obs_point[rows]])
        np.testing.assert_allclose(found, tracks.obs_xy[rows], atol=1e-6)
        np.testing.assert_allclose(matrix, world_from_cam(scene.model)[view] @ OPENGL, atol=1e-12)
        assert Image.open(folder / frame["file_path"]).size == (frame["w"], frame["h"])


def test_transforms_of_an_undistorted_copy_find_its_pictures(scene: ExportScene, tmp_path: Path) -> None:
    export(scene.folder, ["undistorted"], tmp_path)
    assert export(tmp_path / "undistorted", ["transforms"]) == [tmp_path / "undistorted" / "export" / "transforms"]
    folder = tmp_path / "undistorted" / "export" / "transforms"
    for frame, _ in read_transforms(folder)[1]:
        assert frame["k1"] == 0 and frame["cx"] == frame["w"] / 2
        copy, original = folder / frame["file_path"], tmp_path / "undistorted" / frame["file_path"]
        assert copy.read_bytes() == original.read_bytes()


def test_transforms_need_no_photographs_but_say_so(scene: ExportScene, tmp_path: Path) -> None:
    progress = RecordingProgress(Progress())
    shutil.copytree(scene.folder / "sparse", tmp_path / "model")
    export(tmp_path / "model" / "0", ["transforms"], tmp_path, progress=progress)
    _, frames = read_transforms(tmp_path / "transforms")
    assert [frame["file_path"] for frame, _ in frames] == [f"images/{name}" for name in scene.names]
    assert any("--images" in warning for warning in progress.warnings)


def test_transforms_carry_masks(scene: ExportScene, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    for k, name in enumerate(scene.names):
        Image.fromarray(np.full((180, 240), 255 * (k % 2), np.uint8)).save(tmp_path / "masks" / f"{name}.png")
    config = ExportConfig(images=scene.folder / "images", masks=tmp_path / "masks")
    export(scene.folder, ["transforms"], tmp_path, config)
    for k, (frame, _) in enumerate(read_transforms(tmp_path / "transforms")[1]):
        assert np.asarray(Image.open(tmp_path / "transforms" / frame["mask_path"])).mean() == 255 * (k % 2)


@pytest.mark.parametrize(
    ("model", "params", "expected"),
    [
        ("RADIAL", (900.0, 320.0, 240.0, 0.1, -0.2), {"k1": 0.1, "k2": -0.2, "p1": 0.0}),
        (
            "FULL_OPENCV",
            (900.0, 910.0, 320.0, 240.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.0, 0.0, 0.0),
            {"k3": 0.5, "p2": 0.4},
        ),
        ("RADIAL_FISHEYE", (900.0, 320.0, 240.0, 0.1, -0.2), {"k2": -0.2, "k4": 0.0}),
        (
            "THIN_PRISM_FISHEYE",
            (900.0, 910.0, 320.0, 240.0, 0.1, 0.2, 0.0, 0.0, 0.5, 0.6, 0.0, 0.0),
            {"k3": 0.5, "k4": 0.6},
        ),
    ],
)
def test_lenses_are_converted_where_nerfstudio_has_them(model: str, params: tuple, expected: dict) -> None:
    from anchorsfm.colmap.cameras import project

    camera = Camera(model=model, width=640, height=480, params=params)
    entry = nerfstudio_camera(camera)
    assert expected.items() <= entry.items()
    points = np.random.default_rng(0).uniform([-0.3, -0.2, 1], [0.3, 0.2, 1], (50, 3))
    np.testing.assert_allclose(as_nerfstudio_projects(entry, OPENGL, points), project(camera, points)[0], atol=1e-9)


def test_lenses_that_nerfstudio_lacks_are_refused_with_a_way_out(tmp_path: Path) -> None:
    rational = Camera(
        model="FULL_OPENCV",
        width=1600,
        height=1200,
        params=(1500.0, 1500.0, 800.0, 600.0, 0.1, 0.0, 0.0, 0.0, 0.0, 0.2, 0.0, 0.0),
    )
    fisheye = Camera(model="SIMPLE_RADIAL_FISHEYE", width=1600, height=1200, params=(1200.0, 800.0, 600.0, 0.0))
    plain = Camera(model="PINHOLE", width=1600, height=1200, params=(1500.0, 1500.0, 800.0, 600.0))
    for cameras, words in (((rational,), "0.jpg.*--to undistorted"), ((plain, fisheye), "1.jpg.*--to undistorted")):
        model = make_lens_scene(cameras, 4, 200)
        folder = tmp_path / str(len(cameras))
        write_models(folder / "sparse", [model], [f"{k}.jpg" for k in range(4)])
        with pytest.raises(InputError, match=words):
            export(folder, ["transforms"], tmp_path / "out")
        assert not (tmp_path / "out" / "transforms" / "transforms.json").exists()


def test_glb_has_points_and_cameras_where_the_model_has_them(scene: ExportScene, tmp_path: Path) -> None:
    import trimesh

    export(scene.folder, ["glb"], tmp_path)
    loaded = trimesh.load(tmp_path / "glb" / "model.glb")
    matrix, shape = loaded.graph.get("points")
    cloud = trimesh.transform_points(loaded.geometry[shape].vertices, matrix)
    np.testing.assert_allclose(cloud, scene.model.points * [1, -1, -1], atol=1e-6)
    shown = 255 * (np.asarray(loaded.geometry[shape].colors)[:, :3] / 255) ** (1 / 2.2)
    assert np.abs(shown - scene.model.rgb)[scene.model.rgb > 60].max() < 6, "colours of a viewer are those of the model"
    for pose, name, row in zip(world_from_cam(scene.model), scene.names, scene.model.camera_index, strict=True):
        matrix, shape = loaded.graph.get(name)
        np.testing.assert_allclose(matrix, OPENGL @ pose @ OPENGL, atol=1e-6)
        frustum, camera = loaded.geometry[shape], scene.model.cameras[row]
        (left, bottom, near), (right, top, far) = frustum.bounds
        assert near < 0 and far < -0.5 * near, "looks along -z"
        assert top > -bottom * 1.2, "the triangle marks what is up"
        assert abs(left + right) < 0.2 * right and 0.4 < -near / (right - left) < 1.2, camera


def test_glb_of_thousands_of_images(tmp_path: Path) -> None:
    import trimesh

    from anchorsfm.export.glb import export_glb

    count = 2000
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    rotation = Rotation.from_rotvec(angle[:, None] * [0.0, 1.0, 0.0]).as_matrix()
    base = make_lens_scene(
        (Camera(model="PINHOLE", width=1600, height=1200, params=(1500.0, 1500.0, 800.0, 600.0)),), 4
    )
    model = replace(
        base,
        image_index=np.arange(count),
        cam_from_world=np.concatenate([rotation, np.tile([[0.0], [0.0], [7.0]], (count, 1, 1))], axis=2),
        camera_index=np.zeros(count, np.int64),
    )
    names = tuple(f"folder/{k:05d}.jpg" for k in range(count))
    export_glb(StoredModel(folder=tmp_path, model=model, names=names), tmp_path)
    assert (tmp_path / "model.glb").stat().st_size < 2_000_000
    loaded = trimesh.load(tmp_path / "model.glb")
    np.testing.assert_allclose(loaded.graph.get(names[777])[0], OPENGL @ world_from_cam(model)[777] @ OPENGL, atol=1e-6)


@pytest.mark.parametrize("kind", ["colmap-binary", "colmap-text"])
def test_colmap_files_hold_the_same_model(scene: ExportScene, tmp_path: Path, kind: str) -> None:
    export(scene.folder, [kind], tmp_path)
    suffix = "bin" if kind == "colmap-binary" else "txt"
    assert {path.name for path in (tmp_path / kind).iterdir()} - {".anchorsfm"} == {
        f"{name}.{suffix}" for name in ("cameras", "images", "points3D", "rigs", "frames")
    }
    stored = read_stored_model(tmp_path / kind)
    assert stored.names == scene.names and stored.model.cameras == scene.model.cameras
    np.testing.assert_allclose(stored.model.cam_from_world, scene.model.cam_from_world, atol=1e-12)
    np.testing.assert_allclose(stored.model.points, scene.model.points, atol=1e-12)
    np.testing.assert_allclose(stored.model.tracks.obs_xy, scene.model.tracks.obs_xy, atol=1e-9)


def test_names_with_spaces_survive_the_text_format(tmp_path: Path) -> None:
    names = ("my photos/a b.png", "my_photos/a_b.png", "plain.png")
    write_export_scene(tmp_path, names, (None,), photographs=False)
    progress = RecordingProgress(Progress())
    export(tmp_path, ["colmap-text", "colmap-binary"], tmp_path / "out", progress=progress)
    stored = read_stored_model(tmp_path / "out" / "colmap-text")
    assert stored.names == ("my_photos/a_b-2.png", "my_photos/a_b.png", "plain.png")
    changed = json.loads((tmp_path / "out" / "colmap-text" / "names.json").read_text())
    assert changed == {"my_photos/a_b-2.png": "my photos/a b.png"}
    assert any("names with spaces: 1 were changed" in warning for warning in progress.warnings)
    assert read_stored_model(tmp_path / "out" / "colmap-binary").names == names


def test_the_database_holds_the_observations_and_poses(scene: ExportScene, tmp_path: Path) -> None:
    import pycolmap

    export(scene.folder, ["database"], tmp_path)
    database = pycolmap.Database.open(tmp_path / "database" / "database.db")
    tracks = scene.model.tracks
    try:
        images = {image.image_id: image.name for image in database.read_all_images()}
        assert images == {k + 1: name for k, name in enumerate(scene.names)}
        for view in range(3):
            keypoints = database.read_keypoints(view + 1)[:, :2]
            shared = np.bincount(tracks.obs_point)[tracks.obs_point] > 1
            expected = tracks.obs_xy[(tracks.obs_image == view) & shared]
            assert len(keypoints) == len(expected)
            np.testing.assert_allclose(np.sort(keypoints, axis=0), np.sort(expected, axis=0), atol=1e-4)
        of_view = [set(tracks.obs_point[tracks.obs_image == view].tolist()) for view in range(3)]
        for i, j in ((0, 1), (0, 2), (1, 2)):
            geometry = database.read_two_view_geometry(i + 1, j + 1)
            assert len(geometry.inlier_matches) == len(of_view[i] & of_view[j])
            both = [np.vstack([scene.model.cam_from_world[k], [0, 0, 0, 1]]) for k in (i, j)]
            relative = both[1] @ np.linalg.inv(both[0])
            np.testing.assert_allclose(geometry.cam2_from_cam1.matrix(), relative[:3], atol=1e-9)
    finally:
        database.close()


def test_camera_paths_are_the_poses_of_the_model(scene: ExportScene, tmp_path: Path) -> None:
    export(scene.folder, ["tum", "kitti"], tmp_path)
    expected = world_from_cam(scene.model)
    for kind in ("tum", "kitti"):
        assert (tmp_path / kind / "names.txt").read_text().split() == list(scene.names)
    kitti = np.loadtxt(tmp_path / "kitti" / "poses.txt").reshape(-1, 3, 4)
    np.testing.assert_allclose(kitti, expected[:, :3], atol=1e-12)
    tum = np.loadtxt(tmp_path / "tum" / "poses.txt")
    assert tum[:, 0].tolist() == [0, 1, 2]
    np.testing.assert_allclose(tum[:, 1:4], expected[:, :3, 3], atol=1e-12)
    np.testing.assert_allclose(Rotation.from_quat(tum[:, 4:]).as_matrix(), expected[:, :3, :3], atol=1e-12)


def test_timestamps_come_from_names_where_they_can() -> None:
    assert timestamps(["1305031102.175304.png", "rgb/1305031102.211214.png"]) == [
        "1305031102.175304",
        "1305031102.211214",
    ]
    assert timestamps(["frame_0007.jpg", "frame_0003.jpg"]) == ["0007", "0003"]
    assert timestamps(["b/1.jpg", "a/1.jpg", "c.jpg"]) == ["1", "0", "2"]


def test_flat_names() -> None:
    def keep(name: str) -> str:
        return Path(name).suffix

    assert flat_names(["a/b.jpg", "a_b.jpg", "A_B.JPG", "a/b.png"], keep) == (
        "a_b-3.jpg",
        "a_b-2.jpg",
        "A_B.JPG",
        "a_b-4.png",
    )
    assert flat_names(["x y/é.1.jpg", "..jpg"], keep)[0] == "x_y_é_1.jpg"
    names = [f"cam{k % 3}/img {k % 2}.jpg" for k in range(6)]
    assert flat_names(names, keep) == tuple(
        dict(zip(names[::-1], flat_names(names[::-1], keep), strict=True))[name] for name in names
    )
    assert without_spaces(["a b.jpg", "a_b.jpg", "c/d.jpg"]) == ("a_b-2.jpg", "a_b.jpg", "c/d.jpg")


def test_every_component_can_be_exported(tmp_path: Path) -> None:
    big, small = make_two_models()
    write_models(tmp_path / "sparse", [small, big], [f"{k}.jpg" for k in range(9)])
    export(tmp_path, ["kitti", "ply"], tmp_path / "one")
    assert len(np.loadtxt(tmp_path / "one" / "kitti" / "poses.txt")) == 6, "the largest model"
    export(tmp_path, ["kitti", "ply", "colmap-binary"], tmp_path / "all", every_model=True)
    assert [len(np.loadtxt(tmp_path / "all" / "kitti" / str(k) / "poses.txt")) for k in (0, 1)] == [3, 6]
    assert read_ply(tmp_path / "all" / "ply" / "1" / "points.ply").shape == (len(big.points), 3)
    assert read_stored_model(tmp_path / "all" / "colmap-binary" / "0").names == ("6.jpg", "7.jpg", "8.jpg")


def make_two_models() -> tuple[Reconstruction, Reconstruction]:
    camera = Camera(model="PINHOLE", width=1600, height=1200, params=(1500.0, 1500.0, 800.0, 600.0))
    big, small = make_lens_scene((camera,), 6, 200), make_lens_scene((camera,), 3, 200, seed=1)
    shifted = replace(small.tracks, obs_image=small.tracks.obs_image + 6)
    return big, replace(small, image_index=small.image_index + 6, tracks=shifted)


def test_a_model_without_points_can_be_exported(scene: ExportScene, tmp_path: Path) -> None:
    from anchorsfm.scene.reconstruction import Tracks

    empty = replace(
        scene.model,
        points=np.zeros((0, 3)),
        rgb=np.zeros((0, 3), np.uint8),
        error_px=np.zeros(0),
        tracks=Tracks.empty(),
    )
    write_models(tmp_path / "sparse", [empty], scene.names)
    formats = ["ply", "glb", "tum", "kitti", "colmap-binary", "colmap-text", "transforms", "undistorted"]
    export(tmp_path, formats, tmp_path / "out", ExportConfig(images=scene.folder / "images"))
    assert len(read_stored_model(tmp_path / "out" / "undistorted" / "sparse" / "0").names) == 3
    with pytest.raises(InputError, match="no observations"):
        export(tmp_path, ["database"], tmp_path / "out")


def test_glb_has_cameras_that_programs_look_from(scene: ExportScene, tmp_path: Path) -> None:
    export(scene.folder, ["glb"], tmp_path)
    content = (tmp_path / "glb" / "model.glb").read_bytes()
    tree = json.loads(content[20 : 20 + int.from_bytes(content[12:16], "little")])
    nodes = {node["name"]: node for node in tree["nodes"] if "name" in node}
    for name, row in zip(scene.names, scene.model.camera_index, strict=True):
        camera, given = scene.model.cameras[row], tree["cameras"][nodes[f"camera of {name}"]["camera"]]
        assert tree["nodes"][nodes[name]["children"][0]] is nodes[f"camera of {name}"]
        assert given["type"] == "perspective"
        assert given["perspective"]["aspectRatio"] == pytest.approx(camera.width / camera.height)
        assert camera.height / 2 / np.tan(given["perspective"]["yfov"] / 2) == pytest.approx(camera.params[0], rel=1e-3)
        assert given["perspective"]["znear"] > 0


# -------------------------------------------------------------------------------------------------------- dense points


@pytest.fixture
def with_dense(scene: ExportScene, tmp_path: Path) -> tuple[Path, np.ndarray]:
    shutil.copytree(scene.folder, tmp_path / "run")
    xyz = np.random.default_rng(0).uniform(-1, 1, (500, 3)).astype(np.float32)
    write_ply(tmp_path / "run" / "dense" / "0.ply", xyz, np.full((500, 3), 77, np.uint8))
    return tmp_path / "run", xyz


def test_dense_points_seed_what_trainers_read(
    scene: ExportScene, with_dense: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    folder, xyz = with_dense
    export(folder, ["undistorted", "transforms"], tmp_path / "out", ExportConfig(points="dense"))
    points = pycolmap.Reconstruction(tmp_path / "out" / "undistorted" / "sparse" / "0").points3D.values()
    seeds = [point for point in points if (point.color == 77).all()]
    np.testing.assert_allclose(sorted(point.xyz.tolist() for point in seeds), sorted(xyz.tolist()), atol=1e-6)
    assert not any(point.track.length() for point in seeds) and len(points) > len(seeds) + 10
    content = json.loads((tmp_path / "out" / "transforms" / "transforms.json").read_text())
    stored = read_ply(tmp_path / "out" / "transforms" / content["ply_file_path"])
    np.testing.assert_allclose(stored, xyz, atol=1e-6)


def test_dense_points_are_as_many_as_wanted_and_the_same_ones(
    with_dense: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    for name in ("a", "b"):
        export(with_dense[0], ["transforms"], tmp_path / name, ExportConfig(points="dense", max_dense=60))
    files = [tmp_path / name / "transforms" / "dense_pc.ply" for name in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes() and len(read_ply(files[0])) == 60


def test_dense_points_that_are_not_there_are_named(scene: ExportScene, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--points dense.*no dense cloud"):
        export(scene.folder, ["transforms"], tmp_path, ExportConfig(points="dense"))
    assert not (tmp_path / "transforms" / "transforms.json").exists()
