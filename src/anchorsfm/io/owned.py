"""Folders that we write results into: only what we wrote is ever replaced or removed, and results appear as a whole.

    <folder>/.anchorsfm/manifest.json   the marker of our folders: size and SHA-256 of every file that we wrote
    <folder>/.anchorsfm/staging-*/      what is being written; published at the end, or dropped
    <folder>/.anchorsfm/journal.json    a publication that has begun: from here on it can only be completed
    <folder>/.anchorsfm/alive, lock     locks: shared by all who are writing; held by the one who publishes

A file is ours while its content is what the manifest says. What a user changed, and what lies under a name that we
need, is somebody else's: then nothing is published. Users' own files beside ours stay, and folders go only when they
are empty. Links are never followed on the way to a file.

A publication first checks all this, then writes the journal, and then renames and removes. A process that is killed
before the journal leaves the old result, one that is killed after it leaves the rest to the next command that opens
the folder (`complete_publication`), so that a mixture is never read.
"""

import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from anchorsfm.io.layout import FRAMES_RECORD, TEMPORARY_PREFIX, Layout
from anchorsfm.io.locks import FileLock
from anchorsfm.io.names import is_inside
from anchorsfm.io.store import remove_leftovers, storage_error, to_json, write_atomic
from anchorsfm.scene.errors import AnchorSfMError, InputError, StorageError

MARKER = ".anchorsfm"
_SCHEMA_VERSION = 1
_LITTER = frozenset({MARKER, ".DS_Store", "Thumbs.db", "desktop.ini", ".directory", "lost+found"})
"""What systems leave in folders that their users call empty."""
_NAMED = 3
"""Files that a message names."""

_Entry = Mapping[str, Any]
"""{"size": bytes, "sha256": hex digits} of a file."""


def is_ours(folder: Path) -> bool:
    """Whether a folder has our marker."""
    return (folder / MARKER / "manifest.json").is_file()


def holds_results(folder: Path) -> bool:
    """Whether a folder is ours and has results, which are no photographs; frames of videos are."""
    return is_ours(folder) and not holds_frames(folder)


def holds_frames(folder: Path) -> bool:
    """Whether a folder is ours and has frames of videos, which are photographs for whoever names the folder."""
    return is_ours(folder) and (folder / FRAMES_RECORD).is_file()


def complete_publication(folder: Path) -> None:
    """Complete what a killed command was publishing in a folder or the two above it; call before reading results.

    Raises StorageError if that cannot be done.
    """
    for place in (folder, *folder.resolve().parents[:2]):
        if (place / MARKER / "journal.json").is_file():
            OwnedFolder(place).complete()


