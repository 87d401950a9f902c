"""Files at a URL, brought into a folder here: each once, and again where it has changed there.

    <folder>/<place>/...         the files, by their names below the URL
    <folder>/<place>/.gone/...   those that are no longer there
    <folder>/<place>.jsonl       what came: a line with name, size, version and digest

A file appears when it is complete, and is noted then: a command that was stopped goes on with those that lack. What
somebody has changed here is never replaced.
"""

import hashlib
import json
import os
import re
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from anchorsfm.io.json_files import checked
from anchorsfm.io.layout import TEMPORARY_PREFIX
from anchorsfm.io.listing import EXTENSIONS, no_images
from anchorsfm.io.names import is_inside
from anchorsfm.io.remote import RemoteFile, RemoteFolder
from anchorsfm.io.store import storage_error
from anchorsfm.io.workers import ordered_map
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.images import Origin
from anchorsfm.scene.printable import printable
from anchorsfm.scene.progress import Progress

AT_ONCE = 8
"""Files that are fetched side by side."""
GONE = ".gone"
_UNUSUAL = re.compile(r"[^\w.-]+")


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What a URL has become here."""

    path: Path
    """The folder, or the file."""
    origin: Origin


@dataclass(frozen=True, kw_only=True)
class _Note:
    """A file that came."""

    name: str
    size: int
    version: str
    """As the URL had it."""
    sha256: str
    mtime_s: float
    """When the file here was written."""

    def is_of(self, path: Path) -> bool:
        """Whether a file here is still what came."""
        status = path.stat()
        if (status.st_size, status.st_mtime) == (self.size, self.mtime_s):
            return True
        return status.st_size == self.size and _sha256(path) == self.sha256


def fetch(url: str, folder: Callable[[], Path], progress: Progress) -> Fetched:
    """The photographs below a URL, or the one file that it names, in a folder of ours.

    Args:
        url: of a folder or a file.
        folder: makes ours, once something is there to be fetched.
        progress: receives a stage with a step per file, a note of what came, and a warning of what is gone there.

    Raises:
        InputError: nothing is there, its kind of URL needs a package, or a file here is somebody else's.
        StorageError: the URL cannot be read, or the folder cannot be written; what came stays for the next command.
    """
    remote = RemoteFolder(url)
    remote.require_package()
    found = remote.find()
    if not found:
        raise InputError(
            f"{url}: no such bucket, folder or file, or nothing is in it: give the URL of a folder of photographs"
        )
    single = None
    if "" in found:
        parent, _, single = url.rpartition("/")
        remote, wanted = RemoteFolder(parent), {single: found[""]}
    else:
        wanted = {name: file for name, file in sorted(found.items()) if _is_photograph(name)}
        if not wanted:
            raise no_images(url, found)
    outside = next((name for name in wanted if not is_inside(name)), None)
    if outside is not None:
        raise InputError(f"{url} has a name that leads out of it ({printable(outside)[:200]!r}): rename it there")
    place = folder() / _place(remote.url)
    new = 0
    try:
        notes = _Notes(place.with_name(f"{place.name}.jsonl"))
        fetching = _Fetching(remote, place, notes)
        if single is None:
            fetching.put_away(set(notes.of) - set(wanted), progress)
        with progress.stage("fetching photographs", len(wanted)) as advance:
            for came in ordered_map(lambda name: fetching.bring(name, wanted[name]), wanted, AT_ONCE):
                new += came
                advance(1)
    except OSError as error:
        raise storage_error(place, error) from error
    progress.note(f"{url}: {len(wanted)} files, {new} of them fetched now, in {place}")
    path = place if single is None else place / single
    return Fetched(path=path, origin=Origin(folder=place.absolute(), url=remote.url))


def _is_photograph(name: str) -> bool:
    """By its extension, and visible, as in folders here."""
    hidden = (part != ".." and (part.startswith(".") or part == "__MACOSX") for part in PurePosixPath(name).parts)
    return name.lower().endswith(EXTENSIONS) and not any(hidden)


def _place(url: str) -> str:
    """A name for what lies below a URL: readable, and its own."""
    readable = _UNUSUAL.sub("-", url.partition("://")[2])[-60:].strip("-.")
    return f"{readable}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"


class _Notes:
    """What came, written down as it comes. May be used from several threads."""

    def __init__(self, path: Path) -> None:
        """Lines that are damaged are none: their files count as somebody's until the same comes again.

        Raises OSError.
        """
        self._path = path
        self._lock = threading.Lock()
        self.of: dict[str, _Note] = {}
        """By name."""
        for line in path.read_bytes().splitlines() if path.exists() else ():
            with suppress(ValueError, TypeError, RecursionError):  # the last one may be cut
                note = _Note(**checked(json.loads(line), _Note))
                if is_inside(note.name):
                    self.of[note.name] = note

    def add(self, note: _Note) -> None:
        """Raises OSError."""
        with self._lock, self._path.open("ab") as file:
            file.write(f"{json.dumps(asdict(note))}\n".encode())
            self.of[note.name] = note


class _Fetching:
    """Brings files of a URL to a place here."""

    def __init__(self, remote: RemoteFolder, place: Path, notes: _Notes) -> None:
        self._remote, self._place, self._notes = remote, place, notes

    def bring(self, name: str, file: RemoteFile) -> bool:
        """Whether a file had to be fetched. Raises InputError, StorageError or OSError."""
        path, note = self._place / name, self._notes.of.get(name)
        is_here = path.exists()
        if is_here and note is not None:
            if not note.is_of(path):
                raise self._is_foreign(path)
            if (note.size, note.version) == (file.size, file.version):
                return False
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY_PREFIX)
        try:
            with os.fdopen(handle, "wb") as target:
                sha256 = self._copy(name, file, target.write)
            if is_here and note is None and _sha256(path) != sha256:
                raise self._is_foreign(path)
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        finally:
            Path(temporary).unlink(missing_ok=True)
        mtime_s = path.stat().st_mtime
        self._notes.add(_Note(name=name, size=file.size, version=file.version, sha256=sha256, mtime_s=mtime_s))
        return True

    def put_away(self, names: set[str], progress: Progress) -> None:
        """Move what came, and is no longer at the URL, out of the way. Raises OSError."""
        gone = sorted(name for name in names if (self._place / name).exists())
        for name in gone:
            target = self._place / GONE / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (self._place / name).replace(target)
        if gone:
            more = f" (and {len(gone) - 1} more)" if len(gone) > 1 else ""
            progress.warn(f"{gone[0]}{more} is no longer in {self._remote.url}: it lies in {self._place / GONE} now")

    def _copy(self, name: str, file: RemoteFile, write: Callable[[bytes], object]) -> str:
        """Digest of what was copied."""
        state = hashlib.sha256()
        try:
            for block in self._remote.blocks(name, file.size):
                state.update(block)
                write(block)
        except FileNotFoundError as error:
            raise InputError(
                f"{self._remote.url}/{name} went while it was fetched: run the same command again"
            ) from error
        return state.hexdigest()

    def _is_foreign(self, path: Path) -> InputError:
        return InputError(
            f"{path} is not what was fetched from {self._remote.url}: move it away, or give {self._place} in place of "
            "the URL to use what is there"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
