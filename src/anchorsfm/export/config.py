"""Formats and settings of an export: light to import."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from anchorsfm.scene.settings import Range, Settings
from anchorsfm.scene.undistortion import UndistortConfig

ExportFormat = Literal[
    "undistorted", "transforms", "colmap-binary", "colmap-text", "ply", "glb", "database", "tum", "kitti"
]
"""undistorted: photographs and a PINHOLE model for radiance field trainers; transforms: nerfstudio's transforms.json;
database: COLMAP's; tum and kitti: camera paths as text."""


PointKind = Literal["sparse", "dense"]


@dataclass(frozen=True, kw_only=True)
class ExportConfig(Settings):
    """Settings of an export."""

    points: PointKind = "sparse"
    """Points that trainers start from, in the formats undistorted and transforms. sparse: the triangulated ones; dense:
    those of the dense cloud, beside the triangulated ones (undistorted) or instead of them (transforms)."""
    max_dense: Annotated[int, Range(1, 100_000_000)] = 500_000
    """Points of the dense cloud that are exported at most, chosen evenly at random; trainers keep all in memory."""
    images: Path | None = None
    """Folder that image names are relative to; known from report.json where the photographs have not moved."""
    masks: Path | None = None
    """Folder with a mask <image name>.png (or <name without extension>.png) for every image: black is ignored.
    Without it: the masks that the model was made with, if any."""
    invert_masks: bool = False
    """Ignore the white parts of masks instead of the black ones."""
    undistort: UndistortConfig = field(default_factory=UndistortConfig)
    """How the pictures of the format undistorted are made."""
    jpeg_quality: Annotated[int, Range(1, 100)] = 95
    """JPEG quality, 1 .. 100, of pictures made from JPEG photographs; PNG, TIFF and BMP become PNG."""
