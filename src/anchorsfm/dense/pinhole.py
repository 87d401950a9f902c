"""Pinhole pictures: what an adjusted camera without its distortion would take, as large as the front end's grid.

The front end's grid is free of the distortion the front end found; the adjusted camera has its own model. A pixel x of
the pinhole picture has the ray K^-1 x; the adjusted camera projects it into the photograph, and the front end's
distortion leads from there to its grid. Depths along the optical axis mean the same in all three. Where the way back
to the grid moves no pixel by more than `NEGLIGIBLE_PX`, the grid itself is the pinhole picture.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from anchorsfm.colmap.cameras import project
from anchorsfm.dense.views import DenseView
from anchorsfm.io.pictures import load_rgb
from anchorsfm.scene.images import ImageGrid, ImageSet
from anchorsfm.scene.reconstruction import Camera
from anchorsfm.stereo.grid import undistorted_rgb

NEGLIGIBLE_PX = 0.15
OVERSAMPLING = 1.5
"""Photographs are read this much larger than the pinhole picture, which stretches their border."""


@dataclass(frozen=True, kw_only=True)
class Pinhole:
    """How a pinhole picture of an image relates to its photograph and to the front end's grid."""

    image: int
    camera: Camera
    size_wh: tuple[int, int]
    focal_px: float
    principal_point_px: Float[np.ndarray, "2"]
    is_grid: bool
    """The grid shows the same, to a fraction of a pixel."""

    def to_photo(self, xy: Float[np.ndarray, "point 2"]) -> Float[np.ndarray, "point 2"]:
        """Original pixels of pinhole pixels; NaN outside the lens's view."""
        plane = (xy - self.principal_point_px) / self.focal_px
        found, _ = project(self.camera, np.column_stack([plane, np.ones(len(plane))]))
        return found

    def photo_pixels(self) -> Float[np.ndarray, "pixel 2"]:
        """`to_photo` of all its pixel centres, row after row."""
        return self.to_photo(_pixel_centres(self.size_wh))

    def inside(self) -> Bool[np.ndarray, "h w"]:
        """Pixels that the photograph shows."""
        if self.is_grid:
            return np.ones(self.size_wh[::-1], bool)
        at = np.nan_to_num(self.photo_pixels(), nan=-1.0)
        shown = (at >= 0).all(axis=1) & (at[:, 0] <= self.camera.width) & (at[:, 1] <= self.camera.height)
        return shown.reshape(self.size_wh[::-1])


def make_pinhole(
    image: int, camera: Camera, focal_px: float, principal_point_px: Float[np.ndarray, "2"], grid: ImageGrid
) -> Pinhole:
    """The pinhole picture of an image; focal length and principal point in grid pixels."""
    width, height = grid.size_wh[image].tolist()
    whole = Pinhole(
        image=image,
        camera=camera,
        size_wh=(width, height),
        focal_px=focal_px,
        principal_point_px=principal_point_px,
        is_grid=False,
    )
    x, y = np.meshgrid(np.linspace(0, width, 17), np.linspace(0, height, 17))
    xy = np.stack([x.ravel(), y.ravel()], axis=1)
    moved = np.linalg.norm(grid.to_grid(image, whole.to_photo(xy)) - xy, axis=1)
    if not np.nan_to_num(moved, nan=np.inf).max() < NEGLIGIBLE_PX:
        return whole
    return Pinhole(**{**vars(whole), "is_grid": True})


def to_pinhole(view: DenseView, pinhole: Pinhole, grid: ImageGrid) -> DenseView:
    """Depth and confidence of a view on the grid, at the pixels of its pinhole picture; 0 outside the grid."""
    if pinhole.is_grid:
        return view
    at = grid.to_grid(pinhole.image, pinhole.to_photo(_pixel_centres(pinhole.size_wh)))
    x, y = _opencv_maps(at, pinhole.size_wh)
    inverse = np.where(view.depth > 0, 1 / np.maximum(view.depth, 1e-12), 0).astype(np.float32)
    inverse, confidence = (
        cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
        for values in (inverse, view.confidence)
    )
    inside = inverse > 0
    return DenseView(
        depth=np.where(inside, 1 / np.where(inside, inverse, 1), 0).astype(np.float32),
        confidence=np.where(inside, confidence, 0).astype(np.float32),
        cam_from_world=view.cam_from_world,
        focal_px=view.focal_px,
        principal_point_px=view.principal_point_px,
    )


def pinhole_rgb(images: ImageSet, grid: ImageGrid, pinhole: Pinhole) -> UInt8[np.ndarray, "h w 3"]:
    """Colours of a pinhole picture. Raises InputError if the photograph cannot be read."""
    if pinhole.is_grid:
        return grid_colours(images, grid, pinhole.image)
    size_wh = images.size_wh[pinhole.image]
    zoom = min(1.0, OVERSAMPLING * float(grid.scale[pinhole.image].mean()))
    picture = load_rgb(images, pinhole.image, np.maximum(np.rint(size_wh * zoom), 1).astype(np.int64))
    at = pinhole.to_photo(_pixel_centres(pinhole.size_wh)) * (np.array(picture.shape[1::-1]) / size_wh)
    x, y = _opencv_maps(at, pinhole.size_wh)
    return np.asarray(cv2.remap(picture, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def grid_colours(images: ImageSet, grid: ImageGrid, image: int) -> UInt8[np.ndarray, "h w 3"]:
    """Colour of every grid pixel of a photograph, to the nearest pixel where the grid is a crop.

    Raises InputError if the photograph cannot be read.
    """
    if grid.is_distorted(image):
        return undistorted_rgb(images, grid, image)
    width, height = grid.size_wh[image].tolist()
    x, y = np.rint(-grid.offset[image]).astype(np.int64)
    whole_wh = np.maximum(np.rint(images.size_wh[image] * grid.scale[image]).astype(np.int64), (x + width, y + height))
    return load_rgb(images, image, whole_wh)[y : y + height, x : x + width]


def _pixel_centres(size_wh: tuple[int, int]) -> Float[np.ndarray, "pixel 2"]:
    x, y = np.meshgrid(np.arange(size_wh[0]) + 0.5, np.arange(size_wh[1]) + 0.5)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def _opencv_maps(xy: Float[np.ndarray, "pixel 2"], size_wh: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """COLMAP pixels as the maps of cv2.remap; pixels without a place lie far outside."""
    at = np.nan_to_num(xy - 0.5, nan=-1e4).astype(np.float32)
    x, y = at.T.reshape(2, size_wh[1], size_wh[0])
    return np.ascontiguousarray(x), np.ascontiguousarray(y)
