"""What the stages of a run came to, and the record of it."""

from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from jaxtyping import Int

from anchorsfm.align.config import AlignConfig
from anchorsfm.frontend.base import Frontend, PairPredictor
from anchorsfm.io.clock import StageClock
from anchorsfm.mapping.base import Mapped
from anchorsfm.observe.graph import ObservedScene, believed_scores, components
from anchorsfm.observe.tree import tree_of_scores
from anchorsfm.pairing.search import SelectedPairs
from anchorsfm.report import PairLog, report_alignment, report_images, report_model
from anchorsfm.report.remarks import alignment_remarks, model_remarks
from anchorsfm.results.record import DepthFigures, Extension, RunReport
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.earlier import Earlier
from anchorsfm.run.forecast import Forecast
from anchorsfm.run.modelling import Finished
from anchorsfm.run.predictions import Predicted
from anchorsfm.run.settings import changed_settings, plain
from anchorsfm.run.stages import lowers_memory
from anchorsfm.scene.alignment import AlignmentResult
from anchorsfm.scene.executor import NodeShare
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.pairs import PairSearch
from anchorsfm.scene.progress import Progress, RecordingProgress
from anchorsfm.video.record import VideoFrames


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run came to; by default nothing."""

    images: ImageSet
    log: PairLog
    pair_search: PairSearch | None = None
    finished: Finished = field(default_factory=Finished)
    alignments: tuple[AlignmentResult, ...] = ()
    dropped: dict[int, str] = field(default_factory=dict)
    """Why images of no model were left out."""
    tree: Int[np.ndarray, "edge 2"] | None = None
    """Pairs of images that poses were chained along; None: by other means."""
    depth: DepthFigures | None = None
    weights: dict[str, str] | None = None
    """Terms of the trained weights."""

    @staticmethod
    def of(images: ImageSet, selected: SelectedPairs, predicted: Predicted, predictor: PairPredictor) -> "Outcome":
        """What is known before there is a model."""
        return Outcome(
            images=images,
            pair_search=selected.search,
            log=predicted.log,
            weights=asdict(predictor.licence) if predictor.licence else None,
        )

    def with_models(
        self, mapped: Mapped, finished: Finished, predicted: Predicted, align: AlignConfig, depth: DepthFigures | None
    ) -> "Outcome":
        """With what mapper, adjustment and dense output came to."""
        return replace(
            self,
            finished=finished,
            alignments=mapped.alignments,
            dropped=mapped.reasons | finished.dropped,
            tree=kinematic_edges(predicted.scene_with_depth, align) if mapped.alignments else None,
            depth=depth,
        )


class RunRecord:
    """Everything that is taken down about a run while it goes on."""

    def __init__(self, config: PipelineConfig, frontend: Frontend | None, progress: Progress) -> None:
        self.changed = changed_settings(config, PipelineConfig())
        """Names of the settings that are not the default."""
        self.clock = StageClock(lowers_memory(config))
        self.forecast = Forecast(config, progress)
        self.progress = RecordingProgress(self.forecast)
        self.videos: tuple[VideoFrames, ...] = ()
        """Of the frames among the photographs."""
        self.extensions: tuple[Extension, ...] = ()
        """Of the models that this run goes on from, and this one."""
        self._frontend = frontend

    def goes_on_from(self, earlier: Earlier, videos: tuple[VideoFrames, ...]) -> None:
        """Take down earlier runs, and the videos of this one."""
        self.extensions = earlier.extensions
        self.videos = (*earlier.videos, *videos)

    def settings(self, config: PipelineConfig) -> object:
        """The settings in writing: a front end of one's own is no value of `config.frontend`."""
        if self._frontend is None:
            return config
        return plain(config) | {"frontend": str(getattr(self._frontend, "name", "one's own"))}

    def report(self, outcome: Outcome, config: PipelineConfig, shares: tuple[NodeShare, ...] = ()) -> RunReport:
        """The record of the run so far; `shares`: what other machines made of it."""
        models, images = outcome.finished.models, outcome.images
        done = outcome.finished
        alignments = tuple(report_alignment(a, models) for a in outcome.alignments)
        for remark in alignment_remarks(alignments):
            self.progress.warn(remark)
        results = zip(models, done.results, done.uncertainties, done.georeferenced, done.evidence, done.up, strict=True)
        return RunReport(
            versions={name: _version(name) for name in ("anchorsfm", "numpy", "torch", "pycolmap", "poselib")},
            seed=config.seed,
            config=plain(self.settings(config)),
            changed=self.changed,
            image_root=str(images.root.resolve()),
            videos=self.videos,
            extensions=self.extensions,
            images=report_images(images, models, outcome.dropped, outcome.log),
            pairs=dict(sorted(outcome.log.status.items())),
            belief=outcome.log.belief(),
            pair_list=outcome.log.columns(),
            pair_search=outcome.pair_search,
            alignments=alignments,
            models=tuple(
                report_model(
                    number,
                    model,
                    result.lenses,
                    uncertainty,
                    images.names,
                    outcome.tree,
                    remarks=model_remarks(result, uncertainty, images, evidence),
                    evidence=evidence,
                    georeferenced=place,
                    focal=result.focal,
                    up=up,
                )
                for number, (model, result, uncertainty, place, evidence, up) in enumerate(results)
            ),
            depth=outcome.depth,
            stages=tuple(self.clock.timings),
            cluster=shares,
            warnings=tuple(self.progress.warnings),
            weights=outcome.weights,
        )

    def timed(self, report: RunReport) -> RunReport:
        """The record with the cost of all stages that have ended by now."""
        return replace(report, stages=tuple(self.clock.timings))


def kinematic_edges(scene: ObservedScene, config: AlignConfig) -> Int[np.ndarray, "edge 2"]:
    """Pairs of images that the alignments of all components chained poses along."""
    edges = [np.zeros((0, 2), np.int64)]
    for part in components(scene):
        blocks = np.array([0 if view is None else view.anchor_depth.size for view in part.views])
        parent = tree_of_scores(
            believed_scores(part.graph),
            blocks,
            config.kinematic_mode,
            allow_unmatched_edges=config.reference.unmatched_tree_edges,
        ).parent
        child = np.flatnonzero(parent >= 0)
        edges.append(np.stack([part.image_index[child], part.image_index[parent[child]]], axis=1))
    return np.concatenate(edges)


def _version(package: str) -> str:
    """Of an installed package. One that runs from where it lies has no record of itself."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
