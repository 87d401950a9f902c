"""The photographs of a run and the grid a front end looks at them on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True)
class SkippedImage:
    """A file that was found but not used."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Photographs, upright (EXIF orientation applied), with what is known about their cameras.

    Pixels are COLMAP's: (0.5, 0.5) is the centre of the top-left pixel of the upright image.
    """

    root: Path
    """Folder that `names` are relative to."""
    names: tuple[str, ...]
    """Path of each image relative to `root`, with '/' on every platform."""
    size_wh: Int[np.ndarray, "image 2"]
    """Upright width and height in original pixels."""
    camera_index: Int[np.ndarray, "image"]
    """Row of the camera each image was taken with: 0 .. num_cameras-1, every row used."""
    focal_prior_px: Float[np.ndarray, "image"]
    """Focal length in original pixels from EXIF or the user; NaN where unknown."""
    digests: tuple[str, ...]
    """SHA-256 of each file's bytes: identity for the cache."""
    skipped: tuple[SkippedImage, ...] = ()
    """Files that were found but could not be read."""

    @property
    def num_images(self) -> int:
        return len(self.names)

    @property
    def num_cameras(self) -> int:
        return int(self.camera_index.max()) + 1 if len(self.camera_index) else 0

    def path(self, image: int) -> Path:
        return self.root / self.names[image]


@dataclass(frozen=True, kw_only=True)
class ImageGrid:
    """The resampled grid a front end predicts on: xy_grid = scale * xy_image + offset (both COLMAP pixels)."""

    size_wh: Int[np.ndarray, "image 2"]
    scale: Float[np.ndarray, "image 2"]
    offset: Float[np.ndarray, "image 2"]

    def to_grid(self, image: int, xy_image: Float[np.ndarray, "point 2"]) -> Float[np.ndarray, "point 2"]:
        return xy_image * self.scale[image] + self.offset[image]

    def to_image(self, image: int, xy_grid: Float[np.ndarray, "point 2"]) -> Float[np.ndarray, "point 2"]:
        return (xy_grid - self.offset[image]) / self.scale[image]
