"""Work side by side within limits."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock

from anchorsfm.io.memory import physical_bytes
from anchorsfm.io.workers import Budget


def test_no_more_is_taken_than_there_is() -> None:
    budget, lock = Budget(10), Lock()
    held, most = 0, 0
    together = Event()

    def work(part: int) -> None:
        nonlocal held, most
        with budget.taking(part):
            with lock:
                held += part
                most = max(most, held)
                if held == 10:
                    together.set()
            together.wait(0.05)
            with lock:
                held -= part

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [5] * 8))
    assert most == 10, "two at a time, and no more"


def test_what_is_larger_than_the_whole_is_held_alone() -> None:
    budget, inside, go = Budget(10), Event(), Event()
    order = []

    def hold(part: int, then: Callable[[], object]) -> None:
        with budget.taking(part):
            order.append(part)
            then()

    with ThreadPoolExecutor(2) as pool:
        large = pool.submit(hold, 50, lambda: (inside.set(), go.wait(5)))
        assert inside.wait(5)
        small = pool.submit(hold, 1, lambda: None)
        assert order == [50]
        go.set()
        large.result(5), small.result(5)
    assert order == [50, 1]
    assert physical_bytes() > 2**28
