"""The second-order solver: derivatives, both implementations of the sums, linear solvers, knowledge, and hard
scenes."""

import sys
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from anchorsfm.align import second_order as fine_stage
from anchorsfm.align import sim3, sums_torch
from anchorsfm.align.config import AlignConfig, AnchorDepthMode, Solver
from anchorsfm.align.model import anchor_depths, cameras_of
from anchorsfm.align.normal_equations import Freedoms, MatrixBlocks, nodes_of
from anchorsfm.align.problem import FineObjective
from anchorsfm.align.reduced_system import elimination_cost, solve, sparse_pattern
from anchorsfm.align.rows import sorted_rows, thinned
from anchorsfm.align.run import align, similarity_of_poses
from anchorsfm.align.scene import align_scene
from anchorsfm.align.setup import build_problem
from anchorsfm.align.state import constants_of, moved, parents_of, state_of, variables_of
from anchorsfm.align.sums_torch import TorchSums
from anchorsfm.align.synchronise import Similarities
from anchorsfm.geometry.transforms import invert, rotation_angle_deg
from anchorsfm.observe.anchors import build_anchors
from anchorsfm.observe.tree import build_tree
from anchorsfm.report import report_alignment, report_solver
from anchorsfm.scene.alignment import KnownImage, SolverStatus
from anchorsfm.scene.progress import Progress
from oval_scene import all_pairs, oval_scene

SUMS = {"torch": TorchSums}
if find_spec("numba") is not None:
    from anchorsfm.align.sums_numba import NumbaSums

    SUMS["numba"] = NumbaSums
needs_numba = pytest.mark.skipif("numba" not in SUMS, reason="numba is not installed")

DOUBLE = AlignConfig(double_precision=True)


def problem_of(scene, observed, config, known=None, cameras=None):
    anchors = build_anchors(observed)
    tree = build_tree(observed.graph, anchors, config.kinematic_mode)
    return build_problem(observed, anchors, tree, config, cameras, known)


def stage_run(problem, config, make_sums, *, smoothing=1.0, coupled=True):
    fine = fine_stage._fine_problem(problem, config, make_sums, problem.start)
    stage = replace(fine_stage.STAGES[-1], smoothing_px=smoothing)
    run = fine_stage._StageRun(
        fine, stage, fine_stage._priors(problem, config, stage), fine_stage._freedoms(problem, fine, stage)
    )
    if not coupled:
        run.freedoms = Freedoms(node=run.freedoms.node, depth=np.zeros(fine.constants.num_views, bool))
    return fine, run, state_of(problem.start, fine.constants, problem.layout)


def shaken(state, seed=0, size=0.02):
    """Unknowns moved a little, so that nothing is special."""
    rng = np.random.default_rng(seed)
    turn = Rotation.from_rotvec(size * rng.standard_normal((len(state.centre), 3))).as_matrix()
    return replace(
        state,
        rotation=state.rotation @ turn,
        centre=state.centre + size * rng.standard_normal(state.centre.shape),
        log_size=state.log_size + size * rng.standard_normal(state.log_size.shape),
        log_focal=state.log_focal + size * rng.standard_normal(state.log_focal.shape),
        principal_point=state.principal_point + size * rng.standard_normal(state.principal_point.shape),
        correction=state.correction + size * rng.standard_normal(state.correction.shape),
    )


def stepped(state, fine, unknown, length):
    """The state with one unknown of the nodes moved."""
    nodes = fine.nodes
    step = np.zeros((nodes.count, 10))
    step.ravel()[unknown] = length
    return moved(state, nodes.pose_step(step), nodes.intrinsics_step(step), fine.constants)


def cost_at(run, state):
    return sum(run.sums.depth_sums(run.point(state), False).cost) + run.prior(state)


@pytest.fixture(scope="module")
def small():
    scene = oval_scene(4, (32, 24), depth_noise=0.03)
    return scene, scene.observe(all_pairs(4), doubtful=[(0, 2), (1, 3)])


