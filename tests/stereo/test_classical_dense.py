"""Dense depth of the classical front end: aggregation, sweep, checks, filling, storage."""

import numpy as np
import pytest

from anchorsfm.frontend.classical.config import DenseConfig
from anchorsfm.frontend.classical.predictor import dense_matches
from anchorsfm.stereo import aggregation as sgm
from anchorsfm.stereo import confidence as checks
from anchorsfm.stereo.pair import dense_depth, stereo_pair
from anchorsfm.stereo.subplane import refine_below_planes
from anchorsfm.stereo.sweep import GridView, choose_planes, epipolar, sample, sweep, warp
from classical_scene import View, pose_between, render

LEFT = View()
RIGHT = View(centre=(0.5, 0.05, 0.1), rotation_deg=(1.0, -3.0, 0.5))


def _grid_view(view: View) -> tuple[GridView, np.ndarray]:
    grey, depth = render(view)
    return GridView(grey=grey, focal_xy=(view.focal_px, view.focal_px)), depth


def _scene(left: View = LEFT, right: View = RIGHT):
    """Geometry with a baseline of 1, true depths in baselines, and depths of some matches."""
    (view_i, depth_i), (view_j, depth_j) = _grid_view(left), _grid_view(right)
    pose = pose_between(left, right)
    length = np.linalg.norm(pose[:, 3])
    pose[:, 3] /= length
    rows = np.random.default_rng(0).integers(0, depth_i.size, 400)
    matches = np.stack([depth_i.ravel()[rows], depth_j.ravel()[rows % depth_j.size]], axis=1) / length
    return stereo_pair(view_i, view_j, pose), pose, depth_i / length, depth_j / length, matches


def _naive_path(cost, penalty, reverse):
    """Textbook recursion along axis 0 of (step, plane, lane)."""
    steps, planes, lanes = cost.shape
    order = range(steps - 1, -1, -1) if reverse else range(steps)
    out = np.zeros(cost.shape, int)
    previous = None
    for step in order:
        for lane in range(lanes):
            for d in range(planes):
                if previous is None:
                    out[step, d, lane] = cost[step, d, lane]
                    continue
                last = out[previous, :, lane]
                options = [last[d], last.min() + penalty[max(step, previous), lane]]
                options += [last[k] + sgm.SMALL_STEP for k in (d - 1, d + 1) if 0 <= k < planes]
                out[step, d, lane] = cost[step, d, lane] + min(options) - last.min()
        previous = step
    return out


def test_aggregation_equals_the_textbook_recursion():
    rng = np.random.default_rng(0)
    cost = rng.integers(0, 300, (5, 6, 7)).astype(np.int16)
    grey = rng.integers(0, 256, (5, 7)).astype(np.uint8)
    penalties = sgm.step_penalties(grey)
    expected = -3 * cost.astype(int)
    for reverse in (False, True):
        expected += _naive_path(cost, penalties.vertical, reverse)
        expected += _naive_path(cost.transpose(2, 1, 0), penalties.horizontal, reverse).transpose(2, 1, 0)
    assert np.array_equal(sgm.aggregate(cost, penalties), expected)


def test_aggregation_does_not_overflow():
    worst = np.full((40, 160, 30), int(1.2 * sgm.COST_SCALE), np.int16)
    total = sgm.aggregate(worst, sgm.step_penalties(np.zeros((40, 30), np.uint8)))
    assert total.min() >= 0


def test_penalty_is_lower_across_edges():
    grey = np.zeros((4, 6), np.uint8)
    grey[:, 3:] = 200
    penalties = sgm.step_penalties(grey)
    assert penalties.horizontal.shape == (6, 4)
    assert (penalties.horizontal[3] == 1.5 * sgm.SMALL_STEP).all()
    assert (penalties.horizontal[[1, 2, 4, 5]] == sgm.LARGE_STEP).all()
    assert (penalties.vertical == sgm.LARGE_STEP).all()


def test_winning_plane_is_the_vertex_of_the_parabola():
    position = np.array([[3.3, 5.0], [6.75, 1.2]])
    planes = np.arange(9)[None, :, None]
    total = (100 * (planes - position[:, None]) ** 2).astype(np.int16)
    winner, refined = sgm.winning_plane(total)
    assert np.array_equal(winner, np.rint(position))
    assert np.abs(refined - position).max() < 0.01


