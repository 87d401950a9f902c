"""Folders of ours: nothing of anybody else is touched, and results appear as a whole, whenever a process is killed."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

import anchorsfm.io.owned as owned_module
from anchorsfm.io.locks import FileLock
from anchorsfm.io.names import is_inside
from anchorsfm.io.owned import OwnedFolder, complete_publication, is_ours
from anchorsfm.scene.errors import InputError, StorageError
from snapshot import snapshot
from unix import full_disk, unix_only

OLD = {"a/0.bin": "old 0", "a/1.bin": "old 1", "b.json": "old b", "gone/deep/c.txt": "old c"}
NEW = {"a/0.bin": "new 0", "b.json": "new b", "d/e.txt": "new e"}
SCOPE = ("a", "b.json", "gone", "d")
MINE = {"a/notes.txt": "mine", "mine.txt": "mine", "gone/kept.txt": "mine"}


def publish(root: Path, files: dict[str, str]) -> None:
    with OwnedFolder(root).publication() as publication:
        write(publication.path, files)
        publication.publish(SCOPE)


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def as_bytes(*parts: dict[str, str]) -> dict[str, bytes]:
    return {name: text.encode() for part in parts for name, text in part.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a result of ours and files of its user."""
    publish(tmp_path / "out", OLD)
    write(tmp_path / "out", MINE)
    return tmp_path / "out"


def test_a_result_replaces_all_of_the_former_one_and_nothing_else(folder: Path) -> None:
    publish(folder, NEW)
    assert snapshot(folder) == as_bytes(NEW, MINE)
    assert not (folder / "gone" / "deep").exists(), "empty folders go"
    assert not list((folder / ".anchorsfm").glob("staging-*")) and not (folder / ".anchorsfm" / "journal.json").exists()


def test_what_is_not_published_leaves_no_trace(folder: Path) -> None:
    before = snapshot(folder, without=())
    with pytest.raises(ZeroDivisionError), OwnedFolder(folder).publication() as publication:
        write(publication.path, NEW)
        raise ZeroDivisionError
    assert snapshot(folder, without=()) == before


@pytest.mark.parametrize(
    "kind", ["changed", "link", "folder", "new name taken", "folder is a link", "folder is a file"]
)
def test_what_is_not_ours_is_never_replaced(folder: Path, tmp_path: Path, kind: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "0.bin").write_text("old 0")
    match kind:
        case "changed":
            (folder / "a" / "1.bin").write_text("OLD 1")
        case "link":
            (folder / "b.json").unlink()
            (folder / "b.json").symlink_to(tmp_path / "elsewhere" / "0.bin")
        case "folder":
            (folder / "b.json").unlink()
            (folder / "b.json").mkdir()
        case "new name taken":
            write(folder, {"d/e.txt": "mine"})
        case "folder is a link":
            shutil.rmtree(folder / "a")
            (folder / "a").symlink_to(tmp_path / "elsewhere")
        case "folder is a file":
            shutil.rmtree(folder / "a")
            (folder / "a").write_text("mine")
    before = snapshot(tmp_path, without=())
    with pytest.raises(StorageError, match=r"nothing was replaced; move it away"):
        publish(folder, NEW)
    assert snapshot(tmp_path, without=()) == before


def killed_at(step: int, root: Path) -> bool:
    """Publish in a process that dies just before its `step`-th write, rename or removal; whether it died."""
    child = os.fork()
    if child == 0:
        left = step

        def dying(function):
            def call(*arguments):
                nonlocal left
                left -= 1
                if left < 0:
                    os._exit(9)
                return function(*arguments)

            return call

        for name in ("_move", "_remove", "_write_durable", "_describe", "_synchronise_folder"):
            setattr(owned_module, name, dying(getattr(owned_module, name)))
        try:
            publish(root, NEW)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@unix_only
def test_killed_at_any_moment_it_is_the_old_result_or_the_new_one(folder: Path, tmp_path: Path) -> None:
    step, seen = 0, []
    while True:
        copy = tmp_path / f"copy-{step}"
        shutil.copytree(folder, copy)
        if not killed_at(step, copy):
            break
        complete_publication(copy / "a")  # as a reader of what lies deeper does
        after = snapshot(copy)
        assert after in (as_bytes(OLD, MINE), as_bytes(NEW, MINE)), step
        seen.append(after == as_bytes(NEW, MINE))
        publish(copy, NEW)
        assert snapshot(copy) == as_bytes(NEW, MINE)
        assert not list((copy / ".anchorsfm").glob("staging-*")), "what the killed process left is removed"
        step += 1
    assert len(seen) > 15 and seen == sorted(seen) and set(seen) == {False, True}


