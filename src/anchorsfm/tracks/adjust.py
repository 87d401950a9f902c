"""From the poses of a mapper to an adjusted model (docs/method.md, Bundle adjustment).

Rounds of: triangulate all tracks, give badly held views a pose from the points of the others, adjust, with falling
error thresholds. Before the last round the camera models are chosen (see `lens`). Then the principal points are settled
(see `principal_point`), tracks are completed and merged, and an adjustment to its optimum ends it.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from anchorsfm.colmap.bundle import BundleOptions, Held, adjust, with_plausible_cameras
from anchorsfm.colmap.cameras import describe_params, has_absurd_params, principal_point_px
from anchorsfm.scene.edit import (
    joined_tracks,
    observations_per_frame,
    select_observations,
    select_points,
    view_of_image,
    with_cameras_of_views,
    with_more_points,
    without_view,
)
from anchorsfm.scene.errors import NoReconstructionError
from anchorsfm.scene.progress import SILENT, Progress
from anchorsfm.scene.reconstruction import Reconstruction, Tracks
from anchorsfm.tracks.build import KeypointMatches
from anchorsfm.tracks.coarse import CoarseKeypoints
from anchorsfm.tracks.complete import complete_and_merge
from anchorsfm.tracks.config import AdjustConfig
from anchorsfm.tracks.lens import MIN_OBSERVATIONS, MIN_REFINED_OBSERVATIONS, LensChoice, choose_lenses
from anchorsfm.tracks.points import drop_unseen, filter_observations, ray_bundle, triangulate_model
from anchorsfm.tracks.precision import split_tracks
from anchorsfm.tracks.principal_point import PrincipalPoints, settle_principal_points
from anchorsfm.tracks.resect import resect
from anchorsfm.tracks.residuals import loss_scale_px, with_errors
from anchorsfm.tracks.selection import seen_by, spread_points
from anchorsfm.tracks.triangulate import triangulate

LOOSE, TIGHT = 1e-4, 1e-7
"""Relative change of the cost at which an adjustment stops: in the rounds, and in the end."""


@dataclass(frozen=True, kw_only=True)
class SettledFocal:
    """The focal length of a camera that photographs and a prior say together; it is held then."""

    free_px: float
    """What the photographs say alone; NaN where that is nothing."""
    free_sigma_px: float
    """Infinite where they say nothing."""
    prior_px: float
    """What is recorded, assumed, or shown by straight edges; NaN: nothing, or it contradicts the photographs."""
    prior_sigma_px: float
    is_assumed: bool = False
    """The prior is not recorded: it is what most lenses have."""
    is_from_lines: bool = False
    """The prior is not recorded: straight edges of the photographs show it."""
    sigma_px: float
    """Standard deviation of the settled one."""

    @property
    def weight_of_prior(self) -> float:
        """0: the photographs decide, 1: the prior does."""
        if not np.isfinite(self.prior_px):
            return 0.0
        if not np.isfinite(self.free_sigma_px):
            return 1.0
        free, prior = self.free_sigma_px / self.free_px, self.prior_sigma_px / self.prior_px
        return float(free**2 / (free**2 + prior**2))

    @property
    def focal_px(self) -> float:
        """The settled one."""
        weight = self.weight_of_prior
        if weight in (0.0, 1.0):
            return self.prior_px if weight else self.free_px
        return float(self.free_px * (self.prior_px / self.free_px) ** weight)

    @property
    def is_kept(self) -> bool:
        """Whether the photographs add little to the prior."""
        return self.weight_of_prior > 0.5


@dataclass(frozen=True, kw_only=True)
class AdjustResult:
    """The adjusted model and the views that did not make it."""

    model: Reconstruction
    dropped: dict[int, str]
    """Image index -> why it is not registered."""
    options: BundleOptions
    """Of the last adjustment: the model is at its optimum for them."""
    held: Held
    """What that adjustment held."""
    lenses: tuple[LensChoice, ...]
    """How the camera model of each camera was chosen; empty if it was given."""
    focal: tuple[SettledFocal | None, ...] = ()
    """Of each camera, where a prior of any was brought in: then `options` holds all focal lengths."""
    adjusted: bool = True
    """False: only triangulated, so that nothing is known about its precision."""
    failed_steps: int = 0
    """Steps of the rounds' adjustments that could not be computed."""
    lost_points: int = 0
    """Points that ended behind a camera that sees them, and were left out."""
    added_points: int = 0
    """Points, the last ones of the model, that were triangulated with the adjusted cameras and did not move them."""

    @property
    def at_optimum(self) -> Reconstruction:
        """The model without the points that were added afterwards."""
        own = len(self.model.points) - self.added_points
        return select_points(self.model, self.model.tracks.obs_point < own) if self.added_points else self.model


