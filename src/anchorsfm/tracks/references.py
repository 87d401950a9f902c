"""Which observation of a track the others are compared with, and how they are expected to look.

The reference should see the surface as much like the others as possible: with a model it is the observation whose ray
is closest to the mean direction of the track's rays, without one the observation whose photograph shares most tracks
with the track's other photographs. Windows that leave the photograph come last.

With a model the surface is taken for a plane through the triangulated point that faces the mean direction of the
track's rays: what wide views see from both sides lies between them, parallel to neither photograph. What a step of one
pixel in the reference becomes in another photograph is the affine map A between them: scale, rotation and shear.
Tracks without a point are put at the median depth of the reference photograph, where at least scale and rotation of the
cameras are right.
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from anchorsfm.colmap.cameras import normalised_from_pixels, project
from anchorsfm.scene.edit import select_observations, view_of_image
from anchorsfm.scene.reconstruction import Reconstruction, Tracks
from anchorsfm.tracks.points import ray_bundle
from anchorsfm.tracks.triangulate import triangulate

_STEP_PX = 4.0
"""Of the difference quotient; about the reach of a window."""
_SCALES = (0.2, 5.0)
"""Singular values of a plausible map; others are taken for errors of the model."""


def rank_by_covisibility(tracks: Tracks, num_images: int) -> Float[np.ndarray, "obs"]:
    """How many tracks the photograph of an observation shares with the others of its track; each pair relative to the
    tracks that both see at all."""
    ones = np.ones(len(tracks.obs_point), np.float64)
    incidence = csr_array((ones, (tracks.obs_point, tracks.obs_image)), shape=(tracks.num_points, num_images))
    shared = (incidence.T @ incidence).tocsc()
    count = np.maximum(shared.diagonal(), 1)
    rank = np.zeros(len(tracks.obs_point))
    for image in np.unique(tracks.obs_image):
        rows = np.flatnonzero(tracks.obs_image == image)
        to_image = shared[:, [image]].toarray()[:, 0] / np.sqrt(count * count[image])
        rank[rows] = incidence[tracks.obs_point[rows]] @ to_image
    return rank


def rank_by_direction(tracks: Tracks, model: Reconstruction) -> Float[np.ndarray, "obs"]:
    """Cosine between the ray of an observation and the mean ray of its track; -2 for images that the model lacks."""
    rank = np.full(len(tracks.obs_point), -2.0)
    known, ray, mean = _directions(tracks, model)
    rank[known] = (ray * mean[tracks.obs_point[known]]).sum(1)
    return rank


def _directions(
    tracks: Tracks, model: Reconstruction
) -> tuple[Int[np.ndarray, "known"], Float[np.ndarray, "known 3"], Float[np.ndarray, "point 3"]]:
    """Observations that have a ray in the model, their rays in the world, and the mean ray of every track (0: none)."""
    known = np.flatnonzero(np.isin(tracks.obs_image, model.image_index))
    view = view_of_image(model)[tracks.obs_image[known]]
    ray = _in_camera(model, view, tracks.obs_xy[known])
    ray = np.einsum("nji,nj->ni", model.cam_from_world[view][:, :, :3], ray)
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    known, ray = known[np.isfinite(ray).all(1)], ray[np.isfinite(ray).all(1)]
    mean = np.zeros((tracks.num_points, 3))
    np.add.at(mean, tracks.obs_point[known], ray)
    mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    return known, ray, mean


def best_of_track(tracks: Tracks, rank: Float[np.ndarray, "obs"], place: int = 0) -> Int[np.ndarray, "point"]:
    """Row of the observation with the highest rank of every track (`place` 1: the second, ...; the last if there are
    fewer); of equal ones the first."""
    order = np.lexsort((-rank, tracks.obs_point))
    start = np.searchsorted(tracks.obs_point, np.arange(tracks.num_points))
    length = np.bincount(tracks.obs_point, minlength=tracks.num_points)
    return order[start + np.minimum(place, length - 1)]


def expected_affine(
    tracks: Tracks,
    reference: Int[np.ndarray, "point"],
    model: Reconstruction,
    max_error_px: Float[np.ndarray, "view"],
) -> Float[np.ndarray, "obs 2 2"]:
    """Map from pixels around the reference of a track to pixels around each of its observations, original sizes.

    `max_error_px` (view,) is the largest reprojection error with which a track is still triangulated. The identity
    where the model lacks one of the two images or where nothing plausible comes out.
    """
    affine = np.tile(np.eye(2), (len(tracks.obs_point), 1, 1))
    ref_row = reference[tracks.obs_point]
    modelled = np.isin(tracks.obs_image, model.image_index)
    rows = np.flatnonzero(modelled & modelled[ref_row] & (np.arange(len(ref_row)) != ref_row))
    if not len(rows):
        return affine
    view = np.full(len(tracks.obs_point), -1)
    view[modelled] = view_of_image(model)[tracks.obs_image[modelled]]
    depth = _depth_in_reference(tracks, reference, model, modelled, view, max_error_px)[tracks.obs_point[rows]]
    source, target, xy = view[ref_row[rows]], view[rows], tracks.obs_xy[ref_row[rows]]
    facing = _directions(tracks, model)[2][tracks.obs_point[rows]]
    normal = np.einsum("nij,nj->ni", model.cam_from_world[source][:, :, :3], facing)
    across = (normal * _in_camera(model, source, xy)).sum(axis=1)
    seen = []
    for step in np.array([[0.0, 0.0], [_STEP_PX, 0.0], [0.0, _STEP_PX]]):
        with np.errstate(divide="ignore", invalid="ignore"):
            on_plane = depth * across / (normal * _in_camera(model, source, xy + step)).sum(axis=1)
        seen.append(_transfer(model, xy + step, on_plane, source, target))
    found = np.stack([seen[1] - seen[0], seen[2] - seen[0]], axis=2) / _STEP_PX
    good = _plausible(found)
    affine[rows[good]] = found[good]
    return affine


def _plausible(affine: Float[np.ndarray, "n 2 2"]) -> Bool[np.ndarray, "n"]:
    finite = np.isfinite(affine).all(axis=(1, 2))
    scales: Float[np.ndarray, "n 2"] = np.linalg.svdvals(np.where(finite[:, None, None], affine, np.eye(2)))
    return finite & (scales[:, 1] >= _SCALES[0]) & (scales[:, 0] <= _SCALES[1])


def _depth_in_reference(
    tracks: Tracks,
    reference: Int[np.ndarray, "point"],
    model: Reconstruction,
    modelled: Bool[np.ndarray, "obs"],
    view: Int[np.ndarray, "obs"],
    max_error_px: Float[np.ndarray, "view"],
) -> Float[np.ndarray, "point"]:
    """Depth of every track in the view of its reference; the view's median where the track has no point."""
    part, old_point = select_observations(tracks, modelled)
    points = np.full((tracks.num_points, 3), np.nan)
    points[old_point] = triangulate(ray_bundle(model, part, max_error_px), part.num_points).points
    pose = model.cam_from_world[view[reference]]
    depth = np.einsum("nk,nk->n", pose[:, 2, :3], points) + pose[:, 2, 3]
    depth[~(depth > 0) | (view[reference] < 0)] = np.nan
    for number in range(len(model.image_index)):
        here = view[reference] == number
        known = here & np.isfinite(depth)
        depth[here & ~known] = np.median(depth[known]) if known.any() else np.nan
    return depth


