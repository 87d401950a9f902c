"""First poses to finished models: refine observations, adjust, register others (docs/method.md, Bundle adjustment)."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from jaxtyping import Float, Int

from anchorsfm.colmap.bundle import Held, PositionPriors
from anchorsfm.colmap.cameras import with_focal_length
from anchorsfm.io.store import Store
from anchorsfm.mapping.base import MapperInput, Start, known_held
from anchorsfm.mapping.consistency import PLACED_ANEW, Change, examine, is_consistent, make_consistent
from anchorsfm.mapping.evidence import PairEvidence
from anchorsfm.mapping.rigs import with_frames, with_whole_frames
from anchorsfm.mapping.turned import find_turns
from anchorsfm.mapping.zoomed import find_zoomed, zoom_changes
from anchorsfm.scene.edit import select_observations, with_cameras
from anchorsfm.scene.errors import NoReconstructionError
from anchorsfm.scene.progress import SILENT, Progress
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.adjust import AdjustResult, adjust_model, triangulate_start
from anchorsfm.tracks.build import KeypointMatches, build_tracks
from anchorsfm.tracks.coarse import CoarseKeypoints
from anchorsfm.tracks.config import FEW_VIEWS, AdjustConfig, SubpixelConfig
from anchorsfm.tracks.focal_prior import FocalPriors, adjust_with_priors
from anchorsfm.tracks.points import triangulate_model
from anchorsfm.tracks.precision import refine_coarse
from anchorsfm.tracks.resect import register_missing
from anchorsfm.tracks.subpixel import refine_observations

GRID_UNCERTAINTY, KEYPOINT_UNCERTAINTY = 0.75, 0.5
"""Standard deviation of an observation in working pixels: of a match on the front end's grid, and of a keypoint."""
_ROUNDS = 4
"""Most times that what came of a model is taken apart again."""


@dataclass(frozen=True, kw_only=True)
class ModellingSettings:
    """How models are finished."""

    adjust: AdjustConfig
    subpixel: SubpixelConfig | None
    """Refinement of the observations; None: they stay as they are."""
    coarse_subpixel: SubpixelConfig | None = None
    """The same where not all are refined: of less exact keypoints among others, and of all in models of few views."""
    choose_camera_model: bool
    """Choose the camera model of each camera; otherwise those of the start stay."""
    focal_px: float | None = None
    """Focal length of all cameras that are not held, original pixels: it is kept. None: focal lengths are adjusted."""
    from_grid: bool
    """Matches lie on the front end's grid: they are less exact than a detector's keypoints."""
    adjusts: bool = True
    """False: the cameras stay as they start; points are triangulated, and no image is added."""
    goes_on: bool = False
    """The starts are finished models with poses that stay, and what was added to them: photographs that are stored
    turned are not looked for again, and errors are small from the beginning."""
    store: Store = field(default_factory=lambda: Store(None))
    """Keeps refined observations."""


@dataclass(frozen=True, kw_only=True)
class FinishedModels:
    """Adjusted models, and what was found when they were held against evidence they did not use."""

    results: tuple[AdjustResult, ...]
    """The largest first; those of fewer than two views come last with what was dropped from them."""
    evidence: tuple[PairEvidence, ...]
    """On each model."""
    changes: tuple[Change, ...] = ()
    """Because of it."""


def finish_models(
    starts: Sequence[Start], given: MapperInput, settings: ModellingSettings, progress: Progress = SILENT
) -> FinishedModels:
    """Adjust the models of a mapper and make them consistent with all verified matches.

    Where the largest shows that photographs are stored turned, they are looked at turned back.
    """
    starts = with_frames(starts, given)
    largest = max(starts, key=lambda start: len(start.model.image_index), default=None)
    turns = None
    if largest is not None and settings.adjusts and not settings.goes_on and given.images.rigs is None:
        turns = find_turns(largest, given, settings.adjust)
    if turns is None:
        return _finish_models(starts, given, settings, progress)
    count = int((turns.turns != 0).sum())
    progress.note(f"{count} photographs are stored turned by 90, 180 or 270 degrees: they share the others' camera")
    finished = _finish_models([turns.start(s, given) for s in starts], turns.given(given), settings, progress)
    return replace(finished, results=tuple(turns.back(result) for result in finished.results))


