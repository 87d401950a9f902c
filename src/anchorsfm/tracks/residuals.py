"""Reprojection errors of a model in original pixels, and the noise they show."""

import numpy as np
from jaxtyping import Float

from anchorsfm.colmap.cameras import project
from anchorsfm.scene.edit import view_of_image, with_point_errors
from anchorsfm.scene.reconstruction import Reconstruction

RAYLEIGH_MEDIAN = 1.1774
"""Median length of an error in two coordinates, over the standard deviation of each."""


def pixel_errors(model: Reconstruction) -> Float[np.ndarray, "obs"]:
    """Distance in original pixels between every observation and the projection of its point; infinite behind."""
    error = np.linalg.norm(residual_vectors(model), axis=1)
    return np.where(np.isnan(error), np.inf, error)


def with_errors(model: Reconstruction) -> Reconstruction:
    """The model with the mean reprojection error of each point over its observations."""
    num_points = len(model.points)
    count = np.maximum(np.bincount(model.tracks.obs_point, minlength=num_points), 1)
    total = np.bincount(model.tracks.obs_point, weights=pixel_errors(model), minlength=num_points)
    return with_point_errors(model, total / count)


def residual_vectors(model: Reconstruction) -> Float[np.ndarray, "obs 2"]:
    """From every observation to the projection of its point, original pixels; NaN behind the camera."""
    tracks = model.tracks
    view = view_of_image(model)[tracks.obs_image]
    residual = np.full((len(view), 2), np.nan)
    pose = model.cam_from_world[view]
    in_camera = np.einsum("nij,nj->ni", pose[:, :, :3], model.points[tracks.obs_point]) + pose[:, :, 3]
    camera = model.camera_index[view]
    for row, entry in enumerate(model.cameras):
        rows = np.flatnonzero(camera == row)
        xy, valid = project(entry, in_camera[rows])
        residual[rows[valid]] = xy[valid] - tracks.obs_xy[rows[valid]]
    return residual


def loss_scale_px(model: Reconstruction, working_scale: float) -> float:
    """Scale of the robust loss: the median error, but at least a quarter of a working pixel, a detector's noise."""
    errors = pixel_errors(model)
    return max(float(np.median(errors)) if len(errors) else 0.0, 0.25 * working_scale)


def residual_variance_px2(model: Reconstruction) -> float:
    """Variance of one coordinate of an observation, px^2, from the median error of the model.

    The distance of a point from its observation is Rayleigh distributed with median 1.1774 sigma; the unknowns have
    taken their share of it, so the square is divided by the share of degrees of freedom that they leave.
    """
    error = pixel_errors(model)
    residuals = 2 * len(error)
    unknowns = 3 * len(model.points) + 6 * len(model.image_index) + sum(len(camera.params) for camera in model.cameras)
    left = max(residuals - unknowns, 1) / max(residuals, 1)
    return float((np.median(error) / RAYLEIGH_MEDIAN) ** 2 / left) if len(error) else 0.0
