"""One view fitted to known points: pose and what is open of the camera (docs/method.md, Photographs that are zoomed).

Pictures of one size need not be of one focal length: they may be zoomed, cropped and enlarged, or taken with another
lens of the same phone, and where nothing says so a wrong pose makes up for most of it.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from anchorsfm.colmap.cameras import focal_length_px, focal_rows, principal_point_rows, project
from anchorsfm.geometry.transforms import camera_centres, transform
from anchorsfm.scene.reconstruction import Camera
from anchorsfm.tracks.resect import absolute_pose
from anchorsfm.tracks.residuals import RAYLEIGH_MEDIAN

FEWEST = 6
"""Fewer points leave a pose with a focal length open."""
_MIN_CHANGE, _MIN_DEVIATIONS = 0.01, 4.0
"""A focal length that differs from the camera's by a larger share, and by as many deviations, is another."""
_MIN_GAIN = 0.1
"""Share by which what agrees with either must fit better with it (sum of log(1 + (e / s)^2))."""
_ROUNDS = 5
"""Most times that points are looked for which agree with such a focal length."""


@dataclass(frozen=True, kw_only=True)
class ViewFit:
    """A view at the optimum."""

    cam_from_world: Float[np.ndarray, "3 4"]
    camera: Camera
    covariance: Float[np.ndarray, "unknown unknown"]
    """Of rotation vector (radians, axes of the camera), centre (world units) and open parameters of the camera; NaN
    where the points do not determine them."""


def fit_view(
    camera: Camera,
    pose: Float[np.ndarray, "3 4"],
    xy_px: Float[np.ndarray, "obs 2"],
    points: Float[np.ndarray, "obs 3"],
    *,
    noise_px: float,
    expected: Camera,
    deviations: Float[np.ndarray, "param"],
) -> ViewFit:
    """Least squares of the reprojection errors (Cauchy loss) over the pose and what is open of the camera.

    Args:
        camera, pose: where to start.
        xy_px: original pixels.
        points: the point that each shows.
        noise_px: standard deviation of a coordinate.
        expected: what is known of the camera beforehand.
        deviations: standard deviation of each of its parameters, in its unit; 0: it is kept; inf: nothing is known.
    """
    rotation, centre = pose[:, :3], camera_centres(pose)
    unit = float(np.median(np.linalg.norm(points - centre, axis=1)))  # so that all unknowns are of one size
    before, params = np.array(expected.params), np.array(camera.params)
    is_open, is_expected = deviations > 0, (deviations > 0) & np.isfinite(deviations)
    of_lens = np.ones(len(params))
    of_lens[[*focal_rows(camera), *principal_point_rows(camera)]] = max(camera.width, camera.height)
    scale = np.concatenate([[1, 1, 1, unit, unit, unit], of_lens[is_open]])

    def moved(x: Float[np.ndarray, "unknown"]) -> tuple[Float[np.ndarray, "3 4"], Camera]:
        turned = Rotation.from_rotvec(x[:3]).as_matrix() @ rotation
        new = np.column_stack([turned, -turned @ (centre + unit * x[3:6])])
        changed = params.copy()
        changed[is_open] += scale[6:] * x[6:]
        return new, replace(camera, params=tuple(changed.tolist())) if is_open.any() else camera

    def residual(x: Float[np.ndarray, "unknown"]) -> Float[np.ndarray, "row"]:
        new, lens = moved(x)
        xy, visible = project(lens, transform(new, points))
        miss = np.where(visible[:, None], (xy - xy_px) / noise_px, 1e3).ravel()
        return np.append(miss, (np.array(lens.params) - before)[is_expected] / deviations[is_expected])

    found = least_squares(residual, np.zeros(len(scale)), loss="cauchy", f_scale=2.0, x_scale=1e-3, max_nfev=50)
    jacobian = np.asarray(found.jac, np.float64)
    covariance = np.full((len(scale), len(scale)), np.nan)
    information = jacobian.T @ jacobian
    if np.linalg.cond(information) < 1e14:
        covariance = np.linalg.inv(information) * np.outer(scale, scale)
    new, lens = moved(found.x)
    return ViewFit(cam_from_world=new, camera=lens, covariance=covariance)


