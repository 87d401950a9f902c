"""A sparse model: cameras, poses, points and multi-view tracks. COLMAP's conventions throughout."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

from anchorsfm.scene.rigs import Rigs

CAMERA_MODELS = (
    "SIMPLE_PINHOLE",
    "PINHOLE",
    "SIMPLE_RADIAL",
    "RADIAL",
    "OPENCV",
    "FULL_OPENCV",
    "SIMPLE_RADIAL_FISHEYE",
    "RADIAL_FISHEYE",
    "OPENCV_FISHEYE",
    "THIN_PRISM_FISHEYE",
)
"""Camera models offered to users."""


@dataclass(frozen=True, kw_only=True)
class Camera:
    """Intrinsics in COLMAP's parameter order of `model`, in original pixels."""

    model: str
    width: int
    height: int
    params: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Tracks:
    """Observations sorted by point; at most one observation of a point in an image."""

    obs_point: Int[np.ndarray, "obs"]
    """Row of the point, ascending, 0 .. num_points-1, every row used."""
    obs_image: Int[np.ndarray, "obs"]
    """Index in the ImageSet."""
    obs_xy: Float[np.ndarray, "obs 2"]
    """Original pixels."""

    @staticmethod
    def empty() -> "Tracks":
        none = np.zeros(0, np.int64)
        return Tracks(obs_point=none, obs_image=none, obs_xy=np.zeros((0, 2)))

    @property
    def num_points(self) -> int:
        return int(self.obs_point[-1]) + 1 if len(self.obs_point) else 0


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """One connected model. Row k of the pose arrays belongs to image `image_index[k]` of the ImageSet."""

    image_index: Int[np.ndarray, "view"]
    cam_from_world: Float[np.ndarray, "view 3 4"]
    cameras: tuple[Camera, ...]
    camera_index: Int[np.ndarray, "view"]
    """Row of `cameras` of each view."""
    points: Float[np.ndarray, "point 3"]
    rgb: UInt8[np.ndarray, "point 3"]
    error_px: Float[np.ndarray, "point"]
    """Mean reprojection error of each point in original pixels; NaN where it has not been computed."""
    tracks: Tracks
    rigs: Rigs | None = None
    """Which views are tied to each other, by index in the ImageSet; None: all are by themselves. Poses of views agree
    with it once a model is adjusted."""
