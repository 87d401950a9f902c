"""What a reader of a model should know before relying on it, in one line each."""

from collections.abc import Sequence

import numpy as np

from anchorsfm.colmap.cameras import focal_length_px, focal_rows
from anchorsfm.io.layout import ALIGNMENT, SPARSE
from anchorsfm.mapping.evidence import STRONG, PairEvidence
from anchorsfm.report.figures import short
from anchorsfm.results.record import AlignmentReport
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.adjust import AdjustResult, SettledFocal
from anchorsfm.tracks.degeneracy import FEW_POINTS, describe_degeneracy
from anchorsfm.tracks.uncertainty import WEAK_POSITION, ModelUncertainty

UNDETERMINED = 0.05
"""A focal length is undetermined if its standard deviation is larger than this share of it."""
CONTRADICTION = 0.1
"""A recorded focal length is contradicted by an estimate that differs by more than this share of it."""
MAX_UNCONFIRMED = 0.1
"""An alignment is doubted if the models do not confirm more than this share of the pairs of its images."""
_MAX_CAMERAS = 3
"""Remarks of a kind about single cameras."""


def model_remarks(
    result: AdjustResult, uncertainty: ModelUncertainty, images: ImageSet, evidence: PairEvidence | None = None
) -> tuple[str, ...]:
    """Remarks about one model; none if nothing is unusual.

    `images` has the recorded and known focal lengths, `evidence` what verified matches say about the model.
    """
    model = result.model
    return (
        *_shape(model),
        *_positions(uncertainty),
        *_focal_lengths(result, uncertainty, images),
        *_contradictions(evidence, are_poses_given=bool(result.held.pose.any()) or result.held.positions is not None),
        *_failures(result.failed_steps),
    )


def alignment_remarks(alignments: Sequence[AlignmentReport]) -> tuple[str, ...]:
    """Remarks about what the models came of: these were held against evidence that an alignment does not use."""
    return tuple(
        f"{ALIGNMENT}/{number}: the models, which were held against evidence that it had not used, do not confirm "
        f"{100 * alignment.unconfirmed_share:.0f} % of the pairs of its images: take {SPARSE}"
        for number, alignment in enumerate(alignments)
        if alignment.unconfirmed_share > MAX_UNCONFIRMED
    )


def _contradictions(evidence: PairEvidence | None, *, are_poses_given: bool) -> list[str]:
    if evidence is None or not evidence.contradicted.any():
        return []
    wrong, strong = int(evidence.contradicted.sum()), int((evidence.matches >= STRONG).sum())
    reason = "these photographs probably show things that only look alike"
    if are_poses_given:
        reason = (
            "given poses or positions are wrong or not exact there, or the photographs show things that only look alike"
        )
    return [f"the matches of {wrong} of {strong} pairs contradict the model: {reason} (report.json lists them)"]


def _failures(steps: int) -> list[str]:
    if not steps:
        return []
    return [f"{steps} steps of the adjustment could not be computed: cameras in one place, or hardly any points"]


def _shape(model: Reconstruction) -> list[str]:
    found, remarks = describe_degeneracy(model), []
    if found.views == 2:
        remarks.append(
            f"two views and {found.points} points: no third view checks them; focal length and distortion are a guess "
            "unless they were given"
        )
    elif found.points < FEW_POINTS:
        remarks.append(f"only {found.points} points hold {found.views} views together: poses may be wrong")
    if found.is_narrow:
        remarks.append(
            f"the cameras hardly moved (median angle between rays {found.angle_deg:.1f} degrees): directions are "
            "determined, positions and depths hardly"
        )
    if found.is_flat:
        remarks.append(
            f"the points lie in a plane (within {_percent(found.thickness)} of their distance): focal length, "
            "distortion and distance of the cameras are determined only as far as views are tilted against each other"
        )
    return remarks


def _positions(uncertainty: ModelUncertainty) -> list[str]:
    known = uncertainty.position[np.isfinite(uncertainty.position)]
    share = float(np.median(known)) / max(uncertainty.scene_size, 1e-12) if len(known) else 0.0
    if share <= WEAK_POSITION:
        return []
    return [f"positions are uncertain by {_percent(share)} of the scene size (median of the images)"]


def _focal_lengths(result: AdjustResult, uncertainty: ModelUncertainty, images: ImageSet) -> list[str]:
    model, undetermined, contradicted = result.model, [], []
    for row, camera in enumerate(model.cameras):
        deviations = uncertainty.camera_params[row]
        if deviations is None:
            continue
        focal_px, sigma_px = focal_length_px(camera), float(np.mean(np.array(deviations)[focal_rows(camera)]))
        if sigma_px == 0:
            continue
        found = result.focal[row] if result.focal else None
        source = _source(found)
        claim = f"camera {row}: focal length {focal_px:.0f} px +- {short(sigma_px, 2):g} {source}"
        recorded = images.focal_prior_px[model.image_index[model.camera_index == row]]
        recorded_px = float(np.median(recorded)) if len(recorded) and np.isfinite(recorded).all() else np.nan
        if abs(focal_px - recorded_px) > CONTRADICTION * recorded_px:
            contradicted.append(f"{claim}, {_record(images, model, row, recorded_px)}")
        elif sigma_px > UNDETERMINED * focal_px:
            undetermined.append(f"{claim}: undetermined; give --focal-px or add tilted views")
    return contradicted[:_MAX_CAMERAS] + undetermined[:_MAX_CAMERAS]


def _source(found: SettledFocal | None) -> str:
    """How a focal length is known that is not recorded."""
    if found is None or not found.is_kept or not (found.is_assumed or found.is_from_lines):
        return "estimated"
    return "assumed" if found.is_assumed else "from straight edges"


def _record(images: ImageSet, model: Reconstruction, row: int, recorded_px: float) -> str:
    """Where another focal length of a camera comes from, and how to keep it."""
    views = model.image_index[model.camera_index == row]
    if images.prior_is_known is not None and images.prior_is_known[views].all():
        return (
            f"{recorded_px:.0f} px in the known model: they contradict each other; if the known model is right, keep "
            "its intrinsics (no --known.no-freeze-intrinsics)"
        )
    return (
        f"{recorded_px:.0f} px recorded (EXIF): they contradict each other; if the record is right, "
        f"--focal-px {recorded_px:.0f} keeps it"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
