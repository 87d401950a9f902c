"""Where the heavy stages compute: in this process, or ahead of it on other machines.

A stage loops over its images or pairs and finds in the store what has been made before, as a continued run does. An
executor may let workers elsewhere fill the store first; the stage then finds everything, and computes with the same
bits. So it changes where entries are made, never what a stage does with them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from anchorsfm.scene.progress import Progress

Part = TypeVar("Part")
PartIn = TypeVar("PartIn", contravariant=True)


@runtime_checkable
class Tool(Protocol[PartIn]):
    """What makes entries of the store. It is pickled and sent to every worker once, so it holds no large arrays."""

    @property
    def store(self) -> Any:
        """Where the entries go: an `io.store.Store`, whose pickled form is the absolute path of its folder."""
        ...

    def __call__(self, part: PartIn) -> None:
        """Make the entries of some rows, one after the other, each saved as soon as it is made."""
        ...


@dataclass(frozen=True, kw_only=True)
class Work(Generic[Part]):
    """The rows of a stage. All but `tool` stays in this process."""

    tool: Tool[Part]
    part: Callable[[Sequence[int]], Part]
    """What the tool is called with for some rows: pickled with each task, so it is small."""
    is_done: Callable[[int], bool]
    """Whether the entries of a row are in the store."""
    name: Callable[[int], str]
    """What a row is, in a message."""
    set_aside: Callable[[int], None]
    """Let something that says nothing stand in for the entries of a row in this run (see `Store.stand_in`); called once
    all other rows are done."""
    needs_gpu: bool = False
    max_rows: int = 64
    """Most that a worker is given at a time, fewer where what comes with them is large. Neighbouring rows share
    photographs, so that few are loaded; a stage says how far it is whenever a task is done."""


@dataclass(frozen=True, kw_only=True)
class NodeShare:
    """What one machine made of a stage."""

    stage: str
    node: str
    rows: int
    """Images, pairs, or groups of pairs."""
    bytes_sent: int
    """To it, with its tasks."""
    bytes_read: int
    """By it, from the store."""
    bytes_written: int
    """By it, to the store."""


class Executor:
    """Computes nothing ahead: every stage makes what it needs in this process."""

    @property
    def shares(self) -> tuple[NodeShare, ...]:
        """What other machines have made, stage by stage."""
        return ()

    def fill(self, description: str, work: Work[Any], total: int, progress: Progress) -> None:
        """Make the entries of rows 0 ... `total` - 1, as a stage of the progress.

        Neighbouring rows go to the same worker where that is possible. A row whose work kills its process again and
        again is set aside, and named in a warning.

        Raises what the work raises, such as InputError for a photograph that cannot be read.
        """


IN_PROCESS = Executor()
