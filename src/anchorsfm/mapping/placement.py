"""The similarity that brings camera centres onto recorded positions (docs/method.md, Recorded positions).

Recorded positions are far less exact than poses against each other, and some are wrong by any amount. So the similarity
is found from samples of three (Fischler and Bolles 1981; the score is the median of the distances: Rousseeuw 1984), as
distances count those in standard deviations. Positions beyond `OUTLIER` deviations are outliers. The claimed deviations
weigh as much as `_CLAIM` observations against those that the residuals show, horizontally and vertically by themselves.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from anchorsfm.geometry.similarity import Similarity
from anchorsfm.geometry.transforms import fit_level_similarities, fit_similarities

UPSIDE_DOWN = "they turn it upside down, as ones do of which east and west, or north and south, are exchanged"
"""A flat model fits such positions as well as the true ones."""
MIN_POSITIONS = 4
"""Three determine a similarity and leave nothing to check it by."""
OUTLIER = 4.6
"""Distance in standard deviations that one of ten thousand positions exceeds by chance."""
MEDIAN_OF_THREE = 1.538
"""Median length of three standard normal numbers."""
_CLAIM = 4.0
_ROUNDS = 20
_SAMPLES = 2000
_MAX_ROTATION_DEG, _MAX_SCALE = 5.0, 0.1
"""Deviations of rotation, and of scale as a share, above which positions do not determine the frame."""
_MAX_FACTOR = 10.0
"""Of the residuals over the claimed deviations."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A similarity from a model to the frame of the recorded positions, and how they agree with it."""

    scale: float
    pose: Float[np.ndarray, "3 4"]
    """x becomes scale R x + t."""
    agrees: Bool[np.ndarray, "view"]
    """Views whose positions are no outliers; those without a position do not agree."""
    sigma_m: Float[np.ndarray, "view 3"]
    """Standard deviations of the positions, once the residuals are known; NaN without a position."""
    factor: tuple[float, float]
    """By what the claimed deviations were multiplied, horizontally and vertically."""
    rotation_sigma_deg: float
    """How far the frame is undetermined."""
    z_is_up: bool = False
    """Only a rotation about z was looked for."""

    @property
    def similarity(self) -> Similarity:
        return Similarity(scale=self.scale, pose=self.pose)

    def agreeing(self, position: Float[np.ndarray, "view 3"]) -> Float[np.ndarray, "view 3"]:
        """Those of the positions that are no outliers; NaN for the others."""
        return np.where(self.agrees[:, None], position, np.nan)

    @property
    def is_believable(self) -> bool:
        """Whether the positions are as far from the model as they may be; what they leave open is another question."""
        return max(self.factor) <= _MAX_FACTOR

    @property
    def problem(self) -> str | None:
        """Why the frame is not to be relied on; None: it is."""
        if not self.is_believable:
            return _far(np.array(self.factor))
        if self.rotation_sigma_deg > _MAX_ROTATION_DEG:
            if self.z_is_up:
                return "they are too close together to determine where north is"
            return "they are too close together, or too close to a line, to determine the rotation"
        return None


def place(
    centres: Float[np.ndarray, "view 3"],
    position_m: Float[np.ndarray, "view 3"],
    sigma_m: Float[np.ndarray, "view 3"],
    *,
    z_is_up: bool = False,
) -> Placement | str:
    """The similarity that brings camera centres onto most of the recorded positions; or why there is none.

    z_is_up: the model is level already and is turned about z only, as positions on a line leave it open.
    """
    known = np.flatnonzero(np.isfinite(position_m).all(axis=1))
    if len(known) < MIN_POSITIONS:
        return f"only {len(known)} of its photographs have a position, {MIN_POSITIONS} are needed"
    source, target, sigma = centres[known], position_m[known], sigma_m[known]
    scale, pose, spread = similarity_of_most(source, target, sigma, z_is_up=z_is_up)
    if not np.isfinite(spread):
        return "they do not differ"
    factor = np.array([spread, spread])
    inlier = np.zeros(len(known), bool)
    for _ in range(_ROUNDS):
        effective = sigma * np.array([factor[0], factor[0], factor[1]])
        residual = scale * source @ pose[:, :3].T + pose[:, 3] - target
        before, inlier = inlier, np.linalg.norm(residual / effective, axis=1) < OUTLIER
        if inlier.sum() < MIN_POSITIONS or 2 * inlier.sum() <= len(known):
            return f"only {int(inlier.sum())} of {len(known)} positions agree with one place of the model"
        scale, pose = _fit(source[inlier], target[inlier], effective[inlier], z_is_up=z_is_up)
        residual = (scale * source @ pose[:, :3].T + pose[:, 3] - target)[inlier] / sigma[inlier]
        factor = _factors(residual, 5 if z_is_up else 7)
        if (inlier == before).all():
            break
    effective = sigma * np.array([factor[0], factor[0], factor[1]])
    agrees = np.zeros(len(centres), bool)
    agrees[known[inlier]] = True
    spread_m = np.full((len(centres), 3), np.nan)
    spread_m[known] = effective
    extent = np.linalg.svd(target[inlier] - target[inlier].mean(axis=0), compute_uv=False)
    typical = _typical(effective[inlier])
    if typical > _MAX_SCALE * float(np.linalg.norm(extent)):
        if factor.max() > _MAX_FACTOR:
            return _far(factor)
        return "they are too close together to determine the scale"
    off, lever = typical, float(extent[1])
    if z_is_up:
        off = _typical(effective[inlier, :2])
        lever = float(np.linalg.norm((target[inlier] - target[inlier].mean(axis=0))[:, :2]))
    return Placement(
        scale=scale,
        pose=pose,
        agrees=agrees,
        sigma_m=spread_m,
        factor=(float(factor[0]), float(factor[1])),
        rotation_sigma_deg=float(np.degrees(off / max(lever, 1e-9))),
        z_is_up=z_is_up,
    )


