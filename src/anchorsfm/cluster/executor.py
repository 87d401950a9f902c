"""Rows of a stage as Ray tasks: bounded in flight, done again where a worker died, set aside where it dies every time.

Rows that are near each other share photographs, so every node gets a run of them of its own, and takes from the end of
another's when that is done.

A task is a run of neighbouring rows. What it makes is in the store row by row, so of a task that is lost with its
worker only the rows that are not there yet are done again, in two halves: so a row that kills its worker is soon alone
in a task, and the others are done.
"""

import pickle
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from anchorsfm.cluster import worker
from anchorsfm.cluster.rows import Rows
from anchorsfm.scene.errors import InputError, StorageError
from anchorsfm.scene.executor import Executor, NodeShare, Work
from anchorsfm.scene.progress import Progress

MAX_DEATHS = 3
"""Of workers that had nothing but this row to do, until it is set aside."""
MAX_STORAGE_ERRORS = 3
"""Of the tasks of a stage, in a row, until the stage fails: a disk may be full for a moment. Tasks that were on their
way when one was counted are not counted: a full disk fails all of them at once."""
PER_SLOT = 2
"""Tasks in flight per processor: one that is worked on, one that waits."""
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
    _shares: dict[tuple[str, str], NodeShare] = field(default_factory=dict)
    """By stage and node."""
    _hosts: dict[str, str] = field(default_factory=dict)
    """Names of machines by node."""

    @property
    def shares(self) -> tuple[NodeShare, ...]:
        """See `Executor.shares`; of several nodes on one machine the names have their numbers."""
        count = Counter(self._hosts.values())
        names = {node: f"{host} {node[:6]}" if count[host] > 1 else host for node, host in self._hosts.items()}
        return tuple(replace(share, node=names[share.node]) for share in self._shares.values())

    def fill(self, description: str, work: Work[Any], total: int, progress: Progress) -> None:
        """See `Executor.fill`. Raises StorageError if the cluster has lost all its processors."""
        rows = [row for row in range(total) if not work.is_done(row)]
        if not rows:
            return
        with progress.stage(description, total) as advance:
            advance(total - len(rows))
            stage = _Stage(work=work, rows=rows, resource="GPU" if work.needs_gpu else "CPU")
            try:
                for task, done in stage.run(progress, self.storage_pause_s):
                    advance(len(task.rows))
                    if done is not None:
                        self._count(description, task, done)
            finally:
                stage.cancel()
        stage.report(description, progress)

    def _count(self, description: str, task: "_Task", done: worker.Done) -> None:
        self._hosts[done.node_id] = done.node
        nothing = NodeShare(stage=description, node=done.node_id, rows=0, bytes_sent=0, bytes_read=0, bytes_written=0)
        before = self._shares.get((description, done.node_id), nothing)
        self._shares[description, done.node_id] = replace(
            before,
            rows=before.rows + len(task.rows),
            bytes_sent=before.bytes_sent + task.num_bytes,
            bytes_read=before.bytes_read + done.bytes_read,
            bytes_written=before.bytes_written + done.bytes_written,
        )


@dataclass(frozen=True)
class _Task:
    """Some rows on their way."""

    rows: list[int]
    node: str
    """Where it was sent."""
    num_bytes: int = 0
    storage_errors: int = 0
    """Of the stage, when it was sent."""