def test_warp_agrees_with_projection():
    geometry, pose, depth_i, _, _ = _scene()
    there = warp((1 / depth_i).astype(np.float32), geometry.to_j)
    point = np.linalg.inv(geometry.view_i.intrinsics) @ [100.5, 60.5, 1.0] * depth_i[60, 100]
    expected = geometry.view_j.intrinsics @ (pose[:, :3] @ point + pose[:, 3])
    assert there.x[60, 100] == pytest.approx(expected[0] / expected[2], abs=1e-3)
    assert there.y[60, 100] == pytest.approx(expected[1] / expected[2], abs=1e-3)
    assert there.depth_ratio[60, 100] == pytest.approx(expected[2] / depth_i[60, 100], rel=1e-5)
    # the renderer and the warp agree on where pixel centres are
    other = sample(geometry.view_j.grey.astype(np.float32), there, border=-1.0)
    inside = (other >= 0) & (np.abs(np.gradient(depth_i)[1]) < 0.1)
    assert np.median(np.abs(other - geometry.view_i.grey)[inside]) < 3


def test_points_behind_the_other_camera_are_not_seen():
    view = GridView(grey=np.zeros((8, 8), np.uint8), focal_xy=(8.0, 8.0))
    backwards = np.column_stack([np.diag([-1.0, 1.0, -1.0]), [0.0, 0.0, 0.0]])
    there = warp(np.full((8, 8), 0.5, np.float32), epipolar(view, view, backwards))
    assert (there.depth_ratio == 0).all() and (there.x < -1000).all()


@pytest.mark.parametrize(("step", "bound"), [(1.0, 0.002), (2.0, 0.002)])
def test_dense_depth_of_a_known_scene(step, bound):
    geometry, _, depth_i, depth_j, matches = _scene()
    dense = dense_depth(geometry, matches, DenseConfig(plane_step_px=step))
    for found, true in ((dense.i, depth_i), (dense.j, depth_j)):
        trusted = found.confidence > 5
        error = np.abs(found.depth / true - 1)
        assert trusted.mean() > 0.7
        assert np.median(error[trusted]) < bound
        assert (error[trusted] < 0.03).mean() > 0.985
        assert (error[found.confidence > 10] < 0.02).mean() > 0.99
        assert np.isfinite(found.depth).all() and (found.depth > 0).all()


def test_occluded_and_unseen_pixels_are_not_trusted():
    geometry, _, depth_i, depth_j, matches = _scene()
    dense = dense_depth(geometry, matches, DenseConfig())
    there = warp((1 / depth_i).astype(np.float32), geometry.to_j)
    seen = sample(depth_j.astype(np.float32), there, border=-1.0)
    hidden = (seen < 0) | (seen < 0.9 * depth_i * there.depth_ratio)
    assert hidden.sum() > 1000
    assert (dense.i.confidence[hidden] > 5).mean() < 0.06


def test_refinement_brings_depth_below_the_plane_distance():
    geometry, _, depth_i, _, matches = _scene()
    config = DenseConfig(plane_step_px=2.0)
    planes = choose_planes(geometry.view_i, geometry.to_j, matches[:, 0], config)
    swept, correlation = sweep(geometry.view_i, geometry.view_j, geometry.to_j, planes, config)
    better, _ = refine_below_planes(geometry.view_i, geometry.view_j, geometry.to_j, swept, correlation, config)
    good = correlation > 0.9
    errors = [np.median(np.abs(r * depth_i - 1)[good]) for r in (swept, better)]
    assert errors[1] < 0.4 * errors[0]


