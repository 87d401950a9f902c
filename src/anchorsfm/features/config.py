"""What a user can set about keypoints, their descriptors and how these are matched."""

from dataclasses import dataclass
from typing import Annotated

from anchorsfm.scene.settings import Range, Settings


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
class DescriptorMatchingConfig(Settings):
    """Which descriptors of two images match."""

    max_ratio: Annotated[float, Range(0.1, 1)] = 0.85
    """Largest ratio of the distances to the best and the second best descriptor."""
