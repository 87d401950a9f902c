"""Photographs at a URL: each fetched once, nothing lost when that fails, and nothing of somebody else replaced."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from anchorsfm.io import fetch as module
from anchorsfm.io import remote
from anchorsfm.io.fetch import Fetched
from anchorsfm.io.remote import PAUSES_S, RemoteFile, url_of
from anchorsfm.scene.errors import InputError, StorageError
from anchorsfm.scene.progress import SILENT, Progress, RecordingProgress

URL = "memory://bucket/walk"
NAMES = ("a.jpg", "b.JPG", "sub/c.png")


def fetch(url: str, folder: Path, progress: Progress) -> Fetched:
    return module.fetch(url, lambda: folder, progress)


class Bucket:
    """What is at the URL, and which reads it was asked for."""

    def __init__(self) -> None:
        self.reads: list[str] = []
        self.fail_after: int | None = None
        for name in (*NAMES, "notes.txt", ".hidden.jpg", "sub/.trash/d.jpg"):
            self.put(name, name.encode() * 9)

    def put(self, name: str, content: bytes) -> None:
        fsspec.filesystem("memory").pipe_file(f"/bucket/walk/{name}", content)

    def remove(self, name: str) -> None:
        fsspec.filesystem("memory").rm_file(f"/bucket/walk/{name}")

    def asked(self) -> list[str]:
        """Names of the files that were read since it was asked last."""
        reads, self.reads = sorted(set(self.reads)), []
        return reads


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    monkeypatch.setattr(remote, "PAUSES_S", (0.0,) * len(PAUSES_S))
    monkeypatch.setattr(remote, "_BLOCK_BYTES", 20)
    monkeypatch.setattr(module, "AT_ONCE", 1)
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    found = Bucket()
    read = MemoryFileSystem.cat_file

    def cat_file(files: Any, path: str, *args: Any, **kwargs: Any) -> bytes:
        found.reads.append(path.removeprefix("/bucket/walk/"))
        if found.fail_after is not None and len(found.reads) > found.fail_after:
            raise ConnectionResetError("Connection reset by peer")
        data: bytes = read(files, path, *args, **kwargs)
        return data

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    yield found


class Said(RecordingProgress):
    def __init__(self) -> None:
        super().__init__(Progress())
        self.notes: list[str] = []

    def note(self, line: str) -> None:
        self.notes.append(line)


def test_each_is_fetched_once_and_again_where_it_changed(bucket: Bucket, tmp_path: Path) -> None:
    said = Said()
    place = fetch(URL, tmp_path, said).path
    assert {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*.*")} == {
        name: name.encode() * 9 for name in NAMES
    }
    assert bucket.asked() == sorted(NAMES) and "3 files, 3 of them fetched now" in said.notes[-1]
    (place / "a.jpg").touch()  # copied elsewhere, for example
    assert fetch(URL, tmp_path, said).path == place
    assert bucket.asked() == [] and "3 files, 0 of them fetched now" in said.notes[-1]
    bucket.put("a.jpg", b"another")
    (place / "b.JPG").unlink()
    fetch(URL, tmp_path, said)
    assert bucket.asked() == ["a.jpg", "b.JPG"] and (place / "a.jpg").read_bytes() == b"another"
    bucket.remove("sub/c.png")
    fetch(URL, tmp_path, said)
    assert not (place / "sub" / "c.png").exists() and (place / ".gone" / "sub" / "c.png").exists()
    assert f"sub/c.png is no longer in {URL}: it lies in {place / '.gone'} now" in said.warnings[-1]


def test_what_came_stays_when_the_connection_breaks(bucket: Bucket, tmp_path: Path) -> None:
    bucket.fail_after = 4  # of a file that has three parts, and another one
    with pytest.raises(
        StorageError, match=rf"^cannot read {URL}/b.JPG \(Connection reset by peer, tried 4 times\): see"
    ):
        fetch(URL, tmp_path, SILENT)
    (place,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert [path.name for path in place.iterdir()] == ["a.jpg"], "whole or not at all"
    bucket.fail_after = None
    bucket.asked()
    (notes,) = tmp_path.glob("*.jsonl")
    notes.write_bytes(notes.read_bytes() + b'{"name": "b.J')  # killed while it was written
    fetch(URL, tmp_path, SILENT)
    assert bucket.asked() == ["b.JPG", "sub/c.png"]


def test_a_connection_that_ends_early_is_no_end_of_the_file(bucket: Bucket, tmp_path: Path) -> None:
    read = MemoryFileSystem.cat_file
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryFileSystem, "cat_file", lambda *args, **kwargs: read(*args, **kwargs)[:-1])
        with pytest.raises(StorageError, match=r"a.jpg \(19 of 20 bytes came, tried 4 times\)"):
            fetch(URL, tmp_path, SILENT)


def test_what_somebody_changed_here_is_not_replaced(bucket: Bucket, tmp_path: Path) -> None:
    place = fetch(URL, tmp_path, SILENT).path
    (place / "a.jpg").write_bytes(b"edited")
    for change in (lambda: None, lambda: bucket.put("a.jpg", b"new"), next(tmp_path.glob("*.jsonl")).unlink):
        change()
        with pytest.raises(InputError, match=rf"a.jpg is not what was fetched from {URL}: move it away, or give"):
            fetch(URL, tmp_path, SILENT)
        assert (place / "a.jpg").read_bytes() == b"edited"
    (place / "a.jpg").write_bytes(b"new")
    fetch(URL, tmp_path, SILENT)
    assert not list(place.glob(".anchorsfm*"))


def test_damaged_notes_are_none(bucket: Bucket, tmp_path: Path) -> None:
    folder = tmp_path / "fetched"
    place = fetch(URL, folder, SILENT).path
    (notes,) = folder.glob("*.jsonl")
    (tmp_path / "precious.jpg").write_bytes(b"mine")
    outside = notes.read_text().splitlines()[0].replace("a.jpg", "../../precious.jpg")
    notes.write_text("\n".join([outside, "[]", '{"name": 3}', "\0", "[" * 9999, '{"name": "a.jpg", "size": "9"}']))
    bucket.asked()
    fetch(URL, folder, SILENT)
    assert bucket.asked() == sorted(NAMES) and (tmp_path / "precious.jpg").exists()
    assert (place / "a.jpg").read_bytes() == b"a.jpg" * 9
    notes.unlink()
    notes.mkdir()
    with pytest.raises(StorageError, match=rf"^cannot write {place}"):
        fetch(URL, folder, SILENT)


def test_a_single_file(bucket: Bucket, tmp_path: Path) -> None:
    found = fetch(f"{URL}/notes.txt", tmp_path, SILENT)
    assert found.path.name == "notes.txt" and found.path.read_bytes() == b"notes.txt" * 9
    assert (found.origin.url, found.origin.folder) == (URL, found.path.parent)


def test_what_cannot_be_fetched_is_one_line(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"^memory://nowhere: no such bucket, folder or file, or nothing is in it"):
        fetch("memory://nowhere", tmp_path, SILENT)
    bucket.put("videos/v.mp4", b"v")
    with pytest.raises(InputError, match=r"^no images in memory://bucket/walk/videos: found 1 x .mp4; .* name videos"):
        fetch(f"{URL}/videos", tmp_path, SILENT)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"^cannot write .*/file/bucket-walk"):
        fetch(URL, tmp_path / "file", SILENT)
    with pytest.MonkeyPatch.context() as patch:
        outside = {"../../a.jpg": RemoteFile(size=1, version="")}
        patch.setattr(remote.RemoteFolder, "find", lambda folder: outside)
        with pytest.raises(InputError, match=r"a name that leads out of it \('../../a.jpg'\)"):
            fetch(URL, tmp_path, SILENT)

    def forbidden(*_: Any, **__: Any) -> Any:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(MemoryFileSystem, "find", forbidden)
    with pytest.raises(StorageError, match=rf"^cannot list {URL} \(Access Denied\): see that .* reached and read"):
        fetch(URL, tmp_path, SILENT)


@pytest.mark.parametrize("url", ["s3://bucket/a/b", "gs://bucket", "file:///mnt/photos", "sftp://me@host/my photos"])
def test_urls_survive_as_paths(url: str) -> None:
    assert url_of(Path(url)) == url


@pytest.mark.parametrize("path", ["photos", "/mnt/photos", "C:/photos", "s3:", "a b:/c"])
def test_paths_are_no_urls(path: str) -> None:
    assert url_of(Path(path)) is None


def test_a_folder_that_looks_like_a_url_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s3:/bucket").mkdir(parents=True)
    assert url_of(Path("s3://bucket")) is None
    with pytest.raises(InputError, match=r"^sftp://host/x must hold no password"):
        url_of(Path("sftp://me:secret@host/x"))
