"""Rigid and similarity transforms: poses are arrays (..., 3, 4) of matrices [R | t], x_target = R x_source + t."""

import numpy as np
from jaxtyping import Float


def compose(
    c_from_b: Float[np.ndarray, "*#batch 3 4"], b_from_a: Float[np.ndarray, "*#batch 3 4"]
) -> Float[np.ndarray, "... 3 4"]:
    """c_from_a of two poses; batches are broadcast."""
    rotation = c_from_b[..., :3] @ b_from_a[..., :3]
    translation = c_from_b[..., :3] @ b_from_a[..., 3:] + c_from_b[..., 3:]
    return np.concatenate([rotation, translation], axis=-1)


def invert(b_from_a: Float[np.ndarray, "*batch 3 4"]) -> Float[np.ndarray, "*batch 3 4"]:
    """a_from_b of a pose."""
    rotation = np.swapaxes(b_from_a[..., :3], -1, -2)
    return np.concatenate([rotation, -rotation @ b_from_a[..., 3:]], axis=-1)


def transform(
    b_from_a: Float[np.ndarray, "3 4"], points_in_a: Float[np.ndarray, "*batch 3"]
) -> Float[np.ndarray, "*batch 3"]:
    """Points in frame b."""
    return points_in_a @ b_from_a[:, :3].T + b_from_a[:, 3]


def rotation_angle_deg(rotation: Float[np.ndarray, "*batch 3 3"]) -> Float[np.ndarray, "*batch"]:
    """Angle of rotation matrices, accurate for small angles too (atan2 of sine and cosine)."""
    skew = rotation - np.swapaxes(rotation, -1, -2)
    sine = np.sqrt(skew[..., 0, 1] ** 2 + skew[..., 0, 2] ** 2 + skew[..., 1, 2] ** 2) / 2
    cosine = (np.trace(rotation, axis1=-2, axis2=-1) - 1) / 2
    return np.degrees(np.arctan2(sine, cosine))


def cross_matrix(vector: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3 3"]:
    """[v]x with [v]x u = v x u."""
    return np.cross(vector[..., None, :], np.eye(3)).swapaxes(-1, -2)


def camera_centres(cam_from_world: Float[np.ndarray, "*batch 3 4"]) -> Float[np.ndarray, "*batch 3"]:
    """Projection centres in the world frame."""
    return invert(cam_from_world)[..., 3]


def fit_similarity(
    source: Float[np.ndarray, "point 3"],
    target: Float[np.ndarray, "point 3"],
    weight: Float[np.ndarray, "point"] | None = None,
) -> tuple[float, Float[np.ndarray, "3 4"]]:
    """Scale s and pose [R | t] minimising sum w |target - (s R source + t)|^2.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991.
    Points that coincide or lie on a line leave the rotation undetermined; some minimiser is returned.
    """
    w = np.ones(len(source)) if weight is None else np.asarray(weight, float)
    scale, pose = fit_similarities(source[None], target[None], w[None])
    return float(scale[0]), pose[0]


def fit_similarities(
    source: Float[np.ndarray, "fit point 3"],
    target: Float[np.ndarray, "fit point 3"],
    weight: Float[np.ndarray, "fit point"],
) -> tuple[Float[np.ndarray, "fit"], Float[np.ndarray, "fit 3 4"]]:
    """`fit_similarity` of many sets of points at once."""
    w = (weight / weight.sum(axis=1, keepdims=True))[:, None]
    mean_source, mean_target = w @ source, w @ target
    centred_source, centred_target = source - mean_source, target - mean_target
    u, singular, vt = np.linalg.svd(np.swapaxes(centred_target, 1, 2) * w @ centred_source)
    sign = np.ones((len(source), 1, 3))
    sign[:, 0, 2] = np.sign(np.linalg.det(u @ vt))
    rotation = u * sign @ vt
    variance = (w @ (centred_source**2).sum(2, keepdims=True))[:, 0, 0]
    scale = (singular * sign[:, 0]).sum(1) / np.maximum(variance, 1e-300)
    moved = scale[:, None, None] * mean_source @ np.swapaxes(rotation, 1, 2)
    return scale, np.concatenate([rotation, np.swapaxes(mean_target - moved, 1, 2)], axis=2)


def fit_level_similarities(
    source: Float[np.ndarray, "fit point 3"],
    target: Float[np.ndarray, "fit point 3"],
    weight: Float[np.ndarray, "fit point"],
) -> tuple[Float[np.ndarray, "fit"], Float[np.ndarray, "fit 3 4"]]:
    """`fit_similarities` whose rotations are about z: points on a line that is not upright determine them."""
    w = (weight / weight.sum(axis=1, keepdims=True))[:, None]
    mean_source, mean_target = w @ source, w @ target
    here, there = source - mean_source, target - mean_target
    across = (w[:, 0] * np.conj(here[..., 0] + 1j * here[..., 1]) * (there[..., 0] + 1j * there[..., 1])).sum(axis=1)
    angle, up = np.angle(across), (w[:, 0] * here[..., 2] * there[..., 2]).sum(axis=1)
    rotation = np.zeros((len(source), 3, 3))
    rotation[:, 0, 0] = rotation[:, 1, 1] = np.cos(angle)
    rotation[:, 1, 0], rotation[:, 0, 1], rotation[:, 2, 2] = np.sin(angle), -np.sin(angle), 1.0
    variance = (w @ (here**2).sum(2, keepdims=True))[:, 0, 0]
    scale = (np.abs(across) + up) / np.maximum(variance, 1e-300)
    moved = scale[:, None, None] * mean_source @ np.swapaxes(rotation, 1, 2)
    return scale, np.concatenate([rotation, np.swapaxes(mean_target - moved, 1, 2)], axis=2)
