"""What the stages of a run came to, and the record of it."""

from dataclasses import asdict, dataclass, field
from importlib.metadata import version

import numpy as np
from jaxtyping import Int

from anchorsfm.align.config import AlignConfig
from anchorsfm.frontend.base import PairPredictor
from anchorsfm.io.clock import StageClock
from anchorsfm.observe.graph import ObservedScene, score_matrix, select_component
from anchorsfm.observe.tree import tree_of_scores
from anchorsfm.report import PairLog, RunReport, report_alignment, report_images, report_model
from anchorsfm.report.record import DepthFigures
from anchorsfm.report.remarks import model_remarks
from anchorsfm.run.settings import plain
from anchorsfm.scene.alignment import AlignmentResult
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.progress import RecordingProgress
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.adjust import AdjustResult
from anchorsfm.tracks.uncertainty import ModelUncertainty


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run came to; by default nothing."""

    images: ImageSet
    log: PairLog
    models: tuple[Reconstruction, ...] = ()
    finished: tuple[AdjustResult, ...] = ()
    uncertainties: tuple[ModelUncertainty, ...] = ()
    alignments: tuple[AlignmentResult, ...] = ()
    dropped: dict[int, str] = field(default_factory=dict)
    """Why images of no model were left out."""
    tree: Int[np.ndarray, "edge 2"] | None = None
    """Pairs of images that poses were chained along; None: by other means."""
    depth: DepthFigures | None = None
    weights: dict[str, str] | None = None
    """Terms of the trained weights."""

    def report(
        self, config: object, changed: tuple[str, ...], seed: int, clock: StageClock, recorded: RecordingProgress
    ) -> RunReport:
        """The record of the run. `changed`: names of the settings that are not the default."""
        results = zip(self.models, self.finished, self.uncertainties, strict=True)
        return RunReport(
            versions={name: version(name) for name in ("anchorsfm", "numpy", "torch", "pycolmap", "poselib")},
            seed=seed,
            config=plain(config),
            changed=changed,
            image_root=str(self.images.root.resolve()),
            images=report_images(self.images, self.models, self.dropped, self.log),
            pairs=dict(sorted(self.log.status.items())),
            pair_list=self.log.columns(),
            alignments=tuple(report_alignment(a) for a in self.alignments),
            models=tuple(
                report_model(
                    number,
                    model,
                    result.lenses,
                    uncertainty,
                    self.images.names,
                    self.tree,
                    remarks=model_remarks(result, uncertainty, self.images),
                )
                for number, (model, result, uncertainty) in enumerate(results)
            ),
            depth=self.depth,
            stages=tuple(clock.timings),
            warnings=tuple(recorded.warnings),
            weights=self.weights,
        )


def licence_of(predictor: PairPredictor) -> dict[str, str] | None:
    """The terms of the weights that predict, if trained ones do."""
    return asdict(predictor.licence) if predictor.licence else None


def kinematic_edges(scene: ObservedScene, config: AlignConfig) -> Int[np.ndarray, "edge 2"]:
    """Pairs of images that the alignments of all components chained poses along."""
    edges = [np.zeros((0, 2), np.int64)]
    for component in range(int(scene.graph.component.max()) + 1):
        part = select_component(scene, component)
        blocks = np.array([0 if view is None else view.anchor_depth.size for view in part.views])
        parent = tree_of_scores(
            score_matrix(part.graph),
            blocks,
            config.kinematic_mode,
            allow_unmatched_edges=config.reference.unmatched_tree_edges,
        ).parent
        child = np.flatnonzero(parent >= 0)
        edges.append(np.stack([part.image[child], part.image[parent[child]]], axis=1))
    return np.concatenate(edges)
