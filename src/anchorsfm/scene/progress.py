"""How stages report progress without printing: the caller passes a `Progress`, the default ignores everything."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Advance = Callable[[int], None]
Item = TypeVar("Item")


class Progress:
    """Silent progress. The command line passes a subclass that draws bars with the time left."""

    @contextmanager
    def stage(self, description: str, total: int | None = None) -> Iterator[Advance]:
        """Enter a stage of `total` steps (None: unknown); the yielded function adds finished steps."""
        yield lambda _count: None

    def status(self, message: str) -> None:
        """A few words on where the running stage stands, such as a loss; the next ones take their place."""

    def whole(self, left_s: float) -> None:
        """Seconds until the end of all stages together, as far as it can be told; the next figure takes its place."""

    def note(self, message: str) -> None:
        """One line about what a stage came to, such as the loss that an alignment ends with."""

    def warn(self, message: str) -> None:
        """One line the user should see, such as the name of a skipped file."""


class PassedOn(Progress):
    """Passes everything on: a base for what watches the progress of a run."""

    def __init__(self, inner: Progress) -> None:
        self._inner = inner

    @contextmanager
    def stage(self, description: str, total: int | None = None) -> Iterator[Advance]:
        with self._inner.stage(description, total) as advance:
            yield advance

    def status(self, message: str) -> None:
        self._inner.status(message)

    def whole(self, left_s: float) -> None:
        self._inner.whole(left_s)

    def note(self, message: str) -> None:
        self._inner.note(message)

    def warn(self, message: str) -> None:
        self._inner.warn(message)


class RecordingProgress(PassedOn):
    """Keeps the warnings."""

    def __init__(self, inner: Progress) -> None:
        super().__init__(inner)
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)
        super().warn(message)


SILENT = Progress()


def counted(
    items: Iterable[Item], advance: Advance, counts: Callable[[Item], bool] = lambda _item: True
) -> Iterator[Item]:
    """The same items; each that `counts` is a finished step once the next is asked for."""
    for item in items:
        yield item
        if counts(item):
            advance(1)


class WithinStage(PassedOn):
    """Progress of what goes on within a stage: it has none of its own."""

    @contextmanager
    def stage(self, description: str, total: int | None = None) -> Iterator[Advance]:
        yield lambda steps: None
