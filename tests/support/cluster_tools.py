"""A tool that makes small entries, and dies, fails or waits where it is told to: imported by Ray's workers too. And
executors without Ray."""

import os
import pickle
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from anchorsfm.io.store import Store
from anchorsfm.scene.errors import InputError, StorageError
from anchorsfm.scene.executor import Executor, Work
from anchorsfm.scene.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """Makes the entry of a row from its number; every attempt leaves a file."""

    store: Store
    log: Path
    killers: dict[int, int] = field(default_factory=dict)
    """Rows that kill their process, and how often."""
    unreadable: frozenset[int] = frozenset()
    unwritable: dict[int, int] = field(default_factory=dict)
    """Rows whose entries cannot be written, and how often."""

    def __call__(self, part: list[int]) -> None:
        for row in part:
            attempt = self.attempts(row)
            (self.log / f"{row}-{attempt}").touch()
            if attempt < self.killers.get(row, 0):
                os.kill(os.getpid(), signal.SIGKILL)
            if row in self.unreadable:
                raise InputError(f"cannot read photograph {row}")
            if attempt < self.unwritable.get(row, 0):
                raise StorageError("no space left")
            self.store.save("numbers", str(row), {"number": np.array([row])})

    def attempts(self, row: int) -> int:
        """How often a row was begun."""
        return len(list(self.log.glob(f"{row}-*")))

    def work(self) -> "Work[list[int]]":
        """The stage that makes these entries."""
        return Work(
            tool=self,
            part=list,
            is_done=lambda row: self.store.has("numbers", str(row)),
            name=lambda row: f"number {row}",
            set_aside=lambda row: self.store.stand_in("numbers", str(row), {"number": np.array([-1])}),
        )


class SetsAside(Executor):
    """Sets the first row of a stage aside."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.name = ""

    def fill(self, description: str, work: Work[Any], total: int, progress: Progress) -> None:
        if description == self.stage:
            self.name = work.name(0)
            work.set_aside(0)
            assert work.is_done(0)


class Elsewhere(Executor):
    """Does what a worker does, with what a worker is sent."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        """That were made, by stage."""

    def fill(self, description: str, work: Work[Any], total: int, progress: Progress) -> None:
        rows = [row for row in range(total) if not work.is_done(row)]
        tool = pickle.loads(pickle.dumps(work.tool))
        for row in rows:
            tool(pickle.loads(pickle.dumps(work.part([row]))))
        assert all(work.is_done(row) for row in rows)
        self.rows[description] = self.rows.get(description, 0) + len(rows)
