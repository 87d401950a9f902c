"""Lens distortion from matches: found for every device of a set together with nothing but epipolar geometry.

Straight lines stay straight only through a pinhole, and so do epipolar lines. Points of a distorted photograph are
undistorted with the division model of `scene.images.Distortion`, whose coefficients k1, k2 are found by search: for
trial coefficients, how many matches of some pairs agree on a fundamental matrix, and how closely
(cf. Fitzgibbon, "Simultaneous linear estimation of multiple view geometry and lens distortion", CVPR 2001, who solves
for k1 from nine matches; a search over the one or two numbers of a whole set is cheaper than many such samples).

Errors count in the photograph, where keypoints have their noise, not in the undistorted picture, whose pixels a
coefficient shrinks or stretches. With x = undistorted(c) and J = dx/dc the distance of a match from the geometry is
|x_j^T F x_i| / |(J_i^T (F^T x_j)_12, J_j^T (F x_i)_12)|, Sampson's approximation (Hartley and Zisserman, 11.4.3) by the
chain rule. J = s 1 + 2 s' c c^T for x = s(|c|^2) c.

Distortion is switched on only where photographs clearly show it: small distortion does no harm here, and the final
adjustment estimates it with a better model.
"""

from dataclasses import dataclass

import numpy as np
import poselib
from jaxtyping import Bool, Float, Int

from anchorsfm.frontend.classical.config import IntrinsicsConfig
from anchorsfm.geometry.centred import REFERENCE_SIZE

NUM_PAIRS = 5
"""Pairs that a search looks at."""
MIN_MATCHES = 100
"""Pairs with fewer matches, before verification, are not used."""
MATCHES_USED = 300
"""Of each pair, evenly spread over its matches."""
TOLERANCE_PX = 1.0
"""Centred pixels at which a match no longer counts: tight, because wrong coefficients shift points by few pixels."""
MIN_GAIN_MATCHES = 12.0
"""Smallest gain of the score: chance alone gains a few matches."""
LADDER = (-0.9, -0.75, -0.6, -0.45, -0.3, -0.2, -0.1, 0.0, 0.1, 0.25)
"""First trials of k1: at -0.9 the corner of the photograph is ten times further out in the pinhole picture."""
FINEST_STEP = 0.006
SHAPE = np.array([-0.7, 1.0])
"""Direction in which k1 and k2 change the shape of the distortion but little of its strength."""
MIN_SHAPE_GAIN = 0.02
"""Smallest relative gain of the score for which k2 is used."""
NONE = np.zeros(2)


@dataclass(frozen=True, kw_only=True)
class LensPoints:
    """Points of one image in centred coordinates, and how undistortion acts around them."""

    raw: Float[np.ndarray, "point 2"]
    """In the photograph."""
    xy: Float[np.ndarray, "point 2"]
    """Undistorted."""
    factor: Float[np.ndarray, "point"]
    """s: xy = s raw."""
    factor_slope: Float[np.ndarray, "point"]
    """Derivative of s by |raw|^2."""

    def rows(self, index: Int[np.ndarray, "row"]) -> "LensPoints":
        return LensPoints(
            raw=self.raw[index], xy=self.xy[index], factor=self.factor[index], factor_slope=self.factor_slope[index]
        )

    def to_raw(self, gradient: Float[np.ndarray, "point 2"]) -> Float[np.ndarray, "point 2"]:
        """Gradients by undistorted coordinates as gradients by coordinates in the photograph."""
        bend = 2 * self.factor_slope * (gradient * self.raw).sum(1)
        return self.factor[:, None] * gradient + bend[:, None] * self.raw

    @property
    def stretch(self) -> Float[np.ndarray, "point"]:
        """Undistorted pixels per pixel of the photograph: geometric mean over directions."""
        radial = self.factor + 2 * self.factor_slope * (self.raw**2).sum(1)
        return np.sqrt(np.maximum(self.factor * radial, 1e-12))


def half_diagonal(size_wh: Int[np.ndarray, "2"]) -> float:
    """Of an image in centred coordinates."""
    return float(np.hypot(*size_wh) / size_wh.max()) * REFERENCE_SIZE / 2


def undistort(
    raw: Float[np.ndarray, "point 2"], coefficient: Float[np.ndarray, "2"], half_diagonal: float
) -> LensPoints:
    """Centred points of the photograph with their undistorted positions."""
    square = (raw**2).sum(1) / half_diagonal**2
    divisor = 1 + coefficient[0] * square + coefficient[1] * square**2
    slope = -(coefficient[0] + 2 * coefficient[1] * square) / (divisor * half_diagonal) ** 2
    factor = 1 / divisor
    return LensPoints(raw=raw, xy=raw * factor[:, None], factor=factor, factor_slope=slope)


def sampson_px(
    fundamental: Float[np.ndarray, "3 3"], points_i: LensPoints, points_j: LensPoints
) -> Float[np.ndarray, "match"]:
    """Distance of matches from an epipolar geometry of undistorted points, in centred pixels of the photographs."""
    ones = np.ones((len(points_i.xy), 1))
    x_i, x_j = np.concatenate([points_i.xy, ones], axis=1), np.concatenate([points_j.xy, ones], axis=1)
    line_j, line_i = x_i @ fundamental.T, x_j @ fundamental
    by_i, by_j = points_i.to_raw(line_i[:, :2]), points_j.to_raw(line_j[:, :2])
    gradient = np.sqrt((by_i**2).sum(1) + (by_j**2).sum(1))
    return np.asarray(np.abs((x_j * line_j).sum(1)) / np.maximum(gradient, 1e-12))


