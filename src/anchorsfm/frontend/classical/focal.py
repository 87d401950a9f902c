"""Focal lengths of all cameras of a set, from the photographs' own record and from the pairs.

Three sources, of which the first two are averaged by their precision where a camera has both:
 1. a recorded focal length (EXIF, user); ignored where many pairs of that camera clearly contradict it;
 2. pairs of images of one camera, each of which determines a common focal length (see `focal_evidence`); the median
    over pairs weighted by inliers;
 3. for cameras without either, pairs of different cameras: with the right focal lengths K_j^T F K_i is an essential
    matrix, whose two singular values are equal (Mendonca and Cipolla, "A simple technique for self-calibration",
    CVPR 1999); a robust joint fit over all pairs and log focal lengths, with a soft prior to a typical field of view.

All focal lengths in here are in centred coordinates (long side 1024, see `geometry.centred`), hence comparable between
cameras.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import least_squares
from scipy.sparse import csr_array, eye_array, vstack

from anchorsfm.frontend.classical.config import IntrinsicsConfig
from anchorsfm.frontend.classical.focal_evidence import MIN_INLIERS, FocalEvidence
from anchorsfm.geometry.centred import REFERENCE_SIZE, reference_scale
from anchorsfm.scene.images import ImageSet

USUAL_RANGE = (0.3, 4.0)
"""Focal lengths over the long side that most lenses have: others are errors unless most pairs agree on them."""
MIN_CONTRADICTING_PAIRS = 5
MIN_OWN_PAIRS = 3
"""Cameras with fewer usable pairs of their own, and without a record, are left to the joint fit."""
SINGLE_PAIR_SPREAD = 0.15
"""Standard deviation of the logarithm of a focal length estimated from one good pair."""
SHARED_BIAS = 0.02
"""What averaging over pairs does not remove (log): off-centre principal points, distortion."""
DEGENERATE_BIAS = 0.4
"""The same where nearly all pairs are degenerate, as over flat ground seen from the air."""
MAX_CONTRADICTING_SCATTER = 0.2
"""Pairs overrule a recorded focal length only if they agree this well among themselves (log)."""
MAX_DENSE = 200
"""Unknown focal lengths up to which their normal equations are solved exactly."""
AT_BOUND = 0.02
"""A fit that ends so close to the usual range (log) wanted to leave it."""
RESIDUAL_SIGMA = 0.01
"""Typical relative difference of the singular values of K_j^T F K_i at the true focal lengths, for 100 inliers."""


def devices(images: ImageSet) -> Int[np.ndarray, "image"]:
    """Row of the device each image was taken with: cameras that differ in orientation only are one device.

    Upright images of one device come in two sizes, w x h and h x w. Cameras of such sizes are joined when their
    recorded focal lengths agree, or, where none is recorded, when the whole set has no other size and no other camera:
    two cameras of one size are two because something else tells them apart.
    """
    joinable = _one_camera_held_both_ways(images)
    key_of_camera: dict[int, tuple[object, ...]] = {}
    for image, camera in enumerate(images.camera_index.tolist()):
        prior = float(images.focal_prior_px[image])
        size = tuple(sorted(images.size_wh[image].tolist()))
        if np.isfinite(prior):
            key_of_camera.setdefault(camera, (size, round(prior, 3)))
        elif joinable:
            key_of_camera.setdefault(camera, (size,))
        else:
            key_of_camera.setdefault(camera, (camera,))
    rows: dict[tuple[object, ...], int] = {}
    row_of_camera = {camera: rows.setdefault(key, len(rows)) for camera, key in sorted(key_of_camera.items())}
    return np.array([row_of_camera[camera] for camera in images.camera_index.tolist()], np.int64)


def _one_camera_held_both_ways(images: ImageSet) -> bool:
    """Whether there are two cameras, one as wide as the other is high."""
    camera, first = np.unique(images.camera_index, return_index=True)
    size_wh = images.size_wh[first].tolist()
    return len(camera) == 2 and size_wh[0] == size_wh[1][::-1] and size_wh[0] != size_wh[1]


def estimate_focals_px(
    images: ImageSet, pairs: Int[np.ndarray, "pair 2"], evidence: list[FocalEvidence], config: IntrinsicsConfig
) -> Float[np.ndarray, "image"]:
    """Focal length of every image in original pixels; images of one device have the same."""
    device = devices(images)
    scale = reference_scale(images.size_wh)
    log_focal = np.full(int(device.max()) + 1, np.nan)
    exact = np.zeros(images.num_images, bool) if images.focal_is_exact is None else images.focal_is_exact
    for row in range(len(log_focal)):
        own = [e for (i, j), e in zip(pairs, evidence, strict=True) if device[i] == row == device[j]]
        recorded = images.focal_prior_px * scale
        if exact[device == row].any():
            log_focal[row] = np.log(np.median(recorded[(device == row) & exact]))
        else:
            log_focal[row] = _device_focal(recorded[device == row], own, config)
    known = np.isfinite(log_focal)
    if not known.all():
        log_focal = _joint_fit(log_focal, known, device[pairs], evidence, config)
    return np.where(exact, images.focal_prior_px, np.exp(log_focal)[device] / scale)


def _device_focal(recorded: Float[np.ndarray, "view"], own: list[FocalEvidence], config: IntrinsicsConfig) -> float:
    """Log focal length of one device from its record and its own pairs; NaN if neither says anything."""
    recorded = recorded[np.isfinite(recorded)]
    measured = _measure(own, config.focal_range)
    if len(recorded) == 0:
        if measured is None:
            return np.nan
        prior, spread = float(np.log(config.typical_focal * REFERENCE_SIZE)), config.typical_focal_spread
    else:
        prior, spread = float(np.log(np.median(recorded))), config.recorded_focal_spread
        if measured is None or spread <= 0:
            return prior
        if measured.is_reliable and abs(measured.log_focal - prior) > config.max_recorded_error + 2 * measured.spread:
            return measured.log_focal
    trust = np.array([1 / spread, 1 / measured.spread]) ** 2
    return float(np.average([prior, measured.log_focal], weights=trust))


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """Log focal length from the pairs of one device, and its standard deviation."""

    log_focal: float
    spread: float
    is_reliable: bool


def _measure(own: list[FocalEvidence], focal_range: tuple[float, float]) -> _Measured | None:
    """Weighted median over the pairs of one device; None if they are too few."""
    tried = [e for e in own if e.num_inliers >= MIN_INLIERS]
    usable = _believable(tried, focal_range)
    if len(usable) < MIN_OWN_PAIRS:
        return None
    log_focal = np.log([e.shared_focal for e in usable])
    weight = _weights(usable)
    low, median, high = (_weighted_quantile(log_focal, weight, q) for q in (0.25, 0.5, 0.75))
    scatter = (high - low) / 1.35
    # where most pairs are degenerate the others are nearly so, and all err in the same direction
    bias = SHARED_BIAS + DEGENERATE_BIAS * (1 - len(usable) / len(tried)) ** 2
    spread = float(np.hypot(scatter, SINGLE_PAIR_SPREAD) / np.sqrt(len(usable)) + bias)
    is_reliable = len(usable) >= max(MIN_CONTRADICTING_PAIRS, len(tried) / 3) and scatter < MAX_CONTRADICTING_SCATTER
    return _Measured(log_focal=median, spread=spread, is_reliable=is_reliable)


def _believable(tried: list[FocalEvidence], focal_range: tuple[float, float]) -> list[FocalEvidence]:
    """Pairs with a usual focal length, or, where the median over pairs is unusual, all with one in the range."""
    possible = [e for e in tried if _lies_in(e.shared_focal, focal_range)]
    if possible:
        median = _weighted_quantile(np.array([e.shared_focal for e in possible]), _weights(possible), 0.5)
        if not _lies_in(median, USUAL_RANGE):
            return possible
    return [e for e in possible if _lies_in(e.shared_focal, USUAL_RANGE)]


def _lies_in(focal: float, focal_range: tuple[float, float]) -> bool:
    """False for NaN."""
    return focal_range[0] < focal / REFERENCE_SIZE < focal_range[1]


def _weights(evidence: list[FocalEvidence]) -> Float[np.ndarray, "pair"]:
    return np.array([e.weight for e in evidence])


def _weighted_quantile(value: Float[np.ndarray, "sample"], weight: Float[np.ndarray, "sample"], share: float) -> float:
    order = np.argsort(value, kind="stable")
    cumulative = np.cumsum(weight[order])
    return float(value[order][np.searchsorted(cumulative, cumulative[-1] * share)])


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

    row, column, end = _free_ends(ends, free)

    def jacobian(log_free: Float[np.ndarray, "free"]) -> csr_array | Float[np.ndarray, "row free"]:
        value = filled.copy()
        value[free] = log_free
        slope = weight[:, None] * essential_slope(fundamental, np.exp(value[ends]))
        prior = eye_array(len(free)) / config.typical_focal_spread
        measured = csr_array((slope[row, end], (row, column)), shape=(len(ends), len(free)))
        both = vstack([measured, prior], format="csr")
        return both.toarray() if len(free) <= MAX_DENSE else both

    for bounds in (USUAL_RANGE, config.focal_range):
        low, high = np.log(np.array(bounds) * REFERENCE_SIZE)
        start = np.clip(filled[free], low + 1e-3, high - 1e-3)
        filled[free] = least_squares(residual, start, jacobian, bounds=(low, high), loss="cauchy", f_scale=1.0).x
        if (np.minimum(filled[free] - low, high - filled[free]) > AT_BOUND).all():
            break
    return filled


def _free_ends(
    ends: Int[np.ndarray, "pair 2"], free: Int[np.ndarray, "free"]
) -> tuple[Int[np.ndarray, "entry"], Int[np.ndarray, "entry"], Int[np.ndarray, "entry"]]:
    """Pairs, unknowns and ends (0: i, 1: j) of all ends of pairs whose focal length is unknown."""
    place = np.full(int(ends.max()) + 1, -1)
    place[free[free < len(place)]] = np.flatnonzero(free < len(place))
    row, end = np.nonzero(place[ends] >= 0)
    return row, place[ends[row, end]], end


def essential_residual(
    fundamental: Float[np.ndarray, "pair 3 3"], focal_ij: Float[np.ndarray, "pair 2"]
) -> Float[np.ndarray, "pair"]:
    """Relative difference of the two large singular values of K_j^T F K_i: 0 for an essential matrix."""
    singular = np.linalg.svd(_essential(fundamental, focal_ij), compute_uv=False)
    return (singular[:, 0] - singular[:, 1]) / (singular[:, 0] + singular[:, 1])


def essential_slope(
    fundamental: Float[np.ndarray, "pair 3 3"], focal_ij: Float[np.ndarray, "pair 2"]
) -> Float[np.ndarray, "pair 2"]:
    """Derivatives of `essential_residual` by the logarithms of the focal lengths of i and of j.

    The derivative of a singular value s = u^T M v by log f_i is u^T M diag(1, 1, 0) v = s (1 - v_z^2), and by log f_j
    s (1 - u_z^2).
    """
    u, s, vt = np.linalg.svd(_essential(fundamental, focal_ij))
    factor = 2 * s[:, 0] * s[:, 1] / (s[:, 0] + s[:, 1]) ** 2
    by_i = vt[:, 1, 2] ** 2 - vt[:, 0, 2] ** 2
    by_j = u[:, 2, 1] ** 2 - u[:, 2, 0] ** 2
    return factor[:, None] * np.stack([by_i, by_j], axis=1)


def _essential(
    fundamental: Float[np.ndarray, "pair 3 3"], focal_ij: Float[np.ndarray, "pair 2"]
) -> Float[np.ndarray, "pair 3 3"]:
    k_i = np.stack([focal_ij[:, 0], focal_ij[:, 0], np.ones(len(focal_ij))], axis=1)
    k_j = np.stack([focal_ij[:, 1], focal_ij[:, 1], np.ones(len(focal_ij))], axis=1)
    return np.asarray(k_j[:, :, None] * fundamental * k_i[:, None, :])