@dataclass(frozen=True, kw_only=True)
class _Setting:
    """What stays the same through all rounds. Rows of `held` are those of the start model."""

    config: AdjustConfig
    tracks: Tracks
    start: Reconstruction
    working_scale: Float[np.ndarray, "view"]
    held: Held
    coarse: CoarseKeypoints | None = None
    """Of the tracks."""
    refine_distortion: bool = True
    failed_steps: list[int] = field(default_factory=list)
    """Of each adjustment so far."""

    def rows(self, model: Reconstruction) -> Int[np.ndarray, "view"]:
        """Rows of the start model that the views of a later model come from."""
        return view_of_image(self.start)[model.image_index]

    def max_error_px(self, model: Reconstruction, share: float | None) -> Float[np.ndarray, "view"]:
        """Threshold of every view: a share of the long side, or the final one."""
        cameras = [model.cameras[c] for c in model.camera_index]
        long_side_px = np.array([max(camera.width, camera.height) for camera in cameras], float)
        if share is not None:
            return share * long_side_px
        scale = self.working_scale[self.rows(model)]
        return np.minimum(self.config.final_error_px * scale, self.config.second_error * long_side_px)

    def held_in(self, model: Reconstruction) -> Held:
        rows, positions, rotations = self.rows(model), self.held.positions, self.held.rotations
        return Held(
            pose=self.held.pose[rows],
            camera=self.held.camera,
            positions=None if positions is None else positions.select(rows),
            rotations=None if rotations is None else rotations.select(rows),
        )

    def options(self, model: Reconstruction, tolerance: float) -> BundleOptions:
        return BundleOptions(
            loss_scale_px=loss_scale_px(model, float(np.median(self.working_scale))),
            refine_focal=self.config.refine_focal,
            refine_distortion=self.refine_distortion,
            max_iterations=self.config.max_iterations,
            function_tolerance=tolerance,
            num_threads=self.config.threads_for(len(self.start.image_index)),
        )

    def triangulated(self, model: Reconstruction, max_error_px: Float[np.ndarray, "view"]) -> Reconstruction:
        """The model's cameras with the points of the tracks.

        Those of less exact keypoints in many views take the place of no exact ones in two; refined ones in two are
        exact enough to be worth it anyway.
        """
        return triangulate_model(
            model,
            self.tracks,
            max_error_px=max_error_px,
            min_angle_deg=self.config.min_angle_deg,
            keep_all=self.coarse is not None and self.coarse.others_are_refined,
            coarse=self.coarse,
        )

    def adjusted(self, model: Reconstruction, options: BundleOptions) -> Reconstruction:
        """The model at the optimum of what is not held."""
        moving = self.moving(model)
        if moving.all() or not moving.any():
            return self._adjusted(model, options, self.held_in(model))
        # what does not move the cameras is soon at its optimum, and would be looked at in all of their steps
        found = self._adjusted(_with_points(model, moving), options, self.held_in(model))
        moved = replace(found, points=model.points, rgb=model.rgb, error_px=model.error_px, tracks=model.tracks)
        everything = Held(pose=np.ones(len(model.image_index), bool), camera=np.ones(len(model.cameras), bool))
        others = self._adjusted(_with_points(moved, ~moving), options, everything)
        points = np.empty_like(model.points)
        points[moving], points[~moving] = found.points, others.points
        return replace(moved, points=points)

    def _adjusted(self, model: Reconstruction, options: BundleOptions, held: Held) -> Reconstruction:
        result, report = adjust(model, options, held)
        self.failed_steps.append(report.failed_steps)
        return result

    def moving(self, model: Reconstruction) -> Bool[np.ndarray, "point"]:
        """Points that say something of what is not held: those that more than held views see."""
        held = self.held_in(model)
        return seen_by(model, ~(held.pose & held.camera[model.camera_index]))

    def thins(self, model: Reconstruction) -> bool:
        """Whether the rounds adjust the cameras with a selection of the points."""
        return len(model.image_index) > self.config.all_points_up_to

    def may_move_centre(self, model: Reconstruction) -> Bool[np.ndarray, "camera"]:
        """Cameras that enough images share."""
        images_of_camera = np.bincount(model.camera_index, minlength=len(model.cameras))
        enough = images_of_camera >= self.config.principal_point_min_images
        return enough & ~self.held.camera & self.config.refine_principal_point