def finished_again(
    finished: FinishedModels, given: MapperInput, settings: ModellingSettings, progress: Progress = SILENT
) -> FinishedModels:
    """Finished models adjusted once more, from where they are, with other matches of the same photographs.

    Raises NoReconstructionError if nothing finite comes of them.
    """
    starts = [
        Start(model=result.model, held=_held_in(result, result.model, given))
        for result in finished.results
        if len(result.model.image_index) >= 2
    ]
    again = finish_models(starts, given, settings, progress)
    before = {image: why for result in finished.results for image, why in result.dropped.items()}
    placed = {int(k) for result in again.results for k in result.model.image_index}
    results = tuple(_without_reasons(replace(r, dropped=before | r.dropped), placed) for r in again.results)
    return replace(again, results=results, changes=finished.changes + again.changes)


def _finish_models(
    starts: Sequence[Start], given: MapperInput, settings: ModellingSettings, progress: Progress
) -> FinishedModels:
    results = [_finish(start, given, settings, progress) for start in starts]
    changes: list[Change] = []
    if settings.adjusts:
        results = _with_missing(results, given, settings, progress)
        results, given, zoomed = _with_zoomed(results, given, settings, progress)
        results, evidence, given, changes = make_all_consistent(results, given, settings, progress)
        changes = zoomed + changes
    else:
        evidence = [examine(result.model, given, settings.adjust) for result in results]
    if changes:
        results, evidence = _with_last_missing(results, evidence, given, settings, progress)
    order = sorted(range(len(results)), key=lambda k: -len(results[k].model.image_index))
    placed = {int(k) for result in results if len(result.model.image_index) >= 2 for k in result.model.image_index}
    return FinishedModels(
        results=tuple(_without_reasons(results[k], placed) for k in order),
        evidence=tuple(evidence[k] for k in order),
        changes=tuple(changes),
    )


def make_all_consistent(
    results: Sequence[AdjustResult], given: MapperInput, settings: ModellingSettings, progress: Progress
) -> tuple[list[AdjustResult], list[PairEvidence], MapperInput, list[Change]]:
    """Models that no evidence takes apart any more, the evidence on each, the input with the matches that are still
    believed, and what was changed."""

    def adjust(part: Reconstruction, of: AdjustResult, given: MapperInput) -> AdjustResult:
        return _finish(Start(model=part, held=_held_in(of, part, given)), given, settings, progress)

    def grow(result: AdjustResult, images: Int[np.ndarray, "candidate"], given: MapperInput) -> AdjustResult:
        return _grown(result, images, given, settings, progress)

    done: list[tuple[AdjustResult, PairEvidence]] = []
    changes: list[Change] = []
    anew: set[int] = set()
    waiting = [(result, 0) for result in results]
    while waiting:
        result, depth = waiting.pop(0)
        if depth == _ROUNDS:
            done.append((result, examine(result.model, given, settings.adjust)))
            continue
        verdict = make_consistent(result, given, settings.adjust, adjust, grow, anew)
        given = _with_matches(given, verdict.matches)
        changes += verdict.changes
        anew |= verdict.placed_anew
        if verdict.evidence is not None:
            done.append((result, verdict.evidence))
            continue
        first, *rest = verdict.results
        first = replace(first, dropped=result.dropped | verdict.reasons | first.dropped)
        waiting += [(part, depth + 1) for part in (first, *rest)]
    in_models = {image for result, _ in done for image in result.model.image_index.tolist()}
    kept = sorted(anew & in_models)
    if kept:
        changes.append(Change(images=tuple(kept), what=PLACED_ANEW))
    return [result for result, _ in done], [evidence for _, evidence in done], given, changes


def _finish(start: Start, given: MapperInput, settings: ModellingSettings, progress: Progress) -> AdjustResult:
    scale = given.working_scale[start.model.image_index]
    if not settings.adjusts:
        return triangulate_start(start.model, given.tracks, settings.adjust, held=start.held)
    if settings.subpixel is None:
        return _adjust(start, _with_refined_coarse(start, given, settings, progress), settings, scale, progress)
    mine, _ = select_observations(given.tracks, np.isin(given.tracks.obs_image, start.model.image_index))
    sigma = GRID_UNCERTAINTY if settings.from_grid else KEYPOINT_UNCERTAINTY
    refined = refine_observations(
        mine,
        given.images,
        settings.subpixel,
        uncertainty_px=sigma * given.working_scale,
        model=start.model,
        store=settings.store,
        progress=progress,
    )
    exact = replace(given, tracks=refined.tracks)
    return _adjust(start, exact, settings, np.ones_like(scale), progress, complete=False)


