"""Lists of pairs in text files.

One pair a line: two image names (relative to the image folder), or two indices counted from 0. Names are separated by
blanks, a comma or a tab; names that contain blanks are recognised because both must be images of the set. Blank lines
and lines that begin with # are ignored.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from anchorsfm.io.files import read_regular
from anchorsfm.scene.errors import InputError


def read_pairs(path: Path, num_images: int, names: Sequence[str]) -> Int[np.ndarray, "pair 2"]:
    """The listed pairs as indices; `names` may be empty, then the file must hold indices.

    Raises InputError, naming file and line.
    """
    try:
        lines = read_regular(path).decode("utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"cannot read the list of pairs {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"the list of pairs {path} is not a text file") from error
    row_of = _row_of(names)
    pairs = []
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                pairs.append(_parse(line.strip(), num_images, row_of))
            except ValueError as error:
                raise InputError(f"{path}, line {number}: {error}") from error
    if not pairs:
        raise InputError(f"{path} lists no pairs")
    return np.array(pairs, np.int64)


def _row_of(names: Sequence[str]) -> dict[str, int]:
    """Rows by name, and by name without folders where that is unique."""
    short = [name.rsplit("/", 1)[-1] for name in names]
    unique = {name: row for row, name in enumerate(short) if short.count(name) == 1}
    return unique | {name: row for row, name in enumerate(names)}


def _parse(line: str, num_images: int, row_of: dict[str, int]) -> tuple[int, int]:
    """Two different rows; ValueError says what is wrong."""
    ends = ((line[:k].strip(" \t,"), line[k:].strip(" \t,")) for k, sign in enumerate(line) if sign in " \t,")
    splits = list(dict.fromkeys((a, b) for a, b in ends if a and b))
    known = [(a, b) for a, b in splits if a in row_of and b in row_of]
    if known:
        i, j = (row_of[name] for name in known[0])
    elif len(splits) == 1:
        i, j = (_row(name, num_images, row_of) for name in splits[0])
    else:
        raise ValueError(f"expected two images, found {line!r}")
    if i == j:
        raise ValueError(f"an image cannot be paired with itself: {line!r}")
    return i, j


def _row(name: str, num_images: int, row_of: dict[str, int]) -> int:
    if name in row_of:
        return row_of[name]
    if not name.isdecimal():
        raise ValueError(f"no image is named {name!r}")
    if int(name) >= num_images:
        raise ValueError(f"index {name} of {num_images} images (counted from 0)")
    return int(name)
