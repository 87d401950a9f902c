"""Poses of single views from points that other views have triangulated (docs/method.md, Registration)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from anchorsfm.colmap.cameras import focal_length_px, normalised_from_pixels
from anchorsfm.geometry.rows import distinct_rows
from anchorsfm.scene.edit import with_poses, with_tracks, with_views
from anchorsfm.scene.reconstruction import Camera, Reconstruction, Tracks

MIN_RANSAC_ITERATIONS, MAX_RANSAC_ITERATIONS = 100, 10_000


@dataclass(frozen=True, kw_only=True)
class AbsolutePose:
    """Pose of one view against known points."""

    cam_from_world: Float[np.ndarray, "3 4"]
    inlier: Bool[np.ndarray, "obs"]


@dataclass(frozen=True, kw_only=True)
class Registration:
    """A model that has grown by some views."""

    model: Reconstruction
    """Views in the order of their images; observations of the new ones are joined to the points they agree with."""
    added: dict[int, int]
    """Image index of every new view -> number of its observations that agree with its pose."""
    refused: dict[int, str]
    """Image index of the other candidates -> why they got no pose."""


def absolute_pose(
    camera: Camera, xy_px: Float[np.ndarray, "obs 2"], points: Float[np.ndarray, "obs 3"], max_error_px: float
) -> AbsolutePose | None:
    """Robust pose (PoseLib, P3P with local optimisation) from observations in original pixels of known points.

    Pixels that the camera model cannot undistort are no inliers. None if there are fewer than four others, or no pose
    that is finite.
    """
    import poselib

    xy = normalised_from_pixels(camera, xy_px)
    rows = np.flatnonzero(np.isfinite(xy).all(axis=1))
    if len(rows) < 4:
        return None
    focal = max(camera.width, camera.height)  # only sets the unit of the threshold
    unit = {"model": "SIMPLE_PINHOLE", "width": 2 * focal, "height": 2 * focal, "params": [focal, 0.0, 0.0]}
    threshold = max_error_px * focal / focal_length_px(camera)
    pose, info = poselib.estimate_absolute_pose(
        xy[rows] * focal,
        points[rows],
        unit,
        {
            "max_reproj_error": threshold,
            "min_iterations": MIN_RANSAC_ITERATIONS,
            "max_iterations": MAX_RANSAC_ITERATIONS,
            "seed": 0,
        },
        {"loss_type": "CAUCHY", "loss_scale": threshold / 4},
    )
    matrix = np.asarray(pose.Rt, np.float64)
    if not np.isfinite(matrix).all():
        return None
    inlier = np.zeros(len(xy_px), bool)
    inlier[rows] = np.asarray(info["inliers"], bool)
    return AbsolutePose(cam_from_world=matrix, inlier=inlier)


def resect(
    model: Reconstruction,
    tracks: Tracks,
    points: Float[np.ndarray, "point 3"],
    views: Int[np.ndarray, "weak"],
    *,
    max_error_px: Float[np.ndarray, "view"],
    min_inliers: int,
) -> tuple[Reconstruction, Bool[np.ndarray, "weak"]]:
    """New poses of some views of the model.

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
    poses = model.cam_from_world.copy()
    found = np.zeros(len(views), bool)
    has_point = np.isfinite(points).all(axis=1)
    for k, view in enumerate(views):
        camera = model.cameras[model.camera_index[view]]
        rows = np.flatnonzero((tracks.obs_image == model.image_index[view]) & has_point[tracks.obs_point])
        if len(rows) < min_inliers:
            continue
        pose = absolute_pose(camera, tracks.obs_xy[rows], points[tracks.obs_point[rows]], float(max_error_px[view]))
        if pose is not None and pose.inlier.sum() >= min_inliers:
            poses[view] = pose.cam_from_world
            found[k] = True
    return with_poses(model, poses), found


