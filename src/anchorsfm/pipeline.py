"""The whole reconstruction, about one statement per stage."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from anchorsfm.align.archive import from_arrays, to_arrays
from anchorsfm.align.scene import align_component, long_side_px
from anchorsfm.colmap.meshing import check_mesh_method
from anchorsfm.dense.config import MAX_IMAGES_BY_DEFAULT
from anchorsfm.dense.maps import DepthMaps
from anchorsfm.frontend import FRONTENDS, RunSettings
from anchorsfm.frontend.base import Frontend, PairPredictor
from anchorsfm.io.clock import StageClock
from anchorsfm.io.images import load_image_set
from anchorsfm.io.repeats import mirrored_copies, without_repeated_files
from anchorsfm.io.store import Store, digest
from anchorsfm.mapping.base import Mapped, MapperInput, map_images, save_database
from anchorsfm.mapping.finish import ModellingSettings, finish_models, start_from_alignment, start_from_mapper
from anchorsfm.mapping.known import KnownCameras, read_known
from anchorsfm.mapping.start_cameras import alignment_model, start_cameras
from anchorsfm.observe.checkpoint import observe
from anchorsfm.observe.graph import ObservedScene, select_component
from anchorsfm.observe.sanitise import LeftOut, sanitised
from anchorsfm.pairing import check_scene_graph, make_pairs
from anchorsfm.pairing.similarity import open_similarity, read_similarity
from anchorsfm.report import PairLog, RunReport
from anchorsfm.report.depth import DepthLog
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.dense import depth_maps, write_dense
from anchorsfm.run.folder import RunFolder
from anchorsfm.run.outcome import Outcome, kinematic_edges, licence_of
from anchorsfm.run.settings import changed_settings, plain
from anchorsfm.run.unused import without_effect
from anchorsfm.scene.alignment import AlignmentResult
from anchorsfm.scene.errors import InputError, NoReconstructionError
from anchorsfm.scene.images import ImageGrid, ImageSet
from anchorsfm.scene.pairs import PairList, PairPrediction
from anchorsfm.scene.progress import SILENT, Progress, RecordingProgress, counted
from anchorsfm.scene.reconstruction import Camera, Reconstruction
from anchorsfm.tracks.adjust import AdjustResult
from anchorsfm.tracks.build import KeypointMatchCollector, build_tracks
from anchorsfm.tracks.degeneracy import pairs_without_motion
from anchorsfm.tracks.points import colour
from anchorsfm.tracks.sparsify import sparsify
from anchorsfm.tracks.uncertainty import estimate_uncertainty

_FOCAL_OVER_LONG_SIDE = (0.1, 100.0)
"""Between a fisheye and a telescope."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run made; everything is on disk already."""

    images: ImageSet
    models: tuple[Reconstruction, ...]
    """Largest first."""
    adjusted: tuple[AdjustResult, ...]
    """How each model came out of its adjustment."""
    alignments: tuple[AlignmentResult, ...]
    depth_maps: tuple[DepthMaps, ...]
    """Of each model, if dense output was asked for; iterating over one gives its views one at a time."""
    report: RunReport


def reconstruct(
    source: Path | list[Path],
    output: Path,
    config: PipelineConfig | None = None,
    progress: Progress = SILENT,
    *,
    frontend: Frontend | None = None,
) -> RunResult:
    """Photographs in, COLMAP models out; a run that was interrupted continues from `output`/cache.

    The result appears as a whole when it is complete. A run that fails or is stopped leaves an earlier result as it is;
    report and settings of one that makes no model go to `output`/failed.

    Args:
        source: folder, list file or image files.
        output: folder for sparse/, dense/, alignment/, cache/, report.html, report.json, uncertainty.json, config.yaml;
            new, empty, or of an earlier run.
        config: settings.
        progress: receives stages and warnings.
        frontend: one's own, in place of the one that `config.frontend` names.

    Raises:
        InputError: the photographs or options cannot be used.
        NoReconstructionError: no two photographs could be related.
        StorageError: the output cannot be written, or something in it was not written by a run and would be lost.
    """
    config = config or PipelineConfig()
    _check_settings(config)
    recorded = RecordingProgress(progress)
    folder = RunFolder(output, recorded)
    folder.require_outside([source] if isinstance(source, Path) else source)
    with folder.begin(_recorded(config, frontend), dense=config.dense is not False, database=config.keep_database):
        return _reconstruct(source, folder, config, frontend, recorded)


