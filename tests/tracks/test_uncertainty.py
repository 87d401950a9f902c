"""Predicted standard deviations of poses against the spread that fresh noise makes, and what stands out."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from anchorsfm.colmap.bundle import BundleOptions, Held, PositionPriors, adjust
from anchorsfm.colmap.cameras import project
from anchorsfm.colmap.covariance import intrinsics_covariances
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.report import report_uncertainty
from anchorsfm.scene.edit import select_observations, select_points, with_points
from anchorsfm.scene.reconstruction import Camera, Reconstruction, Tracks
from anchorsfm.synthetic import GroundConfig, SceneConfig, make_scene
from anchorsfm.tracks.adjust import AdjustResult
from anchorsfm.tracks.lens import LensChoice, LensTrial
from anchorsfm.tracks.linearised import gauge_directions, linearise, normal_equations
from anchorsfm.tracks.residuals import loss_scale_px, residual_variance_px2
from anchorsfm.tracks.selection import seen_by
from anchorsfm.tracks.uncertainty import ModelUncertainty, _stands_out, estimate_uncertainty
from point_scene import make_lens_scene

NOISE_PX = 0.5
OPTIONS = BundleOptions(loss_scale_px=2.0, function_tolerance=1e-8)
CAMERA = Camera(model="SIMPLE_RADIAL", width=1024, height=768, params=(900.0, 512.0, 384.0, 0.0))


@pytest.fixture(scope="module")
def truth() -> Reconstruction:
    """Observations without noise."""
    return make_lens_scene((CAMERA,), num_views=6, num_points=450, noise_px=0.0, extent=3.5, roll_deg=30.0)


def noisy(truth: Reconstruction, seed: int) -> Reconstruction:
    tracks = truth.tracks
    noise = NOISE_PX * np.random.default_rng(seed).standard_normal(tracks.obs_xy.shape)
    return replace(truth, tracks=replace(tracks, obs_xy=tracks.obs_xy + noise))


def differences(model: Reconstruction, truth: Reconstruction) -> np.ndarray:
    """(rotation vector, centre) of every view against the truth, (view, 6)."""
    turn = model.cam_from_world[:, :, :3] @ truth.cam_from_world[:, :, :3].transpose(0, 2, 1)
    shift = camera_centres(model.cam_from_world) - camera_centres(truth.cam_from_world)
    return np.concatenate([Rotation.from_matrix(turn).as_rotvec(), shift], axis=1)


def gauge_projection(poses: np.ndarray) -> np.ndarray:
    """Takes from pose differences what a similarity of all of them makes."""
    weighed = gauge_directions(poses)
    size2 = np.square(camera_centres(poses) - camera_centres(poses).mean(0)).sum(1).mean()
    weight = np.tile([size2] * 3 + [1.0] * 3, len(poses))
    plain = weighed / weight[:, None]
    return np.eye(len(weight)) - plain @ np.linalg.solve(plain.T @ weighed, weighed.T)


def spread(
    truth: Reconstruction, held: Held, options: BundleOptions = OPTIONS, runs: int = 40
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What many adjustments of the truth with fresh noise do: deviations of positions, rotations, parameters."""
    free_gauge = held.pose.sum() < 2 and held.positions is None
    found, params = [], []
    for seed in range(runs):
        adjusted, report = adjust(noisy(truth, seed), options, with_noise(held, seed))
        assert report.usable
        difference = differences(adjusted, truth)
        if free_gauge:
            difference = (gauge_projection(truth.cam_from_world) @ difference.ravel()).reshape(-1, 6)
        found.append(difference)
        params.append(adjusted.cameras[0].params)
    square = np.mean(np.square(found), axis=0)
    return (
        np.sqrt(square[:, 3:].sum(1)),
        np.degrees(np.sqrt(square[:, :3].sum(1))),
        np.std(params, axis=0),
    )


def with_noise(held: Held, seed: int) -> Held:
    """Position priors as far from the truth as they claim to be."""
    if held.positions is None:
        return held
    place, sigma = held.positions.position, held.positions.sigma
    noise = sigma * np.random.default_rng(1000 + seed).standard_normal(place.shape)
    return replace(held, positions=replace(held.positions, position=place + noise))


def predicted(truth: Reconstruction, held: Held) -> ModelUncertainty:
    return estimate_uncertainty(result_of(noisy(truth, 1000), held))


