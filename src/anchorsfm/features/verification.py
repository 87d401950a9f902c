"""Matches that agree with one epipolar geometry, kept for whoever asks: the choice of pairs, and a front end.

Robust estimation of a fundamental matrix (Hartley and Zisserman, "Multiple view geometry in computer vision", chapter
11) by PoseLib's LO-RANSAC. Its estimators are seeded: the same matches always give the same answer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import poselib
from jaxtyping import Float, Int

from anchorsfm.features.config import MatchingConfig
from anchorsfm.features.joint import JointMatchStore
from anchorsfm.features.store import MatchStore
from anchorsfm.io.store import Store, digest

AnyMatchStore = TypeVar("AnyMatchStore", bound=MatchStore | JointMatchStore)

VERSION = 2
"""Raise when results change: what older versions cached is then ignored."""
MIN_RANSAC_ITERATIONS, MAX_RANSAC_ITERATIONS = 100, 3000
"""Samples that are drawn; between the two the share of the matches that agree decides."""


@dataclass(frozen=True, kw_only=True)
class Verified:
    """Matches that agree on one fundamental matrix: x_j^T F x_i = 0. No rows: the pair is unmatched."""

    keypoint: Int[np.ndarray, "match 2"]
    """Rows of the keypoints of i and of j."""
    fundamental: Float[np.ndarray, "3 3"]
    """Of centred coordinates (see `geometry.centred`)."""


def verify(
    xy_i: Float[np.ndarray, "match 2"],
    xy_j: Float[np.ndarray, "match 2"],
    keypoint: Int[np.ndarray, "match 2"],
    config: MatchingConfig,
    *,
    stretch: float = 1.0,
    error_px: Callable[[Float[np.ndarray, "3 3"]], Float[np.ndarray, "match"]] | None = None,
) -> Verified:
    """Keep the matches of a robustly estimated fundamental matrix.

    Args:
        xy_i: matched points of i, centred coordinates; those of photographs with lens distortion are undistorted.
        xy_j: those of j.
        keypoint: rows of the keypoints that were matched.
        config: how near matches must be, and how many a pair needs.
        stretch: units of the coordinates per pixel of the photographs (long side 1024).
        error_px: distances of the matches from a geometry, where they are not those in the coordinates given.
    """
    if len(keypoint) < max(config.min_inliers, 8):
        return unverified()
    tolerance = config.max_epipolar_error_px * stretch
    ransac = {
        "max_epipolar_error": tolerance,
        "min_iterations": MIN_RANSAC_ITERATIONS,
        "max_iterations": MAX_RANSAC_ITERATIONS,
        "seed": config.seed or 0,
    }
    fundamental, info = poselib.estimate_fundamental(xy_i, xy_j, ransac, {})
    inlier = np.array(info["inliers"], bool)
    if error_px is not None:
        inlier = error_px(np.asarray(fundamental, np.float64)) < config.max_epipolar_error_px
    if inlier.sum() < max(config.min_inliers, config.min_inlier_ratio * len(keypoint)):
        return unverified()
    return Verified(keypoint=keypoint[inlier], fundamental=np.asarray(fundamental, np.float64))


@dataclass(frozen=True, kw_only=True)
class VerificationStore(Generic[AnyMatchStore]):
    """Verified matches between photographs of a store of matches, each made once."""

    matches: AnyMatchStore
    config: MatchingConfig

    def key(self, i: int, j: int, bend: Float[np.ndarray, "2 2"]) -> str:
        """Identifies the verified matches of a pair; `bend`: lens distortion that the points are free of, else 0."""
        return digest("verified", VERSION, self.matches.key(i, j), bend, self.config)

    def verified(
        self, i: int, j: int, make: Callable[[], Verified], bend: Float[np.ndarray, "2 2"] | None = None
    ) -> Verified:
        """Those of a pair, from the cache or made now.

        Args:
            i: index of an image.
            j: index of another.
            make: gives them (`verify`).
            bend: distortion coefficients of both images; None: their points are as the detector found them.
        """
        key = self.key(i, j, np.zeros((2, 2)) if bend is None else bend)
        return kept_or_made(self.matches.features.store, key, make)


def kept_or_made(store: Store, key: str, make: Callable[[], Verified]) -> Verified:
    """The verified matches of a key, from the store or made now."""
    stored = store.load("verified-matches", key)
    if stored is not None:
        return Verified(**stored)
    found = make()
    store.save("verified-matches", key, vars(found))
    return found


def unverified() -> Verified:
    """What a pair without agreeing matches has."""
    return Verified(keypoint=np.zeros((0, 2), np.int32), fundamental=np.zeros((3, 3)))
