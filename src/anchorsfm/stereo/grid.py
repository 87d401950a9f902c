"""The grid of every image, and its picture on the grid: resampled, and without its lens distortion where it has any."""

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from anchorsfm.geometry.pixels import pixel_centres
from anchorsfm.io.pictures import load_grey, load_rgb
from anchorsfm.scene.images import Distortion, ImageGrid, ImageSet

MAX_HALF_FIELD_DEG = 48.0
"""Undistorted pictures are cropped to twice this along either side: further out a pinhole picture stretches the
photograph more than twice, and focal lengths below 0.43 of the long side are outside what the alignment expects."""
OVERSAMPLING = 1.5
"""Photographs are read this much larger than they are at the centre of an undistorted grid: its border is stretched."""


def make_grid(
    images: ImageSet,
    long_side: int,
    distortion: Distortion | None = None,
    focal_px: Float[np.ndarray, "image"] | None = None,
) -> ImageGrid:
    """Grid of every image: its long side at most `long_side`, never enlarged, both sides scaled as alike as possible.

    A downstream model has one focal length per image, so a difference between the scales of the two sides (rounding
    341.33 pixels to 341) would be an error of up to 0.1 % that nothing can absorb. A few pixels less on the long side
    avoid most of it.

    A distorted image has an undistorted grid around its centre: the largest rectangle that lies within the
    photograph, but at most 2 `MAX_HALF_FIELD_DEG` wide or high; `focal_px` (original pixels) must be given then.
    """
    size_wh = np.stack([_grid_size_wh(wh, long_side) for wh in images.size_wh])
    scale, offset = size_wh / images.size_wh, np.zeros((len(size_wh), 2))
    if distortion is None or not distortion.coefficient.any():
        return ImageGrid(size_wh=size_wh, scale=scale, offset=offset)
    assert focal_px is not None
    for image in np.flatnonzero(distortion.coefficient.any(axis=1)).tolist():
        half = np.minimum(
            _undistorted_half_wh(distortion, image), focal_px[image] * np.tan(np.radians(MAX_HALF_FIELD_DEG))
        )
        zoom = min(1.0, min(long_side, int(images.size_wh[image].max())) / (2 * half.max()))
        size_wh[image] = np.maximum(np.floor(2 * half * zoom + 1e-6), 1)
        scale[image] = zoom
        offset[image] = size_wh[image] / 2 - zoom * images.size_wh[image] / 2
    return ImageGrid(size_wh=size_wh, scale=scale, offset=offset, distortion=distortion)


def _undistorted_half_wh(distortion: Distortion, image: int) -> Float[np.ndarray, "2"]:
    """Half the size of the largest centred rectangle of the undistorted picture that the photograph covers."""
    width, height = distortion.image_wh[image].tolist()
    border = np.array([[width, height / 2], [width / 2, height], [width, height]])
    right, bottom, corner = distortion.undistort(image, border) - distortion.image_wh[image] / 2
    return np.array([min(right[0], corner[0]), min(bottom[1], corner[1])])


def _grid_size_wh(size_wh: Int[np.ndarray, "2"], long_side: int) -> Int[np.ndarray, "2"]:
    largest = min(long_side, int(size_wh.max()))
    candidates = np.arange(largest, int(np.ceil(0.97 * largest)) - 1, -1)
    exact = candidates[:, None] * size_wh / size_wh.max()
    rounded = np.maximum(np.rint(exact), 1)
    unevenness = np.abs(np.log(rounded / exact)).max(1)
    good_enough = unevenness <= max(1e-4, float(unevenness.min()))
    return rounded[np.argmax(good_enough)].astype(np.int64)


def grid_grey(images: ImageSet, grid: ImageGrid, image: int) -> UInt8[np.ndarray, "h w"]:
    """Luminance of the grid pixels of an image whose grid is not a crop. Raises InputError if it cannot be read."""
    if not grid.is_distorted(image):
        return load_grey(images, image, grid.size_wh[image])
    return _undistorted(load_grey(images, image, _reading_size_wh(images, grid, image)), images, grid, image)


def undistorted_rgb(images: ImageSet, grid: ImageGrid, image: int) -> UInt8[np.ndarray, "h w 3"]:
    """Colours of the pixels of an undistorted grid. Raises InputError if the photograph cannot be read."""
    return _undistorted(load_rgb(images, image, _reading_size_wh(images, grid, image)), images, grid, image)


def _reading_size_wh(images: ImageSet, grid: ImageGrid, image: int) -> Int[np.ndarray, "2"]:
    zoom = min(1.0, OVERSAMPLING * float(grid.scale[image].mean()))
    return np.maximum(np.rint(images.size_wh[image] * zoom), 1).astype(np.int64)


def _undistorted(
    picture: UInt8[np.ndarray, "rows columns *channel"], images: ImageSet, grid: ImageGrid, image: int
) -> UInt8[np.ndarray, "h w *channel"]:
    width, height = grid.size_wh[image].tolist()
    xy = grid.to_image(image, pixel_centres((width, height)).reshape(-1, 2))
    xy = xy * (np.array(picture.shape[1::-1]) / images.size_wh[image]) - 0.5  # OpenCV's pixels
    x, y = xy.astype(np.float32).T.reshape(2, height, width)
    warped = cv2.remap(picture, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, np.uint8)