def _reconstruct(
    source: Path | list[Path],
    folder: RunFolder,
    config: PipelineConfig,
    frontend: Frontend | None,
    recorded: RecordingProgress,
) -> RunResult:
    changed, clock = changed_settings(config, PipelineConfig()), StageClock(_lowers_memory(config))
    progress = recorded
    with clock.stage("images"):
        images = load_image_set(source, camera_mode=config.camera_mode, focal_px=config.focal_px, progress=progress)
        folder.require_outside(images.path(k) for k in range(images.num_images))
        images = _without_repeats(images, progress)
        _require_two(images)
        _require_plausible_focal(config, images)
        known = read_known(config.known, images)
        images = known.with_priors(images)
        config = replace(config, dense=_is_dense(config, images, progress))
        _warn_of_unused(config, changed, progress)
    with clock.stage("features, matches"):
        pairs = _pairs(config, images)
        predictor = (frontend or _frontend(config)).open(images, pairs, folder.store, progress)
    collector, log = KeypointMatchCollector(predictor.grid, detects_keypoints=predictor.detects_keypoints), PairLog()
    with clock.stage("dense depth"):
        scene = _observe(predictor, pairs, images, config, folder.store, collector, log, progress)
    with clock.stage("tracks"):
        given = _mapper_input(collector, predictor, scene, images, known, config)
        _name_still_pairs(given, progress)
        if not given.tracks.num_points or (scene is not None and not (scene.graph.component == 0).any()):
            nothing = Outcome(images=images, log=log, weights=licence_of(predictor))
            folder.write_report(
                nothing.report(_recorded(config, frontend), changed, config.seed, clock, recorded), (), progress
            )
            raise _unrelated(images, log, folder.publish_failure())
        if config.keep_database or config.mapper in ("incremental", "global"):
            save_database(given, folder.database, seed=config.seed)
    alignments: list[AlignmentResult] = []
    with clock.stage("alignment" if config.mapper == "align" else f"mapper {config.mapper}"):
        if config.mapper == "align":
            alignments = _align_components(_present(scene), predictor, images, known, config, folder.store, progress)
            folder.write_alignments([alignment_model(a, images, predictor.grid) for a in alignments], images.names)
            mapped = Mapped.nothing()
        else:
            threads = config.adjust.num_threads
            mapped = map_images(
                config.mapper, given, folder.database, seed=config.seed, num_threads=threads, progress=progress
            )
        if not config.keep_database:
            folder.database.unlink(missing_ok=True)
    with clock.stage("adjustment"):
        starts = [start_from_alignment(a, given, predictor.grid, known, config.camera_model) for a in alignments]
        starts += [start_from_mapper(model, given) for model in mapped.models]
        adjusted = finish_models(
            starts, given, _modelling_settings(config, from_grid=not predictor.detects_keypoints), progress
        )
        finished = [result for result in adjusted if len(result.model.image) >= 2]
        models = [colour(result.model, images, max_size=config.max_image_size) for result in finished]
        uncertainties = [estimate_uncertainty(result) for result in finished]
        if models:
            folder.write_models(models, images.names)
    with clock.stage("dense cloud"):
        maps = (
            depth_maps(models, alignments, _present(scene), images, predictor.grid, config.cloud, folder)
            if config.dense
            else ()
        )
        depth_log = DepthLog(sum(len(views) for views in maps))
        write_dense(maps, images, config.cloud, folder, depth_log, progress)
    with clock.stage("report figures"):
        outcome = Outcome(
            images=images,
            log=log,
            models=tuple(models),
            finished=tuple(finished),
            uncertainties=tuple(uncertainties),
            alignments=tuple(alignments),
            dropped=mapped.reasons | {image: reason for result in adjusted for image, reason in result.dropped.items()},
            tree=kinematic_edges(_present(scene), config.align) if alignments else None,
            depth=depth_log.finish(folder.depth_pictures),
            weights=licence_of(predictor),
        )
        report = outcome.report(_recorded(config, frontend), changed, config.seed, clock, recorded)
    report = replace(report, stages=tuple(clock.timings))
    folder.write_report(report, models, progress)
    if not models:
        failed = folder.publish_failure()
        reasons = "; ".join(f"{i.name}: {i.reason}" for i in report.images[:3])
        raise NoReconstructionError(
            f"no model could be made from {images.root} ({reasons}); see {failed / 'report.html'}"
        )
    folder.publish()
    return RunResult(
        images=images,
        models=tuple(models),
        adjusted=tuple(finished),
        alignments=tuple(alignments),
        depth_maps=maps,
        report=report,
    )


