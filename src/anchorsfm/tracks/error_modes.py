"""Errors that the cameras of a model may have together, in a form that is small enough to keep.

The covariance of all poses and intrinsics is a matrix with as many rows as there are unknowns, but errors of models are
smooth: most of it is in its largest eigenvectors. These are kept, and what the others would add to a pose or a
parameter is made up for by a factor, so that each has its own deviation exactly.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.sparse.linalg import eigsh

from anchorsfm.geometry.similarity import Similarity

MAX_MODES = 64
_SHARE = 0.995
"""Of the summed variances, poses and parameters in units of their own deviations, that is enough."""
_SMALL = 600
"""Unknowns of which all eigenvectors are computed."""


@dataclass(frozen=True, kw_only=True)
class ErrorModes:
    """Independent joint errors of one standard deviation each: covariances are sums over modes of products."""

    rotation: Float[np.ndarray, "mode view 3"]
    """Rotation vectors in the axes of the cameras, radians: R' = exp([w]x) R."""
    position: Float[np.ndarray, "mode view 3"]
    """Shifts of the camera centres, world axes and units."""
    params: Float[np.ndarray, "mode param"]
    """Of all cameras, one after the other, each in COLMAP's order."""

    @property
    def poses(self) -> Float[np.ndarray, "mode view 6"]:
        """Rotation vectors and shifts."""
        return np.concatenate([self.rotation, self.position], axis=2)

    @property
    def covariances(self) -> Float[np.ndarray, "view 6 6"]:
        """Of (rotation vector, camera centre) of every view."""
        return np.einsum("mvi,mvj->vij", self.poses, self.poses)

    @property
    def position_deviations(self) -> Float[np.ndarray, "view 3"]:
        """Standard deviations of the camera centres along the axes of the world."""
        return np.asarray(np.sqrt((self.position**2).sum(axis=0)))

    def moved(self, similarity: Similarity) -> "ErrorModes":
        """Of the model in another frame."""
        return replace(self, position=similarity.scale * self.position @ similarity.rotation.T)


def largest_modes(
    covariance: Float[np.ndarray, "unknown unknown"], unit: Float[np.ndarray, "unknown"]
) -> Float[np.ndarray, "mode unknown"]:
    """The modes of a covariance that most of it is in.

    Args:
        covariance: of any unknowns.
        unit: what is large and small for each of them; where it is 0 nothing is known.
    """
    known = np.flatnonzero(unit > 0)
    scaled = covariance[np.ix_(known, known)] / np.outer(unit[known], unit[known])
    if len(known) <= _SMALL:
        value, vector = np.linalg.eigh(scaled)
    else:
        value, vector = eigsh(scaled, k=MAX_MODES, v0=np.ones(len(known)))
    value, vector = np.maximum(value[::-1], 0), vector[:, ::-1]
    count = int(np.searchsorted(np.cumsum(value), _SHARE * np.trace(scaled))) + 1
    count = min(count, MAX_MODES, len(known))
    modes = np.zeros((count, len(unit)))
    modes[:, known] = (vector[:, :count] * np.sqrt(value[:count])).T * unit[known]
    return modes


def with_deviations(
    modes: ErrorModes,
    *,
    position: Float[np.ndarray, "view"],
    rotation: Float[np.ndarray, "view"],
    params: Float[np.ndarray, "param"],
) -> ErrorModes:
    """Modes whose deviations are given ones: of poses roots of summed variances (world units, radians)."""
    return ErrorModes(
        rotation=modes.rotation * _factor(rotation, (modes.rotation**2).sum(axis=(0, 2)))[:, None],
        position=modes.position * _factor(position, (modes.position**2).sum(axis=(0, 2)))[:, None],
        params=modes.params * _factor(params, (modes.params**2).sum(axis=0)),
    )


def _factor(wanted: Float[np.ndarray, "_"], variance: Float[np.ndarray, "_"]) -> Float[np.ndarray, "_"]:
    return np.where(variance > 0, wanted / np.sqrt(np.where(variance > 0, variance, 1.0)), 0.0)
