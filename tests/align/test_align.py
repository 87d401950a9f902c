"""The alignment on small scenes with known truth: accuracy, knowledge, odd inputs, repeatability."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from anchorsfm.align.adam import AdamSettings, minimise
from anchorsfm.align.archive import from_arrays, to_arrays
from anchorsfm.align.config import AlignConfig, InitialPoses, Solver
from anchorsfm.align.initialise import robust_similarity
from anchorsfm.align.model import Variables, ancestor_rounds, anchor_depths, cameras_of, rotation_of
from anchorsfm.align.problem import CoarseObjective, FineObjective, Losses
from anchorsfm.align.run import align, similarity_of_poses
from anchorsfm.align.scene import align_scene, sparse_global_alignment
from anchorsfm.align.schedules import cosine
from anchorsfm.align.setup import build_problem
from anchorsfm.geometry.transforms import invert, rotation_angle_deg
from anchorsfm.io.store import Store
from anchorsfm.observe.anchors import build_anchors
from anchorsfm.observe.graph import build_scene_graph, select_component
from anchorsfm.observe.tree import build_tree
from anchorsfm.scene.alignment import KnownImage, SolverStatus
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.pairs import PairList
from oval_scene import OvalScene, all_pairs, oval_scene

QUICK = AlignConfig(niter1=120, niter2=0)
PAIRS = all_pairs(4)


def errors(result, scene: OvalScene, *, aligned=True):
    """Largest rotation (deg) and centre error, after a similarity if `aligned`."""
    truth, estimate = scene.world_from_cam[result.image_index], invert(result.cam_from_world)
    if aligned:
        scale, rotation, shift = similarity_of_poses(estimate, truth)
        estimate = np.concatenate(
            [rotation @ estimate[:, :, :3], (scale * rotation @ estimate[:, :, 3:]) + shift[:, None]], axis=2
        )
    turn = np.swapaxes(estimate[:, :, :3], 1, 2) @ truth[:, :, :3]
    return rotation_angle_deg(turn).max(), np.abs(estimate[:, :, 3] - truth[:, :, 3]).max()


def parts(scene, observed=None, mode="hclust-ward"):
    observed = observed or scene.observe(all_pairs(scene.num_views))
    anchors = build_anchors(observed)
    return observed, anchors, build_tree(observed.graph, anchors, mode)


@pytest.fixture(scope="module")
def exact():
    scene = oval_scene(4)
    return scene, scene.observe(PAIRS)


@pytest.mark.parametrize("solver", Solver)
@pytest.mark.parametrize("start", InitialPoses)
@pytest.mark.parametrize("fine", [0, 150])
def test_exact_predictions_give_the_poses(exact, start, fine, solver):
    scene, observed = exact
    (result,) = align_scene(observed, AlignConfig(init_poses=start, niter2=fine, solver=solver))
    rotation, centre = errors(result, scene)
    assert rotation < 0.2 and centre < 0.02
    np.testing.assert_allclose(result.focal_px, scene.focal_px, rtol=0.03)
    assert result.fine.status == (SolverStatus.SKIPPED if fine == 0 else result.fine.status)


def test_points_lie_on_the_surface(exact):
    scene, observed = exact
    (result,) = align_scene(observed, QUICK)
    assert len(result.points) == 2 * len(observed.graph.confidence)
    scale, rotation, shift = similarity_of_poses(invert(result.cam_from_world), scene.world_from_cam)
    points = scale * result.points @ rotation.T + shift
    truth = np.stack(
        [scene.points(v, xy) for v, xy in zip(result.point_view, result.point_xy.astype(float), strict=True)]
    )
    assert np.median(np.linalg.norm(points - truth, axis=1)) < 0.02


def test_losses_of_the_truth_vanish(exact):
    """Start at the true poses: both objectives are almost zero, and their gradients point nowhere."""
    scene, _ = exact
    observed, anchors, tree = parts(scene)
    known = [KnownImage(cam_from_world=pose) for pose in scene.cam_from_world]
    config = AlignConfig(double_precision=True)
    problem = build_problem(observed, anchors, tree, config, known=known)
    coarse = CoarseObjective(problem.observations, problem.start, problem.layout, config)(problem.start)
    fine = FineObjective(problem.observations, problem.layout, config, torch.float64)(problem.start)
    assert coarse.matching < 0.02 and fine.matching < 0.2
    np.testing.assert_allclose(problem.start.log_size.exp(), 1, rtol=0.02)  # triangulated


def test_gradients_of_the_whole_model():
    scene = oval_scene(3, (24, 16), depth_noise=0.05)
    observed, anchors, tree = parts(scene, scene.observe(all_pairs(3), doubtful=[(0, 2)]))
    config = AlignConfig(double_precision=True)
    problem = build_problem(observed, anchors, tree, config)
    coarse = CoarseObjective(problem.observations, problem.start, problem.layout, config)
    fine = FineObjective(problem.observations, problem.layout, config, torch.float64)
    names = ("quaternion", "translation", "log_size", "log_focal", "principal_point", "core_depth")
    torch.manual_seed(0)
    values = [getattr(problem.start, n) for n in names]
    values = [(v + 0.03 * torch.randn_like(v)).requires_grad_() for v in values]

    def total(objective, *v):
        return objective(Variables(**dict(zip(names, v, strict=True)))).total

    assert torch.autograd.gradcheck(lambda *v: total(fine, *v), values, atol=1e-5, rtol=1e-4)
    poses = values[:3]
    assert torch.autograd.gradcheck(lambda *v: total(coarse, *v, *values[3:]), poses, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("depth_mode", ["add", "mul"])
def test_longer_focal_length_moves_the_camera_and_not_the_focal_plane(depth_mode):
    from anchorsfm.align.config import AnchorDepthMode

    scene = oval_scene(3)
    config = AlignConfig(depth_mode=AnchorDepthMode(depth_mode), double_precision=True)
    observed, anchors, tree = parts(scene)
    problem = build_problem(observed, anchors, tree, config)
    longer = replace(problem.start, log_focal=problem.start.log_focal + 0.2)
    before, after = (cameras_of(v, problem.layout) for v in (problem.start, longer))
    distance = problem.layout.median_depth * before.scale
    moved = before.centre - after.centre
    np.testing.assert_allclose(moved, before.rotation[:, :, 2] * (distance * np.expm1(0.2))[:, None], atol=1e-9)
    depth = anchor_depths(longer, after, problem.layout) - anchor_depths(problem.start, before, problem.layout)
    shift = (distance * np.expm1(0.2))[problem.layout.anchor_view]
    core = problem.start.core_depth
    np.testing.assert_allclose(depth, shift if depth_mode == "add" else shift * core, rtol=1e-9)


def test_losses_do_not_depend_on_the_gauge(exact):
    scene, _ = exact
    observed, anchors, tree = parts(scene)
    config = AlignConfig(double_precision=True)
    problem = build_problem(observed, anchors, tree, config)
    root = tree.root
    turn = torch.tensor([0.1, -0.3, 0.2, 0.9], dtype=torch.float64)
    moved = problem.start.detached()
    rotation = rotation_of(turn[None])[0]
    from scipy.spatial.transform import Rotation

    first = Rotation.from_quat(problem.start.quaternion[root].numpy())
    moved.quaternion[root] = torch.from_numpy((Rotation.from_matrix(rotation.numpy()) * first).as_quat())
    moved.translation[root] = rotation @ problem.start.translation[root] + torch.tensor([1.0, -2.0, 0.5])
    bigger = replace(
        problem.start, log_size=problem.start.log_size + 0.7, translation=problem.start.translation * math.exp(0.7)
    )
    for objective in (
        CoarseObjective(problem.observations, problem.start, problem.layout, config),
        FineObjective(problem.observations, problem.layout, config, torch.float64),
    ):
        reference = objective(problem.start).total.item()
        assert objective(moved).total.item() == pytest.approx(reference, rel=1e-9)
        assert objective(bigger).total.item() == pytest.approx(reference, rel=1e-9)


def test_path_doubling_equals_walking_the_tree():
    parent = torch.tensor([1, 2, -1, 1, 3, 4, 5, -1])
    rounds = ancestor_rounds(parent)
    assert len(rounds) == 3 or len(rounds) == 4
    torch.manual_seed(0)
    value = torch.randn(8)
    chained = torch.cat([value, torch.zeros(1)])
    for ancestor in rounds:
        chained = chained + chained[ancestor]
    for k in range(8):
        walked, at = 0.0, k
        while at >= 0:
            walked, at = walked + value[at].item(), int(parent[at])
        assert chained[k].item() == pytest.approx(walked, abs=1e-5)


# --- what is known ---------------------------------------------------------------------------------------------------


def known_poses(scene, views, **keywords):
    return {v: KnownImage(cam_from_world=scene.cam_from_world[v], **keywords) for v in views}


@pytest.mark.parametrize("place", ["root", "middle", "leaf", "root and leaf", "all"])
@pytest.mark.parametrize("start", InitialPoses)
def test_frozen_poses_stay_exactly_and_the_others_follow(exact, place, start):
    scene, observed = exact
    tree = parts(scene)[2]
    leaf = next(v for v in range(4) if v not in tree.parent and v != tree.root)
    middle = next((v for v in range(4) if v in tree.parent and v != tree.root), leaf)
    views = {"root": [tree.root], "middle": [middle], "leaf": [leaf], "root and leaf": [tree.root, leaf]}
    frozen = views.get(place, list(range(4)))
    config = AlignConfig(init_poses=start, niter2=20)
    (result,) = align_scene(observed, config, known=known_poses(scene, frozen, freeze_pose=True))
    np.testing.assert_allclose(result.cam_from_world[frozen], scene.cam_from_world[frozen], atol=1e-5)
    assert np.flatnonzero(result.pose_known).tolist() == sorted(frozen)
    rotation, centre = errors(result, scene, aligned=False)
    assert rotation < 0.6 and centre < 0.1


def test_frozen_poses_fix_the_scale_of_the_scene(exact):
    scene, _ = exact
    small = replace(scene, scale=np.full(4, 0.1))  # the front end's unit is ten of the world's
    (result,) = align_scene(small.observe(PAIRS), QUICK, known=known_poses(scene, [0, 1], freeze_pose=True))
    rotation, centre = errors(result, scene, aligned=False)
    assert rotation < 0.5 and centre < 0.1
    truth = np.linalg.norm(scene.points(0, scene.pixels()[4::8, 4::8]) - scene.world_from_cam[0][:, 3], axis=-1)
    ours = result.anchor_depth[: truth.size].reshape(truth.shape)
    assert 0.7 < np.median(ours / truth) < 1.1


@pytest.mark.parametrize("views", [[1], [0, 2], [0, 1, 2, 3]])
def test_known_poses_that_are_free_still_place_the_result(exact, views):
    scene, observed = exact
    (result,) = align_scene(observed, QUICK, known=known_poses(scene, views))
    assert not result.pose_known.any()
    rotation, centre = errors(result, scene, aligned=False)
    assert rotation < 0.3 and centre < 0.06


def test_frozen_intrinsics_stay_exactly(exact):
    scene, observed = exact
    known = {1: KnownImage(focal_px=66.0, principal_point_px=np.array([30.0, 25.0]), freeze_intrinsics=True)}
    (result,) = align_scene(observed, AlignConfig(niter1=5, niter2=30), known=known)
    assert result.focal_px[1] == pytest.approx(66.0, rel=1e-6)
    np.testing.assert_allclose(result.principal_point_px[1], [30, 25], rtol=1e-6)
    assert abs(result.focal_px[0] / scene.focal_px[0] - 1) > 1e-4


def test_known_intrinsics_that_are_free_are_the_start(exact):
    _, observed = exact
    config = AlignConfig(solver=Solver.ADAM, niter1=1, niter2=1)
    (result,) = align_scene(observed, config, known={1: KnownImage(focal_px=66.0)})
    assert result.focal_px[1] == pytest.approx(66.0, rel=1e-6)


@pytest.mark.parametrize("start", InitialPoses)
def test_frozen_depth_stays_exactly_whatever_the_focal_length(exact, start):
    scene, observed = exact
    depth = observed.views[2].anchor_depth * 3.0
    known = {2: KnownImage(anchor_depth=depth, freeze_depth=True, focal_px=62.0)}
    (result,) = align_scene(observed, AlignConfig(niter1=100, niter2=30, init_poses=start), known=known)
    rows = slice(result.anchor_start[2], result.anchor_start[3])
    np.testing.assert_allclose(result.anchor_depth[rows], depth.ravel(), rtol=1e-5)
    assert abs(result.focal_px[2] / observed.views[2].focal_px - 1) > 1e-3
    spread = np.linalg.norm(invert(result.cam_from_world)[1, :, 3] - invert(result.cam_from_world)[0, :, 3])
    truth = np.linalg.norm(scene.world_from_cam[1][:, 3] - scene.world_from_cam[0][:, 3])
    if start == InitialPoses.PAIRS:
        assert spread / truth == pytest.approx(3.0, rel=0.1)


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (KnownImage(freeze_pose=True), "image 1: its pose"),
        (KnownImage(freeze_intrinsics=True), "image 1: its intrinsics"),
        (KnownImage(freeze_depth=True), "image 1: its depth"),
        (KnownImage(focal_px=-3.0), "image 1: focal length -3"),
        (KnownImage(anchor_depth=np.ones((2, 2))), r"image 1: known depth has \(2, 2\) anchors"),
    ],
)
def test_unusable_knowledge_names_the_image(exact, known, message):
    with pytest.raises(InputError, match=message):
        align_scene(exact[1], QUICK, known={1: known})


# --- odd inputs ------------------------------------------------------------------------------------------------------


def test_shared_intrinsics_are_one_camera():
    scene = oval_scene(4, same_focal=True, focal_error=0.02)
    (result,) = align_scene(scene.observe(PAIRS), AlignConfig(niter1=60, niter2=40), camera_index=np.zeros(4, int))
    assert np.ptp(result.focal_px) == 0 and np.ptp(result.principal_point_px, axis=0).max() == 0
    mixed = np.array([7, 3, 7, 3])
    (result,) = align_scene(scene.observe(PAIRS), AlignConfig(niter1=5, niter2=5), camera_index=mixed)
    assert result.focal_px[0] == result.focal_px[2] != result.focal_px[1]


def test_doubtful_pairs_are_used_through_the_fallback():
    scene = oval_scene(4)
    observed = scene.observe(PAIRS, doubtful=[(0, 3), (1, 3), (2, 3)], empty=[(0, 1)])
    (result,) = align_scene(observed, QUICK)
    assert result.coarse.fallback_loss[0] > 0
    rotation, centre = errors(result, scene)
    assert rotation < 0.5 and centre < 0.05


def test_only_doubtful_pairs_still_align():
    scene = oval_scene(3)
    (result,) = align_scene(scene.observe(all_pairs(3), doubtful=all_pairs(3)), QUICK)
    assert len(result.points) == 0 and (result.coarse.loss == 0).all()
    rotation, centre = errors(result, scene)
    assert rotation < 0.5 and centre < 0.05


def test_each_component_is_aligned_by_itself():
    scene = oval_scene(6)
    results = align_scene(scene.observe([(0, 2), (2, 4), (0, 4), (1, 5)]), QUICK)
    assert [r.image_index.tolist() for r in results] == [[0, 2, 4], [1, 5]]
    for result in results:
        rotation, centre = errors(result, scene)
        assert rotation < 0.3 and centre < 0.05


def test_one_image_or_no_usable_pair_gives_no_result():
    scene = oval_scene(1)
    assert align_scene(build_scene_graph(1, [], scene.grid)) == ()


def test_identical_images():
    scene = oval_scene(2)
    scene = replace(scene, world_from_cam=scene.world_from_cam[[0, 0]], focal_px=scene.focal_px[[0, 0]])
    (result,) = align_scene(scene.observe([(0, 1)]), AlignConfig(niter1=100, niter2=50))
    assert np.isfinite(result.cam_from_world).all()
    poses = invert(result.cam_from_world)
    assert rotation_angle_deg(poses[:1, :, :3] @ poses[1, :, :3].T).item() < 0.2
    assert np.linalg.norm(poses[0, :, 3] - poses[1, :, 3]) < 0.1


def test_images_of_a_size_that_is_no_multiple_of_the_block():
    scene = oval_scene(3, (61, 43))
    (result,) = align_scene(scene.observe(all_pairs(3)), QUICK)
    rotation, centre = errors(result, scene)
    assert rotation < 0.3 and centre < 0.03


def test_a_scene_with_unconnected_images_is_refused_by_align():
    scene = oval_scene(3)
    observed = scene.observe([(0, 1)])
    with pytest.raises(ValueError, match="no canonical view"):
        build_anchors(observed)
    part = select_component(observed, 0)
    assert align(part, *parts(scene, part)[1:], QUICK).image_index.tolist() == [0, 1]


# --- solver ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_two_runs_agree_bit_by_bit(exact, threads):
    _, observed = exact
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        first, second = (align_scene(observed, AlignConfig(niter1=8, niter2=8))[0] for _ in range(2))
    finally:
        torch.set_num_threads(before)
    for name, array in to_arrays(first).items():
        assert np.array_equal(array, to_arrays(second)[name]), name


def test_stops_early_when_the_loss_stays_put(exact):
    _, observed = exact
    adam = AlignConfig(solver=Solver.ADAM, niter2=0)
    eager, patient = (align_scene(observed, replace(adam, tolerance=t))[0] for t in (1e-2, 0.0))
    assert eager.coarse.status == SolverStatus.CONVERGED and len(eager.coarse.total) < 300
    assert patient.coarse.status == SolverStatus.MAX_ITERATIONS and len(patient.coarse.total) == 300
    recent = eager.coarse.total[-21:]
    assert np.ptp(recent) <= 1e-2 * recent.max()


def simple_problem():
    zero = torch.zeros(1)
    return Variables(
        quaternion=torch.tensor([[0.0, 0, 0, 1]]),
        translation=torch.ones(1, 3),
        log_size=zero,
        log_focal=zero,
        principal_point=torch.zeros(1, 2),
        core_depth=zero,
    )


def settings(iterations, rate=0.1, **keywords):
    return AdamSettings(
        num_iterations=iterations,
        learning_rate=rate,
        schedule=cosine,
        active=("translation",),
        tolerance=0.0,
        patience=20,
        **keywords,
    )


def minimised(loss_of, chosen):
    def objective(variables):
        loss = loss_of(variables.translation)
        return Losses(matching=loss, fallback=torch.zeros(()), total=loss)

    return minimise(objective, simple_problem(), chosen, lambda _: None, lambda _: None, lambda _: None)


def test_the_returned_state_has_the_reported_loss():
    def loss_of(t):
        return (t**2).sum()

    result = minimised(loss_of, settings(15, rate=0.9))  # overshoots
    assert loss_of(result.state.translation).item() == pytest.approx(result.history.total.min(), rel=1e-6)


def test_a_loss_that_is_not_finite_keeps_the_last_finite_state():
    calls = []

    def loss_of(t):
        calls.append(1)
        return (t**2).sum() * (float("nan") if len(calls) == 6 else 1.0)

    result = minimised(loss_of, settings(50))
    assert result.history.status == SolverStatus.NON_FINITE and len(result.history.total) == 5
    assert torch.isfinite(result.state.translation).all() and torch.isfinite(result.stepped.translation).all()


def test_adam_equals_the_one_of_torch():
    parameter = torch.ones(1, 3, requires_grad=True)
    weights = torch.tensor([1.0, 3.0, 0.2])
    optimiser = torch.optim.Adam([parameter], lr=0.1, betas=(0.9, 0.9))
    losses = []
    for step in range(20):
        for group in optimiser.param_groups:
            group["lr"] = cosine(step / 20, 0.1)
        optimiser.zero_grad()
        loss = (weights * parameter**4).sum()
        losses.append(loss.item())
        loss.backward()
        optimiser.step()
    ours = minimised(lambda t: (weights * t**4).sum(), settings(20))
    np.testing.assert_allclose(ours.history.total, losses, rtol=1e-5)
    np.testing.assert_allclose(ours.stepped.translation, parameter.detach(), rtol=1e-4)


def test_robust_similarity_survives_outliers():
    rng = np.random.default_rng(0)
    source = rng.uniform([-1, -1, 2], [1, 1, 5], (400, 3))
    pose = oval_scene(2).cam_from_world[1]
    target = 1.7 * source @ pose[:, :3].T + pose[:, 3] + [0, 0, 1]
    target[:120] = rng.uniform([-3, -3, 1], [3, 3, 9], (120, 3))
    scale, found = robust_similarity(source, target, np.ones(400))
    assert scale == pytest.approx(1.7, rel=1e-3)
    assert rotation_angle_deg((found[:, :3] @ pose[:, :3].T)[None]).item() < 0.05


# --- the public function ---------------------------------------------------------------------------------------------


class OvalPredictor:
    keeps_predictions = True
    detects_keypoints, focal_px, licence = False, None, None

    def __init__(self, scene, pairs):
        self.scene, self.pairs, self.grid, self.digest = scene, pairs, scene.grid, "oval"

    def __iter__(self):
        return self.predictions(range(len(self.pairs)))

    def predictions(self, rows):
        return (self.scene.prediction(*self.pairs[row]) for row in rows)

    def __len__(self):
        return len(self.pairs)


class OvalFrontend:
    def __init__(self, scene):
        self.scene, self.opened = scene, 0

    def open(self, images, pairs, store, progress):
        self.opened += 1
        return OvalPredictor(self.scene, pairs.index.tolist())


def test_public_function_from_front_end_to_result(tmp_path):
    scene = oval_scene(3, same_focal=True, focal_error=0.02)
    images = ImageSet(
        root=tmp_path,
        names=("a", "b", "c"),
        size_wh=np.tile([64, 48], (3, 1)),
        camera_index=np.arange(3),
        focal_prior_px=np.full(3, np.nan),
        digests=("1", "2", "3"),
    )
    pairs = PairList(index=np.array(all_pairs(3)))
    store = Store(tmp_path)
    keywords = {"niter1": 30, "niter2": 10, "depth_mode": "mul", "matching_conf_thr": 4.0, "subsample": 4}
    frontend = OvalFrontend(scene)
    (result,) = sparse_global_alignment(images, pairs, frontend, store=store, shared_intrinsics=True, **keywords)
    assert len(result.coarse.total) <= 30 and np.ptp(result.focal_px) == 0
    assert np.diff(result.anchor_start).tolist() == [16 * 12] * 3
    (again,) = sparse_global_alignment(images, pairs, frontend, store=store, shared_intrinsics=True, **keywords)
    assert np.array_equal(again.points, result.points) and again.fine.status == result.fine.status
    (other,) = sparse_global_alignment(images, pairs, frontend, store=store, **keywords)
    assert np.ptp(other.focal_px) > 0
    with pytest.raises(InputError, match="unknown alignment setting 'niter3'"):
        sparse_global_alignment(images, pairs, frontend, niter3=1)
    with pytest.raises(InputError, match=r"AlignConfig\.depth_mode = sum"):
        sparse_global_alignment(images, pairs, frontend, canonical_mode="avg-angle", depth_mode="sum")


def test_results_survive_the_cache(exact, tmp_path):
    (result,) = align_scene(exact[1], AlignConfig(niter1=3, niter2=2))
    store = Store(tmp_path)
    store.save("alignment", "key", to_arrays(result))
    loaded = from_arrays(store.load("alignment", "key"))
    for name, array in to_arrays(result).items():
        assert np.array_equal(array, to_arrays(loaded)[name]), name
    assert loaded.coarse.status == result.coarse.status
