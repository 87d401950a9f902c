"""The principal point of every camera, as far as the photographs show where it is.

Adjusting the principal point freely gives an estimate x with covariance C; before looking, it is near a place m, the
image centre unless intrinsics were given, with a standard deviation s (`prior`), P = s^2 I. The two are combined by
their precision, x' = x - C (C + P)^-1 (x - m), and the adjustment goes on with the principal point held at x'. Many
images that turn determine it to a pixel: then x' = x. Two or three images hardly do: then x' stays near m. The
covariance is that of the model, which knows no systematic errors; `_CAUTION` widens it.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from anchorsfm.colmap.bundle import BundleOptions, Held, adjust
from anchorsfm.colmap.cameras import (
    has_absurd_params,
    principal_point_px,
    principal_point_rows,
    with_principal_point,
)
from anchorsfm.colmap.covariance import intrinsics_covariances
from anchorsfm.scene.edit import with_cameras
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.residuals import residual_variance_px2

_CAUTION = 1.5
"""Factor on the standard deviations that the adjustment claims."""
_DETERMINED = 0.05
"""The prior moves a principal point by a smaller share than this: it is determined by the photographs alone."""


@dataclass(frozen=True, kw_only=True)
class PrincipalPoints:
    """A model with settled principal points."""

    model: Reconstruction
    determined: Bool[np.ndarray, "camera"]
    """Cameras whose principal point may be left free: the photographs determine it."""


def settle_principal_points(
    model: Reconstruction,
    options: BundleOptions,
    held: Held,
    *,
    eligible: Bool[np.ndarray, "camera"],
    expected_px: Float[np.ndarray, "camera 2"],
    prior: float,
) -> PrincipalPoints:
    """Move the principal points of the `eligible` cameras to where expectation and photographs say together.

    Args:
        model: an adjusted model with points.
        options: of the adjustment.
        held: what must not be changed.
        eligible: cameras whose principal point may move.
        expected_px: where the principal points are before looking, original pixels.
        prior: standard deviation about that place, as a share of the long side.
    """
    determined = np.zeros(len(model.cameras), bool)
    eligible = eligible & ~held.camera
    if not eligible.any() or not len(model.points):
        return PrincipalPoints(model=model, determined=determined)
    free = replace(options, refine_principal_point=True)
    others = replace(held, camera=held.camera | ~eligible)
    adjusted, report = adjust(model, free, others)
    if not report.usable:
        return PrincipalPoints(model=model, determined=determined)
    variance = residual_variance_px2(adjusted) * _CAUTION**2
    covariances = intrinsics_covariances(adjusted, free, others, variance)
    cameras = list(model.cameras)
    for row in np.flatnonzero(eligible):
        before, after, covariance = model.cameras[row], adjusted.cameras[row], covariances[row]
        expected = expected_px[row]
        if covariance is None or has_absurd_params(after):
            cameras[row] = with_principal_point(before, expected)
            continue
        at = principal_point_rows(after)
        uncertainty = covariance[np.ix_(at, at)]
        sigma = prior * max(before.width, before.height)
        gain = uncertainty @ np.linalg.inv(uncertainty + sigma**2 * np.eye(2))
        cameras[row] = with_principal_point(
            before, principal_point_px(after) - gain @ (principal_point_px(after) - expected)
        )
        determined[row] = np.linalg.norm(gain, 2) < _DETERMINED
    settled = with_cameras(model, cameras)
    if (determined | held.camera).all():
        return PrincipalPoints(model=adjusted, determined=determined)
    return PrincipalPoints(model=adjust(settled, options, held)[0], determined=determined)
