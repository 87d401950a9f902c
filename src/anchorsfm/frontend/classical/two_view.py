"""Verified matches and relative pose of one pair. Centred coordinates (see `rays`) throughout.

For photographs with lens distortion these are undistorted coordinates, in which a pixel of the photograph is not
equally long everywhere: PoseLib looks for the geometry with a tolerance stretched by the median over the matches;
then all matches are judged by their distance in the photographs (see `lens`).

PoseLib's estimators are seeded: the same matches always give the same answer.
"""

from dataclasses import dataclass

import numpy as np
import poselib
from jaxtyping import Bool, Float, Int
from scipy.spatial.transform import Rotation

from anchorsfm.frontend.classical.config import MatchingConfig, TwoViewConfig
from anchorsfm.frontend.classical.lens import LensPoints, pair_stretch, sampson_px
from anchorsfm.frontend.classical.rays import bearing, in_front, parallax_deg, triangulate_depths
from anchorsfm.scene.pairs import PairStatus

MAX_RANSAC_ITERATIONS = 3000
MIN_RANSAC_ITERATIONS = 100
"""Samples at least, where matches agree so well that fewer would do by their number."""
ROTATION_SAMPLE, ROTATION_STEPS = 300, 30
"""Matches that show whether a camera only turned, and steps of the fit to them."""
ROTATION_FOCAL_SPREAD = 0.1
"""A rotating camera is recognised although its focal length may be wrong by about this much (log)."""


@dataclass(frozen=True, kw_only=True)
class PairLens:
    """The points of the matches of a pair with lens distortion."""

    i: LensPoints
    j: LensPoints

    @property
    def stretch(self) -> float:
        """Undistorted pixels per pixel of the photographs, median over matches."""
        return float(np.median(pair_stretch(self.i, self.j)))

    def rows(self, index: Int[np.ndarray, "row"]) -> "PairLens":
        return PairLens(i=self.i.rows(index), j=self.j.rows(index))


@dataclass(frozen=True, kw_only=True)
class Verified:
    """Matches that agree on one fundamental matrix: x_j^T F x_i = 0. No rows: the pair is unmatched."""

    keypoint: Int[np.ndarray, "match 2"]
    """Rows of the keypoints of i and of j."""
    fundamental: Float[np.ndarray, "3 3"]


@dataclass(frozen=True, kw_only=True)
class RelativePose:
    """Pose of camera j against camera i and the matches that agree with it."""

    status: PairStatus
    keypoint: Int[np.ndarray, "match 2"]
    j_from_i: Float[np.ndarray, "3 4"]
    """Baseline of length 1. For a pure rotation the translation is 0."""
    depth: Float[np.ndarray, "match 2"]
    """Depth of each match in camera i and in camera j, in baselines; NaN for a pure rotation."""
    error_px: Float[np.ndarray, "match"]
    """Distance of each match from the geometry, in centred pixels: Sampson distance, or reprojection by rotation."""
    parallax_deg: float
    """Median over matches."""


def verify(
    xy_i: Float[np.ndarray, "match 2"],
    xy_j: Float[np.ndarray, "match 2"],
    keypoint: Int[np.ndarray, "match 2"],
    config: MatchingConfig,
    lens: PairLens | None = None,
) -> Verified:
    """Keep the matches of a robustly estimated fundamental matrix; `lens`: the same points, where distorted."""
    if len(keypoint) < max(config.min_inliers, 8):
        return _unverified()
    tolerance = config.max_epipolar_error_px * (lens.stretch if lens else 1.0)
    ransac = {"max_epipolar_error": tolerance, "max_iterations": MAX_RANSAC_ITERATIONS, "seed": config.seed or 0}
    fundamental, info = poselib.estimate_fundamental(xy_i, xy_j, ransac, {})
    inlier = np.array(info["inliers"], bool)
    if lens is not None:
        inlier = sampson_px(np.asarray(fundamental, np.float64), lens.i, lens.j) < config.max_epipolar_error_px
    if inlier.sum() < max(config.min_inliers, config.min_inlier_ratio * len(keypoint)):
        return _unverified()
    return Verified(keypoint=keypoint[inlier], fundamental=np.asarray(fundamental, np.float64))


