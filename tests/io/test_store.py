"""The cache and other files: complete or absent, and errors in the words of a user."""

import errno
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from anchorsfm.io.layout import TEMPORARY_PREFIX
from anchorsfm.io.ply import write_ply
from anchorsfm.io.store import Store, digest, remove_leftovers, to_json, write_atomic
from anchorsfm.scene.errors import StorageError
from anchorsfm.scene.graph import FallbackTargets


def test_entries_come_back_bit_for_bit(tmp_path):
    store = Store(tmp_path)
    arrays = {
        "a": np.arange(6, dtype=np.uint16).reshape(2, 3)[:, ::-1],
        "b": np.zeros((0, 2)),
        "c": np.float32([np.nan]),
    }
    assert store.load("kind", "key") is None
    store.save("kind", "key", arrays)
    back = Store(tmp_path).load("kind", "key")
    for name, value in arrays.items():
        assert back[name].dtype == value.dtype
        np.testing.assert_array_equal(back[name], value)


def test_a_damaged_entry_counts_as_missing(tmp_path):
    store = Store(tmp_path)
    store.save("kind", "key", {"a": np.arange(1000)})
    path = tmp_path / "kind" / "key.safetensors"
    path.write_bytes(path.read_bytes()[:500])
    assert store.load("kind", "key") is None
    store.save("kind", "key", {"a": np.arange(3)})
    assert store.load("kind", "key")["a"].tolist() == [0, 1, 2]


def test_a_cache_says_its_size_and_goes_without_what_is_not_its_own(tmp_path):
    store = Store(tmp_path / "cache")
    assert store.size_bytes() == 0
    store.save("kind", digest(1), {"a": np.zeros(1000, np.float32)})
    store.save("other", digest(2), {"a": np.zeros(10, np.float32)})
    (tmp_path / "cache" / "other" / "notes.txt").write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.safetensors").write_text("mine too")
    (tmp_path / "cache" / "link").symlink_to(tmp_path / "elsewhere")
    assert 4040 < store.size_bytes() < 6000
    store.discard()
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["cache/other/notes.txt", "elsewhere/a.safetensors"]
    store.save("kind", digest(1), {"a": np.zeros(3)})
    assert store.load("kind", digest(1)) is None and store.size_bytes() == 0


def test_no_store_keeps_nothing():
    store = Store(None)
    store.save("kind", "key", {"a": np.arange(3)})
    assert store.load("kind", "key") is None


def test_digest_sees_every_difference():
    values = [1, 1.0, True, "1", None, (1,), (1, 2), ((1,), 2), {"a": 1}, {"b": 1}, np.array([1]), np.array([1.0]),
              np.array([[1]]), FallbackTargets.empty(), ("ab", "c"), ("a", "bc")]  # fmt: skip
    assert len({digest(value) for value in values}) == len(values)
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    with pytest.raises(TypeError):
        digest(object())


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, "old")

    def no_space(*_args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pathlib.Path.replace", no_space)
    with pytest.raises(StorageError, match=r"no space left while writing .*file.*run the same command again"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_what_a_killed_run_was_writing_is_removed(tmp_path):
    (tmp_path / "cache" / "kind").mkdir(parents=True)
    (tmp_path / "cache" / "kind" / f"{TEMPORARY_PREFIX}abc").write_bytes(b"half")
    (tmp_path / f"{TEMPORARY_PREFIX}xyz" / "0").mkdir(parents=True)
    (tmp_path / ".mine").write_text("the user's")
    remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == [".mine", "cache", "kind"]


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="choose another --output"):
        write_atomic(tmp_path / "file" / "below", "text")


def test_ply_is_binary_and_complete(tmp_path):
    write_ply(tmp_path / "a.ply", np.array([[1.0, 2.0, 3.0], [4, 5, 6]]), np.array([[255, 0, 7], [1, 2, 3]], np.uint8))
    header, body = (tmp_path / "a.ply").read_bytes().split(b"end_header\n")
    assert b"element vertex 2" in header and b"binary_little_endian" in header
    assert struct.unpack("<fffBBB", body[:15]) == (1, 2, 3, 255, 0, 7)
    assert len(body) == 30


def test_ply_with_normals_has_the_names_that_programs_look_for(tmp_path):
    xyz, normal = np.arange(6.0).reshape(2, 3), np.eye(3)[:2]
    write_ply(tmp_path / "a.ply", xyz, np.full((2, 3), 9, np.uint8), normal=normal, confidence=np.array([2.5, 3.0]))
    header, body = (tmp_path / "a.ply").read_bytes().split(b"end_header\n")
    kinds = [tuple(line.split()[1:]) for line in header.decode().splitlines() if line.startswith("property")]
    assert kinds == [
        *(("float", name) for name in ("x", "y", "z", "nx", "ny", "nz")),
        *(("uchar", name) for name in ("red", "green", "blue")),
        ("float", "confidence"),
    ]
    assert struct.unpack("<ffffffBBBf", body[:31]) == (0, 1, 2, 1, 0, 0, 9, 9, 9, 2.5)
    trimesh = pytest.importorskip("trimesh")
    read = trimesh.load(tmp_path / "a.ply")
    np.testing.assert_array_equal(read.vertices, xyz)
    np.testing.assert_array_equal(np.asarray(read.colors)[:, :3], 9)


def test_json_of_nested_values():
    assert '"image": []' in to_json({"x": FallbackTargets.empty(), "n": np.float32(1.5)})


def test_entries_of_another_store_count_as_there_in_other_processes_too(tmp_path, monkeypatch):
    """So nobody makes them anew for a run that goes on from another."""
    monkeypatch.chdir(tmp_path)
    Store(Path("other")).save("kind", "key", {"a": np.arange(3)})
    store = Store(Path("here"))
    assert not store.has("kind", "key")
    store.others = (Path("other"),)
    elsewhere = pickle.loads(pickle.dumps(store))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert elsewhere.has("kind", "key") and not elsewhere.has("kind", "other")
    assert np.array_equal(elsewhere.load("kind", "key")["a"], np.arange(3))
    assert (tmp_path / "here" / "kind" / "key.safetensors").exists()
