"""What a run says about itself: `report.json`, and the summary the command line prints."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from anchorsfm.io.clock import StageTiming
from anchorsfm.scene.alignment import AlignmentResult, StageHistory
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.pairs import PairPrediction, PairStatus
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.lens import LensChoice
from anchorsfm.tracks.uncertainty import ModelUncertainty
from anchorsfm.tracks.views import observations_per_view

_MAX_CAMERAS = 3
"""Cameras named in the summary; report.json has all."""


@dataclass(frozen=True, kw_only=True)
class ImageReport:
    """One photograph."""

    name: str
    model: int | None
    """Number of the model it is registered in; None: not registered."""
    observations: int
    reason: str | None
    """Why it is not registered."""


@dataclass(frozen=True, kw_only=True)
class PoseDeviation:
    """Standard deviations of one pose; None where they could not be estimated."""

    name: str
    position: float | None
    """World units."""
    position_share: float | None
    """Share of the scene size."""
    position_m: float | None
    """Metres, where the scale is known from given poses in metres."""
    rotation_deg: float | None
    weak: bool
    """Weakly held: compare before relying on it."""


@dataclass(frozen=True, kw_only=True)
class UncertaintyReport:
    """What the adjustment says about its own precision: a lower bound, it knows no systematic errors."""

    scene_size: float
    """Radius of points and cameras together, in world units."""
    images: tuple[PoseDeviation, ...]
    camera_params: tuple[tuple[float, ...] | None, ...]
    """Of every camera in COLMAP's parameter order; 0 for parameters that were held."""

    @property
    def weak_images(self) -> list[str]:
        return [image.name for image in self.images if image.weak]


@dataclass(frozen=True, kw_only=True)
class ModelReport:
    """One model OUT/sparse/<number>."""

    number: int
    registered: int
    points: int
    observations: int
    mean_track_length: float
    mean_reprojection_error_px: float
    cameras: tuple[str, ...]
    lenses: tuple[LensChoice, ...]
    """How the camera model of each camera was chosen; empty if it was given."""
    uncertainty: UncertaintyReport


@dataclass(frozen=True, kw_only=True)
class SolverReport:
    """How a stage of an alignment went."""

    method: str
    status: str
    iterations: int
    cost: tuple[float, ...]
    """What was minimised, at up to 100 iterations spread evenly over the run."""


@dataclass(frozen=True, kw_only=True)
class AlignmentReport:
    """The alignment of one connected component, before any bundle adjustment."""

    images: int
    coarse_iterations: int
    coarse_loss: float | None
    coarse_status: str
    fine_iterations: int
    fine_loss: float | None
    fine_status: str
    solver: dict[str, SolverReport]
    """By stage."""


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """Everything in report.json."""

    versions: dict[str, str]
    seed: int
    image_root: str
    """Folder that the names of images are relative to."""
    images: tuple[ImageReport, ...]
    pairs: dict[str, int]
    """Number of pairs by what the front end found."""
    alignments: tuple[AlignmentReport, ...]
    models: tuple[ModelReport, ...]
    stages: tuple[StageTiming, ...]
    warnings: tuple[str, ...]
    weights: dict[str, str] | None
    """Trained weights that were used, their terms, and how the user accepted them."""

    @property
    def num_registered(self) -> int:
        return sum(image.model is not None for image in self.images)


class PairLog:
    """What the front end found, counted per status and per image while the predictions stream past."""

    def __init__(self) -> None:
        self.status: Counter[str] = Counter()
        self._most_matches: Counter[int] = Counter()
        self._rotations: Counter[int] = Counter()

    def watch(self, predictions: Iterable[PairPrediction]) -> Iterator[PairPrediction]:
        """The same predictions, unchanged."""
        for prediction in predictions:
            self.status[prediction.status.value] += 1
            found = prediction.keypoint_matches if prediction.keypoint_matches is not None else prediction.matches
            for image in (prediction.i, prediction.j):
                self._most_matches[image] = max(self._most_matches[image], len(found))
                self._rotations[image] += prediction.status == PairStatus.PURE_ROTATION
            yield prediction

    def reason(self, image: int) -> str:
        """Why no usable pair reaches an image."""
        if self._rotations[image]:
            return "it matches other images, but only by a rotation of the camera: no depth"
        most = self._most_matches[image]
        return f"no overlap found: at most {most} verified matches with any other image"

    def best_reason(self) -> str:
        """Why no pair at all is usable, from the image that came closest."""
        return self.reason(max(self._most_matches, key=lambda image: self._most_matches[image], default=0))


def report_images(
    images: ImageSet, models: Sequence[Reconstruction], dropped: Mapping[int, str], log: PairLog
) -> tuple[ImageReport, ...]:
    """Every photograph that was found: the model it is in, or why it is in none."""
    placed = {
        int(image): (number, int(count))
        for number, model in enumerate(models)
        for image, count in zip(model.image, observations_per_view(model), strict=True)
    }
    reports = [
        ImageReport(name=name, model=placed[k][0], observations=placed[k][1], reason=None)
        if k in placed
        else ImageReport(name=name, model=None, observations=0, reason=dropped.get(k, log.reason(k)))
        for k, name in enumerate(images.names)
    ]
    skipped = [ImageReport(name=s.name, model=None, observations=0, reason=s.reason) for s in images.skipped]
    return tuple(reports + skipped)