# --- derivatives -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sums", SUMS)
@pytest.mark.parametrize("mode", AnchorDepthMode)
@pytest.mark.parametrize("cameras", [None, np.array([0, 1, 1, 0])])
def test_gradients_by_all_unknowns_equal_differences_of_the_cost(small, sums, mode, cameras):
    config = replace(DOUBLE, depth_mode=mode)
    problem = problem_of(*small, config, cameras=cameras)
    fine, run, state = stage_run(problem, config, SUMS[sums], coupled=False)
    state = shaken(state)
    gradient = run.linearise(state).gradient.ravel()
    h = 1e-5
    exists = np.ones((fine.nodes.count, 10), bool)
    exists[len(state.centre) :, :7] = False
    exists[np.setdiff1d(np.arange(fine.nodes.count), fine.nodes.of_camera), 7:] = False
    checked = 0
    for unknown in np.flatnonzero(exists.ravel()):
        ahead, behind = (cost_at(run, stepped(state, fine, unknown, side * h)) for side in (1, -1))
        difference = (ahead - behind) / (2 * h)
        assert gradient[unknown] == pytest.approx(difference, rel=1e-5, abs=1e-6 * np.abs(gradient).max())
        checked += 1
    assert checked == 4 * 7 + 3 * len(state.log_focal)
    assert not gradient.reshape(-1, 10)[~exists].any()


@pytest.mark.parametrize("sums", SUMS)
def test_gradients_by_depths_equal_differences_of_the_cost(small, sums):
    problem = problem_of(*small, DOUBLE)
    _, run, state = stage_run(problem, DOUBLE, SUMS[sums])
    state = shaken(state)
    slope = run.sums.depth_sums(run.point(state), False).slope
    rng = np.random.default_rng(1)
    for anchor in rng.choice(len(slope), 20, replace=False):
        cost = []
        for side in (1e-5, -1e-5):
            correction = state.correction.copy()
            correction[anchor] += side
            cost.append(sum(run.sums.depth_sums(run.point(replace(state, correction=correction)), False).cost))
        assert slope[anchor] == pytest.approx((cost[0] - cost[1]) / 2e-5, rel=1e-5, abs=1e-6 * np.abs(slope).max())


@pytest.mark.parametrize("sums", SUMS)
def test_the_reduced_matrix_is_the_second_derivative_where_residuals_vanish(sums):
    """There the Gauss-Newton matrix is exact; the depths follow the cameras, as a minimum over them says."""
    scene = oval_scene(3, (32, 24))
    config = replace(DOUBLE, pp_prior=0.0, depth_prior=0.5)
    known = [
        KnownImage(cam_from_world=pose, focal_px=f)
        for pose, f in zip(scene.cam_from_world, scene.focal_px, strict=True)
    ]
    problem = problem_of(scene, scene.observe(all_pairs(3)), config, known=known)
    fine, run, state = stage_run(problem, config, SUMS[sums], smoothing=30.0)
    weight = run.priors.depth_weight

    def follow(trial):
        for _ in range(3):
            trial = run.with_depths(trial, stored=False)[0]
        return trial

    state = follow(state)
    matrix = run.linearise(state).matrix.blocks.transpose(0, 2, 1, 3).reshape(30, 30)
    rigid = stage_run(problem, config, SUMS[sums], smoothing=30.0, coupled=False)[1]
    assert weight > 0
    h = 1e-3
    largest = np.abs(matrix).max()
    for unknown in (10, 13, 15, 16, 17, 18, 29):
        ahead, behind = (follow(stepped(state, fine, unknown, side * h)) for side in (1, -1))
        column = (rigid.linearise(ahead).gradient - rigid.linearise(behind).gradient).ravel() / (2 * h)
        # a body-frame step turns the axes of the gradient too, but the gradient is small
        scale = np.sqrt(np.abs(np.diag(matrix)) * abs(matrix[unknown, unknown])) + 1e-6 * largest
        assert (np.abs(column - matrix[:, unknown]) / scale).max() < 0.02


def copied(block):
    """The next block overwrites the coupling."""
    return replace(block, coupling=block.coupling.copy())


