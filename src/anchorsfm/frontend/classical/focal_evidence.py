"""What one pair says about the focal lengths of its cameras, in centred coordinates (see `geometry.centred`).

Of one camera six points determine the relative pose and a common focal length (Kukelova et al., "Polynomial eigenvalue
solutions to minimal problems in computer vision", PAMI 2012, as in PoseLib). What all pairs of a set say together is
found in `focal`; workers of a cluster need only this.
"""

from dataclasses import dataclass, replace

import numpy as np
import poselib
from jaxtyping import Float

MIN_INLIERS = 50
"""Pairs with fewer verified matches do not determine a focal length."""
MAX_HOMOGRAPHY_RATIO = 0.8
"""Pairs of which a homography explains a larger share (plane, rotation) do not determine a focal length."""


@dataclass(frozen=True, kw_only=True)
class FocalEvidence:
    """What one pair says about the focal lengths of its cameras."""

    num_inliers: int
    fundamental: Float[np.ndarray, "3 3"]
    """x_j^T F x_i = 0 in centred coordinates, norm 1."""
    homography_ratio: float
    """Share of the matches that a plane or a rotation would explain as well; 1 where nothing was tried."""
    shared_focal: float
    """Focal length common to both images; NaN if not determined."""

    @property
    def is_degenerate(self) -> bool:
        """Such a pair says nothing about focal lengths."""
        return self.homography_ratio > MAX_HOMOGRAPHY_RATIO

    @property
    def weight(self) -> float:
        return self.num_inliers * (1 - self.homography_ratio)


def gather_evidence(
    xy_i: Float[np.ndarray, "match 2"],
    xy_j: Float[np.ndarray, "match 2"],
    fundamental: Float[np.ndarray, "3 3"],
    same_device: bool,
    max_error_px: float,
    seed: int = 0,
) -> FocalEvidence:
    """Evidence from the verified matches of a pair."""
    num = len(xy_i)
    scaled = fundamental / max(float(np.linalg.norm(fundamental)), 1e-30)
    nothing = FocalEvidence(num_inliers=num, fundamental=scaled, homography_ratio=1.0, shared_focal=np.nan)
    if num < MIN_INLIERS:
        return nothing
    ransac = {"max_iterations": 500, "min_iterations": 100, "seed": seed}
    _, info = poselib.estimate_homography(xy_i, xy_j, {**ransac, "max_reproj_error": 2 * max_error_px}, {})
    ratio = float(info["num_inliers"]) / num
    if ratio > MAX_HOMOGRAPHY_RATIO:
        return replace(nothing, homography_ratio=ratio)
    shared = np.nan
    if same_device:
        epipolar = {**ransac, "max_epipolar_error": max_error_px}
        pair, _ = poselib.estimate_shared_focal_relative_pose(xy_i, xy_j, np.zeros(2), epipolar, {})
        shared = float(pair.camera1.focal())
    return FocalEvidence(num_inliers=num, fundamental=scaled, homography_ratio=ratio, shared_focal=shared)
