"""How well an adjusted model holds its cameras: standard deviations of poses and intrinsics, and who is held weakly."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from anchorsfm.colmap.covariance import intrinsics_covariances, pose_uncertainty
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.tracks.adjust import AdjustResult
from anchorsfm.tracks.residuals import residual_variance_px2

WEAK_POSITION = 0.01
"""An image is weakly held if its position is uncertain by more than this share of the scene size ..."""
WEAK_ROTATION_DEG = 0.5
"""... or its rotation by more than this ..."""
WEAK_FACTOR = 5.0
"""... or if either is this many times the median of all images and above a tenth of those limits."""


@dataclass(frozen=True, kw_only=True)
class ModelUncertainty:
    """Standard deviations of one model; NaN where unknown, 0 where a value was given and held."""

    scene_size: float
    """Radius of points and cameras together, in world units: what positions are compared with."""
    position: Float[np.ndarray, "view"]
    """World units."""
    rotation_deg: Float[np.ndarray, "view"]
    camera_params: tuple[tuple[float, ...] | None, ...]
    """Of every camera in COLMAP's parameter order; None where nothing was estimated."""
    weak: Bool[np.ndarray, "view"]
    """Images that are weakly held."""
    metric: bool
    """Whether the world unit is that of given poses (metres, as a rule)."""


def estimate_uncertainty(result: AdjustResult) -> ModelUncertainty:
    """Uncertainty of a model at its optimum, from the noise that its own residuals show."""
    model, held = result.model, result.held
    variance = residual_variance_px2(model)
    poses = pose_uncertainty(model, result.options, held, variance)
    position = np.where(held.pose, 0.0, poses.position)
    rotation_deg = np.where(held.pose, 0.0, poses.rotation_deg)
    covariances = intrinsics_covariances(model, result.options, held, variance)
    centred = model.points - np.median(model.points, axis=0)
    centres = camera_centres(model.cam_from_world)
    spread = np.median((centred**2).sum(1)) + ((centres - centres.mean(0)) ** 2).sum(1).mean()
    size = float(np.sqrt(spread))
    return ModelUncertainty(
        scene_size=size,
        position=position,
        rotation_deg=rotation_deg,
        camera_params=tuple(None if c is None else tuple(np.sqrt(np.diag(c)).tolist()) for c in covariances),
        weak=_stands_out(position / max(size, 1e-12), WEAK_POSITION) | _stands_out(rotation_deg, WEAK_ROTATION_DEG),
        metric=held.sets_frame,
    )


def _stands_out(deviation: Float[np.ndarray, "view"], limit: float) -> Bool[np.ndarray, "view"]:
    known = deviation[np.isfinite(deviation)]
    typical = float(np.median(known)) if len(known) else 0.0
    with np.errstate(invalid="ignore"):
        return (deviation > limit) | (deviation > max(WEAK_FACTOR * typical, limit / 10))