def register_missing(
    model: Reconstruction,
    tracks: Tracks,
    candidates: Int[np.ndarray, "candidate"],
    *,
    cameras: Sequence[Camera],
    camera_index: Int[np.ndarray, "image"],
    max_error_px: Float[np.ndarray, "image"],
    min_inliers: int,
    min_inlier_ratio: float = 0.25,
) -> Registration:
    """Give images that are not in the model a pose from its points.

    Args:
        model: cameras, poses and points; nothing of them changes.
        tracks: tracks of the whole ImageSet, with the same coordinates as the model's observations.
        candidates: images to register, none of them in the model.
        cameras: one per camera of the ImageSet: what a new view starts with unless the model has its camera already.
        camera_index: row of `cameras` of every image.
        max_error_px: inlier threshold of every image in original pixels.
        min_inliers: an image needs as many observations that agree with its pose.
        min_inlier_ratio: and this share of its observations of the model's points.
    """
    point_of_track = points_of_tracks(model, tracks)
    lens = dict(
        zip(camera_index[model.image_index].tolist(), (model.cameras[c] for c in model.camera_index), strict=True)
    )
    added: dict[int, AbsolutePose] = {}
    observations: dict[int, np.ndarray] = {}
    refused: dict[int, str] = {}
    for image, rows in _rows_by_image(tracks, candidates, point_of_track >= 0).items():
        if len(rows) < max(min_inliers, 4):
            refused[image] = f"only {len(rows)} observations of triangulated points"
            continue
        row = int(camera_index[image])
        camera = lens.get(row, cameras[row])
        points = model.points[point_of_track[tracks.obs_point[rows]]]
        pose = absolute_pose(camera, tracks.obs_xy[rows], points, float(max_error_px[image]))
        agree = 0 if pose is None else int(pose.inlier.sum())
        if pose is None or agree < max(min_inliers, min_inlier_ratio * len(rows)):
            refused[image] = f"only {agree} of {len(rows)} observations of triangulated points agree with a pose"
            continue
        added[image], observations[image] = pose, rows[pose.inlier]
    grown = with_views(model, {k: pose.cam_from_world for k, pose in added.items()}, cameras, camera_index)
    rows = np.concatenate([np.zeros(0, np.int64), *observations.values()])
    joined = Tracks(
        obs_point=point_of_track[tracks.obs_point[rows]],
        obs_image=tracks.obs_image[rows],
        obs_xy=tracks.obs_xy[rows],
    )
    return Registration(
        model=with_tracks(grown, _join(model.tracks, joined)),
        added={image: int(pose.inlier.sum()) for image, pose in added.items()},
        refused=refused,
    )


def points_of_tracks(model: Reconstruction, tracks: Tracks) -> Int[np.ndarray, "track"]:
    """Row of the model's point that each track belongs to, -1 for none: the one that shares most observations.

    Observations are the same if image and coordinates are.
    """
    ours = np.column_stack([tracks.obs_image, tracks.obs_xy]).reshape(-1, 3)
    theirs = np.column_stack([model.tracks.obs_image, model.tracks.obs_xy]).reshape(-1, 3)
    _, number = distinct_rows(np.concatenate([theirs, ours]))
    point_of = np.full(int(number.max(initial=-1)) + 1, -1)
    point_of[number[: len(theirs)]] = model.tracks.obs_point
    point = point_of[number[len(theirs) :]]
    seen = point >= 0
    links, count = np.unique(np.stack([tracks.obs_point[seen], point[seen]], axis=1), axis=0, return_counts=True)
    order = np.argsort(count, kind="stable")
    out = np.full(tracks.num_points, -1)
    out[links[order, 0]] = links[order, 1]  # the last assignment, of the largest count, stays
    return out


def _rows_by_image(
    tracks: Tracks, images: Int[np.ndarray, "candidate"], has_point: Bool[np.ndarray, "track"]
) -> dict[int, Int[np.ndarray, "_"]]:
    """Observations of tracks with a point for every image, the image with most of them first."""
    rows = np.flatnonzero(has_point[tracks.obs_point])
    rows = rows[np.argsort(tracks.obs_image[rows], kind="stable")]
    bounds = np.searchsorted(tracks.obs_image[rows], np.stack([images, images + 1]))
    found = {int(image): rows[a:b] for image, a, b in zip(images, *bounds, strict=True)}
    return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))


def _join(tracks: Tracks, more: Tracks) -> Tracks:
    """Both sets of observations of the same points; of two in one image the first stays."""
    point = np.concatenate([tracks.obs_point, more.obs_point])
    image = np.concatenate([tracks.obs_image, more.obs_image])
    _, first = np.unique(np.stack([point, image], axis=1), axis=0, return_index=True)
    return Tracks(
        obs_point=point[first],
        obs_image=image[first],
        obs_xy=np.concatenate([tracks.obs_xy, more.obs_xy])[first],
    )
