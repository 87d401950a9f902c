"""What a user can set about keypoints, their descriptors and how these are matched."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeGuard

import tyro.conf

from anchorsfm.scene.settings import Range, Seed, Settings

LearnedDetectorName = Literal["aliked", "disk", "xfeat"]
DetectorName = Literal["sift", "aliked", "disk", "xfeat"]
DetectorChoice = Literal["sift", "aliked", "disk", "xfeat", "auto"]
MatcherName = Literal["ratio-test", "lightglue", "mutual"]
MatcherChoice = Literal["auto", "ratio-test", "lightglue", "mutual"]
MATCHERS_OF: Mapping[DetectorName, tuple[MatcherName, ...]] = {
    "sift": ("ratio-test", "mutual"),
    "aliked": ("lightglue", "mutual"),
    "disk": ("lightglue", "mutual"),
    "xfeat": ("lightglue", "mutual"),
}
"""Which matchers can compare the keypoints of a detector; the first is taken unless another is named."""
MAX_EPIPOLAR_ERROR_PX = 1.5
"""Distance from the epipolar line up to which a match counts as verified, in pixels of the working size."""


@dataclass(frozen=True, kw_only=True)
class FeatureConfig(Settings):
    """Keypoints and descriptors, once per image."""

    detector: Annotated[DetectorChoice, tyro.conf.arg(aliases=["--features"])] = "sift"
    """Keypoints. sift, or those of a trained network, which match wider baselines and weaker textures: aliked,
    disk or xfeat. auto: sift, and aliked for pairs that sift leaves unmatched or weak."""
    max_image_size: Annotated[int | None, Range(64, 65536)] = None
    """Long side in pixels that keypoints are looked for on, where it is not that of the run (--max-image-size); smaller
    photographs are not enlarged."""
    max_keypoints: Annotated[int, Range(16, 1_000_000)] = 12288
    """Descriptors of SIFT kept per image, those of the largest image structures first."""
    max_learned_keypoints: Annotated[int | None, Range(16, 50_000)] = None
    """Keypoints of a network kept per image, best first; without a number 2048 of ALIKED and DISK, 4096 of XFeat. The
    time to match two images with LightGlue grows with the square."""
    contrast_threshold: Annotated[float, Range(0, 0.2)] = 0.005
    """OpenCV's contrast threshold for SIFT: lower finds more and fainter keypoints."""

    @property
    def first_detector(self) -> DetectorName:
        """The detector that looks at every image."""
        return "sift" if self.detector == "auto" else self.detector


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(Settings):
    """Networks that find and match keypoints: where they run, and where their weights are."""

    weights: Annotated[Path | None, tyro.conf.Suppress] = None
    """Folder with the files of weights. None: they are downloaded once."""
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], tyro.conf.Suppress] = "auto"
    """Where the networks run: auto takes a GPU if there is one."""
    half_precision: Literal["auto", "on", "off"] = "auto"
    """Run LightGlue in half precision: auto does so on CUDA GPUs. Keypoints are always found in float32."""
    batch_size: Annotated[int, Range(0, 256)] = 0
    """Pairs matched at once by LightGlue; 0: 8 on a GPU, one on a processor."""


@dataclass(frozen=True, kw_only=True)
class DescriptorMatchingConfig(Settings):
    """Which descriptors of two images match."""

    matcher: Annotated[MatcherChoice, tyro.conf.arg(aliases=["--matcher"])] = "auto"
    """What compares the descriptors of two images. ratio-test: for SIFT; lightglue: a trained network, for keypoints of
    networks; mutual: nearest neighbours of each other, for all; auto: ratio-test or lightglue, whichever fits."""
    max_ratio: Annotated[float, Range(0.1, 1)] = 0.85
    """Largest ratio of the distances to the best and the second best descriptor, for the ratio test."""
    min_score: Annotated[float, Range(0, 1)] = 0.1
    """Smallest score of a match, for LightGlue."""


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


def is_learned(detector: DetectorName) -> TypeGuard[LearnedDetectorName]:
    """Whether it is a network."""
    return detector != "sift"


def chosen_matcher(config: DescriptorMatchingConfig, detector: DetectorName) -> MatcherName:
    """The matcher that the settings mean. Raises SettingError if it cannot compare the keypoints of the detector."""
    possible = MATCHERS_OF[detector]
    if config.matcher == "auto":
        return possible[0]
    if config.matcher not in possible:
        raise config.refused("matcher", f"cannot match keypoints of {detector}: choose one of {', '.join(possible)}")
    return config.matcher


def uses_networks(features: FeatureConfig, matching: DescriptorMatchingConfig) -> bool:
    """Whether keypoints are found or matched by a network."""
    return is_learned(features.first_detector) or matching.matcher == "lightglue"