@needs_numba
def test_compiled_and_torch_sums_agree(small):
    problem = problem_of(*small, DOUBLE)
    blocks = []
    for make in SUMS.values():
        _, run, state = stage_run(problem, DOUBLE, make)
        state = shaken(state)
        point = run.point(state)
        found = [copied(run.sums.source_block(view, point, True)) for view in range(4)]
        stored = run.sums.depth_sums(run.point(shaken(state, 1, 1e-3)), True)
        blocks.append((found, stored))
    for ours, theirs in zip(blocks[0][0], blocks[1][0], strict=True):
        for name in ("hessian", "gradient", "coupling", "curvature", "slope", "cost"):
            a, b = np.array(getattr(ours, name)), np.array(getattr(theirs, name))
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10 * np.abs(a).max(), err_msg=name)
    for name in ("curvature", "slope", "cost"):
        a, b = (np.array(getattr(block[1], name)) for block in blocks)
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10 * np.abs(a).max(), err_msg=name)


@pytest.mark.parametrize("exp_depth", [False, True])
@pytest.mark.parametrize("mode", AnchorDepthMode)
def test_states_and_variables_are_the_same_cameras_and_depths(small, mode, exp_depth):
    config = replace(DOUBLE, depth_mode=mode, exp_depth=exp_depth)
    problem = problem_of(*small, config)
    constants = constants_of(problem)
    state = shaken(state_of(problem.start, constants, problem.layout), size=0.05)
    variables = variables_of(state, constants, problem.layout, parents_of(problem.layout))
    cameras = cameras_of(variables, problem.layout)
    factor = 1 / np.exp(state.log_size).min()
    np.testing.assert_allclose(cameras.rotation.numpy(), state.rotation, atol=1e-9)
    np.testing.assert_allclose(cameras.centre.numpy(), factor * state.centre, rtol=1e-6, atol=1e-7)
    depth = anchor_depths(variables, cameras, problem.layout)
    np.testing.assert_allclose(depth.numpy(), factor * constants.depths(state)[0], rtol=1e-6)
    again = state_of(variables, constants, problem.layout)
    np.testing.assert_allclose(again.correction, state.correction, atol=1e-6)


@pytest.mark.parametrize("sums", SUMS)
def test_losses_are_those_of_the_objective(small, sums):
    """What the solver reports is what the forward model gives for its result, fallback and priors included."""
    problem = problem_of(*small, DOUBLE)
    result = fine_stage.minimise_fine(problem, problem.start, DOUBLE, SUMS[sums], lambda _: None)
    objective = FineObjective(problem.observations, problem.layout, DOUBLE, torch.float64, problem.start.core_depth)
    losses = objective(result.state)
    assert result.history.loss[-1] == pytest.approx(losses.matching.item(), rel=1e-6)
    assert result.history.fallback_loss[-1] > 0
    assert losses.total < objective(problem.start).total


def test_coarse_normal_equations_equal_differences_of_the_residuals(small):
    problem = problem_of(*small, DOUBLE)
    pairs = sim3._point_pairs(problem, problem.start, DOUBLE)
    state = shaken(state_of(problem.start, constants_of(problem), problem.layout))
    at = sim3.Similarity(rotation=state.rotation, shift=state.centre, size=np.exp(state.log_size))
    moments = sim3._moments(pairs, at, 0.1)
    _, gradient = sim3.normal_equations(pairs, at, moments, None)
    for unknown in np.flatnonzero(np.arange(40) % 10 < 7):
        step = np.zeros((4, 10))
        step.ravel()[unknown] = 1e-5
        ahead, behind = (sim3._moments(pairs, sim3.moved(at, side * step), 0.1).cost for side in (1, -1))
        # the cost is tau^2 log(1 + r^2 / tau^2) / tau^2, twice the half square the equations are for
        expected = (ahead - behind) / 2e-5 / 2
        assert gradient.ravel()[unknown] == pytest.approx(expected, rel=1e-5, abs=1e-7 * np.abs(gradient).max())


# --- linear solvers and rows -----------------------------------------------------------------------------------------


def banded_system(count, pattern):
    rng = np.random.default_rng(0)
    matrix = MatrixBlocks(count, pattern)
    for first in range(count - 3):
        nodes = np.arange(first, first + 4)
        half = rng.standard_normal((40, 60))
        matrix.add(nodes, (half @ half.T).reshape(4, 10, 4, 10))
    return matrix, rng.standard_normal((count, 10))


