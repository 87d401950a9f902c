"""Whether a camera only turned between two photographs. Centred coordinates (see `geometry.centred`) throughout."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float

from anchorsfm.frontend.classical.rays import bearing

SAMPLE, STEPS = 300, 30
"""Matches that are looked at, and steps of the fit to them."""
FOCAL_SPREAD = 0.1
"""A rotating camera is recognised although its focal length may be wrong by about this much (log)."""
MAX_DAMPING = 1e6
CONVERGED = 1e-6
"""Relative change of the cost."""


@dataclass(frozen=True, kw_only=True)
class RotationFit:
    """How well a camera that only turns explains the matches."""

    j_from_i: Float[np.ndarray, "3 3"]
    inlier_ratio: float
    error_px: Float[np.ndarray, "match"]


def fit_rotation(
    xy_i: Float[np.ndarray, "match 2"],
    xy_j: Float[np.ndarray, "match 2"],
    focal_ij: tuple[float, float],
    start: Float[np.ndarray, "3 3"],
    max_error_px: float,
) -> RotationFit:
    """Robustly fit x_j ~ K_j R K_i^-1 x_i over R and a common correction of the focal lengths.

    With a slightly wrong focal length a turning camera leaves residuals that a translation could explain; freeing the
    focal length within FOCAL_SPREAD keeps such pairs from being mistaken for ones with depth. Levenberg's and
    Marquardt's damped steps on reweighted squares, for Cauchy's loss.
    """
    sample = np.linspace(0, len(xy_i) - 1, min(len(xy_i), SAMPLE)).astype(int)
    x, y = xy_i[sample], xy_j[sample]
    rotation, zoom, damping = start, 0.0, 1e-3
    cost = _cost(_turned(x, focal_ij, rotation, zoom)[0] - y, zoom, max_error_px)
    for _ in range(STEPS):
        predicted, jacobian = _turned(x, focal_ij, rotation, zoom)
        residual = predicted - y
        weight = 1 / (1 + (residual**2).sum(1) / max_error_px**2)
        weighted = (jacobian * weight[:, None, None]).reshape(-1, 4).T
        normal = weighted @ jacobian.reshape(-1, 4)
        gradient = weighted @ residual.ravel()
        prior = (max_error_px / FOCAL_SPREAD) ** 2
        normal[3, 3] += prior
        gradient[3] += prior * zoom
        step = -np.linalg.solve(normal + damping * np.diag(np.diag(normal)) + 1e-12 * np.eye(4), gradient)
        tried = cv2.Rodrigues(step[:3])[0] @ rotation
        after = _cost(_turned(x, focal_ij, tried, zoom + step[3])[0] - y, zoom + step[3], max_error_px)
        if after >= cost:
            if damping > MAX_DAMPING:
                break
            damping *= 10
            continue
        converged = cost - after < CONVERGED * cost
        rotation, zoom, cost, damping = tried, zoom + float(step[3]), after, damping / 10
        if converged:
            break
    error = np.linalg.norm(_turned(xy_i, focal_ij, rotation, zoom)[0] - xy_j, axis=1)
    return RotationFit(j_from_i=rotation, inlier_ratio=float((error < max_error_px).mean()), error_px=error)


def _cost(residual: Float[np.ndarray, "match 2"], zoom: float, scale_px: float) -> float:
    """Cauchy's loss of the distances, and a soft prior of the zoom; half its quadratic form near the optimum."""
    prior = (zoom * scale_px / FOCAL_SPREAD) ** 2
    return float(scale_px**2 * np.log1p((residual**2).sum(1) / scale_px**2).sum() + prior)


def _turned(
    xy_i: Float[np.ndarray, "match 2"], focal_ij: tuple[float, float], rotation: Float[np.ndarray, "3 3"], zoom: float
) -> tuple[Float[np.ndarray, "match 2"], Float[np.ndarray, "match 2 4"]]:
    """Points of i in a camera j that only turned, and their derivatives by a rotation vector and the zoom."""
    ray = bearing(xy_i, focal_ij[0] * np.exp(zoom))
    target = ray @ rotation.T
    x, y, z = target[:, 0], target[:, 1], np.maximum(target[:, 2], 1e-3)
    focal = focal_ij[1] * np.exp(zoom)
    a, b = x / z, y / z
    nearer = target - rotation[:, 2]  # as the zoom grows, rays close in on the optical axis
    jacobian = np.empty((len(xy_i), 2, 4))
    jacobian[:, 0] = np.stack([-a * y, z + a * x, -y, -(nearer[:, 0] - a * nearer[:, 2]) + x], axis=1)
    jacobian[:, 1] = np.stack([-z - b * y, b * x, x, -(nearer[:, 1] - b * nearer[:, 2]) + y], axis=1)
    return focal * np.stack([a, b], axis=1), jacobian * (focal / z)[:, None, None]
