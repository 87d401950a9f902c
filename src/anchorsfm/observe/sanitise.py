"""What enters from a front end: numbers that are not finite are left out and counted.

Everything after this may rely on finite points, confidences of at least 1, and matches with finite pixels and positive
confidence.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import distance_transform_edt

from anchorsfm.scene.pairs import Matches, PairPrediction, Pointmaps

FARTHEST = 1e15
"""Coordinates beyond this, in whatever units, are as good as infinite: their squares must fit single precision."""


@dataclass(kw_only=True)
class LeftOut:
    """How much was left out of a stream of predictions."""

    pairs: int = 0
    """Pairs that something was left out of."""
    points: int = 0
    """Pixels of pointmaps whose point or confidence is not finite."""
    matches: int = 0
    """Matches with a pixel or confidence that is not finite, or a confidence that is not positive."""

    def __str__(self) -> str:
        return (
            f"numbers that are not finite in the front end's predictions of {self.pairs} pairs: "
            f"left out {self.points} points and {self.matches} matches"
        )


def sanitised(predictions: Iterable[PairPrediction], left_out: LeftOut) -> Iterator[PairPrediction]:
    """The same predictions; those that are sound are passed on as they are. `left_out` counts."""
    return (sanitise(prediction, left_out) for prediction in predictions)


def sanitise(prediction: PairPrediction, left_out: LeftOut) -> PairPrediction:
    """A prediction with pixels whose point or confidence is not finite known as nothing, and without bad matches.

    A pointmap without any finite point makes the pair one without depth.
    """
    found = LeftOut()
    clean = replace(
        prediction,
        matches=_sound_matches(prediction.matches, found),
        keypoint_matches=None
        if prediction.keypoint_matches is None
        else _sound_matches(prediction.keypoint_matches, found),
        frame_i=_sound_pointmaps(prediction.frame_i, found),
        frame_j=_sound_pointmaps(prediction.frame_j, found),
    )
    left_out.points += found.points
    left_out.matches += found.matches
    left_out.pairs += bool(found.points or found.matches)
    return clean


def _sound_matches(matches: Matches, found: LeftOut) -> Matches:
    good = np.isfinite(matches.xy_i).all(axis=1) & np.isfinite(matches.xy_j).all(axis=1)
    good &= np.isfinite(matches.confidence) & (matches.confidence > 0)
    if good.all():
        return matches
    found.matches += int((~good).sum())
    return Matches(xy_i=matches.xy_i[good], xy_j=matches.xy_j[good], confidence=matches.confidence[good])


def _sound_pointmaps(maps: Pointmaps | None, found: LeftOut) -> Pointmaps | None:
    if maps is None:
        return None
    own = _sound_pointmap(maps.own, maps.own_confidence, found)
    other = _sound_pointmap(maps.other, maps.other_confidence, found)
    if own is None or other is None:
        return None
    return Pointmaps(own=own[0], own_confidence=own[1], other=other[0], other_confidence=other[1])


def _sound_pointmap(
    points: Float[np.ndarray, "h w 3"], confidence: Float[np.ndarray, "h w"], found: LeftOut
) -> tuple[Float[np.ndarray, "h w 3"], Float[np.ndarray, "h w"]] | None:
    """Points and confidences; what is not finite becomes the nearest point that is, known as nothing."""
    bad: Bool[np.ndarray, pixel] = ~(np.abs(points) < FARTHEST).all(axis=2) | ~np.isfinite(confidence)
    if bad.any():
        found.points += int(bad.sum())
        if bad.all():
            return None
        row, column = distance_transform_edt(bad, return_distances=False, return_indices=True)
        points, confidence = points[row, column], np.where(bad, 1, confidence).astype(confidence.dtype)
    if confidence.min() < 1:
        confidence = np.maximum(confidence, 1)
    return points, confidence
