"""What is said of ground control points."""

import numpy as np
import pytest

from anchorsfm.mapping.control import Controlled
from anchorsfm.report.control import control_lines, describe_control
from anchorsfm.scene.ground import GroundPoints

GROUND = GroundPoints(
    names=("A", "B", "C", "D", "E"),
    xyz_m=np.zeros((5, 3)),
    given=np.zeros((5, 3)),
    is_check=np.array([False, False, False, False, True]),
    point=np.repeat(np.arange(5), 2),
    image=np.tile([0, 1], 5),
    xy_px=np.ones((10, 2)),
)


def found(off_px: float) -> Controlled:
    """D contradicts the others; the model lacks the second photograph of E."""
    residual = np.array([[0.3, 0.4, 0.1]] * 3 + [[0, 0, 7.0]] + [[0.0, 2.0, 1.0]])
    error = np.array([off_px] * 6 + [90.0] * 2 + [3.0, np.nan])
    return Controlled(is_used=np.arange(5) < 3, residual_m=residual, residual_px=error)


def test_control_check_and_wrong_points_are_told_apart() -> None:
    lines = list(control_lines(found(2.0), GROUND))
    assert [line.text for line in lines] == [
        "3 control points: 0.5 m horizontally, 0.1 m vertically, 2 px (RMS)",
        "1 check points: 2 m horizontally, 1 m vertically, 3 px (RMS)",
        "control points that contradict the others have no say: D (7 m)",
    ]
    assert [line.is_warning for line in lines] == [False, False, True]


def test_points_that_do_not_fit_are_warned_of() -> None:
    first, *_ = control_lines(found(50.0), GROUND)
    assert first.is_warning and first.text.endswith("50 px (RMS): they do not fit the photographs")


def test_every_point_and_mark_is_described() -> None:
    (model,) = describe_control([found(2.0)], GROUND, ["a.jpg", "b.jpg"])["models"]
    assert [point["role"] for point in model["points"]] == ["control"] * 3 + ["not used", "check"]
    assert model["points"][0]["residual_m"] == pytest.approx([0.3, 0.4, 0.1])
    assert [(mark["image"], mark["residual_px"]) for mark in model["points"][4]["marks"]] == [
        ("a.jpg", 3.0),
        ("b.jpg", None),
    ]