@unix_only
def test_what_was_changed_after_a_kill_is_not_lost(folder: Path) -> None:
    moment = next(k for k in range(99) if killed_at(k, folder) and (folder / ".anchorsfm" / "journal.json").exists())
    assert moment > 3
    (folder / "b.json").write_text("mine")
    with pytest.raises(StorageError, match=r"b\.json was changed since: move it away"):
        complete_publication(folder)
    assert (folder / "b.json").read_text() == "mine"
    (folder / "b.json").rename(folder / "mine.json")
    complete_publication(folder)
    assert snapshot(folder) == as_bytes(NEW, MINE, {"mine.json": "mine"})


@pytest.mark.parametrize("function", ["_move", "_remove", "_write_durable", "_describe"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_full_disk_at_any_write_loses_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, function: str, number: int
) -> None:
    original, calls = getattr(owned_module, function), []

    def full(*arguments):
        calls.append(arguments)
        if len(calls) == number + 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*arguments)

    monkeypatch.setattr(owned_module, function, full)
    try:
        publish(folder, NEW)
    except StorageError as error:
        assert "no space left" in str(error) and "staging" not in str(error)
    monkeypatch.undo()
    complete_publication(folder)
    assert snapshot(folder) in (as_bytes(OLD, MINE), as_bytes(NEW, MINE))


@unix_only
def test_a_full_disk_before_the_journal_changes_nothing(folder: Path) -> None:
    with full_disk(300), pytest.raises(StorageError, match=str(folder)):
        publish(folder, {**NEW, **{f"a/{k}.bin": "new" for k in range(20)}})
    assert snapshot(folder) == as_bytes(OLD, MINE)


@unix_only
def test_two_writers_do_not_disturb_each_other(folder: Path) -> None:
    with OwnedFolder(folder).publication() as first:
        write(first.path, NEW)
        publish(folder, {"b.json": "second"})
        assert snapshot(folder) == as_bytes({"b.json": "second"}, MINE)
        assert first.path.is_dir(), "what is being written by the living is no leftover"
        first.publish(SCOPE)
    assert snapshot(folder) == as_bytes(NEW, MINE)
    with FileLock(folder / ".anchorsfm" / "alive") as lock:
        lock.share()
        with (
            pytest.raises(StorageError, match="another command is writing"),
            OwnedFolder(folder).publication(resume=True),
        ):
            pass


def test_only_new_empty_and_our_folders_are_taken(tmp_path: Path) -> None:
    OwnedFolder(tmp_path / "new").require_ours()
    OwnedFolder(tmp_path).require_ours()
    (tmp_path / ".DS_Store").write_text("")
    OwnedFolder(tmp_path).require_ours()
    (tmp_path / "mine").mkdir()
    with pytest.raises(StorageError, match=r"not empty .*it holds mine\).*--output"):
        OwnedFolder(tmp_path).require_ours()
    OwnedFolder(tmp_path).require_ours(may_hold=("mine",))
    assert not is_ours(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"schema_version": 1}', '{"schema_version": 2, "files": {}}',
     *(json.dumps({"schema_version": 1, "files": {name: {"size": 4, "sha256": "0"}}}) for name in
       ("../x", "/x", "a/../../x", ".anchorsfm/manifest.json", "")),
     '{"schema_version": 1, "files": {"mine.txt": null}}'],
)  # fmt: skip
def test_a_damaged_manifest_ends_with_one_line(folder: Path, text: str) -> None:
    (folder / ".anchorsfm" / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=r"manifest\.json is damaged"):
        publish(folder, NEW)
    assert snapshot(folder) == as_bytes(OLD, MINE)


OUTSIDE = {"schema_version": 1, "staging": "..", "files": {"../x": {"size": 1, "sha256": ""}}, "remove": {}, "old": {}}


@pytest.mark.parametrize("text", ["{", '{"schema_version": 1}', json.dumps(OUTSIDE)])
def test_a_damaged_journal_ends_with_one_line(folder: Path, text: str) -> None:
    (folder / ".anchorsfm" / "journal.json").write_text(text)
    with pytest.raises(StorageError, match=r"journal\.json is damaged"):
        complete_publication(folder)
    assert snapshot(folder) == as_bytes(OLD, MINE)


def test_names_that_stay_inside() -> None:
    assert all(map(is_inside, ("a", "a/b.jpg", ".hidden", "a..b", "...", "12:30.jpg" if os.name == "posix" else "a")))
    assert not any(map(is_inside, ("", "..", "../a", "a/../b", "/a", "a\0b", None, 3, ".", ["a"])))
