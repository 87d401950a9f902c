"""Models in the metric frame of the recorded positions of their photographs (docs/method.md, Recorded positions).

Recorded positions are far less exact than poses against each other, and some are wrong by any amount. So a model is
first made without them. Then the similarity that brings its camera centres onto them is found from samples of three
(Fischler and Bolles 1981, with the median of the distances as the score: Rousseeuw 1984), as distances count those in
standard deviations. Positions beyond `_OUTLIER` deviations are outliers. The claimed deviations weigh as much as
`_CLAIM` observations against those that the residuals show, horizontally and vertically each by itself.

The positions agree with the model if more than half of them do, and if they determine rotation and scale. Then the
model is adjusted once more with them as priors.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from anchorsfm.colmap.bundle import PositionPriors
from anchorsfm.geometry.similarity import Similarity
from anchorsfm.geometry.transforms import camera_centres, fit_level_similarities, fit_similarities
from anchorsfm.scene.edit import moved
from anchorsfm.scene.positions import GeoPositions
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.adjust import AdjustResult, readjust
from anchorsfm.tracks.config import AdjustConfig
from anchorsfm.tracks.focal_prior import FocalPriors, JudgedModel, is_better_determined, settle_focal_lengths
from anchorsfm.tracks.uncertainty import estimate_uncertainty

MIN_POSITIONS = 4
"""Three determine a similarity and leave nothing to check it by."""
_OUTLIER = 4.6
"""Distance in standard deviations that one of ten thousand positions exceeds by chance."""
_CLAIM = 4.0
_ROUNDS = 20
_SAMPLES = 2000
_MAX_ROTATION_DEG, _MAX_SCALE = 5.0, 0.1
"""Deviations of rotation, and of scale as a share, above which positions do not determine the frame."""
_MAX_FACTOR = 10.0
"""Of the residuals over the claimed deviations."""
_MEDIAN_OF_THREE = 1.538
"""Median length of three standard normal numbers."""


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

    @property
    def is_believable(self) -> bool:
        """Whether the positions are as far from the model as they may be; what they leave open is another question."""
        return max(self.factor) <= _MAX_FACTOR

    @property
    def problem(self) -> str | None:
        """Why the frame is not to be relied on; None: it is."""
        if not self.is_believable:
            return f"they are {max(self.factor):.0f} times as far from the model as their deviations allow"
        if self.rotation_sigma_deg > _MAX_ROTATION_DEG:
            if self.z_is_up:
                return "they are too close together to determine where north is"
            return "they are too close together, or too close to a line, to determine the rotation"
        return None


@dataclass(frozen=True, kw_only=True)
class Georeferenced:
    """What recorded positions came to for one model."""

    mode: str
    """check, align or prior: what was done with them; control: the model is in their frame by other means."""
    residual_m: Float[np.ndarray, "view 3"]
    """Model minus record, to the east, to the north and upwards; NaN without a record."""
    agrees: Bool[np.ndarray, "view"]
    """Views whose records are no outliers."""
    sigma_m: Float[np.ndarray, "view 3"]
    """Standard deviations of the records."""
    enu_from_model: Similarity | None = None
    """The way to the frame of the records from another one that the model was brought into since; None: it is in it."""
    problem: str | None = None
    """Why the model is not in the frame of the records or, if it is because that was asked for, should not be."""

    @property
    def outliers(self) -> Bool[np.ndarray, "view"]:
        """Views whose records contradict the model."""
        return np.asarray(np.isfinite(self.residual_m).all(axis=1) & ~self.agrees)

    def rms_m(self) -> Float[np.ndarray, "3"]:
        """Root mean square residuals by axis, of records that agree."""
        return np.asarray(np.sqrt((self.residual_m[self.agrees] ** 2).mean(axis=0)))


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
    scale, pose, spread = _by_samples(source, target, sigma, z_is_up=z_is_up)
    if not np.isfinite(spread):
        return "they do not differ"
    factor = np.array([spread, spread])
    inlier = np.zeros(len(known), bool)
    for _ in range(_ROUNDS):
        effective = sigma * np.array([factor[0], factor[0], factor[1]])
        residual = scale * source @ pose[:, :3].T + pose[:, 3] - target
        before, inlier = inlier, np.linalg.norm(residual / effective, axis=1) < _OUTLIER
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
    typical = float(np.sqrt((effective[inlier] ** 2).mean()))
    if typical > _MAX_SCALE * float(np.linalg.norm(extent)):
        return "they are too close together to determine the scale"
    off, lever = typical, float(extent[1])
    if z_is_up:
        off = float(np.sqrt((effective[inlier, :2] ** 2).mean()))
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


def recorded_positions(
    model: Reconstruction, geo: GeoPositions
) -> tuple[Float[np.ndarray, "view 3"], Float[np.ndarray, "view 3"]]:
    """What is recorded of the views of a model in the local frame, and its deviations; NaN without a record."""
    position, sigma = geo.enu_m[model.image_index], geo.sigma_m[model.image_index]
    if model.rigs is not None:
        position = _one_of_each_frame(position, model.rigs.frames(model.image_index))
    return position, sigma


def georeference(
    judged: JudgedModel,
    free: AdjustResult,
    geo: GeoPositions,
    mode: str,
    config: AdjustConfig,
    focal: FocalPriors,
) -> tuple[JudgedModel, Georeferenced]:
    """A model in the frame of the recorded positions, adjusted with them, as far as they agree with it.

    Args:
        judged: the model.
        free: the same before records of focal lengths were brought in: these are weighed anew with the positions.
        geo: recorded positions of the ImageSet.
        mode: auto, check, align or prior. Models whose frame or poses are given are checked only.
        config: of the adjustment.
        focal: recorded focal lengths of its cameras.
    """
    model = judged.result.at_optimum
    position, sigma = recorded_positions(model, geo)
    placed = place(camera_centres(model.cam_from_world), position, sigma)
    if isinstance(placed, str):
        nothing = np.full_like(position, np.nan)
        agrees = np.zeros(len(position), bool)
        return judged, Georeferenced(mode="check", residual_m=nothing, agrees=agrees, sigma_m=sigma, problem=placed)
    problem = placed.problem
    if judged.result.held.sets_frame or judged.result.held.pose.any():
        mode, problem = "check", None
    elif mode == "auto":
        mode = "check" if problem else "prior"
    if mode == "prior" and not judged.result.adjusted:  # poses are to stay as the mapper found them
        mode = "align"
    if mode == "check":
        residual = placed.scale * camera_centres(model.cam_from_world) @ placed.pose[:, :3].T
        residual += placed.pose[:, 3] - position
        found = Georeferenced(
            mode=mode, residual_m=residual, agrees=placed.agrees, sigma_m=placed.sigma_m, problem=problem
        )
        return judged, found
    if mode == "align":
        result = replace(judged.result, model=moved(judged.result.model, placed.scale, placed.pose))
        uncertainty = replace(judged.uncertainty.moved(placed.similarity), metric=True)
        judged = JudgedModel(result=result, uncertainty=uncertainty)
    else:
        judged = _with_priors(judged.result, free, placed, position, config, focal)
    residual = camera_centres(judged.result.model.cam_from_world) - position
    return judged, Georeferenced(
        mode=mode, residual_m=residual, agrees=placed.agrees, sigma_m=placed.sigma_m, problem=problem
    )


def compare_in_frame(judged: JudgedModel, geo: GeoPositions, enu_from_model: Similarity | None = None) -> Georeferenced:
    """Recorded positions beside a model that stays as it is: in their frame, or `enu_from_model` leads to it."""
    centres = camera_centres(judged.result.model.cam_from_world)
    if enu_from_model is not None:
        centres = enu_from_model.points(centres)
    images = judged.result.model.image_index
    position, sigma = geo.enu_m[images], geo.sigma_m[images]
    placed = place(centres, position, sigma)
    agrees = np.zeros(len(images), bool)
    if not isinstance(placed, str):
        agrees, sigma = placed.agrees, placed.sigma_m
    return Georeferenced(
        mode="align", residual_m=centres - position, agrees=agrees, sigma_m=sigma, enu_from_model=enu_from_model
    )


def _one_of_each_frame(
    position: Float[np.ndarray, "view 3"], frame: Int[np.ndarray, "view"]
) -> Float[np.ndarray, "view 3"]:
    """Positions without those of further views of a frame, which one receiver recorded: they are not independent."""
    known = np.flatnonzero((frame >= 0) & np.isfinite(position).all(axis=1))
    _, first = np.unique(frame[known], return_index=True)
    position = position.copy()
    position[np.setdiff1d(known, known[first])] = np.nan
    return position


def _with_priors(
    result: AdjustResult,
    free: AdjustResult,
    placed: Placement,
    position: Float[np.ndarray, "view 3"],
    config: AdjustConfig,
    focal: FocalPriors,
) -> JudgedModel:
    """The model adjusted with the positions that agree; where they help to find its focal lengths, these anew."""
    wanted = np.where(placed.agrees[:, None], position, np.nan)
    held = replace(free.held, positions=PositionPriors(position=wanted, sigma=placed.sigma_m), rotations=None)
    start = moved(result.at_optimum, placed.scale, placed.pose)
    result = readjust(result, start, config, options=result.options, held=held)
    if any(result.focal) and is_better_determined(result):
        options = replace(free.options, refine_focal=True)
        result = readjust(replace(result, focal=()), result.at_optimum, config, options=options, held=held)
        return settle_focal_lengths(result, focal, config)
    return JudgedModel(result=result, uncertainty=estimate_uncertainty(result))


def _by_samples(
    source: Float[np.ndarray, "_ 3"],
    target: Float[np.ndarray, "_ 3"],
    sigma: Float[np.ndarray, "_ 3"],
    *,
    z_is_up: bool,
) -> tuple[float, Float[np.ndarray, "3 4"], float]:
    """The best similarity of three points by the median distance, and that distance over the expected one."""
    generator = np.random.default_rng(0)
    sample = np.stack([generator.permutation(len(source))[:3] for _ in range(_SAMPLES)])
    fit = fit_level_similarities if z_is_up else fit_similarities
    scale, pose = fit(source[sample], target[sample], np.ones(sample.shape))
    moved_to = scale[:, None, None] * source @ np.swapaxes(pose[:, :, :3], 1, 2) + pose[:, None, :, 3]
    distance = np.linalg.norm((moved_to - target) / sigma, axis=2)
    score = np.median(distance, axis=1)
    score[~np.isfinite(score) | (scale <= 0)] = np.inf
    best = int(score.argmin())
    return float(scale[best]), pose[best], max(float(score[best]) / _MEDIAN_OF_THREE, 1.0)


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