def test_sparse_and_dense_solutions_agree():
    count = 240
    pattern = sparse_pattern((np.arange(k, k + 4) for k in range(count - 3)), count)
    assert pattern is not None, "a chain hardly fills in"
    free = np.ones((count, 10), bool)
    free[0, :7] = free[5, 8:] = False
    steps = []
    for chosen in (None, pattern):
        matrix, gradient = banded_system(count, chosen)
        steps.append(solve(matrix, gradient, free, 1e-4).value)
    np.testing.assert_allclose(steps[0], steps[1], rtol=1e-7, atol=1e-9 * np.abs(steps[0]).max())
    assert not steps[1][~free].any()


def test_the_choice_of_the_solver_follows_the_fill_in():
    chain = [np.array([k, k + 1]) for k in range(299)]
    assert sparse_pattern(chain, 300) is not None
    rng = np.random.default_rng(0)
    tangle = [rng.choice(300, 20, replace=False) for _ in range(300)]
    assert sparse_pattern(tangle, 300) is None
    assert sparse_pattern(chain[:50], 51) is None  # nobody notices
    star = [np.array([0, k]) for k in range(1, 30)]
    neighbours = [{0, *range(1, 30)}, *({0, k} for k in range(1, 30))]
    assert elimination_cost(neighbours, np.inf) == 29 * 4 + 1 and len(star) == 29


def test_a_matrix_that_is_not_positive_definite_has_no_solution():
    matrix = MatrixBlocks(1, None)
    matrix.add(np.array([0]), -np.eye(10).reshape(1, 10, 1, 10))
    assert solve(matrix, np.ones((1, 10)), np.ones((1, 10), bool), 1e-4) is None


def test_rows_are_sorted_by_source_and_thinned_evenly(small):
    problem = problem_of(*small, DOUBLE)
    matches = problem.observations.matches
    rows = sorted_rows(matches, 4, np.dtype(np.float64))
    assert len(rows) == len(matches)
    assert (np.diff(rows.source * 4 + rows.target) > 0).all()
    for view in range(4):
        here = np.concatenate([np.arange(*rows.span[k]) for k in range(*rows.first_pair[view : view + 2])])
        assert (matches.source[matches.pair[here]] == view).all()
        assert rows.weight[here].sum() == pytest.approx(matches.weight[matches.source[matches.pair] == view].sum())
    few = thinned(rows, 3, 10)
    assert len(few) == pytest.approx(len(rows) / 3, rel=0.5)
    for k, (whole, part) in enumerate(zip(rows.span, few.span, strict=True)):
        assert few.length[k] > 0 and set(few.anchor[slice(*part)]) <= set(rows.anchor[slice(*whole)])
        mean = rows.weight[slice(*whole)].mean()  # weights are nearly equal here
        assert few.weight[slice(*part)].sum() == pytest.approx(rows.length[k] * mean, rel=1e-6)
    assert np.array_equal(thinned(rows, 8, 10**6).xy, rows.xy)  # small pairs are kept whole


def test_shared_cameras_have_nodes_of_their_own():
    nodes = nodes_of(np.array([0, 1, 0, 2, 1]))
    assert nodes.count == 7 and nodes.intrinsics.tolist() == [5, 6, 5, 3, 6] and nodes.of_camera.tolist() == [5, 6, 3]


# --- whole alignments ------------------------------------------------------------------------------------------------


def errors(result, truth, focal):
    """Largest rotation error (deg), largest centre error over the spread of the centres, largest focal error."""
    estimate = invert(result.cam_from_world)
    target = truth[result.image_index]
    scale, rotation, shift = similarity_of_poses(estimate, target)
    turn = np.swapaxes(rotation @ estimate[:, :, :3], 1, 2) @ target[:, :, :3]
    centre = scale * estimate[:, :, 3] @ rotation.T + shift
    spread = max(np.ptp(target[:, :, 3], axis=0).max(), 1e-9)
    return (
        rotation_angle_deg(turn).max(),
        np.abs(centre - target[:, :, 3]).max() / spread,
        np.abs(result.focal_px / focal[result.image_index] - 1).max(),
    )


