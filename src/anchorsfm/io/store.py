"""The only cache: content-keyed, atomic, safetensors and JSON, never pickle.

An entry is one safetensors file `<root>/<kind>/<key>.safetensors`. The key is a digest of everything the entry depends
on (image contents, configuration, schema version), so an entry never goes stale; a file that a killed run left
half-written is never seen, because entries are renamed into place when complete.

An entry is believed only if it says, as metadata, the digest of its kind, its key and its arrays. Whatever else lies in
its place (flipped bits, a copy of another entry, something rewritten by another program, a folder) is set aside, named
in a warning, and counts as missing. So readers of an entry need not check its arrays: they are those that were saved.

Entries may also be at a URL (`Store.remote`), where other machines read and write them: what is saved goes there too,
and what is found there comes into the folder.
"""

import dataclasses
import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from anchorsfm.io.layout import TEMPORARY_PREFIX
from anchorsfm.io.remote import RemoteFolder
from anchorsfm.scene.errors import StorageError
from anchorsfm.scene.executor import IN_PROCESS, Executor, Work
from anchorsfm.scene.progress import SILENT, Progress

SCHEMA_VERSION = 3
"""Raise when the meaning of stored arrays changes: old entries are then ignored."""


def digest(*parts: object) -> str:
    """SHA-256 (first 32 hex digits) of nested plain values, numpy arrays and dataclasses, order-sensitive."""
    state = hashlib.sha256(f"schema {SCHEMA_VERSION}".encode())
    for part in parts:
        _feed(state, part)
    return state.hexdigest()[:32]


def _feed(state: "hashlib._Hash", value: object) -> None:
    if isinstance(value, np.ndarray):
        state.update(f"<{value.dtype.str}{value.shape}".encode())
        state.update(np.ascontiguousarray(value))  # type: ignore[arg-type]  # an array is a buffer
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


@dataclasses.dataclass
class Traffic:
    """Bytes of entries, wherever these are."""

    read: int = 0
    written: int = 0


