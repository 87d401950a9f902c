"""Robust multi-view triangulation of many tracks at once (method: Part B3).

For every track a few two-view hypotheses (the pairs of its views with the widest rays) are triangulated by the direct
linear transform, and the one with most inliers is kept. The point is then triangulated again from all inliers and
refined by Gauss-Newton on the reprojection errors in normalised coordinates.
Hartley and Zisserman, "Multiple View Geometry", 12.2; hypotheses as in VGGSfM (Wang et al., CVPR 2024, 3.3).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, kw_only=True)
class RayBundle:
    """Observations of tracks, sorted by point, as normalised image coordinates with the poses they were made from."""

    point: Int[np.ndarray, "obs"]
    view: Int[np.ndarray, "obs"]
    """Row of `cam_from_world`."""
    xy: Float[np.ndarray, "obs 2"]
    """Undistorted coordinates on the plane z = 1; NaN rows are never inliers."""
    cam_from_world: Float[np.ndarray, "view 3 4"]
    tolerance: Float[np.ndarray, "obs"]
    """Largest reprojection error of an inlier, in normalised units (pixels / focal)."""


@dataclass(frozen=True, kw_only=True)
class Triangulation:
    """One point per track."""

    points: Float[np.ndarray, "point 3"]
    """NaN where no hypothesis had two inliers."""
    inlier: Bool[np.ndarray, "obs"]
    angle_deg: Float[np.ndarray, "point"]
    """Widest angle between two inlier rays."""


def triangulate(bundle: RayBundle, num_points: int, *, max_hypotheses: int = 12) -> Triangulation:
    """Triangulate all tracks of a bundle; degenerate tracks give NaN and no inliers, never an error."""
    directions = _ray_directions(bundle)
    first, second = _hypotheses(bundle, directions, num_points, max_hypotheses)
    points = _two_view_points(bundle, first, second)
    best = _best_hypothesis(bundle, points, first, num_points)
    for _ in range(2):
        inlier = _inliers(bundle, best)
        best = _multi_view_points(bundle, inlier, best, num_points)
    inlier = _inliers(bundle, best)
    count = np.bincount(bundle.point[inlier], minlength=num_points)
    best[count < 2] = np.nan
    inlier &= (count >= 2)[bundle.point]
    return Triangulation(points=best, inlier=inlier, angle_deg=widest_angle_deg(bundle, inlier, best, num_points))


def reprojection_errors(bundle: RayBundle, points: Float[np.ndarray, "point 3"]) -> Float[np.ndarray, "obs"]:
    """Distance on the plane z = 1 between projection and observation; infinite behind the camera or for NaN."""
    error, _ = _residuals(bundle, points[bundle.point])
    return error


def _residuals(
    bundle: RayBundle, world: Float[np.ndarray, "obs 3"], rows: np.ndarray | slice = slice(None)
) -> tuple[Float[np.ndarray, "obs"], Float[np.ndarray, "obs 3"]]:
    pose = bundle.cam_from_world[bundle.view[rows]]
    camera = np.einsum("nij,nj->ni", pose[:, :, :3], world) + pose[:, :, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.hypot(*(camera[:, :2] / camera[:, 2:] - bundle.xy[rows]).T)
    bad = ~(camera[:, 2] > 1e-9) | ~np.isfinite(error)
    return np.where(bad, np.inf, error), camera


def _inliers(bundle: RayBundle, points: Float[np.ndarray, "point 3"]) -> Bool[np.ndarray, "obs"]:
    return reprojection_errors(bundle, points) <= bundle.tolerance


def _ray_directions(bundle: RayBundle) -> Float[np.ndarray, "obs 3"]:
    """Unit rays in the world frame."""
    ray = np.concatenate([bundle.xy, np.ones((len(bundle.xy), 1))], axis=1)
    ray = np.einsum("nji,nj->ni", bundle.cam_from_world[bundle.view][:, :, :3], ray)
    return ray / np.linalg.norm(ray, axis=1, keepdims=True)


def _hypotheses(
    bundle: RayBundle, directions: Float[np.ndarray, "obs 3"], num_points: int, max_hypotheses: int
) -> tuple[Int[np.ndarray, "hyp"], Int[np.ndarray, "hyp"]]:
    """Pairs of observations of the same track, the widest angles first, at most `max_hypotheses` a track.

    Observation k of a track of length L is paired with those 1, 2, ... places on; long tracks are thinned by taking
    places from a fixed geometric series, so the number of candidates stays linear in the track length.
    """
    start = np.searchsorted(bundle.point, np.arange(num_points + 1))
    length = np.diff(start)
    place = np.arange(len(bundle.point)) - start[bundle.point]
    firsts, seconds = [], []
    offset = 1
    while offset < (length.max() if num_points else 0):
        rows = np.flatnonzero(place + offset < length[bundle.point])
        firsts.append(rows)
        seconds.append(rows + offset)
        offset = offset + 1 if offset < 4 else offset * 2
    if not firsts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    first, second = np.concatenate(firsts), np.concatenate(seconds)
    cosine = np.abs((directions[first] * directions[second]).sum(1))
    cosine = np.where(np.isfinite(cosine), cosine, 2.0)
    order = np.lexsort((cosine, bundle.point[first]))
    first, second = first[order], second[order]
    track = bundle.point[first]
    rank = np.arange(len(track)) - np.searchsorted(track, track)
    # every other wide pair: the very widest alone would put all hypotheses on one outlying observation
    total = np.bincount(track, minlength=num_points)[track]
    stride = np.maximum(total // max_hypotheses, 1)
    keep = (rank % stride == 0) & (rank // stride < max_hypotheses)
    return first[keep], second[keep]


def _normal_matrices(bundle: RayBundle, rows: np.ndarray) -> Float[np.ndarray, "obs 4 4"]:
    """Sum of a a^T over the two equations of an observation, scaled to angular weight by the ray's length."""
    pose, xy = bundle.cam_from_world[bundle.view[rows]], bundle.xy[rows]
    equations = xy[:, :, None] * pose[:, 2:3, :] - pose[:, :2, :]
    equations /= np.sqrt(1 + (xy**2).sum(1))[:, None, None]
    return np.einsum("nki,nkj->nij", equations, equations)


