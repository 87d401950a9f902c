"""What the choice of frames needs to know of each: how sharp it is, and how far the view has travelled by then.

Sharpness compares gradients of neighbouring pixels with those of pixels twice as far apart, in four directions, and
takes the direction with the least: motion blurs along one direction only, and how much texture a view has cancels.

The way of the view is measured by points that are tracked from an anchor frame on. Where their median has moved by
`ANCHOR_STEP`, the frame becomes the next anchor with points of its own, so that a hand that trembles adds nothing,
nor does the noise of a still moment, and an error of one track ends with its anchor. Where the camera turns about what
it shows by more than the picture moves, a degree counts as `WAY_OF_DEGREE`.
"""

from array import array
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from anchorsfm.video.turning import FollowedPoints, followed

LONG_SIDE = 640
"""Of the pictures that are measured."""
ANCHOR_STEP = 0.02
"""Movement, as a share of the longer side, from which on a frame is the next anchor."""
LOST = 0.25
"""Movement that is assumed to a frame that shows too few of the points: after a cut, or in a very fast pan."""
_NOISE = 4.0
"""Squared grey levels below which coarse gradients are uninformative."""
_MAX_POINTS = 200
_FEWEST_POINTS = 8
_TRACKED = 0.3
"""Share of the points that must be found again."""
TURN_STEP = 0.05
"""Way after which it is asked by how much the camera has turned."""
WAY_OF_DEGREE = 0.01
"""Keypoints are found again after turns about a thing of some 20 degrees, and in half of the picture."""


@dataclass(frozen=True, kw_only=True)
class FrameTrack:
    """The measured frames of a video, in order."""

    number: "np.ndarray[tuple[int], np.dtype[np.int64]]"
    """Of each among all decoded ones."""
    time_s: Float[np.ndarray, "frame"]
    """From the first frame, rising."""
    sharpness: Float[np.ndarray, "frame"]
    """Comparable between frames of about the same view only."""
    way: Float[np.ndarray, "frame"]
    """How far the view has travelled since the first frame, in longer sides of the picture."""


def sharpness(grey: UInt8[np.ndarray, "h w"]) -> float:
    """Energy of fine gradients over that of coarse ones, in the direction where it is least."""
    fine = grey.astype(np.float32)
    coarse = cv2.pyrDown(fine)
    return min(_energy(fine, step) / (_energy(coarse, step) + _NOISE) for step in ((0, 1), (1, 0), (1, 1), (1, -1)))


def _energy(grey: Float32[np.ndarray, "h w"], step: tuple[int, int]) -> float:
    """Mean squared difference of pixels one step (rows, columns) apart."""
    down, right = step
    height, width = grey.shape
    first = grey[: height - down, max(-right, 0) : width - max(right, 0)]
    second = grey[down:, max(right, 0) : width + min(right, 0)]
    difference = first - second
    return float(np.vdot(difference, difference)) / difference.size


class Odometer:
    """How far the view has travelled, frame after frame; points are tracked at half the size of the pictures."""

    def __init__(self) -> None:
        self._moved = array("d")
        """Of every frame, by the picture alone: an hour has a hundred thousand."""
        self._turns: list[tuple[int, int, float]] = []
        """First and last frame of a stretch, and by how much longer its turn makes it."""
        self._anchor: UInt8[np.ndarray, "h w"] | None = None
        self._start: Float32[np.ndarray, "point 1 2"] = np.zeros((0, 1, 2), np.float32)
        self._guess = self._start
        self._way_of_anchor = 0.0
        self._followed = FollowedPoints(self._start)
        self._followed_from = 0

    @property
    def way(self) -> Float[np.ndarray, "frame"]:
        """Up to every frame, in longer sides."""
        growth = np.diff(np.array(self._moved), prepend=0.0)
        for first, last, longer in self._turns:
            growth[first + 1 : last + 1] *= longer
        return np.cumsum(growth)

    def add(self, grey: UInt8[np.ndarray, "h w"]) -> None:
        """The next frame."""
        self._moved.append(self._added(cv2.pyrDown(grey)))

    def _added(self, grey: UInt8[np.ndarray, "h w"]) -> float:
        """The way up to it, by the picture alone."""
        if self._anchor is None:
            self._set_anchor(grey, 0.0)
            self._follow_anew()
            return 0.0
        if len(self._start) < _FEWEST_POINTS:  # nothing to be seen: a wall, a cap on the lens
            self._set_anchor(grey, self._way_of_anchor)
            self._follow_anew()
            return self._way_of_anchor
        found, good = followed(self._anchor, grey, self._start, self._guess)
        if good.mean() < _TRACKED:
            self._set_anchor(grey, self._way_of_anchor + LOST)
            self._follow_anew()
            return self._way_of_anchor
        xy, start = found.reshape(-1, 2), self._start.reshape(-1, 2)
        moved = float(np.median(np.linalg.norm(xy[good] - start[good], axis=1))) / max(grey.shape)
        way = self._way_of_anchor + moved
        self._guess = np.where(good[:, None, None], found, self._guess)
        if moved > ANCHOR_STEP:
            self._followed.follow(self._anchor, grey)
            self._set_anchor(grey, way)
            self._ask_for_turn(grey, way)
        return way

    def _set_anchor(self, grey: UInt8[np.ndarray, "h w"], way: float) -> None:
        self._anchor, self._way_of_anchor = grey, way
        points = cv2.goodFeaturesToTrack(grey, _MAX_POINTS, 0.01, 8)
        self._start = np.zeros((0, 1, 2), np.float32) if points is None else points
        self._guess = self._start

    def _ask_for_turn(self, grey: UInt8[np.ndarray, "h w"], way: float) -> None:
        moved = way - self._moved[self._followed_from]
        if moved >= TURN_STEP or self._followed.are_few:
            turned = min(WAY_OF_DEGREE * self._followed.turn_deg((grey.shape[1], grey.shape[0])), LOST)
            if turned > moved:
                self._turns.append((self._followed_from, len(self._moved), turned / moved))
            self._follow_anew()

    def _follow_anew(self) -> None:
        """From the anchor, which is the frame that is being added."""
        self._followed, self._followed_from = FollowedPoints(self._start), len(self._moved)
