"""Maker notes of iPhones with an acceleration."""

import struct
from pathlib import Path

import numpy as np
from PIL import Image

_EXIF = 0x8769


def apple_note(acceleration: tuple[float, float, float], order: str = ">") -> bytes:
    """A note with two other tags before the acceleration, which lies after the directory."""
    mark, first, count = {">": b"MM", "<": b"II"}[order], 16, 3
    offset = first + 12 * count + 4
    tags = [(1, 9, 1, 5), (4, 9, 1, 1), (8, 10, 3, offset)]
    directory = b"".join(struct.pack(f"{order}HHII", *tag) for tag in tags)
    values = b"".join(struct.pack(f"{order}2i", round(value * 100_000), 100_000) for value in acceleration)
    head = b"Apple iOS\0\0\1" + mark + struct.pack(f"{order}H", count)
    return head + directory + struct.pack(f"{order}I", 0) + values


def acceleration_of(down: np.ndarray) -> tuple[float, float, float]:
    """Of a phone that lies on its left side, whose pictures are stored upright, from down in its camera."""
    x, y, z = down.tolist()
    return -y, -x, -z


def photograph(
    path: Path, size_wh: tuple[int, int], note: bytes, *, orientation: int = 1, lens: str = "iPhone 14 back camera"
) -> None:
    """A grey JPEG, stored with a size, that a phone has taken."""
    exif = Image.Exif()
    exif[271], exif[272], exif[274] = "Apple", "iPhone 14", orientation
    exif.get_ifd(_EXIF).update({37500: note, 42036: lens})
    width, height = size_wh
    Image.fromarray(np.full((height, width, 3), 99, np.uint8)).save(path, exif=exif)


def with_note(path: Path, note: bytes) -> bytes:
    """A JPEG with the same pixels to the bit that has the note."""
    data = path.read_bytes()
    with Image.open(path) as image:
        exif = image.getexif()
    exif.get_ifd(_EXIF)[37500] = note
    block = exif.tobytes()
    place = 2
    kept = [data[:2], struct.pack(">HH", 0xFFE1, len(block) + 2), block]
    while data[place + 1] != 0xDB:  # up to the tables
        (length,) = struct.unpack_from(">H", data, place + 2)
        if data[place + 1] != 0xE1:
            kept.append(data[place : place + 2 + length])
        place += 2 + length
    return b"".join([*kept, data[place:]])
