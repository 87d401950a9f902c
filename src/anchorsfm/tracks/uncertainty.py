"""How well an adjusted model holds its cameras: standard deviations of poses and intrinsics, and who is held weakly.

The residuals show the noise of the observations, but errors of a model are not noise alone: matches of one image err
together, and no lens is exactly its camera model. On a flat ground seen from straight above, such errors move the focal
length by many times what noise would. So several parts are estimated at the optimum (see `linearised`) and summed:

* noise: the covariance that the points' own parts of the gradient show, whatever the distribution of the residuals;
* what the model's photographs disagree about: the delete-a-group jackknife (Quenouille 1949, Tukey 1958) over groups of
  photographs, with the bias that it finds; it contains noise, so the larger of both counts;
* what the lens may do beyond its camera model, as far as expectation and observations allow ("consider" parameters,
  Schmidt 1966): the step that the estimates would take with these terms, and the spread that they add; and how far the
  focal length of other camera models that predict held-out observations nearly as well is from the chosen one's.

What errors poses and intrinsics have together comes of the sum of all these covariances, each pose and parameter
brought to its own deviation (`error_modes`).

Gauge: where neither poses nor positions are given, deviations are those against the cameras as a whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial.transform import Rotation

from anchorsfm.colmap.bundle import BundleOptions, Held, PositionPriors, RotationPriors
from anchorsfm.colmap.cameras import focal_length_px, focal_rows, principal_point_rows
from anchorsfm.geometry.links import connected_groups
from anchorsfm.geometry.similarity import Similarity
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.scene.edit import select_points, select_views
from anchorsfm.scene.reconstruction import Camera, Reconstruction
from anchorsfm.tracks.adjust import AdjustResult
from anchorsfm.tracks.error_modes import ErrorModes, largest_modes, with_deviations
from anchorsfm.tracks.lens import LensChoice
from anchorsfm.tracks.linearised import (
    NUM_FURTHER,
    POINT_DAMPING,
    Linearised,
    NormalEquations,
    gauge_directions,
    linearise,
    normal_equations,
    solve,
    with_further_distortion,
)
from anchorsfm.tracks.rig_unknowns import Units, of_views, units_of, with_units

MAX_UNKNOWNS = 3200
"""Of one joint estimate, whose cost grows with their cube: about 500 views. Of larger models the intrinsics are judged
from the first views that fit, with which they are less well determined, and the poses not at all."""
WEAK_POSITION = 0.01
"""An image is weakly held if its position is uncertain by more than this share of the scene size, or ..."""
WEAK_ROTATION_DEG = 0.5
"""... its rotation by more than this, ..."""
WEAK_FACTORS = (2.0, 5.0)
"""... and by more than the first times the median of all images; or by the second times and a tenth of those limits.
What all images share says that the model is uncertain, not which images are."""
_NUM_GROUPS = 8
"""Of the jackknife: views that follow each other, which are neighbours as a rule."""
_MIN_VIEWS = 4
"""Fewer are not left out in turn; groups of points are."""
_WORSE = 0.04
"""Camera models whose held-out score is larger by this share still count, three times this hardly: exp(-x^2 / 2)."""
_FOCAL = 3.0
"""Deviation that any focal length has before looking, as a share of it."""
_EXACT_PX = 0.1
"""No observations are taken to be more exact than this when they are weighed against expectations."""
_LITTLE_DAMPING = 1e-13
"""Of points: more acts like knowledge of where they are, from which focal lengths follow that nothing else shows."""
_RADIAL, _OTHER, _CENTRE = 0.01, 0.001, 0.0075
"""What is expected of a lens beyond its camera model; see `with_further_distortion`."""


@dataclass(frozen=True, kw_only=True)
class Deviations:
    """Standard deviations; NaN where unknown, 0 where a value was given and held."""

    position: Float[np.ndarray, "view"]
    """World units; root of the summed variances of the coordinates."""
    rotation_deg: Float[np.ndarray, "view"]
    """The same of the rotation vector."""
    camera_params: tuple[tuple[float, ...] | None, ...]
    """Of every camera in COLMAP's parameter order; None where nothing was estimated."""