def _smallest_eigenvector(matrices: Float[np.ndarray, "n 4 4"]) -> Float[np.ndarray, "n 3"]:
    finite = np.isfinite(matrices).all(axis=(1, 2))
    vector = np.linalg.eigh(np.where(finite[:, None, None], matrices, np.eye(4)))[1][:, :, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        points = vector[:, :3] / vector[:, 3:]
    points[~finite | ~np.isfinite(points).all(1)] = np.nan
    return points


def _two_view_points(bundle: RayBundle, first: np.ndarray, second: np.ndarray) -> Float[np.ndarray, "hyp 3"]:
    return _smallest_eigenvector(_normal_matrices(bundle, first) + _normal_matrices(bundle, second))


def _best_hypothesis(
    bundle: RayBundle, points: Float[np.ndarray, "hyp 3"], first: Int[np.ndarray, "hyp"], num_points: int
) -> Float[np.ndarray, "point 3"]:
    """Most inliers, then the smallest summed error over tolerance (truncated at 1)."""
    best = np.full((num_points, 3), np.nan)
    if not len(points):
        return best
    track = bundle.point[first]
    start = np.searchsorted(bundle.point, np.arange(num_points + 1))
    length = np.diff(start)[track]
    rows = np.repeat(start[track] - np.cumsum(length) + length, length) + np.arange(length.sum())
    hypothesis = np.repeat(np.arange(len(points)), length)
    error, _ = _residuals(bundle, points[hypothesis], rows)
    cost = np.minimum(error / bundle.tolerance[rows], 1.0)
    score = np.bincount(hypothesis, weights=cost, minlength=len(points))
    order = np.lexsort((score, track))
    winner = order[np.flatnonzero(np.r_[True, np.diff(track[order]) > 0])]
    best[track[winner]] = points[winner]
    return best


def _multi_view_points(
    bundle: RayBundle, inlier: Bool[np.ndarray, "obs"], start: Float[np.ndarray, "point 3"], num_points: int
) -> Float[np.ndarray, "point 3"]:
    """Linear triangulation from all inliers, then three Gauss-Newton steps; keeps `start` where fewer than two."""
    rows = np.flatnonzero(inlier)
    point = bundle.point[rows]
    count = np.bincount(point, minlength=num_points)
    total = np.zeros((num_points, 4, 4))
    np.add.at(total, point, _normal_matrices(bundle, rows))
    used = count >= 2
    points = start.copy()
    points[used] = _smallest_eigenvector(total[used])
    for _ in range(3):
        points = _gauss_newton_step(bundle, rows, points, num_points)
    return np.where(np.isfinite(points).all(1, keepdims=True), points, start)


def _gauss_newton_step(
    bundle: RayBundle, rows: np.ndarray, points: Float[np.ndarray, "point 3"], num_points: int
) -> Float[np.ndarray, "point 3"]:
    error, camera = _residuals(bundle, points[bundle.point[rows]], rows)
    good = np.isfinite(error)
    rows, camera = rows[good], camera[good]
    rotation = bundle.cam_from_world[bundle.view[rows]][:, :, :3]
    inverse_z = 1 / camera[:, 2:]
    projected = camera[:, :2] * inverse_z
    jacobian = (rotation[:, :2] - projected[:, :, None] * rotation[:, 2:3]) * inverse_z[:, :, None]
    residual = projected - bundle.xy[rows]
    hessian, gradient = np.zeros((num_points, 3, 3)), np.zeros((num_points, 3))
    np.add.at(hessian, bundle.point[rows], np.einsum("nki,nkj->nij", jacobian, jacobian))
    np.add.at(gradient, bundle.point[rows], np.einsum("nki,nk->ni", jacobian, residual))
    scale = np.trace(hessian, axis1=1, axis2=2)
    hessian += (1e-9 * scale + 1e-300)[:, None, None] * np.eye(3)
    determined = scale > 0
    step = np.zeros_like(points)
    step[determined] = np.linalg.solve(hessian[determined], gradient[determined][:, :, None])[:, :, 0]
    return points - step


def widest_angle_deg(
    bundle: RayBundle, inlier: Bool[np.ndarray, "obs"], points: Float[np.ndarray, "point 3"], num_points: int
) -> Float[np.ndarray, "point"]:
    """Exact for short tracks; for long ones a lower bound from the pairs that `_hypotheses` would look at."""
    rows = np.flatnonzero(inlier)
    rotation = bundle.cam_from_world[:, :, :3]
    centres = -np.einsum("vji,vj->vi", rotation, bundle.cam_from_world[:, :, 3])
    ray = points[bundle.point[rows]] - centres[bundle.view[rows]]
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    point = bundle.point[rows]
    start = np.searchsorted(point, np.arange(num_points + 1))
    length, place = np.diff(start), np.arange(len(point)) - start[point]
    cosine = np.ones(num_points)
    offset = 1
    while offset < (length.max() if len(length) else 0):
        a = np.flatnonzero(place + offset < length[point])
        np.minimum.at(cosine, point[a], (ray[a] * ray[a + offset]).sum(1))
        offset = offset + 1 if offset < 16 else offset * 2
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))
