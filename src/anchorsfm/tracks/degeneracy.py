"""Whether views and points leave something undetermined whatever the noise: two views, a plane, hardly any movement."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from anchorsfm.geometry.planes import fit_plane
from anchorsfm.scene.edit import view_of_image
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.build import KeypointMatches
from anchorsfm.tracks.points import widest_angles_deg

FLAT = 0.03
"""Points lie in a plane if nine of ten are nearer to it than this share of their depth."""
NARROW_DEG = 3.0
"""Cameras hardly moved if half the points are seen under a smaller angle than this."""
FEW_POINTS = 100
_STILL_PX, _MIN_MATCHES = 0.5, 30
"""A pair has no motion if the median match of at least this many moves by less than this, in working pixels."""


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
        return Degeneracy(views=len(model.image_index), points=len(model.points), thickness=np.nan, angle_deg=np.nan)
    depth = _depths(model)
    plane = fit_plane(model.points)
    distance = np.abs((model.points - plane.centre) @ plane.normal)
    return Degeneracy(
        views=len(model.image_index),
        points=len(model.points),
        thickness=float(np.percentile(distance, 90) / np.median(depth)),
        angle_deg=float(np.median(widest_angles_deg(model))),
    )


def pairs_without_motion(
    matches: KeypointMatches, working_scale: Float[np.ndarray, "image"], size_wh: Int[np.ndarray, "image 2"]
) -> list[tuple[int, int]]:
    """Pairs of images of one size whose matches stay where they are: the same picture, or the camera did not move.

    `working_scale`: original pixels per pixel of the images that keypoints were found on.
    """
    pair, row = np.unique(np.stack([matches.image_i, matches.image_j], axis=1), axis=0, return_inverse=True)
    shift = np.linalg.norm(matches.xy_i - matches.xy_j, axis=1) / working_scale[matches.image_i]
    order = np.lexsort((shift, row.ravel()))
    count = np.bincount(row.ravel(), minlength=len(pair))
    first = np.cumsum(count) - count
    median = shift[order][first + count // 2] if len(pair) else np.zeros(0)
    still = (median < _STILL_PX) & (count >= _MIN_MATCHES) & (size_wh[pair[:, 0]] == size_wh[pair[:, 1]]).all(axis=1)
    return [(int(i), int(j)) for i, j in pair[still]]


def _depths(model: Reconstruction) -> Float[np.ndarray, "obs"]:
    pose = model.cam_from_world[view_of_image(model)[model.tracks.obs_image]]
    return np.einsum("nj,nj->n", pose[:, 2, :3], model.points[model.tracks.obs_point]) + pose[:, 2, 3]
