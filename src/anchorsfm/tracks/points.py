"""Points of a model: triangulate tracks with its cameras, check them, colour them."""

import numpy as np
from jaxtyping import Bool, Float, Int

from anchorsfm.colmap.cameras import normalised_from_pixels, normalised_per_pixel
from anchorsfm.io.pictures import load_rgb, working_size_wh
from anchorsfm.scene.edit import select_observations, select_points, view_of_image, with_colours, with_points
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.reconstruction import Reconstruction, Tracks
from anchorsfm.tracks.coarse import CoarseKeypoints
from anchorsfm.tracks.residuals import pixel_errors, with_errors
from anchorsfm.tracks.triangulate import RayBundle, reprojection_errors, triangulate, widest_angle_deg

_ENOUGH_POINTS = 500
"""A view with so many points that more than two views see needs no points of two views."""


def triangulate_model(
    model: Reconstruction,
    tracks: Tracks,
    *,
    max_error_px: Float[np.ndarray, "view"],
    min_angle_deg: float,
    keep_all: bool = False,
    coarse: CoarseKeypoints | None = None,
) -> Reconstruction:
    """The model's cameras with the points of `tracks` they agree on; points the model had before are dropped.

    `max_error_px` (view,) is in original pixels of each view. Unless `keep_all`, two-view points are kept only for
    views that see few others: two views cannot contradict each other along the epipolar line. Points that only
    `coarse` keypoints show in more than two views are not counted among the others: they are less exact.
    """
    visible = np.isin(tracks.obs_image, model.image_index)
    tracks, _ = select_observations(tracks, visible)
    bundle = ray_bundle(model, tracks, max_error_px)
    result = triangulate(bundle, tracks.num_points, min_angle_deg=min_angle_deg)
    keep = result.inlier
    if not keep_all:
        exact = keep if coarse is None else keep & ~coarse.among(tracks.obs_image, tracks.obs_xy)
        keep = keep & _needed(bundle.view, bundle.point, keep, exact, len(model.image_index))
    tracks, old_point = select_observations(tracks, keep)
    points = result.points[old_point]
    return with_points(model, tracks, points)


def filter_observations(
    model: Reconstruction, *, max_error_px: Float[np.ndarray, "view"], min_angle_deg: float
) -> Reconstruction:
    """Drop observations above the error and points under the angle or with fewer than two observations."""
    bundle = ray_bundle(model, model.tracks, max_error_px)
    keep = reprojection_errors(bundle, model.points) <= bundle.tolerance
    angle = widest_angles_deg(model)
    tracks, old_point = select_observations(model.tracks, keep & (angle >= min_angle_deg)[model.tracks.obs_point])
    return with_points(model, tracks, model.points[old_point])


def drop_unseen(model: Reconstruction) -> tuple[Reconstruction, int]:
    """The model without observations that do not project, and how many points went with them.

    A point may end behind a camera that sees it when the last steps of an adjustment move it through the camera: its
    error there is infinite. Points with fewer than two observations left are dropped.
    """
    seen = np.isfinite(pixel_errors(model))
    if seen.all():
        return model, 0
    kept = select_points(model, seen)
    return kept, len(model.points) - len(kept.points)


def ray_bundle(model: Reconstruction, tracks: Tracks, max_error_px: Float[np.ndarray, "view"]) -> RayBundle:
    """Observations as undistorted rays; all images of `tracks` must be views of the model."""
    view = view_of_image(model)[tracks.obs_image]
    xy = np.full((len(view), 2), np.nan)
    tolerance = np.full(len(view), np.nan)
    for row, camera in enumerate(model.cameras):
        rows = np.flatnonzero(model.camera_index[view] == row)
        xy[rows] = normalised_from_pixels(camera, tracks.obs_xy[rows])
        tolerance[rows] = max_error_px[view[rows]] * normalised_per_pixel(camera, tracks.obs_xy[rows])
    return RayBundle(point=tracks.obs_point, view=view, xy=xy, cam_from_world=model.cam_from_world, tolerance=tolerance)


def widest_angles_deg(model: Reconstruction) -> Float[np.ndarray, "point"]:
    """Triangulation angle of every point from all its observations."""
    bundle = ray_bundle(model, model.tracks, np.ones(len(model.image_index)))
    everything = np.ones(len(bundle.point), bool)
    return widest_angle_deg(bundle, everything, model.points, len(model.points))


def _needed(
    view: Int[np.ndarray, "obs"],
    point: Int[np.ndarray, "obs"],
    keep: Bool[np.ndarray, "obs"],
    exact: Bool[np.ndarray, "obs"],
    num_views: int,
) -> Bool[np.ndarray, "obs"]:
    """False for observations of two-view points all of whose views have enough points that more views see exactly."""
    num_points = int(point.max(initial=-1)) + 1
    length, exact_length = (np.bincount(point[chosen], minlength=num_points) for chosen in (keep, exact))
    multi = exact & (exact_length > 2)[point]
    hungry_view = np.bincount(view[multi], minlength=num_views) < _ENOUGH_POINTS
    hungry_point = np.zeros(num_points, bool)
    np.logical_or.at(hungry_point, point[keep], hungry_view[view[keep]])
    return (length > 2)[point] | hungry_point[point]


def colour(model: Reconstruction, images: ImageSet, *, max_size: int = 1024) -> Reconstruction:
    """The model with mean colours and mean errors of its points; one photograph in memory at a time."""
    tracks = model.tracks
    total = np.zeros((len(model.points), 3))
    count = np.maximum(np.bincount(tracks.obs_point, minlength=len(model.points)), 1)
    for image in model.image_index:
        rows = np.flatnonzero(tracks.obs_image == image)
        if not len(rows):
            continue
        size_wh = working_size_wh(images.size_wh[image], max_size)
        rgb = load_rgb(images, int(image), size_wh)
        xy = np.floor(tracks.obs_xy[rows] * (size_wh / images.size_wh[image])).astype(int)
        xy = np.clip(xy, 0, size_wh - 1)
        np.add.at(total, tracks.obs_point[rows], rgb[xy[:, 1], xy[:, 0]])
    return with_colours(with_errors(model), np.round(total / count[:, None]).astype(np.uint8))
