"""Rotations with standard deviations in the adjustment."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from anchorsfm.colmap.bundle import BundleOptions, Held, PositionPriors, RotationPriors, adjust
from anchorsfm.geometry.transforms import camera_centres, rotation_angle_deg
from anchorsfm.scene.edit import select_points, with_poses
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.adjust import AdjustResult
from anchorsfm.tracks.build import build_tracks
from anchorsfm.tracks.linearised import linearise, normal_equations, solve
from anchorsfm.tracks.points import triangulate_model
from anchorsfm.tracks.uncertainty import estimate_uncertainty
from point_scene import make_point_scene

OPTIONS = BundleOptions(loss_scale_px=0.5, function_tolerance=1e-12, max_iterations=200)
SIGMA_M = 0.01
SCENE = make_point_scene()
TRUE = SCENE.model.cam_from_world


def known_poses(sigma_deg: float, seed: int) -> tuple[np.ndarray, PositionPriors, RotationPriors]:
    """Poses that are off by the deviations, and the priors that they are."""
    rng = np.random.default_rng(seed)
    turn = Rotation.from_rotvec(np.radians(sigma_deg) * rng.standard_normal((len(TRUE), 3))).as_matrix()
    centre = camera_centres(TRUE) + SIGMA_M * rng.standard_normal((len(TRUE), 3))
    rotation = turn @ TRUE[:, :, :3]
    poses = np.concatenate([rotation, -rotation @ centre[:, :, None]], axis=2)
    return poses, PositionPriors(position=centre, sigma=SIGMA_M), RotationPriors(rotation=rotation, sigma_deg=sigma_deg)


def model_at(poses: np.ndarray, chosen: np.ndarray | None = None) -> Reconstruction:
    """The scene with poses, points triangulated from them; `chosen`: only some of these."""
    start = triangulate_model(
        with_poses(SCENE.model, poses), build_tracks(SCENE.matches, 8), max_error_px=np.full(8, 90.0), min_angle_deg=1.0
    )
    return start if chosen is None else select_points(start, chosen[start.tracks.obs_point])


def adjusted(start: Reconstruction, positions: PositionPriors, rotations: RotationPriors | None) -> Reconstruction:
    held = replace(Held.nothing(start), camera=np.ones(1, bool), positions=positions, rotations=rotations)
    model, report = adjust(start, OPTIONS, held)
    assert report.usable
    return model


def errors_deg(model: Reconstruction, rotation: np.ndarray = TRUE[:, :, :3]) -> np.ndarray:
    return rotation_angle_deg(model.cam_from_world[:, :, :3] @ rotation.transpose(0, 2, 1))


@pytest.mark.parametrize("sigma_deg", [0.01, 0.1, 1.0])
def test_the_optimum_is_that_of_the_stated_deviations(sigma_deg: float) -> None:
    """Newton's step of observations, positions and rotations, written down independently, is none."""
    poses, positions, rotations = known_poses(sigma_deg, seed=1)
    model = adjusted(model_at(poses), positions, rotations)
    lin = linearise(model, OPTIONS.loss_scale_px)
    unknowns = np.arange(6 * len(TRUE))
    equations = normal_equations(lin, unknowns, np.ones(len(lin.point), bool))
    hessian, gradient = equations.hessian, equations.gradient
    off = Rotation.from_matrix(model.cam_from_world[:, :, :3] @ rotations.rotation.transpose(0, 2, 1)).as_rotvec()
    away = camera_centres(model.cam_from_world) - positions.position
    sigma = np.radians(sigma_deg)
    gradient = gradient + np.concatenate([off / sigma**2, away / SIGMA_M**2], axis=1).ravel()
    weight = np.tile([1 / sigma**2] * 3 + [1 / SIGMA_M**2] * 3, len(TRUE))
    step = solve(hessian + np.diag(weight), gradient[:, None])[:, 0].reshape(-1, 2, 3)
    assert np.abs(step[:, 0]).max() < 0.03 * sigma and np.abs(step[:, 1]).max() < 0.03 * SIGMA_M
    assert np.abs(off).max() > 0.1 * sigma  # neither is the prior by itself


def test_what_few_points_leave_open_stays_where_it_is_known_to_be() -> None:
    """Points in a narrow upright strip hardly show how a camera is turned about it."""
    with_prior, without = [], []
    for seed in range(4):
        poses, positions, rotations = known_poses(0.1, seed)
        start = model_at(poses)
        chosen = np.zeros(len(start.points), bool)
        chosen[np.flatnonzero(np.hypot(start.points[:, 0], start.points[:, 2]) < 0.35)[:7]] = True
        start = model_at(poses, chosen)
        with_prior.append(errors_deg(adjusted(start, positions, rotations)))
        without.append(errors_deg(adjusted(start, positions, None)))
    kept, open_ = np.sqrt(np.mean(np.square(with_prior))), np.sqrt(np.mean(np.square(without)))
    assert kept < 0.15 and open_ > 1.5 * kept


def test_rotations_that_points_show_are_not_bent() -> None:
    """Priors ten times as wrong as points are exact: the cameras turn against each other as the points say."""
    _, positions, rotations = known_poses(1.0, seed=3)
    start = model_at(TRUE)
    free, kept = adjusted(start, positions, None), adjusted(start, positions, rotations)
    between = [m.cam_from_world[1:, :, :3] @ np.swapaxes(m.cam_from_world[:-1, :, :3], 1, 2) for m in (free, kept)]
    assert rotation_angle_deg(between[0] @ between[1].transpose(0, 2, 1)).max() < 0.02
    assert errors_deg(kept, rotations.rotation).mean() > 0.5


def test_deviations_of_the_model_know_the_priors() -> None:
    poses, positions, rotations = known_poses(0.02, seed=2)
    stated, found = [], []
    for priors in (rotations, None):
        model = adjusted(model_at(poses), positions, priors)
        held = replace(Held.nothing(model), camera=np.ones(1, bool), positions=positions, rotations=priors)
        result = AdjustResult(model=model, dropped={}, options=OPTIONS, held=held, lenses=())
        stated.append(float(np.mean(estimate_uncertainty(result).rotation_deg)))
        found.append(float(np.mean(errors_deg(model))))
    assert stated[0] < 0.5 * stated[1] and found[0] < 2 * stated[0] and stated[0] < 3 * found[0]


def test_views_without_a_known_rotation_and_any_unit_are_fine() -> None:
    poses, positions, rotations = known_poses(0.05, seed=4)
    some = rotations.rotation.copy()
    some[::2] = np.nan
    model = adjusted(model_at(poses), positions, replace(rotations, rotation=some))
    assert errors_deg(model).mean() < 0.06
    kilo = 1e5
    start = model_at(poses)
    large = replace(
        start,
        points=kilo * start.points,
        cam_from_world=np.concatenate([start.cam_from_world[:, :, :3], kilo * start.cam_from_world[:, :, 3:]], axis=2),
    )
    far = PositionPriors(position=kilo * positions.position, sigma=kilo * SIGMA_M)
    scaled = adjusted(large, far, replace(rotations, rotation=some))
    assert errors_deg(scaled, model.cam_from_world[:, :, :3]).max() < 1e-3