def _transfer(
    model: Reconstruction,
    xy: Float[np.ndarray, "n 2"],
    depth: Float[np.ndarray, "n"],
    source: Int[np.ndarray, "n"],
    target: Int[np.ndarray, "n"],
) -> Float[np.ndarray, "n 2"]:
    """Where pixels of view `source` at a depth appear in view `target`; NaN where they do not."""
    in_source = _in_camera(model, source, xy) * depth[:, None]
    from_pose, to_pose = model.cam_from_world[source], model.cam_from_world[target]
    world = np.einsum("nji,nj->ni", from_pose[:, :, :3], in_source - from_pose[:, :, 3])
    in_target = np.einsum("nij,nj->ni", to_pose[:, :, :3], world) + to_pose[:, :, 3]
    in_target = np.where(np.isfinite(in_target).all(1, keepdims=True), in_target, -1.0)
    out = np.full((len(xy), 2), np.nan)
    for row, camera in enumerate(model.cameras):
        here = np.flatnonzero(model.camera_index[target] == row)
        seen, ahead = project(camera, in_target[here])
        out[here] = np.where(ahead[:, None], seen, np.nan)
    return out


def _in_camera(
    model: Reconstruction, view: Int[np.ndarray, "n"], xy: Float[np.ndarray, "n 2"]
) -> Float[np.ndarray, "n 3"]:
    """Rays with z = 1 in the frame of each view."""
    ray = np.ones((len(xy), 3))
    for row, camera in enumerate(model.cameras):
        here = np.flatnonzero(model.camera_index[view] == row)
        ray[here, :2] = normalised_from_pixels(camera, xy[here])
    return ray
