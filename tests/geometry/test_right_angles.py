"""The focal length of made-up segments: in directions at right angles, at other angles, and in any direction."""

import math
from typing import Any

import numpy as np
import pytest
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from anchorsfm.geometry.right_angles import UNCHECKED, LineFocal, Segments, focal_of_lines

TRUE_PX = 1000.0
HALF_WH = np.array([360.0, 270.0])
TRIED_PX = TRUE_PX * np.exp(np.linspace(-0.6, 0.6, 49))
UP = (0.0, 1.0, 0.0)


def level(*azimuths_deg: float) -> list[tuple[float, float, float]]:
    return [(math.cos(math.radians(a)), 0.0, math.sin(math.radians(a))) for a in azimuths_deg]


def views(turn_deg: float, tilt_deg: float = 8.0) -> Float[np.ndarray, "2 3 3"]:
    """Two cameras, cam from world, that look at a corner from both sides."""
    tilt = Rotation.from_euler("x", tilt_deg, degrees=True)
    return np.stack(
        [(tilt * Rotation.from_euler("y", 40 + side * turn_deg / 2, degrees=True)).as_matrix() for side in (-1, 1)]
    )


def segments(
    directions: list[tuple[float, float, float]],
    rotations: Float[np.ndarray, "2 3 3"],
    clutter: float = 0.4,
    per_view: int = 50,
) -> Segments:
    """Of directions of the world; some in any direction."""
    rng = np.random.default_rng(5)
    middle = rng.uniform(-HALF_WH, HALF_WH, (2, per_view, 2))
    length = rng.uniform(25, 130, (2, per_view))
    sigma = np.hypot(math.radians(0.4), 1.0 / length)
    angle = rng.uniform(0, math.pi, (2, per_view))
    if directions:
        which = rng.integers(0, len(directions), (2, per_view))
        there = np.einsum("vij,vsj->vsi", rotations, np.array(directions)[which])
        along = TRUE_PX * there[..., :2] - there[..., 2:] * middle
        straight = np.arctan2(along[..., 1], along[..., 0]) + sigma * rng.standard_normal((2, per_view))
        angle = np.where(rng.random((2, per_view)) < clutter, angle, straight)
    half = length[..., None] / 2 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return Segments(
        ends_px=np.stack([middle - half, middle + half], axis=2).reshape(-1, 2, 2),
        view=np.repeat([0, 1], per_view),
        sigma=sigma.ravel(),
    )


def found(
    directions: list[tuple[float, float, float]], turn_deg: float, tilt_deg: float = 8.0, **kinds: Any
) -> LineFocal:
    """With the rotations that matches of a walk around something leave possible: f tan(turn / 2) is constant."""
    true = views(turn_deg, tilt_deg)
    between = Rotation.from_matrix(true[1] @ true[0].T).as_rotvec()
    angle = np.linalg.norm(between)
    allowed = 2 * np.arctan(TRUE_PX * math.tan(angle / 2) / TRIED_PX)
    second = Rotation.from_rotvec(between / angle * allowed[:, None]).as_matrix()
    rotations = np.stack([np.broadcast_to(np.eye(3), second.shape), second], axis=1)
    return focal_of_lines(segments(directions, true, **kinds), TRIED_PX, rotations)


def test_edges_at_right_angles_show_the_focal_length() -> None:
    seen = found([*level(0, 90), UP], 35.0)
    assert not seen.doubt and seen.deviation <= 0.12
    assert abs(math.log(seen.focal_px / TRUE_PX)) < seen.deviation


@pytest.mark.parametrize("corner_deg", [90.0, 62.0])
def test_parallel_views_do_not_tell_whether_edges_are_at_right_angles(corner_deg: float) -> None:
    """Those of another corner fit as well, with another focal length."""
    seen = found([*level(0, corner_deg), UP], 0.5, tilt_deg=0.0, clutter=0.2)
    assert seen.doubt == UNCHECKED
    assert (abs(math.log(seen.focal_px / TRUE_PX)) < 2 * seen.deviation) == (corner_deg == 90)


def test_walls_at_other_angles_are_refused() -> None:
    """Taken to be at right angles they would show another focal length, and clearly so."""
    seen = found([*level(0, 62), UP], 22.0, tilt_deg=0.0, clutter=0.2, per_view=100)
    assert abs(math.log(seen.focal_px / TRUE_PX)) > 2 * seen.deviation
    assert "right angles" in seen.doubt


def test_edges_in_all_directions_say_nothing() -> None:
    assert found([], 30.0).doubt


def test_verticals_and_one_wall_seen_from_the_front_say_nothing() -> None:
    """Their vanishing points are far away with any focal length."""
    straight = views(0.0, tilt_deg=0.0)
    facing = [tuple(np.linalg.inv(straight[0])[:, k].tolist()) for k in (0, 1)]
    rotations = np.broadcast_to(np.eye(3), (len(TRIED_PX), 2, 3, 3))
    seen = focal_of_lines(segments(facing, straight), TRIED_PX, rotations)
    assert "other focal lengths" in seen.doubt


def test_few_edges_say_nothing() -> None:
    seen = found([*level(0, 90), UP], 30.0, per_view=8)
    assert "few" in seen.doubt and math.isnan(seen.focal_px)