def similarity_of_most(
    source: Float[np.ndarray, "_ 3"],
    target: Float[np.ndarray, "_ 3"],
    sigma: Float[np.ndarray, "_ 3"],
    *,
    z_is_up: bool,
) -> tuple[float, Float[np.ndarray, "3 4"], float]:
    """The best similarity of three points by the median distance, and that distance over the expected one.

    The distance is infinite if there is none.
    """
    generator = np.random.default_rng(0)
    sample = np.stack([generator.permutation(len(source))[:3] for _ in range(_SAMPLES)])
    fit = fit_level_similarities if z_is_up else fit_similarities
    scale, pose = fit(source[sample], target[sample], np.ones(sample.shape))
    moved_to = scale[:, None, None] * source @ np.swapaxes(pose[:, :, :3], 1, 2) + pose[:, None, :, 3]
    distance = np.linalg.norm((moved_to - target) / sigma, axis=2)
    score = np.median(distance, axis=1)
    score[~np.isfinite(score) | (scale <= 0)] = np.inf
    best = int(score.argmin())
    return float(scale[best]), pose[best], max(float(score[best]) / MEDIAN_OF_THREE, 1.0)


def _far(factor: Float[np.ndarray, "2"]) -> str:
    return f"they are {factor.max():.0f} times as far from the model as their deviations allow"


def _typical(sigma_m: Float[np.ndarray, "inlier axis"]) -> float:
    """The deviation that as many equal ones would have: a few that are unknown, so very large, hardly count."""
    return float(1 / np.sqrt((1 / sigma_m**2).mean()))


def _fit(
    source: Float[np.ndarray, "_ 3"],
    target: Float[np.ndarray, "_ 3"],
    sigma: Float[np.ndarray, "_ 3"],
    *,
    z_is_up: bool,
) -> tuple[float, Float[np.ndarray, "3 4"]]:
    """Least squares with a weight for every coordinate."""
    fit = fit_level_similarities if z_is_up else fit_similarities
    scales, poses = fit(source[None], target[None], 1 / (sigma**2).mean(axis=1)[None])
    scale, pose, centre = float(scales[0]), poses[0], source.mean(axis=0)
    free = np.array([0, 3, 4, 5, 6] if z_is_up else range(7))

    def similarity(change: Float[np.ndarray, "7"]) -> tuple[float, Float[np.ndarray, "3 4"]]:
        """The first one, then a change about the centre of the points."""
        factor = scale * float(np.exp(change[0]))
        rotation = Rotation.from_rotvec(change[1:4]).as_matrix() @ pose[:, :3]
        shift = scale * pose[:, :3] @ centre + pose[:, 3] + change[4:] - factor * rotation @ centre
        return factor, np.concatenate([rotation, shift[:, None]], axis=1)

    def spread(values: Float[np.ndarray, "free"]) -> Float[np.ndarray, "7"]:
        change = np.zeros(7)
        change[free] = values
        return change

    def residual(values: Float[np.ndarray, "free"]) -> Float[np.ndarray, "row"]:
        factor, moved_by = similarity(spread(values))
        return np.asarray(((factor * source @ moved_by[:, :3].T + moved_by[:, 3] - target) / sigma).ravel())

    return similarity(spread(least_squares(residual, np.zeros(len(free)), x_scale="jac").x))


def _factors(residual: Float[np.ndarray, "inlier 3"], unknowns: int) -> Float[np.ndarray, "2"]:
    """Factors on the claimed deviations, horizontally and vertically, from residuals in units of these."""
    left = max(1 - unknowns / residual.size, 1 / residual.size)  # what the similarity has left of the freedom
    factors = [
        np.sqrt((_CLAIM + (part**2).sum()) / (_CLAIM + left * part.size)) for part in (residual[:, :2], residual[:, 2:])
    ]
    return np.array(factors)