def _with_refined_coarse(
    start: Start, given: MapperInput, settings: ModellingSettings, progress: Progress
) -> MapperInput:
    """The input with the tracks of a start, those of less exact keypoints refined where photographs allow it.

    Matches of such keypoints complete no tracks then: they do not know where these were moved.
    """
    if settings.coarse_subpixel is None or not _refines_some(start.model, given, settings):
        return given
    mine, _ = select_observations(given.tracks, np.isin(given.tracks.obs_image, start.model.image_index))
    doubtful = given.coarse
    if doubtful is None or _is_small(start.model):
        doubtful = CoarseKeypoints.of(mine.obs_image, mine.obs_xy)
    tracks, coarse = refine_coarse(
        mine,
        doubtful,
        given.images,
        settings.coarse_subpixel,
        uncertainty_px=KEYPOINT_UNCERTAINTY * given.working_scale,
        model=start.model,
        store=settings.store,
        progress=progress,
    )
    matches = given.matches
    either = doubtful.among(matches.image_i, matches.xy_i) | doubtful.among(matches.image_j, matches.xy_j)
    return replace(given, tracks=tracks, coarse=coarse, matches=matches.select(~either))


def _refines_some(model: Reconstruction, given: MapperInput, settings: ModellingSettings) -> bool:
    """Whether observations of some keypoints of a model are refined, where not all are."""
    return settings.coarse_subpixel is not None and (given.coarse is not None or _is_small(model))


def _is_small(model: Reconstruction) -> bool:
    return len(model.image_index) <= FEW_VIEWS


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

    def adjust(model: Reconstruction, config: AdjustConfig, refine_distortion: bool) -> AdjustResult:
        return adjust_model(
            model,
            given.tracks,
            config,
            working_scale=working_scale,
            matches=given.matches if complete else None,
            coarse=given.coarse if complete else None,
            held=start.held,
            choose_camera_model=settings.choose_camera_model and refine_distortion,
            refine_distortion=refine_distortion,
            is_settled=settings.goes_on,
            progress=progress,
        )

    priors = partial(FocalPriors.of, images=given.images)
    return adjust_with_priors(adjust, model, priors, config, start.held.camera)


def _with_missing(
    results: Sequence[AdjustResult], given: MapperInput, settings: ModellingSettings, progress: Progress
) -> list[AdjustResult]:
    """Models with images that no model holds, where their points show the poses, the largest model first."""
    out = list(results)
    for row in sorted(range(len(out)), key=lambda k: -len(out[k].model.image_index)):
        out[row] = _grown(out[row], _missing(out, given), given, settings, progress)
    return out


def _with_zoomed(
    results: Sequence[AdjustResult], given: MapperInput, settings: ModellingSettings, progress: Progress
) -> tuple[list[AdjustResult], MapperInput, list[Change]]:
    """Models whose photographs with another focal length than the others have cameras of their own."""
    out, changes = list(results), []
    may_change = settings.focal_px is None and settings.adjust.refine_focal and given.images.rigs is None
    for row, result in enumerate(results if may_change else ()):
        own, found = given, result
        for _ in range(_ROUNDS):  # one that is bent by another shows its zoom when that has its camera
            again = _with_own_cameras(found, own, settings, progress)
            if again is None:
                break
            found, own = again
        if found is not result:
            changes += zoom_changes(result.model, found.model, given, own)
            out[row], given = found, own
    return out, given, changes


def _with_own_cameras(
    result: AdjustResult, given: MapperInput, settings: ModellingSettings, progress: Progress
) -> tuple[AdjustResult, MapperInput] | None:
    """A model with further cameras, and what it was made from; None if no photograph needs one."""
    zoomed = find_zoomed(result.model, given, settings.adjust, result.held)
    while zoomed is not None:
        start = Start(model=zoomed.model, held=_held_in(result, zoomed.model, zoomed.given))
        try:
            again = _finish(start, zoomed.given, settings, progress)
        except NoReconstructionError:  # the model that there is holds
            return None
        confirmed = zoomed.confirmed(result.model, again.model)
        if confirmed == zoomed.groups:
            return replace(again, dropped=result.dropped | again.dropped), zoomed.given
        zoomed = zoomed.only(confirmed, result.model, given) if confirmed else None
    return None


