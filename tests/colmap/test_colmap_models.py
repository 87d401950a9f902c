"""Whole COLMAP models from disk."""

from pathlib import Path

import numpy as np
import pytest

from anchorsfm.colmap.models import read_cameras, read_reconstruction
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
    names = [f"folder/photo {k}.jpg" for k in range(len(model.image))]
    if text:
        names = [name.replace(" ", "_") for name in names]
    write_models(tmp_path / "sparse", [model], names, text=text)
    stored = read_reconstruction(tmp_path / "sparse" / "0")
    assert stored.names == tuple(names)
    np.testing.assert_allclose(stored.model.cam_from_world, model.cam_from_world, atol=1e-12)
    np.testing.assert_allclose(stored.model.points, model.points, atol=1e-12)
    np.testing.assert_array_equal(stored.model.camera_index, model.camera_index)
    np.testing.assert_array_equal(stored.model.rgb, model.rgb)
    np.testing.assert_array_equal(stored.model.tracks.obs_point, model.tracks.obs_point)
    np.testing.assert_array_equal(stored.model.tracks.obs_image, model.tracks.obs_image)
    np.testing.assert_allclose(stored.model.tracks.obs_xy, model.tracks.obs_xy, atol=1e-9)
    assert stored.model.cameras == model.cameras


@pytest.mark.parametrize("name", ["points3D.bin", "images.bin", "cameras.bin"])
@pytest.mark.parametrize("missing", [True, False])
def test_a_damaged_model_is_named(tmp_path: Path, name: str, missing: bool) -> None:
    model = scene_with_points()
    write_models(tmp_path / "sparse", [model], [str(k) for k in range(len(model.image))])
    damaged = tmp_path / "sparse" / "0" / name
    if missing:
        damaged.unlink()
    else:
        damaged.write_bytes(damaged.read_bytes()[:-20])
    with pytest.raises(InputError, match="sparse/0"):
        read_reconstruction(tmp_path / "sparse" / "0")


def test_cameras_are_read_where_links_need_special_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(place: Path, target: Path) -> None:
        raise OSError(1314, "a required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    scene = scene_with_points()
    names = [f"{k}.jpg" for k in range(int(scene.image.max()) + 1)]
    write_models(tmp_path, [scene], names)
    found = read_cameras(tmp_path / "0")
    assert set(found) == {names[image] for image in scene.image}
