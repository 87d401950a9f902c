"""Finished models by the names of their images: from a run, and from disk."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image

import anchorsfm
from anchorsfm.evaluation import evaluate_poses, read_poses
from anchorsfm.geometry.transforms import compose
from anchorsfm.scene.progress import RecordingProgress


def test_poses_are_those_of_the_written_model(run, workplace):
    model, output = run
    written = pycolmap.Reconstruction(str(output / "sparse" / "0"))
    assert list(model.poses) == list(model.names) == [f"{k:04d}.jpg" for k in range(4)]
    for image in written.images.values():
        pose = model.poses[image.name]
        assert np.allclose(pose.cam_from_world, image.cam_from_world().matrix())
        assert np.allclose(pose.centre, image.projection_center())
        assert np.allclose(pose.centre, pose.world_from_cam[:, 3])
        assert np.allclose(compose(pose.cam_from_world, pose.world_from_cam), np.eye(3, 4), atol=1e-12)
        x, y, z, w = image.cam_from_world().rotation.quat
        assert np.allclose(np.abs(pose.quaternion @ [w, x, y, z]), 1)
    assert evaluate_poses(read_poses(output), read_poses(workplace / "truth.json")).auc[1] > 0.9


def test_points_tracks_and_intrinsics_agree(run):
    model, _ = run
    camera, pose = model.intrinsics["0001.jpg"], model.poses["0001.jpg"]
    assert camera.size_wh == (256, 192) and camera.K.shape == (3, 3) and camera in model.cameras
    point, xy = model.tracks.seen_by("0001.jpg")
    in_camera = model.points.xyz[point] @ pose.rotation.T + pose.translation
    assert np.abs(camera.rays(xy) - in_camera[:, :2] / in_camera[:, 2:]).max() * camera.K[0, 0] < 4
    assert np.bincount(model.tracks.point).tolist() == model.points.track_length.tolist()
    assert (model.tracks.image_name == "0001.jpg").sum() == len(point)
    assert len(model.points) == len(model.points.error_px) == len(model.points.rgb) > 60


def test_it_is_short_as_text_and_a_picture_in_notebooks(run):
    model, _ = run
    assert repr(model).startswith("<Model: 4 of 4 images, ") and len(repr(model)) < 100
    for part in (model.points, model.tracks, model.dense_cloud, model.depth_maps[model.names[0]]):
        assert re.fullmatch(r"<\w+: [\d,]+.*>", repr(part)) and len(repr(part)) < 100
    depth_map = model.depth_maps[model.names[0]]
    shown = depth_map._repr_html_()
    assert "data:image/jpeg;base64," in shown and "DepthMap: 2" in shown and "(red) to" in shown
    nothing = replace(depth_map, depth=np.zeros_like(depth_map.depth))
    assert "depth known of 0%" in nothing._repr_html_()
    page = model._repr_html_()
    assert "data:image/png;base64," in page and "http" not in page and len(page) < 200_000


def test_depth_maps_and_cloud_come_by_name_from_the_run_and_from_disk(run):
    model, output = run
    loaded = anchorsfm.load(output)
    assert set(loaded.depth_maps) == set(model.depth_maps) == set(model.names)
    made, read = model.depth_maps["0002.jpg"], loaded.depth_maps["0002.jpg"]
    assert np.array_equal(made.depth, read.depth) and np.array_equal(made.K, read.K)
    points = read.points()[read.depth > 0]
    in_camera = points @ read.cam_from_world[:, :3].T + read.cam_from_world[:, 3]
    assert np.allclose(in_camera[:, 2], read.depth[read.depth > 0], rtol=1e-4)
    assert len(model.dense_cloud) == len(loaded.dense_cloud) > 1000
    assert loaded.dense_cloud.normal.shape == loaded.dense_cloud.xyz.shape


def test_a_loaded_model_is_the_same(run):
    model, output = run
    for folder in (output, output / "sparse", str(output / "sparse" / "0")):
        loaded = anchorsfm.load(folder)
        assert repr(loaded) == repr(model)
        assert np.allclose(loaded.reconstruction.cam_from_world, model.reconstruction.cam_from_world, atol=1e-12)
        assert np.array_equal(loaded.points.xyz, model.points.xyz)
        assert loaded.report["models"] == model.report["models"]


def test_saved_models_are_colmap_models_and_more(run, tmp_path):
    model, _ = run
    assert model.save(tmp_path / "a", formats=["ply", "tum"]) == tmp_path / "a"
    assert pycolmap.Reconstruction(str(tmp_path / "a")).num_reg_images() == 4
    assert {folder.name for folder in (tmp_path / "a" / "export").iterdir()} == {"ply", "tum"}
    model.save(str(tmp_path / "b"), text=True)
    assert repr(anchorsfm.load(tmp_path / "b")) == repr(model)
    with pytest.raises(anchorsfm.InputError, match="holds a binary model already"):
        model.save(tmp_path / "a", text=True)
    assert model.to_pycolmap().num_points3D() == len(model.points)


def test_images_without_a_pose_come_with_the_reason_and_nothing_is_printed(workplace, tmp_path, capfd):
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in (workplace / "photos").iterdir():
        (photos / path.name).symlink_to(path)
    noise = np.random.default_rng(0).integers(0, 255, (192, 256, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photos / "noise.png")
    (photos / "broken.jpg").write_bytes(b"\xff\xd8")
    told = RecordingProgress(anchorsfm.Progress())
    model = anchorsfm.reconstruct(
        photos, tmp_path / "out", mapper="tracks", dense=False, adjust=False, max_image_size=250, progress=told
    )
    assert capfd.readouterr() == ("", "")
    assert set(model.unregistered) == {"noise.png", "broken.jpg"} and "noise.png" not in model
    with pytest.raises(KeyError, match=r"did you mean '0001.jpg'"):
        model.poses["0001.jpeg"]
    assert model.poses.get("noise.png") is None
    assert dict(anchorsfm.load(tmp_path / "out").unregistered) == model.unregistered
    assert any("broken.jpg" in warning for warning in model.warnings) and tuple(told.warnings) == model.warnings
    assert len(model) == 4 and model.dense_cloud is None and not model.depth_maps
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert all(image["position"] is None for image in report["models"][0]["uncertainty"]["images"])


def test_damaged_files_beside_a_model_are_named(run, tmp_path):
    model, output = run
    copy = tmp_path / "copy"
    shutil.copytree(output, copy, ignore=shutil.ignore_patterns("cache"))
    depth = copy / "dense" / "depth"
    (depth / "0002.jpg.depth.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(anchorsfm.InputError, match=r"0002\.jpg\.depth\.npy"):
        anchorsfm.load(copy).depth_maps["0002.jpg"]
    (copy / "dense" / "0.ply").write_bytes(b"ply\n")
    with pytest.raises(anchorsfm.InputError, match=r"0\.ply"):
        _ = anchorsfm.load(copy).dense_cloud
    (copy / "report.json").write_text("{")
    loaded = anchorsfm.load(copy)
    assert loaded.report is None and "report.json" in loaded.warnings[0] and repr(loaded) == repr(model)
    cameras = json.loads((depth / "cameras.json").read_text())
    (depth / "cameras.json").write_text(json.dumps({"../../../secret": cameras["0000.jpg"]}))
    with pytest.raises(anchorsfm.InputError, match="outside its folder"):
        anchorsfm.load(copy)
    (depth / "cameras.json").write_text("[]")
    with pytest.raises(anchorsfm.InputError, match="maps image names to cameras"):
        anchorsfm.load(copy)


def test_a_model_from_elsewhere_has_no_report(run, tmp_path):
    model, _ = run
    model.save(tmp_path / "0")
    small = tmp_path / "1"
    small.mkdir()
    loaded = anchorsfm.load(tmp_path)
    assert loaded.report is None and loaded.unregistered == {} and not loaded.depth_maps and loaded.dense_cloud is None


def test_import_loads_nothing_of_others_and_reconstruct_is_reachable():
    code = (
        "import sys; before = set(sys.modules); import anchorsfm; "
        "loaded = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "print(*sorted(loaded - sys.stdlib_module_names)); print(callable(anchorsfm.reconstruct))"
    )
    told = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert told.split() == ["anchorsfm", "True"]


def test_every_public_name_exists_and_is_typed():
    assert set(anchorsfm.__all__) <= set(dir(anchorsfm))
    for name in anchorsfm.__all__:
        assert getattr(anchorsfm, name) is not None
    typed = Path(anchorsfm.__file__).read_text()
    assert all(f"import {name} as {name}" in typed for name in anchorsfm.__all__ if name != "__version__")
    with pytest.raises(AttributeError, match="has no attribute 'reconstrct'"):
        _ = anchorsfm.reconstrct


def test_no_adjust_is_an_option_of_the_command_line():
    import tyro

    from anchorsfm.cli.reconstruct import Reconstruct

    command = tyro.cli(Reconstruct, args=["photos", "--output", "out", "--no-adjust"])
    assert not command.configured().bundle_adjustment
    assert tyro.cli(Reconstruct, args=["photos", "--output", "out"]).configured().bundle_adjustment
