"""Which way was down, as the accelerometer of a phone recorded it with a photograph.

Exif has no tag for it. iPhones write it into their maker note, a directory of TIFF tags of its own: tag 8 has what
CoreMotion measures, in units of g, along the axes of the phone (x right, y to its top, z out of the screen). Held
still, that is the direction of gravity.
"""

import math
import struct

_HEADER = b"Apple iOS\0"
_ORDER, _COUNT, _FIRST, _ENTRY = 12, 14, 16, 12
"""Bytes from the beginning of the note: byte order, number of tags, first tag; and the bytes of a tag."""
_ACCELERATION, _SIGNED_RATIONAL = 8, 10
_MOST_TAGS = 1000
_LEAST_G, _MOST_G = 0.9, 1.1
"""Other accelerations are those of a phone that was moved."""
_TURNED = {1: (1, 0, 0, 1), 3: (-1, 0, 0, -1), 6: (0, -1, 1, 0), 8: (0, 1, -1, 0)}
"""What turning a picture upright does to directions in it (x right, y down), row by row, by its orientation."""


def apple_acceleration(note: object) -> tuple[float, float, float] | None:
    """The acceleration in a maker note, in units of g; None if there is none, or it cannot be read."""
    if not isinstance(note, bytes) or not note.startswith(_HEADER):
        return None
    order = {b"MM": ">", b"II": "<"}.get(note[_ORDER : _ORDER + 2])
    if order is None:
        return None
    try:
        (count,) = struct.unpack_from(f"{order}H", note, _COUNT)
        for number in range(min(count, _MOST_TAGS)):
            tag, kind, length, offset = struct.unpack_from(f"{order}HHII", note, _FIRST + number * _ENTRY)
            if tag == _ACCELERATION:
                if (kind, length) != (_SIGNED_RATIONAL, 3):
                    return None
                a, b, c, d, e, f = struct.unpack_from(f"{order}6i", note, offset)
                return a / b, c / d, e / f
    except (struct.error, ZeroDivisionError):
        pass
    return None


def down_in_picture(
    acceleration: tuple[float, float, float] | None, orientation: int, size_wh: tuple[int, int], lens: str
) -> tuple[float, float, float] | None:
    """Down as a unit vector in the frame of the upright picture's camera (x right, y down, z forward).

    None where it is not known: the phone was moved, the picture is mirrored or does not have the shape that its
    orientation says (programs turn pictures and leave the rest), or it was taken with the camera beside the screen.

    Args:
        acceleration: of `apple_acceleration`.
        orientation: of the picture as it is stored, as Exif counts.
        size_wh: of the upright picture.
        lens: its name.
    """
    width, height = size_wh
    if acceleration is None or orientation not in _TURNED or "front" in lens.lower():
        return None
    if (width > height) if orientation > 4 else (width < height):
        return None
    strength = math.hypot(*acceleration)
    if not _LEAST_G <= strength <= _MOST_G:
        return None
    # the sensor's rows run from the top of the phone to its bottom, its columns from right to left
    x, y, z = -acceleration[1] / strength, -acceleration[0] / strength, -acceleration[2] / strength
    a, b, c, d = _TURNED[orientation]
    return a * x + b * y, c * x + d * y, z
