"""Whether a camera only turned."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from anchorsfm.frontend.classical.rotation import _turned, fit_rotation


def test_derivatives_are_those_of_the_points():
    rng = np.random.default_rng(0)
    xy, focal_ij = rng.uniform(-500, 500, (6, 2)), (900.0, 800.0)
    rotation, zoom, step = Rotation.from_rotvec([0.1, -0.2, 0.15]).as_matrix(), 0.03, 1e-6
    _, jacobian = _turned(xy, focal_ij, rotation, zoom)
    for column, change in enumerate(step * np.eye(4)):
        there, back = (
            _turned(xy, focal_ij, Rotation.from_rotvec(s * change[:3]).as_matrix() @ rotation, zoom + s * change[3])[0]
            for s in (1, -1)
        )
        assert np.allclose((there - back) / (2 * step), jacobian[:, :, column], rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("wrong_focal", [1.0, 1.08])
def test_a_turning_camera_is_found_among_outliers(wrong_focal):
    rng = np.random.default_rng(1)
    xy_i, truth = rng.uniform(-450, 450, (400, 2)), Rotation.from_rotvec([0.05, 0.2, -0.1])
    xy_j = _turned(xy_i, (900.0, 900.0), truth.as_matrix(), 0.0)[0] + rng.normal(0, 0.3, xy_i.shape)
    xy_j[:80] = rng.uniform(-450, 450, (80, 2))
    start = (Rotation.from_rotvec([0.02, 0, 0]) * truth).as_matrix()
    found = fit_rotation(xy_i, xy_j, (900 * wrong_focal, 900 * wrong_focal), start, 1.5)
    assert found.inlier_ratio == pytest.approx(0.8, abs=0.02)
    assert (truth.inv() * Rotation.from_matrix(found.j_from_i)).magnitude() < 2e-3
    assert np.median(found.error_px[80:]) < 0.5
