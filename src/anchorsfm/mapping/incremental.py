"""Models from tracks alone (docs/method.md, Mappers): a pair of views, and all others against the points it makes.

Wang et al., "VGGSfM: Visual geometry grounded deep structure from motion", CVPR 2024, 3.3: the best pair is adjusted,
then every other camera gets a robust absolute pose from the points. Here this goes in rounds: all images that see
enough points are registered at once, the tracks are triangulated again and everything is adjusted, until no image can
be added. Images that are left over start a model of their own.
Intrinsics are held while a model has two views, which do not show them, and freed afterwards. Errors are allowed the
widest threshold while intrinsics may be wrong, and the final one in the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated

import numpy as np
from jaxtyping import Bool, Float, Int

from anchorsfm.colmap.bundle import BundleOptions, Held, adjust, with_plausible_cameras
from anchorsfm.mapping.base import Mapped, MapperInput, MapperSettings, start_from_model
from anchorsfm.mapping.initial_pair import InitialPair, PairConfig, initial_pairs
from anchorsfm.scene.edit import (
    observations_per_view,
    view_of_image,
    with_cameras_of_views,
    without_points,
    without_view,
)
from anchorsfm.scene.progress import SILENT, Advance, Progress
from anchorsfm.scene.reconstruction import Camera, Reconstruction, Tracks
from anchorsfm.scene.settings import Range, Settings, Threads
from anchorsfm.tracks.points import filter_observations, triangulate_model
from anchorsfm.tracks.resect import Registration, points_of_tracks, register_missing
from anchorsfm.tracks.residuals import RAYLEIGH_MEDIAN, loss_scale_px, with_errors
from anchorsfm.tracks.view_fit import fit_view, view_errors

_VIEWS_THAT_SHOW_INTRINSICS = 3
_VIEWS_THAT_HOLD = 5
"""With this many views the intrinsics are about right, and errors are allowed less."""
_INITIAL_PAIRS_TRIED = 5
_MORE_POINTS = 1.1
_CLEAR_DEG, _AS_CLEAR = 0.5, 1.5
"""Views whose rotation is known better are placed at once, and of others those that are nearly as clear as the best."""
_ENOUGH_TO_JUDGE = 150
"""Observations of a view that tell how well its pose is known."""


@dataclass(frozen=True, kw_only=True)
class FromScratchConfig(Settings):
    """Growing models from tracks."""

    pair: PairConfig = field(default_factory=PairConfig)
    """Choice of the first two views."""
    min_inliers: Annotated[int, Range(6, 1_000_000)] = 30
    """Observations of the points that must agree with the pose of an image for it to be registered."""
    min_inlier_ratio: Annotated[float, Range(0, 1)] = 0.25
    """Smallest share of its observations of the points that must agree with the pose of an image for it to be
    registered."""
    batch_ratio: Annotated[float, Range(0, 1)] = 0.5
    """In a round those images are registered that see at least this share of the points that the best one sees."""
    min_angle_deg: Annotated[float, Range(0, 90)] = 1.5
    """Smallest triangulation angle of a point."""
    first_error: Annotated[float, Range(1e-5, 1)] = 0.012
    """Largest reprojection error while a model is small, as a share of the long side of the image."""
    second_error: Annotated[float, Range(1e-5, 1)] = 0.004
    """Largest reprojection error once a model has grown, as a share of the long side of the image."""
    final_error_px: Annotated[float, Range(0.01, 1000)] = 3.0
    """Largest reprojection error in the end, in working pixels."""
    max_iterations: Annotated[int, Range(1, 10_000)] = 30
    """Most iterations of each call of the bundle adjustment."""
    num_threads: Threads = 1
    """Threads of the bundle adjustment. With one, equal input gives equal bits."""


@dataclass(frozen=True, kw_only=True)
class FromScratchResult:
    """Models without a common image, the largest first."""

    models: tuple[Reconstruction, ...]
    unregistered: dict[int, str]
    """Image index of every other image -> why it is in no model."""


@dataclass(frozen=True, kw_only=True)
class _Setting:
    tracks: Tracks
    cameras: tuple[Camera, ...]
    camera_index: Int[np.ndarray, "image"]
    known_camera: Bool[np.ndarray, "camera"]
    working_scale: Float[np.ndarray, "image"]
    config: FromScratchConfig
    kept_pose: Bool[np.ndarray, "image"] | None = None
    """Images whose poses stay; None: of none."""

    @staticmethod
    def of(given: MapperInput, config: FromScratchConfig, kept_pose: Bool[np.ndarray, "image"] | None) -> "_Setting":
        return _Setting(
            tracks=given.tracks,
            cameras=given.cameras,
            camera_index=given.images.camera_index.astype(np.int64),
            known_camera=given.known_camera,
            working_scale=given.working_scale,
            config=config,
            kept_pose=kept_pose,
        )

    def long_side_px(self) -> Float[np.ndarray, "image"]:
        return np.array([max(self.cameras[c].width, self.cameras[c].height) for c in self.camera_index], np.float64)

    def final_px(self) -> Float[np.ndarray, "image"]:
        return np.minimum(
            self.config.final_error_px * self.working_scale, self.config.second_error * self.long_side_px()
        )


def map_incrementally(given: MapperInput, settings: MapperSettings, progress: Progress) -> Mapped:
    """The mapper `tracks`: `map_tracks` with its defaults."""
    result = map_tracks(
        given.tracks,
        given.cameras,
        given.images.camera_index,
        FromScratchConfig(num_threads=settings.num_threads),
        working_scale=given.working_scale,
        known_camera=given.known_camera,
        progress=progress,
    )
    starts = tuple(start_from_model(model, given) for model in result.models)
    return Mapped(starts=starts, reasons=result.unregistered)


def map_tracks(
    tracks: Tracks,
    cameras: Sequence[Camera],
    camera_index: Int[np.ndarray, "image"],
    config: FromScratchConfig,
    *,
    working_scale: Float[np.ndarray, "image"],
    known_camera: Bool[np.ndarray, "camera"] | None = None,
    progress: Progress = SILENT,
) -> FromScratchResult:
    """Cameras and points of as many images as hold together.

    Args:
        tracks: tracks of the whole ImageSet in original pixels.
        cameras: one per camera of the ImageSet; focal lengths may be wrong by some ten percent.
        camera_index: row of `cameras` of every image.
        config: settings.
        working_scale: original pixels per working pixel of every image.
        known_camera: cameras whose intrinsics are given and stay as they are.
        progress: receives one stage with a step per image.
    """
    num_images = len(camera_index)
    setting = _Setting(
        tracks=tracks,
        cameras=tuple(cameras),
        camera_index=camera_index.astype(np.int64),
        known_camera=np.zeros(len(cameras), bool) if known_camera is None else known_camera,
        working_scale=working_scale,
        config=config,
    )
    models: list[Reconstruction] = []
    reasons = dict.fromkeys(range(num_images), "no second image shares enough tracks with it at a sufficient angle")
    left = np.unique(tracks.obs_image)
    reasons |= dict.fromkeys(np.setdiff1d(np.arange(num_images), left).tolist(), "it has no matches")
    with progress.stage("growing models", num_images) as advance:
        while len(left) >= 2:
            model, refused = _grow_best(setting, left, advance)
            if model is None:
                break
            reasons |= refused
            models.append(with_errors(model))
            left = np.setdiff1d(left, model.image_index)
    for model in models:
        for image in model.image_index.tolist():
            del reasons[image]
    return FromScratchResult(
        models=tuple(sorted(models, key=lambda model: (-len(model.image_index), -len(model.points)))),
        unregistered=reasons,
    )


def grow_model(
    model: Reconstruction,
    given: MapperInput,
    candidates: Int[np.ndarray, "candidate"],
    config: FromScratchConfig,
    *,
    kept_pose: Bool[np.ndarray, "image"],
) -> tuple[Reconstruction, dict[int, str]]:
    """A model with those of the candidates whose poses its points show, and why the others have none.

    Args:
        model: cameras and poses; its points are made anew from the tracks.
        given: what mappers get.
        candidates: images that no model holds.
        config: settings.
        kept_pose: images whose poses stay as they are; the intrinsics that stay are those of `given.known_camera`.
    """
    setting = _Setting.of(given, config, kept_pose)
    return _grow(setting, _triangulated(setting, model), candidates)


def triangulated_model(model: Reconstruction, given: MapperInput, config: FromScratchConfig) -> Reconstruction:
    """The model with the points of the tracks; arguments are those of `grow_model`."""
    return _triangulated(_Setting.of(given, config, None), model)


def settle_model(
    model: Reconstruction, given: MapperInput, config: FromScratchConfig, *, kept_pose: Bool[np.ndarray, "image"]
) -> Reconstruction:
    """A model adjusted with the points of the tracks, to falling thresholds; arguments are those of `grow_model`.

    Views that too few points hold are left out.
    """
    setting = _Setting.of(given, config, kept_pose)
    return _finish(setting, _settle(setting, model))


def _grow_best(
    setting: _Setting, left: Int[np.ndarray, "left"], advance: Advance
) -> tuple[Reconstruction | None, dict[int, str]]:
    """A model grown from one of the best pairs as far as it goes, and why other images are not in it.

    The first pair that a third view can be added to is taken; a pair that nothing else fits may be wrong itself.
    """
    pairs = initial_pairs(
        setting.tracks,
        left,
        setting.cameras,
        setting.camera_index,
        setting.config.pair,
        working_scale=setting.working_scale,
    )
    best: Reconstruction | None = None
    reasons: dict[int, str] = {}
    for pair in islice(pairs, _INITIAL_PAIRS_TRIED):
        start = _from_pair(setting, pair)
        if len(start.points) < setting.config.pair.min_inliers:
            continue
        grown, refused = _grow(setting, start, left)
        model = _finish(setting, grown)
        if len(model.image_index) >= 2 and (best is None or len(model.image_index) > len(best.image_index)):
            lost = np.setdiff1d(grown.image_index, model.image_index).tolist()
            best = model
            reasons = refused | dict.fromkeys(lost, "too few observations of triangulated points hold it")
        if best is not None and (len(best.image_index) > 2 or len(left) == 2):
            break
    if best is not None:
        advance(len(best.image_index))
    return best, reasons


def _from_pair(setting: _Setting, pair: InitialPair) -> Reconstruction:
    image = np.array([pair.i, pair.j])
    used, camera_index = np.unique(setting.camera_index[image], return_inverse=True)
    poses = np.stack([np.eye(3, 4), pair.j_from_i])
    model = without_points(image, poses, [setting.cameras[row] for row in used], camera_index.reshape(-1))
    return _settle(setting, model)


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """Images that were tried against the points of a model."""

    images: Int[np.ndarray, "asked"]
    seen: Int[np.ndarray, "image"]
    """Number of points that every image observes."""
    registration: Registration
    is_clear: bool
    """Whether the pose of one of them at least is surely known."""


def _grow(
    setting: _Setting, model: Reconstruction, left: Int[np.ndarray, "left"]
) -> tuple[Reconstruction, dict[int, str]]:
    """Rounds of registering all images that see enough points, until no image can be added.

    Where those that several views confirm place no image, or none clearly, points of two views count as well. An image
    that was refused is tried again when it sees noticeably more points than then.
    """
    refused: dict[int, str] = {}
    tried = np.zeros((2, len(setting.camera_index)), np.int64)
    while len(outside := np.setdiff1d(left, model.image_index)):
        asked, tried_before = _ask(setting, model, outside, tried[0]), tried[0]
        if asked is None or not asked.is_clear:
            more = _ask(setting, _with_points_of_pairs(setting, model), outside, tried[1])
            if more is not None and (asked is None or more.registration.added):
                asked, tried_before = more, tried[1]
        if asked is None:
            break
        tried_before[asked.images] = asked.seen[asked.images]
        refused |= asked.registration.refused
        if asked.registration.added:
            keeps = setting.kept_pose is not None and bool(setting.kept_pose[model.image_index].any())
            model = (_triangulated if keeps else _settle)(setting, asked.registration.model)
    seen = _points_seen(setting, model)
    for image in np.setdiff1d(left, [*model.image_index, *refused]).tolist():
        refused[image] = f"only {seen[image]} observations of triangulated points"
    return model, {image: reason for image, reason in refused.items() if image not in model.image_index}


def _ask(
    setting: _Setting,
    model: Reconstruction,
    outside: Int[np.ndarray, "outside"],
    tried: Int[np.ndarray, "image"],
) -> _Asked | None:
    """Registration of those that see at least half as many points as the best; None if no image sees enough.

    Views whose pose few points in a small part of the picture show wait until more do, where it is clearer of others:
    whatever is seen of them next would be bent to fit.
    """
    config, seen = setting.config, _points_seen(setting, model)
    enough = outside[(seen[outside] >= config.min_inliers) & (seen[outside] > _MORE_POINTS * tried[outside])]
    if not len(enough):
        return None
    images = enough[seen[enough] >= config.batch_ratio * seen[enough].max()]
    registration = _registered(setting, model, images)
    deviation_deg = _rotation_deviations_deg(registration)
    clearest_deg = min(deviation_deg.values(), default=np.inf)
    limit_deg = max(_CLEAR_DEG, _AS_CLEAR * clearest_deg)
    vague = [image for image, deviation in deviation_deg.items() if not deviation <= limit_deg]
    if vague:
        images = np.setdiff1d(images, vague)
        registration = _registered(setting, model, images)
    return _Asked(images=images, seen=seen, registration=registration, is_clear=clearest_deg <= _CLEAR_DEG)


def _registered(setting: _Setting, model: Reconstruction, batch: Int[np.ndarray, "candidate"]) -> Registration:
    return register_missing(
        model,
        setting.tracks,
        batch,
        cameras=setting.cameras,
        camera_index=setting.camera_index,
        max_error_px=setting.config.first_error * setting.long_side_px(),
        min_inliers=setting.config.min_inliers,
        min_inlier_ratio=setting.config.min_inlier_ratio,
    )


def _rotation_deviations_deg(registration: Registration) -> dict[int, float]:
    """Of the new views, by image."""
    model, view = registration.model, view_of_image(registration.model)
    return {image: _rotation_deviation_deg(model, int(view[image])) for image in registration.added}


def _rotation_deviation_deg(model: Reconstruction, view: int) -> float:
    """Standard deviation by the spread of the residuals; infinite where the points do not determine the pose."""
    rows = np.flatnonzero(model.tracks.obs_image == model.image_index[view])
    rows = rows[:: max(len(rows) // _ENOUGH_TO_JUDGE, 1)]
    camera, pose = model.cameras[model.camera_index[view]], model.cam_from_world[view]
    xy_px, points = model.tracks.obs_xy[rows].astype(np.float64), model.points[model.tracks.obs_point[rows]]
    error_px = view_errors(camera, pose, xy_px, points)
    fit = fit_view(
        camera,
        pose,
        xy_px,
        points,
        noise_px=max(float(np.median(error_px)) / RAYLEIGH_MEDIAN, 1e-3),
        expected=camera,
        deviations=np.zeros(len(camera.params)),
    )
    deviation = float(np.degrees(np.sqrt(np.trace(fit.covariance[:3, :3]))))
    return deviation if np.isfinite(deviation) else np.inf


def _points_seen(setting: _Setting, model: Reconstruction) -> Int[np.ndarray, "image"]:
    """Number of the model's points whose tracks every image observes."""
    has_point = points_of_tracks(model, setting.tracks) >= 0
    images = setting.tracks.obs_image[has_point[setting.tracks.obs_point]]
    return np.bincount(images, minlength=len(setting.camera_index))


