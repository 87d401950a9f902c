"""How well an adjustment determines its cameras: covariances by PyCOLMAP's estimator.

The covariance of the least squares problem is that of unit weight (errors of one pixel); it is scaled by the variance
that the residuals themselves show. Systematic errors (a wrong lens model, matches that err together) are not in it: it
is a lower bound.

Gauge: reprojection errors leave a similarity free. With two cameras fixed, the ones near them would look better than
they are, so the estimate is made in an arbitrary gauge (PyCOLMAP damps the seven free directions) and then moved to the
one in which the cameras as a whole stay where they are: C' = S C S^T with S = I - G (G^T W G)^-1 G^T W and G the
derivatives of all poses by the seven parameters of a similarity (S-transformation, Baarda 1973; Triggs et al., "Bundle
adjustment - a modern synthesis", 2000, section 9). W weighs rotations (radians) with the scene size, so that both parts
are lengths. Where two poses are held or positions are given, the gauge is theirs.
"""

from dataclasses import dataclass, replace

import numpy as np
import pycolmap
from jaxtyping import Float, Int

from anchorsfm.colmap.bundle import BundleOptions, BundleProblem, Held, bundle_problem
from anchorsfm.geometry.transforms import camera_centres, cross_matrix
from anchorsfm.scene.reconstruction import Reconstruction

MAX_VIEWS = 500
"""The joint covariance of more poses is not estimated: its size grows with the square of their number."""
_DAMPING = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4)
"""Added to the diagonal of the reduced normal equations of a model of unit size. The smallest that works is taken."""


@dataclass(frozen=True, kw_only=True)
class PoseUncertainty:
    """Standard deviations of the poses of a model; NaN where they are unknown, 0 where the pose was held."""

    position: Float[np.ndarray, "view"]
    """Of the camera centre: root of the summed variances of its coordinates, in world units."""
    rotation_deg: Float[np.ndarray, "view"]
    """The same of the rotation."""


def intrinsics_covariances(
    model: Reconstruction, options: BundleOptions, held: Held, variance_px2: float
) -> list[Float[np.ndarray, "param param"] | None]:
    """Covariance of the parameters of every camera in COLMAP's order; rows of parameters that are not refined are 0.

    None for cameras that are held, and where the problem is too badly determined for an estimate.
    """
    problem = bundle_problem(model, options, held)
    estimate = _estimate(problem, pycolmap.BACovarianceOptionsParams.ALL, _DAMPING[0])
    return [
        None if estimate is None or held.camera[row] else _camera_covariance(estimate, problem, row, variance_px2)
        for row in range(len(model.cameras))
    ]


def _camera_covariance(
    estimate: pycolmap.BACovariance, problem: BundleProblem, row: int, variance_px2: float
) -> Float[np.ndarray, "param param"] | None:
    camera = problem.model.cameras[row + 1]
    refine = problem.options
    free = [k for k in camera.focal_length_idxs() if refine.refine_focal]
    free += [k for k in camera.principal_point_idxs() if refine.refine_principal_point]
    free += [k for k in camera.extra_params_idxs() if refine.refine_distortion]
    covariance = estimate.get_other_params_cov(camera.params)
    if not free or covariance is None or len(covariance) != len(free):
        return None
    full = np.zeros((len(camera.params), len(camera.params)))
    full[np.ix_(sorted(free), sorted(free))] = variance_px2 * np.asarray(covariance)
    return full


def pose_uncertainty(model: Reconstruction, options: BundleOptions, held: Held, variance_px2: float) -> PoseUncertainty:
    """Standard deviations of all poses, in the gauge described above."""
    num = len(model.image)
    unknown = PoseUncertainty(position=np.full(num, np.nan), rotation_deg=np.full(num, np.nan))
    if num > MAX_VIEWS:
        return unknown
    size = _size(model)
    model, held = _in_units_of(size, float(np.sqrt(variance_px2)), model, held)
    problem = bundle_problem(model, options, held, fix_gauge=False)
    covariance = _pose_covariance(problem, model.image)
    if covariance is None:
        return unknown
    # of the poses inside the problem: where there are position priors, PyCOLMAP has moved the origin
    inside = [problem.model.images[int(image) + 1].cam_from_world().matrix() for image in model.image]
    jacobian = _centre_jacobians(np.array(inside))
    blocks = covariance.reshape(num, 6, num, 6)
    blocks = np.einsum("iab,ibjc,jdc->iajd", jacobian, blocks, jacobian, optimize=True)
    if not held.sets_frame:
        gauge = _gauge_projection(model.cam_from_world)
        covariance = gauge @ blocks.reshape(6 * num, 6 * num) @ gauge.T
        blocks = covariance.reshape(num, 6, num, 6)
    variance = variance_px2 * np.maximum(np.einsum("iaia->ia", blocks), 0)
    return PoseUncertainty(
        position=size * np.sqrt(variance[:, 3:].sum(1)), rotation_deg=np.degrees(np.sqrt(variance[:, :3].sum(1)))
    )


