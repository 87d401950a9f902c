"""By how much a camera has turned about what it shows, from points that were followed from frame to frame.

A camera that goes around a thing and keeps it in the middle moves the picture little, and yet sees the thing from
another side. What says so is the parallax that is left when the rotation of the camera is taken out: the angle between
the two directions in which a point is seen. Translation without such a rotation shifts the picture by as much.
"""

import cv2
import numpy as np
import poselib
from jaxtyping import Bool, Float, Float32, UInt8

_FLOW = {
    "winSize": (15, 15),
    "maxLevel": 4,
    "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 10, 0.03),
    "flags": cv2.OPTFLOW_USE_INITIAL_FLOW,
}
_MAX_TRACK_ERROR = 25.0
"""Mean difference in grey levels of a point's surroundings."""
_FOCAL = 1.0
"""Focal length that is assumed, over the longer side: phones have .7 to 1.1. If it is .7, some
half of a turn is seen, and twice as much if it is 1.4."""
_MAX_POINTS = 80
_FEWEST_POINTS = 20
_LOST = 0.5
"""Share of the points below which the rest says too little of the view."""
_RANSAC = {"max_epipolar_error": 1.0, "min_iterations": 20, "max_iterations": 200}


def followed(
    before: UInt8[np.ndarray, "h w"],
    now: UInt8[np.ndarray, "h w"],
    start: Float32[np.ndarray, "point 1 2"],
    guess: Float32[np.ndarray, "point 1 2"],
) -> tuple[Float32[np.ndarray, "point 1 2"], Bool[np.ndarray, "point"]]:
    """Where points of one picture are in another, pixels, and which of them were found there."""
    found, status, error = cv2.calcOpticalFlowPyrLK(
        before,
        now,
        start,
        guess.copy(),
        **_FLOW,  # type: ignore[call-overload]
    )
    xy = found.reshape(-1, 2)
    inside = (xy >= 0).all(axis=1) & (xy < now.shape[::-1]).all(axis=1)
    return found, (status.reshape(-1) > 0) & (error.reshape(-1) < _MAX_TRACK_ERROR) & inside


class FollowedPoints:
    """Points of a frame, followed through later ones."""

    def __init__(self, points: Float32[np.ndarray, "point 1 2"]) -> None:
        self._first = np.ascontiguousarray(points[:: max(-(-len(points) // _MAX_POINTS), 1)])  # as OpenCV wants it
        self._now = self._first
        self._num_first = len(self._first)

    def follow(self, before: UInt8[np.ndarray, "h w"], now: UInt8[np.ndarray, "h w"]) -> None:
        """Go on from the frame where they are known to a later one."""
        if len(self._now):
            found, good = followed(before, now, self._now, self._now)
            self._now, self._first = found[good], self._first[good]

    @property
    def are_few(self) -> bool:
        """Whether so many were lost that the others should not be followed further."""
        return len(self._now) < max(_FEWEST_POINTS, _LOST * self._num_first)

    def turn_deg(self, size_wh: tuple[int, int]) -> float:
        """How far the camera has turned about them since their first frame."""
        return turn_deg(self._first.reshape(-1, 2).astype(float), self._now.reshape(-1, 2).astype(float), size_wh)


def turn_deg(first: Float[np.ndarray, "point 2"], now: Float[np.ndarray, "point 2"], size_wh: tuple[int, int]) -> float:
    """Median angle between the directions in which points (pixels) are seen from two frames.

    The rotation of the camera is that of the essential matrix (PoseLib's RANSAC) for a usual focal length. 0 if there
    are too few points.
    """
    if len(first) < _FEWEST_POINTS:
        return 0.0
    (width, height), focal_px = size_wh, _FOCAL * max(size_wh)
    middle = np.array([width / 2, height / 2])
    camera = {"model": "SIMPLE_PINHOLE", "width": width, "height": height, "params": [focal_px, *middle]}
    pose, info = poselib.estimate_relative_pose(first, now, camera, camera, _RANSAC, {})
    inlier = np.array(info["inliers"], bool)
    if inlier.sum() < _FEWEST_POINTS:
        return 0.0
    derotated = _directions((first[inlier] - middle) / focal_px) @ pose.R.T
    cosine = (derotated * _directions((now[inlier] - middle) / focal_px)).sum(axis=1)
    return float(np.degrees(np.median(np.arccos(np.clip(cosine, -1, 1)))))


def _directions(xy: Float[np.ndarray, "point 2"]) -> Float[np.ndarray, "point 3"]:
    ray = np.column_stack([xy, np.ones(len(xy))])
    return ray / np.linalg.norm(ray, axis=1, keepdims=True)
