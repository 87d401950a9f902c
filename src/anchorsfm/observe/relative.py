"""How the two cameras of a pair are turned against each other, as a front end says or its pointmaps show."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from anchorsfm.geometry.transforms import fit_similarity
from anchorsfm.pairing.config import ConsistencyConfig
from anchorsfm.pairing.consistency import Belief, judge_pairs
from anchorsfm.pairing.rotations import RelativeRotations
from anchorsfm.scene.pairs import Matches, PairPrediction

CERTAIN = 10.0
"""Matches of this confidence and more count fully as evidence, those of 1 not at all."""
MOST_POINTS_PER_SIDE = 24
"""A grid of so many points over an image says how a camera is turned."""


@dataclass(frozen=True, kw_only=True)
class RelativeRotation:
    """Of one pair."""

    j_from_i: Float[np.ndarray, "3 3"]
    evidence: float
    """Number of verified matches, or of others, each as far as it is certain; 0: nothing is known."""


def relative_rotation(prediction: PairPrediction) -> RelativeRotation:
    """What a prediction says: outright, or because each image has its points in the frames of both cameras."""
    j_from_i = with_rotation(prediction).j_from_i
    if j_from_i is None:
        return RelativeRotation(j_from_i=np.eye(3), evidence=0.0)
    verified = prediction.keypoint_matches
    return RelativeRotation(
        j_from_i=j_from_i, evidence=certain(prediction.matches) if verified is None else float(len(verified))
    )


def with_rotation(prediction: PairPrediction) -> PairPrediction:
    """A prediction with the rotation that its pointmaps show, if it has none yet and they show any."""
    frame_i, frame_j = prediction.frame_i, prediction.frame_j
    if prediction.j_from_i is not None or frame_i is None or frame_j is None:
        return prediction
    forward, weight = _turn(frame_i.own, frame_i.own_confidence, frame_j.other, frame_j.other_confidence)
    backward, weight_back = _turn(frame_j.own, frame_j.own_confidence, frame_i.other, frame_i.other_confidence)
    if weight + weight_back <= 0:
        return prediction
    u, _, vt = np.linalg.svd(weight * forward + weight_back * backward.T)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    return replace(prediction, j_from_i=u * sign @ vt)


def judge_rotations(
    num_images: int,
    pair: Int[np.ndarray, "pair 2"],
    rotations: Sequence[RelativeRotation],
    config: ConsistencyConfig,
) -> Belief:
    """Which pairs to believe; nothing speaks for or against those without evidence."""
    amount = np.array([rotation.evidence for rotation in rotations], np.float64)
    known = amount > 0
    given = RelativeRotations(
        num_images=num_images,
        pair=pair[known],
        rotation=np.array([rotation.j_from_i for rotation in rotations]).reshape(-1, 3, 3)[known],
        evidence=amount[known],
    )
    return judge_pairs(given, config).among(known)


def certain(matches: Matches) -> float:
    """Number of matches, each as far as it is certain."""
    return float(np.clip((np.asarray(matches.confidence, np.float64) - 1) / (CERTAIN - 1), 0, 1).sum())


def _turn(
    source: Float[np.ndarray, "h w 3"],
    source_confidence: Float[np.ndarray, "h w"],
    target: Float[np.ndarray, "h w 3"],
    target_confidence: Float[np.ndarray, "h w"],
) -> tuple[Float[np.ndarray, "3 3"], float]:
    """Rotation between two pointmaps of one image, and its weight: errors of points grow with their depth."""
    step = max(1, -(-max(source_confidence.shape) // MOST_POINTS_PER_SIDE))
    grid = (slice(step // 2, None, step), slice(step // 2, None, step))
    confidence = np.minimum(source_confidence[grid], target_confidence[grid]).astype(np.float64).ravel() - 1
    here, there = (points[grid].reshape(-1, 3).astype(np.float64) for points in (source, target))
    depth = np.maximum(np.abs(here[:, 2]), 1e-12)
    weight = np.maximum(confidence, 0) / (depth / np.median(depth)) ** 2
    if not (weight > 0).sum() >= 3:
        return np.eye(3), 0.0
    return fit_similarity(here, there, weight)[1][:, :3], float(weight.sum())
