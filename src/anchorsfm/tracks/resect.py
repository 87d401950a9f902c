"""Poses of single views from points that other views have triangulated (method: Part B4)."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Int

from anchorsfm.colmap.cameras import focal_length_px, normalised_from_pixels
from anchorsfm.scene.reconstruction import Reconstruction, Tracks


def resect(
    model: Reconstruction,
    tracks: Tracks,
    points: Float[np.ndarray, "point 3"],
    views: Int[np.ndarray, "weak"],
    *,
    max_error_px: Float[np.ndarray, "view"],
    min_inliers: int,
) -> tuple[Reconstruction, Bool[np.ndarray, "weak"]]:
    """Robust absolute poses (PoseLib, P3P with local optimisation) of some views of the model.

    Args:
        model: cameras and poses; poses of `views` are replaced where enough inliers are found.
        tracks: all tracks, also those without a point.
        points: point of every track, NaN where it has none; must not have been made with `views`.
        views: rows of the model's views.
        max_error_px: inlier threshold of every view in original pixels.
        min_inliers: fewer leave the pose as it was.

    Returns:
        The model, and which of `views` got a pose.
    """
    import poselib

    poses = model.cam_from_world.copy()
    found = np.zeros(len(views), bool)
    has_point = np.isfinite(points).all(axis=1)
    for k, view in enumerate(views):
        camera = model.cameras[model.camera_index[view]]
        rows = np.flatnonzero((tracks.obs_image == model.image[view]) & has_point[tracks.obs_point])
        xy = normalised_from_pixels(camera, tracks.obs_xy[rows])
        rows, xy = rows[np.isfinite(xy).all(1)], xy[np.isfinite(xy).all(1)]
        if len(rows) < max(min_inliers, 4):
            continue
        focal = max(camera.width, camera.height)  # only sets the unit of the threshold
        unit = {"model": "SIMPLE_PINHOLE", "width": 2 * focal, "height": 2 * focal, "params": [focal, 0.0, 0.0]}
        threshold = float(max_error_px[view]) * focal / focal_length_px(camera)
        pose, info = poselib.estimate_absolute_pose(
            xy * focal,
            points[tracks.obs_point[rows]],
            unit,
            {"max_reproj_error": threshold, "max_iterations": 10_000},
            {"loss_type": "CAUCHY", "loss_scale": threshold / 4},
        )
        if int(info["num_inliers"]) >= min_inliers:
            poses[view] = np.asarray(pose.Rt)
            found[k] = True
    return replace(model, cam_from_world=poses), found
