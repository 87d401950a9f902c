"""Running a function over many inputs on a few threads: results in order, bounded look-ahead, prompt interruption."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Condition
from typing import TypeVar

import cv2

from anchorsfm.scene.progress import Progress

Input = TypeVar("Input")
Output = TypeVar("Output")


class Budget:
    """Something of which threads take parts for a while, such as memory: they wait while there is not enough left."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._taken = 0
        self._changed = Condition()

    @contextmanager
    def taking(self, part: int) -> Iterator[None]:
        """Hold a part. One that is larger than the whole is held alone."""
        with self._changed:
            self._changed.wait_for(lambda: self._taken == 0 or self._taken + part <= self._total)
            self._taken += part
        try:
            yield
        finally:
            with self._changed:
                self._taken -= part
                self._changed.notify_all()


@contextmanager
def single_threaded_libraries() -> Iterator[None]:
    """OpenCV and torch use one thread each inside: the pool already keeps every core busy. Restored on leaving."""
    import torch

    opencv, pytorch = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(opencv)
        torch.set_num_threads(pytorch)


def ordered_map(function: Callable[[Input], Output], inputs: Iterable[Input], num_workers: int) -> Iterator[Output]:
    """Yield `function(x)` for every x in order; at most `num_workers` + 1 results are in the making or waiting.

    When the consumer stops early or is interrupted, work that has not started is dropped.
    """
    if num_workers <= 1:
        yield from map(function, inputs)
        return
    pool = ThreadPoolExecutor(num_workers, thread_name_prefix="anchorsfm-pairs")
    waiting: deque[Future[Output]] = deque()
    try:
        for value in inputs:
            waiting.append(pool.submit(function, value))
            if len(waiting) > num_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def map_stage(
    description: str, function: Callable[[int], Output], total: int, progress: Progress, num_workers: int
) -> list[Output]:
    """`function(0)` ... `function(total - 1)`, in order, as a stage of the progress."""
    results = []
    with progress.stage(description, total) as advance:
        for result in ordered_map(function, range(total), num_workers):
            results.append(result)
            advance(1)
    return results