@dataclass(frozen=True, kw_only=True)
class ModelUncertainty(Deviations):
    """How far one model may be off, errors of the model included."""

    noise: Deviations
    """What the noise of the observations alone makes."""
    scene_size: float
    """Radius of points and cameras together, in world units: what positions are compared with."""
    weak: Bool[np.ndarray, "view"]
    """Images that are weakly held."""
    metric: bool
    """Whether the world unit is that of given poses (metres, as a rule)."""
    modes: ErrorModes | None = None
    """What errors poses and intrinsics have together; None where nothing is known."""

    def moved(self, similarity: Similarity) -> "ModelUncertainty":
        """Of the same model in another frame."""
        return replace(
            self,
            position=similarity.scale * self.position,
            noise=replace(self.noise, position=similarity.scale * self.noise.position),
            scene_size=similarity.scale * self.scene_size,
            modes=None if self.modes is None else self.modes.moved(similarity),
        )


@dataclass(frozen=True, kw_only=True)
class _Problem:
    """A linearised model and what the adjustment was free to change."""

    model: Reconstruction
    lin: Linearised
    unknowns: Int[np.ndarray, "free"]
    """Columns: poses, then camera parameters."""
    held: Held
    units: Units
    """What the columns of poses are of."""

    def of_views(self, columns: Int[np.ndarray, "free"]) -> Bool[np.ndarray, "free"]:
        """Which columns belong to poses."""
        return columns < 6 * len(self.units.poses)


def estimate_uncertainty(result: AdjustResult) -> ModelUncertainty:
    """Uncertainty of a model at its optimum; unknown where nothing was adjusted, as the model is at none then."""
    result = replace(result, model=result.at_optimum, added_points=0)
    model, held = result.model, result.held
    size = _scene_size(model)
    if not result.adjusted:
        return _unknown(model, size, metric=held.sets_frame)
    part = _part_that_fits(result)
    spread = _variances(part)
    total = _deviations(result, part, spread.variance)
    weak = _stands_out(total.position / max(size, 1e-12), WEAK_POSITION)
    return ModelUncertainty(
        position=total.position,
        rotation_deg=total.rotation_deg,
        camera_params=total.camera_params,
        noise=_deviations(result, part, spread.by_noise),
        scene_size=size,
        weak=weak | _stands_out(total.rotation_deg, WEAK_ROTATION_DEG),
        metric=held.sets_frame,
        modes=_modes(part, spread.joint, total) if part.model is model else None,
    )


def _unknown(model: Reconstruction, scene_size: float, *, metric: bool) -> ModelUncertainty:
    nan = np.full(len(model.image_index), np.nan)
    nothing = Deviations(position=nan, rotation_deg=nan, camera_params=(None,) * len(model.cameras))
    return ModelUncertainty(
        **vars(nothing), noise=nothing, scene_size=scene_size, weak=np.zeros(len(nan), bool), metric=metric
    )


def _deviations(result: AdjustResult, part: AdjustResult, variance: Float[np.ndarray, "unknown"]) -> Deviations:
    """Of a model from the variances of the part of it that was looked at."""
    num, held, units = len(part.model.image_index), result.held, units_of(part.model)
    poses = variance[: 6 * len(units.poses)].reshape(-1, 6)[units.of_view]
    first = 6 * len(units.poses)
    # a frame that may be turned moves its views about its origin, across the axis of the turn
    lever = units.lever[:, None] ** 2 * 2 / 9 * poses[:, :3].sum(axis=1, keepdims=True)
    poses = np.concatenate([poses[:, :3], poses[:, 3:] + lever], axis=1)
    if num < len(result.model.image_index):
        poses = np.full((len(result.model.image_index), 6), np.nan)
    seen, params = set(part.model.camera_index.tolist()), []
    for row, camera in enumerate(result.model.cameras):
        deviation = np.sqrt(variance[first : first + len(camera.params)])
        first += len(camera.params)
        free = bool(_free_params(camera, result.options)) or _settled_sigma_px(result, row) > 0
        estimated = row in seen and not held.camera[row] and free
        params.append(tuple(deviation.tolist()) if estimated else None)
    return Deviations(
        position=np.where(held.pose, 0.0, np.sqrt(poses[:, 3:].sum(axis=1))),
        rotation_deg=np.where(held.pose, 0.0, np.degrees(np.sqrt(poses[:, :3].sum(axis=1)))),
        camera_params=tuple(params),
    )