def _with_last_missing(
    results: Sequence[AdjustResult],
    evidence: Sequence[PairEvidence],
    given: MapperInput,
    settings: ModellingSettings,
    progress: Progress,
) -> tuple[list[AdjustResult], list[PairEvidence]]:
    """The same for models that are consistent, where they stay so."""
    out, known = list(results), list(evidence)
    for row in sorted(range(len(out)), key=lambda k: -len(out[k].model.image_index)):
        grown = _grown(out[row], _missing(out, given), given, settings, progress)
        if grown is not out[row]:
            found = examine(grown.model, given, settings.adjust)
            if is_consistent(grown.model, found):
                out[row], known[row] = grown, found
    return out, known


def _missing(results: Sequence[AdjustResult], given: MapperInput) -> Int[np.ndarray, "missing"]:
    """Images that no model of two and more views holds."""
    models = [result.model.image_index for result in results if len(result.model.image_index) >= 2]
    return np.setdiff1d(np.arange(given.images.num_images), np.concatenate([np.zeros(0, np.int64), *models]))


def _without_reasons(result: AdjustResult, placed: set[int]) -> AdjustResult:
    """Without reasons for images that are in a model after all."""
    return replace(result, dropped={k: reason for k, reason in result.dropped.items() if k not in placed})


def _grown(
    result: AdjustResult,
    missing: Int[np.ndarray, "candidate"],
    given: MapperInput,
    settings: ModellingSettings,
    progress: Progress,
) -> AdjustResult:
    """The model with those of the images whose poses its points show, adjusted again; as it was if there are none."""
    model = result.model
    if len(model.image_index) < 2 or not len(missing):
        return result
    long_side_px = given.images.size_wh.max(axis=1).astype(np.float64)
    if settings.subpixel is not None or _refines_some(model, given, settings):
        # images that were left out have no refined observations
        model = triangulate_model(
            model,
            given.tracks,
            max_error_px=settings.adjust.second_error * long_side_px[model.image_index],
            min_angle_deg=settings.adjust.min_angle_deg,
            coarse=given.coarse,
        )
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
    if given.images.rigs is not None:
        weight = np.bincount(given.tracks.obs_image, minlength=given.images.num_images).astype(np.float64)
        taken = np.setdiff1d(np.arange(given.images.num_images), missing)
        kept = model.image_index[result.held.pose]
        grown = replace(grown, model=with_whole_frames(grown.model, given, weight, taken, kept))
    start = Start(model=grown.model, held=_held_in(result, grown.model, given))
    again = _finish(start, given, settings, progress)
    if len(again.model.image_index) <= len(model.image_index):
        return result
    return replace(again, dropped=result.dropped | again.dropped)


def _held_in(result: AdjustResult, model: Reconstruction, given: MapperInput) -> Held:
    """What was held stays so in a model that has other views; of further ones nothing is given."""
    before, pose = result.held, np.zeros(len(model.image_index), bool)
    _, new, old = np.intersect1d(model.image_index, result.model.image_index, return_indices=True)
    pose[new] = before.pose[old]
    positions, rotations = before.positions, before.rotations
    if positions is not None:
        places, sigmas = np.full((2, len(pose), 3), np.nan)
        places[new], sigmas[new] = positions.position[old], positions.sigmas[old]
        positions = PositionPriors(position=places, sigma=sigmas)
    if rotations is not None:
        matrices = np.full((len(pose), 3, 3), np.nan)
        matrices[new] = rotations.rotation[old]
        rotations = replace(rotations, rotation=matrices)
    return replace(known_held(model, given), pose=pose, positions=positions, rotations=rotations)


def _with_matches(given: MapperInput, matches: KeypointMatches) -> MapperInput:
    """With fewer matches, and the tracks of those."""
    if matches is given.matches:
        return given
    return replace(given, matches=matches, tracks=build_tracks(matches, given.images.num_images))
