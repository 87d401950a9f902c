"""The alignment against recorded runs of the original with its peculiarities switched on, and what each one does."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from anchorsfm.align.config import AlignConfig, AnchorDepthMode, InitialPoses, ReferenceCompat, Solver
from anchorsfm.align.problem import CoarseObjective, FineObjective
from anchorsfm.align.run import align
from anchorsfm.align.setup import build_problem
from anchorsfm.geometry.transforms import invert
from anchorsfm.observe.anchors import build_anchors
from anchorsfm.observe.tree import build_tree
from golden_scene import golden_scene

CONFIDENCE = {"base": "corr_conf", "lowconf": "corr_conf_lowconf", "lowconf5": "corr_conf_lowconf5"}
VARIANTS = {
    "base": {},
    "base_mst": {"kinematic_mode": "mst"},
    "base_noptdepth": {"opt_depth": False},
    "base_noptpp": {"opt_pp": False},
    "base_mul": {"depth_mode": AnchorDepthMode.MULTIPLY},
    "base_expdepth": {"exp_depth": True},
    "base_shared": {},
    "lowconf": {},
    "lowconf5": {},
}


def scene_of(golden, variant):
    """With the recorded focal lengths, which the original rounds in float32 (2e-5)."""
    focal = np.load(golden / "sparse_scene_canonical.npz")["canon_focal"]
    scene = golden_scene(golden, CONFIDENCE[variant.split("_")[0]], double=False)
    views = tuple(replace(view, focal_px=float(f)) for view, f in zip(scene.views, focal, strict=True))
    return replace(scene, views=views)


def config_of(variant, *, double=True, reference=None, **settings):
    return AlignConfig(
        solver=Solver.ADAM,
        init_poses=InitialPoses.IDENTITY,
        double_precision=double,
        reference=ReferenceCompat.all() if reference is None else reference,
        **VARIANTS[variant],
        **settings,
    )


def parts_of(golden, variant, config):
    scene = scene_of(golden, variant)
    anchors = build_anchors(scene)
    unmatched = config.reference.unmatched_tree_edges
    tree = build_tree(scene.graph, anchors, config.kinematic_mode, allow_unmatched_edges=unmatched)
    cameras = np.zeros(6, np.int64) if "shared" in variant else None
    return scene, anchors, tree, cameras


def run(golden, variant, **settings):
    config = config_of(variant, **settings)
    scene, anchors, tree, cameras = parts_of(golden, variant, config)
    return align(scene, anchors, tree, config, camera_index=cameras)


def recorded(golden, name):
    data = np.load(golden / "sparse_scene_results.npz")
    return {key.split("/")[1]: data[key] for key in data if key.split("/")[0] == name}


def test_focals_of_the_stream_agree(golden):
    focal = [view.focal_px for view in golden_scene(golden, double=False).views]
    np.testing.assert_allclose(focal, np.load(golden / "sparse_scene_canonical.npz")["canon_focal"], rtol=5e-5)


@pytest.mark.parametrize("variant", ["base", "base_shared", "lowconf", "lowconf5"])
def test_first_losses_and_gradients(golden, variant):
    config = config_of(variant)
    expected = recorded(golden, f"{variant}_f64")
    scene, anchors, tree, cameras = parts_of(golden, variant, config)
    problem = build_problem(scene, anchors, tree, config, cameras)
    objective = CoarseObjective(problem.observations, problem.start, problem.layout, config)
    variables = replace(problem.start)
    names = {"quaternion": "quats", "translation": "trans", "log_size": "log_sizes"}
    for name in names:
        getattr(variables, name).requires_grad_()
    losses = objective(variables)
    assert losses.matching.item() == pytest.approx(expected["traj_loss_3d"][0], rel=1e-5)
    assert losses.fallback.item() == pytest.approx(expected["traj_dust_3d"][0], rel=1e-5)
    for name, other in names.items():
        (gradient,) = torch.autograd.grad(losses.total, getattr(variables, name), retain_graph=True)
        reference = expected[f"loss_3d_iter0_grad_{other}"].reshape(gradient.shape)
        np.testing.assert_allclose(gradient, reference, rtol=1e-5, atol=1e-6 * np.abs(reference).max())


@pytest.mark.parametrize("variant", ["base", "base_shared", "lowconf"])
def test_first_reprojection_loss_and_gradients(golden, variant):
    config = config_of(variant)
    expected = recorded(golden, f"init2d_{variant}_f64")
    scene, anchors, tree, cameras = parts_of(golden, variant, config)
    problem = build_problem(scene, anchors, tree, config, cameras)
    objective = FineObjective(problem.observations, problem.layout, config, torch.float64)
    names = {
        "quaternion": "quats",
        "translation": "trans",
        "log_size": "log_sizes",
        "log_focal": "log_focals",
        "principal_point": "pps",
        "core_depth": "core_depth",
    }
    variables = replace(problem.start)
    for name in names:
        getattr(variables, name).requires_grad_()
    losses = objective(variables)
    assert losses.matching.item() == pytest.approx(expected["traj_loss_2d"][0], rel=1e-5)
    assert losses.fallback.item() == pytest.approx(expected["traj_dust_2d"][0], rel=1e-5)
    for name, other in names.items():
        (gradient,) = torch.autograd.grad(losses.total, getattr(variables, name), retain_graph=True)
        reference = expected[f"loss_2d_iter0_grad_{other}"]
        reference = reference[: gradient.numel()].reshape(gradient.shape)  # shared ones are repeated
        np.testing.assert_allclose(gradient, reference, rtol=1e-4, atol=2e-5 * np.abs(reference).max() + 1e-12)


@pytest.mark.parametrize("variant", ["base", "base_shared", "lowconf"])
def test_short_runs_step_by_step(golden, variant):
    expected = recorded(golden, f"short_{variant}_f64")
    result = run(golden, variant, niter1=10, niter2=10)
    for history, stage in ((result.coarse, "3d"), (result.fine, "2d")):
        np.testing.assert_allclose(history.loss, expected[f"traj_loss_{stage}"], rtol=1e-6)
        np.testing.assert_allclose(history.total, expected[f"traj_tot_{stage}"], rtol=1e-6)
    np.testing.assert_allclose(result.focal_px, expected["fine_K"][:, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(result.principal_point_px, expected["fine_K"][:, :2, 2], rtol=1e-5)
    np.testing.assert_allclose(invert(result.cam_from_world), expected["fine_cam2w"][:, :3], atol=2e-5)
    np.testing.assert_allclose(
        result.anchor_depth, expected["fine_depthmaps"].ravel(), rtol=5e-4
    )  # Adam amplifies tiny gradients


@pytest.mark.parametrize("variant", VARIANTS)
def test_full_runs_end_as_low(golden, variant):
    expected = recorded(golden, f"{variant}_f64")
    result = run(golden, variant)
    assert result.coarse.total[-1] <= 1.01 * expected["traj_tot_3d"][-1]
    assert result.fine.total[-1] <= 1.01 * expected["traj_tot_2d"][-1]


@pytest.mark.parametrize("variant", ["base", "lowconf"])
def test_full_runs_in_single_precision(golden, variant):
    expected = recorded(golden, f"{variant}_f32")
    result = run(golden, variant, double=False)
    assert result.fine.total[-1] == pytest.approx(expected["traj_tot_2d"][-1], rel=1e-2)
    ours, theirs = invert(result.cam_from_world), expected["fine_cam2w"][:, :3]
    turn = theirs[0, :, :3] @ ours[0, :, :3].T
    np.testing.assert_allclose(turn @ ours[:, :, :3], theirs[:, :, :3], atol=0.01)


def test_shared_intrinsics_are_stepped_once(golden):
    """The original makes one step per image: six times the learning rate."""
    ours = run(golden, "base_shared", reference=ReferenceCompat(last_state=True), niter1=0, niter2=2)
    theirs = run(golden, "base_shared", niter1=0, niter2=2)
    start = run(golden, "base_shared", niter1=0, niter2=1).focal_px[0]
    assert abs(np.log(ours.focal_px[0] / start)) == pytest.approx(0.01, rel=1e-3)
    assert abs(np.log(theirs.focal_px[0] / start)) == pytest.approx(0.06, rel=1e-3)


def test_fallback_regresses_each_anchor_once(golden):
    base = ReferenceCompat.all()
    ours = config_of("lowconf", reference=replace(base, fallback_at_matches=False))
    theirs = config_of("lowconf")
    scene, anchors, tree, _ = parts_of(golden, "lowconf", ours)
    rows = build_problem(scene, anchors, tree, ours).observations.fallback
    assert len(rows) == 2 * 192 and (rows.depth_ratio == 1).all()
    assert (rows.xy % 8 == 4).all()  # at the anchors themselves
    at_matches = build_problem(scene, anchors, tree, theirs).observations.fallback
    assert len(at_matches) > 1000 and not (at_matches.depth_ratio == 1).all()


def test_fallback_targets_follow_the_size_of_their_camera(golden):
    """Doubling all sizes doubles the scene; predictions at their own scale no longer fit it."""
    losses = {}
    for unscaled in (False, True):
        config = config_of("lowconf", reference=ReferenceCompat(fallback_unscaled=unscaled))
        scene, anchors, tree, _ = parts_of(golden, "lowconf", config)
        problem = build_problem(scene, anchors, tree, config)
        layout = replace(problem.layout, normalise=False)
        objective = CoarseObjective(problem.observations, problem.start, layout, config)
        double = replace(problem.start, log_size=problem.start.log_size + np.log(2))
        losses[unscaled] = objective(problem.start).fallback.item(), objective(double).fallback.item()
    assert losses[False][0] == pytest.approx(losses[True][0], rel=1e-9)
    assert losses[False][1] != pytest.approx(losses[True][1], rel=0.05)


def test_pixel_clip_follows_the_image_size(golden):
    config = config_of("base", reference=ReferenceCompat())
    scene, anchors, tree, _ = parts_of(golden, "base", config)
    problem = build_problem(scene, anchors, tree, config)
    ours = FineObjective(problem.observations, problem.layout, config, torch.float64)
    fixed_config = config_of("base", reference=ReferenceCompat(fixed_pixel_clip=True))
    fixed = FineObjective(problem.observations, problem.layout, fixed_config, torch.float64)
    assert ours._clip.highest.max() == 4 * 128 and fixed._clip.highest.max() == 2000
    assert ours(problem.start).matching < fixed(problem.start).matching  # some points start behind a camera


def test_defaults_reach_the_same_loss_from_either_start(golden):
    """Without any compatibility switch, the poses agree with the truth as well as the original's."""
    expected = recorded(golden, "base_f64")["traj_tot_2d"][-1]
    scene, anchors, tree, _ = parts_of(golden, "base", AlignConfig())
    for start in InitialPoses:
        result = align(scene, anchors, tree, AlignConfig(init_poses=start))
        assert result.fine.total.min() <= 1.01 * expected