def _modes(result: AdjustResult, joint: Float[np.ndarray, "unknown unknown"], total: Deviations) -> ErrorModes | None:
    """Joint errors with the deviations that are stated."""
    model, variance = result.model, np.maximum(np.diag(joint), 0)
    if not variance.any():
        return None
    units, views = units_of(model), len(model.image_index)
    first = 6 * len(units.poses)
    # one unit for the three coordinates of a pose: the choice then does not depend on the axes of the world
    unit = np.sqrt(variance)
    unit[:first] = np.repeat(np.sqrt(variance[:first].reshape(-1, 3).mean(axis=1)), 3)
    modes = of_views(model, units, largest_modes(joint, unit))
    poses = modes[:, : 6 * views].reshape(-1, views, 6)
    params = [
        np.zeros(len(camera.params)) if deviation is None else deviation
        for camera, deviation in zip(model.cameras, total.camera_params, strict=True)
    ]
    return with_deviations(
        ErrorModes(rotation=poses[:, :, :3], position=poses[:, :, 3:], params=modes[:, 6 * views :]),
        position=total.position,
        rotation=np.radians(total.rotation_deg),
        params=np.concatenate(params),
    )


def _scene_size(model: Reconstruction) -> float:
    centred = model.points - np.median(model.points, axis=0)
    centres = camera_centres(model.cam_from_world)
    return float(np.sqrt(np.median((centred**2).sum(1)) + ((centres - centres.mean(0)) ** 2).sum(1).mean()))


def _free_params(camera: Camera, options: BundleOptions) -> list[int]:
    focal, centre = set(focal_rows(camera)), set(principal_point_rows(camera))
    free = {
        *(focal if options.refine_focal else ()),
        *(centre if options.refine_principal_point else ()),
        *(set(range(len(camera.params))) - focal - centre if options.refine_distortion else ()),
    }
    return sorted(free)


def _part_that_fits(result: AdjustResult) -> AdjustResult:
    """The model, or of a large one its first views."""
    model = result.model
    params = np.array([len(camera.params) for camera in model.cameras])
    met = [len(set(model.camera_index[: k + 1].tolist())) for k in range(len(model.image_index))]
    unknowns = 6 * np.arange(1, len(met) + 1) + np.array(met) * int(params.max())
    count = max(int((unknowns <= MAX_UNKNOWNS).sum()), 2)
    if count >= len(model.image_index):
        return result
    of_first = np.isin(model.tracks.obs_image, model.image_index[:count])
    first = select_views(select_points(model, of_first), np.arange(count))
    held, positions, rotations = result.held, result.held.positions, result.held.rotations
    held = replace(
        held,
        pose=held.pose[:count],
        positions=None if positions is None else positions.select(np.arange(count)),
        rotations=None if rotations is None else rotations.select(np.arange(count)),
    )
    return replace(result, model=first, held=held)


@dataclass(frozen=True, kw_only=True)
class _Spread:
    """What the unknowns of a linearised model may be off; 0 where nothing was free."""

    variance: Float[np.ndarray, "unknown"]
    by_noise: Float[np.ndarray, "unknown"]
    """The same by noise alone."""
    joint: Float[np.ndarray, "unknown unknown"]
    """Covariance for the correlations; its diagonal is the sum of what `variance` takes the largest of."""


def _variances(result: AdjustResult) -> _Spread:
    model, held = result.model, result.held
    units = units_of(model)
    lin = with_units(linearise(model, result.options.loss_scale_px), model, units)
    frozen = np.zeros(len(units.poses), bool)
    frozen[units.of_view[held.pose & held.sets_frame]] = True
    free = [6 * unit + k for unit in np.flatnonzero(~frozen).tolist() for k in range(6)]
    for row, camera in enumerate(model.cameras):
        if not held.camera[row] and (model.camera_index == row).any():
            free += [lin.first_param[row] + k for k in _free_params(camera, result.options)]
    width = lin.by_unknown.shape[1]
    free += range(width - 6 * len(units.sensors), width)
    variance, by_noise = np.zeros((2, width))
    joint = np.zeros((width, width))
    problem = _Problem(model=model, lin=lin, unknowns=np.array(free, np.int64), held=held, units=units)
    if len(free) and len(lin.point):
        found, disagreement = _noise_and_lens(problem), _jackknife(problem)
        by_noise[free] = found.noise
        variance[free] = np.maximum(found.noise, disagreement.variance) + found.extra
        joint[np.ix_(free, free)] = found.joint
        _add_steps(joint, free, disagreement.steps)
        if not result.focal:
            _add_focal(variance, joint, problem, [_focal_spread_px(choice) for choice in result.lenses])
    if result.focal and len(lin.point):
        settled = [_settled_sigma_px(result, row) for row in range(len(model.cameras))]
        focal = [
            lin.first_param[row] + k
            for row, sigma_px in enumerate(settled)
            for k in (focal_rows(model.cameras[row]) if sigma_px > 0 else ())
        ]
        _add_focal(variance, joint, replace(problem, unknowns=np.array(sorted([*free, *focal]), np.int64)), settled)
    return _Spread(variance=variance, by_noise=by_noise, joint=joint)


