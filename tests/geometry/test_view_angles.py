"""Where cameras look, by the angles that drones and compasses record."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from anchorsfm.geometry.view_angles import cam_from_enu_rotation, pitch_and_heading_deg

EAST, NORTH, UP = np.eye(3)


@pytest.mark.parametrize(
    ("angles", "right", "down", "forward"),
    [
        ((0.0, 0), EAST, -UP, NORTH),
        ((90.0, 0), -NORTH, -UP, EAST),
        ((0.0, -90), EAST, -NORTH, -UP),  # a map: north at the top of the picture
        ((90.0, -90), -NORTH, -EAST, -UP),
        ((180.0, 90), -EAST, -NORTH, UP),
    ],
)
def test_axes(angles: tuple, right: np.ndarray, down: np.ndarray, forward: np.ndarray) -> None:
    assert cam_from_enu_rotation(np.array([angles]))[0] == pytest.approx(np.stack([right, down, forward]), abs=1e-12)


def test_pitch_and_heading_are_told_apart() -> None:
    angles = np.array([[350.0, -90], [20, -75], [200, 10], [np.nan, np.nan]])
    true = cam_from_enu_rotation(np.nan_to_num(angles))
    north = Rotation.from_euler("z", 12.0, degrees=True).as_matrix()
    pitch, heading = pitch_and_heading_deg(true @ north, angles)
    assert pitch[:3] == pytest.approx([0] * 3, abs=1e-5) and heading[:3] == pytest.approx([12.0] * 3)
    assert np.isnan([pitch[3], heading[3]]).all()
    pitch, heading = pitch_and_heading_deg(Rotation.from_euler("x", 3, degrees=True).as_matrix() @ true, angles)
    assert pitch[:3] == pytest.approx([3.0] * 3) and heading[:3] == pytest.approx([0] * 3, abs=1e-6)


def test_pictures_may_be_stored_on_their_side() -> None:
    true = cam_from_enu_rotation(np.array([[355.0, -20]]))
    pitch, heading = pitch_and_heading_deg(
        np.array([[[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]]) @ true, np.array([[3.0, -20]])
    )
    assert pitch[0] == pytest.approx(0, abs=1e-9) and heading[0] == pytest.approx(8.0)


def test_a_compass_knows_only_where_a_level_camera_looks() -> None:
    true = cam_from_enu_rotation(np.array([[355.0, -20], [0, -85]]))
    pitch, heading = pitch_and_heading_deg(true, np.array([[3.0, np.nan], [90, np.nan]]))
    assert np.isnan(pitch).all() and heading[0] == pytest.approx(8.0) and np.isnan(heading[1])
