"""The arrays in which the store keeps the results of this front end."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from anchorsfm.frontend.classical.focal_evidence import FocalEvidence
from anchorsfm.frontend.classical.two_view import RelativePose
from anchorsfm.scene.pairs import PairStatus
from anchorsfm.stereo.pair import DensePair, DepthMap

Arrays = Mapping[str, np.ndarray]
_STATUSES = tuple(PairStatus)


def encode_evidence(evidence: FocalEvidence) -> dict[str, np.ndarray]:
    return {"evidence": np.array([evidence.num_inliers, evidence.homography_ratio, evidence.shared_focal], np.float64)}


def decode_evidence(arrays: Arrays, fundamental: Float[np.ndarray, "3 3"]) -> FocalEvidence:
    """Of a pair whose verified matches agree on a fundamental matrix."""
    num_inliers, homography_ratio, shared_focal = arrays["evidence"].tolist()
    return FocalEvidence(
        num_inliers=int(num_inliers),
        fundamental=fundamental,
        homography_ratio=homography_ratio,
        shared_focal=shared_focal,
    )


def encode_pose(pose: RelativePose) -> dict[str, np.ndarray]:
    return {
        "keypoint": pose.keypoint,
        "j_from_i": pose.j_from_i,
        "depth": pose.depth,
        "error_px": pose.error_px,
        "status_and_parallax": np.array([_STATUSES.index(pose.status), pose.parallax_deg], np.float64),
    }


def decode_pose(arrays: Arrays) -> RelativePose:
    status, parallax_deg = arrays["status_and_parallax"].tolist()
    return RelativePose(
        status=_STATUSES[int(status)],
        keypoint=arrays["keypoint"],
        j_from_i=arrays["j_from_i"],
        depth=arrays["depth"],
        error_px=arrays["error_px"],
        parallax_deg=parallax_deg,
    )


def encode_dense(dense: DensePair) -> dict[str, np.ndarray]:
    return {**_encode_map(dense.i, "i"), **_encode_map(dense.j, "j")}


def decode_dense(arrays: Arrays) -> DensePair:
    return DensePair(i=_decode_map(arrays, "i"), j=_decode_map(arrays, "j"))


def _encode_map(depth: DepthMap, side: str) -> dict[str, np.ndarray]:
    return {
        f"depth_{side}": depth.depth_code,
        f"range_{side}": depth.log_range,
        f"confidence_{side}": depth.confidence_code,
    }


def _decode_map(arrays: Arrays, side: str) -> DepthMap:
    return DepthMap(
        depth_code=arrays[f"depth_{side}"],
        log_range=arrays[f"range_{side}"],
        confidence_code=arrays[f"confidence_{side}"],
    )
