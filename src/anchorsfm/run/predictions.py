"""The front end of a run, and everything that it predicts: condensed where depth is needed, matches always."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int

from anchorsfm.features.methods import make_detector, make_matcher
from anchorsfm.features.store import FeatureStore, MatchStore
from anchorsfm.features.verification import VerificationStore
from anchorsfm.frontend import FRONTENDS, ClassicalFrontend, RunSettings
from anchorsfm.frontend.base import DepthOfSome, Frontend, PairPredictor
from anchorsfm.io.store import Store
from anchorsfm.io.workers import single_threaded_libraries
from anchorsfm.observe.checkpoint import Watch, observe
from anchorsfm.observe.graph import ObservedScene
from anchorsfm.observe.relative import judge_rotations, relative_rotation
from anchorsfm.observe.sanitise import LeftOut, sanitised
from anchorsfm.pairing import make_pairs, parse_prefilter, parse_scene_graph
from anchorsfm.pairing.config import Auto, Retrieval
from anchorsfm.pairing.graphs import near
from anchorsfm.pairing.retrieval import image_similarity
from anchorsfm.pairing.search import PairChecker, SelectedPairs, search_pairs
from anchorsfm.pairing.similarity import read_similarity
from anchorsfm.report import PairLog
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.stages import Stage
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.pairs import PairList, PairPrediction, PairStatus
from anchorsfm.scene.progress import Progress, counted
from anchorsfm.tracks.build import KeypointMatchCollector, KeypointMatches
from anchorsfm.tracks.coarse import CoarseKeypoints

_CHEAP_KEYPOINTS = 4096
"""Of an image, where pairs are looked for with keypoints but predicted by a network."""


@dataclass(frozen=True, kw_only=True)
class EarlierPairs:
    """What earlier runs looked at, for a run that goes on from them."""

    pairs: Int[np.ndarray, "pair 2"]
    """i < j, sorted."""
    allowed: Bool[np.ndarray, "image image"]
    """Pairs that may be looked at: those, and those of photographs that no run had together; symmetric."""


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What remains of the predictions of all pairs."""

    scene: ObservedScene | None
    """None: depth was not asked for."""
    matches: KeypointMatches
    """For tracks: the detector's, or on the grid."""
    coarse: CoarseKeypoints | None
    """Keypoints that are less exact than the others."""
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


def make_run_pairs(
    config: PipelineConfig,
    images: ImageSet,
    frontend: Frontend,
    store: Store,
    progress: Progress,
    earlier: EarlierPairs | None = None,
) -> SelectedPairs:
    """The pairs of images to look at: those that the scene graph names, or those that a search finds; and earlier ones.

    Raises InputError if the scene graph does not fit the images, or a photograph cannot be read.
    """
    selected = _new_pairs(config, images, frontend, store, progress, None if earlier is None else earlier.allowed)
    if earlier is None:
        return selected
    i, j = selected.pairs.index.T
    both = np.concatenate([earlier.pairs, selected.pairs.index[earlier.allowed[i, j]]])
    return replace(selected, pairs=PairList(index=np.unique(both, axis=0)), scene=None)


def _new_pairs(
    config: PipelineConfig,
    images: ImageSet,
    frontend: Frontend,
    store: Store,
    progress: Progress,
    open_pairs: Bool[np.ndarray, "image image"] | None,
) -> SelectedPairs:
    graph = parse_scene_graph(config.scene_graph)
    similarity = None if config.similarity is None else read_similarity(config.similarity, images.num_images)
    prefilter = None if config.prefilter is None else parse_prefilter(config.prefilter)
    searches = isinstance(graph, Auto) and images.num_images > graph.max_complete
    if searches or (isinstance(graph, Retrieval) and similarity is None):
        is_network = not isinstance(frontend, ClassicalFrontend)
        checker = pair_checker(config, images, frontend, store, progress)
        with single_threaded_libraries():
            if similarity is None:
                similarity = image_similarity(checker.features, progress, checker.num_workers)
            if isinstance(graph, Auto):
                allowed = open_pairs
                if prefilter is not None:
                    nearby = near(images.num_images, prefilter)
                    allowed = nearby if allowed is None else allowed & nearby
                if images.rigs is not None:
                    apart = ~images.rigs.one_view()
                    allowed = apart if allowed is None else allowed & apart
                return search_pairs(
                    similarity,
                    checker,
                    graph,
                    allowed=allowed,
                    for_network=is_network,
                    for_second=config.classical.has_second_method,
                )
    pairs = make_pairs(
        images.num_images, graph, names=images.names, prefilter=prefilter, similarity=similarity, seed=config.seed
    )
    if images.rigs is not None:
        i, j = pairs.index.T
        pairs = PairList(index=pairs.index[~images.rigs.one_view()[i, j]])
    return SelectedPairs(pairs=pairs)


