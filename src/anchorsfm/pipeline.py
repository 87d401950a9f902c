"""The whole reconstruction, one statement a stage."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from anchorsfm.dense.maps import DepthMaps
from anchorsfm.frontend.base import Frontend
from anchorsfm.frontend.masked import masked
from anchorsfm.io.layout import GROUND_CONTROL, Layout
from anchorsfm.io.remote import RemoteFolder
from anchorsfm.mapping.colmap import save_database
from anchorsfm.mapping.known import KnownCameras
from anchorsfm.mapping.start_cameras import alignment_model
from anchorsfm.results.record import RunReport
from anchorsfm.run.beginning import Beginning, FromPhotographs
from anchorsfm.run.checks import check_settings, settled
from anchorsfm.run.cluster import computing_on
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.dense import make_dense
from anchorsfm.run.earlier import Earlier, extending, merging, settings_of_all
from anchorsfm.run.fetched import here, with_fetched
from anchorsfm.run.finished import read_run
from anchorsfm.run.folder import RunFolder
from anchorsfm.run.ground import with_ground_points
from anchorsfm.run.known_poses import line_search, with_known_poses
from anchorsfm.run.localisation import keep_descriptors, keep_errors
from anchorsfm.run.modelling import finish, make_places, mapper_input, mapper_settings
from anchorsfm.run.outcome import Outcome, RunRecord
from anchorsfm.run.panoramas import CutPanoramas, gathered_views, with_views
from anchorsfm.run.photographs import load_photographs, told_apart
from anchorsfm.run.predictions import chosen_frontend, consume, make_run_pairs
from anchorsfm.run.replaced import undone
from anchorsfm.run.stages import MAPPING, Stage
from anchorsfm.run.videos import with_frames
from anchorsfm.scene.alignment import AlignmentResult
from anchorsfm.scene.errors import NoReconstructionError
from anchorsfm.scene.ground import GroundPoints
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.progress import SILENT, Progress
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.adjust import AdjustResult


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
        source: folder, list file, or several of those, image files and videos; URLs of folders or files too, as paths.
        output: folder for sparse/, dense/, fetched/, frames/, views/, alignment/, cache/, report.html, report.json,
            uncertainty.json, config.yaml, and georeference.json where photographs have positions; new, empty, or of an
            earlier run.
        config: settings.
        progress: receives stages and warnings.
        frontend: one's own, in place of the one that `config.frontend` names.

    Raises:
        InputError: the photographs or options cannot be used.
        NoReconstructionError: no two photographs could be related.
        StorageError: the output cannot be written, or something in it was not written by a run and would be lost.
    """
    config = config or PipelineConfig()
    check_settings(config)
    record = RunRecord(config, frontend, progress)
    folder = RunFolder(output, record.progress)
    folder.require_outside(here(source))
    _require_ready(folder, config)
    for line in undone(output):
        record.progress.warn(line)
    with record.clock.stage(Stage.IMAGES):
        source, config = with_fetched(source, config, folder, record.progress)
        source, record.videos = with_frames(source, config, folder, record.progress)
        source, panoramas = with_views(source, config, folder, record.progress)
        images, known = load_photographs(source, config, folder, record.progress, panoramas)
        images, ground = with_ground_points(images, config.gcp, record.progress)
    return _begun(images, known, folder, config, frontend, record, FromPhotographs(), ground)


