"""Means of poses some of which are wrong: Huber's location, from the pose that is closest to all others.

Offsets weigh by 1 / max(distance, scale), with the median distance as the scale (Huber 1964, iteratively reweighted);
those of rotations are rotation vectors (Hartley et al., "Rotation averaging", IJCV 2013), those of origins are in their
own frame.
"""

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from anchorsfm.geometry.transforms import rotation_angle_deg

_ROUNDS = 50
_ALIKE = 1e-9
"""Poses that differ by less, in radians and as a share of their distance from the origin, are the same."""


def mean_pose(
    b_from_a: Float[np.ndarray, "pose 3 4"], weight: Float[np.ndarray, "pose"] | None = None
) -> Float[np.ndarray, "3 4"]:
    """The pose in the middle of those that most of the weight is on; of equal poses the first one."""
    first = b_from_a[0]
    if np.abs(b_from_a - first).max() <= _ALIKE * max(1.0, float(np.abs(first).max())):
        return np.asarray(first)
    weight = np.ones(len(b_from_a)) if weight is None else np.maximum(weight, 1e-6)
    rotation = _mean_rotation(b_from_a[:, :, :3], weight)
    origin = -np.einsum("nji,nj->ni", b_from_a[:, :, :3], b_from_a[:, :, 3])  # of b, in a
    return np.concatenate([rotation, -(rotation @ _mean_point(origin, weight))[:, None]], axis=1)


def _mean_rotation(rotation: Float[np.ndarray, "pose 3 3"], weight: Float[np.ndarray, "pose"]) -> np.ndarray:
    between = rotation_angle_deg(np.swapaxes(rotation[:, None], -1, -2) @ rotation[None])
    mean = rotation[int((between @ weight).argmin())]
    for _ in range(_ROUNDS):
        step = _step(Rotation.from_matrix(rotation @ mean.T).as_rotvec(), weight)
        mean = Rotation.from_rotvec(step).as_matrix() @ mean
        if np.linalg.norm(step) < 1e-12:
            break
    return np.asarray(mean)


def _mean_point(point: Float[np.ndarray, "pose 3"], weight: Float[np.ndarray, "pose"]) -> np.ndarray:
    between = np.linalg.norm(point[:, None] - point, axis=2)
    mean = point[int((between @ weight).argmin())]
    for _ in range(_ROUNDS):
        step = _step(point - mean, weight)
        mean = mean + step
        if np.linalg.norm(step) < 1e-12 * float(between.max()):
            break
    return np.asarray(mean)


def _step(offset: Float[np.ndarray, "pose 3"], weight: Float[np.ndarray, "pose"]) -> np.ndarray:
    distance = np.linalg.norm(offset, axis=1)
    scale = max(float(np.median(distance[distance > 0])) if (distance > 0).any() else 0.0, 1e-300)
    share = weight / np.maximum(distance, scale)
    return np.asarray(share @ offset / share.sum())
