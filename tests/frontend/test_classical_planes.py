"""Pairs of photographs that show nothing but a plane, which two relative poses explain."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from anchorsfm.features.config import MatchingConfig
from anchorsfm.frontend.classical.agreement import with_closing_poses
from anchorsfm.frontend.classical.config import TwoViewConfig
from anchorsfm.frontend.classical.planes import other_pose
from anchorsfm.frontend.classical.two_view import RelativePose, relate, unrelated
from anchorsfm.geometry.transforms import rotation_angle_deg
from anchorsfm.scene.pairs import PairStatus

FOCAL, MAX_PX = 800.0, 1.0


def camera(step: float) -> np.ndarray:
    """cam_from_world of a camera that comes nearer and passes by, as it turns."""
    rotation = Rotation.from_rotvec([0, np.radians(-4.0 * step), 0]).as_matrix()
    place = np.array([0.5 * step, 0.05 * step, -6 + 0.6 * step])
    return np.column_stack([rotation.T, -rotation.T @ place])


def apart_deg(a: np.ndarray, b: np.ndarray) -> float:
    """Angle between the rotations of two poses."""
    return float(rotation_angle_deg((a[:, :3] @ b[:, :3].T)[None])[0])


def relative(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    rotation = b[:, :3] @ a[:, :3].T
    shift = b[:, 3] - rotation @ a[:, 3]
    return np.column_stack([rotation, shift / np.linalg.norm(shift)])


def seen(cam_from_world: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Centred pixels."""
    local = points @ cam_from_world[:, :3].T + cam_from_world[:, 3]
    return FOCAL * local[:, :2] / local[:, 2:] + rng.normal(0, 0.15, (len(points), 2))


def pair(a: np.ndarray, b: np.ndarray, depth: float) -> tuple[np.ndarray, np.ndarray, RelativePose]:
    """Matches of 400 points on a slanted wall, as far off it as `depth`, with the true pose."""
    rng = np.random.default_rng(1)
    points = np.column_stack([rng.uniform(-1.5, 1.5, (400, 2)), np.zeros(400)])
    points[:, 2] = 0.4 * points[:, 0] + rng.uniform(-depth, depth, 400)
    xy_i, xy_j = seen(a, points, rng), seen(b, points, rng)
    rows = np.stack([np.arange(400), np.arange(400)], axis=1).astype(np.int32)
    found = relate(xy_i, xy_j, rows, (FOCAL, FOCAL), MatchingConfig(), TwoViewConfig())
    assert found.status is PairStatus.OK and len(found.keypoint) > 380
    return xy_i[found.keypoint[:, 0]], xy_j[found.keypoint[:, 1]], found


def test_a_plane_has_two_poses_and_each_is_the_other_of_the_other() -> None:
    a, b = camera(0), camera(2)
    xy_i, xy_j, found = pair(a, b, depth=0.0)
    other = other_pose(found, xy_i, xy_j, (FOCAL, FOCAL), MAX_PX)
    assert other is not None and len(other.keypoint) > 0.95 * len(found.keypoint)
    assert (other.depth > 0).all() and len(other.depth) == len(other.error_px) == len(other.keypoint)
    truth = relative(a, b)
    off = [apart_deg(pose.j_from_i, truth) for pose in (found, other)]
    assert min(off) < 0.5 and max(off) > 6
    kept = np.isin(found.keypoint[:, 0], other.keypoint[:, 0])
    again = other_pose(other, xy_i[kept], xy_j[kept], (FOCAL, FOCAL), MAX_PX)
    assert again is not None
    assert apart_deg(again.j_from_i, found.j_from_i) < 0.5


def test_other_pairs_have_one_pose() -> None:
    xy_i, xy_j, found = pair(camera(0), camera(2), depth=0.5)
    assert other_pose(found, xy_i, xy_j, (FOCAL, FOCAL), MAX_PX) is None
    assert other_pose(unrelated(), np.zeros((0, 2)), np.zeros((0, 2)), (FOCAL, FOCAL), MAX_PX) is None


@pytest.mark.parametrize("starts_wrong", [True, False])
def test_the_pose_that_closes_triplets_is_taken(starts_wrong: bool) -> None:
    """Four cameras; of the first two only a plane is known, and of the last two, which no triplet says anything of."""
    cameras = [camera(step) for step in (0, 2, 4, 5)]
    xy_i, xy_j, found = pair(cameras[0], cameras[1], depth=0.0)
    other = other_pose(found, xy_i, xy_j, (FOCAL, FOCAL), MAX_PX)
    assert other is not None
    truth = relative(cameras[0], cameras[1])
    right, wrong = sorted([found, other], key=lambda pose: apart_deg(pose.j_from_i, truth))
    pairs = np.array([[0, 1], [0, 2], [1, 2], [2, 3]])
    _, _, second = pair(cameras[0], cameras[2], depth=0.5)
    _, _, third = pair(cameras[1], cameras[2], depth=0.5)
    poses = [wrong if starts_wrong else right, second, third, wrong]
    others = {0: right if starts_wrong else wrong, 3: right}
    chosen = with_closing_poses(pairs, poses, others, 4, agreement_deg=5.0)
    assert chosen[0] is right
    assert chosen[1] is second and chosen[2] is third and chosen[3] is wrong


def test_a_plane_that_is_right_helps_the_next() -> None:
    """Nothing closes with the first pair's other pose either, so that it stays, and shows which the second's is."""
    cameras = [camera(step) for step in (0, 2, 4)]
    xy_i, xy_j, found = pair(cameras[0], cameras[2], depth=0.0)
    other = other_pose(found, xy_i, xy_j, (FOCAL, FOCAL), MAX_PX)
    assert other is not None
    right, wrong = sorted([found, other], key=lambda pose: apart_deg(pose.j_from_i, relative(cameras[0], cameras[2])))
    _, _, first = pair(cameras[0], cameras[1], depth=0.5)
    _, _, third = pair(cameras[1], cameras[2], depth=0.5)
    turn = Rotation.from_rotvec([0, np.radians(30.0), 0]).as_matrix()
    turned = replace(first, j_from_i=turn @ first.j_from_i)
    pairs = np.array([[0, 1], [0, 2], [1, 2]])
    chosen = with_closing_poses(pairs, [first, wrong, third], {0: turned, 1: right}, 3, agreement_deg=5.0)
    assert chosen[0] is first and chosen[1] is right and chosen[2] is third
