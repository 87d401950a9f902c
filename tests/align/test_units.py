"""Results that do not depend on the units, on how long the lens is, or on which pictures were made smaller."""

from dataclasses import replace

import numpy as np
import pytest

from anchorsfm.align.config import AlignConfig, ReferenceCompat, Solver
from anchorsfm.align.run import similarity_of_poses
from anchorsfm.align.scene import align_scene
from anchorsfm.geometry.transforms import invert, rotation_angle_deg
from anchorsfm.io.store import Store
from anchorsfm.observe.graph import build_scene_graph
from anchorsfm.scene.alignment import KnownImage, SolverStatus
from anchorsfm.scene.pairs import PairList
from anchorsfm.scene.progress import SILENT
from anchorsfm.synthetic import OracleNoise, SceneConfig, SyntheticFrontend, image_set, make_scene
from oval_scene import all_pairs, oval_scene

PAIRS = all_pairs(4)
SCALES = (1e-6, 1e6)


def scaled(cam_from_world, scale):
    return np.concatenate([cam_from_world[:, :3], scale * cam_from_world[:, 3:]], axis=1)


def observed_at(scale, **keywords):
    scene = oval_scene(4, depth_noise=0.02, **keywords)
    return scene, replace(scene, scale=np.full(4, scale)).observe(PAIRS)


def errors(result, truth):
    """Largest rotation (deg) and centre error as a share of the extent of the cameras, after a similarity."""
    estimate, truth = invert(result.cam_from_world), invert(truth)
    scale, rotation, shift = similarity_of_poses(estimate, truth)
    turn = np.swapaxes(rotation @ estimate[:, :, :3], 1, 2) @ truth[:, :, :3]
    centre = scale * estimate[:, :, 3] @ rotation.T + shift
    return rotation_angle_deg(turn).max(), np.abs(centre - truth[:, :, 3]).max() / np.ptp(truth[:, :, 3], axis=0).max()


@pytest.mark.parametrize("solver", Solver)
def test_known_poses_in_any_unit_give_the_same_result(solver):
    scene, observed = observed_at(1.0)
    config = AlignConfig(solver=solver, niter1=80, niter2=60)
    results = {}
    for scale in (1.0, *SCALES):
        known = {
            k: KnownImage(cam_from_world=scaled(scene.cam_from_world[k], scale), freeze_pose=True) for k in (0, 1, 3)
        }
        (result,) = align_scene(observed, config, known=known)
        results[scale] = result
        rotation, centre = errors(result, np.stack([scaled(p, scale) for p in scene.cam_from_world]))
        assert rotation < 0.3 and centre < 0.05, scale
        np.testing.assert_allclose(result.cam_from_world[0], known[0].cam_from_world, rtol=1e-5, atol=1e-5 * scale)
    for scale in SCALES:
        np.testing.assert_allclose(results[scale].anchor_depth, scale * results[1.0].anchor_depth, rtol=1e-3)
        assert len(results[scale].fine.total) > 5 and results[scale].fine.total[-1] < results[scale].fine.total[0]


@pytest.mark.parametrize(
    ("solver", "power"), [(Solver.SECOND_ORDER, -20), (Solver.SECOND_ORDER, 20), (Solver.ADAM, -20)]
)
def test_predictions_in_any_unit_give_the_same_result(solver, power):
    config = AlignConfig(solver=solver, niter1=30, niter2=20)
    (plain,) = align_scene(observed_at(1.0)[1], config)
    (other,) = align_scene(observed_at(2.0**power)[1], config)
    np.testing.assert_allclose(other.cam_from_world[:, :, :3], plain.cam_from_world[:, :, :3], atol=1e-6)
    np.testing.assert_allclose(other.cam_from_world[:, :, 3] / 2.0**power, plain.cam_from_world[:, :, 3], atol=1e-5)
    np.testing.assert_allclose(other.anchor_depth / 2.0**power, plain.anchor_depth, rtol=1e-5)
    np.testing.assert_allclose(other.fine.total, plain.fine.total, rtol=1e-5)


@pytest.mark.parametrize("solver", Solver)
def test_a_stage_that_gets_nowhere_does_not_say_converged(solver):
    """Every depth below the limit under which an observation is uninformative, as with tiny units before."""
    scene, observed = observed_at(1e-6)
    config = AlignConfig(solver=solver, reference=ReferenceCompat(raw_units=True), niter1=0, niter2=30)
    known = {k: KnownImage(cam_from_world=scaled(scene.cam_from_world[k], 1e-6), freeze_pose=True) for k in range(4)}
    (result,) = align_scene(observed, config, known=known)
    assert result.fine.status in (SolverStatus.STALLED, SolverStatus.MAX_ITERATIONS)


def observe(scene, noise, halved=()):
    pairs = PairList(index=np.array(all_pairs(scene.num_images)))
    frontend = SyntheticFrontend(scene=scene, noise=noise, num_keypoints=0, halved=halved)
    predictor = frontend.open(image_set(scene), pairs, Store(None), SILENT)
    return build_scene_graph(scene.num_images, predictor, predictor.grid), predictor.focal_grid_px


@pytest.mark.parametrize("focal", [0.3, 4.0, 10.0])
def test_long_and_short_lenses(focal):
    """Focal lengths used to be clipped to 0.43 .. 3.03 x the longer side."""
    scene = make_scene(SceneConfig(num_images=4, focal=focal, radius_m=3 * focal / 0.9))
    observed, truth = observe(scene, OracleNoise.none())
    np.testing.assert_allclose([view.focal_px for view in observed.views], truth, rtol=1e-3)
    (result,) = align_scene(observed)
    np.testing.assert_allclose(result.focal_px, truth, rtol=0.02)
    assert errors(result, scene.cam_from_world)[0] < 0.1


def test_a_known_focal_length_is_what_relief_belongs_to():
    scene = make_scene(SceneConfig(num_images=4, focal=3.0, radius_m=10.0))
    observed, truth = observe(scene, replace(OracleNoise.none(), focal=0.2))
    known = {k: KnownImage(focal_px=float(f), freeze_intrinsics=True) for k, f in enumerate(truth)}
    (result,) = align_scene(observed, known=known)
    np.testing.assert_allclose(result.base_focal_px, truth, rtol=1e-6)
    assert errors(result, scene.cam_from_world)[0] < 0.05


@pytest.mark.parametrize("solver", Solver)
def test_a_picture_of_half_the_size_shares_the_camera(solver):
    scene = make_scene(SceneConfig(num_images=4))
    config, shared = AlignConfig(solver=solver, niter1=100, niter2=60), np.zeros(4, np.int64)
    found = {}
    for halved in ((), (3,)):
        observed, truth = observe(scene, replace(OracleNoise.none(), match_px=0.2), halved)
        (result,) = align_scene(observed, config, camera_index=shared)
        assert result.focal_px[3] / result.focal_px[0] == pytest.approx(truth[3] / truth[0], rel=1e-6)
        np.testing.assert_allclose(result.focal_px, truth, rtol=0.02)
        found[halved] = errors(result, scene.cam_from_world)[0]
    assert found[3,] < 2 * found[()] + 0.1