def extend(
    output: Path,
    photographs: Sequence[Path],
    progress: Progress = SILENT,
    *,
    adjust_all: bool = False,
    dense: bool | None = None,
) -> RunResult:
    """More photographs for the models of an output folder, with the settings of the run that made them.

    What is known of the earlier photographs is read from `output`/cache, or computed anew where it is gone. Poses and
    intrinsics of the models stay as they are. The result appears as a whole, as that of `reconstruct` does.

    Args:
        output: the folder of a finished run.
        photographs: folders, list files, image files and videos; photographs that the run knows are passed over.
        progress: receives stages and warnings.
        adjust_all: adjust everything together; the models then move a little.
        dense: whether dense clouds are made; None: as the settings of the run say.

    Raises:
        InputError: the photographs or the folder cannot be used; NothingNewError if no photograph is new.
        StorageError: the output cannot be written, or something in it was not written by a run and would be lost.
    """
    run = read_run(output)
    config = run.config if dense is None else replace(run.config, dense=dense)
    check_settings(config)
    record = RunRecord(config, None, progress)
    folder = RunFolder(output, record.progress)
    folder.require_outside(here(list(photographs)))
    _require_ready(folder, config)
    with record.clock.stage(Stage.IMAGES):
        sources, _ = with_fetched(list(photographs), config, folder, record.progress)
        sources, videos = with_frames(sources, config, folder, record.progress)
        sources, panoramas = with_views(sources, config, folder, record.progress, run.panoramas)
        sources = [sources] if isinstance(sources, Path) else sources
        earlier = extending(run, sources, record.progress, keeps=not adjust_all)
        folder.use_frames(earlier.frames)
        record.goes_on_from(earlier, videos)
        images, known, ground = _photographs_of(earlier, config, folder, record.progress, panoramas)
    return _begun(images, known, folder, config, None, record, earlier.among(images), ground)


def merge(
    first: Path, second: Path, output: Path, progress: Progress = SILENT, *, dense: bool | None = None
) -> RunResult:
    """The models of two output folders as one, in the frame of the first, which both stay as they are.

    They may have photographs in common or only overlap: photographs of both are matched with each other. The models
    are joined by a similarity, images of both are one, and everything is adjusted with the settings of the first run.

    Args:
        first: the folder of a finished run.
        second: that of another one.
        output: new, empty, or of an earlier run.
        progress: receives stages and warnings.
        dense: whether dense clouds are made; None: as the settings of the first run say.

    Raises:
        InputError: a folder cannot be used.
        NoReconstructionError: the models have too little in common; it gives the numbers.
        StorageError: the output cannot be written, or something in it was not written by a run and would be lost.
    """
    runs = (read_run(first), read_run(second))
    config = settings_of_all(runs)
    config = config if dense is None else replace(config, dense=dense)
    check_settings(config)
    earlier = merging(runs)
    record = RunRecord(config, None, progress)
    record.goes_on_from(earlier, ())
    folder = RunFolder(output, record.progress, read_also=[run.folder for run in runs])
    _require_ready(folder, config)
    with record.clock.stage(Stage.IMAGES):
        earlier, panoramas = gathered_views(earlier, folder)
        images, known, ground = _photographs_of(earlier, config, folder, record.progress, panoramas)
    return _begun(images, known, folder, config, None, record, earlier.among(images), ground)


def _photographs_of(
    earlier: Earlier, config: PipelineConfig, folder: RunFolder, progress: Progress, panoramas: CutPanoramas | None
) -> tuple[ImageSet, KnownCameras, GroundPoints | None]:
    """The photographs of a run that goes on from earlier ones, and control points unless the models stay."""
    for run in earlier.runs:
        if run.is_cropped:
            progress.note(f"{run.folder}: points are made anew, also those that a crop removed")
    images, known = load_photographs(
        list(earlier.photographs),
        config,
        folder,
        progress,
        panoramas,
        root=earlier.root,
        num_settled=earlier.num_settled,
    )
    images = earlier.in_frame(images, progress)
    if earlier.keeps:
        if config.gcp.file is not None:
            progress.warn(
                f"the models stay where ground control points brought them: {config.gcp.file} is not looked at again, "
                f"and {GROUND_CONTROL} goes"
            )
        return images, known, None
    images, ground = with_ground_points(images, config.gcp, progress)
    return images, known, ground


def _begun(
    images: ImageSet,
    known: KnownCameras,
    folder: RunFolder,
    config: PipelineConfig,
    frontend: Frontend | None,
    record: RunRecord,
    beginning: Beginning,
    ground: GroundPoints | None = None,
) -> RunResult:
    workers = config.classical.workers.resolve()
    folder.store.remote = RemoteFolder(config.cache_url) if config.cache_url is not None else None
    elsewhere = computing_on(config.ray, folder.store, images, workers, record.progress)
    with folder.begin(record.settings(config)), elsewhere:
        return _reconstruct(images, known, ground, folder, config, frontend, record, beginning)


