"""Poses in the files of other programs, by name, time or order."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from anchorsfm.colmap.cameras import normalised_from_pixels
from anchorsfm.export.run import export
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.mapping.pose_files import read_pose_file
from anchorsfm.results.model import read_models
from anchorsfm.scene.errors import InputError
from export_scene import BARREL, FISHEYE, ExportScene, write_export_scene

NAMES = ("room/a1.png", "room/a2.png", "b3.png")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> ExportScene:
    return write_export_scene(tmp_path_factory.mktemp("poses"), NAMES, (BARREL,))


IDENTITY = np.eye(4).tolist()
SIZES = [(240, 180)] * 3


@pytest.mark.parametrize("kind", ["transforms", "tum", "kitti"])
def test_what_we_export_is_read_back(scene: ExportScene, tmp_path: Path, kind: str) -> None:
    export(scene.folder, [kind], tmp_path)  # type: ignore[list-item]
    path = tmp_path / kind / ("transforms.json" if kind == "transforms" else "poses.txt")
    model = read_models(scene.folder)[0]
    names = model.view_names
    if kind == "transforms":  # whose copies have flat names
        names = [Path(frame["file_path"]).name for frame in json.loads(path.read_text())["frames"]]
    found = read_pose_file(path, names, SIZES)
    assert sorted(found) == sorted(names)
    for name, pose in zip(names, model.model.cam_from_world, strict=True):
        camera, read = found[name]
        np.testing.assert_allclose(read, pose, atol=1e-9)
        if kind == "transforms":
            assert camera is not None
            xy = np.random.default_rng(0).uniform(20, 160, (30, 2))
            expected = normalised_from_pixels(model.model.cameras[0], xy)
            np.testing.assert_allclose(normalised_from_pixels(camera, xy), expected, atol=1e-9)
        else:
            assert camera is None


def test_fisheyes_and_files_at_another_size(tmp_path: Path) -> None:
    scene = write_export_scene(tmp_path / "scene", ("a.png",) * 1 + ("b.png",), (FISHEYE,))
    export(scene.folder, ["transforms"], tmp_path)
    found = read_pose_file(tmp_path / "transforms" / "transforms.json", ["a.png", "b.png"], [(480, 360)] * 2)
    own, (read, _) = scene.model.cameras[0], found["a.png"]
    assert read is not None and (read.model, read.width) == ("OPENCV_FISHEYE", 480)
    np.testing.assert_allclose(read.params, [*(2 * np.array(own.params[:4])), *own.params[4:]])
    with pytest.raises(InputError, match="240x180, but the photograph is 480x300"):
        read_pose_file(tmp_path / "transforms" / "transforms.json", ["a.png", "b.png"], [(480, 300)] * 2)


def test_a_scene_of_nerf_has_an_angle_and_no_extensions(tmp_path: Path) -> None:
    matrix = np.eye(4)
    matrix[:3, 3] = 1, 2, 3
    frames = [{"file_path": "./train/r_0", "transform_matrix": matrix.tolist()}]
    path = tmp_path / "transforms_train.json"
    path.write_text(json.dumps({"camera_angle_x": np.pi / 2, "frames": frames}))
    ((name, (camera, pose)),) = read_pose_file(path, ["train/r_0.png", "test/r_0.png"], [(800, 600)] * 2).items()
    assert name == "train/r_0.png" and camera is not None and pose is not None
    assert camera.params[0] == pytest.approx(400) and camera.params[2:] == (400, 300)
    np.testing.assert_allclose(camera_centres(pose), [1, 2, 3])
    np.testing.assert_allclose(pose[2, :3], [0, 0, -1], atol=1e-12)  # it looks against its z axis


def test_times_find_their_photographs(tmp_path: Path) -> None:
    path = tmp_path / "trajectory.txt"
    lines = ["# timestamp tx ty tz qx qy qz qw"]
    lines += [f"{time:.3f} {time} 0 0 0 0 0 1" for time in np.arange(10, 13, 0.1)]
    path.write_text("\n".join(lines))
    names = ["cam/10.02.png", "cam/11.49.png", "cam/20.5.png", "cam/notes.png"]
    found = read_pose_file(path, names, [(8, 8)] * 4)
    assert sorted(found) == names[:2]
    assert camera_centres(found[names[1]][1])[0] == pytest.approx(11.5)


def test_lines_go_by_the_order_of_names(tmp_path: Path) -> None:
    path = tmp_path / "poses.txt"
    turn = Rotation.from_euler("y", 30, degrees=True).as_matrix()
    rows = [np.column_stack([turn, [k, 0, 0]]).ravel() for k in range(3)]
    path.write_text("\n".join(" ".join(f"{value:.6f}" for value in row) for row in rows))
    found = read_pose_file(path, ["c.png", "a.png", "b.png"], [(8, 8)] * 3)
    assert [camera_centres(found[name][1])[0] for name in ("a.png", "b.png", "c.png")] == pytest.approx([0, 1, 2])
    np.testing.assert_allclose(found["a.png"][1][:, :3], turn.T, atol=1e-6)
    (tmp_path / "names.txt").write_text("b\n\nother.png\n photos/a.png\n")
    found = read_pose_file(path, ["c.png", "a.png", "b.png"], [(8, 8)] * 3)
    assert {name: camera_centres(pose)[0] for name, (_, pose) in found.items()} == pytest.approx(
        {"b.png": 0, "a.png": 2}
    )
    (tmp_path / "names.txt").write_text("l/b.png\nr/b.png\na.png\n")
    with pytest.raises(InputError, match=r"names\.txt: r/b\.png and an earlier line both mean b\.png"):
        read_pose_file(path, ["c.png", "a.png", "b.png"], [(8, 8)] * 3)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.json", "{", "is not JSON"),
        ("t.json", "{}", "has no frames"),
        ("t.json", '{"frames": [{}]}', r"frames\[0\] has no file_path"),
        ("t.json", '{"frames": [{"file_path": "a.png"}]}', "transform_matrix is not made of numbers|not the shape"),
        ("t.json", '{"frames": [{"file_path": "a.png", "transform_matrix": [[1,2],[3,4]]}]}', "not the shape 4x4"),
        (
            "t.json",
            '{"frames": [{"file_path": "a.png", "transform_matrix": [[2,0,0,0],[0,2,0,0],[0,0,2,0],[0,0,0,1]]}]}',
            "no rotation",
        ),
        (
            "t.json",
            json.dumps({"frames": [{"file_path": f"{side}/a.png", "transform_matrix": IDENTITY} for side in "lr"]}),
            r"frames\[1\]: r/a.png and an earlier one both mean a.png",
        ),
        ("t.txt", "", "has no poses"),
        ("t.txt", "1 2 3", "3 words"),
        ("t.txt", "1 0 0 0 0 0 0 1\n2 0 0", "line 2: 3 numbers instead of 8"),
        ("t.txt", "1 0 0 0 0 0 0 x", "could not convert"),
        ("t.txt", "1 0 0 0 0 0 0 inf", "not finite"),
        ("t.txt", "1 0 0 0 0 0 0 2", "not of length 1"),
        ("t.txt", "1 0 0 0 0 1 0 0 0 0 1 0", "1 poses for 2 photographs"),
        ("missing.txt", None, "cannot read"),
    ],
)
def test_what_cannot_be_read_names_file_and_reason(tmp_path: Path, name: str, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=said) as raised:
        read_pose_file(tmp_path / name, ["a.png", "b.png"], [(8, 8)] * 2)
    assert str(tmp_path / name) in str(raised.value) and "\n" not in str(raised.value)
