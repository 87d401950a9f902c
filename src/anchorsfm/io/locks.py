"""Locks between processes on files: gone with the process that holds them, however it ends."""

import os
from pathlib import Path
from types import TracebackType

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class FileLock:
    """A lock on a file, which is made if it is missing.

    Where the system or the file system has no such locks, `is_real` is False and everybody gets them.
    """

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        self.is_real = fcntl is not None

    def share(self) -> None:
        """Wait until nobody holds the lock alone; from then on others may share it."""
        if fcntl is not None:
            self._flock(fcntl.LOCK_SH)

    def take(self) -> None:
        """Wait until nobody else holds or shares the lock."""
        if fcntl is not None:
            self._flock(fcntl.LOCK_EX)

    def try_take(self) -> bool:
        """Take the lock if nobody else holds or shares it; returns whether it was taken."""
        return fcntl is None or self._flock(fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _flock(self, operation: int) -> bool:
        try:
            fcntl.flock(self._handle, operation)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            self.is_real = False
        return True

    def close(self) -> None:
        """Release the lock."""
        os.close(self._handle)

    def __enter__(self) -> "FileLock":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
