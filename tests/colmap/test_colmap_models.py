"""Whole COLMAP models from disk."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anchorsfm.colmap.models import read_cameras, read_model, read_reconstruction
from anchorsfm.colmap.write import write_models
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.reconstruction import Camera, Reconstruction
from point_scene import make_lens_scene


def scene_with_points() -> Reconstruction:
    cameras = (
        Camera(model="SIMPLE_RADIAL", width=1600, height=1200, params=(1500.0, 800.0, 600.0, 0.01)),
        Camera(model="OPENCV", width=1200, height=1600, params=(1400.0, 1410.0, 600.0, 800.0, 0.0, 0.01, 0.0, 0.0)),
    )
    return make_lens_scene(cameras, 5, 300)


@pytest.mark.parametrize("text", [False, True])
def test_a_written_model_is_read_back_whole(tmp_path: Path, text: bool) -> None:
    model = scene_with_points()
    names = [f"folder/photo {k}.jpg" for k in range(len(model.image_index))]
    if text:
        names = [name.replace(" ", "_") for name in names]
    write_models(tmp_path / "sparse", [model], names, text=text)
    stored, stored_names = read_reconstruction(tmp_path / "sparse" / "0")
    assert stored_names == tuple(names)
    np.testing.assert_allclose(stored.cam_from_world, model.cam_from_world, atol=1e-12)
    np.testing.assert_allclose(stored.points, model.points, atol=1e-12)
    np.testing.assert_array_equal(stored.camera_index, model.camera_index)
    np.testing.assert_array_equal(stored.rgb, model.rgb)
    np.testing.assert_array_equal(stored.tracks.obs_point, model.tracks.obs_point)
    np.testing.assert_array_equal(stored.tracks.obs_image, model.tracks.obs_image)
    np.testing.assert_allclose(stored.tracks.obs_xy, model.tracks.obs_xy, atol=1e-9)
    assert stored.cameras == model.cameras


@pytest.mark.parametrize("name", ["points3D.bin", "images.bin", "cameras.bin"])
@pytest.mark.parametrize("missing", [True, False])
def test_a_damaged_model_is_named(tmp_path: Path, name: str, missing: bool) -> None:
    model = scene_with_points()
    write_models(tmp_path / "sparse", [model], [str(k) for k in range(len(model.image_index))])
    damaged = tmp_path / "sparse" / "0" / name
    if missing:
        damaged.unlink()
    else:
        damaged.write_bytes(damaged.read_bytes()[:-20])
    with pytest.raises(InputError, match="sparse/0"):
        read_reconstruction(tmp_path / "sparse" / "0")


def written(folder: Path, *, text: bool = False) -> Path:
    model = scene_with_points()
    write_models(folder / "sparse", [model], [f"{k}.jpg" for k in range(len(model.image_index))], text=text)
    return folder / "sparse" / "0"


def patched(path: Path, at: int, values: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[at : at + len(values)] = values
    path.write_bytes(bytes(content))


NAN, HUGE = np.array([np.nan]).tobytes(), np.array([1e200]).tobytes()


@pytest.mark.parametrize(
    ("name", "at", "values", "words"),
    [
        ("cameras.bin", 8 + 24, NAN, "parameter of camera 1 is not finite"),
        ("cameras.bin", 8 + 24, np.array([-5.0]).tobytes(), "focal length of -5"),
        ("cameras.bin", 8 + 8, bytes(8), "0x1200 pixels"),
        ("cameras.bin", 8 + 4, b"\x63", "unknown model 99"),
        ("cameras.bin", 0, b"\xff" * 8, "announces more than it holds"),
        ("images.bin", 8 + 4, NAN, "no unit quaternion"),
        ("images.bin", 8 + 36, HUGE, "is not finite"),
        ("images.bin", 8 + 60, b"\x09", "has camera 9"),
        ("images.bin", 8 + 64, b"1", "lists image 1.jpg twice"),
        ("images.bin", 8 + 36, np.array([0.25]).tobytes(), "disagree about the pose of 0.jpg"),
        ("frames.bin", 8 + 8 + 32, NAN, "pose of frame 1 is not finite"),
        ("frames.bin", 8 + 4, b"\x09", "has rig 9"),
        ("rigs.bin", 8 + 12, b"\x09", "has camera 9"),
        ("points3D.bin", 8 + 8, NAN, "point 1 is not at a place"),
        ("points3D.bin", 8 + 35, np.array([np.inf]).tobytes(), "error that is not finite"),
        ("points3D.bin", 8 + 51, b"\xfe\xfe", "is seen in image"),
        ("points3D.bin", 8 + 55, b"\xfe\xfe", "that its image does not have"),
        ("points3D.bin", 8 + 55, b"\x01", "belongs to another point"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, name: str, at: int, values: bytes, words: str) -> None:
    folder = written(tmp_path)
    patched(folder / name, at, values)
    with pytest.raises(InputError, match=words) as caught:
        read_reconstruction(folder)
    assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("cameras.txt", "SIMPLE_RADIAL 1600", "SIMPLE_RADIAL 1_600", "out of range"),
        ("cameras.txt", "SIMPLE_RADIAL", "QUITE_RADIAL", "QUITE_RADIAL"),
        ("cameras.txt", "1500", "nan", "not finite"),
        ("images.txt", "Number of images: 5", "Number of images: 6", "announces 6, and 5 follow"),
        ("images.txt", " 1 0.jpg", " 9 0.jpg", "has camera 9"),
        ("points3D.txt", "\n1 ", "\n2 ", "twice"),
        ("points3D.txt", "\n1 ", "\n1 inf ", "observations, two numbers"),
        ("frames.txt", "\n1 1 ", "\n1 7 ", "has rig 7"),
    ],
)
def test_what_cannot_be_in_a_text_is_named(tmp_path: Path, name: str, old: str, new: str, words: str) -> None:
    path = written(tmp_path, text=True) / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=words):
        read_reconstruction(path.parent)


@pytest.mark.parametrize("text", [False, True])
def test_rigs_of_several_cameras_are_read(tmp_path: Path, text: bool) -> None:
    import pycolmap

    model, one = pycolmap.Reconstruction(), pycolmap.Rotation3d(np.eye(3))
    rig, frame = pycolmap.Rig(rig_id=1), pycolmap.Frame(frame_id=1, rig_id=1)
    for number in (1, 2):
        model.add_camera(pycolmap.Camera(model="PINHOLE", width=8, height=8, params=[5, 5, 4, 4], camera_id=number))
    rig.add_ref_sensor(pycolmap.sensor_t(pycolmap.SensorType.CAMERA, 1))
    rig.add_sensor(pycolmap.sensor_t(pycolmap.SensorType.CAMERA, 2), pycolmap.Rigid3d(one, np.array([1.0, 2, 3])))
    model.add_rig(rig)
    frame.rig_from_world = pycolmap.Rigid3d(one, np.array([0.5, 0, 0]))
    images = [pycolmap.Image(name=f"{k}.jpg", camera_id=k, image_id=k) for k in (1, 2)]
    for image in images:
        frame.add_data_id(image.data_id)
    model.add_frame(frame)
    for image in images:
        image.frame_id = 1
        model.add_image(image)
    model.register_frame(1)
    (model.write_text if text else model.write_binary)(str(tmp_path))
    stored, _ = read_reconstruction(tmp_path)
    np.testing.assert_allclose(stored.cam_from_world[1, :, 3], [1.5, 2, 3])


def test_a_model_before_rigs_and_one_without_points_are_read(tmp_path: Path) -> None:
    folder = written(tmp_path)
    (folder / "rigs.bin").unlink()
    with pytest.raises(InputError, match=r"rigs\.bin is missing"):
        read_model(folder)
    (folder / "frames.bin").unlink()
    assert len(read_reconstruction(folder)[1]) == 5
    (folder / "points3D.bin").unlink()
    assert len(read_model(folder).names) == 5


def test_nothing_that_is_not_finite_is_written(tmp_path: Path) -> None:
    model = scene_with_points()
    names = [str(k) for k in range(len(model.image_index))]

    def spoiled(values: np.ndarray, value: float = np.nan) -> np.ndarray:
        changed = values.astype(float)
        changed.flat[0] = value
        return changed

    camera = replace(model.cameras[1], params=(np.inf, *model.cameras[1].params[1:]))
    for changed, words in (
        (replace(model, cam_from_world=spoiled(model.cam_from_world)), "the pose of 0"),
        (replace(model, points=spoiled(model.points)), "point 0"),
        (replace(model, error_px=spoiled(model.error_px, np.inf)), "the error of point 0"),
        (replace(model, cameras=(model.cameras[0], camera)), "a parameter of camera 1"),
        (replace(model, tracks=replace(model.tracks, obs_xy=spoiled(model.tracks.obs_xy))), "an observation of point"),
    ):
        with pytest.raises(InputError, match=f"{words}.* is not finite"):
            write_models(tmp_path / "sparse", [changed], names)
        assert not (tmp_path / "sparse").exists()


def test_cameras_are_read_where_links_need_special_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(place: Path, target: Path) -> None:
        raise OSError(1314, "a required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    scene = scene_with_points()
    names = [f"{k}.jpg" for k in range(int(scene.image_index.max()) + 1)]
    write_models(tmp_path, [scene], names)
    found = read_cameras(tmp_path / "0")
    assert set(found) == {names[image] for image in scene.image_index}
