"""Plane sweep: depth of one image of a pair from correlation with the other (Collins 1996; Gallup et al. 2007).

Notation. Inverse depth r = 1/z in the reference camera; a reference pixel x = (u, v, 1) (COLMAP pixels of the grid)
with inverse depth r lies in the other image at

    x' ~ A x + r b,   A = K' R K^-1,   b = K' t,   (R, t) = other_from_reference.

No rectification is needed, so cameras may differ in size and focal length and move in any direction. The frontoparallel
plane of inverse depth r is the homography A + r b (0, 0, 1). The scale of x' is z'/z, which also gives depth in the
other camera.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int16, UInt8

from anchorsfm.stereo import aggregation as sgm
from anchorsfm.stereo.config import SweepConfig

MIN_VARIANCE = 2.0
"""Grey value variance added where a window has less: correlation of pure noise counts little."""
MIN_CORRELATION = -0.2
"""Worse correlations cost the same: an occluded pixel should not pull its neighbours."""
FAR_MARGIN, NEAR_MARGIN = 0.7, 1.15
"""How far the searched inverse depths reach beyond those of the sparse matches."""
TO_CENTRE = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
"""OpenCV's pixel coordinates (integers at pixel centres) to COLMAP's."""


@dataclass(frozen=True, kw_only=True)
class GridView:
    """One image of a pair on the grid."""

    grey: UInt8[np.ndarray, "h w"]
    focal_xy: tuple[float, float]
    """Grid pixels along x and y, which differ a little when the sides were rounded."""

    principal_point: tuple[float, float] | None = None
    """Grid pixels; None: the centre."""

    @property
    def intrinsics(self) -> Float[np.ndarray, "3 3"]:
        height, width = self.grey.shape
        x, y = self.principal_point or (width / 2, height / 2)
        return np.array([[self.focal_xy[0], 0, x], [0, self.focal_xy[1], y], [0, 0, 1]])


@dataclass(frozen=True, kw_only=True)
class Epipolar:
    """x' ~ A x + r b from a reference view to the other (see the module's notation)."""

    infinity: Float[np.ndarray, "3 3"]
    epipole: Float[np.ndarray, "3"]


def epipolar(reference: GridView, other: GridView, other_from_reference: Float[np.ndarray, "3 4"]) -> Epipolar:
    k = other.intrinsics
    return Epipolar(
        infinity=k @ other_from_reference[:, :3] @ np.linalg.inv(reference.intrinsics),
        epipole=k @ other_from_reference[:, 3],
    )


@dataclass(frozen=True, kw_only=True)
class Warped:
    """Where the pixels of the reference lie in the other image, and the ratio of depths there and here.

    Pixels behind the other camera have a ratio of 0 and lie at -1e4."""

    x: Float32[np.ndarray, "h w"]
    y: Float32[np.ndarray, "h w"]
    depth_ratio: Float32[np.ndarray, "h w"]


def warp(inverse_depth: Float32[np.ndarray, "h w"], geometry: Epipolar) -> Warped:
    height, width = inverse_depth.shape
    u = np.arange(width, dtype=np.float32) + np.float32(0.5)
    v = (np.arange(height, dtype=np.float32) + np.float32(0.5))[:, None]
    a, b = geometry.infinity.astype(np.float32), geometry.epipole.astype(np.float32)
    x, y, z = ((a[k, 0] * u + a[k, 2]) + a[k, 1] * v + b[k] * inverse_depth for k in range(3))
    behind = z <= 1e-4
    z[behind] = 1.0
    x /= z
    y /= z
    x[behind] = y[behind] = -1e4
    z[behind] = 0.0
    return Warped(x=x, y=y, depth_ratio=z)


def sample(image: Float32[np.ndarray, "h w"], at: Warped, border: float) -> Float32[np.ndarray, "rows cols"]:
    """Bilinear values of an image at warped positions; `border` outside."""
    return cv2.remap(
        image, at.x - 0.5, at.y - 0.5, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=border
    )


def inverse_depth_per_px(inverse_depth: Float32[np.ndarray, "h w"], geometry: Epipolar) -> Float32[np.ndarray, "h w"]:
    """How much inverse depth changes when the point moves by one pixel in the other image."""
    step = np.float32(1e-3)
    here, there = warp(inverse_depth, geometry), warp(inverse_depth * (1 + step), geometry)
    moved = np.hypot(there.x - here.x, there.y - here.y)
    return inverse_depth * step / np.maximum(moved, 1e-6)


def choose_planes(
    reference: GridView, geometry: Epipolar, match_depth: Float[np.ndarray, "match"], config: SweepConfig
) -> Float[np.ndarray, "plane"]:
    """Inverse depths of the planes: uniform over the range of the matches and a margin, `plane_step_px` apart."""
    low, high = np.percentile(1.0 / match_depth, [0.5, 99.5]) * (FAR_MARGIN, NEAR_MARGIN)
    height, width = reference.grey.shape
    u, v = np.meshgrid(np.linspace(0.05, 0.95, 5) * width, np.linspace(0.05, 0.95, 5) * height)
    base = np.stack([u.ravel(), v.ravel(), np.ones(u.size)], axis=1) @ geometry.infinity.T
    ends = [base + r * geometry.epipole for r in (low, high)]
    visible = np.minimum(ends[0][:, 2], ends[1][:, 2]) > 1e-3
    if not visible.any():
        return np.linspace(low, high, config.min_planes)
    far, near = (end[visible, :2] / end[visible, 2:] for end in ends)
    length_px = np.percentile(np.linalg.norm(near - far, axis=1), 75)
    return np.linspace(low, high, int(np.clip(length_px / config.plane_step_px, config.min_planes, config.max_planes)))


@dataclass(frozen=True, kw_only=True)
class Window:
    """Mean and variance of the reference in the correlation window of every pixel."""

    size: tuple[int, int]
    values: Float32[np.ndarray, "h w"]
    mean: Float32[np.ndarray, "h w"]
    variance: Float32[np.ndarray, "h w"]


def window_statistics(grey: UInt8[np.ndarray, "h w"], radius: int) -> Window:
    size = (2 * radius + 1, 2 * radius + 1)
    values = grey.astype(np.float32)
    mean = cv2.boxFilter(values, -1, size)
    variance = np.maximum(cv2.boxFilter(values * values, -1, size) - mean * mean, MIN_VARIANCE)
    return Window(size=size, values=values, mean=mean, variance=variance)


def correlation(window: Window, warped: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Zero-mean normalised cross-correlation of the reference with a warped image; 0 where that is unseen (< 0)."""
    mean = cv2.boxFilter(warped, -1, window.size)
    variance = cv2.boxFilter(warped * warped, -1, window.size)
    covariance = cv2.boxFilter(warped * window.values, -1, window.size)
    variance -= mean * mean
    covariance -= mean * window.mean
    np.maximum(variance, MIN_VARIANCE, out=variance)
    variance *= window.variance
    covariance /= np.sqrt(variance, out=variance)
    covariance[warped < 0] = 0.0
    return covariance


