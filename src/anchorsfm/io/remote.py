"""A folder at a URL: an object store or a file server, whatever fsspec knows, for machines that share no disk.

What is written appears whole or not at all: object stores put whole objects, elsewhere a file is written under another
name and renamed. A store that fails or does not answer is asked again a few times, then it is one StorageError.
"""

import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from anchorsfm.io.layout import TEMPORARY_PREFIX
from anchorsfm.scene.errors import InputError, StorageError

Result = TypeVar("Result")

ANSWER_S = 60.0
"""After which an operation counts as failed."""
PAUSES_S = (0.5, 2.0, 8.0)
"""Before an operation that failed is tried again."""
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://\S+")
_WHOLE_OBJECTS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"})
"""Schemes of stores in which nobody sees an object before it is complete."""
_BLOCK_BYTES = 16 * 2**20
"""That are asked for at a time."""
_VERSION = (
    "ETag", "etag", "md5Hash", "content_md5", "Content-MD5", "Digest", "crc32c", "mtime", "LastModified",
    "Last-Modified", "last_modified", "updated", "modified", "created",
)  # fmt: skip
"""Names by which file systems tell what changes with the content of a file: checksums and times."""
_AS_PATH = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]+):/+(?P<rest>[^/].*)")
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ImportError, NotImplementedError)
"""What another try does not change."""


def parse_url(text: str) -> str:
    """The URL that a setting gives. Raises InputError for what is none, or has a password in it."""
    if not _SCHEME.fullmatch(text):
        raise InputError("must be a URL, such as s3://bucket/folder")
    _require_no_password(text)
    return text.rstrip("/")


def _require_no_password(url: str) -> None:
    try:
        password = urlsplit(url).password
    except ValueError:
        raise InputError("must be a URL, such as s3://bucket/folder") from None
    if password is not None:
        raise InputError("must hold no password, which would be written down: use a key file or the environment")


def url_of(path: Path) -> str | None:
    """The URL that a path was made of, which has lost a slash by that; None for a path.

    Raises InputError if it has a password in it.
    """
    found = _AS_PATH.fullmatch(path.as_posix())  # schemes have two letters and more: c:/ is a drive
    if found is None or path.exists():
        return None
    slashes = ":///" if found["scheme"] in ("file", "local") else "://"
    url = f"{found['scheme']}{slashes}{found['rest']}"
    try:
        _require_no_password(url)
    except InputError as error:
        raise InputError(f"{found['scheme']}{slashes}{found['rest'].rpartition('@')[2]} {error}") from None
    return url


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """What a store says about a file."""

    size: int
    """Bytes."""
    version: str
    """Changes with the content, as far as the store tells."""


