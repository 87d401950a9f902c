"""Focal lengths of cameras that only pairs of different cameras show."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from anchorsfm.frontend.classical import focal as module
from anchorsfm.frontend.classical.config import IntrinsicsConfig
from anchorsfm.frontend.classical.focal import essential_residual, essential_slope
from anchorsfm.frontend.classical.focal_evidence import FocalEvidence


def _fundamental(rng: np.random.Generator, focal_ij: np.ndarray) -> np.ndarray:
    rotation = Rotation.from_rotvec(rng.uniform(-0.4, 0.4, 3)).as_matrix()
    essential = np.cross(np.eye(3), rng.normal(size=3)) @ rotation
    scale_i, scale_j = (np.diag([1 / f, 1 / f, 1]) for f in focal_ij)
    found = scale_j @ essential @ scale_i
    return found / np.linalg.norm(found)


def test_slopes_are_those_of_the_residuals():
    rng = np.random.default_rng(0)
    focal = rng.uniform(600, 1500, (40, 2))
    fundamental = np.stack([_fundamental(rng, f) for f in focal])
    away = focal * np.exp(rng.uniform(0.05, 0.3, focal.shape) * rng.choice([-1, 1], focal.shape))
    slope, step = essential_slope(fundamental, away), 1e-6
    for end in (0, 1):
        change = np.exp(step * np.eye(2)[end])
        ahead, behind = (essential_residual(fundamental, away * c) for c in (change, 1 / change))
        assert np.allclose((ahead - behind) / (2 * step), slope[:, end], atol=1e-6)


@pytest.mark.parametrize("max_dense", [200, 0])
def test_cameras_are_found_from_pairs_among_them(monkeypatch, max_dense):
    monkeypatch.setattr(module, "MAX_DENSE", max_dense)
    rng = np.random.default_rng(1)
    focal = rng.uniform(800, 1600, 9)
    pairs = np.array([(i, j) for i in range(9) for j in range(i, 9)])  # those of one camera count too
    evidence = [
        FocalEvidence(
            num_inliers=300, fundamental=_fundamental(rng, focal[p]), homography_ratio=0.1, shared_focal=np.nan
        )
        for p in pairs
    ]
    known = np.arange(9) == 0
    start = np.where(known, np.log(focal), np.nan)
    found = module._joint_fit(start, known, pairs, evidence, IntrinsicsConfig())
    assert np.abs(found - np.log(focal)).max() < 0.02
