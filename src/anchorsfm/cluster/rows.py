"""Which rows of a stage go to which node: neighbouring ones to the same, as they share photographs."""

from collections import deque
from collections.abc import Mapping, Sequence


class Rows:
    """Rows that wait, a run of neighbouring ones for every node. A node whose run is done takes half of another's."""

    def __init__(self, rows: Sequence[int], slots: Mapping[str, int]) -> None:
        """`slots`: of every node, how many processors it has; its run is as long as that says."""
        self.again: deque[list[int]] = deque()
        """Tasks that were lost, for whichever node is free first."""
        self._runs: dict[str, deque[int]] = {}
        begin = passed = 0
        for node, count in slots.items():
            passed += count
            end = len(rows) * passed // sum(slots.values())
            self._runs[node] = deque(rows[begin:end])
            begin = end

    def __len__(self) -> int:
        return sum(map(len, self._runs.values())) + sum(map(len, self.again))

    def take(self, node: str, limit: int) -> list[int]:
        """The next rows for a node, at most `limit` of its run; none if none wait."""
        if self.again:
            return self.again.popleft()
        run = self._runs.setdefault(node, deque())
        if not run:
            longest = max(self._runs.values(), key=len)
            kept = len(longest) // 2
            run.extend(list(longest)[kept:])
            for _ in range(len(longest) - kept):
                longest.pop()
        return [run.popleft() for _ in range(min(limit, len(run)))]
