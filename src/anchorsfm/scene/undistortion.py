"""What undistorted pictures show."""

from dataclasses import dataclass
from typing import Annotated

from anchorsfm.scene.settings import Range, Settings


@dataclass(frozen=True, kw_only=True)
class UndistortConfig(Settings):
    """What the undistorted picture shows."""

    centre_principal_point: bool = True
    """Cut the wider side of undistorted pictures so that the principal point is the middle, which some trainers take
    for granted."""
    blank_pixels: Annotated[float, Range(0, 1)] = 0.0
    """How much of an undistorted picture may lack a source. 0: no pixel; 1: all of the photograph is shown, with black
    corners that the masks mark."""
    max_fov_deg: Annotated[float, Range(10, 170)] = 120.0
    """Largest horizontal and vertical angle of view of undistorted pictures, in degrees."""
    max_side: Annotated[int | None, Range(64, 1_000_000)] = None
    """Longest side of the undistorted pictures in pixels; they are never enlarged."""
