"""How much memory there is, and too little of it, whichever library notices."""

import ctypes
import errno
import os
import re
import sys
from collections.abc import Iterator

_MESSAGES = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|insufficient memory|failed to allocate"
    r"|unable to allocate|not enough memory|bad_alloc|bad allocation|can't start new thread|CUBLAS_STATUS_ALLOC_FAILED"
    r"|failed to map segment",
    re.IGNORECASE,
)
_AMOUNT = re.compile(r"allocate (?:memory: you tried to allocate )?([\d.]+) ?(bytes|[KMGT]i?B)")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one that led to it, says that memory ran out; libraries agree on no class for it."""
    return any(_says_so(cause) for cause in _causes(error))


def amount_asked(error: BaseException) -> str | None:
    """How much memory was asked for in vain, in words; None where the error does not say."""
    found = next((found for cause in _causes(error) if (found := _AMOUNT.search(str(cause)))), None)
    if found is None:
        return None
    amount, unit = found.groups()
    return f"{float(amount) / 2**20:.1f} MiB" if unit == "bytes" else f"{amount} {unit}"


def physical_bytes() -> int:
    """Memory of this computer."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.virtual_memory().total)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def give_back_freed() -> None:
    """Return memory that was freed to the system, which the C library may keep for later in pieces too small to use.

    Linux with the GNU C library; others are not known to need it.
    """
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those it was raised from, at most a few."""
    for _ in range(8):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _says_so(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    foreign = isinstance(error, (RuntimeError, ImportError)) or type(error).__module__.startswith("cv2")
    return foreign and _MESSAGES.search(str(error)) is not None