class _Stage:
    """A stage while it goes on."""

    def __init__(self, work: Work[Any], rows: Sequence[int], resource: str) -> None:
        self.work = work
        self.resource = resource
        self.rows = Rows(rows, self._slots())
        self._task = ray.remote(worker.work)
        self.running: dict[Any, _Task] = {}
        self.deaths: Counter[int] = Counter()
        """By row: workers that died with it alone."""
        self.num_lost = 0
        self.storage_errors = 0
        """In a row."""
        self.aside: list[int] = []

    def run(self, progress: Progress, storage_pause_s: float) -> Iterator[tuple[_Task, worker.Done | None]]:
        """Yields rows that are settled whenever some are: by a worker, or by the loss of one."""
        tool = ray.put(ray.cloudpickle.dumps(self.work.tool))
        while len(self.rows) or self.running:
            self._send(tool)
            ready, _ = ray.wait(list(self.running), num_returns=1, timeout=_WAIT_S)
            for reference in ready:
                task = self.running.pop(reference)
                try:
                    done: worker.Done = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None
                except _LOST:
                    yield replace(task, rows=self._lost(task.rows)), None
                    continue
                for line in done.warnings:
                    progress.warn(line)
                if done.storage_error is not None and self._forgives(task, storage_pause_s):
                    continue
                done.require_success()
                self.storage_errors = 0
                yield task, done
        for row in self.aside:
            self.work.set_aside(row)

    def _forgives(self, task: _Task, pause_s: float) -> bool:
        """Whether a task whose entries could not be written is tried again, after a pause unless there was one."""
        if task.storage_errors == self.storage_errors:
            if self.storage_errors == MAX_STORAGE_ERRORS - 1:
                return False
            self.storage_errors += 1
            time.sleep(pause_s)
        self.rows.again.append(task.rows)
        return True

    def cancel(self) -> None:
        """Let tasks that wait be dropped; those that are worked on are ended."""
        for reference in self.running:
            with suppress(ray.exceptions.RayError):
                ray.cancel(reference, force=True)
        self.running.clear()

    def report(self, description: str, progress: Progress) -> None:
        """Say what went wrong on the way."""
        if self.num_lost:
            progress.warn(f"{description}: {self.num_lost} tasks were lost with their workers; they were done again")
        for row in self.aside:
            progress.warn(
                f"{description}: {self.work.name(row)} is left out, because {self.deaths[row]} workers died of it; "
                "run again without ray to see the reason"
            )

    def _send(self, tool: Any) -> None:
        amount: dict[str, Any] = {"num_gpus": 1, "num_cpus": 0} if self.resource == "GPU" else {"num_cpus": 1}
        slots = self._slots()
        total = sum(slots.values())
        sent = Counter(task.node for task in self.running.values())
        # a task for every slot, then another
        for _ in range(PER_SLOT * max(slots.values())):
            for node, count in slots.items():
                # large tasks first, which share most; small ones at the end, so that all workers end together
                limit = min(max(len(self.rows) // (PER_SLOT * total), 1), self.work.max_rows)
                if sent[node] < PER_SLOT * count and (rows := self.rows.take(node, limit)):
                    part = pickle.dumps(self.work.part(rows))
                    there = NodeAffinitySchedulingStrategy(node, soft=True)
                    # lost tasks are sent anew here, in smaller parts: Ray would repeat them as they are
                    reference = self._task.options(scheduling_strategy=there, max_retries=0, **amount).remote(
                        [tool], part
                    )
                    self.running[reference] = _Task(rows, node, len(part), self.storage_errors)
                    sent[node] += 1

    def _slots(self) -> dict[str, int]:
        """Processors (or GPUs) of each node that is alive, which may change."""
        since = time.monotonic()
        while not (slots := {node["NodeID"]: count for node in ray.nodes() if (count := self._amount(node)) >= 1}):
            if self.resource == "GPU":
                raise InputError("no node of the Ray cluster has a GPU: choose device cpu, or add a node that has one")
            if time.monotonic() - since > _NO_PROCESSOR_S:
                raise StorageError("the Ray cluster has no processors left: start nodes and run again, it continues")
            time.sleep(_WAIT_S)
        return slots

    def _amount(self, node: dict[str, Any]) -> int:
        return int(node["Resources"].get(self.resource, 0)) if node["Alive"] else 0

    def _lost(self, rows: Sequence[int]) -> list[int]:
        """Rows of a task that its worker took with it: done already, to be tried again, or set aside. Those that are
        settled."""
        self.num_lost += 1
        left = [row for row in rows if not self.work.is_done(row)]
        settled = [row for row in rows if row not in left]
        if len(rows) == 1:  # in company it may have been another's fault
            self.deaths.update(left)
        if left and self.deaths[left[0]] >= MAX_DEATHS:
            self.aside.append(left[0])
            return [*settled, left[0]]
        middle = (len(left) + 1) // 2
        self.rows.again.extend(part for part in (left[:middle], left[middle:]) if part)
        return settled
