"""What is measured of frames, on pictures whose blur and movement are known."""

import cv2
import numpy as np
import pytest

from anchorsfm.video.measure import LOST, Odometer, sharpness
from video_files import panned, texture


def grey(rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)


def noisy(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.clip(picture + rng.normal(0, 2, picture.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("angle_deg", [0, 30, 45, 90, 135])
def test_blur_of_any_direction_is_noticed(angle_deg: float) -> None:
    picture, rng = grey(texture(640, 360)), np.random.default_rng(0)
    kernel = np.zeros((15, 15), np.float32)
    for along in np.linspace(-3, 3, 60):
        x, y = along * np.cos(np.radians(angle_deg)), along * np.sin(np.radians(angle_deg))
        kernel[round(7 + y), round(7 + x)] += 1
    blurred = cv2.filter2D(picture, -1, kernel / kernel.sum())
    assert sharpness(noisy(blurred, rng)) < 0.7 * sharpness(noisy(picture, rng))


def test_views_with_less_texture_are_not_blurred() -> None:
    picture = grey(texture(640, 360))
    faint = (128 + (picture.astype(float) - 128) / 3).astype(np.uint8)
    assert sharpness(faint) == pytest.approx(sharpness(picture), rel=0.15)
    assert sharpness(np.full((360, 640), 90, np.uint8)) == 0


def way(pictures) -> list[float]:
    odometer = Odometer()
    for picture in pictures:
        odometer.add(grey(picture))
    return odometer.way.tolist()


def test_the_way_of_a_pan_is_its_length() -> None:
    offsets = np.linspace(0, 480, 97)
    found = way(panned(offsets))
    assert found[-1] == pytest.approx(480 / 240, rel=0.03)
    assert np.abs(np.array(found) - offsets / 240).max() < 0.05


def test_a_trembling_hand_and_noise_move_nothing() -> None:
    rng = np.random.default_rng(1)
    pictures = (noisy(picture, rng) for picture in panned(10 + rng.normal(0, 0.7, 120)))
    assert max(way(pictures)) < 0.02


def test_a_pan_through_blurred_frames_is_followed() -> None:
    offsets = np.concatenate([np.linspace(0, 60, 20), np.linspace(80, 240, 9), np.linspace(245, 300, 20)])
    blur = [1] * 20 + [20] * 9 + [1] * 20
    assert way(panned(offsets, blur))[-1] == pytest.approx(300 / 240, rel=0.25)


def test_a_cut_is_a_step() -> None:
    pictures = [texture(240, 160, seed) for seed in (0, 0, 1, 1)]
    assert way(pictures) == pytest.approx([0, 0, LOST, LOST], abs=0.005)


def test_a_cap_on_the_lens_is_no_movement() -> None:
    black = np.zeros((160, 240, 3), np.uint8)
    assert way([black, black, texture(240, 160), texture(240, 160)])[-1] < 0.01
