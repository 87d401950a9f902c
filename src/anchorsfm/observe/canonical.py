"""Canonical views: fusing what all pairs say about one image (docs/method.md, Canonical views).

Every pair n that contains an image predicts its pointmap X^n in the image's own frame with confidence C^n >= 1. With
weights w^n = C^n - 0.999 the canonical pointmap is the weighted mean of the X^n and its confidence sum w^2 / sum w.

The grid is cut into blocks of `subsample` x `subsample` pixels, each with an anchor, the pixel with index
(subsample/2, subsample/2) in it. Depth inside a block is stored relative to its anchor c, so that only anchor depths
are unknowns later. For a pixel p at distance r = |X_xy(p) - X_xy(c)| from the anchor, the angle
a = atan((z(p) - z(c)) / r) hardly depends on the scale of a prediction: a is averaged with the weights, r without, and
d(p) = 1 + mean(r) tan(mean a) / z_canonical(c).

All of this is sums over pairs. They are accumulated as predictions stream by; no pointmap is kept.

Blocks at the right and bottom edge may be cut by the image border; their anchor is then clamped into the image.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from anchorsfm.observe.config import FOCAL_RANGE, DepthMode
from anchorsfm.scene.graph import CanonicalView

CONFIDENCE_OF_NOTHING = 0.999
"""Subtracted from confidences: "know nothing" (1) keeps a weight of 0.001, so that sums never vanish."""
SMALLEST = float(np.finfo(np.float32).tiny)
"""Stands for zero in denominators."""
MIN_RADIUS = 1e-8
"""Of the depth of the anchor, or of a typical one."""


def num_blocks(length: int, subsample: int) -> int:
    """Blocks along a side of `length` pixels, a cut one included."""
    return -(-length // subsample)


def anchor_coordinate(length: int, subsample: int) -> Int[np.ndarray, "block"]:
    """Pixel index of the anchor of every block along one side."""
    first = np.arange(num_blocks(length, subsample)) * subsample
    return np.minimum(first + subsample // 2, length - 1)


def anchor_pixels(size_wh: tuple[int, int], subsample: int) -> Int[np.ndarray, "anchor 2"]:
    """Pixel index (x, y) of every anchor of an image, row-major over blocks."""
    x, y = (anchor_coordinate(length, subsample) for length in size_wh)
    return np.stack([np.tile(x, len(y)), np.repeat(y, len(x))], axis=1)


def at_anchors(pixels: Float[np.ndarray, "h w *value"], subsample: int) -> Float[np.ndarray, "row col *value"]:
    """Values at the anchors of an image of pixels."""
    y, x = (anchor_coordinate(length, subsample) for length in pixels.shape[:2])
    return pixels[np.ix_(y, x)]


def spread(
    blocks: Float[np.ndarray, "row col *value"], size_wh: tuple[int, int], subsample: int
) -> Float[np.ndarray, "h w *value"]:
    """One value per block copied to every pixel of the block."""
    width, height = size_wh
    return blocks.repeat(subsample, axis=0)[:height].repeat(subsample, axis=1)[:, :width]


_SUMS = ("weight", "weight_squared", "point", "relief", "radius")


class CanonicalAccumulator:
    """Running sums over the predictions about one image."""

    def __init__(
        self,
        size_wh: tuple[int, int],
        subsample: int = 8,
        mode: DepthMode = DepthMode.AVERAGE_ANGLE,
        dtype: type[np.floating] = np.float32,
    ) -> None:
        """Sums are kept in `dtype`: 28 bytes per pixel in float32."""
        width, height = size_wh
        self.size_wh = size_wh
        self.subsample = subsample
        self.mode = mode
        self.num_predictions = 0
        self._weight = np.zeros((height, width), dtype)
        self._weight_squared = np.zeros((height, width), dtype)
        self._point = np.zeros((height, width, 3), dtype)
        self._relief = np.zeros((height, width), dtype)
        """Weighted sum of angles or of depth ratios, by mode."""
        self._radius = np.zeros((height, width) if mode == DepthMode.AVERAGE_ANGLE else (0, 0), dtype)

    def add(self, pointmap: Float[np.ndarray, "h w 3"], confidence: Float[np.ndarray, "h w"]) -> None:
        """Add one prediction: points in the image's own frame, confidences >= 1."""
        assert pointmap.shape[:2] == confidence.shape == self._weight.shape, "prediction of another grid size"
        points = pointmap.astype(self._weight.dtype, copy=False)
        weight = confidence.astype(self._weight.dtype, copy=False) - self._weight.dtype.type(CONFIDENCE_OF_NOTHING)
        self.num_predictions += 1
        self._weight += weight
        self._weight_squared += weight * weight
        self._point += weight[..., None] * points
        anchor = spread(at_anchors(points, self.subsample), self.size_wh, self.subsample)
        anchor_z = np.maximum(anchor[..., 2], SMALLEST)
        if self.mode == DepthMode.AVERAGE_ANGLE:
            radius = np.hypot(points[..., 0] - anchor[..., 0], points[..., 1] - anchor[..., 1])
            np.maximum(radius, np.maximum(MIN_RADIUS * anchor_z, SMALLEST), out=radius)
            self._radius += radius
            self._relief += weight * np.arctan((points[..., 2] - anchor_z) / radius)
        else:
            self._relief += weight * (points[..., 2] / anchor_z)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The sums, for storing."""
        return {
            "num_predictions": np.array([self.num_predictions]),
            **{name: getattr(self, f"_{name}") for name in _SUMS},
        }

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Continue from stored sums of an accumulator of the same size and mode."""
        self.num_predictions = int(arrays["num_predictions"][0])
        for name in _SUMS:
            assert getattr(self, f"_{name}").shape == arrays[name].shape, "sums of another grid size or mode"
            setattr(self, f"_{name}", arrays[name])

    @property
    def pointmap(self) -> Float[np.ndarray, "h w 3"]:
        """The canonical pointmap: weighted mean of the predictions so far."""
        return self._point / self._weight[..., None]

    def finish(
        self,
        pixel_centre: float = 0.5,
        *,
        robust_focal: bool = True,
        focal_range: tuple[float, float] = FOCAL_RANGE,
    ) -> CanonicalView:
        """The canonical view, in float32 unless sums were kept in another type.

        `pixel_centre`: coordinate of the centre of the pixel with index 0 (0.5 in COLMAP's convention); the others as
        for `estimate_focal`.
        """
        assert self.num_predictions, "no prediction about this image"
        points = self.pointmap
        return CanonicalView(
            focal_px=estimate_focal(
                points, pixel_centre=pixel_centre, focal_range=focal_range, drop_impossible=robust_focal
            ),
            anchor_depth=at_anchors(points[..., 2], self.subsample),
            relative_depth=self._relative_depth(points[..., 2]),
            confidence=self._weight_squared / self._weight,
        )

    def _relative_depth(self, depth: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
        relief = self._relief / self._weight
        if self.mode == DepthMode.AVERAGE_RELATIVE_DEPTH:
            return relief
        anchor_depth = at_anchors(depth, self.subsample)
        # a canonical depth of exactly zero would spread NaN into the block; any tiny number of either sign is as good
        size = np.abs(anchor_depth)
        smallest = MIN_RADIUS * float(np.median(size[size > 0])) if (size > 0).any() else MIN_RADIUS
        anchor_depth = np.where(size < smallest, smallest, anchor_depth).astype(depth.dtype)
        rise = self._radius / self.num_predictions * np.tan(relief)
        return 1 + rise / spread(anchor_depth, self.size_wh, self.subsample)


def estimate_focal(
    pointmap: Float[np.ndarray, "h w 3"],
    principal_point_px: Float[np.ndarray, "2"] | None = None,
    *,
    pixel_centre: float = 0.5,
    focal_range: tuple[float, float] = FOCAL_RANGE,
    drop_impossible: bool = True,
    num_rounds: int = 10,
) -> float:
    """Focal length in pixels such that f (x/z, y/z) fits the pixel grid: Weiszfeld's algorithm for sum |u - f q|.

    Pixels u are relative to the principal point (the middle of the image by default). Least squares first, then rounds
    of reweighting by the inverse distance. The result is clipped to `focal_range` x the longer side.

    drop_impossible: leave out points that lie behind the camera or at an angle no focal length in `focal_range`
        explains. Without it a few points of almost zero depth have so much leverage that the estimate collapses to zero
        and the clip hides it.
    """
    height, width = pointmap.shape[:2]
    centre = np.array([width / 2, height / 2]) if principal_point_px is None else principal_point_px
    x = np.arange(width) + (pixel_centre - centre[0])
    y = np.arange(height) + (pixel_centre - centre[1])
    pixel = np.stack(np.broadcast_arrays(x[None, :], y[:, None]), axis=-1).reshape(-1, 2)
    points = pointmap.reshape(-1, 3).astype(np.float64, copy=False)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = points[:, :2] / points[:, 2:]
    slope[~np.isfinite(slope).all(axis=1)] = 0.0
    lowest, highest = (bound * max(width, height) for bound in focal_range)
    if drop_impossible:  # twice as far out as the corner of a picture with the shortest focal length
        possible = (points[:, 2] > 0) & (np.hypot(*slope.T) * lowest < np.hypot(width, height))
        pixel, slope = pixel[possible], slope[possible]
    dot, square = (pixel * slope).sum(axis=1), np.square(slope).sum(axis=1)
    if square.sum() == 0:  # nothing known about the viewing angles
        return float(np.clip(max(width, height) / (2 * np.tan(np.pi / 6)), lowest, highest))
    focal = dot.sum() / square.sum()
    pixel_square = np.square(pixel).sum(axis=1)
    for _ in range(num_rounds):
        # |u - f q|^2 from the three dot products; rounding may leave it a little below zero
        distance = np.sqrt(np.maximum(pixel_square - 2 * focal * dot + focal**2 * square, 1e-16))
        weight = 1 / distance
        focal = (weight @ dot) / (weight @ square)
    return float(np.clip(focal, lowest, highest))
