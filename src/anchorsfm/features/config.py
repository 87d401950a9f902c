"""What a user can set about keypoints, their descriptors and how these are matched."""

from dataclasses import dataclass
from typing import Annotated, Literal

from anchorsfm.scene.settings import Range, Seed, Settings

DetectorName = Literal["sift"]
MatcherName = Literal["ratio-test"]
MAX_EPIPOLAR_ERROR_PX = 1.5
"""Distance from the epipolar line up to which a match counts as verified, in pixels of the working size."""


@dataclass(frozen=True, kw_only=True)
class FeatureConfig(Settings):
    """Keypoints and descriptors, once per image."""

    detector: DetectorName = "sift"
    """What finds keypoints and describes them."""
    max_image_size: Annotated[int | None, Range(64, 65536)] = None
    """Long side in pixels that keypoints are looked for on, where it is not that of the run (--max-image-size); smaller
    photographs are not enlarged."""
    max_keypoints: Annotated[int, Range(16, 1_000_000)] = 12288
    """Descriptors kept per image, those of the largest image structures first."""
    contrast_threshold: Annotated[float, Range(0, 0.2)] = 0.005
    """OpenCV's contrast threshold: lower finds more and fainter keypoints."""


@dataclass(frozen=True, kw_only=True)
class DescriptorMatchingConfig(Settings):
    """Which descriptors of two images match."""

    matcher: MatcherName = "ratio-test"
    """What compares the descriptors of two images."""
    max_ratio: Annotated[float, Range(0.1, 1)] = 0.85
    """Largest ratio of the distances to the best and the second best descriptor."""


@dataclass(frozen=True, kw_only=True)
class MatchingConfig(DescriptorMatchingConfig):
    """Which descriptors match, and which matches agree on one epipolar geometry."""

    max_epipolar_error_px: Annotated[float, Range(0.05, 50)] = MAX_EPIPOLAR_ERROR_PX
    """Largest distance of a verified match from its epipolar line, in pixels of an image with a long side of 1024."""
    min_inliers: Annotated[int, Range(8, 1_000_000)] = 30
    """Fewest verified matches of a pair; a pair with fewer counts as unmatched."""
    min_inlier_ratio: Annotated[float, Range(0, 1)] = 0.15
    """Smallest share of its matches that a pair must verify; below, they count as agreeing by chance."""
    seed: Seed | None = None
    """Seed of the random samples, where it is not that of the run (--seed)."""