SOLVED = (SolverStatus.CONVERGED,)


def noisy(observed, seed=0, pixels=0.1, outliers=0.0):
    """Matches with noise, and a share of them ending anywhere."""
    rng = np.random.default_rng(seed)
    graph = observed.graph
    xy = graph.xy_j + pixels * rng.standard_normal(graph.xy_j.shape)
    wrong = rng.random(len(xy)) < outliers
    xy[wrong] = rng.uniform(0, [64, 48], (int(wrong.sum()), 2))
    return replace(observed, graph=replace(graph, xy_j=xy.astype(graph.xy_j.dtype)))


@pytest.fixture(scope="module")
def scene():
    return oval_scene(5, depth_noise=0.02, focal_error=0.02)


@pytest.fixture(scope="module")
def observed(scene):
    return noisy(scene.observe(all_pairs(5)))


@pytest.mark.parametrize("compiled", [True, False])
def test_single_and_double_precision_agree(observed, compiled):
    single, double = (
        align_scene(observed, AlignConfig(compiled=compiled, double_precision=d))[0] for d in (False, True)
    )
    assert single.fine.loss[-1] == pytest.approx(double.fine.loss[-1], rel=1e-4)
    truth = invert(double.cam_from_world)
    rotation, centre, focal = errors(single, truth, double.focal_px)
    assert rotation < 0.02 and centre < 2e-3 and focal < 1e-3


@needs_numba
def test_the_result_does_not_depend_on_whether_kernels_are_compiled(observed, monkeypatch):
    compiled = align_scene(observed, DOUBLE)[0]
    assert "compiled kernels" in compiled.fine.method
    monkeypatch.setitem(sys.modules, "numba", None)  # as if it were not installed: importing it fails
    for name in ("sums_numba", "kernels_numba"):
        monkeypatch.delitem(sys.modules, f"anchorsfm.align.{name}", raising=False)
    plain = align_scene(observed, DOUBLE)[0]
    assert "torch" in plain.fine.method and "compiled" not in plain.fine.method
    assert plain.fine.status == compiled.fine.status and len(plain.fine.total) == len(compiled.fine.total)
    assert plain.fine.loss == pytest.approx(compiled.fine.loss, rel=1e-6)
    rotation, centre, focal = errors(plain, invert(compiled.cam_from_world), compiled.focal_px)
    assert rotation < 1e-4 and centre < 1e-5 and focal < 1e-6


def test_the_report_tells_how_the_solver_went(observed):
    result = align_scene(observed, AlignConfig())[0]
    solver = report_alignment(result, []).solver
    assert set(solver) == {"coarse", "fine"}
    for name, stage in (("coarse", result.coarse), ("fine", result.fine)):
        told = solver[name]
        assert told.method.startswith("second order") and told.status == stage.status.value == "converged"
        assert told.iterations == len(stage.total) == len(told.cost)
        assert told.cost == pytest.approx(stage.total, abs=1e-6)
    assert solver["fine"].cost[-1] < solver["fine"].cost[0]
    (limited,) = align_scene(observed, AlignConfig(niter2=3))
    told = report_alignment(limited, []).solver["fine"]
    assert told.status == "iteration limit"
    values = np.linspace(2.0, 1.0, 1001)
    long = replace(result.fine, loss=values, fallback_loss=values, total=values)
    cost = report_solver(long).cost
    assert len(cost) == 100 and cost[0] == 2 and cost[-1] == 1  # thinned, both ends kept


def test_at_least_as_low_as_adam_in_a_tenth_of_the_steps(scene, observed):
    ours, adam = (align_scene(observed, AlignConfig(solver=solver))[0] for solver in (Solver.SECOND_ORDER, Solver.ADAM))
    assert ours.fine.status in SOLVED and ours.coarse.status in SOLVED
    assert ours.fine.total[-1] <= 1.002 * adam.fine.total.min()
    assert 10 * len(ours.fine.total) < len(adam.fine.total)
    assert np.isfinite(ours.points).all()
    found, theirs = (errors(r, scene.world_from_cam, scene.focal_px) for r in (ours, adam))
    assert found[0] < 1.1 * theirs[0] + 0.1 and found[1] < 1.1 * theirs[1] + 0.01


