"""Entries at a URL: found by other runs, whole, and a store that fails or is slow is one clear line."""

import importlib.util
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from anchorsfm.io import remote as module
from anchorsfm.io.fetch import fetch
from anchorsfm.io.remote import PAUSES_S, RemoteFolder, parse_url
from anchorsfm.io.store import Store
from anchorsfm.run.checks import check_settings
from anchorsfm.run.config import PipelineConfig
from anchorsfm.scene.errors import InputError, SettingError, StorageError
from anchorsfm.scene.progress import SILENT, RecordingProgress

ENTRY = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "none": np.zeros((0, 2))}
HAS_S3 = all(importlib.util.find_spec(name) for name in ("s3fs", "moto", "flask"))


class FaultyFileSystem(MemoryFileSystem):
    """Memory that fails as it is told to, when half is written."""

    protocol = "faulty"
    cachable = False
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    faults: ClassVar[list[Callable[[], None]]] = []
    """What happens first, in the next operations."""

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.replace("faulty://", "memory://"))

    def _fail(self) -> None:
        if self.faults:
            self.faults.pop(0)()

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        if self.faults:
            super().pipe_file(path, value[: len(value) // 2], mode, **kwargs)
        self._fail()
        super().pipe_file(path, value, mode, **kwargs)

    def cat_file(self, path: str, *args: Any, **kwargs: Any) -> bytes:
        self._fail()
        return super().cat_file(path, *args, **kwargs)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "PAUSES_S", (0.0,) * len(PAUSES_S))
    fsspec.register_implementation("faulty", FaultyFileSystem, clobber=True)
    for kind in (MemoryFileSystem, FaultyFileSystem):
        kind.store.clear()
        kind.pseudo_dirs[:] = [""]
    FaultyFileSystem.faults.clear()
    yield


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"memory://{tmp_path.name}" if request.param == "memory" else f"file://{tmp_path}/url"


def _store(root: Path | None, url: str, progress: Any = SILENT) -> Store:
    store = Store(root, progress)
    store.remote = RemoteFolder(url)
    return store


def _fault(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def test_what_one_saves_another_finds_and_keeps(url: str, tmp_path: Path) -> None:
    one, other = _store(tmp_path / "one", url), _store(tmp_path / "other", url)
    assert not other.has("kind", "key") and other.load("kind", "key") is None
    one.save("kind", "key", ENTRY)
    other = _store(tmp_path / "other", url)  # looks anew
    assert other.has("kind", "key") and not other.has("kind", "no")
    found = other.load("kind", "key")
    assert found is not None and set(found) == set(ENTRY)
    for name, array in ENTRY.items():
        assert np.array_equal(found[name], array) and found[name].dtype == array.dtype and found[name].flags.writeable
    path = Path("kind/key.safetensors")
    assert (tmp_path / "other" / path).read_bytes() == (tmp_path / "one" / path).read_bytes()
    other.discard()
    assert one.remote is not None and one.remote.names("kind") == {path.name}, "neither leftovers, nor is it lost"
    assert one.local.remote is None and one.local.load("kind", "key") is not None


def test_a_worker_needs_the_url_only(url: str, tmp_path: Path) -> None:
    worker = pickle.loads(pickle.dumps(_store(tmp_path / "here", url)))
    assert worker.root is None and worker.keeps
    worker.save("kind", "key", ENTRY)
    assert worker.load("kind", "key") is not None and worker.has("kind", "key")
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize("damage", ["truncated", "another", "foreign"])
def test_a_damaged_object_is_named_and_made_anew(damage: str, tmp_path: Path) -> None:
    says = RecordingProgress(SILENT)
    store = _store(None, "memory://set", says)
    assert store.remote is not None
    store.save("kind", "key", ENTRY)
    store.save("kind", "other", {"a": np.ones(2)})
    data = store.remote.read(f"kind/{'other' if damage == 'another' else 'key'}.safetensors") or b""
    content = {"truncated": data[:-4], "another": data, "foreign": b"x" * 20}[damage]
    store.remote.write("kind/key.safetensors", content)
    assert store.load("kind", "key") is None
    assert "memory://set/kind/key.safetensors is damaged" in says.warnings[0]
    store.save("kind", "key", ENTRY)
    assert store.load("kind", "key") is not None and len(says.warnings) == 1


def test_a_damaged_file_here_is_fetched_again(tmp_path: Path) -> None:
    store = _store(tmp_path, "memory://set")
    store.save("kind", "key", ENTRY)
    (tmp_path / "kind" / "key.safetensors").write_bytes(b"x")
    assert store.load("kind", "key") is not None


def test_a_store_that_fails_for_a_moment_is_asked_again() -> None:
    store = _store(None, "faulty://set")
    FaultyFileSystem.faults += [_fault(ConnectionResetError("reset by peer"))] * len(PAUSES_S)
    store.save("kind", "key", ENTRY)
    FaultyFileSystem.faults += [_fault(RuntimeError("SlowDown"))] * len(PAUSES_S)
    assert store.load("kind", "key") is not None


def test_a_store_that_goes_on_failing_is_one_line() -> None:
    store = _store(None, "faulty://set")
    FaultyFileSystem.faults += [_fault(OSError(28, "No space left on device"))] * (len(PAUSES_S) + 1)
    with pytest.raises(
        StorageError,
        match=r"^cannot write faulty://set/kind/key\.safetensors \(.*No space left.*, tried 4 times\): see",
    ):
        store.save("kind", "key", ENTRY)
    assert store.remote is not None and not store.remote.names("kind"), "nothing is left of it"
    FaultyFileSystem.faults += [_fault(PermissionError("Access Denied"))]
    with pytest.raises(StorageError, match=r"^cannot read faulty://.* \(Access Denied\): see"):
        store.load("kind", "key")


def test_a_store_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_S", 0.02)
    never = threading.Event()
    FaultyFileSystem.faults += [lambda: bool(never.wait()) and None] * (len(PAUSES_S) + 1)
    try:
        with pytest.raises(StorageError, match=r"no answer within 0.02 s, tried 4 times"):
            _store(None, "faulty://set").load("kind", "key")
    finally:
        never.set()


@pytest.mark.parametrize("text", ["", "cache", "/a/b", "s3:bucket", "://x", "s3://a b", "sftp://me:secret@host/x"])
def test_what_is_no_url_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match=r"must be a URL|must hold no password"):
        PipelineConfig(cache_url=text)


def test_a_url_that_cannot_be_used_ends_the_run_before_it_begins(tmp_path: Path) -> None:
    assert parse_url("s3://bucket/folder/") == "s3://bucket/folder"
    with pytest.raises(InputError, match="nonsense:// is no kind of store"):
        check_settings(PipelineConfig(cache_url="nonsense://x"))
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"^cannot write file://.*/file/"):
        check_settings(PipelineConfig(cache_url=f"file://{tmp_path}/file"))


