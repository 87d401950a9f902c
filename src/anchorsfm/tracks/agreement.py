"""How well the verified matches of every pair agree with a model, also those that no point of it was made of.

A match agrees if it lies on the epipolar lines that the poses give, within a tolerance, and its rays meet in front of
both cameras (docs/method.md, Finished models). A pair that was verified by itself and disagrees is evidence against the
poses of its images, or against itself.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from anchorsfm.colmap.cameras import focal_length_px, normalised_from_pixels
from anchorsfm.geometry.transforms import camera_centres, compose, cross_matrix, invert
from anchorsfm.scene.edit import view_of_image
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.build import KeypointMatches

_AT_A_TIME = 200_000
"""Matches that are looked at together: bounds the memory."""
_PARALLEL_DEG = 0.3
"""Rays under a smaller angle meet far away, in front of or behind the cameras as noise will have it."""


@dataclass(frozen=True, kw_only=True)
class PairAgreement:
    """Numbers of matches of each pair of views that are both in the model."""

    view: Int[np.ndarray, "pair 2"]
    """Rows of the model's views, the smaller one first, sorted."""
    matches: Int[np.ndarray, "pair"]
    agreeing: Int[np.ndarray, "pair"]

    @property
    def share(self) -> Float[np.ndarray, "pair"]:
        """Of the matches that agree."""
        return self.agreeing / np.maximum(self.matches, 1)


def pair_agreement(
    model: Reconstruction, matches: KeypointMatches, *, tolerance_px: Float[np.ndarray, "image"]
) -> PairAgreement:
    """Count the matches that agree with the poses.

    Args:
        model: cameras and poses; points are not used.
        matches: verified matches of the whole ImageSet, original pixels.
        tolerance_px: largest distance from the epipolar line in every image, original pixels.
    """
    lookup = np.full(len(tolerance_px), -1)
    known = view_of_image(model)
    lookup[: len(known)] = known
    view_i, view_j = lookup[matches.image_i], lookup[matches.image_j]
    rows = np.flatnonzero((view_i >= 0) & (view_j >= 0))
    agrees = np.zeros(len(rows), bool)
    for start in range(0, len(rows), _AT_A_TIME):
        part = slice(start, start + _AT_A_TIME)
        agrees[part] = _agrees(model, matches.select(rows[part]), view_i[rows[part]], view_j[rows[part]], tolerance_px)
    views = len(model.image_index)
    key = np.minimum(view_i, view_j)[rows] * views + np.maximum(view_i, view_j)[rows]
    pair, number = np.unique(key, return_inverse=True)
    return PairAgreement(
        view=np.stack(np.divmod(pair, max(views, 1)), axis=1),
        matches=np.bincount(number, minlength=len(pair)),
        agreeing=np.bincount(number[agrees], minlength=len(pair)),
    )


def _agrees(
    model: Reconstruction,
    matches: KeypointMatches,
    i: Int[np.ndarray, "match"],
    j: Int[np.ndarray, "match"],
    tolerance_px: Float[np.ndarray, "image"],
) -> Bool[np.ndarray, "match"]:
    """Sampson's distance (Hartley and Zisserman, 11.4.3) in units of the tolerance, and the place where rays meet."""
    rays_i, rays_j = _rays(model, i, matches.xy_i), _rays(model, j, matches.xy_j)
    focal = np.array([focal_length_px(model.cameras[camera]) for camera in model.camera_index])
    j_from_i = compose(model.cam_from_world[j], invert(model.cam_from_world[i]))
    baseline = j_from_i[:, :, 3]
    essential = cross_matrix(baseline) @ j_from_i[:, :, :3]
    line_j = np.einsum("nab,nb->na", essential, rays_i)
    line_i = np.einsum("nab,na->nb", essential, rays_j)
    unit_i = tolerance_px[matches.image_i] / focal[i]
    unit_j = tolerance_px[matches.image_j] / focal[j]
    gradient = np.sqrt((line_i[:, :2] ** 2).sum(1) * unit_i**2 + (line_j[:, :2] ** 2).sum(1) * unit_j**2)
    near = np.abs((rays_j * line_j).sum(1)) <= gradient
    centre = camera_centres(model.cam_from_world)
    return near & _meet_in_front(
        np.einsum("nab,na->nb", model.cam_from_world[i, :, :3], rays_i),
        np.einsum("nab,na->nb", model.cam_from_world[j, :, :3], rays_j),
        centre[j] - centre[i],
    )


def _meet_in_front(
    along_i: Float[np.ndarray, "match 3"], along_j: Float[np.ndarray, "match 3"], baseline: Float[np.ndarray, "match 3"]
) -> Bool[np.ndarray, "match"]:
    """Whether rays in the world come closest ahead of both cameras; nearly parallel ones count as meeting far away."""
    ii, ij, jj = (along_i**2).sum(1), (along_i * along_j).sum(1), (along_j**2).sum(1)
    bi, bj = (along_i * baseline).sum(1), (along_j * baseline).sum(1)
    ahead = (jj * bi - ij * bj > 0) & (ij * bi - ii * bj > 0)
    parallel = ij >= np.cos(np.radians(_PARALLEL_DEG)) * np.sqrt(ii * jj)
    return ahead | parallel


def _rays(
    model: Reconstruction, view: Int[np.ndarray, "match"], xy: Float[np.ndarray, "match 2"]
) -> Float[np.ndarray, "match 3"]:
    plane = np.full((len(view), 2), np.nan)
    for row, camera in enumerate(model.cameras):
        mine = model.camera_index[view] == row
        plane[mine] = normalised_from_pixels(camera, xy[mine])
    return np.column_stack([plane, np.ones(len(view))])
