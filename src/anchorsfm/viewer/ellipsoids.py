"""How far the positions of cameras may be off, as ellipsoids about them that are large enough to be seen."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float, Int

from anchorsfm.results.model import StoredModel
from anchorsfm.viewer.frame import ShownFrame
from anchorsfm.viewer.frusta import Frusta

_SEEN = 0.5
"""Standard deviation of the middle position as a share of the height of the cameras' pyramids, at most."""
_CORNERS = 80


@dataclass(frozen=True, kw_only=True)
class Ellipsoids:
    """Ellipsoids about some cameras in the frame that is shown."""

    centre: Float[np.ndarray, "known 3"]
    rotation: Float[np.ndarray, "known 3 3"]
    """Columns are the directions of the axes."""
    radius: Float[np.ndarray, "known 3"]
    """Half axes: `factor` times one standard deviation."""
    factor: float
    are_spheres: bool
    """The directions are not known: the radius is the root of the summed variances of the coordinates."""
    view: Int[np.ndarray, "known"]
    """The cameras whose deviations are known."""


def ellipsoids_of(viewed: StoredModel, frame: ShownFrame, frusta: Frusta) -> Ellipsoids | None:
    """Standard deviations of the positions, one round factor larger; None where nothing is known."""
    said = [viewed.precision.get(name) for name in viewed.view_names]
    deviation = np.array([np.nan if one is None or one.position is None else one.position for one in said], np.float64)
    view = np.flatnonzero(deviation > 0)
    if not len(view):
        return None
    shown = frame.scale * deviation[view]
    factor = _round_down(_SEEN * frusta.depth / float(np.median(shown)))
    rotation, radius = np.tile(np.eye(3), (len(view), 1, 1)), np.repeat(shown[:, None], 3, axis=1)
    if viewed.errors is not None:
        covariance = frame.rotation @ viewed.errors.covariances[view, 3:, 3:] @ frame.rotation.T
        variance, rotation = np.linalg.eigh(covariance)
        rotation[:, :, 0] *= np.linalg.det(rotation)[:, None]
        radius = frame.scale * np.sqrt(np.maximum(variance, 0))
    return Ellipsoids(
        centre=frusta.shown_from_cam[view, :, 3],
        rotation=rotation,
        radius=factor * radius,
        factor=factor,
        are_spheres=viewed.errors is None,
        view=view.astype(np.int64),
    )


def _round_down(value: float) -> float:
    """To 1, 2 or 5 times a power of ten, and to no less than 1."""
    if not value > 1:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value) + 1e-9)
    return float(max(step for step in (1.0, 2.0, 5.0) if step * power <= value * (1 + 1e-9)) * power)


@cache
def ball() -> tuple[Float[np.ndarray, "corner 3"], Int[np.ndarray, "face 3"]]:
    """A sphere of radius 1: corners along a spiral and the faces of their hull."""
    from scipy.spatial import ConvexHull

    z = 1 - (2 * np.arange(_CORNERS) + 1) / _CORNERS
    turn = np.pi * (3 - np.sqrt(5)) * np.arange(_CORNERS)
    corner = np.stack([np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z], axis=1)
    return corner, np.asarray(ConvexHull(corner).simplices, np.int64)
