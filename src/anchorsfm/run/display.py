"""How progress is shown: bars where text can be overwritten, lines for logs and pipes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from anchorsfm.scene.progress import Advance, Progress


@contextmanager
def shown_progress(console: Console, *, quiet: bool = False) -> Iterator[Progress]:
    """A display of progress on a console; `quiet`: warnings only."""
    if quiet or not (console.is_terminal or console.is_jupyter):
        yield _PlainLines(console, quiet=quiet)
        return
    columns = (
        TextColumn("{task.description:<26}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with RichProgress(*columns, console=console) as bars:
        yield _Bars(bars)


class _Bars(Progress):
    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars

    @contextmanager
    def stage(self, description: str, total: int | None = None) -> Iterator[Advance]:
        task = self._bars.add_task(description, total=total)
        yield lambda steps: self._bars.update(task, advance=steps)
        if total is None:
            self._bars.update(task, total=1, completed=1)
        self._bars.stop_task(task)

    def warn(self, message: str) -> None:
        self._bars.console.print(f"warning: {message}", markup=False, highlight=False, style="yellow")


class _PlainLines(Progress):
    """For logs and pipes: a line when a stage begins, and one every ten seconds of a long one."""

    def __init__(self, console: Console, *, quiet: bool) -> None:
        self._console = console
        self._quiet = quiet

    @contextmanager
    def stage(self, description: str, total: int | None = None) -> Iterator[Advance]:
        start = last = time.monotonic()
        done = 0

        def advance(steps: int) -> None:
            nonlocal done, last
            done += steps
            now = time.monotonic()
            if total and now - last >= 10:
                last = now
                left = (now - start) / done * (total - done)
                self._line(f"{description}: {done} of {total}, about {left:.0f} s left")

        self._line(description + (f" ({total})" if total else ""))
        yield advance

    def _line(self, text: str) -> None:
        if not self._quiet:
            self._console.print(text, markup=False, highlight=False)

    def warn(self, message: str) -> None:
        self._console.print(f"warning: {message}", markup=False, highlight=False)
