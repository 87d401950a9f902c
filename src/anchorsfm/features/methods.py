"""The detectors and matchers there are, under the names that users give."""

from collections.abc import Callable, Mapping

from anchorsfm.features.base import Detector, Matcher
from anchorsfm.features.config import (
    DescriptorMatchingConfig,
    DetectorName,
    FeatureConfig,
    LearnedDetectorName,
    MatcherName,
    NetworkConfig,
    chosen_matcher,
    is_learned,
)
from anchorsfm.features.learned.detector import LearnedDetector
from anchorsfm.features.learned.lightglue import LightGlueMatcher
from anchorsfm.features.mutual import MutualMatcher
from anchorsfm.features.ratio_test import RatioTestMatcher
from anchorsfm.features.sift import SiftDetector
from anchorsfm.scene.progress import SILENT, Progress

MakeDetector = Callable[[FeatureConfig, NetworkConfig, Progress], Detector]
MakeMatcher = Callable[[DescriptorMatchingConfig, DetectorName, NetworkConfig, Progress], Matcher]


def _learned(name: LearnedDetectorName) -> MakeDetector:
    return lambda config, networks, progress: LearnedDetector(name, config, networks, progress)


def _lightglue(
    config: DescriptorMatchingConfig, detector: DetectorName, networks: NetworkConfig, progress: Progress
) -> Matcher:
    assert is_learned(detector), "chosen_matcher refuses others"
    return LightGlueMatcher(detector, config, networks, progress)


DETECTORS: Mapping[DetectorName, MakeDetector] = {
    "sift": lambda config, _networks, _progress: SiftDetector(config),
    "aliked": _learned("aliked"),
    "disk": _learned("disk"),
    "xfeat": _learned("xfeat"),
}
MATCHERS: Mapping[MatcherName, MakeMatcher] = {
    "ratio-test": lambda config, _detector, _networks, _progress: RatioTestMatcher(config),
    "lightglue": _lightglue,
    "mutual": lambda _config, _detector, _networks, _progress: MutualMatcher(),
}


def make_detector(
    config: FeatureConfig, networks: NetworkConfig | None = None, progress: Progress = SILENT
) -> Detector:
    """The detector that the settings name for every image.

    Raises InputError if it is a network that cannot be had here.
    """
    return DETECTORS[config.first_detector](config, networks or NetworkConfig(), progress)


def make_matcher(
    config: DescriptorMatchingConfig,
    detector: DetectorName = "sift",
    networks: NetworkConfig | None = None,
    progress: Progress = SILENT,
) -> Matcher:
    """The matcher that the settings name for the keypoints of a detector.

    Raises InputError if it does not match these, or is a network that cannot be had here.
    """
    name = chosen_matcher(config, detector)
    return MATCHERS[name](config, detector, networks or NetworkConfig(), progress)