def _add_steps(
    joint: Float[np.ndarray, "unknown unknown"], columns: Sequence[int], steps: Float[np.ndarray, "step free"]
) -> None:
    """Add what steps of one deviation each make."""
    joint[np.ix_(columns, columns)] += steps.T @ steps


def _add_focal(
    variance: Float[np.ndarray, "unknown"],
    joint: Float[np.ndarray, "unknown unknown"],
    problem: _Problem,
    spread_px: Sequence[float],
) -> None:
    """Add what focal lengths that may be off for other reasons make."""
    steps = _by_focal_length(problem, spread_px)
    added = np.zeros(len(problem.unknowns))
    for step in steps:
        added += step**2
    variance[problem.unknowns] += added
    _add_steps(joint, problem.unknowns.tolist(), steps)


def _settled_sigma_px(result: AdjustResult, row: int) -> float:
    """Deviation of a focal length that photographs and a record say together; 0 for others."""
    found = result.focal[row] if result.focal else None
    return 0.0 if found is None else found.sigma_px


@dataclass(frozen=True, kw_only=True)
class _NoiseAndLens:
    """Of the free unknowns."""

    noise: Float[np.ndarray, "free"]
    """Variances by noise alone."""
    extra: Float[np.ndarray, "free"]
    """What further distortion of the lenses adds to them."""
    joint: Float[np.ndarray, "free free"]
    """The covariance by both."""


def _noise_and_lens(problem: _Problem) -> _NoiseAndLens:
    model, held, num = problem.model, problem.held, len(problem.unknowns)
    lin = with_further_distortion(problem.lin, model, radial=_RADIAL, other=_OTHER, centre=_CENTRE)
    further = problem.lin.by_unknown.shape[1] + np.flatnonzero(np.repeat(~held.camera, NUM_FURTHER))
    if num + len(further) > MAX_UNKNOWNS:  # a camera for every image: there is no telling what each of them does
        further = further[:0]
    columns = np.concatenate([problem.unknowns, further])
    equations = _equations(problem, lin, columns, np.ones(len(lin.point), bool), _LITTLE_DAMPING)
    hessian, outer = equations.hessian, equations.outer
    assert outer is not None
    unit = float(np.median(np.diag(outer)[:num] / np.maximum(np.diag(hessian)[:num], 1e-300)))
    _expect_focal_lengths(problem, hessian, outer, max(unit, _EXACT_PX**2))
    noise = _variance_of(_sandwich(hessian[:num, :num], outer[:num, :num]))
    expected = np.arange(num, len(columns))
    hessian[expected, expected] += unit
    step = solve(hessian, equations.gradient[:, None])[:num, 0]
    covariance = _sandwich(hessian, outer)
    return _NoiseAndLens(
        noise=noise,
        extra=np.maximum(_variance_of(covariance)[:num] - noise, 0) + step**2,
        joint=covariance[:num, :num] + np.outer(step, step),
    )


def _expect_focal_lengths(
    problem: _Problem, hessian: Float[np.ndarray, "free free"], outer: Float[np.ndarray, "free free"], unit: float
) -> None:
    """Add what is expected of any focal length, as one more observation, with a variance of `unit`.

    Where nothing else shows a focal length, as in photographs of parallel cameras, it is as uncertain as that. Without
    it, it would be certain: no observation contradicts any.
    """
    for row, camera in enumerate(problem.model.cameras):
        focal = np.isin(problem.unknowns, problem.lin.first_param[row] + np.array(focal_rows(camera)))
        at = np.flatnonzero(focal)
        information = unit / (_FOCAL * focal_length_px(camera)) ** 2
        hessian[at, at] += information
        outer[at, at] += information**2 / unit