def pair_stretch(points_i: LensPoints, points_j: LensPoints) -> Float[np.ndarray, "match"]:
    """Undistorted pixels per pixel of the photographs for each match."""
    return np.sqrt(points_i.stretch * points_j.stretch)


@dataclass(frozen=True, kw_only=True)
class LensMatches:
    """Matches of two images of one device before verification, centred coordinates of the photographs."""

    xy_i: Float[np.ndarray, "match 2"]
    xy_j: Float[np.ndarray, "match 2"]


def choose_pairs(pairs: Int[np.ndarray, "pair 2"], num_matches: Int[np.ndarray, "pair"]) -> Int[np.ndarray, "chosen"]:
    """Rows of the pairs a search looks at: of the half with most matches, evenly from many to fewer.

    Those with most matches alone would be those that moved least, where distortion shows least.
    """
    order = np.argsort(-num_matches, kind="stable")
    order = order[num_matches[order] >= MIN_MATCHES]
    better = order[: max((len(order) + 1) // 2, NUM_PAIRS)]
    return np.asarray(better[np.unique(np.linspace(0, len(better) - 1, min(NUM_PAIRS, len(better))).astype(int))])


def estimate_distortion(
    matches: list[LensMatches], half_diagonal: float, config: IntrinsicsConfig
) -> Float[np.ndarray, "2"]:
    """k1, k2 of the device that took the pairs; 0, 0 unless they clearly show distortion."""
    search = _Search([_thinned(pair) for pair in matches], half_diagonal)
    best = max(LADDER, key=lambda k: search.score(np.array([k, 0.0])))
    one = search.climb(np.array([best, 0.0]), [np.array([1.0, 0.0])])
    if not search.is_clear(one, config.min_distortion_gain):
        return NONE
    two = search.climb(one, [np.array([1.0, 0.0]), SHAPE])
    return two if search.score(two) > (1 + MIN_SHAPE_GAIN) * search.score(one) else one


class _Search:
    """Scores of coefficients on some pairs, each computed once."""

    def __init__(self, matches: list[LensMatches], half_diagonal: float) -> None:
        self._matches = matches
        self._half_diagonal = half_diagonal
        self._known: dict[tuple[float, float], Float[np.ndarray, pair]] = {}

    def score(self, coefficient: Float[np.ndarray, "2"]) -> float:
        return float(self._scores(coefficient).sum())

    def _scores(self, coefficient: Float[np.ndarray, "2"]) -> Float[np.ndarray, "pair"]:
        key = (round(float(coefficient[0]), 6), round(float(coefficient[1]), 6))
        if key not in self._known:
            self._known[key] = np.array([agreement(pair, coefficient, self._half_diagonal) for pair in self._matches])
        return self._known[key]

    def climb(self, start: Float[np.ndarray, "2"], directions: list[Float[np.ndarray, "2"]]) -> Float[np.ndarray, "2"]:
        """Coefficients that no step along a direction improves any more (compass search)."""
        best, step = start, 0.05
        while step > FINEST_STEP:
            trials = [best + sign * step * direction for direction in directions for sign in (-1, 1)]
            top = max(trials, key=self.score)
            if self.score(top) > self.score(best):
                best = top
            else:
                step /= 2
        return best

    def is_clear(self, coefficient: Float[np.ndarray, "2"], min_gain: float) -> bool:
        """Whether the coefficients explain clearly more than none, in most pairs."""
        with_it, without = self._scores(coefficient), self._scores(NONE)
        gain = float(with_it.sum() - without.sum())
        return gain > max(min_gain * float(without.sum()), MIN_GAIN_MATCHES) and bool(np.median(with_it - without) > 0)


def agreement(pair: LensMatches, coefficient: Float[np.ndarray, "2"], half_diagonal: float) -> float:
    """Sum over matches of 1 - (distance / TOLERANCE_PX)^2 where positive, for the best fundamental matrix found."""
    if not is_sensible(coefficient):
        return 0.0
    points_i = undistort(pair.xy_i, coefficient, half_diagonal)
    points_j = undistort(pair.xy_j, coefficient, half_diagonal)
    tolerance = TOLERANCE_PX * float(np.median(pair_stretch(points_i, points_j)))
    options = {"max_iterations": 300, "min_iterations": 30, "success_prob": 0.99, "seed": 0}
    fundamental, _ = poselib.estimate_fundamental(
        points_i.xy, points_j.xy, {**options, "max_epipolar_error": tolerance}, {}
    )
    distance = sampson_px(np.asarray(fundamental, np.float64), points_i, points_j)
    return float(np.maximum(1 - (distance / TOLERANCE_PX) ** 2, 0).sum())


def is_sensible(coefficient: Float[np.ndarray, "2"]) -> bool:
    """Whether the undistorted radius is positive and rises all over the photograph."""
    square = np.linspace(0, 1, 33) ** 2
    divisor = 1 + coefficient[0] * square + coefficient[1] * square**2
    rising: Bool[np.ndarray, radius] = 1 - coefficient[0] * square - 3 * coefficient[1] * square**2 > 0
    return bool((divisor > 0.03).all() and rising.all())


def _thinned(pair: LensMatches) -> LensMatches:
    rows = np.linspace(0, len(pair.xy_i) - 1, min(len(pair.xy_i), MATCHES_USED)).astype(int)
    return LensMatches(xy_i=pair.xy_i[rows], xy_j=pair.xy_j[rows])