def test_dense_matches_are_subpixel_and_on_the_stride():
    geometry, _, depth_i, _, matches = _scene()
    dense = dense_depth(geometry, matches, DenseConfig())
    from_i, from_j = dense_matches(geometry, dense, DenseConfig())
    assert len(from_i) > 500 and len(from_j) > 500
    assert np.array_equal(np.unique(from_i.xy_i % 8), [4.5]) and np.array_equal(np.unique(from_j.xy_j % 8), [4.5])
    there = warp((1 / depth_i).astype(np.float32), geometry.to_j)
    column, row = (from_i.xy_i - 0.5).astype(int).T
    truth = np.stack([there.x[row, column], there.y[row, column]], axis=1)
    error = np.linalg.norm(from_i.xy_j - truth, axis=1)
    assert np.median(error) < 0.06 and (error < 0.5).mean() > 0.98
    # their pixels are certain, but together they must not outweigh keypoint matches
    whole, share = (
        dense_matches(geometry, dense, DenseConfig(match_weight=1.0))[0].confidence,
        DenseConfig().match_weight,
    )
    assert np.median(dense.i.confidence[row, column]) > 10 and np.median(whole) > 10 and share < 0.5
    np.testing.assert_allclose(from_i.confidence - 1, share * (whole - 1), rtol=1e-5)
    assert dense_matches(geometry, dense, DenseConfig(match_stride=0)) == []


def test_forward_motion_gives_depth_away_from_the_epipole():
    geometry, _, depth_i, _, matches = _scene(LEFT, View(centre=(0.02, 0.0, 0.8)))
    dense = dense_depth(geometry, matches, DenseConfig())
    trusted = dense.i.confidence > 5
    assert trusted.mean() > 0.3
    assert (np.abs(dense.i.depth / depth_i - 1)[trusted] < 0.05).mean() > 0.95


def test_black_image_is_not_trusted():
    geometry, pose, _, _, matches = _scene()
    black = GridView(grey=np.zeros_like(geometry.view_j.grey), focal_xy=geometry.view_j.focal_xy)
    dense = dense_depth(stereo_pair(geometry.view_i, black, pose), matches, DenseConfig())
    assert (dense.i.confidence == 1).all() and (dense.j.confidence == 1).all()
    assert np.isfinite(dense.i.depth).all()


def test_left_right_error_is_zero_for_true_depth_and_pixels_for_wrong_depth():
    geometry, _, depth_i, depth_j, _ = _scene()
    inverse_i, inverse_j = (1 / depth_i).astype(np.float32), (1 / depth_j).astype(np.float32)
    error = checks.left_right_error_px(inverse_i, geometry.to_j, inverse_j, geometry.to_i)
    assert np.median(error) < 0.02
    shifted = inverse_i + 3 * checks.inverse_depth_per_px(inverse_i, geometry.to_j)
    wrong = checks.left_right_error_px(shifted, geometry.to_j, inverse_j, geometry.to_i)
    assert np.median(wrong[wrong < checks.UNCHECKED_PX]) == pytest.approx(3, abs=0.3)


def test_filling_keeps_what_is_known_and_is_smooth():
    rng = np.random.default_rng(0)
    ramp = np.tile(np.linspace(1, 2, 61, dtype=np.float32), (47, 1))
    known = rng.uniform(size=ramp.shape) < 0.2
    known[15:30, 20:40] = False
    confidence = np.where(known, 8, 1).astype(np.float32)
    filled = checks.fill_smoothly(np.where(known, ramp, 99).astype(np.float32), confidence, guess=7.0)
    assert np.array_equal(filled[known], ramp[known])
    assert np.abs(filled - ramp).max() < 0.25
    nothing = checks.fill_smoothly(ramp, np.ones_like(ramp), guess=7.0)
    assert nothing == pytest.approx(7.0)


def test_planes_cover_the_matches_and_respect_the_limits():
    geometry, _, _, _, matches = _scene()
    fine, coarse = (
        choose_planes(geometry.view_i, geometry.to_j, matches[:, 0], DenseConfig(plane_step_px=step))
        for step in (0.5, 1.0)
    )
    inverse = 1 / matches[:, 0]
    assert fine[0] < inverse.min() and fine[-1] > inverse.max()
    assert len(fine) == pytest.approx(2 * len(coarse), abs=2)
    capped = choose_planes(geometry.view_i, geometry.to_j, matches[:, 0], DenseConfig(plane_step_px=0.01))
    assert len(capped) == DenseConfig().max_planes
