"""Which camera model describes the lens: the simplest one that predicts observations it was not adjusted to.

What a candidate is worth is how well it predicts one half of the tracks when adjusted to the other (`held_out`).
Errors enter as Cauchy's log(1 + (e / s)^2), so that outliers do not decide. A more complex model is taken only if it is
better by more than three standard errors of the difference (over tracks) and by `MIN_GAIN` for every parameter that
it has more; every camera decides for itself, all cameras are tried in the same adjustments.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from anchorsfm.colmap.bundle import BundleOptions, Held, adjust
from anchorsfm.colmap.cameras import (
    convert_camera,
    field_of_view_deg,
    focal_length_px,
    has_absurd_params,
    with_focal_length,
)
from anchorsfm.scene.edit import view_of_image, with_cameras
from anchorsfm.scene.reconstruction import Camera, Reconstruction
from anchorsfm.tracks.config import FEW_VIEWS
from anchorsfm.tracks.held_out import held_out, is_sure_gain, robust_cost, sample_of

MIN_OBSERVATIONS = 300
"""A camera with fewer observations keeps the simplest distortion, `FEW_OBSERVATIONS_MODEL`."""
MIN_REFINED_OBSERVATIONS = 100
"""The same of observations that are refined in the photographs: fewer of these show a distortion that matters."""
FEW_OBSERVATIONS_MODEL = "SIMPLE_RADIAL"
MIN_GAIN = 0.005
"""Smallest relative fall of the held-out score that is worth one more parameter."""
_SURE = 3.0
"""Deviations by which it must fall."""
WIDE_DEG = 75.0
"""Lenses with a larger diagonal field of view may be fisheyes."""
_LADDER = (
    ("SIMPLE_PINHOLE",),
    ("SIMPLE_RADIAL",),
    ("RADIAL", "SIMPLE_RADIAL_FISHEYE"),
    ("OPENCV", "RADIAL_FISHEYE"),
    ("OPENCV_FISHEYE",),
    ("FULL_OPENCV", "THIN_PRISM_FISHEYE"),
)
"""Candidates by number of parameters."""
_NOT_SQUARE = ("OPENCV", "OPENCV_FISHEYE", "FULL_OPENCV", "THIN_PRISM_FISHEYE")
"""Those with a focal length across and one down."""


@dataclass(frozen=True, kw_only=True)
class LensTrial:
    """How well one camera model predicts the held-out observations of one camera."""

    camera_model: str
    score: float
    """Mean of log(1 + (e / s)^2) over the held-out observations."""
    median_error_px: float | None
    """Of the held-out observations; None where it is infinite, because a half came to something absurd."""
    focal_px: float | None = None
    """Mean of what both halves came to; None where a half came to something absurd."""


@dataclass(frozen=True, kw_only=True)
class LensChoice:
    """The camera model chosen for one camera, and what was tried."""

    camera_model: str
    trials: tuple[LensTrial, ...]


@dataclass(frozen=True, kw_only=True)
class LensResult:
    """The model with the chosen cameras, adjusted roughly."""

    model: Reconstruction
    choices: tuple[LensChoice, ...]
    """One per camera; held cameras keep their model."""


@dataclass(frozen=True, kw_only=True)
class _Scores:
    """Held-out observations of one candidate."""

    cost: Float[np.ndarray, "obs"]
    error_px: Float[np.ndarray, "obs"]
    cameras: tuple[Camera, ...]
    focal_px: Float[np.ndarray, "camera"]
    """Mean of both halves; NaN where one came to something absurd."""


def choose_lenses(
    model: Reconstruction,
    options: BundleOptions,
    held: Held,
    *,
    free_centre: Bool[np.ndarray, "camera"],
    min_observations: int = MIN_OBSERVATIONS,
) -> LensResult:
    """Choose the camera model of every camera that is not held.

    Args:
        model: an adjusted model with points; its camera models are where the candidates start from.
        options: of the adjustment.
        held: what must not be changed.
        free_centre: cameras whose principal point is freed in the trials.
        min_observations: of a camera whose model is chosen.
    """
    sample = sample_of(model)
    camera = sample.camera_index[view_of_image(sample)[sample.tracks.obs_image]]
    count = np.bincount(camera, minlength=len(model.cameras))
    open_ = ~held.camera & (count >= min_observations)
    trials: dict[str, _Scores] = {}

    def scores(name: str) -> _Scores:
        if name not in trials:
            trials[name] = _held_out_scores(sample, name, open_, options, held, free_centre)
        return trials[name]

    chosen, num_views = ["SIMPLE_PINHOLE"] * len(model.cameras), len(model.image_index)
    for level in _LADDER[1:]:
        for name in level:
            candidates = [
                row
                for row in np.flatnonzero(open_).tolist()
                if _worth_trying(name, model.cameras[row], chosen[row], num_views)
            ]
            for row in candidates:
                if _is_better(scores(name), scores(chosen[row]), row, camera == row, sample.tracks.obs_point):
                    chosen[row] = name
    cameras = list(model.cameras)
    for row, entry in enumerate(model.cameras):
        if open_[row]:
            cameras[row] = scores(chosen[row]).cameras[row]
        elif not held.camera[row]:
            chosen[row] = FEW_OBSERVATIONS_MODEL
            cameras[row] = _converted(entry, FEW_OBSERVATIONS_MODEL, options)
        else:
            chosen[row] = entry.model
    choices = tuple(
        LensChoice(
            camera_model=chosen[row],
            trials=tuple(_trial(name, trials[name], row, camera == row) for name in trials if open_[row]),
        )
        for row in range(len(cameras))
    )
    adjusted, _ = adjust(with_cameras(model, cameras), options, held)
    return LensResult(model=adjusted, choices=choices)


def _worth_trying(name: str, camera: Camera, best: str, num_views: int) -> bool:
    """Fisheyes only for wide lenses, many parameters only where fewer have helped already, and two focal lengths only
    where there are views enough: few of them fit each other better with pixels that are not square."""
    if num_views <= FEW_VIEWS and name in _NOT_SQUARE:
        return False
    fisheye = name.endswith("FISHEYE")
    if fisheye and field_of_view_deg(camera) < WIDE_DEG:
        return False
    if name in ("FULL_OPENCV", "THIN_PRISM_FISHEYE"):
        return best not in ("SIMPLE_PINHOLE", "SIMPLE_RADIAL")
    return True


def _held_out_scores(
    sample: Reconstruction,
    name: str,
    open_: Bool[np.ndarray, "camera"],
    options: BundleOptions,
    held: Held,
    free_centre: Bool[np.ndarray, "camera"],
) -> _Scores:
    start = with_cameras(
        sample,
        [_converted(c, name, options) if o else c for c, o in zip(sample.cameras, open_, strict=True)],
    )
    found = held_out(start, options, lambda half: _fit(half, options, held, free_centre & open_))
    error, focal_px = found.error_px.copy(), np.zeros(len(start.cameras))
    camera_of_obs = sample.camera_index[view_of_image(sample)[sample.tracks.obs_image]]
    for number, fitted in enumerate(found.fitted):
        sane = np.array([not has_absurd_params(camera) for camera in fitted.cameras])
        px = np.array([focal_length_px(camera) for camera in fitted.cameras])
        focal_px += np.where(sane, px, np.nan) / len(found.fitted)
        error[(found.half != number) & ~sane[camera_of_obs]] = np.inf
    return _Scores(
        cost=robust_cost(error, options),
        error_px=error,
        cameras=found.fitted[-1].cameras,
        focal_px=focal_px,
    )


def _converted(camera: Camera, name: str, options: BundleOptions) -> Camera:
    """The camera of another model that looks most alike; a focal length that is not adjusted stays as it is."""
    converted = convert_camera(camera, name)
    return converted if options.refine_focal else with_focal_length(converted, focal_length_px(camera))


def _fit(
    model: Reconstruction, options: BundleOptions, held: Held, free_centre: Bool[np.ndarray, "camera"]
) -> Reconstruction:
    fitted, _ = adjust(model, options, held)
    if free_centre.any():
        others = replace(held, camera=held.camera | ~free_centre)
        fitted, _ = adjust(fitted, replace(options, refine_principal_point=True), others)
    return fitted


def _is_better(
    new: _Scores, old: _Scores, row: int, mine: Bool[np.ndarray, "obs"], point: Int[np.ndarray, "obs"]
) -> bool:
    gain = old.cost[mine] - new.cost[mine]
    more_parameters = max(len(new.cameras[row].params) - len(old.cameras[row].params), 1)
    is_worth_it = gain.sum() > MIN_GAIN * more_parameters * old.cost[mine].sum()
    return bool(is_worth_it and is_sure_gain(gain, point[mine], _SURE))


def _trial(name: str, scores: _Scores, row: int, mine: Bool[np.ndarray, "obs"]) -> LensTrial:
    focal_px, error_px = float(scores.focal_px[row]), float(np.median(scores.error_px[mine]))
    return LensTrial(
        camera_model=name,
        score=round(float(scores.cost[mine].mean()), 5),
        median_error_px=round(error_px, 4) if np.isfinite(error_px) else None,
        focal_px=round(focal_px, 3) if np.isfinite(focal_px) else None,
    )