def _by_focal_length(problem: _Problem, spread_px: Sequence[float]) -> Float[np.ndarray, "camera free"]:
    """What focal lengths may be off for other reasons, and what moves along with them: a step a camera."""
    lin, columns = problem.lin, problem.unknowns
    wanted = [(row, spread) for row, spread in enumerate(spread_px) if spread > 0]
    steps = [np.zeros((0, len(columns)))]
    if not wanted:
        return steps[0]
    equations = _equations(problem, lin, columns, np.ones(len(lin.point), bool), with_outer=False)
    for row, spread in wanted:
        focal = np.isin(columns, lin.first_param[row] + np.array(focal_rows(problem.model.cameras[row])))
        if focal.any():
            response = solve(equations.hessian, focal[:, None].astype(np.float64))[:, 0]
            steps.append((spread * response / response[focal].mean())[None])
    return np.concatenate(steps)


def _focal_spread_px(choice: LensChoice) -> float:
    """Largest difference of another model's focal length, the less weighed the worse that model predicts."""
    trials = {trial.camera_model: trial for trial in choice.trials}
    chosen = trials.get(choice.camera_model)
    if chosen is None or chosen.focal_px is None:
        return 0.0
    return max(
        abs(trial.focal_px - chosen.focal_px)
        * float(np.exp(-((max(trial.score / chosen.score - 1, 0.0) / _WORSE) ** 2) / 2))
        for trial in trials.values()
        if trial.focal_px is not None
    )


@dataclass(frozen=True, kw_only=True)
class _Disagreement:
    """Of the free unknowns."""

    variance: Float[np.ndarray, "free"]
    steps: Float[np.ndarray, "step free"]
    """Whose summed squares it is."""


