"""The detectors and matchers there are, under the names that users give."""

from collections.abc import Callable, Mapping

from anchorsfm.features.base import Detector, Matcher
from anchorsfm.features.config import DescriptorMatchingConfig, DetectorName, FeatureConfig, MatcherName
from anchorsfm.features.ratio_test import RatioTestMatcher
from anchorsfm.features.sift import SiftDetector

DETECTORS: Mapping[DetectorName, Callable[[FeatureConfig], Detector]] = {"sift": SiftDetector}
MATCHERS: Mapping[MatcherName, Callable[[DescriptorMatchingConfig], Matcher]] = {"ratio-test": RatioTestMatcher}


def make_detector(config: FeatureConfig) -> Detector:
    """The detector that the settings name."""
    return DETECTORS[config.detector](config)


def make_matcher(config: DescriptorMatchingConfig) -> Matcher:
    """The matcher that the settings name."""
    return MATCHERS[config.matcher](config)