class OwnedFolder:
    """A folder with results of ours, or one that will be."""

    def __init__(self, root: Path, *, is_output: bool = True) -> None:
        """`is_output`: the user named it by --output and can name another, as messages say."""
        self.root = root
        self._is_output = is_output
        self._own = root / MARKER

    def require_ours(self, *, may_hold: Sequence[str] = ()) -> None:
        """Raise StorageError unless the folder is ours, empty or not there; `may_hold`: names that count as nothing."""
        try:
            if is_ours(self.root):
                return
            if self.root.exists() and not self.root.is_dir():
                raise StorageError(f"{self.root} is a file, not a folder: choose another --output")
            names = [path.name for path in self.root.iterdir()] if self.root.exists() else []
        except OSError as error:
            raise storage_error(self.root, error) from error
        others = sorted(set(names) - _LITTER - set(may_hold))
        if others:
            raise StorageError(
                f"{self.root} is not empty and was not made by this program (it holds {_some(others)}): nothing was "
                f"touched, {'choose a new folder for --output' if self._is_output else 'move that away'}"
            )

    def require_writable(self) -> None:
        """Raise StorageError if the folder, or the one that it would be made in, is known not to be writable."""
        place = next(place for place in (self.root, *self.root.absolute().parents) if os.path.lexists(place))
        if not place.is_dir():
            raise storage_error(self.root, NotADirectoryError(errno.ENOTDIR, f"{place} is not a folder"))
        if not os.access(place, os.W_OK | os.X_OK):
            raise storage_error(self.root, PermissionError(errno.EACCES, f"{place} is not writable"))

    def claim(self) -> None:
        """Make the folder and mark it as ours.

        Raises StorageError if it cannot be written.
        """
        try:
            if self._own.is_symlink():
                raise StorageError(f"{self._own} is a link: results are never written through links")
            self._own.mkdir(parents=True, exist_ok=True)
            if not is_ours(self.root):
                _write_manifest(self._own / "manifest.json", {})
        except OSError as error:
            raise storage_error(self.root, error) from error

    def files(self) -> dict[str, _Entry]:
        """What we wrote here, by path relative to the folder.

        Raises InputError if the manifest is damaged.
        """
        path = self._own / "manifest.json"
        try:
            return _read_record(path)["files"] if path.exists() else {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            choice = ", choose another --output" if self._is_output else ""
            raise InputError(
                f"{path} is damaged, so what is ours in {self.root} is not known: nothing was touched{choice}"
            ) from error

    def changed(self, scope: Iterable[str]) -> list[str]:
        """Files of ours below the names of `scope` that are missing or are not as we wrote them."""
        files, scope = self.files(), tuple(scope)
        return [
            name for name in sorted(files) if _in_scope(name, scope) and not _is_file(self.root / name, files[name])
        ]

    def conflicts(self, wanted: Iterable[str], scope: Iterable[str]) -> list[str]:
        """Why a publication of `wanted` that replaces all of `scope` would lose something; empty if it would not."""
        files, scope = self.files(), tuple(scope)
        found = []
        for name in sorted({*wanted, *(name for name in files if _in_scope(name, scope))}):
            blocked = _blocked(self.root, name)
            if blocked is not None:
                found.append(f"{blocked} is in the way")
            elif os.path.lexists(self.root / name):
                if name not in files:
                    found.append(f"{self.root / name} was not written by this program")
                elif not _is_file(self.root / name, files[name]):
                    found.append(f"{self.root / name} was changed after this program wrote it")
        return list(dict.fromkeys(found))

    def require_free(self, wanted: Iterable[str], scope: Iterable[str]) -> None:
        """Raise StorageError if a publication would lose something."""
        found = self.conflicts(wanted, scope)
        if found:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            choice = ", or choose another --output" if self._is_output else ""
            raise StorageError(f"{found[0]}{more}: nothing was replaced; move it away{choice}")

    @contextmanager
    def publication(self, *, resume: bool = False) -> Iterator["Publication"]:
        """A place to write a result to; what was not published when the block ends is dropped.

        Args:
            resume: one writer at a time, who finds what an interrupted one has left.

        Raises:
            StorageError: something cannot be written, or (with `resume`) somebody else is writing.
        """
        self.claim()
        self.complete()
        with self._lock("alive") as alive:
            alone = alive.try_take()
            if resume and not alone:
                raise StorageError(f"another command is writing to {self.root}: wait until it is done")
            staging = self._own / "staging-resumed" if resume else None
            if alone and alive.is_real:
                self._clean(keep=staging)
            if not resume:
                alive.share()
            publication = Publication(self, _make_staging(self._own, staging))
            kept = resume
            try:
                yield publication
                kept = False
            except AnchorSfMError as error:
                if isinstance(error, StorageError):  # in the words of the user, who knows no staging
                    raise StorageError(str(error).replace(str(publication.path), str(self.root))) from error
                raise
            finally:
                if not kept and not (self._own / "journal.json").exists():
                    shutil.rmtree(publication.path.parent, ignore_errors=True)

    def complete(self) -> None:
        """Complete a publication that was begun by a killed command.

        Raises StorageError if a file was changed since, or something cannot be written.
        """
        journal = self._own / "journal.json"
        if not journal.is_file():
            return
        with self._lock("lock") as lock:
            lock.take()
            self._finish()

    def publish(self, staging: Path, kept: Iterable[str], scope: Iterable[str]) -> None:
        """Replace all of `scope` by the files of `staging`, and by those that are `kept`; use `Publication.publish`."""
        scope, kept = tuple(scope), set(kept)
        with self._lock("lock") as lock:
            lock.take()
            self._finish()
            try:
                put = {name: _describe(staging / name) for name in _regular_files(staging)}
                old = self.files()
                self.require_free(put, scope)
                remove = [name for name in old if _in_scope(name, scope) and name not in put and name not in kept]
                after = {name: entry for name, entry in old.items() if name not in remove} | put
                _write_manifest(staging.parent / "manifest.json", after)
                self._make_folders(put)
                journal = {
                    "schema_version": _SCHEMA_VERSION,
                    "staging": staging.parent.name,
                    "files": put,
                    "remove": {name: old[name] for name in remove},
                    "old": {name: old[name] for name in put if name in old},
                }
                _synchronise(staging.parent)
                _write_durable(self._own / "journal.json", to_json(journal))
            except OSError as error:
                raise storage_error(self.root, error) from error
            self._finish()

    def _make_folders(self, names: Iterable[str]) -> None:
        """Make the folders of files while nothing else has happened yet, for that may fail."""
        made: list[Path] = []
        try:
            for folder in sorted({(self.root / name).parent for name in names}):
                missing = [place for place in (folder, *folder.parents) if not place.exists()]
                for place in reversed(missing):
                    place.mkdir()
                    made.append(place)
        except OSError:
            for place in reversed(made):
                with suppress(OSError):
                    place.rmdir()
            raise

    def _finish(self) -> None:
        """Do what is left of the journal; the caller holds the lock."""
        path = self._own / "journal.json"
        if not path.is_file():
            return
        try:
            journal = _read_record(path)
            staging = self._own / str(PurePosixPath(journal["staging"]).name)
            put, remove, old = journal["files"], journal["remove"], journal["old"]
            if not all(map(is_inside, (*put, *remove))):
                raise ValueError("names outside the folder")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError(
                f"{path} is damaged, so the result in {self.root} may be incomplete: make it again in another --output"
            ) from error
        left = [name for name in put if (staging / "files" / name).exists()]
        for name in left:
            place = self.root / name
            blocked = _blocked(self.root, name)
            if blocked is not None or (os.path.lexists(place) and not _is_file(place, old.get(name))):
                raise StorageError(
                    f"a command was stopped while publishing its result, and {blocked or place} was changed since: "
                    "move it away and run a command on the folder again, which completes it"
                )
        try:
            for name in left:
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                _move(staging / "files" / name, self.root / name)
            for name, entry in remove.items():
                if _blocked(self.root, name) is None and _is_file(self.root / name, entry):
                    _remove(self.root / name)
                self._remove_empty((self.root / name).parent)
            if (staging / "manifest.json").exists():
                _move(staging / "manifest.json", self._own / "manifest.json")
            for folder in {self.root, self._own, *((self.root / name).parent for name in put)}:
                _synchronise_folder(folder)
            _remove(path)
        except OSError as error:
            raise storage_error(self.root, error) from error
        shutil.rmtree(staging, ignore_errors=True)

    def _remove_empty(self, folder: Path) -> None:
        while folder != self.root:
            try:
                folder.rmdir()
            except OSError:  # not empty, a link, or gone
                if folder.exists():
                    return
            folder = folder.parent

    def _clean(self, keep: Path | None) -> None:
        """Remove what killed commands left; nobody else is writing."""
        for path in self._own.glob("staging-*"):
            if path != keep:
                shutil.rmtree(path, ignore_errors=True)
        for path in self._own.glob(f"{TEMPORARY_PREFIX}*"):
            path.unlink(missing_ok=True)
        cache = Layout(self.root).cache
        if not cache.is_symlink():
            remove_leftovers(cache)

    def _lock(self, name: str) -> FileLock:
        try:
            return FileLock(self._own / name)
        except OSError as error:
            raise storage_error(self._own / name, error) from error


@dataclass(frozen=True, kw_only=True)
class FolderPart:
    """A folder in a folder of ours, or all of it: where what is made of videos and panoramas is put."""

    owned: OwnedFolder
    inner: str = ""
    """The name of the folder in it; empty: the same."""

    @property
    def root(self) -> Path:
        return self.owned.root / self.inner

    def name(self, *parts: str) -> str:
        """A path in the folder of ours."""
        return str(PurePosixPath(self.inner, *parts))


@dataclass(frozen=True)
class Publication:
    """A result in the making."""

    folder: OwnedFolder
    path: Path
    """Where to write its files, under the names they will have in the folder."""

    def publish(self, scope: Sequence[str], *, kept: Iterable[str] = ()) -> None:
        """Put everything written to `path` into the folder, and remove what else we had written there.

        Args:
            scope: names at the top of the folder that the result replaces; other files of ours stay.
            kept: earlier files that belong to the new result.

        Raises:
            StorageError: something of somebody else would be lost, or cannot be written; nothing has changed then.
        """
        self.folder.publish(self.path, kept, scope)


def _make_staging(own: Path, resumed: Path | None) -> Path:
    try:
        staging = Path(tempfile.mkdtemp(dir=own, prefix="staging-")) if resumed is None else resumed
        (staging / "files").mkdir(parents=True, exist_ok=True)
        remove_leftovers(staging)
    except OSError as error:
        raise storage_error(own, error) from error
    return staging / "files"


def _in_scope(name: str, scope: Sequence[str]) -> bool:
    return any(name == top or name.startswith(f"{top}/") or top == "" for top in scope)


def _blocked(root: Path, name: str) -> Path | None:
    """What keeps a file from being written below a folder: a link or file in the place of a folder, a folder in its."""
    place = root
    for part in PurePosixPath(name).parts[:-1]:
        place = place / part
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            return place
    place = root / name
    return place if place.is_symlink() or place.is_dir() else None


def _is_file(path: Path, entry: _Entry | None) -> bool:
    """Whether a file, not a link, has the size and digest of an entry."""
    try:
        state = path.lstat()
        if entry is None or not stat.S_ISREG(state.st_mode) or state.st_size != entry["size"]:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == entry["sha256"]
    except OSError:
        return False


def _describe(path: Path) -> _Entry:
    """Size and digest of a file, which is on the disk when this returns."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _regular_files(folder: Path) -> list[str]:
    return sorted(
        (Path(parent) / name).relative_to(folder).as_posix()
        for parent, _, names in os.walk(folder)
        for name in names
        if not name.startswith(TEMPORARY_PREFIX)
    )


def _read_record(path: Path) -> dict[str, Any]:
    record = json.loads(path.read_text(encoding="utf-8"))
    if record["schema_version"] != _SCHEMA_VERSION:
        raise ValueError("made by another version")
    for name, entry in record["files"].items():
        if not is_inside(name) or PurePosixPath(name).parts[0] == MARKER:
            raise ValueError(f"{name} is no file of the folder")
        if not isinstance(entry["size"], int) or not isinstance(entry["sha256"], str):
            raise TypeError(f"{name} is not described")
    return dict(record)


def _write_manifest(path: Path, files: Mapping[str, _Entry]) -> None:
    _write_durable(path, to_json({"schema_version": _SCHEMA_VERSION, "files": files}))


def _write_durable(path: Path, text: str) -> None:
    """`write_atomic`, and on the disk when this returns."""
    write_atomic(path, text)
    with path.open("r+b") as file:
        os.fsync(file.fileno())
    _synchronise_folder(path.parent)


def _synchronise(folder: Path) -> None:
    for parent, _, _ in os.walk(folder):
        _synchronise_folder(Path(parent))


def _synchronise_folder(folder: Path) -> None:
    with suppress(OSError):  # not everywhere possible: Windows, some network file systems
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _move(source: Path, target: Path) -> None:
    source.replace(target)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