@pytest.mark.parametrize("solver", Solver)
def test_rotations_are_orthonormal_in_double_precision(observed, solver):
    """Their angles, as errors are measured, are no better than the root of what is missing."""
    (result,) = align_scene(observed, AlignConfig(solver=solver, niter1=5, niter2=5))
    rotation = result.cam_from_world[:, :, :3]
    product = rotation @ np.swapaxes(rotation, 1, 2)
    np.testing.assert_allclose(product, np.tile(np.eye(3), (len(rotation), 1, 1)), atol=1e-14)


@pytest.mark.parametrize("slab_rows", [64, 4096])
def test_sums_in_torch_do_not_depend_on_what_is_summed_together(small, monkeypatch, slab_rows):
    problem = problem_of(*small, DOUBLE)
    found = []
    for rows in (slab_rows, 1 << 20):
        monkeypatch.setitem(sums_torch.SLAB_ROWS, "cpu", rows)
        _, run, state = stage_run(problem, DOUBLE, TorchSums)
        system = run.linearise(shaken(state))
        found.append((system.matrix.blocks, system.gradient, np.array(system.cost), np.array(system.loss)))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-11 * np.abs(theirs).max())


def test_two_runs_agree_bit_by_bit(observed):
    first, second = (align_scene(observed)[0] for _ in range(2))
    assert np.array_equal(first.points, second.points) and np.array_equal(first.fine.total, second.fine.total)


@pytest.mark.parametrize("knowledge", ["pose", "intrinsics", "depth", "no depth", "no principal point"])
def test_what_is_frozen_stays_exactly(scene, observed, knowledge):
    depth = observed.views[1].anchor_depth * 2.0
    known = {
        "pose": {k: KnownImage(cam_from_world=scene.cam_from_world[k], freeze_pose=True) for k in (0, 1)},
        "intrinsics": {1: KnownImage(focal_px=62.0, principal_point_px=np.array([30.0, 25.0]), freeze_intrinsics=True)},
        "depth": {1: KnownImage(anchor_depth=depth, freeze_depth=True)},
    }.get(knowledge, {})
    config = AlignConfig(opt_depth=knowledge != "no depth", opt_pp=knowledge != "no principal point")
    (result,) = align_scene(observed, config, known=known)
    assert result.fine.status in SOLVED and len(result.fine.total) < 60
    if knowledge == "pose":
        np.testing.assert_allclose(result.cam_from_world[:2], scene.cam_from_world[:2], atol=1e-6)
        spread = errors(result, scene.world_from_cam, scene.focal_px)
        assert spread[0] < 0.6 and spread[1] < 0.05
    elif knowledge == "intrinsics":
        assert result.focal_px[1] == pytest.approx(62.0, rel=1e-6)
        np.testing.assert_allclose(result.principal_point_px[1], [30, 25], rtol=1e-6)
    elif knowledge == "depth":
        rows = slice(*result.anchor_start[1:3])
        np.testing.assert_allclose(result.anchor_depth[rows], depth.ravel(), rtol=1e-5)
    elif knowledge == "no depth":
        ratio = [result.anchor_depth[slice(*result.anchor_start[k : k + 2])].max() for k in range(5)]
        assert np.isfinite(ratio).all()
    else:
        np.testing.assert_allclose(result.principal_point_px, np.tile([32.0, 24.0], (5, 1)))


def test_thirty_degrees_of_pose_noise(observed, monkeypatch):
    """Every camera but the root starts 30 degrees and a good part of the scene away."""
    from anchorsfm.align import setup

    original = setup.from_pairs

    def disturbed(*arguments):
        start = original(*arguments)
        rng = np.random.default_rng(5)
        axis = rng.standard_normal((len(start.scale), 3))
        axis *= np.radians(30) / np.linalg.norm(axis, axis=1, keepdims=True)
        axis[0] = 0
        return Similarities(
            scale=start.scale * np.exp(0.1 * rng.standard_normal(len(start.scale))),
            rotation=start.rotation @ Rotation.from_rotvec(axis).as_matrix(),
            centre=start.centre + 0.4 * rng.standard_normal(start.centre.shape),
        )

    (expected,) = align_scene(observed)
    monkeypatch.setattr(setup, "from_pairs", disturbed)
    (result,) = align_scene(observed)
    assert result.fine.status in SOLVED
    rotation, centre, focal = errors(result, invert(expected.cam_from_world), expected.focal_px)
    assert rotation < 0.2 and centre < 0.03 and focal < 0.01