def report_model(
    number: int,
    model: Reconstruction,
    lenses: tuple[LensChoice, ...],
    uncertainty: ModelUncertainty,
    names: Sequence[str],
) -> ModelReport:
    """Figures of a finished model."""
    observations, points = len(model.tracks.obs_point), len(model.points)
    length = np.bincount(model.tracks.obs_point, minlength=points)
    return ModelReport(
        number=number,
        registered=len(model.image),
        points=points,
        observations=observations,
        mean_track_length=round(observations / max(points, 1), 3),
        mean_reprojection_error_px=round(float((model.error_px * length).sum() / max(observations, 1)), 4),
        cameras=tuple(
            f"{camera.model} {camera.width}x{camera.height} " + " ".join(f"{p:.6g}" for p in camera.params)
            for camera in model.cameras
        ),
        lenses=lenses,
        uncertainty=report_uncertainty(model, uncertainty, names),
    )


def report_uncertainty(model: Reconstruction, uncertainty: ModelUncertainty, names: Sequence[str]) -> UncertaintyReport:
    """Standard deviations with the names of the images."""

    def known(value: float, digits: int) -> float | None:
        return float(f"{value:.{digits}g}") if np.isfinite(value) else None

    images = []
    for view, image in enumerate(model.image):
        position = float(uncertainty.position[view])
        images.append(
            PoseDeviation(
                name=names[image],
                position=known(position, 4),
                position_share=known(position / max(uncertainty.scene_size, 1e-12), 4),
                position_m=known(position, 4) if uncertainty.metric else None,
                rotation_deg=known(float(uncertainty.rotation_deg[view]), 4),
                weak=bool(uncertainty.weak[view]),
            )
        )
    return UncertaintyReport(
        scene_size=float(f"{uncertainty.scene_size:.6g}"),
        images=tuple(images),
        camera_params=uncertainty.camera_params,
    )


def report_alignment(alignment: AlignmentResult) -> AlignmentReport:
    """Figures of an alignment."""

    def last(total: np.ndarray) -> float | None:
        return round(float(total[-1]), 6) if len(total) else None

    return AlignmentReport(
        images=len(alignment.image),
        coarse_iterations=len(alignment.coarse.total),
        coarse_loss=last(alignment.coarse.total),
        coarse_status=alignment.coarse.status.value,
        fine_iterations=len(alignment.fine.total),
        fine_loss=last(alignment.fine.total),
        fine_status=alignment.fine.status.value,
        solver={"coarse": report_solver(alignment.coarse), "fine": report_solver(alignment.fine)},
    )


def report_solver(stage: StageHistory) -> SolverReport:
    """How one stage went."""
    chosen = np.unique(np.linspace(0, len(stage.total) - 1, min(len(stage.total), 100)).round().astype(int))
    return SolverReport(
        method=stage.method,
        status=stage.status.value,
        iterations=len(stage.total),
        cost=tuple(round(float(value), 6) for value in stage.total[chosen]),
    )


def summary_lines(report: RunReport) -> list[str]:
    """The end of a run in words: what came out, what did not and why, what it cost."""
    lines = [f"{report.num_registered} of {len(report.images)} images registered in {_count(report.models, 'model')}"]
    for model in report.models:
        lines.append(
            f"  model {model.number}: {model.registered} images, {model.points} points, "
            f"mean track length {model.mean_track_length:.2f}, "
            f"mean reprojection error {model.mean_reprojection_error_px:.2f} px"
        )
        lines += [f"    {camera}" for camera in model.cameras[:_MAX_CAMERAS]]
        if len(model.cameras) > _MAX_CAMERAS:
            lines.append(f"    and {len(model.cameras) - _MAX_CAMERAS} more cameras")
        if model.uncertainty.weak_images:
            lines.append(f"    weakly held: {', '.join(model.uncertainty.weak_images)}")
    for image in report.images:
        if image.model is None:
            lines.append(f"  not registered: {image.name} ({image.reason})")
    lines.append("stage               wall s    CPU s   peak MiB")
    for stage in report.stages:
        lines.append(f"{stage.stage:<18}{stage.wall_s:8.1f} {stage.cpu_s:8.1f} {stage.peak_memory_mib:10.0f}")
    wall, cpu = sum(s.wall_s for s in report.stages), sum(s.cpu_s for s in report.stages)
    peak = max((s.peak_memory_mib for s in report.stages), default=0.0)
    lines.append(f"{'total':<18}{wall:8.1f} {cpu:8.1f} {peak:10.0f}")
    return lines


def _count(items: tuple[object, ...], noun: str) -> str:
    return f"{len(items)} {noun}" + ("" if len(items) == 1 else "s")
