"""What two photographs of a wall should see of each other's points."""

from dataclasses import replace

import numpy as np
import pytest

from anchorsfm.scene.edit import with_points, without_points
from anchorsfm.scene.reconstruction import Camera, Reconstruction, Tracks
from anchorsfm.tracks.missing import MAX_PARTNERS, PairCells, compare_views
from point_scene import project_pinhole

CAMERA = Camera(model="SIMPLE_PINHOLE", width=1600, height=1200, params=(1000.0, 800.0, 600.0))
AHEAD = np.eye(3, 4)
BESIDE = np.column_stack([np.eye(3), [-0.5, 0.0, 0.0]])
DEPTH = 10.0


def wall(seed: int, *, left: bool, right: bool, depth: float = DEPTH) -> np.ndarray:
    """Points of a wall, on either side of what is straight ahead."""
    points = np.random.default_rng(seed).uniform([-9, -7, depth], [9, 7, depth], (4000, 3))
    points[:, :2] *= depth / DEPTH
    return points[((points[:, 0] < 0) & left) | ((points[:, 0] >= 0) & right)]


def compare(
    both: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    poses: tuple[np.ndarray, np.ndarray] = (AHEAD, BESIDE),
    cameras: tuple[Camera, Camera] = (CAMERA, CAMERA),
) -> PairCells:
    """Cells of two views that both see some points, and each some by itself."""
    points = np.concatenate([both, first, second])
    seen = [np.ones(len(points), bool), np.ones(len(points), bool)]
    seen[0][len(both) + len(first) :] = seen[1][len(both) : len(both) + len(first)] = False
    rows = []
    for view, (camera, pose) in enumerate(zip(cameras, poses, strict=True)):
        xy = project_pinhole(camera, pose, points)
        mine = np.flatnonzero(seen[view] & ((xy > 0) & (xy < [camera.width, camera.height])).all(1))
        rows.append((mine, np.full(len(mine), view), xy[mine]))
    point, image, xy = (np.concatenate(part) for part in zip(*rows, strict=True))
    kept, point = np.unique(point, return_inverse=True)
    order = np.lexsort((image, point))
    model: Reconstruction = without_points(np.arange(2), np.stack(poses), cameras, np.arange(2))
    tracks = Tracks(obs_point=point[order], obs_image=image[order], obs_xy=xy[order])
    return compare_views(with_points(model, tracks, points[kept]))


NOTHING = np.zeros((0, 3))
RIGHT = wall(0, left=False, right=True)
LEFT, OTHER_LEFT = (wall(seed, left=True, right=False) for seed in (1, 2))


def test_views_of_one_wall_confirm_each_other_in_every_cell():
    cells = compare(np.concatenate([RIGHT, LEFT]), NOTHING, NOTHING)
    assert cells.view.tolist() == [[0, 1]] and cells.shared[0] > 2000
    assert cells.confirming[0] == 2 * 48 and cells.contradicting[0] == 0


def test_a_wall_of_which_half_is_another_contradicts_in_both_pictures():
    cells = compare(RIGHT, LEFT, OTHER_LEFT)
    assert 40 <= cells.contradicting[0] <= 48 and 45 <= cells.confirming[0] <= 56
    half_found = compare(np.concatenate([RIGHT, LEFT[::2]]), LEFT[1::2], OTHER_LEFT[1::2])
    assert half_found.contradicting[0] == 0, "keypoints are not always found again"


def test_what_is_hidden_or_where_nothing_is_known_contradicts_nothing():
    both = compare(RIGHT, LEFT, OTHER_LEFT).contradicting[0]
    nearer = wall(2, left=True, right=False, depth=0.7 * DEPTH)
    hidden = compare(RIGHT, LEFT, nearer).contradicting[0]
    assert 0 < hidden < 0.6 * both, "only the nearer wall should be seen by the other view"
    assert compare(RIGHT, LEFT, NOTHING).contradicting[0] == 0


def test_few_points_say_nothing():
    few = compare(np.concatenate([RIGHT, LEFT])[::500], NOTHING, NOTHING)
    assert len(few.view) == 0
    scattered = compare(np.concatenate([RIGHT, LEFT])[::40], NOTHING, NOTHING)
    assert scattered.shared[0] > 50 and scattered.confirming[0] < 20


def around(angle_deg: float, depth: float = DEPTH) -> np.ndarray:
    """Looks at the middle of the wall from the side, and from this far away."""
    angle = np.radians(angle_deg)
    rotation = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    middle = np.array([0.0, 0.0, DEPTH])
    return np.column_stack([rotation, [0.0, 0.0, depth] - rotation @ middle])


SMALL = replace(CAMERA, width=800, height=600, params=(500.0, 400.0, 300.0))
LONG = replace(CAMERA, params=(2000.0, 800.0, 600.0))


@pytest.mark.parametrize(
    ("pose", "camera", "comparable"),
    [
        (around(10), CAMERA, True),
        (around(35), CAMERA, False),  # seen from elsewhere things look different
        (around(0, DEPTH / 2), CAMERA, False),  # and from nearby
        (around(0, 2 * DEPTH), CAMERA, False),
        (around(0, 2 * DEPTH), LONG, True),  # with a long lens as from nearby
        (around(0), LONG, False),
        (around(0), SMALL, True),  # the same picture in fewer pixels
    ],
)
def test_only_what_looks_about_the_same_is_expected(pose, camera, comparable):
    cells = compare(np.concatenate([RIGHT, LEFT]), NOTHING, NOTHING, poses=(AHEAD, pose), cameras=(CAMERA, camera))
    assert cells.shared[0] > 100
    assert cells.confirming[0] > 60 if comparable else cells.confirming[0] <= 20


def test_every_view_is_compared_with_those_that_share_most():
    """The last of 23 views shares less with each of the others than these do among themselves."""
    points = np.concatenate([RIGHT, LEFT])[::10]
    model = without_points(np.arange(23), np.tile(AHEAD, (23, 1, 1)), (CAMERA,), np.zeros(23, np.int64))
    xy = project_pinhole(CAMERA, AHEAD, points)
    points, xy = (values[((xy > 0) & (xy < [1600, 1200])).all(1)] for values in (points, xy))
    sees = np.ones((len(points), 23), bool)
    sees[20:, 22] = False
    point, image = np.nonzero(sees)
    cells = compare_views(with_points(model, Tracks(obs_point=point, obs_image=image, obs_xy=xy[point]), points))
    poor = (cells.view == 22).any(1)
    assert poor.sum() == MAX_PARTNERS < 22, "only it asks for these"
    assert (cells.shared == np.where(poor, 20, len(points))).all()
