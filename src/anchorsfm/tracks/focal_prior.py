"""Focal lengths where photographs and a prior say something about them (docs/method.md, Recorded focal lengths).

Adjusted freely, the focal length of a camera comes out at f with a standard deviation c f: that of `uncertainty`, which
knows that errors of a model are not noise alone. Recorded is m with a deviation p m. Both are combined by their
precision, f' = f (m / f)^g with g = c^2 / (c^2 + p^2), everything else is adjusted with the focal length held at f',
and its deviation is f' p sqrt(g). Where photographs determine the focal length, g is about 0 and the model stays as it
is; over flat ground seen from straight above, or with cameras that only turn, it is about 1. A record that is more than
`_CONTRADICTION` deviations away is wrong (a digital zoom, a cropped picture): it has no say. But c is that of a model
linearised where the adjustment ended, and far from there the error may hardly rise, so such a record is tried first:
with the focal length held at m the error of everything else rises by r variances of an observation, which makes
|f - m| / sqrt(r) the deviation, as much larger as c is than that of noise alone.

Where nothing is recorded, what most lenses have is assumed in place of a record, if c is above `_UNDETERMINED`; it is
always tried, because c is least reliable there, and in models of few views, where c may be nothing but the rounding of
normal equations that are singular (two cameras that are exactly parallel). Focal length or distortion of views that
determine neither may also run away until no model is left: `adjust_with_priors` then holds the distortion, and if that
is not enough the focal length at its prior. It holds both where few views are left with a c above `_ASSUMED_DEVIATION`:
a lens that was found with such a focal length is noise.

Two views of one camera whose focal length would be assumed are first asked what their straight edges say of it
(`focal_lines`); that takes the place of the assumption, and is tried like it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from anchorsfm.colmap.cameras import focal_length_px, focal_rows, with_focal_length
from anchorsfm.geometry.right_angles import LineFocal
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.scene.edit import with_cameras
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.scene.settings import TYPICAL_FOCAL
from anchorsfm.tracks.adjust import AdjustResult, SettledFocal
from anchorsfm.tracks.config import FEW_VIEWS, AdjustConfig
from anchorsfm.tracks.focal_lines import can_ask_lines, focal_in_lines
from anchorsfm.tracks.held_focal import scaled, with_focal_held
from anchorsfm.tracks.residuals import pixel_errors
from anchorsfm.tracks.uncertainty import ModelUncertainty, estimate_uncertainty

_ASSUMED_DEVIATION = 0.35
"""Of usual focal lengths, which are between .7 (most phones) and 1.6 times the long side: of their logarithm."""
_UNDETERMINED = 0.1
"""A focal length that is more certain than this, as a share of it, needs no assumption."""
_FEWEST = 2
"""Views of a model."""
_AS_GOOD = 0.8
"""Share of its points that a model must keep with the lens that is assumed."""
_NO_WEIGHT = 0.05
"""Priors with a smaller weight change nothing worth another adjustment."""
_BETTER = 0.5
"""Share of the deviation of a free focal length below which it is worth finding it again."""
_CONTRADICTION = 3.0
_CLEAR = 100.0
"""Rise of the error on the way to a record from which on there is no need to go further: ten deviations."""
_LEAST_RISE = 0.01
"""Smaller rises are what the adjustment leaves undone."""


@dataclass(frozen=True, kw_only=True)
class FocalPriors:
    """What is known of the focal lengths of the cameras of a model before looking; NaN: nothing."""

    focal_px: Float[np.ndarray, "camera"]
    sigma_px: Float[np.ndarray, "camera"]
    is_assumed: Bool[np.ndarray, "camera"]
    """Not recorded, but what most lenses have."""

    @staticmethod
    def of(model: Reconstruction, images: ImageSet) -> "FocalPriors":
        """Recorded ones, and a usual one where nothing is recorded."""
        focal_px, sigma_px = np.full((2, len(model.cameras)), np.nan)
        if images.focal_deviation is not None:
            for row in range(len(model.cameras)):
                views = model.image_index[model.camera_index == row]
                if len(views):
                    focal_px[row] = np.median(images.focal_prior_px[views])
                    sigma_px[row] = focal_px[row] * np.median(images.focal_deviation[views])
        is_assumed = ~np.isfinite(sigma_px)
        usual_px = TYPICAL_FOCAL * np.array([max(camera.width, camera.height) for camera in model.cameras], float)
        return FocalPriors(
            focal_px=np.where(is_assumed, usual_px, focal_px),
            sigma_px=np.where(is_assumed, _ASSUMED_DEVIATION * usual_px, sigma_px),
            is_assumed=is_assumed,
        )


@dataclass(frozen=True, kw_only=True)
class JudgedModel:
    """A model and how far it may be off."""

    result: AdjustResult
    uncertainty: ModelUncertainty


def settle_focal_lengths(
    result: AdjustResult, priors: FocalPriors, config: AdjustConfig, images: ImageSet | None = None
) -> JudgedModel:
    """The model with the focal lengths that photographs and priors say together; as it is where priors add nothing.

    `result` was adjusted with free focal lengths, or has held ones, which stay: but for an assumed one where straight
    edges of the photographs show another. They are asked where `images` are given.
    """
    free = estimate_uncertainty(result)
    unchanged = JudgedModel(result=result, uncertainty=free)
    if not result.adjusted:
        return unchanged
    if not result.options.refine_focal:
        return _with_lines_alone(unchanged, images, config)
    estimates = _estimated(result, free, priors)
    found = _combined(estimates, result, config)
    if images is not None:
        found = _with_lines(found, estimates, result, images, config)
    if all(entry is None or entry.weight_of_prior < _NO_WEIGHT for entry in found):
        return unchanged
    wanted = [
        camera if entry is None else scaled(camera, entry.focal_px / focal_length_px(camera))
        for camera, entry in zip(result.at_optimum.cameras, found, strict=True)
    ]
    result = with_focal_held(result, wanted, config)
    result = replace(result, focal=found)
    return JudgedModel(result=result, uncertainty=estimate_uncertainty(result))


def _with_lines(
    found: tuple[SettledFocal | None, ...],
    estimates: list["_Estimate | None"],
    result: AdjustResult,
    images: ImageSet,
    config: AdjustConfig,
) -> tuple[SettledFocal | None, ...]:
    """With what straight edges show in place of what is assumed, if they show it and matches do not contradict."""
    first, estimate = found[0], estimates[0]
    if first is None or estimate is None or not _is_assumed(first) or not can_ask_lines(result.model):
        return found
    seen = focal_in_lines(result, images, config)
    if seen is None or seen.doubt:
        return found
    with_seen = _combined([_by_lines(estimate, seen)], result, config)
    return with_seen if with_seen[0] is not None and with_seen[0].is_from_lines else found


def _with_lines_alone(judged: JudgedModel, images: ImageSet | None, config: AdjustConfig) -> JudgedModel:
    """The same for a model that is held at an assumed focal length: its matches say nothing."""
    result = judged.result
    if images is None or not can_ask_lines(result.model) or not result.focal:
        return judged
    first = result.focal[0]
    if first is None or not _is_assumed(first):
        return judged
    seen = focal_in_lines(result, images, config)
    if seen is None or seen.doubt:
        return judged
    camera = result.at_optimum.cameras[0]
    held = with_focal_held(result, [scaled(camera, seen.focal_px / focal_length_px(camera))], config)
    if _rise(result, held) > _CLEAR:
        return judged
    sigma_px = seen.deviation * seen.focal_px
    focal = replace(
        first,
        prior_px=seen.focal_px,
        prior_sigma_px=sigma_px,
        sigma_px=sigma_px,
        is_assumed=False,
        is_from_lines=True,
    )
    held = replace(held, focal=(focal,))
    return JudgedModel(result=held, uncertainty=estimate_uncertainty(held))


def _is_assumed(found: SettledFocal) -> bool:
    return found.is_assumed and found.weight_of_prior >= _NO_WEIGHT


def adjust_with_priors(
    adjust: Callable[[Reconstruction, AdjustConfig, bool], AdjustResult],
    start: Reconstruction,
    priors: Callable[[Reconstruction], FocalPriors],
    config: AdjustConfig,
    known: Bool[np.ndarray, "camera"],
) -> AdjustResult:
    """A start adjusted freely; where few views show no focal length, or no model is left, with less that is free.

    Args:
        adjust: adjusts a start, with the given thresholds, and refines the distortion or not.
        start: cameras and poses.
        priors: of the focal lengths of a model.
        config: thresholds; where no model is left, narrow angles of points do.
        known: cameras of the start whose intrinsics are held.
    """
    free = adjust(start, config, True)
    if len(start.image_index) < _FEWEST or known.all():
        return free
    if not _is_model(free):
        config = replace(config, min_angle_deg=min(config.min_angle_deg, config.narrow_angle_deg))
        result = adjust(start, config, False)
        if _is_model(result):
            return result
    elif not _shows_little(free):
        return free
    if not config.refine_focal:
        return free
    before = priors(start)
    cameras = tuple(
        camera if known[row] else with_focal_length(camera, float(before.focal_px[row]))
        for row, camera in enumerate(start.cameras)
    )
    result = adjust(with_cameras(start, cameras), replace(config, refine_focal=False), False)
    if not _is_model(result) or len(result.model.points) < _AS_GOOD * len(free.model.points):
        return free
    before = priors(result.model)
    focal = tuple(None if held else _as_prior(before, row) for row, held in enumerate(result.held.camera.tolist()))
    return replace(result, focal=focal)


def _is_model(result: AdjustResult) -> bool:
    return len(result.model.image_index) >= _FEWEST


def _shows_little(result: AdjustResult) -> bool:
    """Whether few views say so little about a focal length that what they say about the lens is nothing either."""
    if len(result.model.image_index) > FEW_VIEWS or not result.options.refine_focal:
        return False
    deviations = estimate_uncertainty(result).camera_params
    return any(
        deviation is not None
        and float(np.mean(np.array(deviation)[focal_rows(camera)])) > _ASSUMED_DEVIATION * focal_length_px(camera)
        for deviation, camera in zip(deviations, result.model.cameras, strict=True)
    )


def _as_prior(priors: FocalPriors, row: int) -> SettledFocal:
    """The photographs have said nothing."""
    return SettledFocal(
        free_px=np.nan,
        free_sigma_px=np.inf,
        prior_px=float(priors.focal_px[row]),
        prior_sigma_px=float(priors.sigma_px[row]),
        is_assumed=bool(priors.is_assumed[row]),
        sigma_px=float(priors.sigma_px[row]),
    )


def is_better_determined(result: AdjustResult) -> bool:
    """Whether a model with settled focal lengths has come to determine them itself: it was adjusted with positions."""
    free = estimate_uncertainty(replace(result, focal=(), options=replace(result.options, refine_focal=True)))
    for row, (camera, found) in enumerate(zip(result.model.cameras, result.focal, strict=True)):
        deviation = free.camera_params[row]
        if found is not None and deviation is not None:
            sigma_px = float(np.mean(np.array(deviation)[focal_rows(camera)]))
            if 0 < sigma_px < _BETTER * found.free_sigma_px:
                return True
    return False


@dataclass(frozen=True, kw_only=True)
class _Estimate:
    """What the photographs and the record of a camera say."""

    focal_px: float
    sigma_px: float
    noise_px: float
    """Deviation by noise alone."""
    prior_px: float
    prior_sigma_px: float
    is_assumed: bool
    is_from_lines: bool = False
    """The prior is what straight edges show."""

    @property
    def is_contradicted(self) -> bool:
        return self.misfit_px > _CONTRADICTION * float(np.hypot(self.sigma_px, self.prior_sigma_px))

    @property
    def needs_prior(self) -> bool:
        return not self.is_assumed or self.sigma_px > _UNDETERMINED * self.focal_px

    @property
    def beyond_noise(self) -> float:
        """How much larger the deviation is than that by noise."""
        return self.sigma_px / self.noise_px if self.noise_px > 0 else 1.0

    @property
    def misfit_px(self) -> float:
        return abs(self.focal_px - self.prior_px)


def _estimated(result: AdjustResult, free: ModelUncertainty, priors: FocalPriors) -> list[_Estimate | None]:
    """None where nothing was estimated."""
    found: list[_Estimate | None] = []
    for row, camera in enumerate(result.at_optimum.cameras):
        whole, noise = free.camera_params[row], free.noise.camera_params[row]
        if whole is None or noise is None:
            found.append(None)
            continue
        sigma_px, noise_px = (float(np.mean(np.array(sigma)[focal_rows(camera)])) for sigma in (whole, noise))
        estimate = _Estimate(
            focal_px=focal_length_px(camera),
            sigma_px=sigma_px,
            noise_px=noise_px,
            prior_px=float(priors.focal_px[row]),
            prior_sigma_px=float(priors.sigma_px[row]),
            is_assumed=bool(priors.is_assumed[row]),
        )
        found.append(estimate if sigma_px > 0 else None)
    return found


def _by_lines(estimate: _Estimate, seen: LineFocal) -> _Estimate:
    return replace(
        estimate,
        prior_px=seen.focal_px,
        prior_sigma_px=seen.deviation * seen.focal_px,
        is_assumed=False,
        is_from_lines=True,
    )


def _combined(
    estimates: list[_Estimate | None], result: AdjustResult, config: AdjustConfig
) -> tuple[SettledFocal | None, ...]:
    """Both together; records that seem to be contradicted, assumptions, and what lines show are tried."""
    is_small = len(result.model.image_index) <= FEW_VIEWS
    doubted = {row: entry for row, entry in enumerate(estimates) if entry is not None and _is_doubted(entry, is_small)}
    if doubted:
        wanted = [
            scaled(camera, doubted[row].prior_px / doubted[row].focal_px) if row in doubted else camera
            for row, camera in enumerate(result.at_optimum.cameras)
        ]
        hopeless = _CLEAR * max(entry.beyond_noise**2 for entry in doubted.values())
        moved = with_focal_held(result, wanted, config, is_enough=lambda tried: _rise(result, tried) > hopeless)
        rise = _rise(result, moved)
        estimates = [_with_rise(entry, rise) if row in doubted else entry for row, entry in enumerate(estimates)]
    return tuple(None if entry is None else _settled(entry) for entry in estimates)


def _is_doubted(estimate: _Estimate, is_small: bool) -> bool:
    if estimate.is_from_lines:
        return True
    return (is_small or estimate.needs_prior) if estimate.is_assumed else estimate.is_contradicted


def _with_rise(estimate: _Estimate | None, rise: float) -> _Estimate | None:
    """With the deviation that the way to the record shows, if it is larger."""
    if estimate is None:
        return None
    shown_px = estimate.beyond_noise * estimate.misfit_px / float(np.sqrt(max(rise, _LEAST_RISE)))
    return replace(estimate, sigma_px=max(estimate.sigma_px, shown_px))


def _rise(free: AdjustResult, held: AdjustResult) -> float:
    """By how many variances of an observation the error of a model rises."""
    size = free.options.loss_scale_px
    before, after = (pixel_errors(result.at_optimum) for result in (free, held))
    weight = 1 / (1 + (before / size) ** 2)
    known = free.at_optimum
    unknowns = 3 * len(known.points) + 6 * len(known.image_index)
    variance = float((weight * before**2).sum()) / max(2 * len(before) - unknowns, 1)
    by_observations = size**2 * (np.log1p((after / size) ** 2).sum() - np.log1p((before / size) ** 2).sum())
    by_positions = _position_error(held) - _position_error(free)
    return float(by_observations / max(variance, 1e-300) + by_positions)


def _position_error(result: AdjustResult) -> float:
    """Of what is known of positions, in variances."""
    priors = result.held.positions
    if priors is None:
        return 0.0
    return float(np.nansum(((camera_centres(result.model.cam_from_world) - priors.position) / priors.sigmas) ** 2))


def _settled(estimate: _Estimate) -> SettledFocal:
    """A prior that contradicts the photographs is none, nor is an assumption where they know better."""
    is_known = bool(np.isfinite(estimate.prior_sigma_px))
    is_used = is_known and estimate.needs_prior and not estimate.is_contradicted
    found = SettledFocal(
        free_px=estimate.focal_px,
        free_sigma_px=estimate.sigma_px,
        prior_px=estimate.prior_px if is_used else np.nan,
        prior_sigma_px=estimate.prior_sigma_px if is_used else np.inf,
        is_assumed=is_used and estimate.is_assumed,
        is_from_lines=is_used and estimate.is_from_lines,
        sigma_px=estimate.sigma_px,
    )
    if not is_used:
        return found
    share = found.prior_sigma_px / found.prior_px * np.sqrt(found.weight_of_prior)
    return replace(found, sigma_px=float(share * found.focal_px))
