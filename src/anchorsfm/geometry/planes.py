"""The plane through most of a set of points."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

_NEARER = 80
"""Percentage of the points that the plane follows."""
_ROUNDS = 10


@dataclass(frozen=True, kw_only=True)
class Plane:
    """A plane and how clearly points show it."""

    centre: Float[np.ndarray, "3"]
    normal: Float[np.ndarray, "3"]
    """Unit vector, of either sign."""
    thickness: float
    """Standard deviation of the followed points across the plane over that along it in its narrower direction; infinite
    for points on a line."""


def fit_plane(points: Float[np.ndarray, "point 3"]) -> Plane:
    """Least squares, trimmed to the nearer 80 % of the points; at least three points."""
    near = np.ones(len(points), bool)
    for _ in range(_ROUNDS):
        centre = points[near].mean(axis=0)
        square, axes = np.linalg.eigh((points[near] - centre).T @ (points[near] - centre))
        distance = np.abs((points - centre) @ axes[:, 0])
        near = distance <= np.percentile(distance, _NEARER)
    across, narrow, wide = np.sqrt(np.maximum(square, 0))
    clear = narrow > 1e-6 * max(wide, 1e-300)
    return Plane(centre=centre, normal=axes[:, 0], thickness=float(across / narrow) if clear else np.inf)
