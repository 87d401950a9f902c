"""First poses to finished models: refine observations, adjust, register others (docs/method.md, Bundle adjustment)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from anchorsfm.colmap.bundle import Held
from anchorsfm.colmap.cameras import with_focal_length
from anchorsfm.mapping.base import MapperInput, Start, known_held
from anchorsfm.scene.edit import select_observations, with_cameras
from anchorsfm.scene.progress import SILENT, Progress
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.adjust import AdjustResult, adjust_model, triangulate_start
from anchorsfm.tracks.config import AdjustConfig, SubpixelConfig
from anchorsfm.tracks.resect import register_missing
from anchorsfm.tracks.subpixel import refine_observations

GRID_UNCERTAINTY, KEYPOINT_UNCERTAINTY = 0.75, 0.5
"""Standard deviation of an observation in working pixels: of a match on the front end's grid, and of a keypoint."""


@dataclass(frozen=True, kw_only=True)
class ModellingSettings:
    """How models are finished."""

    adjust: AdjustConfig
    subpixel: SubpixelConfig | None
    """Refinement of the observations; None: they stay as they are."""
    choose_camera_model: bool
    """Choose the camera model of each camera; otherwise those of the start stay."""
    focal_px: float | None = None
    """Focal length of all cameras that are not held, original pixels: it is kept. None: focal lengths are adjusted."""
    from_grid: bool
    """Matches lie on the front end's grid: they are less exact than a detector's keypoints."""
    adjusts: bool = True
    """False: the cameras stay as they start; points are triangulated, and no image is added."""


def finish_models(
    starts: Sequence[Start], given: MapperInput, settings: ModellingSettings, progress: Progress = SILENT
) -> list[AdjustResult]:
    """Adjusted models, the largest first; those of fewer than two views come last with what was dropped from them."""
    results = [_finish(start, given, settings, progress) for start in starts]
    results = [_with_missing(result, results, given, settings, progress) for result in results]
    return sorted(results, key=lambda result: -len(result.model.image_index))


def _finish(start: Start, given: MapperInput, settings: ModellingSettings, progress: Progress) -> AdjustResult:
    scale = given.working_scale[start.model.image_index]
    if not settings.adjusts:
        return triangulate_start(start.model, given.tracks, settings.adjust, held=start.held)
    if settings.subpixel is None:
        return _adjust(start, given, settings, scale, progress)
    mine, _ = select_observations(given.tracks, np.isin(given.tracks.obs_image, start.model.image_index))
    sigma = GRID_UNCERTAINTY if settings.from_grid else KEYPOINT_UNCERTAINTY
    refined = refine_observations(
        mine,
        given.images,
        settings.subpixel,
        uncertainty_px=sigma * given.working_scale,
        model=start.model,
        progress=progress,
    )
    exact = replace(given, tracks=refined.tracks)
    return _adjust(start, exact, settings, np.ones_like(scale), progress, complete=False)


def _adjust(
    start: Start,
    given: MapperInput,
    settings: ModellingSettings,
    working_scale: Float[np.ndarray, "view"],
    progress: Progress,
    *,
    complete: bool = True,
) -> AdjustResult:
    model, config = start.model, settings.adjust
    if settings.focal_px is not None:
        cameras = zip(model.cameras, start.held.camera, strict=True)
        kept = tuple(camera if held else with_focal_length(camera, settings.focal_px) for camera, held in cameras)
        model, config = with_cameras(model, kept), replace(config, refine_focal=False)
    return adjust_model(
        model,
        given.tracks,
        config,
        working_scale=working_scale,
        matches=given.matches if complete else None,
        held=start.held,
        choose_camera_model=settings.choose_camera_model,
        progress=progress,
    )


def _with_missing(
    result: AdjustResult,
    results: Sequence[AdjustResult],
    given: MapperInput,
    settings: ModellingSettings,
    progress: Progress,
) -> AdjustResult:
    """The model with images that no model holds, where its points show their poses."""
    placed = np.concatenate(
        [r.model.image_index for r in results if len(r.model.image_index) >= 2] or [np.zeros(0, np.int64)]
    )
    missing = np.setdiff1d(np.arange(given.images.num_images), placed)
    model = result.model
    largest = max(results, key=lambda r: len(r.model.image_index))
    if result is not largest or len(model.image_index) < 2 or not len(missing):
        return result
    if settings.subpixel is not None or not settings.adjusts:
        return result
    long_side_px = given.images.size_wh.max(axis=1).astype(np.float64)
    grown = register_missing(
        model,
        given.tracks,
        missing,
        cameras=given.cameras,
        camera_index=given.images.camera_index,
        max_error_px=settings.adjust.second_error * long_side_px,
        min_inliers=settings.adjust.min_observations,
    )
    if not grown.added:
        return result
    start = Start(model=grown.model, held=_grown_held(result, grown.model, given))
    again = _adjust(start, given, settings, given.working_scale[grown.model.image_index], progress)
    if len(again.model.image_index) <= len(model.image_index):
        return result
    return replace(again, dropped=result.dropped | again.dropped)


def _grown_held(result: AdjustResult, grown: Reconstruction, given: MapperInput) -> Held:
    """What was held stays so in a model that has further views; of these nothing is given."""
    before = result.held
    old = np.isin(grown.image_index, result.model.image_index)
    pose = np.zeros(len(old), bool)
    pose[old] = before.pose
    positions = before.positions
    if positions is not None:
        places = np.full((len(old), 3), np.nan)
        places[old] = positions.position
        positions = replace(positions, position=places)
    return replace(known_held(grown, given), pose=pose, positions=positions)