def result_of(model: Reconstruction, held: Held | None = None, options: BundleOptions = OPTIONS) -> AdjustResult:
    held = held or Held.nothing(model)
    adjusted, _ = adjust(model, options, held)
    return AdjustResult(model=adjusted, dropped={}, options=options, held=held, lenses=())


def hold(model: Reconstruction, *views: int) -> Held:
    return replace(Held.nothing(model), pose=np.isin(np.arange(len(model.image_index)), views))


def agree(measured: np.ndarray, claimed: np.ndarray) -> None:
    """40 runs give each deviation to 8 percent or so, and their mean over views better."""
    ratio = claimed / measured
    assert np.all((ratio > 0.7) & (ratio < 1.4)), ratio
    assert 0.8 < np.exp(np.log(ratio).mean()) < 1.25, ratio


def test_predicted_deviations_are_those_of_repeated_adjustments(truth):
    position, rotation_deg, params = spread(truth, Held.nothing(truth))
    claimed = predicted(truth, Held.nothing(truth))
    agree(position, claimed.noise.position)
    agree(rotation_deg, claimed.noise.rotation_deg)
    (camera,) = claimed.noise.camera_params
    assert camera[1] == camera[2] == 0, "the principal point was not refined"
    agree(params[[0, 3]], np.array(camera)[[0, 3]])
    assert not claimed.weak.any() and not claimed.metric
    assert (claimed.position >= claimed.noise.position).all() and claimed.camera_params[0] >= camera


def test_with_the_loss_of_a_run_the_prediction_holds(truth):
    """A Cauchy loss whose scale is the median error fits short tracks very closely: its residuals look too small."""
    options = replace(OPTIONS, loss_scale_px=loss_scale_px(adjust(noisy(truth, 1000), OPTIONS)[0], 1.0))
    assert 0.3 < options.loss_scale_px < 0.6
    position, rotation_deg, _ = spread(truth, Held.nothing(truth), options, runs=15)
    claimed = estimate_uncertainty(result_of(noisy(truth, 1000), options=options)).noise
    ratio = np.concatenate([claimed.position / position, claimed.rotation_deg / rotation_deg])
    assert 0.8 < np.exp(np.log(ratio).mean()) < 1.25, ratio


def test_held_poses_are_exact_and_set_the_gauge_of_the_others(truth):
    held = hold(truth, 0, 3)
    position, rotation_deg, _ = spread(truth, held)
    claimed = predicted(truth, held)
    assert (claimed.position[[0, 3]] == 0).all() and (claimed.rotation_deg[[0, 3]] == 0).all()
    free = ~held.pose
    agree(position[free], claimed.noise.position[free])
    agree(rotation_deg[free], claimed.noise.rotation_deg[free])
    assert claimed.metric


def test_position_priors_set_the_gauge(truth):
    """In a frame far from its origin, with priors that are as uncertain as they say."""
    sigma, shift = 0.05, np.array([30.0, -40.0, 20.0])
    centres = camera_centres(truth.cam_from_world) + shift
    rotation = truth.cam_from_world[:, :, :3]
    poses = np.concatenate([rotation, -(rotation @ centres[:, :, None])], axis=2)
    away = replace(truth, cam_from_world=poses, points=truth.points + shift)
    held = replace(Held.nothing(away), positions=PositionPriors(position=centres, sigma=sigma))
    position, rotation_deg, _ = spread(away, held)
    claimed = predicted(away, held)
    agree(position, claimed.noise.position)
    agree(rotation_deg, claimed.noise.rotation_deg)
    assert not claimed.weak.any(), "all positions are uncertain alike"
    assert claimed.metric and (claimed.position > 3 * predicted(truth, Held.nothing(truth)).position).all()


def test_two_positions_are_too_few_for_a_frame(truth):
    centres = camera_centres(truth.cam_from_world)
    centres[2:] = np.nan
    held = replace(Held.nothing(truth), positions=PositionPriors(position=centres, sigma=0.05))
    claimed, free = predicted(truth, held), predicted(truth, Held.nothing(truth))
    assert not claimed.metric
    assert np.allclose(claimed.position, free.position, rtol=1e-3)


def test_the_principal_point_has_a_deviation_where_it_is_refined(truth):
    options = replace(OPTIONS, refine_principal_point=True)
    adjusted, _ = adjust(noisy(truth, 3), options)
    held = Held.nothing(adjusted)
    variance = residual_variance_px2(adjusted)
    (covariance,) = intrinsics_covariances(adjusted, options, held, variance)
    deviation = np.sqrt(np.diag(covariance))
    assert np.abs((np.array(adjusted.cameras[0].params) - CAMERA.params) / deviation).max() < 4
    assert (np.linalg.eigvalsh(covariance) > 0).all()
    fixed = intrinsics_covariances(adjusted, options, replace(held, camera=np.array([True])), variance)
    assert fixed == [None]


