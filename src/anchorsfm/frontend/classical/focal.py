"""Focal lengths of all cameras of a set, from the photographs' own record and from the pairs.

Three sources, of which the first two are averaged by their precision where a camera has both:
 1. a recorded focal length (EXIF, user); ignored where many pairs of that camera clearly contradict it;
 2. pairs of images of one camera: six points determine the relative pose and a common focal length (Kukelova et al.,
    "Polynomial eigenvalue solutions to minimal problems in computer vision", PAMI 2012, as in PoseLib); the median over
    pairs weighted by inliers;
 3. for cameras without either, pairs of different cameras: with the right focal lengths K_j^T F K_i is an essential
    matrix, whose two singular values are equal (Mendonca and Cipolla, "A simple technique for self-calibration",
    CVPR 1999); a robust joint fit over all pairs and log focal lengths, with a soft prior to a typical field of view.

All focal lengths in here are in centred coordinates (long side 1024, see `rays`), hence comparable between cameras.
"""

from dataclasses import dataclass

import numpy as np
import poselib
from jaxtyping import Bool, Float, Int
from scipy.optimize import least_squares

from anchorsfm.frontend.classical.config import IntrinsicsConfig
from anchorsfm.frontend.classical.rays import REFERENCE_SIZE, reference_scale
from anchorsfm.scene.images import ImageSet

MIN_INLIERS = 50
"""Pairs with fewer verified matches do not determine a focal length."""
FOCAL_RANGE = (0.3, 4.0)
"""Sensible focal lengths over the long side."""
MAX_HOMOGRAPHY_RATIO = 0.8
"""Pairs of which a homography explains a larger share (plane, rotation) do not determine a focal length."""
MIN_CONTRADICTING_PAIRS = 5
MIN_OWN_PAIRS = 3
"""Cameras with fewer usable pairs of their own, and without a record, are left to the joint fit."""
SINGLE_PAIR_SPREAD = 0.15
"""Standard deviation of the logarithm of a focal length estimated from one good pair."""
SHARED_BIAS = 0.02
"""What averaging over pairs does not remove (log): off-centre principal points, distortion."""
RESIDUAL_SIGMA = 0.01
"""Typical relative difference of the singular values of K_j^T F K_i at the true focal lengths, for 100 inliers."""


@dataclass(frozen=True, kw_only=True)
class FocalEvidence:
    """What one pair says about the focal lengths of its cameras."""

    num_inliers: int
    fundamental: Float[np.ndarray, "3 3"]
    """x_j^T F x_i = 0 in centred coordinates, norm 1."""
    is_degenerate: bool
    """A plane or a rotation explains the matches as well: the pair says nothing about focal lengths."""
    shared_focal: float
    """Focal length common to both images; NaN if not determined."""


def gather_evidence(
    xy_i: Float[np.ndarray, "match 2"],
    xy_j: Float[np.ndarray, "match 2"],
    fundamental: Float[np.ndarray, "3 3"],
    same_device: bool,
    max_error_px: float,
) -> FocalEvidence:
    """Evidence from the verified matches of a pair."""
    num = len(xy_i)
    scaled = fundamental / max(float(np.linalg.norm(fundamental)), 1e-30)
    nothing = FocalEvidence(num_inliers=num, fundamental=scaled, is_degenerate=True, shared_focal=np.nan)
    if num < MIN_INLIERS:
        return nothing
    ransac = {"max_iterations": 500, "min_iterations": 100, "seed": 0}
    _, info = poselib.estimate_homography(xy_i, xy_j, {**ransac, "max_reproj_error": 2 * max_error_px}, {})
    if info["num_inliers"] > MAX_HOMOGRAPHY_RATIO * num:
        return nothing
    shared = np.nan
    if same_device:
        epipolar = {**ransac, "max_epipolar_error": max_error_px}
        pair, _ = poselib.estimate_shared_focal_relative_pose(xy_i, xy_j, np.zeros(2), epipolar, {})
        shared = float(pair.camera1.focal())
        if not FOCAL_RANGE[0] < shared / REFERENCE_SIZE < FOCAL_RANGE[1]:
            shared = np.nan
    return FocalEvidence(num_inliers=num, fundamental=scaled, is_degenerate=False, shared_focal=shared)


def devices(images: ImageSet) -> Int[np.ndarray, "image"]:
    """Row of the device each image was taken with: cameras that differ in orientation only are one device.

    Upright images of one device come in two sizes, w x h and h x w. Cameras of such sizes are joined when their
    recorded focal lengths agree, or, where none is recorded, when the whole set has no other size.
    """
    joinable = len({tuple(sorted(wh)) for wh in images.size_wh.tolist()}) == 1 and len(np.unique(images.size_wh)) <= 2
    shares_cameras = images.num_cameras < images.num_images or images.num_cameras <= 2
    key_of_camera: dict[int, tuple[object, ...]] = {}
    for image, camera in enumerate(images.camera_index.tolist()):
        prior = float(images.focal_prior_px[image])
        size = tuple(sorted(images.size_wh[image].tolist()))
        if np.isfinite(prior):
            key_of_camera.setdefault(camera, (size, round(prior, 3)))
        elif joinable and shares_cameras:
            key_of_camera.setdefault(camera, (size,))
        else:
            key_of_camera.setdefault(camera, (camera,))
    rows: dict[tuple[object, ...], int] = {}
    row_of_camera = {camera: rows.setdefault(key, len(rows)) for camera, key in sorted(key_of_camera.items())}
    return np.array([row_of_camera[camera] for camera in images.camera_index.tolist()], np.int64)


