"""What was asked for lately is kept in memory; the rest is made again."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """The `limit` values that were asked for last. May be used from several threads: two may make the same value."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[Key, Value] = OrderedDict()
        self._lock = Lock()

    def __reduce__(self) -> tuple[type["Recent[Key, Value]"], tuple[int]]:
        """In another process nothing has been asked for yet."""
        return Recent, (self._limit,)

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """The value of a key: kept, or made now."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        value = make()
        with self._lock:
            self._kept[key] = value
            while len(self._kept) > self._limit:
                self._kept.popitem(last=False)
        return value