@pytest.mark.parametrize("seed", [0, 1])
def test_residuals_show_the_noise(truth, seed):
    adjusted, _ = adjust(noisy(truth, seed), replace(OPTIONS, loss_scale_px=20.0))
    assert residual_variance_px2(adjusted) == pytest.approx(NOISE_PX**2, rel=0.1)


def test_a_badly_held_image_is_named(truth):
    """One view keeps 8 observations of the farthest points."""
    result = result_of(weakened(noisy(truth, 5), view=2))
    claimed = estimate_uncertainty(result)
    assert claimed.weak.tolist() == [False, False, True, False, False, False]
    report = report_uncertainty(result.model, claimed, [f"{k}.jpg" for k in range(6)])
    assert report.weak_images == ["2.jpg"]


def weakened(model: Reconstruction, view: int) -> Reconstruction:
    tracks = model.tracks
    mine = np.flatnonzero(tracks.obs_image == view)
    far = np.linalg.norm(model.points[tracks.obs_point[mine]] - camera_centres(model.cam_from_world)[view], axis=1)
    keep = np.ones(len(tracks.obs_point), bool)
    keep[mine[np.argsort(far)[:-8]]] = False
    kept, old_point = select_observations(tracks, keep)
    return with_points(model, kept, model.points[old_point])


@pytest.mark.parametrize("factor", [1e3, 1e-3])
def test_shares_of_the_scene_size_do_not_depend_on_the_unit(truth, factor):
    result = result_of(noisy(truth, 7))
    model = result.model
    scaled = replace(model, points=factor * model.points, cam_from_world=model.cam_from_world.copy())
    scaled.cam_from_world[:, :, 3] *= factor
    names = [f"{k}.jpg" for k in range(6)]
    reports = [report_uncertainty(m, estimate_uncertainty(replace(result, model=m)), names) for m in (model, scaled)]
    assert reports[1].scene_size == pytest.approx(factor * reports[0].scene_size, rel=1e-4)
    for small, large in zip(reports[0].images, reports[1].images, strict=True):
        assert large.position_share == pytest.approx(small.position_share, rel=0.02)
        assert large.rotation_deg == pytest.approx(small.rotation_deg, rel=0.02)
        assert large.position == pytest.approx(factor * small.position, rel=0.02)
        assert large.position_m is None and not large.weak
    assert reports[1].camera_params[0] == pytest.approx(reports[0].camera_params[0], rel=0.02)


def test_the_gauge_projection_takes_out_similarities_and_nothing_else(truth):
    """Moving all poses together leaves no difference; a projection applied twice is applied once."""
    project = gauge_projection(truth.cam_from_world)
    assert np.allclose(project @ project, project, atol=1e-10)
    assert np.linalg.matrix_rank(project, tol=1e-8) == 6 * 6 - 7
    turn = Rotation.from_rotvec([1e-6, -2e-6, 3e-6]).as_matrix()
    centres = camera_centres(truth.cam_from_world)
    moved = (1 + 2e-6) * centres @ turn.T + [1e-6, 5e-6, -2e-6]
    rotation = truth.cam_from_world[:, :, :3] @ turn.T
    poses = np.concatenate([rotation, -(rotation @ moved[:, :, None])], axis=2)
    difference = differences(replace(truth, cam_from_world=poses), truth).ravel()
    assert np.abs(difference).max() > 1e-6
    assert np.abs(project @ difference).max() < 1e-9


def test_too_many_views_have_unknown_deviations(truth, monkeypatch):
    """Intrinsics are judged from the views that fit, a little more cautiously."""
    result = result_of(noisy(truth, 0))
    all_views = estimate_uncertainty(result)
    monkeypatch.setattr("anchorsfm.tracks.uncertainty.MAX_UNKNOWNS", 5 * 6 + 4)
    claimed = estimate_uncertainty(result)
    assert np.isnan(claimed.position).all() and np.isnan(claimed.rotation_deg).all()
    assert not claimed.weak.any()
    assert 1 < claimed.noise.camera_params[0][0] / all_views.noise.camera_params[0][0] < 3
    report = report_uncertainty(truth, claimed, [f"{k}.jpg" for k in range(6)])
    assert [image.position for image in report.images] == [None] * 6


