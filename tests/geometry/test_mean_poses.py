"""Means of poses, some of which are wrong."""

import numpy as np
from scipy.spatial.transform import Rotation

from anchorsfm.geometry.mean_poses import mean_pose
from anchorsfm.geometry.transforms import camera_centres, compose, rotation_angle_deg


def poses(count: int, sigma: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A pose, and others that differ from it."""
    rotation = Rotation.random(random_state=5).as_matrix()
    truth = np.concatenate([rotation, np.array([[3.0], [-2.0], [5.0]])], axis=1)
    turned = Rotation.from_rotvec(sigma * rng.standard_normal((count, 3))).as_matrix()
    change = np.concatenate([turned, sigma * rng.standard_normal((count, 3, 1))], axis=2)
    return truth, compose(change, truth)


def test_equal_poses_are_left_as_they_are() -> None:
    truth, _ = poses(1, 0, np.random.default_rng(0))
    assert np.array_equal(mean_pose(np.stack([truth, truth + 1e-12])), truth)


def test_the_mean_is_better_than_one_and_outliers_do_not_count() -> None:
    rng = np.random.default_rng(1)
    truth, noisy = poses(40, 0.01, rng)
    mean = mean_pose(noisy)
    assert rotation_angle_deg((mean[:, :3] @ truth[:, :3].T)[None])[0] < 0.25
    assert np.linalg.norm(camera_centres(mean) - camera_centres(truth)) < 0.02
    _, wild = poses(15, 1.0, rng)
    mean = mean_pose(np.concatenate([wild, noisy]))
    assert rotation_angle_deg((mean[:, :3] @ truth[:, :3].T)[None])[0] < 0.6
    assert np.linalg.norm(camera_centres(mean) - camera_centres(truth)) < 0.05


def test_weights_decide_between_two() -> None:
    first, second = np.eye(3, 4), np.eye(3, 4)
    second[:, 3] = 1
    assert np.abs(mean_pose(np.stack([first, second]), np.array([100.0, 1.0]))[:, 3]).max() < 0.1