def adjust_model(
    start: Reconstruction,
    tracks: Tracks,
    config: AdjustConfig,
    *,
    working_scale: Float[np.ndarray, "view"],
    matches: KeypointMatches | None = None,
    coarse: CoarseKeypoints | None = None,
    held: Held | None = None,
    choose_camera_model: bool = False,
    refine_distortion: bool = True,
    is_settled: bool = False,
    progress: Progress = SILENT,
) -> AdjustResult:
    """Triangulate and adjust.

    Args:
        start: cameras and poses; its points are ignored.
        tracks: tracks of the whole ImageSet, in original pixels.
        config: thresholds.
        working_scale: original pixels per working pixel of each view of `start`.
        matches: those the tracks were built from; with them tracks are completed and merged.
        coarse: keypoints that are less exact: see `precision`.
        held: given poses and intrinsics, by row of `start` (default: none).
        choose_camera_model: choose the camera model of each camera; otherwise those of `start` stay.
        refine_distortion: False: it stays as it is in `start`.
        is_settled: `start` is about right: the first round, with the widest threshold, is left out.
        progress: receives one stage with a step per round.
    """
    held = held or Held.nothing(start)
    added = Tracks.empty()
    if coarse is not None:
        mine, _ = select_observations(tracks, np.isin(tracks.obs_image, start.image_index))
        split = split_tracks(mine, coarse)
        tracks, added = split.adjusting, split.added
        matches = None if matches is None else _without_keypoints(matches, added)
    setting = _Setting(
        config=config,
        tracks=tracks,
        start=start,
        working_scale=working_scale,
        held=held,
        coarse=coarse,
        refine_distortion=refine_distortion,
    )
    lenses: tuple[LensChoice, ...] = ()
    with progress.stage("adjusting", 4) as advance:
        model = start if is_settled else _round(start, setting, config.first_error)
        advance(1)
        model = _round(model, setting, config.second_error)
        advance(1)
        if choose_camera_model and len(model.points):
            options = setting.options(model, LOOSE)
            centre = setting.may_move_centre(model)
            refined = coarse is not None and coarse.others_are_refined
            chosen = choose_lenses(
                model,
                options,
                setting.held_in(model),
                free_centre=centre,
                min_observations=MIN_REFINED_OBSERVATIONS if refined else MIN_OBSERVATIONS,
            )
            model, lenses = chosen.model, chosen.choices
        model = _round(model, setting, None)
        settled = _settle(model, setting)
        advance(1)
        model = _triangulate_and_resect(settled.model, setting, None)
        if matches is not None:
            model = complete_and_merge(model, matches, max_error_px=setting.max_error_px(model, None))
        model, dropped = _drop_weak_views(model, config)
        result = _finish(model, setting, settled.determined, dropped, lenses)
        if coarse is not None:
            result = _with_added(result, joined_tracks(added, _of_two_views_left_out(result.model, tracks)), setting)
        advance(1)
    if result.lost_points:
        progress.warn(f"{result.lost_points} points ended behind a camera that sees them and were left out")
    return result


def _with_points(model: Reconstruction, chosen: Bool[np.ndarray, "point"]) -> Reconstruction:
    return model if chosen.all() else select_points(model, chosen[model.tracks.obs_point], min_length=1)


def _without_keypoints(matches: KeypointMatches, tracks: Tracks) -> KeypointMatches:
    """Matches between other keypoints than those of some tracks."""
    theirs = CoarseKeypoints.of(tracks.obs_image, tracks.obs_xy)
    either = theirs.among(matches.image_i, matches.xy_i) | theirs.among(matches.image_j, matches.xy_j)
    return matches.select(~either)


def _of_two_views_left_out(model: Reconstruction, tracks: Tracks) -> Tracks:
    """Tracks of two views that the cameras were not adjusted to, because enough others are longer."""
    used = CoarseKeypoints.of(model.tracks.obs_image, model.tracks.obs_xy).among(tracks.obs_image, tracks.obs_xy)
    is_used = np.bincount(tracks.obs_point[used], minlength=tracks.num_points) > 0
    left_out = ~is_used & (np.bincount(tracks.obs_point, minlength=tracks.num_points) == 2)
    return select_observations(tracks, left_out[tracks.obs_point])[0]


