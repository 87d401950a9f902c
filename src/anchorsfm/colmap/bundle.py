"""Bundle adjustment by PyCOLMAP (Ceres)."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pycolmap
from jaxtyping import Bool, Float, Int

from anchorsfm.colmap.cameras import has_absurd_params
from anchorsfm.colmap.convert import camera_sensor, from_pycolmap, place_rigs, to_pycolmap
from anchorsfm.colmap.quiet import silent
from anchorsfm.colmap.rotation_priors import with_rotation_priors
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.scene.edit import scaled, with_former_cameras
from anchorsfm.scene.reconstruction import Reconstruction

_USUAL_SIZE = 1000.0
MIN_PRIORS = 3
"""Positions that a frame needs."""
_ANY_DISTANCE = 1e12
"""World units; further than any camera is from its prior."""


@dataclass(frozen=True, kw_only=True)
class BundleOptions:
    """What one call of the adjustment minimises, and how far."""

    loss_scale_px: float
    """Scale of the Cauchy loss."""
    refine_focal: bool = True
    refine_principal_point: bool = False
    refine_distortion: bool = True
    max_iterations: int = 50
    function_tolerance: float = 1e-6
    num_threads: int = 1
    """One thread gives the same bits on every run; more threads add up residuals in changing order."""


@dataclass(frozen=True, kw_only=True)
class PositionPriors:
    """Camera positions known with some uncertainty."""

    position: Float[np.ndarray, "view 3"]
    """World coordinates of the camera centres; NaN where unknown."""
    sigma: float | Float[np.ndarray, "view 3"]
    """Standard deviation of each coordinate, in units of the world: of all, or by view and axis."""

    @property
    def sigmas(self) -> Float[np.ndarray, "view 3"]:
        """The deviations by view and axis."""
        return np.broadcast_to(self.sigma, self.position.shape)

    def select(self, views: Int[np.ndarray, "kept"]) -> "PositionPriors":
        """Those of some of the views."""
        return PositionPriors(position=self.position[views], sigma=self.sigmas[views])


@dataclass(frozen=True, kw_only=True)
class RotationPriors:
    """Camera rotations known with some uncertainty, of views whose positions are."""

    rotation: Float[np.ndarray, "view 3 3"]
    """cam_from_world; NaN where unknown."""
    sigma_deg: float
    """Standard deviation of the rotation about each axis, degrees."""

    def select(self, views: Int[np.ndarray, "kept"]) -> "RotationPriors":
        """Those of some of the views."""
        return replace(self, rotation=self.rotation[views])


@dataclass(frozen=True, kw_only=True)
class Held:
    """What the adjustment must not change, and what constrains it."""

    pose: Bool[np.ndarray, "view"]
    camera: Bool[np.ndarray, "camera"]
    positions: PositionPriors | None = None
    """Only where no pose is held: either sets the frame. Fewer than three known positions have no effect."""
    rotations: RotationPriors | None = None
    """They have an effect together with positions only, which say what the frame is, and not in rigs."""
    last_points: int = 0
    """How many of the model's points, the last ones, stay where they are."""

    @property
    def sets_frame(self) -> bool:
        """Whether it determines the frame and the scale of the model."""
        known = 0 if self.positions is None else int(np.isfinite(self.positions.position).all(axis=1).sum())
        return bool(self.pose.sum() >= 2 or max(known, self.last_points) >= MIN_PRIORS)

    def scaled(self, factor: float) -> "Held":
        """For a model that is larger by a factor."""
        priors = self.positions
        if priors is None or factor == 1:
            return self
        return replace(self, positions=PositionPriors(position=factor * priors.position, sigma=factor * priors.sigma))

    @staticmethod
    def nothing(model: Reconstruction) -> "Held":
        return Held(pose=np.zeros(len(model.image_index), bool), camera=np.zeros(len(model.cameras), bool))


@dataclass(frozen=True, kw_only=True)
class BundleReport:
    """What the solver says about itself."""

    usable: bool
    num_iterations: int
    final_cost: float
    failed_steps: int
    """Steps that could not be computed: normal equations that are singular, as where cameras stand in one place."""


