"""From the poses of the alignment to an adjusted model (method: Part B3-B5).

Three rounds of: triangulate all tracks, give badly held views a pose from the points of the others, adjust, with
falling error thresholds. The last round frees the principal point of cameras that enough images share; it is kept only
together with a robust loss, because without one a few wrong observations pull it far away.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from anchorsfm.colmap.bundle import BundleOptions, adjust
from anchorsfm.colmap.cameras import has_absurd_params, principal_point_px
from anchorsfm.scene.progress import SILENT, Progress
from anchorsfm.scene.reconstruction import Reconstruction, Tracks
from anchorsfm.tracks.build import select_observations
from anchorsfm.tracks.points import (
    filter_observations,
    observation_errors_px,
    observations_per_view,
    ray_bundle,
    triangulate_model,
    view_of_image,
)
from anchorsfm.tracks.resect import resect
from anchorsfm.tracks.triangulate import triangulate


@dataclass(frozen=True, kw_only=True)
class AdjustConfig:
    """Triangulation and bundle adjustment."""

    camera_model: str = "SIMPLE_RADIAL"
    """COLMAP camera model: SIMPLE_PINHOLE, PINHOLE, SIMPLE_RADIAL, RADIAL, OPENCV, OPENCV_FISHEYE, ..."""
    min_observations: int = 30
    """An image with fewer observations of triangulated points is not registered."""
    min_angle_deg: float = 1.5
    """Smallest triangulation angle of a point."""
    first_error: float = 0.012
    """Largest reprojection error of the first round, as a share of the long side of the image."""
    second_error: float = 0.004
    """The same in the second round."""
    final_error_px: float = 3.0
    """The same in the last round, in pixels of the working size (see --max-image-size)."""
    refine_principal_point: bool = True
    """Free the principal point of cameras shared by at least `principal_point_min_images` images."""
    principal_point_min_images: int = 5
    """Fewer images do not show where the principal point is."""
    principal_point_max_shift: float = 0.05
    """A principal point that moves further than this share of the image width is put back to the centre."""
    max_iterations: int = 50
    """Of each call of the solver."""
    num_threads: int = 1
    """Threads of the solver. With one, equal input gives equal bits; with more, sums change order between runs."""


@dataclass(frozen=True, kw_only=True)
class AdjustResult:
    """The adjusted model and the views that did not make it."""

    model: Reconstruction
    dropped: dict[int, str]
    """Image index -> why it is not registered."""
    loss_scale_px: float
    """Scale of the robust loss in the last round, original pixels."""


@dataclass(frozen=True, kw_only=True)
class KnownViews:
    """What must not be adjusted."""

    pose: Bool[np.ndarray, "view"]
    camera: Bool[np.ndarray, "camera"]

    @staticmethod
    def none(model: Reconstruction) -> "KnownViews":
        return KnownViews(pose=np.zeros(len(model.image), bool), camera=np.zeros(len(model.cameras), bool))


def refine_model(
    start: Reconstruction,
    tracks: Tracks,
    config: AdjustConfig,
    *,
    working_scale: Float[np.ndarray, "view"],
    known: KnownViews | None = None,
    progress: Progress = SILENT,
) -> AdjustResult:
    """Triangulate and adjust.

    Args:
        start: cameras and poses; its points are ignored.
        tracks: tracks of the whole ImageSet, in original pixels.
        config: thresholds.
        working_scale: original pixels per working pixel of each view of `start`.
        known: given poses and intrinsics (default: none).
        progress: receives one stage with a step per round.
    """
    known = known or KnownViews.none(start)
    long_side_px = np.array([max(start.cameras[c].width, start.cameras[c].height) for c in start.camera_index])
    final_px = np.minimum(config.final_error_px * working_scale, config.second_error * long_side_px)
    rounds = [config.first_error * long_side_px, config.second_error * long_side_px, final_px]
    model = start
    free = np.zeros(len(start.cameras), bool)
    with progress.stage("adjusting", len(rounds) + 1) as advance:
        for number, max_error_px in enumerate(rounds):
            model = _triangulate_and_resect(model, tracks, config, max_error_px, known)
            loss_scale_px = _loss_scale_px(model, float(np.median(working_scale)))
            last = number == len(rounds) - 1
            model = _adjust(model, config, known, loss_scale_px, free, tolerance=1e-6 if last else 1e-4)
            if last:
                model, free = _free_principal_points(model, config, known, loss_scale_px)
            advance(1)
        model = triangulate_model(model, tracks, max_error_px=final_px, min_angle_deg=config.min_angle_deg)
        model, dropped = _drop_weak_views(model, config)
        if len(model.image):
            kept = view_of_image(start)[model.image]
            known = KnownViews(pose=known.pose[kept], camera=known.camera)
            model = _adjust(model, config, known, _loss_scale_px(model, float(np.median(working_scale))), free)
            model = filter_observations(model, max_error_px=final_px[kept], min_angle_deg=config.min_angle_deg)
            model = _without_unused_cameras(model)
        advance(1)
    return AdjustResult(model=model, dropped=dropped, loss_scale_px=loss_scale_px)


def _triangulate_and_resect(
    model: Reconstruction,
    tracks: Tracks,
    config: AdjustConfig,
    max_error_px: Float[np.ndarray, "view"],
    known: KnownViews,
) -> Reconstruction:
    made = triangulate_model(model, tracks, max_error_px=max_error_px, min_angle_deg=config.min_angle_deg)
    weak = np.flatnonzero((observations_per_view(made) < config.min_observations) & ~known.pose)
    if not len(weak) or len(weak) > len(model.image) - 2:
        return made
    strong = np.setdiff1d(np.arange(len(model.image)), weak)
    others, old_point = select_observations(tracks, np.isin(tracks.obs_image, model.image[strong]))
    result = triangulate(ray_bundle(model, others, max_error_px), others.num_points)
    points = np.full((tracks.num_points, 3), np.nan)
    points[old_point] = np.where((result.angle_deg >= config.min_angle_deg)[:, None], result.points, np.nan)
    resected, found = resect(
        model, tracks, points, weak, max_error_px=max_error_px, min_inliers=config.min_observations // 2
    )
    if not found.any():
        return made
    return triangulate_model(resected, tracks, max_error_px=max_error_px, min_angle_deg=config.min_angle_deg)


def _loss_scale_px(model: Reconstruction, working_scale: float) -> float:
    """The median error, but at least a quarter of a working pixel: what a detector's noise looks like."""
    errors = observation_errors_px(model)
    return max(float(np.median(errors)) if len(errors) else 0.0, 0.25 * working_scale)


