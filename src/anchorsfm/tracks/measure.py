"""How exact points and distances between them are.

The covariance of points of an adjusted model is the sum of what the noise of their own observations makes with the
cameras as they are, and of what the errors of the cameras make of points that follow them: the two parts of the inverse
of the normal equations by blocks (docs/method.md, Uncertainty).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from anchorsfm.colmap.cameras import normalised_per_pixel
from anchorsfm.scene.edit import select_points, view_of_image
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.error_modes import ErrorModes
from anchorsfm.tracks.linearised import POINT_DAMPING, linearise
from anchorsfm.tracks.residuals import loss_scale_px, pixel_errors


@dataclass(frozen=True, kw_only=True)
class Distance:
    """A length in units of the model."""

    length: float
    deviation: float
    """Standard deviation that the noise of the observations and errors of the cameras make; infinite where nothing
    holds the points, or nothing is known of the noise."""
    counts_cameras: bool
    """Whether errors of the cameras are known and part of it; else they are taken as exact."""


def observation_deviation_px(model: Reconstruction) -> float:
    """Standard deviation of a coordinate of the observations, from their residuals; NaN without any."""
    error = pixel_errors(model)
    error = error[np.isfinite(error)]
    free = 2 * len(error) - 3 * len(model.points)
    return float(np.sqrt((error**2).sum() / free)) if free > 0 else np.nan


def point_covariances(
    model: Reconstruction, points: Int[np.ndarray, "chosen"], deviation_px: float
) -> Float[np.ndarray, "chosen 3 3"]:
    """Covariances of some points, which observations of this deviation make; infinite where rays do not cross."""
    tracks, view_of = model.tracks, view_of_image(model)
    result = np.full((len(points), 3, 3), np.inf)
    for row, point in enumerate(points.tolist()):
        seen = slice(*np.searchsorted(tracks.obs_point, [point, point + 1]).tolist())
        views = view_of[tracks.obs_image[seen]]
        information = np.zeros((3, 3))
        for view, xy in zip(views.tolist(), tracks.obs_xy[seen], strict=True):
            pose = model.cam_from_world[view]
            x, y, z = pose[:, :3] @ model.points[point] + pose[:, 3]
            camera = model.cameras[model.camera_index[view]]
            pixel = float(normalised_per_pixel(camera, xy[None])[0])
            to_plane = np.array([[1 / z, 0, -x / z**2], [0, 1 / z, -y / z**2]]) @ pose[:, :3] / pixel
            information += to_plane.T @ to_plane
        if np.isfinite(information).all() and np.linalg.cond(information) < 1e12:
            result[row] = deviation_px**2 * np.linalg.inv(information)
    return result


def distance_between(
    model: Reconstruction, first: int, second: int, deviation_px: float, modes: ErrorModes | None = None
) -> Distance:
    """How far two points of a model are apart.

    Args:
        model: in any unit.
        first: row of a point.
        second: of another one.
        deviation_px: standard deviation of the coordinates of observations.
        modes: errors that the cameras may have together; None: unknown.
    """
    apart = model.points[second] - model.points[first]
    length = float(np.linalg.norm(apart))
    covariance = point_covariances(model, np.array([first, second]), deviation_px).sum(axis=0)
    along = apart / max(length, 1e-300)
    if not np.isfinite(covariance).all():
        return Distance(length=length, deviation=np.inf, counts_cameras=modes is not None)
    variance = float(along @ covariance @ along)
    if modes is not None and length > 0:
        variance += float((_steps_of_distance(model, first, second, along, modes) ** 2).sum())
    return Distance(length=length, deviation=float(np.sqrt(max(variance, 0.0))), counts_cameras=modes is not None)


def _steps_of_distance(
    model: Reconstruction, first: int, second: int, along: Float[np.ndarray, "3"], modes: ErrorModes
) -> Float[np.ndarray, "mode"]:
    """What each mode adds to the distance of two points, up to one sign for all."""
    chosen = np.zeros(len(model.points), bool)
    chosen[[first, second]] = True
    seen = select_points(model, chosen[model.tracks.obs_point])  # its points are in the order of their rows
    by_shift = np.stack([-along, along])[:, None]
    steps = np.concatenate([modes.poses.reshape(len(modes.params), -1), modes.params], axis=1)
    return np.asarray(derivatives_by_cameras(seen, by_shift, loss_scale_px(model, 1.0))[0] @ steps.T)


def derivatives_by_cameras(
    model: Reconstruction, by_shift: Float[np.ndarray, "point row 3"], scale_px: float
) -> Float[np.ndarray, "row unknown"]:
    """Derivatives by the cameras of a model of what has such ones by its points, which follow them.

    From what is asked back to the cameras, for there are often many more modes of their errors than rows.

    Args:
        model: all observations of its points count.
        by_shift: derivatives by the places of the points.
        scale_px: of the loss.

    Returns:
        By the unknowns of `linearise`.
    """
    lin = linearise(model, scale_px)
    weighed = lin.weight[:, None, None] ** 2 * lin.by_point
    normal = np.zeros((len(model.points), 3, 3))
    np.add.at(normal, lin.point, np.einsum("nki,nkj->nij", weighed, lin.by_point))
    normal += POINT_DAMPING * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(3)
    by_normal = np.moveaxis(np.linalg.solve(normal, np.moveaxis(by_shift, 1, 2)), 2, 1)
    by_residual = -np.einsum("nri,nki->rnk", by_normal[lin.point], weighed)
    return np.asarray((lin.by_unknown.T @ by_residual.reshape(len(by_residual), -1).T).T)
