"""The whole reconstruction, about one statement per stage."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from anchorsfm.align import AlignConfig, align
from anchorsfm.align.archive import from_arrays, to_arrays
from anchorsfm.align.schedules import SCHEDULES
from anchorsfm.anchors import build_anchors
from anchorsfm.colmap.cameras import CAMERA_MODELS
from anchorsfm.densify import dense_cloud
from anchorsfm.frontend.base import Frontend, PairPredictor
from anchorsfm.frontend.classical import ClassicalFrontend
from anchorsfm.frontend.mast3r.frontend import Mast3rFrontend
from anchorsfm.graph import GraphConfig, ObservedScene, select_component
from anchorsfm.graph_checkpoint import observe
from anchorsfm.io.clock import StageClock
from anchorsfm.io.images import CameraMode, load_image_set
from anchorsfm.io.store import Store, digest
from anchorsfm.known import KnownCameras, KnownConfig, read_known
from anchorsfm.output import OutputFolder
from anchorsfm.pairing import make_pairs
from anchorsfm.report import PairLog, RunReport, report_alignment, report_images, report_model
from anchorsfm.rescale import onto_model
from anchorsfm.scene.alignment import AlignmentResult
from anchorsfm.scene.errors import InputError, NoReconstructionError
from anchorsfm.scene.images import ImageGrid, ImageSet
from anchorsfm.scene.pairs import PairList, PairPrediction
from anchorsfm.scene.progress import SILENT, Progress, RecordingProgress, counted
from anchorsfm.scene.reconstruction import Reconstruction, Tracks
from anchorsfm.tracks.build import KeypointMatchCollector, build_tracks
from anchorsfm.tracks.points import colour
from anchorsfm.tracks.refine import AdjustConfig, AdjustResult, KnownViews, refine_model
from anchorsfm.tracks.start import alignment_model, start_model
from anchorsfm.tree import MODES as KINEMATIC_MODES
from anchorsfm.tree import build_tree


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """Settings of a run."""

    max_image_size: int = 1024
    """Long side in pixels at which photographs are looked at; the written model is in original pixels."""
    camera_mode: CameraMode = "auto"
    """Which images share a camera. auto: same size and same EXIF data."""
    focal_px: float | None = None
    """Focal length of all images in original pixels, instead of EXIF or an estimate."""
    scene_graph: str = "auto"
    """Pairs of images to look at: auto, complete, swin-K, logwin-K, oneref-I, retrieval-A-K, pairs:FILE."""
    prefilter: str | None = None
    """Drop pairs further apart than N in the sequence of names: seqN, or cycN for a closed loop."""
    similarity: Path | None = None
    """Matrix (image, image) of image similarities for retrieval-A-K, as a .npy file in the order of the names."""
    frontend: Literal["classical", "mast3r"] = "classical"
    """What predicts depth and matches of a pair: the embedded front end, or a trained network (see --weights)."""
    classical: ClassicalFrontend = field(default_factory=ClassicalFrontend)
    """The embedded front end: no weights, no GPU."""
    mast3r: Mast3rFrontend = field(default_factory=Mast3rFrontend)
    """The MASt3R or DUSt3R network."""
    graph: GraphConfig = field(default_factory=GraphConfig)
    """How predictions are condensed."""
    align: AlignConfig = field(default_factory=AlignConfig)
    """Global alignment."""
    adjust: AdjustConfig = field(default_factory=AdjustConfig)
    """Triangulation and bundle adjustment."""
    known: KnownConfig = field(default_factory=KnownConfig)
    """Known poses and intrinsics."""
    dense: bool = True
    """Write a dense cloud of each model to OUT/dense."""
    seed: int = 0
    """Equal seeds and equal input give equal output, bit for bit, on one machine."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run made; everything is on disk already."""

    images: ImageSet
    models: tuple[Reconstruction, ...]
    """Largest first."""
    alignments: tuple[AlignmentResult, ...]
    report: RunReport


