"""When points say that a view has another focal length than its camera."""

import numpy as np
import pytest

from anchorsfm.colmap.cameras import project, with_focal_length
from anchorsfm.geometry.transforms import transform
from anchorsfm.scene.reconstruction import Camera
from anchorsfm.tracks.resect import absolute_pose
from anchorsfm.tracks.view_fit import ViewFit, find_zoom
from point_scene import look_at

CAMERA = Camera(model="RADIAL", width=1200, height=900, params=(1100.0, 605.0, 445.0, -0.05, 0.01))
LIMIT_PX = 5.0


def found(zoom: float, seed: int, num_points: int, noise_px: float, wrong: float = 0.0) -> ViewFit | None:
    """Of a photograph that was zoomed, where a share of the points are wrong."""
    rng = np.random.default_rng(seed)
    points = rng.uniform([-2.5, -2, -2], [2.5, 2, 2], (num_points, 3))
    pose = look_at(np.array([rng.uniform(-2, 2), rng.uniform(-1, 1), -7.0]), rng.normal(0, 0.2, 3))
    xy, _ = project(with_focal_length(CAMERA, zoom * CAMERA.params[0]), transform(pose, points))
    xy += rng.normal(0, noise_px, xy.shape)
    is_wrong = rng.uniform(size=num_points) < wrong
    xy[is_wrong] = rng.uniform(0, (1200, 900), (int(is_wrong.sum()), 2))
    start = absolute_pose(CAMERA, xy, points, LIMIT_PX)
    assert start is not None
    return find_zoom(CAMERA, start.cam_from_world, xy, points, start.inlier, max_error_px=LIMIT_PX)


@pytest.mark.parametrize("zoom", [0.7, 1.03, 1.6])
def test_another_focal_length_is_found_among_wrong_points(zoom: float) -> None:
    for seed in range(10):
        fit = found(zoom, seed, 300, 0.7, wrong=0.4)
        assert fit is not None and fit.camera.params[0] == pytest.approx(zoom * CAMERA.params[0], rel=0.01)
        assert fit.camera.params[1:] == CAMERA.params[1:], "the lens stays"


def test_small_changes_are_none_however_exact_the_points() -> None:
    assert all(found(1.006, seed, 300, 0.05) is None for seed in range(10))
    assert any(found(1.015, seed, 300, 0.05) is not None for seed in range(10))


def test_few_points_that_fit_better_by_chance_are_no_evidence() -> None:
    assert all(found(1.0, seed, 10, 1.5) is None for seed in range(40))
