"""Which way was down, from the maker notes of phones."""

from pathlib import Path

import numpy as np
import pytest

from anchorsfm.io.gravity import apple_acceleration, down_in_picture
from anchorsfm.io.images import load_image_set
from anchorsfm.io.pictures import read_header
from maker_notes import apple_note, photograph

LEVEL = (-0.01, -0.99, -0.05)
HELD = {  # gravity along the axes of the phone (right, top, out of the screen), and how its pictures are stored
    "upright": ((0.0, -1.0, 0.0), 6),
    "on its left side": ((-1.0, 0.0, 0.0), 1),
    "on its right side": ((1.0, 0.0, 0.0), 3),
    "upside down": ((0.0, 1.0, 0.0), 8),
}


@pytest.mark.parametrize("order", [">", "<"])
def test_the_acceleration_of_a_note_is_read(order: str) -> None:
    assert apple_acceleration(apple_note(LEVEL, order)) == pytest.approx(LEVEL)


def test_damaged_notes_say_nothing() -> None:
    note = apple_note(LEVEL)
    assert all(apple_acceleration(note[:length]) is None for length in range(len(note)))
    for place in range(len(note)):
        for value in (0x00, 0xFF, note[place] ^ 1):
            apple_acceleration(note[:place] + bytes([value]) + note[place + 1 :])
    nothing_below = note.replace((100_000).to_bytes(4, "big"), bytes(4))
    for other in (None, "Apple iOS", b"Nikon\0" + note, nothing_below, note.replace(b"MM", b"XX")):
        assert apple_acceleration(other) is None


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("tilt_deg", [0.0, 30.0])
def test_down_is_down_however_the_phone_was_held(held: str, tilt_deg: float) -> None:
    """Tilted so that the camera at the back looks down at the ground, its screen faces up."""
    gravity, orientation = HELD[held]
    cos, sin = np.cos(np.radians(tilt_deg)), np.sin(np.radians(tilt_deg))
    tilted = tuple((cos * np.array(gravity) + sin * np.array([0.0, 0.0, -1.0])).tolist())
    size_wh = (300, 400) if orientation > 4 else (400, 300)
    found = down_in_picture(tilted, orientation, size_wh, "back camera")
    np.testing.assert_allclose(found, (0.0, cos, sin), atol=1e-12)


@pytest.mark.parametrize(
    ("acceleration", "orientation", "size_wh", "lens"),
    [
        (None, 1, (400, 300), ""),
        ((0.0, -1.0, 0.0), 1, (300, 400), ""),  # another program has turned it
        ((0.0, -1.0, 0.0), 6, (400, 300), ""),
        ((0.0, -1.0, 0.0), 5, (300, 400), ""),  # mirrored
        ((0.0, -1.0, 0.0), 6, (300, 400), "iPhone 14 front camera"),
        ((0.0, -1.3, 0.0), 6, (300, 400), ""),  # moved
        ((0.0, 0.0, 0.0), 6, (300, 400), ""),
        ((float("nan"), 0.0, 0.0), 6, (300, 400), ""),
    ],
)
def test_what_cannot_be_believed_says_nothing(acceleration, orientation: int, size_wh, lens: str) -> None:
    assert down_in_picture(acceleration, orientation, size_wh, lens) is None


def test_photographs_come_with_what_their_phones_recorded(tmp_path: Path) -> None:
    photograph(tmp_path / "a.jpg", (400, 300), apple_note((0.0, -1.0, 0.0)), orientation=6)
    photograph(tmp_path / "b.jpg", (400, 300), apple_note((-1.0, 0.0, 0.0)))
    photograph(tmp_path / "c.jpg", (400, 300), b"Apple iOS\0 nothing else")
    images = load_image_set(tmp_path)
    np.testing.assert_allclose(images.down, [[0, 1, 0], [0, 1, 0], [np.nan] * 3], atol=1e-6)
    np.testing.assert_allclose(images.select([2, 0]).down, [[np.nan] * 3, [0, 1, 0]], atol=1e-6)
    assert read_header(tmp_path / "a.jpg").down == pytest.approx((0, 1, 0))
    assert load_image_set([tmp_path / "c.jpg"]).down is None
