"""Reading files of unknown origin: only regular ones, and never without a bound."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

_DEFAULT_LIMIT = 2 * 2**30


class NotAFileError(OSError):
    """What should be a file is a folder, a named pipe, a device or larger than its reader takes."""


def read_regular(path: Path, limit_bytes: int = _DEFAULT_LIMIT) -> bytes:
    """The content of a regular file of at most `limit_bytes`.

    A named pipe would wait for a writer and a device may never end, so neither is opened.

    Raises NotAFileError for those, and other OSErrors where the file is missing or cannot be read.
    """
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit_bytes:
            raise NotAFileError(f"larger than {limit_bytes / 2**20:.0f} MiB")
        return file.read(size)  # no more, should it grow meanwhile


def read_beginning(path: Path, length: int) -> bytes:
    """Up to `length` first bytes of a regular file. Raises like `read_regular`."""
    with _opened(path) as file:
        return file.read(length)


def _opened(path: Path) -> BinaryIO:
    _require_regular(os.stat(path).st_mode)  # noqa: PTH116 - follows links, and says what a missing file is called
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    file = os.fdopen(handle, "rb")
    try:
        _require_regular(os.fstat(handle).st_mode)  # it may have been replaced in between
    except OSError:
        file.close()
        raise
    return file


def _require_regular(mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFSOCK: "a socket",
    }
    raise NotAFileError(f"{kinds.get(stat.S_IFMT(mode), 'something else')}, not a file")
