"""Points on the ground whose places are surveyed, and where they were marked in photographs."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, kw_only=True)
class GroundPoints:
    """Surveyed points in the metric frame of the models, and their marks in the photographs of an ImageSet."""

    names: tuple[str, ...]
    xyz_m: Float[np.ndarray, "point 3"]
    given: Float[np.ndarray, "point 3"]
    """Coordinates as they were surveyed, in their own reference system."""
    is_check: Bool[np.ndarray, "point"]
    """Points that models are only compared with."""
    point: Int[np.ndarray, "mark"]
    """Row of the point of each mark, ascending."""
    image: Int[np.ndarray, "mark"]
    """Index in the ImageSet."""
    xy_px: Float[np.ndarray, "mark 2"]
    """Original pixels."""
