"""Pairs of images, and what a front end says about one pair (docs/method.md, Predictions of a pair)."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, kw_only=True)
class PairList:
    """Unordered pairs, each once, with i < j."""

    index: Int[np.ndarray, "pair 2"]

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True, kw_only=True)
class PairSearch:
    """How pairs were found."""

    tried: int
    """Pairs whose keypoints were matched."""
    verified: int
    """Of these, pairs whose matches agree with one epipolar geometry."""
    rounds: int


@dataclass(frozen=True, kw_only=True)
class Matches:
    """Correspondences between image i and image j.

    Confidences are positive: about 1 and below means "know nothing", about 5 doubtful, 10 and more certain.
    """

    xy_i: Float[np.ndarray, "match 2"]
    xy_j: Float[np.ndarray, "match 2"]
    confidence: Float[np.ndarray, "match"]
    is_coarse: Bool[np.ndarray, "match 2"] | None = None
    """Whether each end is a keypoint of a detector that is less exact than another one of the same set; None: no."""

    def __len__(self) -> int:
        return len(self.confidence)

    @staticmethod
    def empty() -> "Matches":
        return Matches(xy_i=np.zeros((0, 2)), xy_j=np.zeros((0, 2)), confidence=np.zeros(0, np.float32))


@dataclass(frozen=True, kw_only=True)
class Pointmaps:
    """Pointmaps of both images of a pair in the frame of one of them, the `own` image.

    A pointmap holds the 3D point of every grid pixel centre; z is depth along the optical axis. Confidences are >= 1,
    1 means "know nothing". The two images may have different grid sizes.
    """

    own: Float[np.ndarray, "own_h own_w 3"]
    own_confidence: Float[np.ndarray, "own_h own_w"]
    other: Float[np.ndarray, "other_h other_w 3"]
    other_confidence: Float[np.ndarray, "other_h other_w"]


class PairStatus(StrEnum):
    """What a front end found out about a pair."""

    OK = "ok"
    UNMATCHED = "unmatched"
    """Too few verified correspondences."""
    PURE_ROTATION = "pure rotation"
    """The cameras share a centre: matches are right, depth is unknown."""
    CONTRADICTED = "contradicted"
    """Matches agree on a relative pose that other, better confirmed pairs contradict: they are not used."""


@dataclass(frozen=True, kw_only=True)
class PairPrediction:
    """Everything a front end says about the unordered pair i < j."""

    i: int
    j: int
    status: PairStatus
    matches: Matches
    """Dense or semi-dense correspondences for the alignment, in grid pixels of the two images."""
    keypoint_matches: Matches | None
    """Verified correspondences for tracks, in ORIGINAL image pixels, the same physical point of an image having
    identical coordinates in every pair. None: tracks are built from `matches`."""
    frame_i: Pointmaps | None
    """X_ii (own) and X_ji (other), both in the frame of camera i. None where the pair has no depth: its matches still
    tie the images together, if other pairs have depth of both."""
    frame_j: Pointmaps | None
    """X_jj (own) and X_ij (other), both in the frame of camera j."""
    j_from_i: Float[np.ndarray, "3 3"] | None = None
    """How the cameras are turned against each other, if the front end knows. None: as its pointmaps say."""
    methods: tuple[str, ...] = ()
    """Detectors whose keypoints the verified matches are of, where several looked at the pair."""