def view_errors(
    camera: Camera,
    pose: Float[np.ndarray, "3 4"],
    xy_px: Float[np.ndarray, "obs 2"],
    points: Float[np.ndarray, "obs 3"],
) -> Float[np.ndarray, "obs"]:
    """Reprojection errors in pixels; infinite where a point cannot be seen."""
    xy, visible = project(camera, transform(pose, points))
    return np.where(visible, np.linalg.norm(np.nan_to_num(xy) - xy_px, axis=1), np.inf)


def find_zoom(
    camera: Camera,
    pose: Float[np.ndarray, "3 4"],
    xy_px: Float[np.ndarray, "obs 2"],
    points: Float[np.ndarray, "obs 3"],
    inlier: Bool[np.ndarray, "obs"],
    *,
    max_error_px: float,
) -> ViewFit | None:
    """The view with a focal length of its own, where its points say that this is surely not the camera's; else None.

    Not all observations need be right, but together they must fit clearly better.

    Args:
        camera, pose: that `inlier` agree with.
        xy_px, points: all of which some may agree with another focal length.
        max_error_px: from which on they do not.
    """
    fit = _own_focal_length(camera, pose, xy_px[inlier], points[inlier])
    if fit is None:
        return None
    before_px = view_errors(camera, pose, xy_px, points)
    scale_px = max(float(np.median(before_px[inlier])), 1e-3)

    def misfit(errors_px: Float[np.ndarray, "obs"]) -> Float[np.ndarray, "obs"]:
        return np.log1p((np.minimum(errors_px, max_error_px) / scale_px) ** 2)

    best, least, before = None, np.inf, misfit(before_px)
    for _ in range(_ROUNDS):
        errors_px = view_errors(fit.camera, fit.cam_from_world, xy_px, points)
        now = float(misfit(errors_px).sum())
        if best is None:  # what agrees with neither is no evidence
            agrees = np.minimum(before_px, errors_px) < max_error_px
            least = float(before.sum() - _MIN_GAIN * before[agrees].sum())
        if now >= least:
            break
        best, least = fit, now
        found = absolute_pose(fit.camera, xy_px, points, max_error_px)
        if found is None or found.inlier.sum() < FEWEST:
            break
        fit = _with_open_focal(fit.camera, found.cam_from_world, xy_px[found.inlier], points[found.inlier])
    return best


def _own_focal_length(
    camera: Camera,
    pose: Float[np.ndarray, "3 4"],
    xy_px: Float[np.ndarray, "obs 2"],
    points: Float[np.ndarray, "obs 3"],
) -> ViewFit | None:
    """The view with a focal length of its own, if that is surely not the camera's."""
    if len(xy_px) < FEWEST:
        return None
    focal_px, fit = focal_length_px(camera), _with_open_focal(camera, pose, xy_px, points)
    change_px, deviation_px = abs(focal_length_px(fit.camera) - focal_px), float(np.sqrt(fit.covariance[6, 6]))
    if change_px < _MIN_CHANGE * focal_px or not change_px > _MIN_DEVIATIONS * deviation_px:  # NaN: nothing tells
        return None
    return fit


def _with_open_focal(
    camera: Camera,
    pose: Float[np.ndarray, "3 4"],
    xy_px: Float[np.ndarray, "obs 2"],
    points: Float[np.ndarray, "obs 3"],
) -> ViewFit:
    error, deviations = view_errors(camera, pose, xy_px, points), np.zeros(len(camera.params))
    deviations[focal_rows(camera)] = np.inf
    noise_px = max(float(np.median(error)) / RAYLEIGH_MEDIAN, 1e-3)
    return fit_view(camera, pose, xy_px, points, noise_px=noise_px, expected=camera, deviations=deviations)
