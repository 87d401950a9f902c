"""Sky in photographs, by what it looks like: smooth down to its grain, and along the upper border.

No trained weights, so no understanding either: a pale wall or a ceiling that fills the upper border looks the same.
What tells most surfaces apart is their grain: plaster, asphalt and carpets differ from one pixel to the next by more
than sky and clouds do. Sky that shows only in small parts of the upper border is left alone, for so do plastered walls.

    pieces   smooth connected parts of the picture whose grain is that of sky
    sky      those at the upper border, if they are a good part of it; those close to sky, such as clouds
    border   of the sky: GrabCut (Rother, Kolmogorov, Blake 2004), from what is surely sky and surely not
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from anchorsfm.io.pictures import load_rgb, working_size_wh
from anchorsfm.io.workers import map_stage
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.progress import Progress

_SIZE = 512
"""Long side in pixels at which photographs are looked at: the noise of most is gone."""
_SMOOTH = 1.6
"""Slope within a piece, in units of CIELAB a pixel, on average over ..."""
_AROUND = 5
"""... a square of so many pixels."""
_GRAIN = 0.22
"""Half of a piece's pixels differ from the mean of their neighbours by less than this much lightness. Sky and clouds
have up to 0.18 (in 10 photographs), plastered walls 0.16 to 0.27, wallpaper, asphalt and carpets from 0.28 on."""
_GRAIN_BESIDE = 0.28
"""The same for pieces close to sky, such as rough clouds: masonry has 0.29 and more."""
_LIGHTNESS, _YELLOW, _RED_OR_GREEN = 25.0, 20.0, 15.0
"""Sky is lighter than this and less yellow (b*), red or green (a*): blue, grey, white, or a little warm."""
_LEAST_PIXELS = 60
"""Of a piece."""
_OF_BORDER = 0.25
"""Share of the upper border that pieces of sky cover at least."""
_GAP = 10
"""Pixels between sky and what is a part of it, at most."""
_SURELY_OTHER = 40.0
"""What is further from sky in pixels is none."""
_BLURRED_BORDER = 4.0
"""Pixels by which pieces are smaller than what they are pieces of, for nothing is smooth at its border."""
_MOST = 0.95
"""Share of a picture beyond which it is left alone: there is nothing to tell sky from."""
_ROUNDS = 3


def sky_of_photographs(images: ImageSet, num_workers: int, progress: Progress) -> dict[int, Bool[np.ndarray, "h w"]]:
    """Masks of the photographs that show sky, True where there is none, in any size.

    Raises InputError if a photograph can no longer be read.
    """

    def look(image: int) -> Bool[np.ndarray, "h w"]:
        return find_sky(load_rgb(images, image, working_size_wh(images.size_wh[image], _SIZE)))

    found = map_stage("looking for sky", look, images.num_images, progress, num_workers)
    masks = {image: ~sky for image, sky in enumerate(found) if sky.any()}
    progress.note(f"{len(masks)} of {images.num_images} photographs show sky, which is ignored")
    return masks


def find_sky(rgb: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"]:
    """Where a photograph of some 500 pixels shows sky; nowhere, if nothing is surely sky."""
    pieces, grain = _pieces(rgb)
    at_border = np.unique(pieces[0])
    sky = np.isin(pieces, at_border[grain[at_border] < _GRAIN])
    if sky[0].mean() < _OF_BORDER:
        return np.zeros(sky.shape, bool)
    before = 0
    while before < (before := int(sky.sum())):
        near = np.unique(pieces[_away(sky) <= _GAP])
        sky |= np.isin(pieces, near[grain[near] < _GRAIN_BESIDE])
    return np.zeros(sky.shape, bool) if sky.mean() > _MOST else _to_its_border(sky, rgb)


def _pieces(rgb: UInt8[np.ndarray, "h w 3"]) -> tuple[Int[np.ndarray, "h w"], Float[np.ndarray, "piece"]]:
    """The piece that each pixel is of, and the grain of every piece; what is of none is piece 0, of infinite grain."""
    lab = np.asarray(cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB))
    lightness, red_or_green, yellow = np.moveaxis(lab, -1, 0)
    is_smooth = cv2.blur(_slope(lab), (_AROUND, _AROUND)) < _SMOOTH
    is_coloured = (lightness > _LIGHTNESS) & (yellow < _YELLOW) & (np.abs(red_or_green) < _RED_OR_GREEN)
    number, pieces = cv2.connectedComponents((is_smooth & is_coloured).astype(np.uint8), connectivity=4)
    # the border of a piece has the grain of what is beside it
    inner = np.where(_shrunk(pieces > 0, np.ones((_AROUND, _AROUND), np.uint8)), pieces, 0)
    by_piece = _grain(lightness).ravel()[np.argsort(inner, axis=None, kind="stable")]
    parts = np.split(by_piece, np.cumsum(np.bincount(inner.ravel(), minlength=number))[:-1])
    grain = [np.median(part) if len(part) >= _LEAST_PIXELS else np.inf for part in parts[1:]]
    return np.asarray(pieces), np.array([np.inf, *grain])


def _to_its_border(sky: Bool[np.ndarray, "h w"], rgb: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"]:
    """Sky with what is between its pieces, and up to what stands before it."""
    away = _away(sky)
    state = np.full(sky.shape, cv2.GC_PR_BGD, np.uint8)
    state[away > _SURELY_OTHER] = cv2.GC_BGD
    state[away < _BLURRED_BORDER] = cv2.GC_PR_FGD
    state[_shrunk(sky, np.ones((3, 3), np.uint8))] = cv2.GC_FGD
    cv2.setRNGSeed(0)  # of this thread
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    cv2.grabCut(bgr, state, None, np.zeros((1, 65)), np.zeros((1, 65)), _ROUNDS, cv2.GC_INIT_WITH_MASK)
    _, parts = cv2.connectedComponents(np.isin(state, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8), connectivity=8)
    return np.isin(parts, np.unique(parts[sky & (parts > 0)]))


def _grain(lightness: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Difference of each pixel from the mean of its four neighbours."""
    kernel = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32) / 4
    return np.abs(lightness - cv2.filter2D(lightness, cv2.CV_32F, kernel, borderType=cv2.BORDER_REPLICATE))


def _slope(lab: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"]:
    """Change from one pixel to the next, of the channel that changes most."""
    blurred = cv2.GaussianBlur(lab, (0, 0), 0.8)
    along, down = (
        cv2.Sobel(blurred, cv2.CV_32F, dx, 1 - dx, scale=1 / 8, borderType=cv2.BORDER_REPLICATE) for dx in (1, 0)
    )
    return np.asarray(np.hypot(along, down).max(axis=2))


def _away(part: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Distance from it in pixels."""
    return np.asarray(cv2.distanceTransform((~part).astype(np.uint8), cv2.DIST_L2, 3))


def _shrunk(part: Bool[np.ndarray, "h w"], by: UInt8[np.ndarray, "side side"]) -> Bool[np.ndarray, "h w"]:
    """Without what lies at its border; the border of the picture is none."""
    return np.asarray(cv2.erode(part.astype(np.uint8), by, borderType=cv2.BORDER_CONSTANT, borderValue=1)).astype(bool)
