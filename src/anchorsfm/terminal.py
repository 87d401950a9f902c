"""What a command shows while it runs: lines that are safe to print, and progress as bars or lines."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from anchorsfm.scene.printable import printable
from anchorsfm.scene.progress import Advance, Progress


class Terminal(Console):
    """A console for plain lines: nothing in them is markup, and nothing in them controls the terminal."""

    def __init__(self, *, stderr: bool = False, notebook: bool = False) -> None:
        """`notebook`: what is shown goes to the cell of a Jupyter notebook, whose widgets can be overwritten."""
        super().__init__(
            stderr=stderr, soft_wrap=True, markup=False, highlight=False, emoji=False, force_jupyter=notebook
        )

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(printable(o) if isinstance(o, str) else o for o in objects), **options)


_DRAWN_EVERY_S = 0.2
"""In a notebook."""


class _Bars(Progress):
    """Bars that rich draws: by a thread of its own on a terminal.

    In a notebook they are drawn here instead: what that thread has just put into the widget is taken back with all that
    comes at the same time, warnings included.
    """

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._drawn = 0.0
        self._running: list[TaskID] = []
        self._whole: TaskID | None = None

    @contextmanager
    def stage(self, description: str, total: int | None = None) -> Iterator[Advance]:
        task = self._bars.add_task(printable(description), total=total, status="")
        self._running.append(task)
        done = 0

        def advance(steps: int) -> None:
            nonlocal done
            done += steps
            self._bars.update(task, advance=steps)
            self._draw()

        self._draw()
        yield advance
        self._running.remove(task)
        done = done if total is not None else 1
        self._bars.update(task, total=done, completed=done, status="")  # fewer steps than expected were enough
        self._bars.stop_task(task)
        self._draw(at_once=True)

    def _draw(self, *, at_once: bool = False) -> None:
        due = at_once or time.monotonic() - self._drawn >= _DRAWN_EVERY_S
        if due and not self._bars.live.auto_refresh:
            self._bars.refresh()
            self._drawn = time.monotonic()

    def status(self, message: str) -> None:
        if self._running:
            self._bars.update(self._running[-1], status=printable(message))
            self._draw()

    def whole(self, left_s: float) -> None:
        if self._whole is None:
            self._whole = self._bars.add_task("the whole run", total=None, status="")
        self._bars.update(self._whole, status=f"about {in_words(left_s)} left")
        self._draw()

    def close(self) -> None:
        """The last picture stays: without the time that is left."""
        if self._whole is not None:
            self._bars.remove_task(self._whole)
        self._draw(at_once=True)

    def note(self, message: str) -> None:
        self._bars.console.print(message)

    def warn(self, message: str) -> None:
        self._bars.console.print(f"warning: {message}", style="yellow")


class _PlainLines(Progress):
    """For logs and pipes: a line when a stage begins, and one every ten seconds of a long one."""

    def __init__(self, terminal: Terminal, *, quiet: bool) -> None:
        self._terminal = terminal
        self._quiet = quiet
        self._status = ""
        self._whole = ""

    @contextmanager
    def stage(self, description: str, total: int | None = None) -> Iterator[Advance]:
        start = last = time.monotonic()
        self._status = ""
        done = 0

        def advance(steps: int) -> None:
            nonlocal done, last
            done += steps
            now = time.monotonic()
            if total and now - last >= 10:
                last = now
                left = self._whole or f"about {in_words((now - start) / done * (total - done))} left"
                self._line(f"{description}: {done} of {total}{self._status}, {left}")

        self._line(description + (f" ({total})" if total else ""))
        yield advance

    def status(self, message: str) -> None:
        self._status = f", {message}"

    def whole(self, left_s: float) -> None:
        self._whole = f"about {in_words(left_s)} left in all"

    def _line(self, text: str) -> None:
        if not self._quiet:
            self._terminal.print(text)

    def note(self, message: str) -> None:
        self._line(message)

    def warn(self, message: str) -> None:
        self._terminal.print(f"warning: {message}")


def in_words(seconds: float) -> str:
    """A time that is not known to the second."""
    if seconds < 100:
        return f"{max(round(seconds, -1), 10):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@contextmanager
def show_progress(terminal: Terminal, *, quiet: bool) -> Iterator[Progress]:
    """Progress: bars with the time left, or plain lines where nobody looks on; quiet: warnings only."""
    # not is_terminal, which believes FORCE_COLOR: Jupyter and build servers set it, and do not move the cursor back
    if quiet or not (terminal.file.isatty() or terminal.is_jupyter):
        yield _PlainLines(terminal, quiet=quiet)
        return
    columns = (
        TextColumn("{task.description:<26}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}", markup=False),
    )
    with RichProgress(*columns, console=terminal, auto_refresh=not terminal.is_jupyter) as bars:
        shown = _Bars(bars)
        try:
            yield shown
        finally:
            shown.close()
