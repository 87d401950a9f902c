"""Focal lengths where photographs and a record say something about them (docs/method.md, Recorded focal lengths).

Adjusted freely, the focal length of a camera comes out at f with a standard deviation c: that of `uncertainty`, which
knows that errors of a model are not noise alone. Recorded is m with a deviation p. Both are combined by their
precision, f' = f - g (f - m) with g = c^2 / (c^2 + p^2), everything else is adjusted with the focal length held at f',
and its deviation is p sqrt(g). Where photographs determine the focal length, g is about 0 and the model stays as it is;
over flat ground seen from straight above, or with cameras that only turn, it is about 1. A record that is more than
`_CONTRADICTION` deviations away is wrong (a digital zoom, a cropped picture): it has no say. But c is that of a model
linearised where the adjustment ended, and far from there the error may hardly rise, so such a record is tried first:
with the focal length held at m the error of everything else rises by r variances of an observation, which makes
|f - m| / sqrt(r) the deviation, as much larger as c is than that of noise alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from anchorsfm.colmap.cameras import focal_length_px, focal_rows
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.scene.edit import with_cameras
from anchorsfm.scene.reconstruction import Camera
from anchorsfm.tracks.adjust import LOOSE, AdjustResult, SettledFocal, readjust
from anchorsfm.tracks.config import AdjustConfig
from anchorsfm.tracks.residuals import pixel_errors
from anchorsfm.tracks.uncertainty import ModelUncertainty, estimate_uncertainty

_NO_WEIGHT = 0.05
"""Records with a smaller weight change nothing worth another adjustment."""
_BETTER = 0.5
"""Share of the deviation of a free focal length below which it is worth finding it again."""
_CONTRADICTION = 3.0
_CLEAR = 100.0
"""Rise of the error on the way to a record from which on there is no need to go further: ten deviations."""
_LEAST_RISE = 0.01
"""Smaller rises are what the adjustment leaves undone."""
_LARGEST_STEP = 0.1
"""Of a focal length, as a share of it: the rest of the model follows before it is changed further."""


@dataclass(frozen=True, kw_only=True)
class FocalPriors:
    """Recorded focal lengths of the cameras of a model; NaN where nothing is recorded."""

    focal_px: Float[np.ndarray, "camera"]
    sigma_px: Float[np.ndarray, "camera"]


@dataclass(frozen=True, kw_only=True)
class JudgedModel:
    """A model and how far it may be off."""

    result: AdjustResult
    uncertainty: ModelUncertainty


def settle_focal_lengths(result: AdjustResult, priors: FocalPriors, config: AdjustConfig) -> JudgedModel:
    """The model with the focal lengths that photographs and records say together; as it is where records add nothing.

    `result` was adjusted with free focal lengths, or has held ones, which stay.
    """
    free = estimate_uncertainty(result)
    unchanged = JudgedModel(result=result, uncertainty=free)
    if not result.adjusted or not result.options.refine_focal:
        return unchanged
    found = _combined(_estimated(result, free, priors), result, config)
    if all(entry is None or entry.weight_of_record < _NO_WEIGHT for entry in found):
        return unchanged
    wanted = [
        camera if entry is None else _scaled(camera, _focal_px(entry) / focal_length_px(camera))
        for camera, entry in zip(result.at_optimum.cameras, found, strict=True)
    ]
    result = _moved(result, wanted, config)
    result = replace(result, focal=found)
    return JudgedModel(result=result, uncertainty=estimate_uncertainty(result))


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
    recorded_px: float
    recorded_sigma_px: float

    @property
    def is_contradicted(self) -> bool:
        return self.misfit_px > _CONTRADICTION * float(np.hypot(self.sigma_px, self.recorded_sigma_px))

    @property
    def beyond_noise(self) -> float:
        """How much larger the deviation is than that by noise."""
        return self.sigma_px / self.noise_px if self.noise_px > 0 else 1.0

    @property
    def misfit_px(self) -> float:
        return abs(self.focal_px - self.recorded_px)


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
            recorded_px=float(priors.focal_px[row]),
            recorded_sigma_px=float(priors.sigma_px[row]),
        )
        found.append(estimate if sigma_px > 0 else None)
    return found


def _combined(
    estimates: list[_Estimate | None], result: AdjustResult, config: AdjustConfig
) -> tuple[SettledFocal | None, ...]:
    """Both together; records that seem to be contradicted are tried."""
    doubted = {row: entry for row, entry in enumerate(estimates) if entry is not None and entry.is_contradicted}
    if doubted:
        wanted = [
            _scaled(camera, doubted[row].recorded_px / doubted[row].focal_px) if row in doubted else camera
            for row, camera in enumerate(result.at_optimum.cameras)
        ]
        hopeless = _CLEAR * max(entry.beyond_noise**2 for entry in doubted.values())
        moved = _moved(result, wanted, config, is_enough=lambda tried: _rise(result, tried) > hopeless)
        rise = _rise(result, moved)
        estimates = [_with_rise(entry, rise) if row in doubted else entry for row, entry in enumerate(estimates)]
    return tuple(None if entry is None else _settled(entry) for entry in estimates)


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


def _moved(
    result: AdjustResult,
    wanted: Sequence[Camera],
    config: AdjustConfig,
    *,
    is_enough: Callable[[AdjustResult], bool] = lambda _: False,
) -> AdjustResult:
    """Everything else adjusted with the focal lengths of the wanted cameras held; on the way there, if `is_enough`."""
    options = replace(result.options, refine_focal=False, max_iterations=2 * result.options.max_iterations)
    while True:
        model = result.at_optimum
        ratio = [focal_length_px(w) / focal_length_px(c) for w, c in zip(wanted, model.cameras, strict=True)]
        steps = np.clip(ratio, 1 - _LARGEST_STEP, 1 + _LARGEST_STEP)
        cameras = tuple(_scaled(camera, float(step)) for camera, step in zip(model.cameras, steps, strict=True))
        is_last = np.allclose(ratio, steps)
        step_options = options if is_last else replace(options, function_tolerance=LOOSE)
        result = readjust(result, with_cameras(model, cameras), config, options=step_options, held=result.held)
        if is_last or is_enough(result):
            return result


def _settled(estimate: _Estimate) -> SettledFocal:
    """A record that contradicts the photographs is none."""
    recorded_px, recorded_sigma_px = estimate.recorded_px, estimate.recorded_sigma_px
    both_px = float(np.hypot(estimate.sigma_px, recorded_sigma_px))
    if not np.isfinite(both_px) or estimate.is_contradicted:
        recorded_px, recorded_sigma_px, both_px = np.nan, np.inf, np.inf
    return SettledFocal(
        free_px=estimate.focal_px,
        free_sigma_px=estimate.sigma_px,
        recorded_px=recorded_px,
        recorded_sigma_px=recorded_sigma_px,
        sigma_px=estimate.sigma_px if np.isinf(both_px) else estimate.sigma_px * recorded_sigma_px / both_px,
    )


def _focal_px(found: SettledFocal) -> float:
    if not found.weight_of_record:
        return found.free_px
    return found.free_px - found.weight_of_record * (found.free_px - found.recorded_px)


def _scaled(camera: Camera, factor: float) -> Camera:
    """The camera with its focal lengths times a factor."""
    if factor == 1:
        return camera
    params = np.array(camera.params)
    params[focal_rows(camera)] *= factor
    return replace(camera, params=tuple(params.tolist()))
