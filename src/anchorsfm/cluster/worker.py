"""What runs in Ray's workers: the tool of a stage, kept in the process, with one part of its rows after the other."""

import pickle
import socket
from dataclasses import dataclass
from typing import Any

from anchorsfm.io.store import Traffic
from anchorsfm.scene.errors import AnchorSfMError, InputError, StorageError
from anchorsfm.scene.executor import Tool
from anchorsfm.scene.progress import SILENT, RecordingProgress


@dataclass(frozen=True, kw_only=True)
class Done:
    """How a part ended. Errors that a user can act on are values: Ray would wrap them in its own."""

    node: str
    """Name of the machine."""
    node_id: str = ""
    """Of the node of Ray, of which a machine may have several."""
    bytes_read: int = 0
    bytes_written: int = 0
    warnings: tuple[str, ...] = ()
    input_error: str | None = None
    storage_error: str | None = None

    def require_success(self) -> None:
        """Raise InputError or StorageError, as the stage would in the process of the run."""
        if self.input_error is not None:
            raise InputError(self.input_error)
        if self.storage_error is not None:
            raise StorageError(f"{self.node}: {self.storage_error}")


_kept: dict[str, Tool[Any]] = {}
"""The tool of the present stage, with all that it keeps in memory."""


def work(tool: list[Any], part: bytes) -> Done:
    """Make the entries of some rows.

    Args:
        tool: reference to it, in a list, so that Ray does not load it every time.
        part: what it is called with, pickled.
    """
    node = socket.gethostname()
    try:
        kept = _tool(tool[0])
    except (AnchorSfMError, ImportError) as error:  # no weights, no GPU, no package: not on this machine
        return Done(node=node, input_error=f"{node}: {error}")
    try:
        kept(pickle.loads(part))
    except StorageError as error:
        return Done(node=node, storage_error=str(error), **_since_last(kept))
    except AnchorSfMError as error:
        return Done(node=node, input_error=str(error), **_since_last(kept))
    return Done(node=node, **_since_last(kept))


def _tool(reference: Any) -> Tool[Any]:
    import ray

    key = reference.hex()
    if key not in _kept:
        _kept.clear()
        tool: Tool[Any] = pickle.loads(ray.get(reference))  # in bytes: Ray would wrap what this raises
        tool.store.progress = RecordingProgress(SILENT)
        _kept[key] = tool
    return _kept[key]


def _node_id() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def _since_last(tool: Tool[Any]) -> dict[str, Any]:
    """What the store said and moved since the last part."""
    store = tool.store
    said, moved = tuple(store.progress.warnings), store.traffic
    store.progress.warnings.clear()
    store.traffic = Traffic()
    return {"warnings": said, "node_id": _node_id(), "bytes_read": moved.read, "bytes_written": moved.written}
