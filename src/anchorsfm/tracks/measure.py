"""How exact points and distances between them are, with the cameras taken as they are."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from anchorsfm.colmap.cameras import normalised_per_pixel
from anchorsfm.scene.edit import view_of_image
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.residuals import pixel_errors


@dataclass(frozen=True, kw_only=True)
class Distance:
    """A length in units of the model."""

    length: float
    deviation: float
    """Standard deviation that the noise of the observations makes; infinite where nothing holds the points, or nothing
    is known of the noise."""


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


def distance_between(model: Reconstruction, first: int, second: int, deviation_px: float) -> Distance:
    """How far two points of a model are apart."""
    apart = model.points[second] - model.points[first]
    length = float(np.linalg.norm(apart))
    covariance = point_covariances(model, np.array([first, second]), deviation_px).sum(axis=0)
    along = apart / max(length, 1e-300)
    if not np.isfinite(covariance).all():
        return Distance(length=length, deviation=np.inf)
    return Distance(length=length, deviation=float(np.sqrt(max(along @ covariance @ along, 0.0))))