def _with_added(result: AdjustResult, tracks: Tracks, setting: _Setting) -> AdjustResult:
    """The adjusted model with the points of further tracks that its cameras see."""
    model = result.model
    if not tracks.num_points or not len(model.points):
        return result
    others = triangulate_model(
        model,
        tracks,
        max_error_px=setting.max_error_px(model, None),
        min_angle_deg=setting.config.min_angle_deg,
    )
    both = with_errors(with_more_points(model, others))
    return replace(result, model=both, added_points=len(others.points))


def readjust(
    result: AdjustResult,
    start: Reconstruction,
    config: AdjustConfig,
    *,
    options: BundleOptions,
    held: Held,
    fixed: Reconstruction | None = None,
) -> AdjustResult:
    """A finished model adjusted once more to its optimum, under other conditions.

    Args:
        result: the model.
        start: `result.at_optimum` with other poses, points or cameras: where to start from.
        config: thresholds, for points that do not move the cameras.
        options: what is minimised now.
        held: what is held now.
        fixed: points that stay where they are, with their observations: they are no part of the result.
    """
    if fixed is None:
        model, report = adjust(start, options, held)
    else:
        own = len(start.points)
        both = with_more_points(start, fixed)
        model, report = adjust(both, options, replace(held, last_points=len(fixed.points)))
        model = select_points(model, model.tracks.obs_point < own)
    if not report.usable or any(has_absurd_params(camera) for camera in model.cameras):
        model = start
    model, lost = drop_unseen(model)
    again = replace(result, model=with_errors(model), options=options, held=held, added_points=0)
    again = replace(
        again, lost_points=result.lost_points + lost, failed_steps=result.failed_steps + report.failed_steps
    )
    if not result.added_points:
        return again
    others, _ = select_observations(
        result.model.tracks, result.model.tracks.obs_point >= len(result.model.points) - result.added_points
    )
    long_side_px = np.array([max(camera.width, camera.height) for camera in model.cameras], float)
    added = triangulate_model(
        model,
        others,
        max_error_px=config.second_error * long_side_px[model.camera_index],
        min_angle_deg=config.min_angle_deg,
    )
    return replace(again, model=with_errors(with_more_points(model, added)), added_points=len(added.points))


def triangulate_start(
    start: Reconstruction, tracks: Tracks, config: AdjustConfig, *, held: Held | None = None
) -> AdjustResult:
    """Points of the cameras as they are, with no adjustment; errors are allowed that of the second round.

    Views with fewer than `min_observations` observations are dropped.
    """
    held = held or Held.nothing(start)
    ones = np.ones(len(start.image_index))
    setting = _Setting(config=config, tracks=tracks, start=start, working_scale=ones, held=held)
    max_error_px = setting.max_error_px(start, config.second_error)
    model = triangulate_model(start, tracks, max_error_px=max_error_px, min_angle_deg=config.min_angle_deg)
    model, dropped = _drop_weak_views(model, config)
    used, options = np.unique(model.camera_index), setting.options(model, TIGHT)
    held = setting.held_in(model)
    return AdjustResult(
        model=with_errors(with_cameras_of_views(model)),
        dropped=dropped,
        options=options,
        held=replace(held, camera=held.camera[used]),
        lenses=(),
        adjusted=False,
    )


def _round(model: Reconstruction, setting: _Setting, share: float | None) -> Reconstruction:
    """Triangulate everything again and adjust."""
    model = _triangulate_and_resect(model, setting, share)
    moving = setting.moving(model)
    if not moving.any():
        return model
    model = _with_points(model, moving)  # every round triangulates the others anew
    if setting.thins(model):
        model = spread_points(model)
    adjusted = setting.adjusted(model, setting.options(model, LOOSE))
    return with_plausible_cameras(adjusted, model)


def _settle(model: Reconstruction, setting: _Setting) -> PrincipalPoints:
    """Settle the principal points, then adjust everything else."""
    if not len(model.points):
        return PrincipalPoints(model=model, determined=np.zeros(len(model.cameras), bool))
    return settle_principal_points(
        model,
        setting.options(model, LOOSE),
        setting.held_in(model),
        eligible=setting.may_move_centre(model),
        expected_px=np.stack([principal_point_px(camera) for camera in setting.start.cameras]),
        prior=setting.config.principal_point_prior,
    )