def pair_checker(
    config: PipelineConfig, images: ImageSet, frontend: Frontend, store: Store, progress: Progress
) -> PairChecker:
    """Keypoints and matches as the classical front end has them, or fewer for another one."""
    if isinstance(frontend, ClassicalFrontend):
        settings = frontend.for_run(RunSettings())
        features = settings.features
    else:
        settings = config.classical.for_run(_run_settings(config))
        few = min(settings.features.max_keypoints, _CHEAP_KEYPOINTS)
        features = replace(settings.features, max_keypoints=few)
    found = FeatureStore(images=images, detector=make_detector(features, settings.networks, progress), store=store)
    matcher = make_matcher(settings.matching, features.first_detector, settings.networks, progress)
    matches = MatchStore(features=found, matcher=matcher)
    verification = VerificationStore(matches=matches, config=settings.matching)
    return PairChecker(verification=verification, progress=progress, num_workers=settings.workers.resolve())


def chosen_frontend(config: PipelineConfig) -> Frontend:
    """The front end that the settings name, with what the run decides."""
    kind = FRONTENDS[config.frontend]
    chosen = next(part for part in vars(config).values() if isinstance(part, kind))
    return chosen.for_run(_run_settings(config))


def _run_settings(config: PipelineConfig) -> RunSettings:
    exact = config.kept_focal_px is not None or (config.known.model is not None and config.known.freeze_intrinsics)
    return RunSettings(
        max_image_size=config.max_image_size,
        seed=config.seed,
        focal_is_exact=exact,
        needs_depth=config.needs_depth,
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
    all_count, total = True, len(pairs)
    if config.needs_depth and isinstance(predictor, DepthOfSome):
        all_count, total = False, predictor.num_with_depth
    with progress.stage(f"{Stage.DEPTH} of pairs" if config.needs_depth else "pairs", total) as advance:

        def watch(stream: Iterator[PairPrediction]) -> Iterator[PairPrediction]:
            watched = log.watch(collector.watch(stream))
            return counted(watched, advance, lambda prediction: all_count or prediction.frame_i is not None)

        if config.needs_depth:
            scene = observe(images.num_images, predictor, pairs, config.graph, store, watch, progress)
            confirmed, rejected = scene.graph.pair[scene.graph.confirmed], scene.rejected
        else:
            scene = None
            confirmed, rejected = _only_matches(iter(predictor), images, config, watch, progress)
    log.believe(confirmed, rejected)
    matches = collector.finish().without_pairs(rejected)
    return Predicted(scene=scene, matches=matches, coarse=collector.coarse(), log=log)


def _only_matches(
    predictions: Iterator[PairPrediction], images: ImageSet, config: PipelineConfig, watch: Watch, progress: Progress
) -> tuple[Int[np.ndarray, "confirmed 2"], Int[np.ndarray, "rejected 2"]]:
    """Let the predictions pass where no depth is asked for; the pairs that others confirm and contradict."""
    left_out = LeftOut()
    pair, rotations = [], []
    for prediction in watch(sanitised(predictions, left_out)):
        if prediction.status is PairStatus.OK:
            pair.append((prediction.i, prediction.j))
            rotations.append(relative_rotation(prediction))
    if left_out.pairs:
        progress.warn(str(left_out))
    index = np.array(pair, np.int64).reshape(-1, 2)
    belief = judge_rotations(images.num_images, index, rotations, config.graph.consistency)
    return index[belief.confirmed], index[belief.rejected]
