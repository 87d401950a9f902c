"""Models adjusted with their focal lengths held elsewhere (docs/method.md, Recorded focal lengths)."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from anchorsfm.colmap.cameras import focal_length_px, focal_rows
from anchorsfm.scene.edit import with_cameras
from anchorsfm.scene.reconstruction import Camera
from anchorsfm.tracks.adjust import LOOSE, AdjustResult, readjust
from anchorsfm.tracks.config import AdjustConfig

_LARGEST_STEP = 0.1
"""Of a focal length, as a share of it: the rest of the model follows before it is changed further."""


def with_focal_held(
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
        cameras = tuple(scaled(camera, float(step)) for camera, step in zip(model.cameras, steps, strict=True))
        is_last = np.allclose(ratio, steps)
        step_options = options if is_last else replace(options, function_tolerance=LOOSE)
        result = readjust(result, with_cameras(model, cameras), config, options=step_options, held=result.held)
        if is_last or is_enough(result):
            return result


def scaled(camera: Camera, factor: float) -> Camera:
    """The camera with its focal lengths times a factor."""
    if factor == 1:
        return camera
    params = np.array(camera.params)
    params[focal_rows(camera)] *= factor
    return replace(camera, params=tuple(params.tolist()))