@dataclass(frozen=True, kw_only=True)
class BundleProblem:
    """A model inside PyCOLMAP with the adjustment that is set up on it."""

    model: pycolmap.Reconstruction
    adjuster: pycolmap.BundleAdjuster
    options: BundleOptions


def adjust(
    reconstruction: Reconstruction, options: BundleOptions, held: Held | None = None
) -> tuple[Reconstruction, BundleReport]:
    """Minimise the Cauchy-weighted reprojection errors over poses, points and free intrinsics.

    The gauge is fixed by two cameras unless two poses or position priors of `held` fix it. A solve that fails returns
    the input.
    """
    unit = _unit(reconstruction)
    with silent():  # a line for every step that could not be computed
        held = held or Held.nothing(reconstruction)
        problem = bundle_problem(scaled(reconstruction, 1 / unit), options, held.scaled(1 / unit))
        summary = problem.adjuster.solve()
    ceres = getattr(summary, "ceres_summary", None)
    report = BundleReport(
        usable=bool(summary.is_solution_usable()),
        num_iterations=int(getattr(ceres, "num_successful_steps", 0) or 0),
        final_cost=float(getattr(ceres, "final_cost", 0.0) or 0.0),
        failed_steps=_failed_steps(ceres),
    )
    adjusted = scaled(from_pycolmap(problem.model, reconstruction), unit)
    finite = np.isfinite(adjusted.cam_from_world).all() and np.isfinite(adjusted.points).all()
    return (adjusted if report.usable and finite else reconstruction), report


def _unit(model: Reconstruction) -> float:
    """Length, a power of two, in which a model is adjusted: 1, unless it is very small or large.

    The solver compares gradients with an absolute limit, and those by points and positions depend on the scale.
    """
    if not len(model.points):
        return 1.0
    size = float(np.median(np.abs(model.points - np.median(model.points, axis=0))))
    is_usual = not np.isfinite(size) or size == 0 or 1 / _USUAL_SIZE <= size <= _USUAL_SIZE
    return 1.0 if is_usual else float(2.0 ** np.round(np.log2(size)))


def with_plausible_cameras(adjusted: Reconstruction, before: Reconstruction) -> Reconstruction:
    """Cameras whose parameters left the plausible range get their former ones back, and their views the former poses.

    Observations of these views will not fit well, so the next round gives the views new poses.
    """
    absurd = np.array([has_absurd_params(camera) for camera in adjusted.cameras], bool)
    return with_former_cameras(adjusted, before, absurd) if absurd.any() else adjusted


def _failed_steps(ceres: Any) -> int:
    """Linear problems whose solution was not even tried, from the solver's summary."""
    solves, tried = (int(getattr(ceres, f"num_{kind}", 0) or 0) for kind in ("linear_solves", "residual_evaluations"))
    return max(solves - tried, 0)


def bundle_problem(reconstruction: Reconstruction, options: BundleOptions, held: Held | None = None) -> BundleProblem:
    """The adjustment as PyCOLMAP's problem, not solved yet."""
    held = held or Held.nothing(reconstruction)
    names = [f"{k}" for k in range(int(reconstruction.image_index.max()) + 1)]
    model = to_pycolmap(reconstruction, names)
    config = pycolmap.BundleAdjustmentConfig()
    for image in reconstruction.image_index:
        config.add_image(int(image) + 1)
    for image in reconstruction.image_index[held.pose]:
        config.set_constant_rig_from_world_pose(model.images[int(image) + 1].frame_id)
    for row in np.flatnonzero(held.camera):
        config.set_constant_cam_intrinsics(int(row) + 1)
    for number in range(held.last_points):
        config.add_constant_point(len(reconstruction.points) - number)
    _hold_sensors(config, reconstruction, held)
    priors = _pose_priors(reconstruction, model, held.positions)
    if priors and held.rotations is not None and reconstruction.rigs is None:
        known = zip(reconstruction.image_index.tolist(), held.rotations.rotation, strict=True)
        rotation = {image + 1: matrix for image, matrix in known if np.isfinite(matrix).all()}
        sigma_rad = float(np.radians(held.rotations.sigma_deg))
        model, more = with_rotation_priors(model, config, priors, rotation, sigma_rad)
        priors += more
    if priors:
        assert not held.pose.any(), "PyCOLMAP would move held poses onto the priors"
        prior_options = pycolmap.PosePriorBundleAdjustmentOptions()
        # PyCOLMAP first moves the model onto the priors, by default robustly: a start that is further from them than
        # their standard deviation would fail, and the priors then not be used at all
        prior_options.alignment_ransac.max_error = _ANY_DISTANCE
        prior_options.alignment_ransac.random_seed = 0
        adjuster = pycolmap.create_pose_prior_ceres_bundle_adjuster(
            _ceres_options(options), prior_options, config, priors, model
        )
    else:
        is_free = not held.pose.any() and held.last_points < MIN_PRIORS
        if is_free and baselines_are_fixed(reconstruction):  # they say the scale: one pose is enough
            config.set_constant_rig_from_world_pose(model.images[int(reconstruction.image_index[0]) + 1].frame_id)
        elif held.pose.sum() < 2 and held.last_points < MIN_PRIORS:
            config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
        adjuster = pycolmap.create_default_ceres_bundle_adjuster(_ceres_options(options), config, model)
    return BundleProblem(model=model, adjuster=adjuster, options=options)


