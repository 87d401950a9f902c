"""Whether views and points leave something undetermined whatever the noise: two views, a plane, hardly any movement."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from anchorsfm.geometry.planes import fit_plane
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.points import widest_angles_deg
from anchorsfm.tracks.views import view_of_image

FLAT = 0.03
"""Points lie in a plane if nine of ten are nearer to it than this share of their depth."""
NARROW_DEG = 3.0
"""Cameras hardly moved if half the points are seen under a smaller angle than this."""
FEW_POINTS = 100


@dataclass(frozen=True, kw_only=True)
class Degeneracy:
    """Figures of a model that say what it can and cannot determine."""

    views: int
    points: int
    thickness: float
    """90th percentile of the distances of points from their plane over the median depth; NaN without points."""
    angle_deg: float
    """Median of the widest angle between the rays of a point; NaN without points."""

    @property
    def is_flat(self) -> bool:
        return self.thickness < FLAT

    @property
    def is_narrow(self) -> bool:
        return self.angle_deg < NARROW_DEG


def describe_degeneracy(model: Reconstruction) -> Degeneracy:
    """Look at a finished model."""
    if len(model.points) < 4:
        return Degeneracy(views=len(model.image), points=len(model.points), thickness=np.nan, angle_deg=np.nan)
    depth = _depths(model)
    plane = fit_plane(model.points)
    distance = np.abs((model.points - plane.centre) @ plane.normal)
    return Degeneracy(
        views=len(model.image),
        points=len(model.points),
        thickness=float(np.percentile(distance, 90) / np.median(depth)),
        angle_deg=float(np.median(widest_angles_deg(model))),
    )


def _depths(model: Reconstruction) -> Float[np.ndarray, "obs"]:
    pose = model.cam_from_world[view_of_image(model)[model.tracks.obs_image]]
    return np.einsum("nj,nj->n", pose[:, 2, :3], model.points[model.tracks.obs_point]) + pose[:, 2, 3]