def _recorded(config: PipelineConfig, frontend: Frontend | None) -> object:
    """The settings as the record of the run has them: a front end of one's own is no value of `config.frontend`."""
    return config if frontend is None else plain(config) | {"frontend": str(getattr(frontend, "name", "one's own"))}


def _lowers_memory(config: PipelineConfig) -> dict[str, tuple[str, ...]]:
    """The settings, by stage, that lower how much memory it needs."""
    grid = "mast3r.image_size" if config.frontend == "mast3r" else "classical.dense.size"
    return {
        "features, matches": ("max_image_size", "classical.workers.num_workers"),
        "dense depth": (grid, "classical.workers.num_workers"),
        "tracks": ("sparsify.max_keypoints", "sparsify.max_detected_keypoints"),
        "alignment": (grid,),
        "adjustment": ("sparsify.max_keypoints", "sparsify.max_detected_keypoints"),
        "dense cloud": (grid, "cloud.max_points"),
    }


def _check_settings(config: PipelineConfig) -> None:
    """What depends on the surroundings, or on settings of several parts."""
    check_mesh_method(config.cloud.mesh)
    check_scene_graph(config.scene_graph, has_similarity=config.similarity is not None)
    if config.similarity is not None:
        open_similarity(config.similarity)
    if config.mapper != "align" and config.known.model is not None and config.known.use_poses:
        raise InputError(
            f"--mapper {config.mapper} finds all poses itself: add --known.no-use-poses, or use --mapper align"
        )


def _pairs(config: PipelineConfig, images: ImageSet) -> PairList:
    similarity = None if config.similarity is None else read_similarity(config.similarity, images.num_images)
    return make_pairs(
        images.num_images,
        config.scene_graph,
        names=images.names,
        prefilter=config.prefilter,
        similarity=similarity,
        seed=config.seed,
    )


def _frontend(config: PipelineConfig) -> Frontend:
    """The chosen front end, with what the run decides."""
    kind = FRONTENDS[config.frontend]
    chosen = next(part for part in vars(config).values() if isinstance(part, kind))
    exact = config.focal_px is not None or (config.known.model is not None and config.known.freeze_intrinsics)
    return chosen.for_run(
        RunSettings(
            max_image_size=config.max_image_size,
            seed=config.seed,
            focal_is_exact=exact,
            needs_depth=_needs_depth(config),
        )
    )


