"""Which way is up in a model, whose own frame is arbitrary up to a similarity.

People hold cameras level: the x axes of the cameras are nearly horizontal and their y axes point down on average. With
x_k the x axes and d the mean of the y axes, up is the unit vector u that minimises

    mean (x_k . u)^2  +  w |u - (u . d/|d|) d/|d||^2

which follows the x axes where they span a plane, as around an object, and the y axes where they do not, as along a
wall. Photographs straight down from the air have y axes in all directions, or, from a drone that keeps its heading, in
one that has nothing to do with up; there up is where the cameras come from. Such a flight is known by cameras that look
one way at a flat ground and stand apart along their y axes as well, which people who walk along a wall do not.
"""

import numpy as np
from jaxtyping import Float

from anchorsfm.geometry.planes import Plane, fit_plane
from anchorsfm.geometry.transforms import camera_centres

_PULL_TO_MEAN = 0.1
"""w"""
_LEVEL = 0.3
"""Mean length of the y axes below which they say nothing about up."""
_PARALLEL = 0.9
"""Mean length of the viewing directions of a flight."""
_APART = 0.25
"""Least spread of a flight's cameras along their y axes, as a share of that along their x axes; and most along the
viewing direction, as a share of the larger of both."""
_GROUND_DEG = 25.0
"""Most that the ground of a flight may be tilted against the viewing directions."""
_RELIEF = 0.25
"""Largest thickness of a ground (see `Plane`)."""


def up_direction(
    cam_from_world: Float[np.ndarray, "view 3 4"], points: Float[np.ndarray, "point 3"]
) -> Float[np.ndarray, "3"]:
    """Unit vector that points up in the world frame; without cameras against COLMAP's y axis."""
    if not len(cam_from_world):
        return np.array([0.0, -1.0, 0.0])
    ground = _ground_of_flight(cam_from_world, points[np.isfinite(points).all(axis=1)])
    if ground is not None:
        return ground
    right, down, forward = (cam_from_world[:, row, :3] for row in range(3))
    mean_up = -down.mean(0)
    if np.linalg.norm(mean_up) < _LEVEL and np.linalg.norm(forward.mean(0)) > _LEVEL:
        mean_up = -forward.mean(0)
        right = right[:0]
    if np.linalg.norm(mean_up) < 1e-9:
        mean_up = -down[0]
    towards = mean_up / np.linalg.norm(mean_up)
    horizontal = right.T @ right / max(len(right), 1)
    _, vectors = np.linalg.eigh(horizontal + _PULL_TO_MEAN * (np.eye(3) - np.outer(towards, towards)))
    return vectors[:, 0] * (1.0 if vectors[:, 0] @ towards >= 0 else -1.0)


def _ground_of_flight(
    cam_from_world: Float[np.ndarray, "view 3 4"], points: Float[np.ndarray, "point 3"]
) -> Float[np.ndarray, "3"] | None:
    """Up for photographs straight down: the normal of the cameras' plane or the ground's, whichever is clearer."""
    right, down, forward = (cam_from_world[:, row, :3].mean(axis=0) for row in range(3))
    if len(cam_from_world) < 3 or len(points) < 10 or np.linalg.norm(forward) < _PARALLEL:
        return None
    ahead = forward / np.linalg.norm(forward)
    ground = fit_plane(points)
    tilt_deg = np.degrees(np.arccos(min(abs(float(ground.normal @ ahead)), 1.0)))
    if ground.thickness > _RELIEF or tilt_deg > _GROUND_DEG:
        return None
    centres = camera_centres(cam_from_world)
    across, along, deep = (float((centres @ axis).std()) for axis in (right, down, ahead))
    if along < _APART * across or deep > _APART * max(along, across):
        return None
    planes: list[Plane] = [ground, fit_plane(centres)]
    normal = min(planes, key=lambda plane: plane.thickness).normal
    return -normal * np.sign(normal @ ahead)