def reconstruct(
    source: Path | list[Path], output: Path, config: PipelineConfig | None = None, progress: Progress = SILENT
) -> RunResult:
    """Photographs in, COLMAP models out; a run that was interrupted continues from `output`/cache.

    Args:
        source: folder, list file or image files.
        output: folder for sparse/, dense/, alignment/, cache/, config.yaml and report.json.
        config: settings.
        progress: receives stages and warnings.

    Raises:
        InputError: the photographs or options cannot be used.
        NoReconstructionError: no two photographs could be related.
        StorageError: the output cannot be written.
    """
    config = config or PipelineConfig()
    _check_settings(config)
    folder, clock = OutputFolder(output), StageClock()
    folder.prepare(config)
    progress = recorded = RecordingProgress(progress)
    with clock.stage("images"):
        images = load_image_set(source, camera_mode=config.camera_mode, focal_px=config.focal_px, progress=progress)
        _require_two(images)
        known = read_known(config.known, images)
        images = known.with_focal_priors(images)
    with clock.stage("features, matches"):
        pairs = _pairs(config, images)
        predictor = _frontend(config).open(images, pairs, folder.store, progress)
    with clock.stage("dense depth"):
        collector, log = KeypointMatchCollector(predictor.grid), PairLog()
        with progress.stage("dense depth of pairs", len(pairs)) as advance:

            def watch(stream: Iterator[PairPrediction]) -> Iterator[PairPrediction]:
                return counted(log.watch(collector.watch(stream)), advance)

            scene = observe(images.num_images, predictor, pairs, config.graph, folder.store, watch)
    _require_component(scene, images, log)
    with clock.stage("alignment"):
        alignments = _align_components(scene, predictor, images, known, config, folder.store, progress)
        folder.write_alignments([alignment_model(a, images, predictor.grid) for a in alignments], images.names)
    with clock.stage("tracks, adjustment"):
        tracks = build_tracks(collector.finish(), images.num_images)
        scale = _working_scale(images, predictor.grid, config, from_grid=collector.from_grid)
        adjusted = [
            _adjust_component(a, tracks, images, predictor.grid, known, config, scale, progress) for a in alignments
        ]
        order = sorted(range(len(adjusted)), key=lambda k: -len(adjusted[k].model.image))
        order = [k for k in order if len(adjusted[k].model.image) >= 2]
        models = [colour(adjusted[k].model, images, max_size=config.max_image_size) for k in order]
        if models:
            folder.write_models(models, images.names)
    with clock.stage("dense cloud"):
        folder.write_dense(
            dense_cloud(onto_model(alignments[k], model, scene, predictor.grid), scene, images, predictor.grid)
            for k, model in zip(order, models, strict=True)
            if config.dense
        )
    dropped = {image: reason for result in adjusted for image, reason in result.dropped.items()}
    report = RunReport(
        versions={name: version(name) for name in ("anchorsfm", "numpy", "torch", "pycolmap", "poselib")},
        seed=config.seed,
        images=report_images(images, models, dropped, log),
        pairs=dict(sorted(log.status.items())),
        alignments=tuple(report_alignment(a) for a in alignments),
        models=tuple(report_model(number, model) for number, model in enumerate(models)),
        stages=tuple(clock.timings),
        warnings=tuple(recorded.warnings),
        weights=asdict(licence) if (licence := getattr(predictor, "licence", None)) else None,
    )
    folder.write_report(report)
    if not models:
        reasons = "; ".join(f"{i.name}: {i.reason}" for i in report.images[:3])
        raise NoReconstructionError(f"no model could be made from {images.root} ({reasons}); see {folder.report}")
    return RunResult(images=images, models=tuple(models), alignments=tuple(alignments), report=report)


def _check_settings(config: PipelineConfig) -> None:
    """Settings whose type does not say what is allowed."""
    if config.max_image_size < 64:
        raise InputError(f"--max-image-size {config.max_image_size} is too small: use at least 64 pixels")
    for option, value, allowed in (
        ("--align.kinematic-mode", config.align.kinematic_mode, KINEMATIC_MODES),
        ("--align.schedule", config.align.schedule, tuple(SCHEDULES)),
        ("--adjust.camera-model", config.adjust.camera_model, CAMERA_MODELS),
    ):
        if value not in allowed:
            raise InputError(f"{option} {value}: choose one of {', '.join(allowed)}")


def _pairs(config: PipelineConfig, images: ImageSet) -> PairList:
    similarity = None
    if config.similarity is not None:
        try:
            similarity = np.load(config.similarity, allow_pickle=False).astype(np.float64)
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read the similarities in {config.similarity}: {error}") from error
    return make_pairs(
        images.num_images,
        config.scene_graph,
        names=images.names,
        prefilter=config.prefilter,
        similarity=similarity,
        seed=config.seed,
    )


def _frontend(config: PipelineConfig) -> Frontend:
    if config.frontend == "mast3r":
        return config.mast3r
    classical = config.classical
    features = replace(classical.features, max_image_size=config.max_image_size)
    given = config.focal_px is not None or (config.known.model is not None and config.known.freeze_intrinsics)
    exactness = 0.0 if given else classical.intrinsics.recorded_focal_spread
    intrinsics = replace(classical.intrinsics, recorded_focal_spread=exactness)
    return replace(classical, features=features, intrinsics=intrinsics)


def _require_two(images: ImageSet) -> None:
    if images.num_images < 2:
        raise InputError(f"found one usable image in {images.root} ({images.names[0]}): at least two are needed")


def _require_component(scene: ObservedScene, images: ImageSet, log: PairLog) -> None:
    if not (scene.graph.component == 0).any():
        raise NoReconstructionError(
            f"the {images.num_images} images in {images.root} cannot be related: {log.best_reason()}; "
            "take photographs that overlap and from different places"
        )


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
        given = known.for_alignment(part.image, predictor.grid)
        cameras = images.camera_index[part.image]
        key = digest("alignment", predictor.digest, config.graph, config.align, part.image, cameras, given)
        arrays = store.load("alignment", key)
        if arrays is None:
            anchors = build_anchors(part)
            tree = build_tree(part.graph, anchors, config.align.kinematic_mode)
            arrays = to_arrays(
                align(part, anchors, tree, config.align, camera_index=cameras, known=given, progress=progress)
            )
            store.save("alignment", key, arrays)
        results.append(from_arrays(arrays))
    return results


def _working_scale(
    images: ImageSet, grid: ImageGrid, config: PipelineConfig, *, from_grid: bool
) -> Float[np.ndarray, "image"]:
    """Original pixels per pixel of the image that keypoints were found on: the unit of their noise."""
    if from_grid:
        return 1 / grid.scale.mean(axis=1)
    return np.maximum(1.0, images.size_wh.max(axis=1) / config.max_image_size)


def _adjust_component(
    alignment: AlignmentResult,
    tracks: Tracks,
    images: ImageSet,
    grid: ImageGrid,
    known: KnownCameras,
    config: PipelineConfig,
    working_scale: Float[np.ndarray, "image"],
    progress: Progress,
) -> AdjustResult:
    start = start_model(alignment, images, grid, config.adjust.camera_model, known=known.cameras)
    start = replace(start, cam_from_world=known.exact_poses(alignment))
    return refine_model(
        start,
        tracks,
        config.adjust,
        working_scale=working_scale[alignment.image],
        known=KnownViews(
            pose=alignment.pose_known,
            camera=known.frozen_cameras(np.unique(images.camera_index[alignment.image])),
        ),
        progress=progress,
    )
