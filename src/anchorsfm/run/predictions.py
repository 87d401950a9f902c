"""The front end of a run, and everything that it predicts: condensed where depth is needed, matches always."""

from collections.abc import Iterator
from dataclasses import dataclass

from anchorsfm.frontend import FRONTENDS, RunSettings
from anchorsfm.frontend.base import Frontend, PairPredictor
from anchorsfm.io.store import Store
from anchorsfm.observe.checkpoint import observe
from anchorsfm.observe.graph import ObservedScene
from anchorsfm.observe.sanitise import LeftOut, sanitised
from anchorsfm.pairing import make_pairs
from anchorsfm.pairing.similarity import read_similarity
from anchorsfm.report import PairLog
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.stages import Stage
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.pairs import PairList, PairPrediction
from anchorsfm.scene.progress import Progress, counted
from anchorsfm.tracks.build import KeypointMatchCollector, KeypointMatches


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What remains of the predictions of all pairs."""

    scene: ObservedScene | None
    """None: depth was not asked for."""
    matches: KeypointMatches
    """For tracks: the detector's, or on the grid."""
    log: PairLog

    @property
    def scene_with_depth(self) -> ObservedScene:
        """The scene, where depth was asked for."""
        assert self.scene is not None, "the front end was not asked for depth"
        return self.scene

    @property
    def has_component(self) -> bool:
        """Whether any two images hold together, as far as depth says."""
        return self.scene is None or bool((self.scene.graph.component == 0).any())


def make_run_pairs(config: PipelineConfig, images: ImageSet) -> PairList:
    """The pairs of images to look at."""
    similarity = None if config.similarity is None else read_similarity(config.similarity, images.num_images)
    return make_pairs(
        images.num_images,
        config.scene_graph,
        names=images.names,
        prefilter=config.prefilter,
        similarity=similarity,
        seed=config.seed,
    )


def chosen_frontend(config: PipelineConfig) -> Frontend:
    """The front end that the settings name, with what the run decides."""
    kind = FRONTENDS[config.frontend]
    chosen = next(part for part in vars(config).values() if isinstance(part, kind))
    exact = config.focal_px is not None or (config.known.model is not None and config.known.freeze_intrinsics)
    return chosen.for_run(
        RunSettings(
            max_image_size=config.max_image_size,
            seed=config.seed,
            focal_is_exact=exact,
            needs_depth=config.needs_depth,
        )
    )


def consume(
    predictor: PairPredictor,
    pairs: PairList,
    images: ImageSet,
    config: PipelineConfig,
    store: Store,
    progress: Progress,
) -> Predicted:
    """Consume the prediction stream."""
    collector, log = KeypointMatchCollector(predictor.grid, detects_keypoints=predictor.detects_keypoints), PairLog()
    with progress.stage(f"{Stage.DEPTH} of pairs" if config.needs_depth else "pairs", len(pairs)) as advance:

        def watch(stream: Iterator[PairPrediction]) -> Iterator[PairPrediction]:
            return counted(log.watch(collector.watch(stream)), advance)

        if config.needs_depth:
            scene = observe(images.num_images, predictor, pairs, config.graph, store, watch, progress)
            return Predicted(scene=scene, matches=collector.finish(), log=log)
        left_out = LeftOut()
        for _ in watch(sanitised(iter(predictor), left_out)):
            pass
        if left_out.pairs:
            progress.warn(str(left_out))
    return Predicted(scene=None, matches=collector.finish(), log=log)
