"""Rays of a pair in centred coordinates (see `geometry.centred`), and their triangulation."""

import numpy as np
from jaxtyping import Bool, Float


def bearing(xy: Float[np.ndarray, "point 2"], focal: float) -> Float[np.ndarray, "point 3"]:
    """Rays (x/z, y/z, 1) of centred points."""
    return np.concatenate([xy / focal, np.ones((len(xy), 1))], axis=1)


def triangulate_depths(
    rays_i: Float[np.ndarray, "point 3"], rays_j: Float[np.ndarray, "point 3"], j_from_i: Float[np.ndarray, "3 4"]
) -> Float[np.ndarray, "point 2"]:
    """Depth (z) of the nearest points of two rays in either camera; not positive where the rays diverge.

    Least squares of a R r_i - b r_j = -t for (a, b); rays have z = 1, so that a and b are depths. Parallel rays give 0.
    """
    u, v, t = rays_i @ j_from_i[:, :3].T, rays_j, j_from_i[:, 3]
    uu, vv, uv = (u * u).sum(1), (v * v).sum(1), (u * v).sum(1)
    ut, vt = u @ t, v @ t
    determinant = uu * vv - uv**2
    parallel = determinant <= 1e-14 * uu * vv
    safe = np.where(parallel, 1.0, determinant)
    depth_i = (uv * vt - vv * ut) / safe
    depth_j = (uu * vt - uv * ut) / safe
    return np.where(parallel[:, None], 0.0, np.stack([depth_i, depth_j], axis=1))


def parallax_deg(
    rays_i: Float[np.ndarray, "point 3"], rays_j: Float[np.ndarray, "point 3"], rotation: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "point"]:
    """Angle between the two rays of each point after undoing the rotation of j against i."""
    u, v = rays_i @ rotation.T, rays_j
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(u, v), axis=1), (u * v).sum(1)))


def in_front(depths: Float[np.ndarray, "point 2"]) -> Bool[np.ndarray, "point"]:
    """Points with a sensible positive depth in both cameras."""
    return np.asarray((depths > 1e-9).all(1))
