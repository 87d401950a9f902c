"""Which dense depths to believe: left-right check, speckles, texture; and a smooth guess elsewhere."""

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from anchorsfm.stereo.sweep import Epipolar, Window, inverse_depth_per_px, sample, warp

PEAK = 12.0
"""Confidence above 1 of a pixel that passes every check perfectly."""
MIN_CORRELATION = 0.4
NOISE_VARIANCE = 4.0
"""Grey value variance of camera noise: windows that vary as little match anywhere."""
SPECKLE_LOG_STEP = 0.02
"""Neighbouring pixels of one surface differ less than this in log depth."""
UNCHECKED_PX = 99.0


def left_right_error_px(
    inverse_depth: Float32[np.ndarray, "h w"],
    geometry: Epipolar,
    other_inverse_depth: Float32[np.ndarray, "other_h other_w"],
    back: Epipolar,
) -> Float32[np.ndarray, "h w"]:
    """Follow every pixel to the other image and, with the depth found there, back: distance in pixels.

    `geometry` leads from here to the other view and `back` the other way round. Pixels that leave the other view get
    UNCHECKED_PX.
    """
    there = warp(inverse_depth, geometry)
    found = sample(other_inverse_depth, there, border=-1.0)
    per_px = sample(inverse_depth_per_px(other_inverse_depth, back), there, border=1.0)
    inside = (there.depth_ratio > 0) & (found > 0)
    expected = inverse_depth / np.where(inside, there.depth_ratio, 1)
    error = np.abs(found - expected) / np.maximum(per_px, 1e-12)
    return np.where(inside, np.minimum(error, UNCHECKED_PX), np.float32(UNCHECKED_PX))


def confidence(
    correlation: Float32[np.ndarray, "h w"],
    error_px: Float32[np.ndarray, "h w"],
    inverse_depth: Float32[np.ndarray, "h w"],
    window: Window,
    min_region_px: int,
) -> Float32[np.ndarray, "h w"]:
    """On the network's scale: 1 nothing is known, about 5 doubtful, 10 and more where every check is passed."""
    texture = window.variance / (window.variance + NOISE_VARIANCE)
    trust = np.clip(correlation, 0, 1) * texture * np.exp(-0.5 * np.minimum(error_px, 10) ** 2)
    trust[correlation < MIN_CORRELATION] = 0
    trust[(trust < 0.05) | ~_in_large_region(inverse_depth, trust > 0.05, min_region_px)] = 0
    return (1 + PEAK * trust).astype(np.float32)


def _in_large_region(
    inverse_depth: Float32[np.ndarray, "h w"], candidate: Bool[np.ndarray, "h w"], min_region_px: int
) -> Bool[np.ndarray, "h w"]:
    """Candidates in connected regions of at least `min_region_px` pixels without a jump in depth."""
    step = 100
    levels = np.log(np.maximum(inverse_depth, 1e-12))
    levels = levels - levels.min()
    quantised = np.clip(levels * (step / SPECKLE_LOG_STEP), 0, 32000).astype(np.int16)
    quantised[~candidate] = -1
    cv2.filterSpeckles(quantised, -1, min_region_px, step)
    return quantised >= 0


def fill_smoothly(
    inverse_depth: Float32[np.ndarray, "h w"], confidence: Float32[np.ndarray, "h w"], guess: float
) -> Float32[np.ndarray, "h w"]:
    """Replace pixels of confidence 1 by averages of ever wider surroundings (pull-push), at worst by `guess`."""
    weight = np.minimum(confidence - 1, 1)
    filled = _pull_push(inverse_depth * weight, weight, guess)
    return np.where(confidence > 1, inverse_depth, filled).astype(np.float32)


def _pull_push(
    weighted: Float32[np.ndarray, "h w"], weight: Float32[np.ndarray, "h w"], guess: float
) -> Float32[np.ndarray, "h w"]:
    height, width = weight.shape
    if min(height, width) < 2:
        coarse = np.full_like(weight, guess)
    else:
        coarse = _pull_push(cv2.pyrDown(weighted), cv2.pyrDown(weight), guess)
        coarse = cv2.pyrUp(coarse)[:height, :width]
        coarse = cv2.resize(coarse, (width, height)) if coarse.shape != weight.shape else coarse
    share = np.minimum(weight * 4, 1)
    return share * (weighted / np.maximum(weight, 1e-6)) + (1 - share) * coarse
