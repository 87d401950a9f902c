"""What runs in Ray's workers: the tool of a stage, kept in the process, with one part of its rows after the other."""

import pickle
import socket
from dataclasses import dataclass
from typing import Any

from anchorsfm.scene.errors import AnchorSfMError, InputError, StorageError
from anchorsfm.scene.executor import Tool
from anchorsfm.scene.progress import SILENT, RecordingProgress


@dataclass(frozen=True, kw_only=True)
class Done:
    """How a part ended. Errors that a user can act on are values: Ray would wrap them in its own."""

    node: str
    """Name of the machine."""
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


def work(tool: list[Any], part: Any) -> Done:
    """Make the entries of some rows. `tool`: reference to it, in a list, so that Ray does not load it every time."""
    node = socket.gethostname()
    try:
        kept = _tool(tool[0])
    except (AnchorSfMError, ImportError) as error:  # no weights, no GPU, no package: not on this machine
        return Done(node=node, input_error=f"{node}: {error}")
    try:
        kept(part)
    except StorageError as error:
        return Done(node=node, storage_error=str(error), warnings=_warnings(kept))
    except AnchorSfMError as error:
        return Done(node=node, input_error=str(error), warnings=_warnings(kept))
    return Done(node=node, warnings=_warnings(kept))


def _tool(reference: Any) -> Tool[Any]:
    import ray

    key = reference.hex()
    if key not in _kept:
        _kept.clear()
        tool: Tool[Any] = pickle.loads(ray.get(reference))  # in bytes: Ray would wrap what this raises
        tool.store.progress = RecordingProgress(SILENT)
        _kept[key] = tool
    return _kept[key]


def _warnings(tool: Tool[Any]) -> tuple[str, ...]:
    """What the store said since the last part."""
    said = tuple(tool.store.progress.warnings)
    tool.store.progress.warnings.clear()
    return said
