import signal
import threading
import zlib  # noqa: F401 - before PyCOLMAP, whose own copy breaks Pillow's PNG files if it is the first in the process


def _load_pycolmap() -> None:
    """Import PyCOLMAP, whose logging library takes SIGTERM for a crash report, and give the signal back.

    It waits meanwhile: that library's handler allocates memory and may hang in the middle of an import.
    """
    if threading.current_thread() is not threading.main_thread():  # only that one can change handlers
        import pycolmap

        return
    handler, can_wait = signal.getsignal(signal.SIGTERM), hasattr(signal, "pthread_sigmask")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}) if can_wait else set()
    try:
        import pycolmap  # noqa: F401
    finally:
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)
        if can_wait:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


_load_pycolmap()