def estimate_focals_px(
    images: ImageSet, pairs: Int[np.ndarray, "pair 2"], evidence: list[FocalEvidence], config: IntrinsicsConfig
) -> Float[np.ndarray, "image"]:
    """Focal length of every image in original pixels; images of one device have the same."""
    device = devices(images)
    scale = reference_scale(images.size_wh)
    log_focal = np.full(int(device.max()) + 1, np.nan)
    for row in range(len(log_focal)):
        own = [e for (i, j), e in zip(pairs, evidence, strict=True) if device[i] == row == device[j]]
        log_focal[row] = _device_focal(images.focal_prior_px[device == row] * scale[device == row], own, config)
    known = np.isfinite(log_focal)
    if not known.all():
        log_focal = _joint_fit(log_focal, known, device[pairs], evidence, config)
    return np.exp(log_focal)[device] / scale


def _device_focal(recorded: Float[np.ndarray, "view"], own: list[FocalEvidence], config: IntrinsicsConfig) -> float:
    """Log focal length of one device from its record and its own pairs; NaN if neither says anything."""
    usable = [e for e in own if np.isfinite(e.shared_focal)]
    recorded = recorded[np.isfinite(recorded)]
    prior = float(np.log(np.median(recorded))) if len(recorded) else np.nan
    if len(usable) < MIN_OWN_PAIRS:
        return prior
    log_focal = np.log([e.shared_focal for e in usable])
    weight = np.array([e.num_inliers for e in usable], float)
    measured = _weighted_median(log_focal, weight)
    scatter = 1.5 * _weighted_median(np.abs(log_focal - measured), weight)
    spread = np.hypot(scatter, SINGLE_PAIR_SPREAD) / np.sqrt(len(usable)) + SHARED_BIAS
    if not np.isfinite(prior):
        return measured
    contradicted = abs(measured - prior) > config.max_recorded_error + 2 * spread
    if contradicted and len(usable) >= MIN_CONTRADICTING_PAIRS and config.recorded_focal_spread > 0:
        return measured
    precision_recorded = 1 / max(config.recorded_focal_spread, 1e-6) ** 2
    precision_measured = 1 / spread**2
    return (prior * precision_recorded + measured * precision_measured) / (precision_recorded + precision_measured)


def _weighted_median(value: Float[np.ndarray, "sample"], weight: Float[np.ndarray, "sample"]) -> float:
    order = np.argsort(value, kind="stable")
    cumulative = np.cumsum(weight[order])
    return float(value[order][np.searchsorted(cumulative, cumulative[-1] / 2)])


def _joint_fit(
    log_focal: Float[np.ndarray, "device"],
    known: Bool[np.ndarray, "device"],
    pairs: Int[np.ndarray, "pair 2"],
    evidence: list[FocalEvidence],
    config: IntrinsicsConfig,
) -> Float[np.ndarray, "device"]:
    """Fill the unknown log focal lengths; those without a usable pair get the typical one."""
    typical = np.log(config.typical_focal * REFERENCE_SIZE)
    use = np.array([not e.is_degenerate and not known[p].all() for p, e in zip(pairs, evidence, strict=True)], bool)
    filled = np.where(known, log_focal, typical)
    if not use.any():
        return filled
    chosen = [e for e, used in zip(evidence, use, strict=True) if used]
    fundamental = np.stack([e.fundamental for e in chosen])
    weight = np.sqrt(np.minimum([e.num_inliers for e in chosen], 400) / 100.0) / RESIDUAL_SIGMA
    ends, free = pairs[use], np.flatnonzero(~known)

    def residual(log_free: Float[np.ndarray, "free"]) -> Float[np.ndarray, "row"]:
        value = filled.copy()
        value[free] = log_free
        prior = (log_free - typical) / config.typical_focal_spread
        return np.concatenate([weight * essential_residual(fundamental, np.exp(value[ends])), prior])

    low, high = np.log(np.array(FOCAL_RANGE) * REFERENCE_SIZE)
    start = np.full(len(free), float(np.clip(typical, low + 1e-3, high - 1e-3)))
    fit = least_squares(residual, start, bounds=(low, high), loss="cauchy", f_scale=1.0)
    filled[free] = fit.x
    return filled


def essential_residual(
    fundamental: Float[np.ndarray, "pair 3 3"], focal_ij: Float[np.ndarray, "pair 2"]
) -> Float[np.ndarray, "pair"]:
    """Relative difference of the two large singular values of K_j^T F K_i: 0 for an essential matrix."""
    k_i = np.stack([focal_ij[:, 0], focal_ij[:, 0], np.ones(len(focal_ij))], axis=1)
    k_j = np.stack([focal_ij[:, 1], focal_ij[:, 1], np.ones(len(focal_ij))], axis=1)
    singular = np.linalg.svd(k_j[:, :, None] * fundamental * k_i[:, None, :], compute_uv=False)
    return (singular[:, 0] - singular[:, 1]) / (singular[:, 0] + singular[:, 1])
