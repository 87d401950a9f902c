"""Verified matches and relative pose of one pair. Centred coordinates (see `geometry.centred`) throughout.

For photographs with lens distortion these are undistorted coordinates, in which a pixel of the photograph is not
equally long everywhere: PoseLib looks for the geometry with a tolerance stretched by the median over the matches;
then all matches are judged by their distance in the photographs (see `lens`).

PoseLib's estimators are seeded: the same matches always give the same answer.
"""

from dataclasses import dataclass

import numpy as np
import poselib
from jaxtyping import Bool, Float, Int

from anchorsfm.features.config import MatchingConfig
from anchorsfm.features.verification import MAX_RANSAC_ITERATIONS, MIN_RANSAC_ITERATIONS, Verified, verify
from anchorsfm.frontend.classical.config import TwoViewConfig
from anchorsfm.frontend.classical.lens import LensPoints, pair_stretch, sampson_px
from anchorsfm.frontend.classical.rays import bearing, in_front, parallax_deg, triangulate_depths
from anchorsfm.frontend.classical.rotation import fit_rotation
from anchorsfm.scene.pairs import PairStatus


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


def verify_pair(
    xy_i: Float[np.ndarray, "match 2"],
    xy_j: Float[np.ndarray, "match 2"],
    keypoint: Int[np.ndarray, "match 2"],
    config: MatchingConfig,
    lens: PairLens | None,
) -> Verified:
    """Matches that agree on one fundamental matrix; `lens`: the same points, where distorted."""
    if lens is None:
        return verify(xy_i, xy_j, keypoint, config)

    def error_px(fundamental: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "match"]:
        return sampson_px(fundamental, lens.i, lens.j)

    return verify(xy_i, xy_j, keypoint, config, stretch=lens.stretch, error_px=error_px)


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
        return unrelated()
    rays_i, rays_j = bearing(xy_i, focal_ij[0]), bearing(xy_j, focal_ij[1])
    stretch = lens.stretch if lens else 1.0
    j_from_i, inlier = _essential_pose(
        xy_i, xy_j, focal_ij, matching.max_epipolar_error_px * stretch, matching.seed or 0
    )
    error_px = sampson_of_rays_px(rays_i, rays_j, j_from_i, focal_ij)
    if lens is not None:
        error_px = sampson_px(_fundamental(j_from_i, focal_ij), lens.i, lens.j)
        inlier = error_px < matching.max_epipolar_error_px
    depth = triangulate_depths(rays_i, rays_j, j_from_i)
    keep = inlier & in_front(depth)
    if inlier.sum() < matching.min_inliers:
        return unrelated()
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
        return unrelated()
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


def sampson_of_rays_px(
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


def unrelated() -> RelativePose:
    """What a pair without agreeing matches has."""
    return RelativePose(
        status=PairStatus.UNMATCHED,
        keypoint=np.zeros((0, 2), np.int32),
        j_from_i=np.eye(3, 4),
        depth=np.zeros((0, 2), np.float32),
        error_px=np.zeros(0, np.float32),
        parallax_deg=0.0,
    )