def _settle(setting: _Setting, model: Reconstruction) -> Reconstruction:
    """Triangulate all tracks and adjust, while the model grows."""
    return _adjusted(setting, model, _growing_px(setting, model), tolerance=1e-4)


def _with_points_of_pairs(setting: _Setting, model: Reconstruction) -> Reconstruction:
    """A growing model with the points of all tracks, those of two views included."""
    max_error_px = _growing_px(setting, model)[model.image_index]
    return triangulate_model(
        model, setting.tracks, max_error_px=max_error_px, min_angle_deg=setting.config.min_angle_deg, keep_all=True
    )


def _growing_px(setting: _Setting, model: Reconstruction) -> Float[np.ndarray, "image"]:
    """Errors that are allowed while a model grows."""
    config = setting.config
    share = config.first_error
    if len(model.image_index) >= _VIEWS_THAT_HOLD:
        share = float(np.sqrt(config.first_error * config.second_error))
    return share * setting.long_side_px()


def _triangulated(setting: _Setting, model: Reconstruction) -> Reconstruction:
    """The points of all tracks, with cameras that are good already: those of a model that is held, and others placed by
    its points."""
    max_error_px = setting.config.second_error * setting.long_side_px()[model.image_index]
    return triangulate_model(
        model, setting.tracks, max_error_px=max_error_px, min_angle_deg=setting.config.min_angle_deg
    )


