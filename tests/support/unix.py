"""What tests use of Unix; they are skipped elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

unix_only = pytest.mark.skipif(sys.platform == "win32", reason="signals, pipes and links are those of Unix")


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """A limit on the size of files (bytes) stands for the disk, in processes that are started meanwhile too.

    Writes beyond it fail as on a full disk, in COLMAP's writer too.
    """
    resource = pytest.importorskip("resource", reason="limits on the size of files are Unix's")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