def test_two_runs_at_once_lose_nothing(tmp_path: Path) -> None:
    _write_at_once("memory://shared", 200, 2, tmp_path)


@pytest.mark.skipif(not HAS_S3, reason="s3fs, moto and flask are not installed")
def test_two_runs_at_once_on_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(StorageError, match=r"^cannot write s3://cache/runs/.* does not exist"):
            check_settings(PipelineConfig(cache_url="s3://cache/runs"))
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir("cache")
        check_settings(PipelineConfig(cache_url="s3://cache/runs"))
        _write_at_once("s3://cache/runs", 12, 2, tmp_path)
        _fetch_once("s3://cache/walk", tmp_path)
        with pytest.raises(InputError, match=r"^s3://nowhere/walk: no such bucket, folder or file"):
            fetch("s3://nowhere/walk", lambda: tmp_path, SILENT)
    finally:
        server.stop()


def _fetch_once(url: str, folder: Path) -> None:
    there = RemoteFolder(url)
    for name in ("a.jpg", "sub/b.jpg", "notes.txt"):
        there.write(name, name.encode())
    place = fetch(url, lambda: folder, SILENT).path
    assert [(place / name).read_text() for name in ("a.jpg", "sub/b.jpg")] == ["a.jpg", "sub/b.jpg"]
    before = {path: path.stat().st_ino for path in place.rglob("*.jpg")}
    there.write("sub/b.jpg", b"other")
    assert fetch(f"{url}/notes.txt", lambda: folder, SILENT).path.read_text() == "notes.txt"
    fetch(url, lambda: folder, SILENT)
    assert [path.name for path in place.rglob("*.jpg") if path.stat().st_ino != before[path]] == ["b.jpg"]


def _write_at_once(url: str, count: int, num_runs: int, tmp_path: Path) -> None:
    """All runs make all entries and read them meanwhile, in different orders: whatever is found is whole."""
    said = RecordingProgress(SILENT)
    torn: list[int] = []

    def content(number: int) -> np.ndarray:
        return np.full(50 + number % 50, number)

    def run(own: int) -> None:
        store = _store(None, url, said)
        for number in np.random.default_rng(own).permutation(count).tolist():
            store.save("numbers", str(number), {"number": content(number)})
            other = (number * 7 + own) % count
            found = store.load("numbers", str(other))
            if found is not None and not np.array_equal(found["number"], content(other)):
                torn.append(other)

    threads = [threading.Thread(target=run, args=(own,)) for own in range(num_runs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store = _store(tmp_path / "read", url, said)
    assert not torn and not said.warnings
    assert store.remote is not None and store.remote.names("numbers") == {f"{n}.safetensors" for n in range(count)}
    for number in range(count):
        found = store.load("numbers", str(number))
        assert found is not None and np.array_equal(found["number"], content(number))
