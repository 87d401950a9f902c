"""Turns about a thing, which move the picture little, and movements that are no such turns."""

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from anchorsfm.synthetic import SceneConfig, make_scene, render_image
from anchorsfm.video.measure import LOST, TURN_STEP, WAY_OF_DEGREE, Odometer
from anchorsfm.video.turning import FollowedPoints, turn_deg
from video_files import panned

SIZE_WH = (320, 180)
THING = np.array([0.0, 0.0, 4.0])


def seen(
    rotation: np.ndarray, centre: np.ndarray, points: np.ndarray, rng: np.random.Generator, focal_px: float
) -> np.ndarray:
    """By a camera that was at the origin, pixels."""
    in_camera = (points - centre) @ rotation.T
    xy = focal_px * in_camera[:, :2] / in_camera[:, 2:] + np.array(SIZE_WH) / 2
    return xy + rng.normal(0, 0.2, xy.shape)


def turned(rotation_deg: float, centre: np.ndarray, flat: bool = False, focal_px: float = 320.0) -> float:
    rng = np.random.default_rng(0)
    points = THING + rng.uniform((-1.5, -0.8, 0.0 if flat else -1.0), (1.5, 0.8, 1e-9 if flat else 1.0), (80, 3))
    points[:6] += rng.uniform(0.3, 0.6, (6, 3))  # some that move by themselves: wrong in the second frame
    first = seen(np.eye(3), np.zeros(3), points, rng, focal_px)
    points[:6] -= 0.4
    rotation = Rotation.from_euler("y", rotation_deg, degrees=True).as_matrix()
    return turn_deg(first, seen(rotation, centre, points, rng, focal_px), SIZE_WH)


def around(angle_deg: float) -> np.ndarray:
    """Where a camera is that has gone around the thing and still looks at it."""
    angle = np.radians(angle_deg)
    return THING + 4 * np.array([np.sin(angle), 0, -np.cos(angle)])


@pytest.mark.parametrize("flat", (False, True))
def test_the_turn_about_a_thing_is_its_angle(flat: bool) -> None:
    for angle in (8.0, 15.0, 25.0):
        assert turned(-angle, around(angle), flat) == pytest.approx(angle, rel=0.25)


@pytest.mark.parametrize(("focal_px", "low", "high"), ((240.0, 0.2, 0.8), (420.0, 1.3, 2.2)))
def test_another_focal_length_than_usual_changes_turns_within_a_factor(
    focal_px: float, low: float, high: float
) -> None:
    for angle in (8.0, 15.0, 25.0):
        assert low * angle < turned(-angle, around(angle), focal_px=focal_px) < high * angle


@pytest.mark.parametrize("focal_px", (240.0, 320.0, 640.0))
def test_turning_on_the_spot_moves_the_picture_by_more_than_it_counts_as_a_turn(focal_px: float) -> None:
    moved = focal_px * np.tan(np.radians(8)) / SIZE_WH[0]
    assert WAY_OF_DEGREE * turned(8.0, np.zeros(3), focal_px=focal_px) < moved


def test_going_sideways_moves_the_picture_by_more_than_it_counts_as_a_turn() -> None:
    assert WAY_OF_DEGREE * turned(0.0, np.array([0.36, 0, 0])) < 0.36 / 4


def test_a_turn_is_worth_no_more_than_a_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Points that move by themselves may fit any turn."""
    monkeypatch.setattr(FollowedPoints, "turn_deg", lambda self, size_wh: 170.0)
    odometer = Odometer()
    for picture in panned(np.linspace(0, 48, 25)):
        odometer.add(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))
    stretches = 0.2 / TURN_STEP
    assert 0.25 < odometer.way[-1] <= LOST * stretches


def test_few_points_say_nothing() -> None:
    assert turn_deg(np.zeros((10, 2)), np.ones((10, 2)), SIZE_WH) == 0


def test_the_way_around_a_thing_is_its_angle_not_how_little_the_picture_moves() -> None:
    arc_deg, frames = 30.0, 24
    scene = make_scene(SceneConfig(num_images=frames, size_wh=(320, 240), arc_deg=arc_deg, jitter=0.0))
    odometer = Odometer()
    for frame in range(frames):
        odometer.add(cv2.cvtColor(render_image(scene, frame, noise=0.0), cv2.COLOR_RGB2GRAY))
    assert odometer.way[-1] == pytest.approx(WAY_OF_DEGREE * arc_deg, rel=0.25)
    assert (np.diff(odometer.way) > 0).all()
