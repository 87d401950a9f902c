"""Rigs in PyCOLMAP's problems and in files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from scipy.spatial.transform import Rotation

from anchorsfm.colmap.bundle import BundleOptions, Held, adjust
from anchorsfm.colmap.convert import place_rigs, to_pycolmap
from anchorsfm.colmap.models import read_model, read_reconstruction
from anchorsfm.colmap.move import move_model
from anchorsfm.colmap.write import write_models
from anchorsfm.geometry.similarity import Similarity
from anchorsfm.geometry.transforms import camera_centres, compose, invert, rotation_angle_deg
from anchorsfm.scene.edit import (
    moved,
    observations_per_frame,
    scaled,
    select_points,
    select_views,
    with_images_numbered,
)
from anchorsfm.scene.reconstruction import Reconstruction
from rig_scene import rig_model, rig_truth

OPTIONS = BundleOptions(loss_scale_px=1.0, refine_focal=False, refine_distortion=False)


def relative(model: Reconstruction) -> np.ndarray:
    """Poses of the other sensors in the frame of the first, as the views of every frame show them."""
    poses = model.cam_from_world.reshape(-1, 3, 3, 4)
    return compose(poses[:, 1:], invert(poses[:, :1]))


def test_an_adjusted_rig_is_one_rig() -> None:
    truth = rig_truth(frames=6)
    adjusted, report = adjust(rig_model(truth, noise_px=0.3, pose_noise=0.02), OPTIONS)
    assert report.usable and adjusted.rigs is not None and truth.rigs is not None
    shown = relative(adjusted)
    assert np.abs(shown - shown[0]).max() < 1e-9  # one relative pose in all frames
    assert np.allclose(shown[0], adjusted.rigs.sensor_from_rig[1:], atol=1e-9)
    wanted = truth.rigs.sensor_from_rig[1:]
    assert rotation_angle_deg(shown[0, :, :, :3] @ np.swapaxes(wanted[:, :, :3], 1, 2)).max() < 0.2


def test_fixed_sensors_stay_and_held_poses_hold_their_rig() -> None:
    truth = rig_truth(frames=5)
    start = rig_model(truth, noise_px=0.3, pose_noise=0.0)
    assert start.rigs is not None
    fixed = replace(start, rigs=replace(start.rigs, is_fixed=np.ones(3, bool)))
    adjusted, _ = adjust(fixed, OPTIONS)
    assert adjusted.rigs is not None and np.allclose(adjusted.rigs.sensor_from_rig, start.rigs.sensor_from_rig)
    assert not np.allclose(adjusted.cam_from_world, start.cam_from_world)
    everything = Held(pose=np.ones(len(start.image_index), bool), camera=np.ones(3, bool))
    held, _ = adjust(start, OPTIONS, everything)
    assert np.allclose(held.cam_from_world, start.cam_from_world, atol=1e-12)


def test_fixed_baselines_say_the_scale() -> None:
    truth = rig_truth(frames=5)
    assert truth.rigs is not None
    larger = scaled(rig_model(truth, noise_px=0.1, pose_noise=0.0), 1.1)
    fixed = replace(larger, rigs=replace(truth.rigs, is_fixed=np.ones(3, bool)))
    adjusted, _ = adjust(fixed, replace(OPTIONS, max_iterations=100, function_tolerance=1e-9))
    ours, theirs = (np.linalg.norm(np.ptp(camera_centres(m.cam_from_world), axis=0)) for m in (adjusted, truth))
    assert ours / theirs == pytest.approx(1, abs=0.01)


def test_fixed_sensors_stay_to_each_other_where_the_reference_is_missing() -> None:
    truth = rig_truth(frames=4)
    assert truth.rigs is not None
    order = [0, 2, 1]  # a free sensor before the fixed one that is left
    rigs = replace(
        truth.rigs,
        sensor=np.argsort(order)[truth.rigs.sensor],
        sensor_from_rig=truth.rigs.sensor_from_rig[order],
        is_fixed=np.array([True, False, True]),
    )
    placed = place_rigs(select_views(replace(truth, rigs=rigs), truth.image_index % 3 > 0))
    assert placed is not None and placed.reference == {1: 2, 2: 2}


def test_views_without_observations_get_their_pose_from_the_rig() -> None:
    truth = rig_truth(frames=6)
    start = rig_model(truth, noise_px=0.3, pose_noise=0.01)
    blank = np.isin(start.tracks.obs_image, [4, 13])  # the second camera of two frames
    blind = select_points(start, ~blank)
    assert observations_per_frame(blind)[4] > 100
    adjusted, _ = adjust(blind, OPTIONS)
    shown = relative(adjusted)
    assert np.abs(shown - shown[0]).max() < 1e-9


def test_the_sensors_of_a_moved_model_are_as_far_apart_as_its_points(tmp_path: Path) -> None:
    model = rig_model(rig_truth(frames=4), noise_px=0.3, pose_noise=0.0)
    write_models(tmp_path / "sparse", [model], [f"{k}.jpg" for k in range(12)])
    turn = Rotation.from_euler("xyz", [10, 40, -70], degrees=True).as_matrix()
    way = Similarity.of(turn, np.array([1.0, 2.0, 3.0]), 2.5)
    kept = move_model(tmp_path / "sparse" / "0", tmp_path / "moved", way, lambda xyz: xyz[:, 0] > 0)
    before, (after, _) = read_reconstruction(tmp_path / "sparse" / "0")[0], read_reconstruction(tmp_path / "moved")
    assert before.rigs is not None and after.rigs is not None
    assert np.abs(before.rigs.sensor_from_rig[1:, :, 3]).max() > 0.1
    expected = before.rigs.scaled(2.5).sensor_from_rig
    np.testing.assert_allclose(after.rigs.sensor_from_rig, expected, atol=1e-12)
    np.testing.assert_allclose(after.cam_from_world, way.poses(before.cam_from_world), atol=1e-9)
    np.testing.assert_allclose(after.points, way.points(before.points)[kept], atol=1e-9)
    stored = pycolmap.Reconstruction(str(tmp_path / "moved"))
    assert stored.num_rigs() == 1 and stored.num_frames() == 4 and 0 < kept.sum() < len(kept)


def test_models_of_rigs_are_written_and_read(tmp_path: Path) -> None:
    model, _ = adjust(rig_model(rig_truth(frames=4), noise_px=0.3, pose_noise=0.01), OPTIONS)
    names = [f"{k}.jpg" for k in range(12)]
    write_models(tmp_path / "sparse", [model], names)
    stored = pycolmap.Reconstruction(str(tmp_path / "sparse" / "0"))
    assert stored.num_rigs() == 1 and stored.num_frames() == 4 and stored.num_reg_images() == 12
    back, back_names = read_reconstruction(tmp_path / "sparse" / "0")
    assert list(back_names) == names and back.rigs is not None and model.rigs is not None
    assert np.allclose(back.cam_from_world, model.cam_from_world, atol=1e-9)
    assert np.allclose(back.rigs.sensor_from_rig, model.rigs.sensor_from_rig, atol=1e-9)
    assert np.array_equal(back.rigs.sensor, model.rigs.sensor)
    assert len(read_model(tmp_path / "sparse" / "0").names) == 12
    assert to_pycolmap(back, names).num_frames() == 4


@pytest.mark.parametrize("gone", [[0, 3, 6, 9], [1, 4, 7, 10]])
def test_parts_of_rigs_are_rigs(gone: list[int]) -> None:
    """Without the reference sensor too."""
    truth = rig_truth(frames=4)
    model = rig_model(truth, noise_px=0.3, pose_noise=0.0)
    kept = ~np.isin(model.image_index, gone)
    part = select_views(select_points(model, ~np.isin(model.tracks.obs_image, gone)), kept)
    used, camera = np.unique(part.camera_index, return_inverse=True)
    part = replace(part, cameras=tuple(part.cameras[k] for k in used), camera_index=camera.reshape(-1))
    adjusted, report = adjust(with_images_numbered(part), OPTIONS)
    assert report.usable and len(adjusted.image_index) == 8
    poses = adjusted.cam_from_world.reshape(-1, 2, 3, 4)
    shown = compose(poses[:, 1], invert(poses[:, 0]))
    assert np.abs(shown - shown[0]).max() < 1e-9


def test_a_model_in_another_frame_has_a_rig_of_another_size() -> None:
    model = rig_model(rig_truth(frames=4), noise_px=0.0, pose_noise=0.0)
    turn = Rotation.from_rotvec([0.1, 0.7, -0.2]).as_matrix()
    other = moved(model, 3.0, np.concatenate([turn, [[1.0], [2.0], [3.0]]], axis=1))
    assert other.rigs is not None and model.rigs is not None
    assert np.allclose(camera_centres(other.rigs.sensor_from_rig), 3 * camera_centres(model.rigs.sensor_from_rig))
    assert np.allclose(relative(other), other.rigs.sensor_from_rig[1:], atol=1e-12)


def test_a_camera_of_two_sensors_is_refused() -> None:
    model = rig_model(rig_truth(frames=3), noise_px=0.0, pose_noise=0.0)
    with pytest.raises(ValueError, match="a camera for itself"):
        to_pycolmap(replace(model, camera_index=np.zeros(9, np.int64)), [f"{k}" for k in range(9)])