def _without_repeats(images: ImageSet, progress: Progress) -> ImageSet:
    """Every file once; mirrored copies are named, for nobody knows which of them shows the place."""
    once = without_repeated_files(images)
    for skipped in once.skipped[len(images.skipped) :]:
        progress.warn(f"skipped {skipped.name}: {skipped.reason}")
    mirrored = mirrored_copies(once)
    if mirrored:
        i, j = mirrored[0]
        more = "" if len(mirrored) == 1 else f" (and {len(mirrored) - 1} more such pairs)"
        progress.warn(
            f"{once.names[j]} is {once.names[i]} mirrored{more}: no place looks like both, models that hold them are "
            "wrong; remove the mirrored copies"
        )
    return once


def _name_still_pairs(given: MapperInput, progress: Progress) -> None:
    """Pictures that are the same but for their encoding, or taken from one place, are no evidence of depth."""
    still = pairs_without_motion(given.matches, given.working_scale, given.images.size_wh)
    if still:
        i, j = still[0]
        more = "" if len(still) == 1 else f" (and {len(still) - 1} more such pairs)"
        names = given.images.names
        progress.warn(f"{names[i]} and {names[j]} are the same picture{more}: together they say nothing about depth")


def _require_two(images: ImageSet) -> None:
    if images.num_images < 2:
        raise InputError(f"found one usable image in {images.root} ({images.names[0]}): at least two are needed")


def _require_plausible_focal(config: PipelineConfig, images: ImageSet) -> None:
    """A focal length in other units than pixels ends here, not in a model that makes no sense."""
    low, high = _FOCAL_OVER_LONG_SIDE
    for name, size_wh in zip(images.names, images.size_wh, strict=True) if config.focal_px is not None else ():
        ratio = config.focal_px / size_wh.max()
        if not low <= ratio <= high:
            problem = f"is {ratio:.3g} times the long side of {name} ({size_wh.max()} px)"
            raise config.refused("focal_px", f"{problem}; focal lengths are {low:g} to {high:g} times as long")


def _unrelated(images: ImageSet, log: PairLog, failed: Path) -> NoReconstructionError:
    return NoReconstructionError(
        f"the {images.num_images} images in {images.root} cannot be related: {log.best_reason()}; "
        f"take photographs that overlap and from different places; see {failed / 'report.html'}"
    )


def _is_dense(config: PipelineConfig, images: ImageSet, progress: Progress) -> bool:
    if config.dense is None and images.num_images > MAX_IMAGES_BY_DEFAULT:
        progress.warn(f"no dense cloud of more than {MAX_IMAGES_BY_DEFAULT} images unless asked for: add --dense")
        return False
    return config.dense is not False


def _warn_of_unused(config: PipelineConfig, changed: Sequence[str], progress: Progress) -> None:
    for line in without_effect(
        changed,
        frontend=config.frontend,
        mapper=config.mapper,
        dense=bool(config.dense),
        refines_keypoints=_refines_keypoints(config, from_grid=config.frontend != "classical"),
        has_known_model=config.known.model is not None,
    ):
        progress.warn(line)


def _refines_keypoints(config: PipelineConfig, *, from_grid: bool) -> bool:
    return config.refine_keypoints == "on" or (config.refine_keypoints == "auto" and from_grid)


def _needs_depth(config: PipelineConfig) -> bool:
    return config.mapper == "align" or bool(config.dense)


def _observe(
    predictor: PairPredictor,
    pairs: PairList,
    images: ImageSet,
    config: PipelineConfig,
    store: Store,
    collector: KeypointMatchCollector,
    log: PairLog,
    progress: Progress,
) -> ObservedScene | None:
    """Let all predictions stream past; condensed where depth is needed."""
    with progress.stage("dense depth of pairs" if _needs_depth(config) else "pairs", len(pairs)) as advance:

        def watch(stream: Iterator[PairPrediction]) -> Iterator[PairPrediction]:
            return counted(log.watch(collector.watch(stream)), advance)

        if _needs_depth(config):
            return observe(images.num_images, predictor, pairs, config.graph, store, watch, progress)
        left_out = LeftOut()
        for _ in watch(sanitised(iter(predictor), left_out)):
            pass
        if left_out.pairs:
            progress.warn(str(left_out))
        return None


