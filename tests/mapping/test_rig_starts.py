"""First models of photographs that rigs took."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from anchorsfm.colmap.bundle import Held
from anchorsfm.geometry.transforms import camera_centres, compose, invert, rotation_angle_deg
from anchorsfm.mapping.base import MapperInput, Start
from anchorsfm.mapping.rigs import with_frames
from anchorsfm.scene.edit import moved, select_points, select_views, with_cameras_of_views, with_rigs
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.scene.rigs import Rigs
from anchorsfm.tracks.build import KeypointMatches
from rig_scene import rig_model, rig_truth

FRAMES = 8
TRUTH = rig_truth(FRAMES)
RIGS = TRUTH.rigs
assert RIGS is not None
UNKNOWN = replace(RIGS, sensor_from_rig=np.where(np.arange(3)[:, None, None] > 0, np.nan, RIGS.sensor_from_rig))


def given(rigs: Rigs) -> MapperInput:
    count, nothing, nowhere = 3 * FRAMES, np.zeros(0, np.int64), np.zeros((0, 2))
    images = ImageSet(
        root=Path("rig"),
        names=tuple(f"{k}.jpg" for k in range(count)),
        size_wh=np.full((count, 2), [640, 480]),
        camera_index=TRUTH.camera_index,
        focal_prior_px=np.full(count, np.nan),
        digests=tuple(map(str, range(count))),
        rigs=rigs,
    )
    return MapperInput(
        images=images,
        cameras=TRUTH.cameras,
        known_camera=np.zeros(3, bool),
        matches=KeypointMatches(image_i=nothing, image_j=nothing, xy_i=nowhere, xy_j=nowhere, confidence=np.zeros(0)),
        tracks=TRUTH.tracks,
        working_scale=np.ones(count),
    )


def start(images: list[int] | np.ndarray, *, noise: float = 0.0, scale: float = 1.0) -> Start:
    """A part of the truth in a frame of its own."""
    model = with_rigs(rig_model(TRUTH, noise_px=0.0, pose_noise=noise), None)
    keep = np.isin(model.image_index, images)
    part = select_views(select_points(model, np.isin(model.tracks.obs_image, images)), keep)
    turn = Rotation.from_rotvec([0.3 * scale, 1.0, -0.5]).as_matrix()
    part = moved(with_cameras_of_views(part), scale, np.concatenate([turn, [[4.0], [scale], [-1.0]]], axis=1))
    return Start(model=part, held=Held.nothing(part))


def assert_rig(model: Reconstruction, wanted: Rigs, *, deg: float, share: float, scale: float | None = None) -> None:
    """Relative poses of sensors, up to scale unless one is given."""
    assert model.rigs is not None
    found = model.rigs.sensor_from_rig[model.rigs.is_known]
    truth = wanted.sensor_from_rig[model.rigs.is_known]
    assert rotation_angle_deg(found[:, :, :3] @ np.swapaxes(truth[:, :, :3], 1, 2)).max() < deg
    ours, theirs = camera_centres(found), camera_centres(truth)
    factor = scale or float(np.linalg.norm(ours) / np.linalg.norm(theirs))
    assert np.abs(ours - factor * theirs).max() < share * factor * np.linalg.norm(theirs, axis=1).max()


def assert_truth(model: Reconstruction, *, deg: float = 1e-6) -> None:
    """Relative rotations of all views."""
    relative = [compose(m.cam_from_world, invert(m.cam_from_world[:1])) for m in (model, TRUTH)]
    truth = relative[1][model.image_index] if len(model.image_index) < 3 * FRAMES else relative[1]
    assert rotation_angle_deg(relative[0][:, :, :3] @ np.swapaxes(truth[:, :, :3], 1, 2)).max() < deg


def test_unknown_sensors_are_found_and_missing_photographs_placed() -> None:
    missing = [4, 5, 10, 17, 21]
    (found,) = with_frames([start(np.setdiff1d(np.arange(24), missing), scale=2.0)], given(UNKNOWN))
    assert found.model.image_index.tolist() == list(range(24)) and len(found.model.cameras) == 3
    assert found.held.camera.shape == (3,) and found.held.pose.shape == (24,)
    assert_rig(found.model, RIGS, deg=1e-6, share=1e-9, scale=2.0)
    assert_truth(found.model)


def test_noise_is_averaged_and_wrong_photographs_do_not_count() -> None:
    noisy = start(np.arange(24), noise=0.01)
    wrong = noisy.model.cam_from_world.copy()
    wrong[[2, 13]] = wrong[[7, 3]]
    noisy = replace(noisy, model=replace(noisy.model, cam_from_world=wrong))
    (found,) = with_frames([noisy], given(UNKNOWN))
    assert_rig(found.model, RIGS, deg=1.0, share=0.1)
    assert_truth(found.model, deg=4.0)


def test_given_sensors_say_the_scale() -> None:
    (found,) = with_frames([start(np.arange(24), scale=0.3)], given(RIGS))
    assert_rig(found.model, RIGS, deg=1e-6, share=1e-9, scale=1.0)
    ours, theirs = (camera_centres(m.cam_from_world) for m in (found.model, TRUTH))
    assert np.linalg.norm(ours[0] - ours[-1]) == pytest.approx(np.linalg.norm(theirs[0] - theirs[-1]))


def test_models_of_the_same_frames_are_joined_where_the_rig_is_known() -> None:
    """Cameras that look into different directions: nothing but the rig ties their photographs together."""
    first, second = start(np.arange(0, 24, 3)), start(np.arange(1, 24, 3), scale=3.0)
    (joined,) = with_frames([first, second], given(RIGS))
    assert joined.model.image_index.tolist() == list(range(24))
    assert_truth(joined.model)
    apart = with_frames([first, second], given(UNKNOWN))  # where it is not, there is no telling
    assert [len(one.model.image_index) for one in apart] == [8, 8]


def test_models_that_do_not_agree_are_not_joined() -> None:
    first, second = start(np.arange(0, 24, 3)), start(np.arange(1, 24, 3), noise=1.0)
    assert [len(one.model.image_index) for one in with_frames([first, second], given(RIGS))] == [16, 8]


def test_without_rigs_nothing_changes() -> None:
    alone = start(np.arange(24))
    (same,) = with_frames([alone], replace(given(RIGS), images=replace(given(RIGS).images, rigs=None)))
    assert same is alone


def test_one_frame_is_not_enough_for_a_rig() -> None:
    (found,) = with_frames([start([0, 1, 3, 6, 9])], given(UNKNOWN))
    assert found.model.image_index.tolist() == [0, 1, 3, 6, 9]
