"""Robust triangulation of tracks with known truth, degenerate tracks, and derivatives of the points."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares

from anchorsfm.geometry.cameras import normalised_from_pixels, project
from anchorsfm.geometry.triangulation import optimise_points
from anchorsfm.tracks import triangulate as module
from anchorsfm.tracks.triangulate import (
    RayBundle,
    TrackStatus,
    reprojection_errors,
    triangulate,
    widest_angle_deg,
)
from point_scene import look_at

TOLERANCE = 4e-3  # four pixels at a focal length of 1000


def ring_of_poses(num_views, seed=0):
    """Cameras four units around the origin."""
    rng = np.random.default_rng(seed)
    angle = np.linspace(0, 2 * np.pi, num_views, endpoint=False)
    place = np.stack([4 * np.cos(angle), rng.uniform(-1, 1, num_views), 4 * np.sin(angle)], axis=1)
    return np.stack([look_at(position, rng.normal(0, 0.2, 3)) for position in place])


def observe(points, poses, point, view):
    camera = np.einsum("nij,nj->ni", poses[view][:, :, :3], points[point]) + poses[view][:, :, 3]
    return camera[:, :2] / camera[:, 2:]


def make_bundle(lengths, num_views=20, *, noise=0.0, outliers=0.0, seed=0):
    """Tracks of neighbouring views: true points, bundle, and which observations are wrong."""
    rng = np.random.default_rng(seed)
    poses = ring_of_poses(num_views)
    points = rng.normal(0, 0.5, (len(lengths), 3))
    point = np.repeat(np.arange(len(lengths)), lengths)
    place = np.concatenate([np.arange(length) for length in lengths])
    view = (rng.integers(0, num_views, len(lengths))[point] + place) % num_views
    xy = observe(points, poses, point, view) + noise * rng.standard_normal((len(point), 2))
    wrong = rng.random(len(point)) < outliers
    xy = np.where(wrong[:, None], rng.uniform(-0.5, 0.5, xy.shape), xy)
    tolerance = np.full(len(point), TOLERANCE)
    return points, RayBundle(point=point, view=view, xy=xy, cam_from_world=poses, tolerance=tolerance), wrong


def mixed_lengths(count, seed=0):
    return np.random.default_rng(seed).integers(2, 14, count)


def errors_of(result, points):
    return np.nan_to_num(np.linalg.norm(result.points - points, axis=1), nan=np.inf)


@pytest.mark.parametrize("lengths", [[2], [3] * 5, [17, 18, 40, 60, 2], mixed_lengths(300)])
def test_exact_without_noise(lengths):
    points, bundle, _ = make_bundle(lengths, 60)
    result = triangulate(bundle, len(points))
    assert errors_of(result, points).max() < 1e-9
    assert result.inlier.all() and (result.status == TrackStatus.OK).all()


def test_outlying_observations_are_found():
    points, bundle, wrong = make_bundle(mixed_lengths(3000), noise=5e-4, outliers=0.2)
    result = triangulate(bundle, len(points))
    good = np.bincount(bundle.point[~wrong], minlength=len(points)) >= 3
    rows = good[bundle.point]
    assert (result.inlier == ~wrong)[rows].mean() > 0.999
    assert np.median(errors_of(result, points)[good]) < 2e-3
    assert np.quantile(errors_of(result, points)[good], 0.99) < 0.02


@pytest.mark.parametrize("length", [12, 45])
def test_half_of_a_long_track_may_be_wrong(length):
    points, bundle, wrong = make_bundle([length] * 200, 60, noise=5e-4, outliers=0.5)
    good = np.bincount(bundle.point[~wrong], minlength=len(points)) >= 4
    result = triangulate(bundle, len(points))
    assert (result.inlier == ~wrong)[good[bundle.point]].mean() > 0.998
    assert np.quantile(errors_of(result, points)[good], 0.98) < 0.02


def test_inliers_and_accuracy_are_those_of_colmap_called_track_by_track():
    pycolmap = pytest.importorskip("pycolmap")
    points, bundle, wrong = make_bundle(mixed_lengths(1000, seed=3), noise=5e-4, outliers=0.25, seed=4)
    options = pycolmap.EstimateTriangulationOptions()
    options.min_tri_angle, options.ransac.random_seed, options.ransac.max_error = np.deg2rad(1.5), 0, 4.0
    options.residual_type = pycolmap.TriangulationResidualType.REPROJECTION_ERROR
    camera = pycolmap.Camera(model="SIMPLE_PINHOLE", width=1000, height=1000, params=[1000.0, 500.0, 500.0])
    poses = [pycolmap.Rigid3d(pose) for pose in bundle.cam_from_world]
    theirs, inlier = np.full(points.shape, np.nan), np.zeros(len(wrong), bool)
    for k in range(len(points)):
        rows = np.flatnonzero(bundle.point == k)
        found = pycolmap.estimate_triangulation(
            1000 * bundle.xy[rows] + 500, [poses[v] for v in bundle.view[rows]], [camera] * len(rows), options
        )
        if found is not None:
            theirs[k], inlier[rows] = found["xyz"], found["inliers"]
    ours = triangulate(bundle, len(points))
    reference = np.nan_to_num(np.linalg.norm(theirs - points, axis=1), nan=np.inf)
    assert (ours.inlier & ~wrong).sum() >= 0.9995 * (inlier & ~wrong).sum()
    assert (ours.inlier & wrong).sum() <= (inlier & wrong).sum() + 3
    assert np.median(errors_of(ours, points)) <= np.median(reference)


def test_points_are_least_squares_of_their_inliers():
    points, bundle, _ = make_bundle([2, 3, 6, 9, 20], noise=5e-4)
    bundle = replace(bundle, tolerance=np.linspace(0.005, 0.01, len(bundle.point)))
    result = triangulate(bundle, len(points))
    for k, found in enumerate(result.points):
        rows = np.flatnonzero(bundle.point == k)

        def residual(x, rows=rows):
            projected = observe(x[None], bundle.cam_from_world, np.zeros(len(rows), int), bundle.view[rows])
            return ((projected - bundle.xy[rows]) / bundle.tolerance[rows, None]).ravel()

        best = least_squares(residual, points[k], xtol=1e-15, ftol=1e-15, gtol=1e-15).x
        assert result.inlier[rows].all()
        assert np.abs(found - best).max() < 1e-7


def test_a_two_view_track_is_taken_if_its_rays_meet_within_the_tolerance():
    _, bundle, _ = make_bundle([2, 2])
    across = np.cross(*(observe_rays(bundle, rows) for rows in (slice(0, 1), slice(1, 2))))[0]
    direction = bundle.cam_from_world[bundle.view[0], :2, :3] @ across  # out of the epipolar plane, in image 0
    direction /= np.linalg.norm(direction)
    for shift, taken in ((1.5 * TOLERANCE, True), (4 * TOLERANCE, False)):
        xy = bundle.xy.copy()
        xy[0] += shift * direction
        result = triangulate(replace(bundle, xy=xy), 2)
        assert result.status.tolist() == [TrackStatus.OK if taken else TrackStatus.NO_AGREEMENT, TrackStatus.OK]
        assert result.inlier.tolist() == [taken, taken, True, True]


def observe_rays(bundle, rows):
    rays = np.concatenate([bundle.xy[rows], np.ones((len(bundle.xy[rows]), 1))], axis=1)
    return np.einsum("nji,nj->ni", bundle.cam_from_world[bundle.view[rows]][:, :, :3], rays)


def test_every_degenerate_track_has_its_status():
    _, bundle, _ = make_bundle([4] * 8)
    xy, view, poses = bundle.xy.copy(), bundle.view.copy(), bundle.cam_from_world.copy()
    rows = [np.flatnonzero(bundle.point == k) for k in range(8)]
    xy[rows[1]] = np.nan
    xy[rows[2][1:], 1] = np.nan  # one usable view
    view[rows[3]] = view[rows[3][0]]  # identical cameras, different rays
    view[rows[4]], xy[rows[4]] = view[rows[4][0]], xy[rows[4][0]]  # identical cameras and rays
    poses = np.concatenate([poses, poses[:4], np.full((1, 3, 4), np.nan)])
    poses[20:24, ::2] *= -1  # turned by half a circle about y: looking away from the scene ...
    view[rows[5]] = 20 + np.arange(4)
    xy[rows[5]] = observe(np.zeros((1, 3)), poses, np.zeros(4, int), view[rows[5]])  # ... and back through the image
    xy[rows[6]] = np.random.default_rng(5).uniform(-0.5, 0.5, (4, 2))
    view[rows[7]] = 24
    bundle = replace(bundle, xy=xy, view=view, cam_from_world=poses, tolerance=np.full(len(view), 1e-6))
    result = triangulate(bundle, 10)
    assert [TrackStatus(status).name for status in result.status] == [
        "OK",
        "TOO_FEW_VIEWS",
        "TOO_FEW_VIEWS",
        "BEHIND_CAMERA",
        "SMALL_ANGLE",
        "BEHIND_CAMERA",
        "NO_AGREEMENT",
        "TOO_FEW_VIEWS",
        "TOO_FEW_VIEWS",
        "TOO_FEW_VIEWS",
    ]
    assert np.isfinite(result.points).all(1).tolist() == (result.status == TrackStatus.OK).tolist()
    assert result.inlier.tolist() == (bundle.point == 0).tolist()
    assert np.isfinite(result.angle_deg).all()


def test_points_under_the_smallest_angle_are_left_out():
    poses = np.stack([look_at(np.array([x, 0.0, -10.0]), np.array([x, 0.0, 0.0])) for x in (0.0, 0.1, 0.2)])
    view = np.arange(3)
    xy = observe(np.zeros((1, 3)), poses, np.zeros(3, int), view)
    bundle = RayBundle(point=0 * view, view=view, xy=xy, cam_from_world=poses, tolerance=np.full(3, TOLERANCE))
    angle = np.degrees(np.arctan(0.02))  # 1.15 degrees
    found = triangulate(bundle, 1, min_angle_deg=1.0)
    assert found.angle_deg[0] == pytest.approx(angle, rel=1e-9)
    assert np.abs(found.points).max() < 1e-9
    assert triangulate(bundle, 1).status.tolist() == [TrackStatus.SMALL_ANGLE]


def test_nothing_gives_nothing():
    _, bundle, _ = make_bundle([3])
    none = RayBundle(**{name: value[:0] for name, value in vars(bundle).items()})
    result = triangulate(none, 0)
    assert result.points.shape == (0, 3) and result.inlier.shape == (0,)
    assert triangulate(none, 2).status.tolist() == [TrackStatus.TOO_FEW_VIEWS] * 2


def test_chunks_bound_what_is_handled_at_once_and_do_not_change_the_result(monkeypatch):
    points, bundle, _ = make_bundle(mixed_lengths(400), noise=5e-4, outliers=0.2)
    whole = triangulate(bundle, len(points))
    sizes = []
    solve = module._solve_chunk

    def watch(chunk, *arguments):
        sizes.append(chunk.d.numel())
        return solve(chunk, *arguments)

    monkeypatch.setattr(module, "_solve_chunk", watch)
    parts = triangulate(bundle, len(points), chunk_size=100)
    assert max(sizes) <= 100 and len(sizes) > 20
    assert np.array_equal(parts.inlier, whole.inlier) and np.array_equal(parts.status, whole.status)
    assert np.allclose(parts.points, whole.points, rtol=0, atol=1e-9, equal_nan=True)


def test_equal_input_gives_equal_bits():
    points, bundle, _ = make_bundle(mixed_lengths(400), noise=5e-4, outliers=0.4)
    first, second = (triangulate(bundle, len(points)) for _ in range(2))
    assert np.array_equal(first.points, second.points, equal_nan=True)
    assert np.array_equal(first.inlier, second.inlier) and np.array_equal(first.angle_deg, second.angle_deg)


def test_errors_are_infinite_behind_cameras_and_for_unknown_points():
    points, bundle, _ = make_bundle([3, 3], noise=1e-3)
    points[1] = np.nan
    errors = reprojection_errors(bundle, points)
    exact = observe(points, bundle.cam_from_world, bundle.point, bundle.view)
    assert np.allclose(errors[:3], np.linalg.norm(exact - bundle.xy, axis=1)[:3], rtol=1e-12)
    assert np.isinf(errors[3:]).all()


def test_widest_angles_are_those_of_all_pairs():
    lengths = [2, 5, 16, 17, 40, 3]
    points, bundle, _ = make_bundle(lengths, 60)
    used = np.random.default_rng(0).random(len(bundle.point)) < 0.8
    used[bundle.point == 5] = False
    angles = widest_angle_deg(bundle, used, points, len(points))
    rotation, translation = bundle.cam_from_world[:, :, :3], bundle.cam_from_world[:, :, 3]
    centres = -np.einsum("vji,vj->vi", rotation, translation)
    for k in range(5):
        rays = points[k] - centres[bundle.view[used & (bundle.point == k)]]
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        truth = np.degrees(np.arccos(np.abs(rays @ rays.T).min())) if len(rays) > 1 else 0.0
        assert angles[k] <= truth + 1e-6
        assert angles[k] >= truth - (1e-6 if lengths[k] <= 16 else 3.0)
    assert angles[5] == 0


# --- derivatives -----------------------------------------------------------------------------------------------------


def differentiable_problem(model, params, seed=0):
    """Noisy pixels of three points in four views, poses as offsets (view, 6) from given ones, and start points."""
    rng = np.random.default_rng(seed)
    points, bundle, _ = make_bundle([4, 3, 2], 8)
    camera = torch.from_numpy(
        np.einsum("nij,nj->ni", bundle.cam_from_world[bundle.view][:, :, :3], points[bundle.point])
        + bundle.cam_from_world[bundle.view][:, :, 3]
    )
    pixels = project(model, params, camera) + torch.from_numpy(rng.normal(0, 1.0, (len(camera), 2)))
    return torch.from_numpy(points), bundle, pixels


def solve(start, bundle, model, motion, params, pixels, weight=None):
    """Points from all that they depend on; `motion` holds a small rotation and translation of each view."""
    skew = torch.zeros(len(motion), 3, 3, dtype=motion.dtype)
    for (i, j), axis, sign in (((2, 1), 0, 1), ((0, 2), 1, 1), ((1, 0), 2, 1)):
        skew[:, i, j], skew[:, j, i] = sign * motion[:, axis], -sign * motion[:, axis]
    poses = torch.matrix_exp(skew) @ torch.from_numpy(bundle.cam_from_world)
    poses = torch.cat([poses[:, :, :3], poses[:, :, 3:] + motion[:, 3:, None]], dim=2)
    return optimise_points(
        start,
        point=torch.from_numpy(bundle.point),
        view=torch.from_numpy(bundle.view),
        xy=normalised_from_pixels(model, params, pixels),
        cam_from_world=poses,
        weight=weight,
    )


@pytest.mark.parametrize(
    ("model", "values"),
    [
        ("SIMPLE_RADIAL", [900.0, 512.0, 380.0, -0.08]),
        ("OPENCV", [900.0, 880.0, 512.0, 380.0, -0.1, 0.02, 0.001, -0.002]),
        ("OPENCV_FISHEYE", [600.0, 610.0, 512.0, 380.0, 0.02, -0.005, 0.001, -0.0005]),
    ],
)
def test_derivatives_of_points_are_those_of_the_full_solve(model, values):
    params = torch.tensor(values, dtype=torch.float64)
    start, bundle, pixels = differentiable_problem(model, params)
    motion = torch.zeros(8, 6, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    weight = 0.5 + torch.rand(len(pixels), generator=generator, dtype=torch.float64)
    inputs = [motion, params, pixels, weight]
    steps = [1e-5, 1e-5 * params.abs().clamp(min=1e-2), 1e-2, 1e-3]
    variables = [value.clone().requires_grad_() for value in inputs]
    mixture = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    (mixture * solve(start, bundle, model, *variables)).sum().backward()
    for k, (value, step) in enumerate(zip(inputs, steps, strict=True)):
        for _ in range(4):
            direction = torch.randn(value.shape, generator=generator, dtype=torch.float64) * step

            def moved(sign, k=k, direction=direction):
                changed = [other + sign * direction if m == k else other for m, other in enumerate(inputs)]
                return (mixture * solve(start, bundle, model, *changed)).sum()

            numeric = (moved(1) - moved(-1)) / 2
            analytic = (variables[k].grad * direction).sum()
            assert analytic.item() == pytest.approx(numeric.item(), rel=1e-5, abs=1e-11)


def test_refined_points_are_those_of_the_robust_solver():
    points, bundle, _ = make_bundle(mixed_lengths(200), noise=5e-4, outliers=0.2)
    result = triangulate(bundle, len(points))
    rows = np.flatnonzero(result.inlier)
    tensors = {name: torch.from_numpy(getattr(bundle, name)[rows]) for name in ("point", "view", "xy")}
    poses = torch.from_numpy(bundle.cam_from_world)
    refined = optimise_points(torch.from_numpy(result.points), **tensors, cam_from_world=poses).numpy()
    assert np.array_equal(np.isnan(refined), np.isnan(result.points))
    wide = (result.angle_deg > 10) & (result.status == TrackStatus.OK)
    assert np.nanmax(np.abs(refined - result.points)[wide]) < 1e-6


def test_undetermined_points_are_nan_and_leave_gradients_finite():
    points, bundle, _ = make_bundle([3, 3, 3, 3], noise=5e-4)
    xy = torch.from_numpy(bundle.xy)
    xy[3:6] = torch.nan
    xy.requires_grad_()
    poses = torch.from_numpy(bundle.cam_from_world).requires_grad_()
    weight = torch.ones(len(xy), dtype=torch.float64)
    weight[7:9] = 0  # a single ray
    weight.requires_grad_()
    start = torch.from_numpy(points)
    start[3] = torch.nan
    rows = {"point": torch.from_numpy(bundle.point), "view": torch.from_numpy(bundle.view)}
    found = optimise_points(start, **rows, xy=xy, cam_from_world=poses, weight=weight)
    assert torch.isfinite(found).all(1).tolist() == [True, False, False, False]
    found[0].sum().backward()
    assert all(torch.isfinite(value.grad).all() for value in (xy, poses, weight))
    assert xy.grad[:3].abs().min() > 0 and not xy.grad[3:].any()
