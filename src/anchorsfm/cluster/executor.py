"""Rows of a stage as Ray tasks: bounded in flight, done again where a worker died, set aside where it dies every time.

A task is a run of neighbouring rows. What it makes is in the store row by row, so of a task that is lost with its
worker only the rows that are not there yet are done again, in two halves: so a row that kills its worker is soon alone
in a task, and the others are done.
"""

import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray
import ray.exceptions

from anchorsfm.cluster import worker
from anchorsfm.scene.errors import InputError, StorageError
from anchorsfm.scene.executor import Executor, Work
from anchorsfm.scene.progress import Progress

MAX_DEATHS = 3
"""Of workers that had nothing but this row to do, until it is set aside."""
MAX_STORAGE_ERRORS = 3
"""Of the tasks of a stage, in a row, until the stage fails: a disk may be full for a moment."""
PER_SLOT = 2
"""Tasks in flight per processor: one that is worked on, one that waits."""
MAX_ROWS = 64
"""Of a task. Pairs of a task share photographs, so that few are loaded; a stage says how far it is with every task."""
_WAIT_S = 1.0
_NO_PROCESSOR_S = 60.0
"""How long a cluster may be without any processor."""
_LOST = (
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.LocalRayletDiedError,
    ray.exceptions.ObjectLostError,
)


@dataclass
class RayExecutor(Executor):
    """Fills the store by tasks on the cluster that Ray is connected to."""

    storage_pause_s: float = 2.0
    """Before rows are tried again whose entries could not be written."""

    def fill(self, description: str, work: Work[Any], total: int, progress: Progress) -> None:
        """See `Executor.fill`. Raises StorageError if the cluster has lost all its processors."""
        rows = [row for row in range(total) if not work.is_done(row)]
        if not rows:
            return
        with progress.stage(description, total) as advance:
            advance(total - len(rows))
            stage = _Stage(work=work, rows=deque(rows), resource="GPU" if work.needs_gpu else "CPU")
            try:
                for count in stage.run(progress, self.storage_pause_s):
                    advance(count)
            finally:
                stage.cancel()
        stage.report(description, progress)


@dataclass
class _Stage:
    """A stage while it goes on."""

    work: Work[Any]
    rows: "deque[int]"
    """Not sent yet."""
    resource: str
    again: "deque[list[int]]" = field(default_factory=deque)
    """Tasks that were lost."""
    running: dict[Any, list[int]] = field(default_factory=dict)
    deaths: "Counter[int]" = field(default_factory=Counter)
    """By row: workers that died with it alone."""
    num_lost: int = 0
    aside: list[int] = field(default_factory=list)
    done_on: "Counter[str]" = field(default_factory=Counter)
    """Rows by machine."""

    def run(self, progress: Progress, storage_pause_s: float) -> Iterator[int]:
        """Yields how many rows are done, whenever some are."""
        tool = ray.put(ray.cloudpickle.dumps(self.work.tool))
        amount: dict[str, Any] = {"num_gpus": 1, "num_cpus": 0} if self.resource == "GPU" else {"num_cpus": 1}
        # lost tasks are sent anew here, in smaller parts: Ray would repeat them as they are
        task = ray.remote(worker.work).options(max_retries=0, **amount)
        storage_errors = 0
        while self.rows or self.again or self.running:
            self._send(task, tool)
            ready, _ = ray.wait(list(self.running), num_returns=1, timeout=_WAIT_S)
            for reference in ready:
                rows = self.running.pop(reference)
                try:
                    done: worker.Done = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None
                except _LOST:
                    yield self._lost(rows)
                    continue
                for line in done.warnings:
                    progress.warn(line)
                if done.storage_error is not None and storage_errors < MAX_STORAGE_ERRORS - 1:
                    storage_errors += 1
                    self.again.append(rows)
                    time.sleep(storage_pause_s)
                    continue
                done.require_success()
                storage_errors = 0
                self.done_on[done.node] += len(rows)
                yield len(rows)
        for row in self.aside:
            self.work.set_aside(row)

    def cancel(self) -> None:
        """Let tasks that wait be dropped; those that are worked on are ended."""
        for reference in self.running:
            with suppress(ray.exceptions.RayError):
                ray.cancel(reference, force=True)
        self.running.clear()

    def report(self, description: str, progress: Progress) -> None:
        """Say what went wrong on the way, and who did how much."""
        if self.num_lost:
            progress.warn(f"{description}: {self.num_lost} tasks were lost with their workers; they were done again")
        for row in self.aside:
            progress.warn(
                f"{description}: {self.work.name(row)} is left out, because {self.deaths[row]} workers died of it; "
                "run again without ray to see the reason"
            )
        if len(self.done_on) > 1:
            shares = ", ".join(f"{count} by {node}" for node, count in sorted(self.done_on.items()))
            progress.note(f"{description}: {shares}")

    def _send(self, task: Any, tool: Any) -> None:
        slots = self._slots()
        while (self.rows or self.again) and len(self.running) < PER_SLOT * slots:
            rows = self.again.popleft() if self.again else self._next(slots)
            self.running[task.remote([tool], self.work.part(rows))] = rows

    def _next(self, slots: int) -> list[int]:
        """Large tasks first, which share most; small ones at the end, so that all workers end together."""
        count = min(max(len(self.rows) // (PER_SLOT * slots), 1), MAX_ROWS)
        return [self.rows.popleft() for _ in range(count)]

    def _slots(self) -> int:
        """Processors (or GPUs) of all nodes that are alive, which may change."""
        since = time.monotonic()
        while (slots := int(ray.cluster_resources().get(self.resource, 0))) < 1:
            if self.resource == "GPU":
                raise InputError("no node of the Ray cluster has a GPU: choose device cpu, or add a node that has one")
            if time.monotonic() - since > _NO_PROCESSOR_S:
                raise StorageError("the Ray cluster has no processors left: start nodes and run again, it continues")
            time.sleep(_WAIT_S)
        return slots

    def _lost(self, rows: Sequence[int]) -> int:
        """Rows of a task that its worker took with it: done already, to be tried again, or set aside. How many are
        settled."""
        self.num_lost += 1
        left = [row for row in rows if not self.work.is_done(row)]
        settled = len(rows) - len(left)
        if len(rows) == 1:  # in company it may have been another's fault
            self.deaths.update(left)
        if left and self.deaths[left[0]] >= MAX_DEATHS:
            self.aside.append(left[0])
            return settled + 1
        middle = (len(left) + 1) // 2
        self.again.extend(part for part in (left[:middle], left[middle:]) if part)
        return settled