def relate(
    xy_i: Float[np.ndarray, "match 2"],
    xy_j: Float[np.ndarray, "match 2"],
    keypoint: Int[np.ndarray, "match 2"],
    focal_ij: tuple[float, float],
    matching: MatchingConfig,
    config: TwoViewConfig,
    lens: PairLens | None = None,
) -> RelativePose:
    """Relative pose from verified matches and known focal lengths, and what kind of pair it is.

    `lens`: the same points, where the photographs are distorted.
    """
    if len(keypoint) < matching.min_inliers:
        return _unrelated()
    rays_i, rays_j = bearing(xy_i, focal_ij[0]), bearing(xy_j, focal_ij[1])
    stretch = lens.stretch if lens else 1.0
    j_from_i, inlier = _essential_pose(
        xy_i, xy_j, focal_ij, matching.max_epipolar_error_px * stretch, matching.seed or 0
    )
    error_px = _sampson_px(rays_i, rays_j, j_from_i, focal_ij)
    if lens is not None:
        error_px = sampson_px(_fundamental(j_from_i, focal_ij), lens.i, lens.j)
        inlier = error_px < matching.max_epipolar_error_px
    depth = triangulate_depths(rays_i, rays_j, j_from_i)
    keep = inlier & in_front(depth)
    if inlier.sum() < matching.min_inliers:
        return _unrelated()
    parallax = float(np.median(parallax_deg(rays_i[inlier], rays_j[inlier], j_from_i[:, :3])))
    max_rotation_error_px = matching.max_epipolar_error_px * stretch
    rotation = fit_rotation(xy_i[inlier], xy_j[inlier], focal_ij, j_from_i[:, :3], max_rotation_error_px)
    if parallax < config.min_parallax_deg or rotation.inlier_ratio > config.max_rotation_inlier_ratio:
        return RelativePose(
            status=PairStatus.PURE_ROTATION,
            keypoint=keypoint[inlier],
            j_from_i=np.concatenate([rotation.j_from_i, np.zeros((3, 1))], axis=1),
            depth=np.full((int(inlier.sum()), 2), np.nan, np.float32),
            error_px=(rotation.error_px / stretch).astype(np.float32),
            parallax_deg=parallax,
        )
    if keep.sum() < matching.min_inliers:
        return _unrelated()
    return RelativePose(
        status=PairStatus.OK,
        keypoint=keypoint[keep],
        j_from_i=j_from_i,
        depth=depth[keep].astype(np.float32),
        error_px=error_px[keep].astype(np.float32),
        parallax_deg=parallax,
    )


def _essential_pose(
    xy_i: Float[np.ndarray, "match 2"],
    xy_j: Float[np.ndarray, "match 2"],
    focal_ij: tuple[float, float],
    max_error_px: float,
    seed: int,
) -> tuple[Float[np.ndarray, "3 4"], Bool[np.ndarray, "match"]]:
    cameras = [{"model": "SIMPLE_PINHOLE", "width": 0, "height": 0, "params": [f, 0.0, 0.0]} for f in focal_ij]
    pose, info = poselib.estimate_relative_pose(
        xy_i,
        xy_j,
        cameras[0],
        cameras[1],
        {
            "max_epipolar_error": max_error_px,
            "min_iterations": MIN_RANSAC_ITERATIONS,
            "max_iterations": MAX_RANSAC_ITERATIONS,
            "seed": seed,
        },
        {"loss_type": "CAUCHY", "loss_scale": max_error_px / 3},
    )
    j_from_i = np.array(pose.Rt, np.float64)
    j_from_i[:, 3] /= max(float(np.linalg.norm(j_from_i[:, 3])), 1e-12)
    return j_from_i, np.array(info["inliers"], bool)