def test_forty_percent_of_extra_wrong_matches(scene, observed):
    (expected,) = align_scene(observed)
    (result,) = align_scene(noisy(scene.observe(all_pairs(5)), outliers=0.4 / 1.4))
    assert result.fine.status in SOLVED
    rotation, centre, focal = errors(result, invert(expected.cam_from_world), expected.focal_px)
    assert rotation < 0.3 and centre < 0.04 and focal < 0.02


def test_shared_intrinsics():
    scene = oval_scene(5, same_focal=True, depth_noise=0.02, focal_error=0.03)
    (result,) = align_scene(noisy(scene.observe(all_pairs(5))), camera_index=np.zeros(5, np.int64))
    assert result.fine.status in SOLVED
    assert np.ptp(result.focal_px) == 0 and np.ptp(result.principal_point_px, axis=0).max() == 0
    rotation, centre, focal = errors(result, scene.world_from_cam, scene.focal_px)
    assert rotation < 0.8 and centre < 0.05 and focal < 0.02


def test_low_parallax_is_no_worse_than_with_adam():
    scene = oval_scene(4, depth_noise=0.02, focal_error=0.02)
    centre = scene.world_from_cam[:, :, 3]
    near = scene.world_from_cam.copy()
    near[:, :, 3] = centre.mean(axis=0) + 0.1 * (centre - centre.mean(axis=0))
    scene = replace(scene, world_from_cam=near)
    observed = noisy(scene.observe(all_pairs(4)))
    found = []
    for solver in Solver:
        (result,) = align_scene(observed, AlignConfig(solver=solver))
        assert solver == Solver.ADAM or result.fine.status in SOLVED
        found.append(np.median(np.abs(result.focal_px / scene.focal_px - 1)))
    assert found[0] <= found[1] + 0.005


def test_two_components():
    scene = oval_scene(6, depth_noise=0.02)
    results = align_scene(noisy(scene.observe([(0, 2), (2, 4), (0, 4), (1, 5)])))
    assert [r.image_index.tolist() for r in results] == [[0, 2, 4], [1, 5]]
    assert all(r.fine.status in SOLVED for r in results)
    rotation, centre, _ = errors(results[0], scene.world_from_cam, scene.focal_px)
    assert rotation < 1.5 and centre < 0.1


def chain_scene(count):
    """Cameras in a row that turn slowly, seeing their neighbours only."""
    scene = oval_scene(count, (32, 24), depth_noise=0.01)
    along = np.linspace(-1, 1, count)
    turn = Rotation.from_rotvec(np.radians(70) * along[:, None] * [0.0, 1.0, 0.0]).as_matrix()
    position = np.stack([1.5 * np.sin(2 * along), 0.4 * np.cos(9 * along), 0.5 * np.sin(7 * along)], axis=1)
    return replace(
        scene, world_from_cam=np.concatenate([turn, position[:, :, None]], axis=2), focal_px=np.full(count, 30.0)
    )


def test_a_chain_of_sixty_images_with_neighbours_only():
    scene = chain_scene(60)
    observed = noisy(scene.observe([(k, k + 1) for k in range(59)]))
    (result,) = align_scene(observed)
    assert len(result.image_index) == 60 and result.fine.status in SOLVED
    turn = np.swapaxes(invert(result.cam_from_world)[:-1, :, :3], 1, 2) @ invert(result.cam_from_world)[1:, :, :3]
    truth = np.swapaxes(scene.world_from_cam[:-1, :, :3], 1, 2) @ scene.world_from_cam[1:, :, :3]
    assert np.median(rotation_angle_deg(np.swapaxes(turn, 1, 2) @ truth)) < 0.6
    baseline = np.linalg.norm(np.diff(invert(result.cam_from_world)[:, :, 3], axis=0), axis=1)
    true_baseline = np.linalg.norm(np.diff(scene.world_from_cam[:, :, 3], axis=0), axis=1)
    ratio = baseline / true_baseline
    assert (ratio / np.median(ratio)).min() > 0.5 and (ratio / np.median(ratio)).max() < 2