def sweep_costs(
    reference: GridView,
    other: GridView,
    geometry: Epipolar,
    planes: Float[np.ndarray, "plane"],
    config: SweepConfig,
) -> Int16[np.ndarray, "h plane w"]:
    """Integer cost (0 .. 1.2 COST_SCALE) of every pixel at every plane."""
    height, width = reference.grey.shape
    window = window_statistics(reference.grey, config.window_radius)
    target = other.grey.astype(np.float32)
    cost = np.empty((height, len(planes), width), np.int16)
    for index, inverse_depth in enumerate(planes):
        homography = geometry.infinity + inverse_depth * np.outer(geometry.epipole, [0.0, 0.0, 1.0])
        warped = cv2.warpPerspective(
            target,
            np.linalg.inv(TO_CENTRE) @ homography @ TO_CENTRE,
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=-1,
        )
        _hide_behind(warped, homography)
        value = correlation(window, warped)
        np.maximum(value, MIN_CORRELATION, out=value)
        value *= -sgm.COST_SCALE
        value += sgm.COST_SCALE
        cost[:, index] = value
    return cost


def _hide_behind(warped: Float32[np.ndarray, "h w"], homography: Float[np.ndarray, "3 3"]) -> None:
    """Mark pixels whose plane point is behind the other camera as unseen; a homography mirrors them into view."""
    height, width = warped.shape
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]], float)
    if (corners @ homography[2] > 0).all():
        return
    u, v = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
    warped[homography[2, 0] * u + homography[2, 1] * v + homography[2, 2] <= 0] = -1


def sweep(
    reference: GridView,
    other: GridView,
    geometry: Epipolar,
    planes: Float[np.ndarray, "plane"],
    config: SweepConfig,
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """Inverse depth of every reference pixel, and the correlation there."""
    cost = sweep_costs(reference, other, geometry, planes, config)
    total = sgm.aggregate(cost, sgm.step_penalties(reference.grey))
    winner, position = sgm.winning_plane(total)
    matched = np.take_along_axis(cost, winner[:, None], axis=1)[:, 0]
    inverse_depth = np.interp(position, np.arange(len(planes)), planes).astype(np.float32)
    return cv2.medianBlur(inverse_depth, 5), 1 - matched.astype(np.float32) / sgm.COST_SCALE