def _align_components(
    scene: ObservedScene,
    predictor: PairPredictor,
    images: ImageSet,
    known: KnownCameras,
    config: PipelineConfig,
    store: Store,
    progress: Progress,
) -> list[AlignmentResult]:
    results = []
    for component in range(int(scene.graph.component.max()) + 1):
        part = select_component(scene, component)
        given = known.for_alignment(part.image, predictor.grid, config.focal_px)
        cameras = images.camera_index[part.image]
        side = long_side_px(images, predictor.grid)[part.image]
        key = digest("alignment", predictor.digest, config.graph, config.align, part.image, cameras, side, given)
        arrays = store.load("alignment", key)
        if arrays is None:
            result = align_component(
                part, config.align, camera_index=cameras, long_side_px=side, known=given, progress=progress
            )
            arrays = to_arrays(result)
            store.save("alignment", key, arrays)
        results.append(from_arrays(arrays))
    return results


def _mapper_input(
    collector: KeypointMatchCollector,
    predictor: PairPredictor,
    scene: ObservedScene | None,
    images: ImageSet,
    known: KnownCameras,
    config: PipelineConfig,
) -> MapperInput:
    """Keypoints, tracks, and the cameras they start from."""
    scale = _working_scale(images, predictor.grid, config, from_grid=not predictor.detects_keypoints)
    matches = sparsify(
        collector.finish(),
        config.sparsify,
        pixel_px=scale,
        size_wh=images.size_wh,
        are_keypoints=predictor.detects_keypoints,
        are_verified=predictor.detects_keypoints,
        scores="confidence",
    ).matches
    return MapperInput(
        images=images,
        cameras=_cameras(predictor, scene, images, known, config),
        given=known.frozen_cameras(np.arange(images.num_cameras)),
        matches=matches,
        tracks=build_tracks(matches, images.num_images),
        working_scale=scale,
    )


def _working_scale(
    images: ImageSet, grid: ImageGrid, config: PipelineConfig, *, from_grid: bool
) -> Float[np.ndarray, "image"]:
    """Original pixels per pixel of the image that keypoints were found on: the unit of their noise."""
    if from_grid:
        return 1 / grid.scale.mean(axis=1)
    detector_size = config.classical.features.max_image_size or config.max_image_size
    return np.maximum(1.0, images.size_wh.max(axis=1) / detector_size)


def _cameras(
    predictor: PairPredictor,
    scene: ObservedScene | None,
    images: ImageSet,
    known: KnownCameras,
    config: PipelineConfig,
) -> tuple[Camera, ...]:
    """Where the intrinsics of the ImageSet's cameras start: given, or with the front end's focal length."""
    focal_px = predictor.focal_px
    if focal_px is None and config.focal_px is not None:
        focal_px = np.full(images.num_images, config.focal_px)
    elif focal_px is None:
        views = [None] * images.num_images if scene is None else list(scene.views)
        focal = [np.nan if view is None else view.focal_px for view in views]
        focal_px = np.array(focal, np.float64) / predictor.grid.scale.mean(axis=1)
    return start_cameras(images, focal_px, config.camera_model, known=known.cameras, grid=predictor.grid)


def _modelling_settings(config: PipelineConfig, *, from_grid: bool) -> ModellingSettings:
    return ModellingSettings(
        adjust=config.adjust,
        subpixel=config.subpixel if _refines_keypoints(config, from_grid=from_grid) else None,
        choose_camera_model=config.camera_model == "auto",
        focal_px=config.focal_px,
        from_grid=from_grid,
        adjusts=config.bundle_adjustment,
    )


def _present(scene: ObservedScene | None) -> ObservedScene:
    assert scene is not None, "the front end was not asked for depth"
    return scene
