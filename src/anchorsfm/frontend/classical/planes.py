"""Pairs whose matches all lie on one plane (docs/method.md, Which pairs to believe).

Two relative poses explain them equally well (Longuet-Higgins, "The reconstruction of a plane surface from two
perspective projections", Proceedings of the Royal Society B, 1986), and nothing in the pair tells which is right.
Other pairs do (`agreement`).
"""

from dataclasses import replace

import cv2
import numpy as np
import poselib
from jaxtyping import Float

from anchorsfm.features.verification import MAX_RANSAC_ITERATIONS, MIN_RANSAC_ITERATIONS
from anchorsfm.frontend.classical.rays import bearing, in_front, triangulate_depths
from anchorsfm.frontend.classical.two_view import RelativePose, sampson_of_rays_px
from anchorsfm.geometry.transforms import rotation_angle_deg
from anchorsfm.scene.pairs import PairStatus

MIN_ON_PLANE = 0.95
"""Share of the matches of a pair that one homography explains."""
_OTHER_DEG = 1.0
"""Poses that differ by less are one."""


def other_pose(
    pose: RelativePose,
    xy_i: Float[np.ndarray, "match 2"],
    xy_j: Float[np.ndarray, "match 2"],
    focal_ij: tuple[float, float],
    max_error_px: float,
) -> RelativePose | None:
    """The other pose that explains the matches of a plane; None if they do not lie on one, or there is none.

    Args:
        pose: of the pair.
        xy_i, xy_j: its matches, undistorted, centred.
        focal_ij: of both cameras, in the same unit.
        max_error_px: largest Sampson distance.
    """
    if pose.status is not PairStatus.OK:
        return None
    ransac = {
        "max_reproj_error": 2 * max_error_px,
        "min_iterations": MIN_RANSAC_ITERATIONS,
        "max_iterations": MAX_RANSAC_ITERATIONS,
        "seed": 0,
    }
    homography, _ = poselib.estimate_homography(xy_i, xy_j, ransac, {})
    scale_i, scale_j = np.diag([focal_ij[0], focal_ij[0], 1.0]), np.diag([1 / focal_ij[1], 1 / focal_ij[1], 1.0])
    _, rotations, shifts, _ = cv2.decomposeHomographyMat(scale_j @ np.asarray(homography) @ scale_i, np.eye(3))
    rays_i, rays_j = bearing(xy_i, focal_ij[0]), bearing(xy_j, focal_ij[1])
    found: dict[float, RelativePose] = {}
    for rotation, shift in zip(rotations, shifts, strict=True):
        away_deg = float(rotation_angle_deg((rotation @ pose.j_from_i[:, :3].T)[None])[0])
        length = float(np.linalg.norm(shift))
        if away_deg < _OTHER_DEG or length < 1e-9:
            continue
        j_from_i = np.column_stack([rotation, shift.ravel() / length])
        depth = triangulate_depths(rays_i, rays_j, j_from_i)
        error_px = sampson_of_rays_px(rays_i, rays_j, j_from_i, focal_ij)
        keep = in_front(depth) & (error_px < max_error_px)
        if keep.mean() >= MIN_ON_PLANE:
            found[away_deg] = replace(
                pose,
                keypoint=pose.keypoint[keep],
                j_from_i=j_from_i,
                depth=depth[keep].astype(np.float32),
                error_px=error_px[keep].astype(np.float32),
            )
    return found[max(found)] if found else None
