"""What a detector and a matcher are: keypoints with descriptors of one photograph, and which of two photographs agree.

Both are chosen by name from the tables in `methods`; `store` keeps what they find. Neither knows a front end, so that
features can be computed before pairs are chosen, and those of a finished model be read again.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Int, Num

from anchorsfm.io.weights.licence import LicenceRecord
from anchorsfm.scene.images import ImageSet


@dataclass(frozen=True, kw_only=True)
class Features:
    """Keypoints of one photograph, with their descriptors. A keypoint may have several descriptors."""

    size_wh: Int[np.ndarray, "2"]
    """Of the photograph, original pixels."""
    xy: Float[np.ndarray, "keypoint 2"]
    """Original pixels, all different."""
    descriptor: Num[np.ndarray, "descriptor width"]
    """Bytes or floating point, as its matcher wants them."""
    keypoint: Int[np.ndarray, "descriptor"]
    """Keypoint of each descriptor."""
    score: Float32[np.ndarray, "descriptor"]
    """Larger is better, in a unit of the detector's own."""


@dataclass(frozen=True, kw_only=True)
class FeatureMatches:
    """Keypoints of two photographs that a matcher takes for the same point; not verified."""

    keypoint: Int[np.ndarray, "match 2"]
    """Rows of the keypoints of i and of j, sorted; each keypoint occurs at most once."""
    score: Float32[np.ndarray, "match"]
    """0 .. 1, larger is surer."""

    @staticmethod
    def empty() -> "FeatureMatches":
        return FeatureMatches(keypoint=np.zeros((0, 2), np.int32), score=np.zeros(0, np.float32))


@runtime_checkable
class Detector(Protocol):
    """Finds and describes keypoints, each photograph by itself."""

    @property
    def digest(self) -> str:
        """Identifies everything that features depend on besides the photograph: method, version, settings, weights."""
        ...

    @property
    def is_concurrent(self) -> bool:
        """Several threads may call it at a time; where not (one network on one GPU), it is called from one."""
        ...

    @property
    def licence(self) -> LicenceRecord | None:
        """The terms of trained weights, if there are any."""
        ...

    def detect(self, images: ImageSet, image: int) -> Features:
        """Read the photograph in the size and colours that the method wants, and find its keypoints.

        Raises InputError if the photograph cannot be read.
        """
        ...


@runtime_checkable
class Matcher(Protocol):
    """Finds which keypoints of two photographs are the same, from nothing but their features."""

    @property
    def digest(self) -> str:
        """Identifies everything that matches depend on besides the features: method, version, settings, weights."""
        ...

    @property
    def is_concurrent(self) -> bool:
        """As that of a detector."""
        ...

    @property
    def licence(self) -> LicenceRecord | None:
        """The terms of trained weights, if there are any."""
        ...

    def prepare(self, features: Features) -> Any:
        """What is done once per photograph: an index, or arrays on a device.

        Raises InputError if these are not features that the matcher can compare.
        """
        ...

    def match(self, i: Any, j: Any) -> FeatureMatches:
        """Matches of two photographs that were prepared."""
        ...


@runtime_checkable
class BatchMatcher(Matcher, Protocol):
    """A matcher that is faster with several pairs at a time, as a network on a GPU is."""

    @property
    def batch_size(self) -> int:
        """Pairs at a time; 1: one by one."""
        ...

    def batch_key(self, i: Any, j: Any) -> Hashable:
        """Pairs with equal ones can be in one batch."""
        ...

    def match_batch(self, pairs: Sequence[tuple[Any, Any]]) -> list[FeatureMatches]:
        """Matches of at most `batch_size` pairs, which do not depend on what else is in the batch."""
        ...
