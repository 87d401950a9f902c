"""Bundle adjustment by PyCOLMAP (Ceres)."""

from dataclasses import dataclass

import numpy as np
import pycolmap
from jaxtyping import Bool

from anchorsfm.colmap.convert import from_pycolmap, to_pycolmap
from anchorsfm.scene.reconstruction import Reconstruction


@dataclass(frozen=True, kw_only=True)
class BundleOptions:
    """One call of the adjustment."""

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
class BundleReport:
    """What the solver says about itself."""

    usable: bool
    num_iterations: int
    final_cost: float


def adjust(
    reconstruction: Reconstruction,
    options: BundleOptions,
    *,
    constant_pose: Bool[np.ndarray, "view"] | None = None,
    constant_camera: Bool[np.ndarray, "camera"] | None = None,
) -> tuple[Reconstruction, BundleReport]:
    """Minimise the Cauchy-weighted reprojection errors over poses, points and free intrinsics.

    The gauge is fixed by two cameras unless `constant_pose` (view,) marks given poses; `constant_camera` (camera,)
    marks given intrinsics. A solve that fails returns the input.
    """
    names = [f"{k}" for k in range(int(reconstruction.image.max()) + 1)]
    model = to_pycolmap(reconstruction, names)
    config = pycolmap.BundleAdjustmentConfig()
    for image in reconstruction.image:
        config.add_image(int(image) + 1)
    fixed = np.zeros(len(reconstruction.image), bool) if constant_pose is None else constant_pose
    for image in reconstruction.image[fixed]:
        config.set_constant_rig_from_world_pose(model.images[int(image) + 1].frame_id)
    if fixed.sum() < 2:
        config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    if constant_camera is not None:
        for row in np.flatnonzero(constant_camera):
            config.set_constant_cam_intrinsics(int(row) + 1)
    adjuster = pycolmap.create_default_bundle_adjuster(_ceres_options(options), config, model)
    summary = adjuster.solve()
    report = BundleReport(
        usable=bool(summary.is_solution_usable()),
        num_iterations=int(getattr(summary, "num_successful_steps", 0) or 0),
        final_cost=float(getattr(summary, "final_cost", 0.0) or 0.0),
    )
    adjusted = from_pycolmap(model, reconstruction)
    finite = np.isfinite(adjusted.cam_from_world).all() and np.isfinite(adjusted.points).all()
    return (adjusted if report.usable and finite else reconstruction), report


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
