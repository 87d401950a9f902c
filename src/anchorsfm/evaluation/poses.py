"""Pose errors of a model against the truth, up to a similarity transform.

Relative rotation and translation direction of every pair of images of the truth (Jin et al., "Image matching across
wide baselines", IJCV 2021): with relative pose (R, t) and truth (R*, t*), the rotation error is the angle of R R*^T and
the translation error the angle between t and t*. A pair with an image that the model lacks has errors of 180 degrees.
RRA@x and RTA@x are the shares of pairs below x degrees; AUC@x is the area under the curve "share of pairs whose larger
error is below e" for e from 0 to x, divided by x. ATE is the root mean square distance of the camera centres after the
best similarity transform, in units of the truth.
"""

import math
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from jaxtyping import Float, Int

from anchorsfm.geometry.transforms import camera_centres, fit_similarity
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.poses import PoseSet

RATE_THRESHOLDS_DEG = (1, 3, 5)
AUC_THRESHOLDS_DEG = (1, 3, 5, 10, 30)
_MISSING_DEG = 180.0


@dataclass(frozen=True, kw_only=True)
class PoseEvaluation:
    """How well a model agrees with the truth. Pairs are those of the truth, in `np.triu_indices` order."""

    num_images: int
    """Images of the truth."""
    num_registered: int
    missing: tuple[str, ...]
    """Images of the truth that the model lacks."""
    rotation_error_deg: Float[np.ndarray, "pair"]
    translation_error_deg: Float[np.ndarray, "pair"]
    rra: Float[np.ndarray, "rate_threshold"]
    """Share of pairs below each of `RATE_THRESHOLDS_DEG`."""
    rta: Float[np.ndarray, "rate_threshold"]
    auc: Float[np.ndarray, "auc_threshold"]
    """For each of `AUC_THRESHOLDS_DEG`."""
    median_rotation_deg: float
    median_translation_deg: float
    ate_rmse: float
    """Units of the truth; NaN with fewer than three registered images."""
    focal_error: float
    """Median of |f / f_truth - 1| over registered images; NaN if the truth has no intrinsics."""


def evaluate_poses(estimate: PoseSet, truth: PoseSet) -> PoseEvaluation:
    """Compare a model with the truth; images of the model that the truth lacks are ignored.

    Raises InputError if the truth has fewer than two images or the two have none in common.
    """
    if len(truth.names) < 2:
        raise InputError(f"the truth has {len(truth.names)} image; relative poses need two")
    row = match_names(truth.names, estimate.names)
    if (row < 0).all():
        example = f": the truth has {truth.names[0]}, the model {estimate.names[0]}" if estimate.names else ""
        raise InputError(f"model and truth have no image in common{example}")
    rotation, translation = _pair_errors(estimate.cam_from_world[row], truth.cam_from_world, row < 0)
    return PoseEvaluation(
        num_images=len(truth.names),
        num_registered=int((row >= 0).sum()),
        missing=tuple(name for name, found in zip(truth.names, row >= 0, strict=True) if not found),
        rotation_error_deg=rotation,
        translation_error_deg=translation,
        rra=np.array([np.mean(rotation < limit) for limit in RATE_THRESHOLDS_DEG]),
        rta=np.array([np.mean(translation < limit) for limit in RATE_THRESHOLDS_DEG]),
        auc=np.array([area_under_curve(np.maximum(rotation, translation), limit) for limit in AUC_THRESHOLDS_DEG]),
        median_rotation_deg=float(np.median(rotation)),
        median_translation_deg=float(np.median(translation)),
        ate_rmse=_ate_rmse(estimate, truth, row),
        focal_error=_focal_error(estimate, truth, row),
    )


def match_names(wanted: tuple[str, ...], available: tuple[str, ...]) -> Int[np.ndarray, "wanted"]:
    """Row of each wanted name among the available ones: the same name, or the same stem if unique in both; -1 if none.

    The stem is the file name without folders and extension, so that a model made from downscaled PNG copies in another
    folder still matches.
    """
    by_name = {name: row for row, name in enumerate(available)}
    by_stem = _unique_stems(available)
    wanted_stems = _unique_stems(wanted)
    rows = []
    for name in wanted:
        stem = PurePosixPath(name).stem
        rows.append(by_name.get(name, by_stem.get(stem, -1) if stem in wanted_stems else -1))
    return np.array(rows, np.int64)


def _unique_stems(names: tuple[str, ...]) -> dict[str, int]:
    stems = [PurePosixPath(name).stem for name in names]
    return {stem: row for row, stem in enumerate(stems) if stems.count(stem) == 1}


def area_under_curve(error_deg: Float[np.ndarray, "pair"], limit_deg: int) -> float:
    """Area under the recall curve up to the limit, as a share of the whole.

    Recall rises linearly from one sorted error to the next and is flat from the last error below the limit on.
    """
    error = np.concatenate([[0.0], np.sort(error_deg)])
    recall = np.arange(len(error)) / len(error_deg)
    below = int(np.searchsorted(error, limit_deg))
    error = np.append(error[:below], limit_deg)
    recall = np.append(recall[:below], recall[below - 1])
    return float(np.trapezoid(recall, error) / limit_deg)


def _pair_errors(
    estimate: Float[np.ndarray, "image 3 4"], truth: Float[np.ndarray, "image 3 4"], missing: np.ndarray
) -> tuple[Float[np.ndarray, "pair"], Float[np.ndarray, "pair"]]:
    """Rotation and translation error of all pairs a < b, degrees."""
    a, b = np.triu_indices(len(truth), 1)
    rotation, direction = _relative(estimate, a, b)
    true_rotation, true_direction = _relative(truth, a, b)
    # By the trace, as usual in published figures; with a truth of six digits it is good to about 0.05 degrees.
    trace = np.einsum("pij,pij->p", rotation, true_rotation)
    rotation_error = np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))
    lengths = np.linalg.norm(direction, axis=-1) * np.linalg.norm(true_direction, axis=-1)
    cosine = (direction * true_direction).sum(-1) / np.maximum(lengths, 1e-12)
    translation_error = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    unknown = missing[a] | missing[b]
    return np.where(unknown, _MISSING_DEG, rotation_error), np.where(unknown, _MISSING_DEG, translation_error)


def _relative(pose: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and translation of b_from_a."""
    rotation = pose[b, :, :3] @ np.swapaxes(pose[a, :, :3], -1, -2)
    return rotation, pose[b, :, 3] - np.einsum("pij,pj->pi", rotation, pose[a, :, 3])


def _ate_rmse(estimate: PoseSet, truth: PoseSet, row: np.ndarray) -> float:
    found = row >= 0
    if found.sum() < 3:
        return math.nan
    source = camera_centres(estimate.cam_from_world[row[found]])
    target = camera_centres(truth.cam_from_world[found])
    scale, pose = fit_similarity(source, target)
    residual = target - (scale * source @ pose[:, :3].T + pose[:, 3])
    return float(np.sqrt((residual**2).sum(1).mean()))


def _focal_error(estimate: PoseSet, truth: PoseSet, row: np.ndarray) -> float:
    """Focal lengths are compared at the width of the truth, where both sizes are known."""
    found = row >= 0
    width, true_width = estimate.size_wh[row[found], 0], truth.size_wh[found, 0]
    resize = np.where((width > 0) & (true_width > 0), true_width / np.maximum(width, 1), 1.0)
    ratio = estimate.focal_px[row[found]] * resize / truth.focal_px[found]
    error = np.abs(ratio - 1)
    return float(np.median(error[np.isfinite(error)])) if np.isfinite(error).any() else math.nan