def test_a_large_model_is_summed_up_by_parts(truth, monkeypatch):
    result = result_of(noisy(truth, 0))
    at_once = estimate_uncertainty(result)
    monkeypatch.setattr("anchorsfm.tracks.linearised._OBSERVATIONS_AT_A_TIME", 300)
    by_parts = estimate_uncertainty(result)
    assert len(result.model.tracks.obs_point) > 5 * 300
    np.testing.assert_allclose(by_parts.position, at_once.position, rtol=1e-6)
    np.testing.assert_allclose(by_parts.camera_params[0], at_once.camera_params[0], rtol=1e-6)


def test_products_of_dense_arrays_and_of_sparse_ones_say_the_same(truth, monkeypatch):
    result = result_of(noisy(truth, 0))
    found = []
    for dense in (0.0, 1.0):
        monkeypatch.setattr("anchorsfm.tracks.linearised._DENSE", dense)
        found.append(estimate_uncertainty(result))
    np.testing.assert_allclose(found[0].position, found[1].position, rtol=1e-6)
    np.testing.assert_allclose(found[0].camera_params[0], found[1].camera_params[0], rtol=1e-6)


def test_points_that_nothing_free_sees_say_nothing(truth):
    held = hold(truth, 0, 1, 2, 3)
    all_points = result_of(noisy(truth, 0), replace(held, camera=np.array([True])))
    mine = seen_by(truth, ~held.pose)
    assert not mine.all()
    some = replace(all_points, model=select_points(all_points.model, mine[all_points.model.tracks.obs_point]))
    # of their equations, and so of all but the size of the scene
    a, b = (linearise(result.model, OPTIONS.loss_scale_px) for result in (all_points, some))
    unknowns = np.flatnonzero(np.repeat(~held.pose, 6))
    every, fewer = (normal_equations(lin, unknowns, np.ones(len(lin.point), bool)) for lin in (a, b))
    assert every.outer is not None and fewer.outer is not None
    for one, other in (
        (every.hessian, fewer.hessian),
        (every.gradient, fewer.gradient),
        (every.outer, fewer.outer),
    ):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9 * np.abs(one).max())
    alone = normal_equations(a, unknowns, np.ones(len(a.point), bool), with_outer=False)
    np.testing.assert_allclose(alone.gradient, every.gradient, atol=1e-9 * np.abs(every.gradient).max())
    assert alone.outer is None


# ------------------------------------------------------------------------------------------------ errors of the model


def flight(seed: int) -> Reconstruction:
    """Nine photographs straight down at flat ground, each of which is warped a little in its own way."""
    rng = np.random.default_rng(seed)
    config = SceneConfig(num_images=9, size_wh=(1024, 768), ground=GroundConfig(), seed=seed)
    poses = make_scene(config).cam_from_world
    camera = replace(CAMERA, params=(config.focal * 1024, 512.0, 384.0, 0.0))
    points = np.column_stack([rng.uniform(-4, 4, 3000), np.full(3000, 1.7), rng.uniform(-4, 4, 3000)])
    rows = []
    for view, pose in enumerate(poses):
        xy, seen = project(camera, points @ pose[:, :3].T + pose[:, 3])
        seen &= ((xy >= 0) & (xy < (1024, 768))).all(axis=1)
        u, v = ((xy[seen] - (512, 384)) / 640).T
        warp = 0.25 * np.stack([u * u, u * v, v * v], axis=1) @ rng.standard_normal((3, 2))
        xy = xy[seen] + warp + 0.1 * rng.standard_normal((int(seen.sum()), 2))
        rows.append((np.flatnonzero(seen), np.full(len(xy), view), xy))
    point, image, xy = (np.concatenate(part) for part in zip(*rows, strict=True))
    many = np.bincount(point, minlength=len(points)) >= 3
    order = np.lexsort((image, point))
    order = order[many[point[order]]]
    return Reconstruction(
        image_index=np.arange(9),
        cam_from_world=poses,
        cameras=(camera,),
        camera_index=np.zeros(9, np.int64),
        points=points[many],
        rgb=np.zeros((int(many.sum()), 3), np.uint8),
        error_px=np.zeros(int(many.sum())),
        tracks=Tracks(obs_point=(np.cumsum(many) - 1)[point[order]], obs_image=image[order], obs_xy=xy[order]),
    )


