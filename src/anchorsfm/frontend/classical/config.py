"""What a user can set about the classical front end. The defaults hold for photographs of any size."""

import os
from dataclasses import dataclass
from typing import Annotated

from anchorsfm.scene.settings import Range, Seed, Settings


@dataclass(frozen=True, kw_only=True)
class FeatureConfig(Settings):
    """Keypoints and descriptors (SIFT), once per image."""

    max_image_size: Annotated[int | None, Range(64, 65536)] = None
    """Long side in pixels that keypoints are looked for on, where it is not that of the run (--max-image-size); smaller
    photographs are not enlarged."""
    max_keypoints: Annotated[int, Range(16, 1_000_000)] = 12288
    """Descriptors kept per image, those of the largest image structures first."""
    contrast_threshold: Annotated[float, Range(0, 0.2)] = 0.005
    """OpenCV's contrast threshold: lower finds more and fainter keypoints."""


@dataclass(frozen=True, kw_only=True)
class MatchingConfig(Settings):
    """Which descriptors match, and which matches agree on one epipolar geometry."""

    max_ratio: Annotated[float, Range(0.1, 1)] = 0.85
    """Largest ratio of the distances to the best and the second best descriptor."""
    max_epipolar_error_px: Annotated[float, Range(0.05, 50)] = 1.5
    """Largest distance to the epipolar line, in pixels of an image with a long side of 1024."""
    min_inliers: Annotated[int, Range(8, 1_000_000)] = 30
    """A pair with fewer verified matches is unmatched."""
    min_inlier_ratio: Annotated[float, Range(0, 1)] = 0.15
    """A pair whose verified matches are a smaller share of all its matches is unmatched (chance agreement)."""
    seed: Seed | None = None
    """Seed of the random samples, where it is not that of the run (--seed)."""


@dataclass(frozen=True, kw_only=True)
class IntrinsicsConfig(Settings):
    """Focal lengths, one per camera, from the photographs' own record or from the pairs."""

    typical_focal: Annotated[float, Range(0.2, 20)] = 1.1
    """Focal length over long side that is assumed where nothing else is known."""
    typical_focal_spread: Annotated[float, Range(0.01, 5)] = 0.5
    """Standard deviation of the logarithm of the above over all cameras."""
    recorded_focal_spread: Annotated[float, Range(0, 5)] = 0.1
    """Standard deviation of the logarithm of the error of recorded focal lengths; 0 takes them as exact."""
    max_recorded_error: Annotated[float, Range(0, 5)] = 0.25
    """A recorded focal length is ignored when many pairs agree on one that differs by more (log ratio)."""
    estimate_distortion: bool = True
    """Look for strong lens distortion (action cameras, fisheyes) and work on undistorted pictures where it is found."""
    min_distortion_gain: Annotated[float, Range(0, 10)] = 0.05
    """Distortion counts as found when this share more of the matches agrees with it than without."""


@dataclass(frozen=True, kw_only=True)
class TwoViewConfig(Settings):
    """Relative pose of each pair and what it says about the pair."""

    min_parallax_deg: Annotated[float, Range(0, 90)] = 0.3
    """Pairs whose rays meet at a smaller median angle count as pure rotation: their depth is unknown."""
    max_rotation_inlier_ratio: Annotated[float, Range(0, 1)] = 0.95
    """Pairs of which a rotation alone explains a larger share of the matches count as pure rotation."""


@dataclass(frozen=True, kw_only=True)
class DenseConfig(Settings):
    """Dense depth of both images of a pair: plane sweep with semi-global aggregation."""

    enabled: bool = True
    """Off: only matches. The mappers beside the alignment need no more."""
    size: Annotated[int, Range(64, 8192)] = 512
    """Long side of the grid in pixels; the sides may be up to 3 % less so that both are scaled alike."""
    plane_step_px: Annotated[float, Range(0.01, 16)] = 1.0
    """Distance between neighbouring depth planes in pixels of the other image: 1 for quality, 2 for speed."""
    min_planes: Annotated[int, Range(2, 1024)] = 24
    """Fewest depth planes."""
    max_planes: Annotated[int, Range(2, 1024)] = 160
    """Most depth planes; bounds memory and time of a pair with a wide range of depths."""
    window_radius: Annotated[int, Range(1, 15)] = 3
    """Radius of the correlation window: 3 compares 7x7 pixels."""
    refine: bool = True
    """Refine the depth below the plane distance by local alignment of the windows."""
    match_stride: Annotated[int, Range(0, 256)] = 8
    """Every how many pixels a dense correspondence is offered; 0 offers keypoint matches only."""
    match_weight: Annotated[float, Range(0, 1)] = 0.4
    """Share of a pixel's confidence (above 1) that its dense correspondence gets. It was searched for along the
    epipolar line, so it says how far away a point is, which ties the scales of few, wide views together; but all of a
    pair's repeat the relative pose they were found with, errors included, and would outweigh the keypoint matches."""
    min_region_px: Annotated[int, Range(0, 1_000_000)] = 150
    """Connected regions of consistent depth with fewer pixels are not trusted (at a long side of 512)."""

    def check_together(self) -> None:
        if self.min_planes > self.max_planes:
            raise self.refused("min_planes", f"must not be more than max_planes, {self.max_planes}")


@dataclass(frozen=True, kw_only=True)
class WorkerConfig(Settings):
    """How the work is spread. The results do not depend on it."""

    num_workers: Annotated[int, Range(0, 256)] = 0
    """Threads that work side by side; 0 takes one per processor core, at most 8."""

    def resolve(self) -> int:
        return self.num_workers if self.num_workers > 0 else min(os.cpu_count() or 1, 8)
