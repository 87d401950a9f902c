"""The process around a command: how it ends at a signal, and what its standard streams do.

Nothing heavy is imported here, so that all of this is in place before the libraries load, which takes a second or two.

The first SIGINT, SIGTERM or SIGHUP ends a command tidily: it is raised as `Interrupted` in the main thread, which
removes what was being written. Libraries may swallow that or be busy for long; so a thread that the signal wakes ends
the process after a grace period, and a second signal ends it at once. Files are complete or absent at any moment, so
nothing is lost either way. From the first signal on nothing but our own line reaches the terminal.

SIGTERM takes a detour. A library that is imported later (PyCOLMAP's logging) handles it as a crash, in whichever
thread it reaches. So it is blocked before other threads exist, all of which inherit that, and a thread that waits for
it passes it on to the main thread as another signal.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import IO, NoReturn

_PASSED_ON = getattr(signal, "SIGUSR1", None)
"""What the main thread gets in place of SIGTERM."""
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
GRACE_S = 5.0
_MESSAGE = b"interrupted: run the same command again and it continues\n"
_SHOW_CURSOR = b"\r\x1b[?25h"
_END_OF_PIPE = (BrokenPipeError, ConnectionResetError)


class Interrupted(KeyboardInterrupt):
    """A signal asks the process to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        """Of the signal."""


class _Signals:
    """What the handlers know. There is one, `_signals`, as a process has one set of handlers."""

    def __init__(self) -> None:
        self.tidy = False
        """Whether the main thread is inside a command, which has something to tidy up."""
        self.errors = 2
        """File descriptor of the terminal's error stream."""
        self.received: int | None = None

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """The handler, in the main thread."""
        if not self.tidy or self.received is not None:
            end_interrupted(number)
        self.received = number
        with suppress(OSError):
            self.errors = os.dup(2)
            _connect_to_nothing(2)
        raise Interrupted(number)

    def handle_passed_on(self, _number: int, frame: FrameType | None) -> None:
        """The handler of what `pass_on` sends."""
        self.handle(signal.SIGTERM, frame)

    def watch(self, pipe: int) -> None:
        """In a thread of its own: end the process if the main thread does not."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # they are for the main thread
        while not (number := next((n for n in os.read(pipe, 1) if n in (*SIGNALS, _PASSED_ON)), None)):
            pass
        time.sleep(GRACE_S)
        end_interrupted(signal.SIGTERM if number == _PASSED_ON else number)

    def pass_on(self) -> None:
        """In a thread of its own: wait for SIGTERM, which is blocked everywhere, and tell the main thread."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        main = threading.main_thread().ident
        assert main is not None and _PASSED_ON is not None
        while True:
            signal.sigwait({signal.SIGTERM})
            signal.pthread_kill(main, _PASSED_ON)


_signals = _Signals()


def prepare() -> None:
    """Make the process ready for a command: signals, the encoding of file names, standard streams."""
    handle_signals()
    require_utf8()
    prepare_streams()


def handle_signals() -> None:
    """Install the handlers. Signals that are ignored, as `nohup` and shells' background jobs do, stay so."""
    handled = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    for number in handled:
        signal.signal(number, _signals.handle)
    if not hasattr(signal, "SIGHUP"):  # Windows can wake a thread through sockets only; the handler alone must do
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    with suppress(RuntimeError):  # too little memory for a thread
        threading.Thread(target=_signals.watch, args=(reading,), daemon=True, name="anchorsfm-signals").start()
        if signal.SIGTERM in handled and _PASSED_ON is not None:
            signal.signal(_PASSED_ON, _signals.handle_passed_on)
            threading.Thread(target=_signals.pass_on, daemon=True, name="anchorsfm-sigterm").start()
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


@contextmanager
def tidy_ending() -> Iterator[None]:
    """Inside, a signal is raised as `Interrupted` in the main thread; outside it ends the process at once."""
    _signals.tidy = True
    try:
        yield
    finally:
        _signals.tidy = _signals.received is not None


def end_interrupted(number: int) -> NoReturn:
    """Say that the command was interrupted, and end the process with the exit code of the signal."""
    with suppress(OSError, ValueError):
        if os.isatty(1):
            os.write(1, _SHOW_CURSOR)  # a progress display hides it
    with suppress(OSError):
        os.write(_signals.errors, _MESSAGE)
    os._exit(128 + number)


def end_if_interrupted() -> None:
    """End the process if a signal has come, whatever a library made of the exception that was raised for it."""
    if _signals.received is not None:
        end_interrupted(_signals.received)


def leave(code: int) -> NoReturn:
    """Exit at once: worker threads that are still busy must not hold the terminal."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


# ----------------------------------------------------------------------------------------------------------- streams


class LenientStream:
    """A text stream whose reader may leave: what can no longer be written is dropped, and the work goes on."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.error: OSError | None = None
        """Why output was lost; None also where its reader has left, as `head` does."""

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        if not isinstance(error, _END_OF_PIPE):
            self.error = self.error or error
        with suppress(OSError):
            _connect_to_nothing(self._stream.fileno())  # what is still buffered is written there

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def prepare_streams() -> None:
    """Standard streams that exist, never fail, and show what their encoding lacks as escapes."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file to be opened would take its place, and receive what is printed
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull, "w")  # noqa: SIM115, PTH123 - for the rest of the process
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, LenientStream(stream))


def require_utf8() -> None:
    """Start anew in Python's UTF-8 mode where the locale is C or another that cannot write all file names."""
    if sys.getfilesystemencoding().lower() in ("utf-8", "utf8") or sys.flags.utf8_mode or not sys.executable:
        return
    with suppress(OSError):
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _connect_to_nothing(number: int) -> None:
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, number)
    os.close(nothing)