def _sampson_px(
    rays_i: Float[np.ndarray, "match 3"],
    rays_j: Float[np.ndarray, "match 3"],
    j_from_i: Float[np.ndarray, "3 4"],
    focal_ij: tuple[float, float],
) -> Float[np.ndarray, "match"]:
    """Sampson distance |x_j^T F x_i| / |gradient| (Hartley and Zisserman, 11.4.3)."""
    essential = np.cross(j_from_i[:, 3], j_from_i[:, :3], axisb=0, axisc=0)
    line_j, line_i = rays_i @ essential.T, rays_j @ essential
    gradient = np.sqrt((line_i[:, :2] ** 2).sum(1) / focal_ij[0] ** 2 + (line_j[:, :2] ** 2).sum(1) / focal_ij[1] ** 2)
    return np.abs((rays_j * line_j).sum(1)) / np.maximum(gradient, 1e-12)


def _fundamental(j_from_i: Float[np.ndarray, "3 4"], focal_ij: tuple[float, float]) -> Float[np.ndarray, "3 3"]:
    """Of centred coordinates."""
    essential = np.cross(j_from_i[:, 3], j_from_i[:, :3], axisb=0, axisc=0)
    scale_i, scale_j = ([1 / focal, 1 / focal, 1.0] for focal in focal_ij)
    return np.asarray(np.array(scale_j)[:, None] * essential * np.array(scale_i))


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
    focal length within ROTATION_FOCAL_SPREAD keeps such pairs from being mistaken for ones with depth. Levenberg's and
    Marquardt's damped steps on reweighted squares, for Cauchy's loss.
    """
    sample = np.linspace(0, len(xy_i) - 1, min(len(xy_i), ROTATION_SAMPLE)).astype(int)
    x, y = xy_i[sample], xy_j[sample]
    rotation, zoom, damping = start, 0.0, 1e-3
    cost = _rotation_cost(_turned(x, focal_ij, rotation, zoom)[0] - y, zoom, max_error_px)
    for _ in range(ROTATION_STEPS):
        predicted, jacobian = _turned(x, focal_ij, rotation, zoom)
        residual = predicted - y
        weight = 1 / (1 + (residual**2).sum(1) / max_error_px**2)
        weighted = (jacobian * weight[:, None, None]).reshape(-1, 4).T
        normal = weighted @ jacobian.reshape(-1, 4)
        gradient = weighted @ residual.ravel()
        prior = (max_error_px / ROTATION_FOCAL_SPREAD) ** 2
        normal[3, 3] += prior
        gradient[3] += prior * zoom
        step = -np.linalg.solve(normal + damping * np.diag(np.diag(normal)) + 1e-12 * np.eye(4), gradient)
        tried = Rotation.from_rotvec(step[:3]).as_matrix() @ rotation
        after = _rotation_cost(_turned(x, focal_ij, tried, zoom + step[3])[0] - y, zoom + step[3], max_error_px)
        if after >= cost:
            if damping > 1e6:
                break
            damping *= 10
            continue
        converged = cost - after < 1e-6 * cost
        rotation, zoom, cost, damping = tried, zoom + float(step[3]), after, damping / 10
        if converged:
            break
    error = np.linalg.norm(_turned(xy_i, focal_ij, rotation, zoom)[0] - xy_j, axis=1)
    return RotationFit(j_from_i=rotation, inlier_ratio=float((error < max_error_px).mean()), error_px=error)


def _rotation_cost(residual: Float[np.ndarray, "match 2"], zoom: float, scale_px: float) -> float:
    """Cauchy's loss of the distances, and a soft prior of the zoom; half its quadratic form near the optimum."""
    prior = (zoom * scale_px / ROTATION_FOCAL_SPREAD) ** 2
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


def _unverified() -> Verified:
    return Verified(keypoint=np.zeros((0, 2), np.int32), fundamental=np.zeros((3, 3)))


def _unrelated() -> RelativePose:
    return RelativePose(
        status=PairStatus.UNMATCHED,
        keypoint=np.zeros((0, 2), np.int32),
        j_from_i=np.eye(3, 4),
        depth=np.zeros((0, 2), np.float32),
        error_px=np.zeros(0, np.float32),
        parallax_deg=0.0,
    )