def _finish(
    model: Reconstruction,
    setting: _Setting,
    determined: Bool[np.ndarray, "camera"],
    dropped: dict[int, str],
    lenses: tuple[LensChoice, ...],
) -> AdjustResult:
    """Drop observations above the threshold for good, and adjust to the optimum.

    The principal points are settled once more with the completed tracks, unless the points are too many for that: then
    they are free if the photographs alone have `determined` them before.
    """
    options, held, lost = setting.options(model, TIGHT), setting.held_in(model), 0
    if len(model.points):
        if not setting.thins(model):
            settled = _settle(model, setting)
            model, determined = settled.model, settled.determined
        free_centre = bool(determined.any() and (determined | held.camera).all())
        threshold = setting.max_error_px(model, None)
        model = filter_observations(model, max_error_px=threshold, min_angle_deg=setting.config.min_angle_deg)
        options = replace(options, refine_principal_point=free_centre, max_iterations=2 * options.max_iterations)
        model = setting.adjusted(model, options)
        _require_finite(model)
        model, absurd = _drop_absurd_views(model)
        model, lost = drop_unseen(model)
        model, weak = _drop_weak_views(model, setting.config) if lost else (model, {})
        dropped = dropped | absurd | weak
        held = setting.held_in(model)
    used = np.unique(model.camera_index)
    return AdjustResult(
        model=with_errors(with_cameras_of_views(model)),
        dropped=dropped,
        options=options,
        held=replace(held, camera=held.camera[used]),
        lost_points=lost,
        lenses=tuple(lenses[c] for c in used) if lenses else (),
        failed_steps=sum(setting.failed_steps),
    )


def _require_finite(model: Reconstruction) -> None:
    params = [value for camera in model.cameras for value in camera.params]
    if not all(np.isfinite(values).all() for values in (model.cam_from_world, model.points, params)):
        raise NoReconstructionError(
            "the bundle adjustment ended with poses, points or intrinsics that are not finite: the first poses or the "
            "matches it was given are unusable"
        )


def _triangulate_and_resect(model: Reconstruction, setting: _Setting, share: float | None) -> Reconstruction:
    """Points of all tracks; views that hold few of them get a new pose from the points of the others."""
    config, tracks = setting.config, setting.tracks
    max_error_px = setting.max_error_px(model, share)
    made = setting.triangulated(model, max_error_px)
    held = setting.held_in(model)
    weak = np.flatnonzero((observations_per_frame(made) < config.min_observations) & ~held.pose)
    if not len(weak) or len(weak) > len(model.image_index) - 2:
        return made
    strong = np.setdiff1d(np.arange(len(model.image_index)), weak)
    others, old_point = select_observations(tracks, np.isin(tracks.obs_image, model.image_index[strong]))
    bundle = ray_bundle(model, others, max_error_px)
    result = triangulate(bundle, others.num_points, min_angle_deg=config.min_angle_deg)
    points = np.full((tracks.num_points, 3), np.nan)
    points[old_point] = result.points
    resected, found = resect(
        model, tracks, points, weak, max_error_px=max_error_px, min_inliers=config.min_observations // 2
    )
    if not found.any():
        return made
    return setting.triangulated(resected, max_error_px)


def _drop_absurd_views(model: Reconstruction) -> tuple[Reconstruction, dict[int, str]]:
    dropped: dict[int, str] = {}
    for row, camera in enumerate(model.cameras):
        if has_absurd_params(camera):
            for image in model.image_index[model.camera_index == row]:
                reason = f"its camera came out with implausible parameters ({describe_params(camera)})"
                dropped[int(image)] = reason
                model = without_view(model, int(view_of_image(model)[image]))
    return model, dropped


def _drop_weak_views(model: Reconstruction, config: AdjustConfig) -> tuple[Reconstruction, dict[int, str]]:
    """Remove views below `min_observations`, the weakest first, until all others hold."""
    dropped: dict[int, str] = {}
    while len(model.image_index):
        count = observations_per_frame(model)
        weakest = int(count.argmin())
        if count[weakest] >= config.min_observations:
            break
        image = int(model.image_index[weakest])
        dropped[image] = f"only {count[weakest]} observations of triangulated points"
        model = without_view(model, weakest)
    return model, dropped