def _reconstruct(
    images: ImageSet,
    known: KnownCameras,
    ground: GroundPoints | None,
    folder: RunFolder,
    config: PipelineConfig,
    frontend: Frontend | None,
    record: RunRecord,
    beginning: Beginning,
) -> RunResult:
    clock, progress = record.clock, record.progress
    record.forecast.know_sizes(images.size_wh)
    config = settled(config, images, record.changed, progress, has_video=bool(record.videos))
    recorded, config = config, beginning.settings(config)
    with clock.stage(Stage.FEATURES):
        frontend = frontend or chosen_frontend(config)
        images = beginning.described(images, frontend, folder.store, progress)
        selected = make_run_pairs(config, images, frontend, folder.store, progress, beginning.looked_at)
        pairs, images = selected.pairs, told_apart(images, selected.scene, config)
        known = known.regrouped(images)
        predictor = masked(frontend.open(images, pairs, folder.store, progress), images)
        beginning.keep_cameras(predictor, frontend, images, pairs, folder.store)
    with clock.stage(Stage.DEPTH):
        predicted = consume(predictor, pairs, images, config, folder.store, progress)
    with clock.stage(Stage.TRACKS):
        given = mapper_input(predicted, predictor, images, known, config, progress)
        search = None
        if config.mapper == "known":
            search = line_search(config.known, images, pairs, frontend, folder.store, progress)
            given = with_known_poses(given, search, progress)
        if config.keep_database:
            save_database(given, folder.database, seed=config.seed)
    outcome = Outcome.of(images, selected, predicted, predictor)
    if not given.tracks.num_points or not predicted.has_component:
        folder.write_report(record.report(outcome, recorded, folder.store.executor.shares), (), progress)
        raise _unrelated(outcome, folder.publish_failure())
    with clock.stage(MAPPING[config.mapper]):
        database = folder.database if config.keep_database else None
        settings = mapper_settings(config, images.num_images, folder.store, database)
        given, mapped = beginning.mapped(given, config, settings, progress)
        folder.write_alignments([alignment_model(a, images, predictor.grid) for a in mapped.alignments], images.names)
    with clock.stage(Stage.ADJUSTMENT):
        finished = finish(mapped.starts, given, predictor, config, beginning, folder.store, progress, ground, search)
        kept = beginning.stored_poses(finished.results)
        folder.write_models(finished.models, images.names, kept)
        folder.write_transforms(beginning.transform_record(finished.results))
        folder.write_masks(images)
        keep_errors(finished, images, folder)
        keep_descriptors(finished, images, config, folder, progress)
        if places := make_places(finished, images, config):
            folder.write_places(places)
        if ground is not None:
            folder.write_control(finished.controlled, ground, images.names)
    with clock.stage(Stage.DENSE_CLOUD):
        maps, depth = make_dense(finished, mapped, predicted, predictor, images, config, folder, progress, kept)
    with clock.stage(Stage.REPORT):
        outcome = outcome.with_models(mapped, finished, predicted, config.align, depth)
        report = record.report(outcome, recorded, folder.store.executor.shares)
    report = record.timed(report)
    folder.write_report(report, finished.models, progress)
    if not finished.models:
        raise _no_model(images, report, folder.publish_failure())
    folder.publish()
    if not config.keep_cache:
        folder.store.discard()
    return RunResult(
        images=images,
        models=finished.models,
        adjusted=finished.results,
        alignments=mapped.alignments,
        depth_maps=maps,
        report=report,
    )


def _require_ready(folder: RunFolder, config: PipelineConfig) -> None:
    folder.require_ready(
        dense=config.dense is not False,
        database=config.keep_database,
        places=config.gps != "off" or config.gcp.file is not None,
        control=config.gcp.file is not None,
        descriptors=config.keep_descriptors,
    )


def _unrelated(outcome: Outcome, failed: Layout) -> NoReconstructionError:
    images = outcome.images
    return NoReconstructionError(
        f"the {images.num_images} images in {images.root} cannot be related: {outcome.log.best_reason()}; "
        f"take photographs that overlap and from different places; see {failed.page}"
    )


def _no_model(images: ImageSet, report: RunReport, failed: Layout) -> NoReconstructionError:
    reasons = "; ".join(f"{i.name}: {i.reason}" for i in report.images[:3])
    return NoReconstructionError(f"no model could be made from {images.root} ({reasons}); see {failed.page}")
