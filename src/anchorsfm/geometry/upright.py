"""Which way is up in a model, whose own frame is arbitrary up to a similarity.

People hold cameras level: the x axes of the cameras are nearly horizontal and their y axes point down on average. With
x_k the x axes and d the mean of the y axes, up is the unit vector u that minimises

    mean (x_k . u)^2  +  w |u - (u . d/|d|) d/|d||^2

which follows the x axes where they span a plane, as around an object, and the y axes where they do not, as along a
wall. Photographs straight down from the air have y axes in all directions; there up is where the cameras come from.
"""

import numpy as np
from jaxtyping import Float

_PULL_TO_MEAN = 0.1
"""w"""
_LEVEL = 0.3
"""Mean length of the y axes below which they say nothing about up."""


def up_direction(cam_from_world: Float[np.ndarray, "view 3 4"]) -> Float[np.ndarray, "3"]:
    """Unit vector that points up in the world frame; without cameras against COLMAP's y axis."""
    if not len(cam_from_world):
        return np.array([0.0, -1.0, 0.0])
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
