"""The only cache: content-keyed, atomic, safetensors and JSON, never pickle.

An entry is one safetensors file `<root>/<kind>/<key>.safetensors`. The key is a digest of everything the entry depends
on (image contents, configuration, schema version), so an entry never goes stale; a file that a killed run left
half-written is never seen, because entries are renamed into place when complete.
"""

import dataclasses
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from anchorsfm.scene.errors import StorageError

SCHEMA_VERSION = 1
"""Raise when the meaning of stored arrays changes: old entries are then ignored."""

TEMPORARY_PREFIX = ".anchorsfm-"
"""Of files and folders that are being written; what a killed run left of them is removed by the next one."""


def digest(*parts: object) -> str:
    """SHA-256 (first 32 hex digits) of nested plain values, numpy arrays and dataclasses, order-sensitive."""
    state = hashlib.sha256(f"schema {SCHEMA_VERSION}".encode())
    for part in parts:
        _feed(state, part)
    return state.hexdigest()[:32]


def _feed(state: "hashlib._Hash", value: object) -> None:
    if isinstance(value, np.ndarray):
        state.update(f"<{value.dtype.str}{value.shape}".encode())
        state.update(np.ascontiguousarray(value).tobytes())
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        state.update(f"<{type(value).__name__}".encode())
        for field in dataclasses.fields(value):
            state.update(field.name.encode())
            _feed(state, getattr(value, field.name))
    elif isinstance(value, Enum):
        _feed(state, value.value)
    elif isinstance(value, Mapping):
        state.update(b"<map")
        for key in sorted(value):
            _feed(state, key)
            _feed(state, value[key])
    elif isinstance(value, (list, tuple)):
        state.update(f"<seq{len(value)}".encode())
        for item in value:
            _feed(state, item)
    elif value is None or isinstance(value, (str, int, float, bool, np.generic, Path)):
        state.update(f"<{type(value).__name__}:{value!r}".encode())
    else:
        raise TypeError(f"cannot digest a {type(value).__name__}")


class Store:
    """Arrays by kind and key under one folder. `root=None` stores nothing and finds nothing."""

    def __init__(self, root: Path | None) -> None:
        self.root = root

    def load(self, kind: str, key: str) -> dict[str, np.ndarray] | None:
        """The stored arrays, or None if there is no readable entry."""
        if self.root is None:
            return None
        path = self._path(kind, key)
        if not path.exists():
            return None
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError):
            path.unlink(missing_ok=True)  # damaged from outside: make it again
            return None

    def has(self, kind: str, key: str) -> bool:
        """Whether there is an entry; `load` may still find it damaged."""
        return self.root is not None and self._path(kind, key).exists()

    def remove(self, kind: str, key: str) -> None:
        """Drop an entry if there is one."""
        if self.root is not None:
            self._path(kind, key).unlink(missing_ok=True)

    def save(self, kind: str, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write an entry atomically.

        Raises StorageError if the disk is full or the folder cannot be written.
        """
        if self.root is None:
            return
        from safetensors.numpy import save

        write_atomic(self._path(kind, key), save({k: np.ascontiguousarray(v) for k, v in arrays.items()}))

    def _path(self, kind: str, key: str) -> Path:
        assert self.root is not None
        return self.root / kind / f"{key}.safetensors"


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file so that it appears complete or not at all.

    Raises StorageError, naming the file and the way out, if it cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY_PREFIX)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(temporary).chmod(0o644)  # temporary files are private, results are for everyone
        Path(temporary).replace(path)
    except BaseException as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise storage_error(path, error) from error
        raise


def remove_leftovers(folder: Path) -> None:
    """Delete what killed runs were writing anywhere below a folder."""
    for path in sorted(folder.rglob(f"{TEMPORARY_PREFIX}*")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def storage_error(path: Path, error: OSError) -> StorageError:
    """The error of a failed write in the words of a user."""
    if error.errno == errno.ENOSPC:
        return StorageError(
            f"no space left while writing {path}: free some space and run the same command again, it continues"
        )
    return StorageError(f"cannot write {path}: {error.strerror or error}; choose another --output")


def to_json(value: Any) -> str:
    """Readable JSON of nested dataclasses, enums, paths and numpy values."""
    return json.dumps(value, default=_plain, indent=2) + "\n"


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"cannot write a {type(value).__name__} as JSON")
