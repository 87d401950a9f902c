"""Focal lengths where photographs and a record say something about them (docs/method.md, Recorded focal lengths).

Adjusted freely, the focal length of a camera comes out at f with a standard deviation c: that of `uncertainty`, which
knows that errors of a model are not noise alone. Recorded is m with a deviation p. Both are combined by their
precision, f' = f - g (f - m) with g = c^2 / (c^2 + p^2), everything else is adjusted with the focal length held at f',
and its deviation is p sqrt(g). Where photographs determine the focal length, g is about 0 and the model stays as it is;
over flat ground seen from straight above, or with cameras that only turn, it is about 1. A record that is more than
`_CONTRADICTION` deviations away is wrong (a digital zoom, a cropped picture): it has no say.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from anchorsfm.colmap.cameras import focal_length_px, focal_rows
from anchorsfm.scene.edit import with_cameras
from anchorsfm.scene.reconstruction import Camera
from anchorsfm.tracks.adjust import LOOSE, AdjustResult, SettledFocal, readjust
from anchorsfm.tracks.config import AdjustConfig
from anchorsfm.tracks.uncertainty import ModelUncertainty, estimate_uncertainty

_NO_WEIGHT = 0.05
"""Records with a smaller weight change nothing worth another adjustment."""
_BETTER = 0.5
"""Share of the deviation of a free focal length below which it is worth finding it again."""
_CONTRADICTION = 3.0
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
    found = tuple(
        _settled(camera, deviation, float(recorded), float(sigma))
        for camera, deviation, recorded, sigma in zip(
            result.at_optimum.cameras, free.camera_params, priors.focal_px, priors.sigma_px, strict=True
        )
    )
    if all(entry is None or entry.weight_of_record < _NO_WEIGHT for entry in found):
        return unchanged
    options = replace(result.options, refine_focal=False, max_iterations=2 * result.options.max_iterations)
    wanted = [
        camera if entry is None else _scaled(camera, _focal_px(entry) / focal_length_px(camera))
        for camera, entry in zip(result.at_optimum.cameras, found, strict=True)
    ]
    while True:
        model = result.at_optimum
        ratio = [focal_length_px(w) / focal_length_px(c) for w, c in zip(wanted, model.cameras, strict=True)]
        steps = np.clip(ratio, 1 - _LARGEST_STEP, 1 + _LARGEST_STEP)
        cameras = tuple(_scaled(camera, float(step)) for camera, step in zip(model.cameras, steps, strict=True))
        is_last = np.allclose(ratio, steps)
        step_options = options if is_last else replace(options, function_tolerance=LOOSE)
        result = readjust(result, with_cameras(model, cameras), config, options=step_options, held=result.held)
        if is_last:
            break
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


def _settled(
    camera: Camera, deviation: tuple[float, ...] | None, recorded_px: float, recorded_sigma_px: float
) -> SettledFocal | None:
    """None where nothing was estimated; a record that contradicts the photographs is none."""
    if deviation is None:
        return None
    focal_px, sigma_px = focal_length_px(camera), float(np.mean(np.array(deviation)[focal_rows(camera)]))
    both_px = float(np.hypot(sigma_px, recorded_sigma_px))
    if not sigma_px > 0:
        return None
    if not abs(focal_px - recorded_px) <= _CONTRADICTION * both_px:
        recorded_px, recorded_sigma_px, both_px = np.nan, np.inf, np.inf
    return SettledFocal(
        free_px=focal_px,
        free_sigma_px=sigma_px,
        recorded_px=recorded_px,
        recorded_sigma_px=recorded_sigma_px,
        sigma_px=sigma_px if np.isinf(both_px) else sigma_px * recorded_sigma_px / both_px,
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
