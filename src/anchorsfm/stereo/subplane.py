"""Depth below the distance of two planes: local alignment of the windows along the epipolar line.

Lucas and Kanade's registration (1981) in one unknown, the shift s in pixels along the epipolar line. With reference g
and warped other image w, both reduced to zero mean and unit variance in the window, and derivative w' by s:

    s = sum w' (g - w) / sum w'^2     over the window.

Plane sweeping compares frontoparallel windows; here the window follows the depth map itself, so slanted surfaces
match better. The step is taken only where it raises the correlation.
"""

import cv2
import numpy as np
from jaxtyping import Float32

from anchorsfm.stereo.config import SweepConfig
from anchorsfm.stereo.sweep import (
    Epipolar,
    GridView,
    Window,
    correlation,
    inverse_depth_per_px,
    sample,
    warp,
    window_statistics,
)

ROUNDS = 2
MAX_SHIFT_PX = 0.75
"""Larger steps leave the range in which the linearisation holds."""
MAX_PRIOR_PX = 1.5
"""The smoothed depth is the starting point only where it is this close to the swept one: not across edges."""
HALF_STEP_PX = 0.5


def refine_below_planes(
    reference: GridView,
    other: GridView,
    geometry: Epipolar,
    inverse_depth: Float32[np.ndarray, "h w"],
    found_correlation: Float32[np.ndarray, "h w"],
    config: SweepConfig,
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """Refined inverse depth and the correlation there."""
    window = window_statistics(reference.grey, config.window_radius)
    target = other.grey.astype(np.float32)
    per_px = np.minimum(inverse_depth_per_px(inverse_depth, geometry), 0.05 * inverse_depth)
    smooth = _smooth_along_surfaces(inverse_depth, np.clip(found_correlation, 0.05, 1) ** 2, window)
    current = np.where(np.abs(smooth - inverse_depth) < MAX_PRIOR_PX * per_px, smooth, inverse_depth)
    best, best_correlation = inverse_depth, found_correlation
    for _ in range(ROUNDS):
        shift, here = _align(window, target, geometry, current, per_px)
        best, best_correlation = _keep_better(best, best_correlation, current, here)
        current = np.maximum(current + shift * per_px, 1e-9)
    here = correlation(window, sample(target, warp(current, geometry), border=-1.0))
    return _keep_better(best, best_correlation, current, here)


def _keep_better(
    best: Float32[np.ndarray, "h w"],
    best_correlation: Float32[np.ndarray, "h w"],
    new: Float32[np.ndarray, "h w"],
    new_correlation: Float32[np.ndarray, "h w"],
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    better = new_correlation > best_correlation
    return np.where(better, new, best), np.where(better, new_correlation, best_correlation)


def _align(
    window: Window,
    target: Float32[np.ndarray, "other_h other_w"],
    geometry: Epipolar,
    inverse_depth: Float32[np.ndarray, "h w"],
    per_px: Float32[np.ndarray, "h w"],
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """Shift in pixels that aligns every window, and the correlation before it."""
    half = np.float32(HALF_STEP_PX) * per_px
    here = sample(target, warp(inverse_depth, geometry), border=-1.0)
    ahead = sample(target, warp(inverse_depth + half, geometry), border=-1.0)
    behind = sample(target, warp(np.maximum(inverse_depth - half, 1e-9), geometry), border=-1.0)
    slope = (ahead - behind) / (2 * HALF_STEP_PX)
    mean = cv2.boxFilter(here, -1, window.size)
    variance = np.maximum(cv2.boxFilter(here * here, -1, window.size) - mean * mean, 1e-3)
    gain = np.sqrt(window.variance / variance)
    # g - mean(g) - gain (w - mean(w)) against the derivative gain w', whose window mean drops out of the residual
    slope_mean = cv2.boxFilter(slope, -1, window.size)
    slope_g = cv2.boxFilter(slope * window.values, -1, window.size) - slope_mean * window.mean
    slope_w = cv2.boxFilter(slope * here, -1, window.size) - slope_mean * mean
    power = cv2.boxFilter(slope * slope, -1, window.size) - slope_mean * slope_mean
    shift = (slope_g / gain - slope_w) / np.maximum(power, 1.0)
    usable = (here >= 0) & (ahead >= 0) & (behind >= 0)
    shift = np.where(usable, np.clip(shift, -MAX_SHIFT_PX, MAX_SHIFT_PX), 0).astype(np.float32)
    return shift, correlation(window, here)


def _smooth_along_surfaces(
    inverse_depth: Float32[np.ndarray, "h w"], weight: Float32[np.ndarray, "h w"], window: Window
) -> Float32[np.ndarray, "h w"]:
    """Weighted guided filter (He et al., PAMI 2013): locally inverse depth = a * grey + b."""
    grey = window.values

    def mean(values: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
        return cv2.boxFilter(values, -1, window.size)

    total = mean(weight)
    mean_grey = mean(weight * grey) / total
    mean_depth = mean(weight * inverse_depth) / total
    covariance = mean(weight * grey * inverse_depth) / total - mean_grey * mean_depth
    variance = np.maximum(mean(weight * grey * grey) / total - mean_grey**2, 0)
    a = covariance / (variance + 50.0)
    b = mean_depth - a * mean_grey
    return (mean(weight * a) * grey + mean(weight * b)) / total
