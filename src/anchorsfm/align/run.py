"""Sparse global alignment of one connected component: coarse stage, fine stage, result (docs/method.md, Losses)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int

from anchorsfm.align.adam import AdamSettings, SolverResult, minimise, skipped
from anchorsfm.align.config import AlignConfig, Solver
from anchorsfm.align.model import POSE_VARIABLES, Cameras, ParameterLayout, Variables, anchor_depths, cameras_of
from anchorsfm.align.observations import DirectedObservations
from anchorsfm.align.problem import CoarseObjective, FineObjective, Problem
from anchorsfm.align.schedules import SCHEDULES
from anchorsfm.align.second_order import minimise_fine
from anchorsfm.align.setup import build_problem, check_knowledge
from anchorsfm.align.sim3 import minimise_coarse
from anchorsfm.align.sums import sums_of
from anchorsfm.align.units import Units, find_units
from anchorsfm.geometry.transforms import invert
from anchorsfm.observe.graph import ObservedScene
from anchorsfm.scene.alignment import AlignmentResult, KnownImage, SolverStatus
from anchorsfm.scene.errors import NonFiniteError
from anchorsfm.scene.finite import require_finite
from anchorsfm.scene.graph import Anchors, KinematicTree
from anchorsfm.scene.progress import SILENT, Progress


def align(
    scene: ObservedScene,
    anchors: Anchors,
    tree: KinematicTree,
    config: AlignConfig | None = None,
    *,
    camera_index: Int[np.ndarray, "view"] | None = None,
    long_side_px: Float[np.ndarray, "view"] | None = None,
    known: Sequence[KnownImage | None] | None = None,
    progress: Progress = SILENT,
) -> AlignmentResult:
    """Poses, intrinsics and anchor depths of one connected component.

    camera_index: views with the same value share focal length and principal point; by default each has its own.
    long_side_px: longer side of each photograph in grid pixels, of which views of one camera share the focal length as
        a multiple: photographs of several sizes are taken for resized ones. By default the longer side of the grid.
    known: what is known about each view, as initial value or frozen.

    Raises InputError for known quantities that cannot be used, NonFiniteError if a stage comes to a loss that is not
    finite.
    """
    prepared = prepare(
        scene, anchors, tree, config or AlignConfig(), camera_index=camera_index, long_side_px=long_side_px, known=known
    )
    coarse = coarse_stage(prepared, progress)
    return finish(prepared, coarse, fine_stage(prepared, coarse, progress))


@dataclass(frozen=True, kw_only=True)
class PreparedAlignment:
    """A component that is ready for the solver."""

    scene: ObservedScene
    anchors: Anchors
    config: AlignConfig
    known: Sequence[KnownImage | None] | None
    units: Units
    """The problem is in these."""
    problem: Problem


def prepare(
    scene: ObservedScene,
    anchors: Anchors,
    tree: KinematicTree,
    config: AlignConfig,
    *,
    camera_index: Int[np.ndarray, "view"] | None = None,
    long_side_px: Float[np.ndarray, "view"] | None = None,
    known: Sequence[KnownImage | None] | None = None,
) -> PreparedAlignment:
    """Everything before the first iteration; arguments and errors as for `align`."""
    check_knowledge(known, scene)
    graph = scene.graph
    require_finite("alignment", "what it starts from", graph.xy_i, graph.xy_j, graph.confidence)
    require_finite("alignment", "what it starts from", graph.fallback.xyz, graph.fallback.confidence)
    require_finite("alignment", "what it starts from", anchors.depth, anchors.depth_ratio_i, anchors.depth_ratio_j)
    units = Units.none() if config.reference.raw_units else find_units(anchors, known)
    scaled = replace(scene, graph=units.of_graph(scene.graph))
    with _threads(config.num_threads):
        problem = build_problem(
            scaled, units.of_anchors(anchors), tree, config, camera_index, units.of_known(known), long_side_px
        )
    return PreparedAlignment(scene=scene, anchors=anchors, config=config, known=known, units=units, problem=problem)


def coarse_stage(prepared: PreparedAlignment, progress: Progress = SILENT) -> SolverResult:
    """Poses and sizes from matched 3D points."""
    with _threads(prepared.config.num_threads):
        return _checked("coarse alignment", _coarse_stage(prepared.problem, prepared.config, progress), progress)


def fine_stage(prepared: PreparedAlignment, coarse: SolverResult, progress: Progress = SILENT) -> SolverResult:
    """All unknowns from reprojection errors, from where the coarse stage ended."""
    config = prepared.config
    start = coarse.stepped if config.reference.last_state else coarse.state
    with _threads(config.num_threads):
        return _checked("fine alignment", _fine_stage(prepared.problem, start, config, progress), progress)


def finish(prepared: PreparedAlignment, coarse: SolverResult, fine: SolverResult) -> AlignmentResult:
    """What the last stage that ran came to."""
    problem = prepared.problem
    state = fine.state if prepared.config.niter2 > 0 else coarse.state
    with _threads(prepared.config.num_threads):
        result = _result(prepared.scene, prepared.anchors, problem, state, coarse, fine)
        require_finite(
            "alignment", "its result", result.cam_from_world, result.focal_px, result.anchor_depth, result.points
        )
        result = prepared.units.restored(result, scale_is_known=not problem.layout.normalise)
        return _onto_known_poses(result, prepared.known, problem)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _stage(name: str, num_iterations: int, progress: Progress) -> Iterator[Callable[[float], None]]:
    """A stage of the progress, to be told the loss of each evaluation."""
    with progress.stage(name, num_iterations) as advance:

        def evaluated(loss: float) -> None:
            progress.status(f"loss {loss:.4g}")
            advance(1)

        yield evaluated


def _checked(stage: str, result: SolverResult, progress: Progress) -> SolverResult:
    """The result, if its loss is finite, which is reported."""
    if result.history.status == SolverStatus.NON_FINITE:
        iteration = len(result.history.total)
        raise NonFiniteError(f"{stage}: the loss is not finite at iteration {iteration}; please report this")
    losses = result.history.total
    if len(losses):
        progress.note(f"{stage}: loss {losses[-1]:.4g} after {len(losses)} evaluations")
    return result


def _coarse_stage(problem: Problem, config: AlignConfig, progress: Progress) -> SolverResult:
    if config.niter1 == 0:
        return skipped(problem.start)
    if config.solver == Solver.SECOND_ORDER:
        with _stage("coarse alignment", config.niter1, progress) as evaluated:
            return minimise_coarse(problem, problem.start, config, evaluated)
    objective = CoarseObjective(problem.observations, problem.start, problem.layout, config)
    settings = _settings(config, config.niter1, config.lr1, POSE_VARIABLES)
    with _stage("coarse alignment", config.niter1, progress) as evaluated:
        return minimise(
            objective,
            problem.start,
            settings,
            problem.coarse_freedom.mask,
            lambda v: _into_domain(v, problem),
            evaluated,
        )


def _fine_stage(problem: Problem, start: Variables, config: AlignConfig, progress: Progress) -> SolverResult:
    if config.niter2 == 0:
        return skipped(start)
    active = [*POSE_VARIABLES, "log_focal"]
    if config.opt_pp:
        active.append("principal_point")
    if config.opt_depth:
        active.append("core_depth")
    if config.solver == Solver.SECOND_ORDER:
        with _stage("fine alignment", config.niter2, progress) as evaluated:
            return minimise_fine(problem, start, config, sums_of(config), evaluated)
    objective = FineObjective(
        problem.observations, problem.layout, config, start.log_size.dtype, problem.start.core_depth
    )
    settings = _settings(config, config.niter2, config.lr2, tuple(active))
    num_views, num_cameras = problem.layout.num_views, len(start.log_focal)
    if config.reference.repeated_shared_steps and num_cameras == 1:
        settings = replace(settings, repeats={"log_focal": num_views, "principal_point": num_views})
    with _stage("fine alignment", config.niter2, progress) as evaluated:
        return minimise(
            objective, start, settings, problem.fine_freedom.mask, lambda v: _into_domain(v, problem), evaluated
        )


def _settings(config: AlignConfig, iterations: int, rate: float, active: tuple[str, ...]) -> AdamSettings:
    return AdamSettings(
        num_iterations=iterations,
        learning_rate=rate,
        schedule=SCHEDULES[config.schedule],
        active=active,
        tolerance=0.0 if config.reference.last_state else config.tolerance,
        patience=config.patience,
        keep_last=config.reference.last_state,
    )


def _into_domain(variables: Variables, problem: Problem) -> None:
    """Unit quaternions and plausible focal lengths, in place; what is frozen is left alone."""
    free = problem.fine_freedom.view
    unit = variables.quaternion / variables.quaternion.norm(dim=1, keepdim=True)
    variables.quaternion.copy_(torch.where(free[:, None], unit, variables.quaternion))
    lowest, highest = problem.log_focal_range
    clamped = torch.minimum(torch.maximum(variables.log_focal, lowest), highest)
    cameras = problem.fine_freedom.camera
    variables.log_focal.copy_(torch.where(cameras, clamped, variables.log_focal))


def _result(
    scene: ObservedScene, anchors: Anchors, problem: Problem, state: Variables, coarse: SolverResult, fine: SolverResult
) -> AlignmentResult:
    # in double precision, because the angle of a rotation matrix is no better than the root of its rounding errors
    layout, state = problem.layout.to(torch.float64), state.to(torch.float64)
    with torch.no_grad():
        cameras = cameras_of(state, layout)
        depth = anchor_depths(state, cameras, layout).numpy()
    rotation, centre = cameras.rotation.numpy(), cameras.centre.numpy()
    world_from_cam = np.concatenate([rotation, centre[:, :, None]], axis=2)
    rows = problem.observations.matches
    view = rows.source[rows.pair]
    return AlignmentResult(
        image_index=scene.image_index,
        cam_from_world=invert(world_from_cam),
        focal_px=cameras.focal.numpy(),
        base_focal_px=layout.base_focal.numpy(),
        principal_point_px=cameras.principal_point.numpy(),
        anchor_start=anchors.start,
        anchor_depth=depth,
        points=_points(rows, depth, cameras, layout, world_from_cam),
        point_view=view,
        point_xy=rows.xy,
        point_confidence=rows.weight,
        coarse=coarse.history,
        fine=fine.history,
        pose_known=problem.fixed_pose,
    )


def _points(
    rows: DirectedObservations,
    depth: Float[np.ndarray, "anchor"],
    cameras: Cameras,
    layout: ParameterLayout,
    world_from_cam: Float[np.ndarray, "view 3 4"],
) -> Float[np.ndarray, "point 3"]:
    """Points of source pixels in the world, one directed pair after the other."""
    focal, base = cameras.focal.numpy(), layout.base_focal.numpy()
    principal_point = cameras.principal_point.numpy()
    points = np.empty((len(rows), 3))
    start = np.searchsorted(rows.pair, np.arange(len(rows.source) + 1))
    for pair, view in enumerate(rows.source.tolist()):
        here = slice(int(start[pair]), int(start[pair + 1]))
        z = depth[rows.anchor[here]] * (1 + (rows.depth_ratio[here] - 1) * (base[view] / focal[view]))
        of_pixel = world_from_cam[view, :, :2] / focal[view]
        of_origin = world_from_cam[view, :, 2] - of_pixel @ principal_point[view]
        x, y = rows.xy[here].T.astype(np.float64)
        for k in range(3):  # a plain matrix product takes twice as long
            ray = x * of_pixel[k, 0] + y * of_pixel[k, 1] + of_origin[k]
            points[here, k] = z * ray + world_from_cam[view, k, 3]
    return points


def _onto_known_poses(
    result: AlignmentResult, known: Sequence[KnownImage | None] | None, problem: Problem
) -> AlignmentResult:
    """Known poses that were free to move still fix where, how large and which way up the result is."""
    poses = [None if k is None or k.cam_from_world is None else invert(k.cam_from_world) for k in known or []]
    given = [view for view, pose in enumerate(poses) if pose is not None]
    if not given or problem.fixed_pose.any():
        return result
    target = np.stack([pose for pose in poses if pose is not None])
    source = invert(result.cam_from_world[given])
    scale, rotation, shift = similarity_of_poses(source, target)
    if not problem.layout.normalise:  # frozen depths fix the scale
        scale = 1.0
        shift = (target[:, :, 3] - source[:, :, 3] @ rotation.T).mean(axis=0)
    world_from_cam = invert(result.cam_from_world)
    moved = np.concatenate(
        [rotation @ world_from_cam[:, :, :3], (scale * rotation @ world_from_cam[:, :, 3:]) + shift[:, None]], axis=2
    )
    return replace(
        result,
        cam_from_world=invert(moved),
        anchor_depth=scale * result.anchor_depth,
        points=scale * result.points @ rotation.T + shift,
    )


def similarity_of_poses(
    source: Float[np.ndarray, "pose 3 4"], target: Float[np.ndarray, "pose 3 4"]
) -> tuple[float, Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
    """Scale, rotation and shift that bring world_from_cam poses onto others; the scale is 1 for a single centre.

    The rotation is the chordal mean of the poses' own rotations: unlike a fit of the centres alone it is determined
    for one pose, two poses and cameras on a line.
    """
    u, _, vt = np.linalg.svd(np.einsum("pij,pkj->ik", target[:, :, :3], source[:, :, :3]))
    rotation = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
    a, b = source[:, :, 3], target[:, :, 3]
    centred_a, centred_b = (a - a.mean(axis=0)) @ rotation.T, b - b.mean(axis=0)
    square = (centred_a**2).sum()
    scale = float((centred_a * centred_b).sum() / square) if square > 0 else 1.0
    scale = scale if scale > 0 else 1.0
    return scale, rotation, b.mean(axis=0) - scale * rotation @ a.mean(axis=0)
