"""How well an adjustment predicts observations that it has not seen.

The tracks are split in two halves. A model is adjusted to one half; then, with all cameras held, the points of the
other half are placed as well as they can be, and their reprojection errors are what counts: a model with too few
parameters cannot bring their rays together, one with too many has fitted the noise of the first half.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from anchorsfm.colmap.bundle import BundleOptions, Held, adjust
from anchorsfm.scene.edit import select_observations, with_cameras, with_points, with_poses_of
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.residuals import pixel_errors

MAX_TRACKS = 3000
"""Tracks of a sample; more cost time and hardly change what it says."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Both halves of the tracks, each predicted by the other."""

    half: Int[np.ndarray, "obs"]
    """0 or 1, of each observation."""
    error_px: Float[np.ndarray, "obs"]
    """Of each observation in the model that was adjusted to the other half."""
    fitted: tuple[Reconstruction, Reconstruction]
    """The models that were adjusted to either half."""


def sample_of(model: Reconstruction, most: int = MAX_TRACKS) -> Reconstruction:
    """Every n-th point: so many of them at most."""
    stride = -(-len(model.points) // most)
    if stride <= 1:
        return model
    tracks, kept = select_observations(model.tracks, model.tracks.obs_point % stride == 0)
    return with_points(model, tracks, model.points[kept])


def held_out(
    sample: Reconstruction, options: BundleOptions, fit: Callable[[Reconstruction], Reconstruction]
) -> HeldOut:
    """Errors of the observations of each half in the model that `fit` makes of the other."""
    half = sample.tracks.obs_point % 2
    error_px, fitted = np.full(len(half), np.inf), []
    for number in (0, 1):
        found, rest = fit(_part(sample, half == number)), half != number
        test = with_poses_of(with_cameras(_part(sample, rest), found.cameras), found)
        everything = Held(pose=np.ones(len(test.image_index), bool), camera=np.ones(len(test.cameras), bool))
        error_px[rest] = pixel_errors(adjust(test, options, everything)[0])
        fitted.append(found)
    return HeldOut(half=half, error_px=error_px, fitted=(fitted[0], fitted[1]))


def robust_cost(error_px: Float[np.ndarray, "obs"], options: BundleOptions) -> Float[np.ndarray, "obs"]:
    """Cauchy's log(1 + (e / s)^2), so that outliers do not decide."""
    return np.log1p((np.minimum(error_px, 1e6) / options.loss_scale_px) ** 2)


def is_sure_gain(gain: Float[np.ndarray, "obs"], point: Int[np.ndarray, "obs"], min_deviations: float) -> bool:
    """Whether the sum of gains is positive by so many of its deviations, as it varies from track to track."""
    track = np.unique(point, return_inverse=True)[1]
    per_track = np.bincount(track, weights=gain)
    return bool(per_track.sum() > min_deviations * np.sqrt(len(per_track)) * per_track.std())


def _part(model: Reconstruction, observations: Bool[np.ndarray, "obs"]) -> Reconstruction:
    tracks, kept = select_observations(model.tracks, observations)
    return with_points(model, tracks, model.points[kept])