def test_deviations_cover_what_the_photographs_disagree_about():
    """Noise alone explains few of the errors of the focal length; the whole deviation nearly all, and is not huge."""
    error, noise, whole = [], [], []
    for seed in range(8):
        result = result_of(flight(seed))
        claimed = estimate_uncertainty(result)
        error.append(abs(result.model.cameras[0].params[0] - 0.9 * 1024))
        noise.append(claimed.noise.camera_params[0][0])
        whole.append(claimed.camera_params[0][0])
    error, noise, whole = np.array([error, noise, whole])
    assert (error > 2 * noise).sum() >= 4, error / noise
    assert (error <= 2 * whole).sum() >= 7, error / whole
    assert np.median(error / whole) > 0.15


def test_a_camera_model_that_predicts_as_well_widens_the_focal_length(truth):
    result = result_of(noisy(truth, 3))

    def chosen(worse: float) -> LensChoice:
        trials = [
            LensTrial(camera_model=name, score=score, median_error_px=0.2, focal_px=focal)
            for name, score, focal in (("SIMPLE_RADIAL", 0.5, 900.0), ("RADIAL", 0.5 * (1 + worse), 960.0))
        ]
        return LensChoice(camera_model="SIMPLE_RADIAL", trials=tuple(trials))

    alone = estimate_uncertainty(result)
    as_well = estimate_uncertainty(replace(result, lenses=(chosen(0.0),)))
    much_worse = estimate_uncertainty(replace(result, lenses=(chosen(0.3),)))
    assert as_well.camera_params[0][0] == pytest.approx(np.hypot(alone.camera_params[0][0], 60), rel=1e-3)
    assert (as_well.position > alone.position).all()
    assert much_worse.camera_params[0][0] == pytest.approx(alone.camera_params[0][0], rel=1e-3)


def test_what_all_images_share_makes_none_of_them_weak(truth):
    claimed = predicted(truth, Held.nothing(truth))
    poor = _stands_out(np.full(6, 0.2), 0.01)
    assert not poor.any() and not claimed.weak.any()
    assert _stands_out(np.array([0.2] * 5 + [0.5]), 0.01).tolist() == [False] * 5 + [True]


def test_two_views_have_deviations(truth):
    tracks, points = select_observations(truth.tracks, truth.tracks.obs_image < 2)
    pair = with_points(noisy(truth, 2), tracks, truth.points[points])
    pair = replace(
        pair,
        image_index=pair.image_index[:2],
        cam_from_world=pair.cam_from_world[:2],
        camera_index=pair.camera_index[:2],
    )
    length = np.bincount(tracks.obs_point)
    tracks, points = select_observations(tracks, (length == 2)[tracks.obs_point])
    claimed = estimate_uncertainty(result_of(with_points(pair, tracks, pair.points[points])))
    assert np.isfinite(claimed.position).all() and claimed.camera_params[0][0] > 0


@pytest.mark.parametrize("num_views", [3, 8])
def test_parallel_cameras_are_not_certain_of_their_focal_length(num_views: int) -> None:
    """It can be changed together with all depths: normal equations are singular, and no residual shows that."""
    rng = np.random.default_rng(5)
    points, poses = rng.uniform([-3, -2, 4], [3, 2, 9], (200, 3)), np.tile(np.eye(3, 4), (num_views, 1, 1))
    poses[:, 0, 3] = -0.3 * np.arange(num_views)
    xy = np.concatenate([project(CAMERA, points + pose[:, 3])[0] for pose in poses])
    order = np.argsort(np.tile(np.arange(200), num_views), kind="stable")
    tracks = Tracks(
        obs_point=np.repeat(np.arange(200), num_views),
        obs_image=np.repeat(np.arange(num_views), 200)[order],
        obs_xy=(xy + 0.01 * rng.standard_normal(xy.shape))[order],
    )
    truth = Reconstruction(
        image_index=np.arange(num_views),
        cam_from_world=poses,
        cameras=(CAMERA,),
        camera_index=np.zeros(num_views, int),
        points=points,
        rgb=np.zeros((200, 3), np.uint8),
        error_px=np.full(200, np.nan),
        tracks=tracks,
    )
    options = replace(OPTIONS, refine_distortion=False)
    model, _ = adjust(truth, options)
    found = estimate_uncertainty(
        AdjustResult(model=model, dropped={}, options=options, held=Held.nothing(model), lenses=())
    )
    (params,) = found.camera_params
    assert params is not None and params[0] > 0.05 * CAMERA.params[0]
