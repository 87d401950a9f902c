"""The figures of a run from its results."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from anchorsfm.evaluation.poses import evaluate_poses
from anchorsfm.mapping.evidence import STRONG, PairEvidence
from anchorsfm.mapping.georeference import Georeferenced
from anchorsfm.report.figures import model_figures
from anchorsfm.report.pair_log import PairLog
from anchorsfm.results.record import (
    AlignmentReport,
    ContradictedPairs,
    FocalReport,
    GeoreferenceReport,
    ImageReport,
    ModelReport,
    PoseDeviation,
    PositionResidual,
    SolverReport,
    UncertaintyReport,
    UpReport,
)
from anchorsfm.scene.alignment import AlignmentResult, StageHistory
from anchorsfm.scene.edit import observations_per_view, view_of_image
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.poses import PoseSet
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.adjust import SettledFocal
from anchorsfm.tracks.lens import LensChoice
from anchorsfm.tracks.residuals import pixel_errors
from anchorsfm.tracks.uncertainty import ModelUncertainty

_ALIKE_DEG = 10.0
"""Relative rotations and directions that differ by less are of the same scene, if not equally exact."""
_MANY = 400
"""Images whose pairs say enough about all."""


def report_images(
    images: ImageSet, models: Sequence[Reconstruction], dropped: Mapping[int, str], log: PairLog
) -> tuple[ImageReport, ...]:
    """Every photograph that was found: the model it is in, or why it is in none."""
    placed = {
        int(image): report
        for number, model in enumerate(models)
        for image, report in zip(model.image_index, _placed(images, number, model), strict=True)
    }
    reports = [
        placed[k]
        if k in placed
        else ImageReport(
            name=name, model=None, observations=0, reason=dropped.get(k, log.reason(k)), size_wh=_size_wh(images, k)
        )
        for k, name in enumerate(images.names)
    ]
    skipped = [ImageReport(name=s.name, model=None, observations=0, reason=s.reason) for s in images.skipped]
    return tuple(reports + skipped)


def _placed(images: ImageSet, number: int, model: Reconstruction) -> list[ImageReport]:
    """The registered photographs of one model."""
    columns = zip(
        model.image_index, observations_per_view(model), model.camera_index, errors_per_view(model), strict=True
    )
    return [
        ImageReport(
            name=images.names[image],
            model=number,
            observations=int(count),
            reason=None,
            size_wh=_size_wh(images, int(image)),
            camera=int(camera),
            mean_error_px=round(float(error), 4) if np.isfinite(error) else None,
        )
        for image, count, camera, error in columns
    ]


def _size_wh(images: ImageSet, image: int) -> tuple[int, int]:
    width, height = images.size_wh[image].tolist()
    return width, height


def errors_per_view(model: Reconstruction) -> Float[np.ndarray, "view"]:
    """Mean reprojection error in original pixels of the observations of each view that project; NaN for none."""
    error = pixel_errors(model)
    rows = np.flatnonzero(np.isfinite(error))
    view = view_of_image(model)[model.tracks.obs_image[rows]]
    total = np.bincount(view, weights=error[rows], minlength=len(model.image_index))
    count = np.bincount(view, minlength=len(model.image_index))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def report_model(
    number: int,
    model: Reconstruction,
    lenses: tuple[LensChoice, ...],
    uncertainty: ModelUncertainty,
    names: Sequence[str],
    tree: Int[np.ndarray, "edge 2"] | None = None,
    *,
    remarks: tuple[str, ...] = (),
    evidence: PairEvidence | None = None,
    georeferenced: Georeferenced | None = None,
    focal: Sequence[SettledFocal | None] = (),
    up: UpReport | None = None,
) -> ModelReport:
    """Figures of a finished model.

    `tree` holds pairs of images that poses were chained along, if they were; `up` says why z is up, if it is.
    """
    observations, points = len(model.tracks.obs_point), len(model.points)
    length = np.bincount(model.tracks.obs_point, minlength=points)
    return ModelReport(
        number=number,
        registered=len(model.image_index),
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
        figures=model_figures(model, tree, None if up is None else np.array([0.0, 0.0, 1.0])),
        up=up,
        remarks=remarks,
        georeference=None if georeferenced is None else report_georeference(model, georeferenced, names),
        focal_lengths=tuple(_focal(row, found) for row, found in enumerate(focal) if found is not None),
        contradicted=None if evidence is None else _contradicted(model, evidence),
    )


def report_georeference(model: Reconstruction, found: Georeferenced, names: Sequence[str]) -> GeoreferenceReport:
    """What recorded positions came to, with the names of the images."""
    outlier = found.outliers

    def millimetres(values: Float[np.ndarray, "3"]) -> tuple[float, float, float]:
        east, north, up = np.round(values, 3).tolist()
        return east, north, up

    return GeoreferenceReport(
        mode=found.mode,
        problem=found.problem,
        rms_m=millimetres(found.rms_m()) if found.agrees.any() else None,
        residuals=tuple(
            PositionResidual(
                name=names[model.image_index[view]],
                residual_m=millimetres(found.residual_m[view]),
                sigma_m=millimetres(found.sigma_m[view]),
                outlier=bool(outlier[view]),
            )
            for view in np.flatnonzero(np.isfinite(found.residual_m).all(axis=1)).tolist()
        ),
        straightened_m=None if found.straightened_m is None else round(found.straightened_m, 3),
    )


def _focal(camera: int, found: SettledFocal) -> FocalReport:
    def known(value: float, is_known: bool = True) -> float | None:
        return round(value, 3) if is_known and np.isfinite(value) else None

    is_recorded = not found.is_assumed and not found.is_from_lines
    return FocalReport(
        camera=camera,
        free_px=known(found.free_px),
        free_sigma_px=known(found.free_sigma_px),
        recorded_px=known(found.prior_px, is_recorded),
        recorded_sigma_px=known(found.prior_sigma_px, is_recorded),
        assumed_px=known(found.prior_px, found.is_assumed),
        assumed_sigma_px=known(found.prior_sigma_px, found.is_assumed),
        lines_px=known(found.prior_px, found.is_from_lines),
        lines_sigma_px=known(found.prior_sigma_px, found.is_from_lines),
        sigma_px=round(found.sigma_px, 3),
    )


def _contradicted(model: Reconstruction, evidence: PairEvidence) -> ContradictedPairs:
    rows = np.flatnonzero(evidence.contradicted)
    i, j = model.image_index[evidence.view[rows]].T
    return ContradictedPairs(
        examined=int((evidence.matches >= STRONG).sum()),
        i=tuple(i.tolist()),
        j=tuple(j.tolist()),
        matches=tuple(evidence.matches[rows].tolist()),
        agreeing=tuple(evidence.agreeing[rows].tolist()),
    )


def report_uncertainty(model: Reconstruction, uncertainty: ModelUncertainty, names: Sequence[str]) -> UncertaintyReport:
    """Standard deviations with the names of the images."""

    def known(value: float, digits: int) -> float | None:
        return float(f"{value:.{digits}g}") if np.isfinite(value) else None

    axes = None if uncertainty.modes is None else uncertainty.modes.position_deviations
    images = []
    for view, image in enumerate(model.image_index):
        position = float(uncertainty.position[view])
        images.append(
            PoseDeviation(
                name=names[image],
                position=known(position, 4),
                position_share=known(position / max(uncertainty.scene_size, 1e-12), 4),
                position_m=known(position, 4) if uncertainty.metric else None,
                rotation_deg=known(float(uncertainty.rotation_deg[view]), 4),
                weak=bool(uncertainty.weak[view]),
                position_axes=None if axes is None else along_axes(axes[view]),
            )
        )
    return UncertaintyReport(
        scene_size=float(f"{uncertainty.scene_size:.6g}"),
        images=tuple(images),
        camera_params=uncertainty.camera_params,
    )


def along_axes(deviations: Float[np.ndarray, "3"]) -> tuple[float, float, float]:
    """Standard deviations along x, y and z as the record has them."""
    x, y, z = (float(f"{value:.4g}") for value in deviations)
    return x, y, z


def report_alignment(alignment: AlignmentResult, models: Sequence[Reconstruction]) -> AlignmentReport:
    """Figures of an alignment, beside the models that came of it."""

    def last(total: np.ndarray) -> float | None:
        return round(float(total[-1]), 6) if len(total) else None

    return AlignmentReport(
        images=len(alignment.image_index),
        unconfirmed_share=round(unconfirmed_share(alignment.image_index, alignment.cam_from_world, models), 4),
        coarse_iterations=len(alignment.coarse.total),
        coarse_loss=last(alignment.coarse.total),
        coarse_status=alignment.coarse.status.value,
        fine_iterations=len(alignment.fine.total),
        fine_loss=last(alignment.fine.total),
        fine_status=alignment.fine.status.value,
        solver={"coarse": report_solver(alignment.coarse), "fine": report_solver(alignment.fine)},
    )


def unconfirmed_share(
    image_index: Int[np.ndarray, "view"],
    cam_from_world: Float[np.ndarray, "view 3 4"],
    models: Sequence[Reconstruction],
) -> float:
    """Share of the pairs of an alignment's images that no model holds in about the same relative pose."""
    chosen = np.unique(np.linspace(0, len(image_index) - 1, _MANY).round().astype(int))
    aligned = _poses(image_index[chosen], cam_from_world[chosen])
    confirmed = 0
    for model in models:
        held = np.isin(model.image_index, image_index[chosen])
        if held.sum() >= 2:
            found = evaluate_poses(aligned, _poses(model.image_index[held], model.cam_from_world[held]))
            error_deg = np.maximum(found.rotation_error_deg, found.translation_error_deg)
            confirmed += int((error_deg < _ALIKE_DEG).sum())
    return 1 - confirmed / max(len(chosen) * (len(chosen) - 1) // 2, 1)


def _poses(image_index: Int[np.ndarray, "view"], cam_from_world: Float[np.ndarray, "view 3 4"]) -> PoseSet:
    unknown = np.full(len(image_index), np.nan)
    size_wh = np.zeros((len(image_index), 2), np.int64)
    names = tuple(map(str, image_index))
    return PoseSet(names=names, cam_from_world=cam_from_world, focal_px=unknown, size_wh=size_wh)


def report_solver(stage: StageHistory) -> SolverReport:
    """How one stage went."""
    chosen = np.unique(np.linspace(0, len(stage.total) - 1, min(len(stage.total), 100)).round().astype(int))
    return SolverReport(
        method=stage.method,
        status=stage.status.value,
        iterations=len(stage.total),
        cost=tuple(round(float(value), 6) for value in stage.total[chosen]),
    )
