"""Named camera poses, for comparing models."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True)
class StoredPose:
    """The pose of an image as a file has it: quaternions (x, y, z, w) and translations."""

    cam_from_world: Float[np.ndarray, "7"]
    rig_from_world: Float[np.ndarray, "7"] | None = None
    """Of its frame, if a rig of several cameras took it."""
    sensor_from_rig: Float[np.ndarray, "7"] | None = None
    """Of its camera in the rig; None: it is the reference."""


@dataclass(frozen=True, kw_only=True)
class PoseSet:
    """Poses and focal lengths of named images, from whatever file."""

    names: tuple[str, ...]
    cam_from_world: Float[np.ndarray, "image 3 4"]
    focal_px: Float[np.ndarray, "image"]
    """Mean of the horizontal and vertical focal length, in pixels of an image of size `size_wh`; NaN where unknown."""
    size_wh: Int[np.ndarray, "image 2"]
    """0 where unknown."""