def baselines_are_fixed(reconstruction: Reconstruction) -> bool:
    """Whether some frame has views from different places that the rig holds: they say how large the model is."""
    rigs, placed = reconstruction.rigs, place_rigs(reconstruction)
    if rigs is None or placed is None:
        return False
    for views in placed.frames.values():
        sensors = rigs.sensor[reconstruction.image_index[views]]
        fixed = sensors[rigs.is_fixed[sensors]]
        if len(fixed) > 1 and np.ptp(camera_centres(rigs.sensor_from_rig[fixed]), axis=0).max() > 0:
            return True
    return False


def _hold_sensors(config: pycolmap.BundleAdjustmentConfig, reconstruction: Reconstruction, held: Held) -> None:
    """Hold poses of sensors in their rigs: those that are fixed, and all of a view whose pose is held."""
    rigs, placed = reconstruction.rigs, place_rigs(reconstruction)
    if rigs is None or placed is None:
        return
    of_held = set(rigs.sensor[reconstruction.image_index[held.pose]].tolist())
    for sensor, reference in placed.reference.items():
        is_fixed = rigs.is_fixed[sensor] and rigs.is_fixed[reference]
        if sensor != reference and (is_fixed or sensor in of_held):
            config.set_constant_sensor_from_rig_pose(camera_sensor(placed.camera_of_sensor[sensor]))


def _pose_priors(
    reconstruction: Reconstruction, model: pycolmap.Reconstruction, positions: PositionPriors | None
) -> list[pycolmap.PosePrior]:
    if positions is None:
        return []
    priors, sigmas = [], positions.sigmas
    for view, image in enumerate(reconstruction.image_index):
        if np.isfinite(positions.position[view]).all():
            prior = pycolmap.PosePrior()
            prior.position = positions.position[view]
            prior.position_covariance = np.diag(sigmas[view] ** 2)
            prior.coordinate_system = pycolmap.PosePriorCoordinateSystem.CARTESIAN
            prior.pose_prior_id = int(image) + 1
            prior.corr_data_id = model.images[int(image) + 1].data_id
            priors.append(prior)
    return priors if len(priors) >= MIN_PRIORS else []


def _ceres_options(options: BundleOptions) -> pycolmap.BundleAdjustmentOptions:
    ceres = pycolmap.BundleAdjustmentOptions()
    ceres.refine_focal_length = options.refine_focal
    ceres.refine_principal_point = options.refine_principal_point
    ceres.refine_extra_params = options.refine_distortion
    ceres.print_summary = False
    ceres.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    ceres.ceres.loss_function_scale = options.loss_scale_px
    solver = ceres.ceres.solver_options
    solver.max_num_iterations = options.max_iterations
    solver.function_tolerance = options.function_tolerance
    solver.num_threads = options.num_threads
    ceres.ceres.min_num_residuals_for_cpu_multi_threading = 0
    return ceres
