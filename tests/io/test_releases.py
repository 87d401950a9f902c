"""Released weights: found or downloaded, identified, never run."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from anchorsfm.cli.main import main
from anchorsfm.features.learned.releases import DETECTOR_WEIGHTS, MATCHER_WEIGHTS
from anchorsfm.io.weights import release as release_module
from anchorsfm.io.weights.licence import LicenceRecord
from anchorsfm.io.weights.release import ReleaseFile, find_release, joint_licence, present, weights_folder
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.progress import SILENT, Progress

CONTENT = bytes(range(256)) * 20_000


@pytest.fixture(autouse=True)
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test touches the user's own files."""
    monkeypatch.setenv("ANCHORSFM_CACHE", str(tmp_path / "user"))
    return tmp_path / "user"


@pytest.fixture
def published(tmp_path: Path) -> ReleaseFile:
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "net.pth").write_bytes(CONTENT)
    return ReleaseFile(
        name="net.pth",
        network="a network",
        url=(tmp_path / "server" / "net.pth").as_uri(),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        size_bytes=len(CONTENT),
        terms="Net: MIT",
    )


class Steps(Progress):
    """What a bar would show."""

    def __init__(self) -> None:
        self.shown: list[object] = []

    def stage(self, description, total=None):  # type: ignore[no-untyped-def]
        self.shown.append((description, total))
        return super().stage(description, total)


def test_it_is_downloaded_once(published: ReleaseFile, tmp_path: Path) -> None:
    steps = Steps()
    assert present(published) is None
    path = find_release(published, None, steps)
    assert path == tmp_path / "user" / "weights" / "net.pth" and path.read_bytes() == CONTENT
    assert steps.shown == [("downloading net.pth (KiB)", 5000)]
    (tmp_path / "server" / "net.pth").unlink()
    assert find_release(published, None, steps) == path == present(published) and len(steps.shown) == 1
    assert [file.name for file in path.parent.iterdir()] == ["net.pth"], "nothing is left over"


@pytest.mark.parametrize("as_file", [False, True])
def test_a_local_file_is_taken_instead(published: ReleaseFile, tmp_path: Path, as_file: bool) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "net.pth").write_bytes(CONTENT)
    (tmp_path / "server" / "net.pth").unlink()
    assert find_release(published, mine / "net.pth" if as_file else mine, SILENT) == mine / "net.pth"
    assert not weights_folder().exists()
    with pytest.raises(InputError, match=r"there is no net\.pth in .*other: it is to be had at file:"):
        find_release(published, tmp_path / "other", SILENT)


def test_another_file_is_refused_with_both_digests(published: ReleaseFile, tmp_path: Path) -> None:
    wrong = CONTENT[:-1] + b"x"
    both = rf"SHA-256 is {hashlib.sha256(wrong).hexdigest()}, not {published.sha256}"
    weights_folder().mkdir(parents=True)
    (weights_folder() / "net.pth").write_bytes(wrong)
    with pytest.raises(InputError, match=both) as raised:
        find_release(published, None, SILENT)
    assert str(weights_folder() / "net.pth") in str(raised.value) and "\n" not in str(raised.value)
    (weights_folder() / "net.pth").unlink()
    (tmp_path / "server" / "net.pth").write_bytes(wrong)
    with pytest.raises(InputError, match=rf"what file:.*net\.pth sent is not the released.*{both}"):
        find_release(published, None, SILENT)
    assert not any(weights_folder().iterdir()), "a download appears whole and right, or not at all"


def test_without_a_network_the_way_out_is_said(published: ReleaseFile, monkeypatch: pytest.MonkeyPatch) -> None:
    away = replace(published, url="http://localhost:9/net.pth")
    with pytest.raises(InputError) as raised:
        find_release(away, None, SILENT)
    text = str(raised.value)
    assert text.startswith("cannot download net.pth from http://localhost:9/net.pth (")
    assert f"put the file at {weights_folder() / 'net.pth'}, or say --weights FOLDER" in text and "\n" not in text

    def cut(*_arguments: object) -> str:
        raise TimeoutError("the read operation timed out\nmore")

    monkeypatch.setattr(release_module, "_fetch", cut)
    with pytest.raises(InputError, match=r"\(the read operation timed out\); put"):
        find_release(away, None, SILENT)


def test_a_cache_that_cannot_be_written(published: ReleaseFile, tmp_path: Path) -> None:
    (tmp_path / "user").write_text("a file")
    with pytest.raises(InputError, match=r"cannot download net\.pth"):
        find_release(published, None, SILENT)


def test_one_licence_of_several() -> None:
    one, other = (LicenceRecord(weights=name, terms=f"{name}: MIT", accepted="not asked") for name in "ab")
    assert joint_licence([None, None]) is None
    assert joint_licence([None, one, one]) == one
    assert joint_licence([one, None, other]) == LicenceRecord(
        weights="a, b", terms="a: MIT, b: MIT", accepted="not asked"
    )


def test_the_command_lists_and_fetches(
    published: ReleaseFile, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("anchorsfm.features.learned.releases.DETECTOR_WEIGHTS", {"xfeat": published})
    second = replace(published, name="other.pth", terms="Other: MIT")
    monkeypatch.setattr("anchorsfm.features.learned.releases.MATCHER_WEIGHTS", {"xfeat": second})
    main(["weights"])
    listed = capsys.readouterr().out
    assert "net.pth  (4.9 MiB)" in listed and "licence: Net: MIT" in listed and "downloaded to" in listed
    main(["weights", "xfeat"])
    fetched = capsys.readouterr().out
    for name in ("net.pth", "other.pth"):
        assert f"file:    {weights_folder() / name}" in fetched
    assert fetched.count(published.sha256) == 2 and "licence: Other: MIT" in fetched
    main(["weights"])
    assert str(weights_folder() / "net.pth") in capsys.readouterr().out


def test_releases_are_what_the_tables_say(learned_weights: Path) -> None:
    for known in (*DETECTOR_WEIGHTS.values(), *MATCHER_WEIGHTS.values()):
        path = find_release(known, learned_weights, SILENT)
        assert path.stat().st_size == known.size_bytes
        assert known.url.startswith("https://github.com/")
