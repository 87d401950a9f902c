"""Keeping COLMAP's own messages off the terminal: errors are told in our words."""

from collections.abc import Iterator
from contextlib import contextmanager

import pycolmap


@contextmanager
def silent() -> Iterator[None]:
    """No messages of COLMAP's inside."""
    level = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.FATAL)
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = level
