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

Gauge: where neither poses nor positions are given, deviations are those against the cameras as a whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from anchorsfm.colmap.bundle import BundleOptions, Held, PositionPriors
from anchorsfm.colmap.cameras import focal_rows, principal_point_rows
from anchorsfm.geometry.links import connected_groups
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.scene.edit import select_points, select_views
from anchorsfm.scene.reconstruction import Camera, Reconstruction
from anchorsfm.tracks.adjust import AdjustResult
from anchorsfm.tracks.lens import LensChoice
from anchorsfm.tracks.linearised import (
    NUM_FURTHER,
    Linearised,
    NormalEquations,
    gauge_directions,
    linearise,
    normal_equations,
    solve,
    with_further_distortion,
)
from anchorsfm.tracks.rig_unknowns import Units, units_of, with_units

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

    def scaled(self, factor: float) -> "ModelUncertainty":
        """Of the same model in a metric frame in which it is larger by a factor."""
        return replace(
            self,
            position=factor * self.position,
            noise=replace(self.noise, position=factor * self.noise.position),
            scene_size=factor * self.scene_size,
            metric=True,
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
    variance, noise = _variances(part)
    total = _deviations(result, part, variance)
    weak = _stands_out(total.position / max(size, 1e-12), WEAK_POSITION)
    return ModelUncertainty(
        position=total.position,
        rotation_deg=total.rotation_deg,
        camera_params=total.camera_params,
        noise=_deviations(result, part, noise),
        scene_size=size,
        weak=weak | _stands_out(total.rotation_deg, WEAK_ROTATION_DEG),
        metric=held.sets_frame,
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
    held, priors = result.held, result.held.positions
    if priors is not None:
        priors = priors.select(np.arange(count))
    return replace(result, model=first, held=replace(held, pose=held.pose[:count], positions=priors))


def _variances(result: AdjustResult) -> tuple[Float[np.ndarray, "unknown"], Float[np.ndarray, "unknown"]]:
    """Of all columns of the linearised model, and those by noise alone; 0 where nothing was free."""
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
    problem = _Problem(model=model, lin=lin, unknowns=np.array(free, np.int64), held=held, units=units)
    if len(free) and len(lin.point):
        noise, extra = _noise_and_lens(problem)
        by_noise[free] = noise
        variance[free] = np.maximum(noise, _jackknife(problem)) + extra
        if not result.focal:
            variance[free] += _by_focal_length(problem, [_focal_spread_px(choice) for choice in result.lenses])
    if result.focal and len(lin.point):
        settled = [_settled_sigma_px(result, row) for row in range(len(model.cameras))]
        focal = [
            lin.first_param[row] + k
            for row, sigma_px in enumerate(settled)
            for k in (focal_rows(model.cameras[row]) if sigma_px > 0 else ())
        ]
        everything = np.array(sorted([*free, *focal]), np.int64)
        variance[everything] += _by_focal_length(replace(problem, unknowns=everything), settled)
    return variance, by_noise


def _settled_sigma_px(result: AdjustResult, row: int) -> float:
    """Deviation of a focal length that photographs and a record say together; 0 for others."""
    found = result.focal[row] if result.focal else None
    return 0.0 if found is None else found.sigma_px


def _noise_and_lens(problem: _Problem) -> tuple[Float[np.ndarray, "free"], Float[np.ndarray, "free"]]:
    """Variances by noise alone, and what further distortion of the lenses adds to them."""
    model, held, num = problem.model, problem.held, len(problem.unknowns)
    lin = with_further_distortion(problem.lin, model, radial=_RADIAL, other=_OTHER, centre=_CENTRE)
    further = problem.lin.by_unknown.shape[1] + np.flatnonzero(np.repeat(~held.camera, NUM_FURTHER))
    if num + len(further) > MAX_UNKNOWNS:  # a camera for every image: there is no telling what each of them does
        further = further[:0]
    columns = np.concatenate([problem.unknowns, further])
    equations = _equations(problem, lin, columns, np.ones(len(lin.point), bool))
    hessian, outer = equations.hessian, equations.outer
    noise = _sandwich(hessian[:num, :num], outer[:num, :num])
    unit = float(np.median(np.diag(outer)[:num] / np.maximum(np.diag(hessian)[:num], 1e-300)))
    expected = np.arange(num, len(columns))
    hessian[expected, expected] += unit
    step = solve(hessian, equations.gradient[:, None])[:num, 0]
    return noise, np.maximum(_sandwich(hessian, outer)[:num] - noise, 0) + step**2


def _by_focal_length(problem: _Problem, spread_px: Sequence[float]) -> Float[np.ndarray, "free"]:
    """Variances by what focal lengths may be off for other reasons, and by what moves along with them."""
    lin, columns = problem.lin, problem.unknowns
    variance = np.zeros(len(columns))
    wanted = [(row, spread) for row, spread in enumerate(spread_px) if spread > 0]
    if not wanted:
        return variance
    equations = _equations(problem, lin, columns, np.ones(len(lin.point), bool))
    for row, spread in wanted:
        focal = np.isin(columns, lin.first_param[row] + np.array(focal_rows(problem.model.cameras[row])))
        if focal.any():
            response = solve(equations.hessian, focal[:, None].astype(np.float64))[:, 0]
            variance += (spread * response / response[focal].mean()) ** 2
    return variance


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


def _jackknife(problem: _Problem) -> Float[np.ndarray, "free"]:
    """Mean square errors that estimates without groups of views show, for what is left of them."""
    lin, columns = problem.lin, problem.unknowns
    steps = np.full((_NUM_GROUPS, len(columns)), np.nan)
    for group, keep in enumerate(_groups(problem)):
        keep = _connected(lin, keep)
        views = np.unique(lin.view[keep])
        if len(views) < 2:
            continue
        rest = np.flatnonzero(~problem.of_views(columns) | np.isin(columns // 6, views))
        equations = _equations(problem, lin, columns[rest], keep)
        steps[group, rest] = -solve(equations.hessian, equations.gradient[:, None])[:, 0]
    num = int(np.isfinite(steps).any(axis=1).sum())
    if num < 2:
        return np.zeros(len(columns))
    known = np.isfinite(steps)
    count = np.maximum(known.sum(axis=0), 1)
    steps = np.where(known, steps, 0.0)
    mean = steps.sum(axis=0) / count
    spread = np.where(known, (steps - mean) ** 2, 0.0).sum(axis=0) / count
    return np.asarray((num - 1) * spread + ((num - 1) * mean) ** 2)


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
    problem: _Problem, lin: Linearised, columns: Int[np.ndarray, "free"], keep: Bool[np.ndarray, "obs"]
) -> NormalEquations:
    """Normal equations with position priors, or with a gauge where nothing sets the frame."""
    equations = normal_equations(lin, columns, keep)
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
        outer[rows, rows] += 1 / sigma[rows] ** 2
    return equations


def _view_with_prior(units: Units, priors: PositionPriors) -> Int[np.ndarray, "unit"]:
    """A view of every unit, one whose position is known if there is one."""
    known = np.isfinite(priors.position).all(axis=1)
    views = np.lexsort((~known, units.of_view))
    return views[np.unique(units.of_view[views], return_index=True)[1]]


def _sandwich(
    hessian: Float[np.ndarray, "free free"], outer: Float[np.ndarray, "free free"]
) -> Float[np.ndarray, "free"]:
    """Diagonal of H^-1 G H^-1."""
    half = solve(hessian, outer)
    return np.maximum(np.diag(solve(hessian, half.T)), 0)


def _stands_out(deviation: Float[np.ndarray, "view"], limit: float) -> Bool[np.ndarray, "view"]:
    known = deviation[np.isfinite(deviation)]
    typical = float(np.median(known)) if len(known) else 0.0
    clear, much = (factor * typical for factor in WEAK_FACTORS)
    with np.errstate(invalid="ignore"):
        return (deviation > max(limit, clear)) | (deviation > max(limit / 10, much))