class RemoteFolder:
    """Files by name below a URL. May be used from several threads, and sent to other processes."""

    def __init__(self, url: str, pauses_s: Sequence[float] | None = None) -> None:
        """`pauses_s`: before an operation that failed is tried again; None: `PAUSES_S`."""
        self.url = url
        self._pauses_s = PAUSES_S if pauses_s is None else pauses_s
        self._lock = threading.Lock()
        self._connection: _Connection | None = None

    def __reduce__(self) -> tuple[type["RemoteFolder"], tuple[str]]:
        return RemoteFolder, (self.url,)

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if it is not there. Raises StorageError."""
        try:
            return self._tried("read", name, _get)
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Make a file or replace it, as a whole. Raises StorageError."""
        try:
            self._tried("write", name, lambda files, path: _put(files, path, data))
        except FileNotFoundError as error:  # no such bucket
            raise self._failure("write", name, error, 1) from error

    def names(self, folder: str) -> set[str]:
        """The files in a folder, without its name; none if it is not there. Raises StorageError."""
        try:
            found: list[str] = self._tried("list", folder, _list)
        except FileNotFoundError:
            return set()
        return {path.rpartition("/")[2] for path in found}

    def find(self) -> dict[str, RemoteFile]:
        """All files below the URL by their names, or under no name the file that the URL is; none if it is not there.

        Raises StorageError.
        """
        try:
            return self._tried("list", "", _find)
        except FileNotFoundError:
            return {}

    def blocks(self, name: str, size: int) -> Iterator[bytes]:
        """The content of a file of known size, part by part. Raises StorageError, and FileNotFoundError."""
        for start in range(0, size, _BLOCK_BYTES):
            yield self._block(name, start, min(start + _BLOCK_BYTES, size), size)

    def _block(self, name: str, start: int, end: int, size: int) -> bytes:
        part = {} if (start, end) == (0, size) else {"start": start, "end": end}

        def read(files: Any, path: str) -> bytes:
            data: bytes = files.cat_file(path, **part)
            if len(data) != end - start:
                raise OSError(f"{len(data)} of {end - start} bytes came")
            return data

        return self._tried("read", name, read)

    def remove(self, name: str) -> None:
        """Drop a file if it is there. Raises StorageError."""
        with suppress(FileNotFoundError):
            self._tried("remove", name, lambda files, path: files.rm_file(path))

    def require_usable(self) -> None:
        """Look whether a file can be written, read and removed.

        Raises InputError if the package for the kind of URL is not installed, and StorageError.
        """
        self.require_package()
        name, content = f"{TEMPORARY_PREFIX}seen-{secrets.token_hex(8)}", secrets.token_bytes(16)
        self.write(name, content)
        if self.read(name) != content:
            raise StorageError(f"{self.url}/{name} is not what was written there: use another store")
        self.remove(name)

    def require_package(self) -> None:
        """Raise InputError if nothing that is installed knows this kind of URL."""
        from fsspec import get_filesystem_class

        scheme = self.url.partition("://")[0]
        try:
            get_filesystem_class(scheme)
        except ValueError:
            raise InputError(f"{self.url}: {scheme}:// is no kind of store that fsspec knows") from None
        except ImportError as error:
            way = "pip install 'anchorsfm[remote]'" if scheme in ("s3", "s3a") else str(error)
            raise InputError(f"{self.url} needs an extra package: {way}") from None

    def _tried(self, what: str, name: str, operation: Callable[[Any, str], Result]) -> Result:
        """An operation on the file system and the path of a name, again where that may help.

        Raises FileNotFoundError as it is.
        """
        for attempt in range(len(self._pauses_s) + 1):
            if attempt:
                time.sleep(self._pauses_s[attempt - 1])
            try:
                return _within(ANSWER_S, lambda: self._connected().run(name, operation))
            except FileNotFoundError:
                raise
            except Exception as error:  # each file system has its own
                with self._lock:
                    self._connection = None  # it may be what failed
                if isinstance(error, _FINAL) or attempt == len(self._pauses_s):
                    raise self._failure(what, name, error, attempt + 1) from error
        raise AssertionError

    def _connected(self) -> "_Connection":
        with self._lock:
            if self._connection is None:
                self._connection = _Connection(self.url)
            return self._connection

    def _failure(self, what: str, name: str, error: Exception, attempts: int) -> StorageError:
        tried = f", tried {attempts} times" if attempts > 1 else ""
        where, used = f"{self.url}/{name}".rstrip("/"), "written to" if what in ("write", "remove") else "read"
        return StorageError(
            f"cannot {what} {where} ({_reason(error)}{tried}): see that the store can be reached and {used}, then run "
            "the same command again, it continues"
        )


class _Connection:
    """A file system of fsspec, made by the first operation."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._files: Any = None
        self._root = ""

    def run(self, name: str, operation: Callable[[Any, str], Result]) -> Result:
        from fsspec.asyn import AsyncFileSystem
        from fsspec.core import url_to_fs

        with self._lock:
            if self._files is None:
                self._files, root = url_to_fs(self._url, skip_instance_cache=True)
                self._root = root.rstrip("/")
        # others talk over one connection
        alone: AbstractContextManager[Any] = nullcontext() if isinstance(self._files, AsyncFileSystem) else self._lock
        with alone:
            return operation(self._files, f"{self._root}/{name}")


def _put(files: Any, path: str, data: bytes) -> None:
    protocols = (files.protocol,) if isinstance(files.protocol, str) else files.protocol
    if _WHOLE_OBJECTS.intersection(protocols):
        files.pipe_file(path, data)
        return
    folder = path.rpartition("/")[0]
    temporary = f"{folder}/{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
    files.makedirs(folder, exist_ok=True)
    try:
        files.pipe_file(temporary, data)
        files.mv(temporary, path)
    except BaseException:
        with suppress(Exception):
            files.rm_file(temporary)
        raise


def _get(files: Any, path: str) -> bytes:
    data: bytes = files.cat_file(path)
    return data


def _list(files: Any, path: str) -> list[str]:
    files.invalidate_cache()  # others write there
    found: list[str] = files.ls(path, detail=False)
    files.invalidate_cache()
    return found


def _find(files: Any, path: str) -> dict[str, RemoteFile]:
    path = path.rstrip("/")
    files.invalidate_cache()
    found: dict[str, dict[str, Any]] = files.find(path, detail=True)
    if not found and files.isfile(path):
        found = {path: files.info(path)}
    return {name.removeprefix(path).lstrip("/"): _file(files, name, of) for name, of in found.items()}


def _file(files: Any, name: str, said: Mapping[str, Any]) -> RemoteFile:
    if said.get("size") is None:  # lists of web servers do not say
        said = files.info(name)
    version = "; ".join(f"{key}={said[key]}" for key in _VERSION if said.get(key) is not None)
    return RemoteFile(size=int(said["size"]), version=version)


def _within(seconds: float, operation: Callable[[], Result]) -> Result:
    """What an operation comes to; raises TimeoutError if it takes longer, and lets it go on by itself then."""
    found: list[Result] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(operation())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not found:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return found[0]


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