def _adjust(
    model: Reconstruction,
    config: AdjustConfig,
    known: KnownViews,
    loss_scale_px: float,
    free_centre: Bool[np.ndarray, "camera"],
    *,
    tolerance: float = 1e-6,
) -> Reconstruction:
    """Adjust everything; the principal point only of the cameras marked `free_centre`."""
    if not len(model.points):
        return model
    options = BundleOptions(
        loss_scale_px=loss_scale_px,
        max_iterations=config.max_iterations,
        function_tolerance=tolerance,
        num_threads=config.num_threads,
    )
    adjusted = model
    if not free_centre.all():
        adjusted, _ = adjust(adjusted, options, constant_pose=known.pose, constant_camera=known.camera)
    if free_centre.any():
        adjusted, _ = adjust(
            adjusted,
            replace(options, refine_principal_point=True),
            constant_pose=known.pose,
            constant_camera=known.camera | ~free_centre,
        )
    return _without_absurd_cameras(adjusted, model)


def _free_principal_points(
    model: Reconstruction, config: AdjustConfig, known: KnownViews, loss_scale_px: float
) -> tuple[Reconstruction, Bool[np.ndarray, "camera"]]:
    """Free the principal points that enough images share, and take back those that then run away."""
    images_of_camera = np.bincount(model.camera_index, minlength=len(model.cameras))
    free = (images_of_camera >= config.principal_point_min_images) & ~known.camera & config.refine_principal_point
    if not free.any():
        return model, free
    adjusted = _adjust(model, config, known, loss_scale_px, free)
    shift = np.array(
        [
            np.abs(principal_point_px(after) - principal_point_px(before)).max() / before.width
            for after, before in zip(adjusted.cameras, model.cameras, strict=True)
        ]
    )
    stay = free & (shift <= config.principal_point_max_shift)
    if (stay == free).all():
        return adjusted, free
    return (_adjust(model, config, known, loss_scale_px, stay) if stay.any() else model), stay


def _without_absurd_cameras(adjusted: Reconstruction, before: Reconstruction) -> Reconstruction:
    """Cameras whose parameters left the plausible range get their former ones back."""
    cameras = tuple(b if has_absurd_params(a) else a for a, b in zip(adjusted.cameras, before.cameras, strict=True))
    return replace(adjusted, cameras=cameras)


def _drop_weak_views(model: Reconstruction, config: AdjustConfig) -> tuple[Reconstruction, dict[int, str]]:
    """Remove views below `min_observations`, the weakest first, until all others hold."""
    dropped: dict[int, str] = {}
    while len(model.image):
        count = observations_per_view(model)
        weakest = int(count.argmin())
        if count[weakest] >= config.min_observations:
            break
        image = int(model.image[weakest])
        dropped[image] = f"only {count[weakest]} observations of triangulated points"
        model = remove_view(model, weakest)
    return model, dropped


def remove_view(model: Reconstruction, view: int) -> Reconstruction:
    """The model without one view, its observations, and points that it alone held."""
    keep_view = np.arange(len(model.image)) != view
    tracks, old_point = select_observations(model.tracks, model.tracks.obs_image != model.image[view])
    return replace(
        model,
        image=model.image[keep_view],
        cam_from_world=model.cam_from_world[keep_view],
        camera_index=model.camera_index[keep_view],
        points=model.points[old_point],
        rgb=model.rgb[old_point],
        error_px=model.error_px[old_point],
        tracks=tracks,
    )


def _without_unused_cameras(model: Reconstruction) -> Reconstruction:
    used = np.unique(model.camera_index)
    return replace(
        model,
        cameras=tuple(model.cameras[c] for c in used),
        camera_index=np.searchsorted(used, model.camera_index),
    )