def _size(model: Reconstruction) -> float:
    """Root mean square distance of the cameras from the median point."""
    centres = camera_centres(model.cam_from_world)
    middle = np.median(model.points, axis=0) if len(model.points) else centres.mean(axis=0)
    size = float(np.sqrt(((centres - middle) ** 2).sum(1).mean()))
    return size if size > 0 else 1.0


def _in_units_of(size: float, deviation_px: float, model: Reconstruction, held: Held) -> tuple[Reconstruction, Held]:
    """The same model in another unit of length: what damping does must not depend on the unit.

    The covariance is scaled by the variance of the observations in the end, but that of position priors is known.
    """
    poses = model.cam_from_world.copy()
    poses[:, :, 3] /= size
    priors = held.positions
    if priors is not None:
        priors = replace(priors, position=priors.position / size, sigma=priors.sigma / size / max(deviation_px, 1e-6))
    return replace(model, cam_from_world=poses, points=model.points / size), replace(held, positions=priors)


def _pose_covariance(problem: BundleProblem, image: Int[np.ndarray, "view"]) -> Float[np.ndarray, "n n"] | None:
    for damping in _DAMPING:
        estimate = _estimate(problem, pycolmap.BACovarianceOptionsParams.POSES, damping)
        if estimate is not None:
            covariance = _joint_covariance(estimate, image)
            if np.isfinite(covariance).all():
                return covariance
    return None


def _estimate(
    problem: BundleProblem, params: pycolmap.BACovarianceOptionsParams, damping: float
) -> pycolmap.BACovariance | None:
    options = pycolmap.BACovarianceOptions()
    options.params = params
    options.damping = damping
    level = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = pycolmap.logging.ERROR.value  # every failed attempt is a warning
    try:
        return pycolmap.estimate_ba_covariance(options, problem.model, problem.adjuster)
    finally:
        pycolmap.logging.minloglevel = level


def _joint_covariance(estimate: pycolmap.BACovariance, image: Int[np.ndarray, "view"]) -> Float[np.ndarray, "n n"]:
    """Covariance of the tangent (rotation, translation) of all poses; zero where a pose is held."""
    num = len(image)
    covariance = np.zeros((num, 6, num, 6))
    for a in range(num):
        own = estimate.get_cam_cov_from_world(int(image[a]) + 1)
        if own is None or own.shape != (6, 6):
            continue
        covariance[a, :, a] = own
        for b in range(a + 1, num):
            cross = estimate.get_cam_cross_cov_from_world(int(image[a]) + 1, int(image[b]) + 1)
            if cross is not None and cross.shape == (6, 6):
                covariance[a, :, b], covariance[b, :, a] = cross, cross.T
    return covariance.reshape(6 * num, 6 * num)


def _centre_jacobians(cam_from_world: Float[np.ndarray, "view 3 4"]) -> Float[np.ndarray, "view 6 6"]:
    """From PyCOLMAP's tangent (d, dt), R' = exp(2 [d]x) R, to (rotation vector, camera centre).

    Ceres' quaternion manifold measures rotations by the half angle. c = -R^T t gives dc = -R^T dt - R^T [t]x (2 d).
    """
    rotation, translation = cam_from_world[:, :, :3], cam_from_world[:, :, 3]
    world_from_cam = np.swapaxes(rotation, 1, 2)
    jacobian = np.zeros((len(rotation), 6, 6))
    jacobian[:, :3, :3] = 2 * np.eye(3)
    jacobian[:, 3:, :3] = -2 * world_from_cam @ cross_matrix(translation)
    jacobian[:, 3:, 3:] = -world_from_cam
    return jacobian


def _gauge_projection(cam_from_world: Float[np.ndarray, "view 3 4"]) -> Float[np.ndarray, "n n"]:
    """The matrix S of the module docstring for the coordinates (rotation vector, camera centre) of all views."""
    centres = camera_centres(cam_from_world)
    offset = centres - centres.mean(axis=0)
    size = max(float(np.sqrt((offset**2).sum(1).mean())), 1e-12)
    generator = np.zeros((len(centres), 6, 7))
    generator[:, :3, :3] = -cam_from_world[:, :, :3]
    generator[:, 3:, :3] = -cross_matrix(offset)
    generator[:, 3:, 3:6] = np.eye(3)
    generator[:, 3:, 6] = offset
    columns = generator.reshape(-1, 7)
    weight = np.tile([size**2] * 3 + [1.0] * 3, len(centres))
    weighted = columns * weight[:, None]
    return np.eye(len(weight)) - columns @ np.linalg.solve(columns.T @ weighted, weighted.T)
