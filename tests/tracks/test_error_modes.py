"""What errors the cameras of a model have together: against repeated adjustments, and in other frames."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import eigvalsh
from scipy.spatial.transform import Rotation

from anchorsfm.colmap.bundle import BundleOptions, Held, adjust
from anchorsfm.geometry.similarity import Similarity
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.scene.edit import moved
from anchorsfm.scene.reconstruction import Camera, Reconstruction
from anchorsfm.tracks.adjust import AdjustResult
from anchorsfm.tracks.error_modes import ErrorModes, largest_modes
from anchorsfm.tracks.linearised import gauge_directions
from anchorsfm.tracks.uncertainty import ModelUncertainty, estimate_uncertainty
from point_scene import make_lens_scene
from rig_scene import rig_model, rig_truth

OPTIONS = BundleOptions(loss_scale_px=2.0, function_tolerance=1e-8)
CAMERA = Camera(model="SIMPLE_RADIAL", width=1024, height=768, params=(900.0, 512.0, 384.0, 0.0))
WAY = Similarity.of(Rotation.from_rotvec([0.4, -1.1, 0.7]).as_matrix(), np.array([3.0, -7.0, 2.0]), 2.5)


@pytest.fixture(scope="module")
def result() -> AdjustResult:
    model = make_lens_scene((CAMERA,), num_views=6, num_points=450, noise_px=0.5, extent=3.5, roll_deg=30.0)
    return adjusted(model)


def adjusted(model: Reconstruction, held: Held | None = None) -> AdjustResult:
    held = held or Held.nothing(model)
    found, _ = adjust(model, OPTIONS, held)
    return AdjustResult(model=found, dropped={}, options=OPTIONS, held=held, lenses=())


def modes_of(uncertainty: ModelUncertainty) -> ErrorModes:
    assert uncertainty.modes is not None
    return uncertainty.modes


def test_each_pose_and_parameter_has_the_deviation_that_is_stated(result: AdjustResult) -> None:
    said = estimate_uncertainty(result)
    modes = modes_of(said)
    variance = np.diagonal(modes.covariances, axis1=1, axis2=2)
    np.testing.assert_allclose(np.sqrt(variance[:, 3:].sum(axis=1)), said.position)
    np.testing.assert_allclose(np.degrees(np.sqrt(variance[:, :3].sum(axis=1))), said.rotation_deg)
    np.testing.assert_allclose(np.sqrt((modes.params**2).sum(axis=0)), said.camera_params[0])
    np.testing.assert_allclose(modes.position_deviations, np.sqrt(variance[:, 3:]))
    # errors are those against the cameras as a whole: no mode shifts, turns or scales all of them together
    against = np.abs(np.einsum("mk,kg->mg", modes.poses.reshape(len(modes.params), -1), gauge(result.model)))
    assert against.max() < 0.2 * np.abs(modes.poses).reshape(len(modes.params), -1).sum(axis=1).max()


def gauge(model: Reconstruction) -> np.ndarray:
    directions = gauge_directions(model.cam_from_world)
    return np.asarray(directions / np.linalg.norm(directions, axis=0))


def test_the_modes_of_a_moved_model_are_its_moved_modes(result: AdjustResult) -> None:
    """Shapes are the same to first order; sizes are stated by axes of the world, and differ by a little."""
    turned = replace(result, model=moved(result.model, WAY.scale, WAY.pose))
    here, there = estimate_uncertainty(result), estimate_uncertainty(turned)
    expected, found = modes_of(here).moved(WAY), modes_of(there)
    np.testing.assert_allclose(modes_of(here.moved(WAY)).position, expected.position)
    np.testing.assert_allclose(here.moved(WAY).position, WAY.scale * here.position)
    ratio = there.position / (WAY.scale * here.position)
    assert (np.abs(np.log(ratio)) < 0.2).all(), "of the stated deviations"
    for rows, size in ((slice(3, 6), ratio), (slice(0, 3), there.rotation_deg / here.rotation_deg)):
        theirs = found.covariances[:, rows, rows]
        ours = size[:, None, None] ** 2 * expected.covariances[:, rows, rows]
        assert np.linalg.norm(theirs - ours) < 0.01 * np.linalg.norm(ours)


def test_the_ellipsoids_are_those_of_repeated_adjustments() -> None:
    """Two cameras hold the gauge and the lens is known, so noise is all that moves the others."""
    truth = make_lens_scene((CAMERA,), num_views=6, num_points=450, noise_px=0.0, extent=3.5, roll_deg=30.0)
    held = Held(pose=np.isin(np.arange(6), [0, 3]), camera=np.ones(1, bool))
    shifts, said = [], []
    for seed in range(20):
        noise = 0.5 * np.random.default_rng(seed).standard_normal(truth.tracks.obs_xy.shape)
        noisy = replace(truth, tracks=replace(truth.tracks, obs_xy=truth.tracks.obs_xy + noise))
        found = adjusted(noisy, held)
        shifts.append(camera_centres(found.model.cam_from_world) - camera_centres(truth.cam_from_world))
        if seed < 5:  # of a few views the jackknife is uncertain itself
            modes = modes_of(estimate_uncertainty(found))
            assert (modes.poses[:, [0, 3]] == 0).all()
            said.append(modes.covariances[:, 3:, 3:])
    for view in (1, 2, 4, 5):
        ratio = eigvalsh(np.cov(np.array(shifts)[:, view].T), np.mean(said, axis=0)[view])  # in all directions
        assert ratio[0] > 0.15 and ratio[2] < 2.5


def test_cameras_of_a_rig_err_with_their_frame() -> None:
    model, _ = adjust(rig_model(rig_truth(frames=4), noise_px=0.3, pose_noise=0.0), OPTIONS)
    nothing = Held(pose=np.zeros(len(model.image_index), bool), camera=np.ones(len(model.cameras), bool))
    options = replace(OPTIONS, refine_focal=False, refine_distortion=False)
    said = estimate_uncertainty(AdjustResult(model=model, dropped={}, options=options, held=nothing, lenses=()))
    modes = modes_of(said)
    np.testing.assert_allclose(np.sqrt((modes.position**2).sum(axis=(0, 2))), said.position)
    assert modes.rotation.shape[1:] == (12, 3) and not modes.params.any()
    turned = np.einsum("vji,mvj->mvi", model.cam_from_world[:, :, :3], modes.rotation)  # in the axes of the world
    for frame in range(4):
        first, second = turned[:, 3 * frame].ravel(), turned[:, 3 * frame + 1].ravel()
        assert first @ second > 0.7 * np.linalg.norm(first) * np.linalg.norm(second)


def test_the_largest_modes_are_kept_and_what_is_unknown_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    long = 10 * rng.standard_normal((3, 90))
    unit = np.ones(90)
    unit[7] = 0
    covariance = long.T @ long + 1e-4 * np.eye(90)
    modes = largest_modes(covariance, unit)
    assert len(modes) == 3 and (modes[:, 7] == 0).all()
    expected = covariance.copy()
    expected[7], expected[:, 7] = 0, 0
    assert np.linalg.norm(modes.T @ modes - expected) < 1e-3 * np.linalg.norm(expected)
    monkeypatch.setattr("anchorsfm.tracks.error_modes._SMALL", 50)
    np.testing.assert_allclose((few := largest_modes(covariance, unit)).T @ few, modes.T @ modes, atol=1e-6)
