"""Views of an equirectangular panorama.

The rig of a panorama has x to the right, y down and z into the direction of the picture's middle column. A direction of
longitude l = atan2(x, z) and latitude b = atan2(-y, |(x, z)|) is at ((l / 2 pi + 1/2) width, (1/2 - b / pi) height), in
COLMAP's pixels. Views are pinhole pictures, square, with their principal point in the middle.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8
from scipy.spatial.transform import Rotation

from anchorsfm.geometry.pixels import pixel_centres

FIELD_DEG = 90.0
"""Of every view, across and down."""
_LEVEL, _TILTED, _TILT_DEG = 6, 4, 50
_MARGIN = 2
"""Columns that are repeated beyond the border, for interpolation across it."""
_FINER = 1.5
"""Panoramas that are sharper by more than this are first made smaller: views would alias."""


@dataclass(frozen=True)
class ViewDirection:
    """Where a view looks, in the rig of its panorama."""

    heading_deg: int
    """To the right of the middle of the panorama."""
    tilt_deg: int = 0
    """Upwards."""

    @property
    def name(self) -> str:
        """Such as 060, or 135+50."""
        return f"{self.heading_deg:03d}" + (f"{self.tilt_deg:+d}" if self.tilt_deg else "")

    @property
    def view_from_rig(self) -> Float[np.ndarray, "3 4"]:
        """Pose of the view in the rig, a rotation."""
        if not self.heading_deg and not self.tilt_deg:
            return np.eye(3, 4)
        rig_from_view = Rotation.from_euler("YX", [self.heading_deg, self.tilt_deg], degrees=True).as_matrix()
        return np.concatenate([rig_from_view.T, np.zeros((3, 1))], axis=1)


def directions(views: str) -> tuple[ViewDirection, ...]:
    """The views of a panorama, the one into its middle first; `views`: level or sphere."""
    level = tuple(ViewDirection(360 * k // _LEVEL) for k in range(_LEVEL))
    if views == "level":
        return level
    tilted = tuple(
        ViewDirection(360 * k // _TILTED + (45 if tilt > 0 else 0), tilt)
        for tilt in (_TILT_DEG, -_TILT_DEG)
        for k in range(_TILTED)
    )
    return level + tilted


def natural_side_px(width: int) -> int:
    """Side of views that are as sharp in their middle as a panorama of this width."""
    return max(2 * round(width * np.tan(np.deg2rad(FIELD_DEG / 2)) / (2 * np.pi)), 16)


def focal_px(side: int) -> float:
    """Focal length of views."""
    return float(side / 2 / np.tan(np.deg2rad(FIELD_DEG / 2)))


def cut(
    panorama: UInt8[np.ndarray, "h w *colour"], views: tuple[ViewDirection, ...], side: int, *, blends: bool = True
) -> Iterator[UInt8[np.ndarray, "side side *colour"]]:
    """The pixels of views, one at a time; `blends`: interpolated, otherwise those that are nearest."""
    height, width = panorama.shape[:2]
    wide = round(side * width / natural_side_px(width))
    method = cv2.INTER_AREA if blends else cv2.INTER_NEAREST
    if width > _FINER * wide or width + 2 * _MARGIN >= np.iinfo(np.int16).max:
        wide = min(wide, np.iinfo(np.int16).max - 2 * _MARGIN - 1)
        panorama = np.asarray(cv2.resize(panorama, (wide, max(wide // 2, 1)), interpolation=method), np.uint8)
        height, width = panorama.shape[:2]
    around = np.concatenate([panorama[:, -_MARGIN:], panorama, panorama[:, :_MARGIN]], axis=1)
    xy = (pixel_centres((side, side)).reshape(-1, 2) - side / 2) / focal_px(side)
    in_view = np.concatenate([xy, np.ones((len(xy), 1))], axis=1)
    for view in views:
        place = pixels_of(in_view @ view.view_from_rig[:, :3], (width, height)).reshape(side, side, 2)
        yield np.asarray(
            cv2.remap(
                around,
                place[..., 0] + np.float32(_MARGIN - 0.5),
                place[..., 1] - np.float32(0.5),
                cv2.INTER_LINEAR if blends else cv2.INTER_NEAREST,
                borderMode=cv2.BORDER_REPLICATE,
            ),
            np.uint8,
        )


def pixels_of(rays: Float[np.ndarray, "ray 3"], size_wh: tuple[int, int]) -> Float32[np.ndarray, "ray 2"]:
    """Where directions of the rig are in a panorama."""
    x, y, z = rays.T
    longitude, latitude = np.arctan2(x, z), np.arctan2(-y, np.hypot(x, z))
    width, height = size_wh
    return np.stack([(longitude / (2 * np.pi) + 0.5) * width, (0.5 - latitude / np.pi) * height], 1).astype(np.float32)