class Store:
    """Arrays by kind and key under one folder, at a URL, or both. With neither it stores nothing and finds nothing."""

    def __init__(self, root: Path | None, progress: Progress = SILENT) -> None:
        """`progress` is warned of every damaged entry."""
        self.root = root
        self.progress = progress
        self.others: tuple[Path, ...] = ()
        """Roots of other stores in which entries are looked for that are not here; those that are found come here."""
        self.executor: Executor = IN_PROCESS
        """Who makes entries ahead of the stages that look for them."""
        self.remote: RemoteFolder | None = None
        """Where entries are kept for other machines too."""
        self.traffic = Traffic()
        """What was read and written since it was made."""
        self._lock = threading.Lock()
        self._listed: dict[str, tuple[float, set[str]]] = {}
        """By kind: when the names at the URL were looked at, and those names."""
        self._stand_ins: dict[tuple[str, str], dict[str, np.ndarray]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """For a process elsewhere, which sees the same folders, or with a URL only that: it computes what it is asked
        for itself."""
        root, others = (None, ()) if self.remote is not None else (self.root, self.others)
        return {
            "root": root and root.absolute(),
            "others": tuple(other.absolute() for other in others),
            "remote": self.remote,
            "stand_ins": self._stand_ins,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["root"])  # type: ignore[misc]
        self.others, self.remote, self._stand_ins = state["others"], state["remote"], state["stand_ins"]

    @property
    def keeps(self) -> bool:
        """Whether what is saved can be loaded again."""
        return self.root is not None or self.remote is not None

    @property
    def local(self) -> "Store":
        """The folder without the URL, for what a run notes for itself."""
        if self.remote is None:
            return self
        store = Store(self.root, self.progress)
        store.others = self.others
        return store

    def fill(self, description: str, work: Work[Any], total: int, progress: Progress) -> None:
        """Let the executor make entries ahead: see `Executor.fill`. Without a place there is nowhere to put them."""
        if self.keeps:
            try:
                self.executor.fill(description, work, total, progress)
            finally:
                with self._lock:
                    self._listed.clear()

    def stand_in(self, kind: str, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Let arrays stand in for an entry that cannot be made, in this run only: they are not written.

        The entry then goes by another key, which `current` gives, so that what is made of the arrays is not taken for
        what would be made of the entry.
        """
        self._stand_ins[kind, key] = self._stand_ins[kind, _stand_in_key(key)] = dict(arrays)

    def current(self, kind: str, key: str) -> str:
        """The key that an entry goes by in this run."""
        return _stand_in_key(key) if (kind, key) in self._stand_ins else key

    @property
    def stand_ins(self) -> tuple[tuple[str, str], ...]:
        """Kinds and keys of the entries that something stands in for, sorted."""
        return tuple(sorted(self._stand_ins))

    def load(self, kind: str, key: str) -> dict[str, np.ndarray] | None:
        """The arrays as they were saved, or None if there is no undamaged entry.

        A damaged one is set aside first. May be called from several threads.

        Raises StorageError if the URL cannot be read.
        """
        if (kind, key) in self._stand_ins:
            return dict(self._stand_ins[kind, key])
        if self.root is None:
            return self._fetched(kind, key)
        path = self._path(kind, key)
        try:
            found = _read_entry(path, kind, key)
            self._count(read=path.stat().st_size)
            return found
        except FileNotFoundError:
            taken = self._taken_over(kind, key)
            return self._fetched(kind, key) if taken is None else taken
        except (_DamagedError, OSError) as error:
            self._set_aside(path, str(error) if isinstance(error, _DamagedError) else error.strerror or str(error))
            return self._fetched(kind, key)

    def _taken_over(self, kind: str, key: str) -> dict[str, np.ndarray] | None:
        for root in self.others:
            try:
                found = _read_entry(_path(root, kind, key), kind, key)
            except (_DamagedError, OSError):  # not there, or not usable: it is left as it is
                continue
            self.save(kind, key, found)
            return found
        return None

    def _fetched(self, kind: str, key: str) -> dict[str, np.ndarray] | None:
        """An entry at the URL, which comes into the folder."""
        data = None if self.remote is None else self.remote.read(f"{kind}/{key}.safetensors")
        if self.remote is None or data is None:
            return None
        self._count(read=len(data))
        try:
            found = _decoded(data, kind, key)
        except _DamagedError as error:
            self.progress.warn(f"{self.remote.url}/{kind}/{key}.safetensors is damaged ({error}): it is made anew")
            return None
        if self.root is not None:
            write_atomic(self._path(kind, key), data)
        return found

    def has(self, kind: str, key: str) -> bool:
        """Whether there is an entry, here, in another store or at the URL; `load` may still find it damaged.

        What others have put at the URL in the last seconds may not be seen. Raises StorageError if it cannot be read.
        """
        if (kind, key) in self._stand_ins:
            return True
        roots = () if self.root is None else (self.root, *self.others)
        if any(_path(root, kind, key).exists() for root in roots):
            return True
        return self.remote is not None and self._is_listed(self.remote, kind, f"{key}.safetensors")

    def _is_listed(self, remote: RemoteFolder, kind: str, name: str) -> bool:
        with self._lock:
            since, names = self._listed.get(kind, (-_LISTED_S, set[str]()))
            if name not in names and time.monotonic() - since >= _LISTED_S:
                names = remote.names(kind)
                self._listed[kind] = time.monotonic(), names
            return name in names

    def remove(self, kind: str, key: str) -> None:
        """Drop an entry if there is one. Raises StorageError if the URL cannot be used."""
        if self.root is not None:
            with suppress(OSError):  # a folder in its place: `save` sets it aside
                self._path(kind, key).unlink(missing_ok=True)
        if self.remote is not None:
            self.remote.remove(f"{kind}/{key}.safetensors")

    def save(self, kind: str, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write an entry atomically.

        Raises StorageError if the disk is full, or folder or URL cannot be written.
        """
        if not self.keeps:
            return
        from safetensors.numpy import save

        contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        data = save(contiguous, metadata={_SEAL: _seal(kind, key, contiguous)})
        if self.root is not None:
            path = self._path(kind, key)
            if path.is_dir():
                self._set_aside(path, "a folder in its place")
            write_atomic(path, data)
        if self.remote is not None:
            self.remote.write(f"{kind}/{key}.safetensors", data)
        self._count(written=len(data))

    def _count(self, read: int = 0, written: int = 0) -> None:
        with self._lock:
            self.traffic.read += read
            self.traffic.written += written

    def size_bytes(self) -> int:
        """What all entries take on the disk, damaged ones included."""
        return sum(path.stat().st_size for path in self._files())

    def discard(self) -> None:
        """Remove all entries of the folder, and itself unless something of somebody else is in it.

        The URL is not touched. From then on nothing is stored or found. What cannot be removed stays.
        """
        for path in list(self._files()):
            with suppress(OSError):
                path.unlink()
        if self.root is not None:
            for folder in (*(path for path in self.root.glob("*") if path.is_dir()), self.root):
                with suppress(OSError):  # not empty
                    folder.rmdir()
        self.root = self.remote = None

    def _files(self) -> Iterator[Path]:
        if self.root is not None:
            found = (
                path for kind in self.root.glob("*") if not kind.is_symlink() for path in kind.glob("*.safetensors")
            )
            yield from (path for path in found if path.is_file() and not path.is_symlink())

    def _set_aside(self, path: Path, reason: str) -> None:
        """Move what is no entry to `<root>/damaged`, so that its place is free and it can be looked at."""
        assert self.root is not None
        folder = self.root / "damaged"
        target = folder / f"{path.parent.name}-{path.name}"
        with self._lock:
            try:
                folder.mkdir(exist_ok=True)
                if os.path.lexists(target):
                    target = folder / f"{target.stem}-{secrets.token_hex(4)}{target.suffix}"
                path.replace(target)
                where = f"it lies in {target} now and is made anew"
                _keep_newest(folder, _MAX_SET_ASIDE)
            except OSError as error:
                where = f"it could not be moved ({error.strerror or error}) and is made anew"
        self.progress.warn(f"cache entry {path} is damaged ({reason}): {where}")

    def _path(self, kind: str, key: str) -> Path:
        assert self.root is not None
        return _path(self.root, kind, key)


def _path(root: Path, kind: str, key: str) -> Path:
    return root / kind / f"{key}.safetensors"


def _stand_in_key(key: str) -> str:
    return digest("stand-in", key)


_SEAL = "anchorsfm"
"""Name of the metadata that holds the digest of an entry."""
_LISTED_S = 10.0
"""For which a list of the names at a URL is believed when it lacks one."""
_MAX_SET_ASIDE = 32
"""Damaged files that are kept; folders are not counted and never removed."""


class _DamagedError(Exception):
    """What lies in the place of an entry is none; the message says why."""


def _read_entry(path: Path, kind: str, key: str) -> dict[str, np.ndarray]:
    """The arrays of an entry; raises FileNotFoundError, another OSError or _DamagedError."""
    from safetensors import SafetensorError, safe_open

    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise _DamagedError("a folder in its place" if stat.S_ISDIR(mode) else "not a regular file")
    try:
        with safe_open(path, framework="np") as file:
            seal = (file.metadata() or {}).get(_SEAL)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _DamagedError("not a complete safetensors file") from error
    return _verified(arrays, seal, kind, key)


def _decoded(data: bytes, kind: str, key: str) -> dict[str, np.ndarray]:
    """The arrays of an entry in memory; raises _DamagedError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = {name: np.require(array, requirements="W") for name, array in load(data).items()}
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        seal = header.get("__metadata__", {}).get(_SEAL)
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _DamagedError("not a complete safetensors file") from error
    return _verified(arrays, seal, kind, key)


def _verified(arrays: dict[str, np.ndarray], seal: str | None, kind: str, key: str) -> dict[str, np.ndarray]:
    """The arrays of an entry that says that they are; raises _DamagedError."""
    if seal is None:
        raise _DamagedError("not written by this program")
    if seal != _seal(kind, key, arrays):
        raise _DamagedError("its content is not what was saved")
    return arrays


def _seal(kind: str, key: str, arrays: Mapping[str, np.ndarray]) -> str:
    """Digest of an entry: what and whose it is, and all bits of its arrays."""
    return digest(kind, key, dict(arrays))


def _keep_newest(folder: Path, limit: int) -> None:
    """Remove the oldest files of a folder beyond a limit."""
    files = sorted((path for path in folder.iterdir() if not path.is_dir()), key=lambda path: path.lstat().st_mtime_ns)
    for path in files[: max(len(files) - limit, 0)]:
        path.unlink(missing_ok=True)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file so that it appears complete or not at all.

    Raises StorageError, naming the file and saying how to fix it, if it cannot be written.
    """
    # The bytes of a name that is not UTF-8 come as lone surrogates, which a file in UTF-8 cannot hold.
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
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