def _jackknife(problem: _Problem) -> _Disagreement:
    """Mean square errors that estimates without groups of views show, for what is left of them."""
    lin, columns = problem.lin, problem.unknowns
    steps = np.full((_NUM_GROUPS, len(columns)), np.nan)
    for group, keep in enumerate(_groups(problem)):
        keep = _connected(lin, keep)
        views = np.unique(lin.view[keep])
        if len(views) < 2:
            continue
        rest = np.flatnonzero(~problem.of_views(columns) | np.isin(columns // 6, views))
        equations = _equations(problem, lin, columns[rest], keep, with_outer=False)
        steps[group, rest] = -solve(equations.hessian, equations.gradient[:, None])[:, 0]
    num = int(np.isfinite(steps).any(axis=1).sum())
    if num < 2:
        return _Disagreement(variance=np.zeros(len(columns)), steps=np.zeros((0, len(columns))))
    known = np.isfinite(steps)
    count = np.maximum(known.sum(axis=0), 1)
    steps = np.where(known, steps, 0.0)
    mean = steps.sum(axis=0) / count
    apart = np.where(known, steps - mean, 0.0)
    spread = (apart**2).sum(axis=0) / count
    return _Disagreement(
        variance=np.asarray((num - 1) * spread + ((num - 1) * mean) ** 2),
        steps=np.concatenate([np.sqrt((num - 1) / count) * apart, (num - 1) * mean[None]]),
    )


def _groups(problem: _Problem) -> list[Bool[np.ndarray, "obs"]]:
    """Observations that are kept when each of the groups is left out."""
    num, lin = len(problem.units.poses), problem.lin
    if num >= _MIN_VIEWS:
        count = min(num, _NUM_GROUPS)
        return [lin.view * count // num != group for group in range(count)]
    points = problem.model.points
    _, _, axes = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    rank = np.argsort(np.argsort(points @ axes[0]))  # slices of the scene across its longest extent
    return [(rank * _NUM_GROUPS // len(points))[lin.point] != group for group in range(_NUM_GROUPS)]


def _connected(lin: Linearised, keep: Bool[np.ndarray, "obs"]) -> Bool[np.ndarray, "obs"]:
    """Those observations that belong to the largest set of views which points hold together."""
    num = int(lin.view.max()) + 1
    links = np.stack([lin.view[keep], num + lin.point[keep]], axis=1)
    label = connected_groups(num + int(lin.point.max()) + 1, links)[:num]
    seen = np.bincount(lin.view[keep], minlength=num) > 0
    return keep & (label == np.bincount(label[seen]).argmax())[lin.view]


def _equations(
    problem: _Problem,
    lin: Linearised,
    columns: Int[np.ndarray, "free"],
    keep: Bool[np.ndarray, "obs"],
    point_damping: float = POINT_DAMPING,
    *,
    with_outer: bool = True,
) -> NormalEquations:
    """Normal equations with priors of poses, or with a gauge where nothing sets the frame."""
    equations = normal_equations(lin, columns, keep, point_damping, with_outer=with_outer)
    hessian, gradient, outer = equations.hessian, equations.gradient, equations.outer
    poses = columns[problem.of_views(columns)]
    priors = problem.held.positions
    if not problem.held.sets_frame:
        directions = gauge_directions(problem.units.poses[np.unique(poses // 6)])
        if problem.units.has_scale:
            directions = directions[:, :6]
        weight = np.maximum(np.diag(hessian)[: len(poses)], 1e-300)
        directions = directions / np.sqrt((directions**2 / weight[:, None]).sum(axis=0))
        hessian[: len(poses), : len(poses)] += directions @ directions.T
    elif priors is not None and not problem.held.pose.any():
        # their variance is known, unlike that of the observations
        view, axis = _view_with_prior(problem.units, priors)[poses // 6], np.maximum(poses % 6 - 3, 0)
        own = camera_centres(problem.model.cam_from_world)
        away, sigma = (own - priors.position)[view, axis], priors.sigmas[view, axis]
        rows = np.flatnonzero((poses % 6 >= 3) & np.isfinite(away))
        hessian[rows, rows] += 1 / sigma[rows] ** 2
        gradient[rows] += away[rows] / sigma[rows] ** 2
        if outer is not None:
            outer[rows, rows] += 1 / sigma[rows] ** 2
        rotations = problem.held.rotations
        if rotations is not None and not problem.units.sensors:
            _add_rotations(problem.model, rotations, poses, hessian, gradient, outer)
    return equations


def _add_rotations(
    model: Reconstruction,
    priors: RotationPriors,
    poses: Int[np.ndarray, "column"],
    hessian: Float[np.ndarray, "free free"],
    gradient: Float[np.ndarray, "free"],
    outer: Float[np.ndarray, "free free"] | None,
) -> None:
    """Add what is known of rotations; views are those of the model, as there are no rigs."""
    turned = model.cam_from_world[:, :, :3] @ np.swapaxes(priors.rotation, 1, 2)
    known = np.isfinite(turned).all(axis=(1, 2))
    away = np.full((len(turned), 3), np.nan)
    away[known] = Rotation.from_matrix(turned[known]).as_rotvec()
    view, axis = poses // 6, np.minimum(poses % 6, 2)
    rows = np.flatnonzero((poses % 6 < 3) & known[view])
    information = 1 / np.radians(priors.sigma_deg) ** 2
    hessian[rows, rows] += information
    gradient[rows] += information * away[view, axis][rows]
    if outer is not None:
        outer[rows, rows] += information


def _view_with_prior(units: Units, priors: PositionPriors) -> Int[np.ndarray, "unit"]:
    """A view of every unit, one whose position is known if there is one."""
    known = np.isfinite(priors.position).all(axis=1)
    views = np.lexsort((~known, units.of_view))
    return views[np.unique(units.of_view[views], return_index=True)[1]]


def _sandwich(
    hessian: Float[np.ndarray, "free free"], outer: Float[np.ndarray, "free free"]
) -> Float[np.ndarray, "free free"]:
    """H^-1 G H^-1."""
    return solve(hessian, solve(hessian, outer).T)


def _variance_of(covariance: Float[np.ndarray, "free free"]) -> Float[np.ndarray, "free"]:
    return np.maximum(np.diag(covariance), 0)


def _stands_out(deviation: Float[np.ndarray, "view"], limit: float) -> Bool[np.ndarray, "view"]:
    known = deviation[np.isfinite(deviation)]
    typical = float(np.median(known)) if len(known) else 0.0
    clear, much = (factor * typical for factor in WEAK_FACTORS)
    with np.errstate(invalid="ignore"):
        return (deviation > max(limit, clear)) | (deviation > max(limit / 10, much))