def test_an_image_joined_by_one_weak_pair():
    scene = oval_scene(5, depth_noise=0.02)
    pairs = [*all_pairs(4), (0, 4)]
    observed = noisy(scene.observe(pairs))
    graph = observed.graph
    weak = np.flatnonzero((graph.pair == [0, 4]).all(axis=1)).item()
    rows = np.flatnonzero(graph.match_pair == weak)
    keep = np.ones(len(graph.match_pair), bool)
    keep[rows] = False
    keep[rows[:: len(rows) // 12]] = True
    observed = replace(
        observed,
        graph=replace(
            graph,
            match_pair=graph.match_pair[keep],
            xy_i=graph.xy_i[keep],
            xy_j=graph.xy_j[keep],
            confidence=graph.confidence[keep],
        ),
    )
    (result,) = align_scene(observed)
    assert result.fine.status in SOLVED and len(result.image_index) == 5
    rotation, centre, _ = errors(result, scene.world_from_cam, scene.focal_px)
    assert rotation < 2 and centre < 0.6
    strong = replace(
        result,
        image_index=result.image_index[:4],
        cam_from_world=result.cam_from_world[:4],
        focal_px=result.focal_px[:4],
        base_focal_px=result.base_focal_px[:4],
        principal_point_px=result.principal_point_px[:4],
        pose_known=result.pose_known[:4],
    )
    assert errors(strong, scene.world_from_cam, scene.focal_px)[0] < 0.8


def test_points_behind_a_camera_do_not_stop_the_solver(scene, observed):
    """One camera starts turned around: the residuals of what it sees say nothing at first."""
    config = AlignConfig(niter1=0)
    anchors = build_anchors(observed)
    tree = build_tree(observed.graph, anchors, config.kinematic_mode)
    problem = build_problem(observed, anchors, tree, config)
    state = state_of(problem.start, constants_of(problem), problem.layout)
    rotation = state.rotation.copy()
    child = int(np.flatnonzero(tree.parent >= 0)[-1])
    rotation[child] = rotation[child] @ np.diag([-1.0, 1.0, -1.0])
    turned = variables_of(
        replace(state, rotation=rotation), constants_of(problem), problem.layout, parents_of(problem.layout)
    )
    for make in SUMS.values():
        result = fine_stage.minimise_fine(problem, turned, config, make, lambda _: None)
        assert result.history.status in (*SOLVED, SolverStatus.STALLED)
        assert np.isfinite(result.history.total).all()
        assert np.isfinite(result.state.translation.numpy()).all()


@pytest.mark.parametrize("solver", Solver)
def test_iteration_limits_and_progress(observed, solver):
    seen, notes, shown = [], [], []

    class Watch(Progress):
        @contextmanager
        def stage(self, name, total):
            yield lambda n: seen.append((name, n))

        def status(self, message):
            shown.append(message)

        def note(self, message):
            notes.append(message)

    anchors = build_anchors(observed)
    tree = build_tree(observed.graph, anchors, "hclust-ward")
    result = align(observed, anchors, tree, AlignConfig(solver=solver, niter1=2, niter2=3), progress=Watch())
    assert result.fine.status == result.coarse.status == SolverStatus.MAX_ITERATIONS
    last = solver is Solver.SECOND_ORDER  # which evaluates the state after the last step too
    assert len(result.fine.total) == 3 + last and len(result.coarse.total) == 2 + last
    assert sum(n for name, n in seen if name == "fine alignment") == 3 + last
    assert shown == [f"loss {loss:.4g}" for loss in [*result.coarse.total[:2], *result.fine.total]]
    stages = {"coarse alignment": result.coarse, "fine alignment": result.fine}
    assert notes == [
        f"{name}: loss {stage.total[-1]:.4g} after {len(stage.total)} evaluations" for name, stage in stages.items()
    ]
