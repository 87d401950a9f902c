"""What a user can set about the classical front end. The defaults hold for photographs of any size."""

import os
from dataclasses import dataclass, field
from typing import Annotated

from anchorsfm.features.config import (
    DescriptorMatchingConfig,
    DetectorName,
    FeatureConfig,
    MatcherChoice,
    MatchingConfig,
    NetworkConfig,
    chosen_matcher,
    uses_networks,
)
from anchorsfm.pairing.config import ConsistencyConfig, ReinforceConfig
from anchorsfm.scene.settings import TYPICAL_FOCAL, FocalRange, Range, Settings
from anchorsfm.stereo.config import SweepConfig

FEW_IMAGES = 5
"""A set of so few has ten pairs: more keypoints cost little."""


@dataclass(frozen=True, kw_only=True)
class IntrinsicsConfig(Settings):
    """Focal lengths, one per camera, from the photographs' own record or from the pairs."""

    typical_focal: Annotated[float, Range(0.2, 20)] = TYPICAL_FOCAL
    """Focal length assumed where nothing is known, as a multiple of the long side."""
    typical_focal_spread: Annotated[float, Range(0.01, 5)] = 0.5
    """Standard deviation, over all cameras, of the logarithm of focal lengths about the typical one (see
    --classical.intrinsics.typical-focal)."""
    focal_range: FocalRange = (0.2, 20.0)
    """Shortest and longest focal length that pairs can show, as multiples of the long side."""
    recorded_focal_spread: Annotated[float, Range(0, 5)] = 0.1
    """Standard deviation of the error of recorded focal lengths (logarithm); 0 takes them as exact."""
    max_recorded_error: Annotated[float, Range(0, 5)] = 0.25
    """Disagreement (logarithm of the ratio) from which a recorded focal length is ignored, if many pairs agree on
    another."""
    estimate_distortion: bool = True
    """Look for strong lens distortion (action cameras, fisheyes) and work on undistorted pictures where it is found."""
    min_distortion_gain: Annotated[float, Range(0, 10)] = 0.05
    """Distortion counts as found when this share more of the matches agrees with it than without."""


@dataclass(frozen=True, kw_only=True)
class TwoViewConfig(Settings):
    """Relative pose of each pair and what it says about the pair."""

    min_parallax_deg: Annotated[float, Range(0, 90)] = 0.3
    """Smallest median angle in degrees between the rays of a pair; pairs below count as pure rotation, without
    depth."""
    max_rotation_inlier_ratio: Annotated[float, Range(0, 1)] = 0.95
    """Largest share of the matches that a rotation alone may explain; pairs above count as pure rotation, without
    depth."""


@dataclass(frozen=True, kw_only=True)
class DenseConfig(SweepConfig):
    """Dense depth of both images of a pair, by plane sweep, and what is made of it."""

    enabled: bool = True
    """Compute dense depth of some pairs of every image. Off leaves only matches, which are all that mappers other than
    the alignment need where no dense cloud is made either."""
    size: Annotated[int, Range(64, 8192)] = 512
    """Long side in pixels of the pictures that dense depth is computed on; up to 3 % less, so that both sides are
    scaled alike."""
    pairs_per_image: Annotated[int, Range(1, 1_000_000)] = 2
    """Pairs with dense depth that an image has, those whose parallax and matches show depth best; some images get more,
    to hold the set together. Other pairs tie images together by their keypoints."""
    match_stride: Annotated[int, Range(0, 256)] = 8
    """Stride in pixels of the dense correspondences of a pair; 0 takes matches of keypoints only."""
    match_weight: Annotated[float, Range(0, 1)] = 0.4
    """Share of a pixel's confidence (above 1) that its dense correspondence gets. Dense correspondences tie the scales
    of few, wide views together; but all of a pair's repeat the relative pose they were found with, errors included, and
    would outweigh the matches of keypoints."""


@dataclass(frozen=True, kw_only=True)
class SecondMethodConfig(ReinforceConfig):
    """A second detector and matcher, for pairs that the first ones leave unmatched or weak."""

    detector: DetectorName | None = None
    """What finds and describes its keypoints, of images that such pairs have. None: there is no second method, or, with
    --classical.features.detector auto, ALIKED."""
    matcher: MatcherChoice = "auto"
    """What compares them (see --classical.matching.matcher). The matches of both methods are verified together."""
    max_keypoints: Annotated[int | None, Range(16, 50_000)] = None
    """Keypoints kept per image, best first; without a number 2048, of up to 5 images 4096."""


@dataclass(frozen=True, kw_only=True)
class WorkerConfig(Settings):
    """How the work is spread. The results do not depend on it."""

    num_workers: Annotated[int, Range(0, 256)] = 0
    """Threads that work side by side; 0 takes one per processor core, at most 8."""

    def resolve(self) -> int:
        return self.num_workers if self.num_workers > 0 else min(os.cpu_count() or 1, 8)


@dataclass(frozen=True, kw_only=True)
class ClassicalConfig(Settings):
    """Settings of the classical front end."""

    features: FeatureConfig = field(default_factory=FeatureConfig)
    """Keypoints and descriptors of every image."""
    matching: MatchingConfig = field(default_factory=MatchingConfig)
    """Matching of keypoints, and verification of the matches of every pair."""
    second: SecondMethodConfig = field(default_factory=SecondMethodConfig)
    """A second detector and matcher for some pairs."""
    networks: NetworkConfig = field(default_factory=NetworkConfig)
    """Networks that find and match keypoints, where features or matching name one."""
    intrinsics: IntrinsicsConfig = field(default_factory=IntrinsicsConfig)
    """Focal lengths and lens distortion, from EXIF or from the pairs."""
    two_view: TwoViewConfig = field(default_factory=TwoViewConfig)
    """Relative pose of every pair."""
    consistency: ConsistencyConfig = field(default_factory=ConsistencyConfig)
    """Which relative poses are believed."""
    dense: DenseConfig = field(default_factory=DenseConfig)
    """Dense depth of some pairs of every image, by plane sweep."""
    workers: WorkerConfig = field(default_factory=WorkerConfig)
    """Threads of the front end; results do not depend on them."""

    @property
    def has_second_method(self) -> bool:
        """Whether a second detector helps with some pairs."""
        return self.second_detector is not None

    @property
    def second_detector(self) -> DetectorName | None:
        """The detector that helps with some pairs."""
        return "aliked" if self.second.detector is None and self.features.detector == "auto" else self.second.detector

    def second_features(self, num_images: int) -> FeatureConfig:
        """Keypoints of the second method in a set of images, on pictures of the size that the first looks at."""
        assert self.second_detector is not None, "there is no second method"
        number = self.second.max_keypoints or (2048 if num_images > FEW_IMAGES else 4096)
        return FeatureConfig(
            detector=self.second_detector,
            max_image_size=self.features.max_image_size,
            max_keypoints=number,
            max_learned_keypoints=number,
        )

    @property
    def uses_networks(self) -> bool:
        """Whether any keypoints are found or matched by networks."""
        second = self.has_second_method and uses_networks(self.second_features(FEW_IMAGES), self.second_matching)
        return second or uses_networks(self.features, self.matching)

    @property
    def second_matching(self) -> DescriptorMatchingConfig:
        """How the second method compares descriptors."""
        return DescriptorMatchingConfig(matcher=self.second.matcher)

    def check_together(self) -> None:
        chosen_matcher(self.matching, self.features.first_detector)
        if self.second_detector is not None:
            chosen_matcher(self.second_matching, self.second_detector)
