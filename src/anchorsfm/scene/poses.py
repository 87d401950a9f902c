"""Named camera poses, for comparing models."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True)
class PoseSet:
    """Poses and focal lengths of named images, from whatever file."""

    names: tuple[str, ...]
    cam_from_world: Float[np.ndarray, "image 3 4"]
    focal_px: Float[np.ndarray, "image"]
    """Mean of the horizontal and vertical focal length, in pixels of an image of size `size_wh`; NaN where unknown."""
    size_wh: Int[np.ndarray, "image 2"]
    """0 where unknown."""