def _finish(setting: _Setting, model: Reconstruction) -> Reconstruction:
    """Falling thresholds; then views that too few points hold are removed."""
    long_side_px = setting.long_side_px()
    model = _adjusted(setting, model, setting.config.second_error * long_side_px, tolerance=1e-4)
    model = _adjusted(setting, model, setting.final_px(), tolerance=1e-6)
    model = filter_observations(
        model, max_error_px=setting.final_px()[model.image_index], min_angle_deg=setting.config.min_angle_deg
    )
    return _without_weak_views(model, setting.config.min_inliers)


def _adjusted(
    setting: _Setting, model: Reconstruction, max_error_px: Float[np.ndarray, "image"], *, tolerance: float
) -> Reconstruction:
    model = triangulate_model(
        model, setting.tracks, max_error_px=max_error_px[model.image_index], min_angle_deg=setting.config.min_angle_deg
    )
    if not len(model.points):
        return model
    rows = np.unique(setting.camera_index[model.image_index])
    few = len(model.image_index) < _VIEWS_THAT_SHOW_INTRINSICS
    options = BundleOptions(
        loss_scale_px=loss_scale_px(model, float(np.median(setting.working_scale[model.image_index]))),
        max_iterations=setting.config.max_iterations,
        function_tolerance=tolerance,
        num_threads=setting.config.num_threads,
    )
    kept = np.zeros(len(setting.camera_index), bool) if setting.kept_pose is None else setting.kept_pose
    held = Held(pose=kept[model.image_index], camera=setting.known_camera[rows] | few)
    adjusted, _ = adjust(model, options, held)
    return with_plausible_cameras(adjusted, model)


def _without_weak_views(model: Reconstruction, min_observations: int) -> Reconstruction:
    """The model without views that see too few points, the weakest first, and without cameras of none."""
    while len(model.image_index):
        count = observations_per_view(model)
        weakest = int(count.argmin())
        if count[weakest] >= min_observations:
            break
        model = without_view(model, weakest)
    return with_cameras_of_views(model)
