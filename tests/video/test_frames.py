"""Frames of videos as files: written once, whole or not at all, used again."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anchorsfm.io.images import load_image_set
from anchorsfm.io.owned import FolderPart, OwnedFolder
from anchorsfm.io.store import Store
from anchorsfm.scene.errors import InputError, StorageError
from anchorsfm.video import frames as video_frames
from anchorsfm.video.config import VideoConfig
from anchorsfm.video.frames import frame_files, make_frames
from anchorsfm.video.record import VideoFrames, read_record
from said import Said
from video_files import panned, write_video

FEW = VideoConfig(step=0.2)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds in which the view moves by twice its width."""
    path = tmp_path_factory.mktemp("video") / "walk.mp4"
    return write_video(path, panned(np.linspace(0, 480, 61)), tags={"creation_time": "2024-05-06T07:08:59.5Z"})


def make(
    videos: Sequence[Path] | Path,
    output: Path,
    config: VideoConfig = FEW,
    *,
    said: Said | None = None,
    store: Path | None = None,
    inner: str = "",
    keep_others: bool = False,
) -> tuple[VideoFrames, ...]:
    files = [videos] if isinstance(videos, Path) else videos
    folder = FolderPart(owned=OwnedFolder(output), inner=inner)
    return make_frames(files, config, folder, Store(store), said or Said(), keep_others=keep_others)


def jpegs(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))


def test_frames_are_named_by_their_times(video: Path, tmp_path: Path) -> None:
    (made,) = make(video, tmp_path / "out")
    assert made.decoded == 61 and len(made.names) == pytest.approx(11, abs=1)
    assert jpegs(tmp_path / "out") == [f"walk/{name}" for name in made.names]
    assert made.names[0].startswith("walk_00000.") and list(made.names) == sorted(made.names)
    images = load_image_set(tmp_path / "out")
    assert images.num_cameras == 1 and images.size_wh.tolist()[0] == [240, 160]
    assert images.is_unnamed is not None and not images.is_unnamed.any()
    assert images.may_be_zoomed is not None and images.may_be_zoomed.all()
    taken = images.taken_s - images.taken_s[0]
    assert taken == pytest.approx(np.array(made.time_s) - made.time_s[0], abs=0.0021)
    with Image.open(tmp_path / "out" / "walk" / made.names[-1]) as last:
        details = last.getexif().get_ifd(0x8769)
    assert details[36867].startswith("2024:05:06 07:09:0")


def test_frames_show_what_is_shown_at_their_time(video: Path, tmp_path: Path) -> None:
    (made,) = make(video, tmp_path / "out")
    pictures = np.stack(list(panned(np.linspace(0, 480, 61)))).astype(float)
    files = frame_files(FolderPart(owned=OwnedFolder(tmp_path / "out")), [made])
    for file, time_s in zip(files, made.time_s, strict=True):
        with Image.open(file) as image:
            difference = np.abs(np.asarray(image) - pictures).mean(axis=(1, 2, 3))
        assert difference.argmin() == round(30 * time_s) and difference.min() < 10


def test_equal_videos_and_settings_give_equal_frames(video: Path, tmp_path: Path) -> None:
    first, second = make(video, tmp_path / "a"), make(video, tmp_path / "b")
    assert first == second
    assert [(tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in jpegs(tmp_path / "a")]


def test_frames_that_are_there_are_used_again(video: Path, tmp_path: Path) -> None:
    output, store = tmp_path / "out", tmp_path / "store"
    first = make(video, output, store=store)
    before = {name: (output / name).stat().st_mtime_ns for name in jpegs(output)}
    said = Said()
    assert make(video, output, said=said, store=store) == first and not said.stages
    more = Said()
    (other,) = make(video, output, VideoConfig(step=0.11), said=more, store=store, keep_others=True)
    assert set(before) - {f"walk/{name}" for name in other.names}
    assert more.stages == ["writing frames of walk.mp4"]  # what was measured is known
    after = jpegs(output)
    assert set(after) == set(before) | {f"walk/{name}" for name in other.names}
    assert all((output / name).stat().st_mtime_ns == time for name, time in before.items())
    (output / after[0]).write_bytes(b"changed")
    with pytest.raises(StorageError, match="was changed after this program wrote it"):
        make(video, output, VideoConfig(step=0.05), store=store)


def test_frames_that_were_lost_are_written_again(video: Path, tmp_path: Path) -> None:
    make(video, tmp_path)
    wanted = jpegs(tmp_path)
    (tmp_path / wanted[2]).unlink()
    make(video, tmp_path)
    assert jpegs(tmp_path) == wanted


@pytest.mark.parametrize("record", ["", "{", '{"schema_version": 1, "videos": [3]}'])
def test_a_damaged_record_is_no_record(video: Path, tmp_path: Path, record: str) -> None:
    (tmp_path / "frames.json").write_text(record)
    assert read_record(tmp_path) == ()
    make(video, tmp_path / "out")
    content = json.loads((tmp_path / "out" / "frames.json").read_text())
    (tmp_path / "frames.json").write_text(json.dumps(content))
    assert len(read_record(tmp_path)) == 1
    outside = content["videos"][0] | {"names": ["../../x.jpg"], "time_s": [0]}
    for wrong in ({"schema_version": 99}, {"videos": [outside]}):
        (tmp_path / "frames.json").write_text(json.dumps(content | wrong))
        assert read_record(tmp_path) == ()


@pytest.mark.parametrize("other", [VideoConfig(frames=3), VideoConfig(fps=1), VideoConfig(step=0.5)])
def test_frames_of_other_settings_are_chosen_anew(video: Path, tmp_path: Path, other: VideoConfig) -> None:
    (first,), (second,) = make(video, tmp_path), make(video, tmp_path, other)
    assert len(second.names) < len(first.names) and make(video, tmp_path, other) == (second,)


def test_other_settings_leave_nothing_of_the_former_choice(video: Path, tmp_path: Path) -> None:
    make(video, tmp_path)
    (tmp_path / "walk" / "mine.txt").write_text("mine")
    (made,) = make(video, tmp_path, VideoConfig(frames=3))
    assert len(made.names) == 3
    assert jpegs(tmp_path) == [f"walk/{name}" for name in made.names]
    assert (tmp_path / "walk" / "mine.txt").exists()


def test_an_interruption_leaves_nothing(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def stop(path: Path, content: bytes) -> None:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    with monkeypatch.context() as patched:
        patched.setattr(video_frames, "write_atomic", stop)
        with pytest.raises(KeyboardInterrupt):
            make(video, tmp_path / "out")
    assert len(written) == 3 and jpegs(tmp_path / "out") == [] and not (tmp_path / "out" / "frames.json").exists()
    make(video, tmp_path / "out")
    assert len(jpegs(tmp_path / "out")) > 5


def test_what_somebody_else_wrote_stays(video: Path, tmp_path: Path) -> None:
    (made,) = make(video, tmp_path / "first")
    (tmp_path / "out" / "frames" / "walk").mkdir(parents=True)
    (tmp_path / "out" / "frames" / "walk" / made.names[0]).write_text("mine")
    with pytest.raises(StorageError, match="was not written by this program"):
        make(video, tmp_path / "out", inner="frames")
    assert (tmp_path / "out" / "frames" / "walk" / made.names[0]).read_text() == "mine"


def test_each_video_has_a_folder_and_a_camera(video: Path, tmp_path: Path) -> None:
    other = write_video(tmp_path / "other" / "Walk.mp4", panned(np.linspace(480, 0, 61)))
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(video.read_bytes())
    said = Said()
    made = make([video, other, copy], tmp_path / "out", said=said)
    assert [entry.folder for entry in made] == ["walk", f"Walk-{made[1].digest[:6]}"], (
        "one name where case does not count"
    )
    assert any("skipped copy.mp4: the same file as walk.mp4" in line for line in said.lines)
    images = load_image_set(tmp_path / "out")
    assert images.num_cameras == 2
    shown = [name.startswith("walk/") for name in images.names]
    assert len(set(zip(shown, images.camera_index.tolist(), strict=True))) == 2
    with pytest.raises(InputError, match="listed more than once"):
        make([video, video], tmp_path / "out")


def test_videos_that_cannot_be_used_are_named(video: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"bad" * 100)
    said = Said()
    (made,) = make([tmp_path / "bad.mp4", video], tmp_path / "out", said=said)
    assert made.video == "walk.mp4" and said.lines[0].startswith("skipped bad.mp4: cannot read ")
    with pytest.raises(InputError, match=r"cannot read .*bad\.mp4"):
        make(tmp_path / "bad.mp4", tmp_path / "new")
    with pytest.raises(InputError, match="none of the 2 videos can be used"):
        make([tmp_path / "bad.mp4", tmp_path / "none.mp4"], tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_cut_file_is_used_as_far_as_it_goes(video: Path, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", panned(np.linspace(0, 480, 121)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    said = Said()
    (made,) = make(path, tmp_path / "out", said=said)
    assert 3 <= len(made.names) < 7
    assert any("a.mkv ends after" in line and "of 4.0 s" in line for line in said.lines)


def test_damage_is_warned_of(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", panned(np.linspace(0, 240, 60)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 3000] = bytes(3000)
    path.write_bytes(content)
    said = Said()
    (made,) = make(path, tmp_path / "out", said=said)
    assert made.damaged > 0
    assert f"a.mkv: {made.damaged} damaged packets or frames were passed over" in said.lines


def test_too_few_frames_for_the_way_are_warned_of(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", panned(np.linspace(0, 480, 61)))
    said = Said()
    make(path, tmp_path / "out", VideoConfig(frames=4), said=said)
    assert any("at most 4 frames each is" in line and "allow more frames" in line for line in said.lines)


def test_fast_videos_are_measured_at_a_usual_rate(tmp_path: Path) -> None:
    times = np.arange(120) / 120
    path = write_video(tmp_path / "a.mkv", panned(np.linspace(0, 240, 120)), times)
    (made,) = make(path, tmp_path / "out")
    assert made.decoded == 120 and 30 <= made.measured <= 40


@pytest.mark.parametrize("times_s", [np.arange(5) / 30, np.arange(61) / 15], ids=["fewer frames", "other times"])
def test_a_video_that_changes_between_the_passes_is_noticed(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times_s: np.ndarray
) -> None:
    path = tmp_path / "walk.mp4"
    path.write_bytes(video.read_bytes())
    chosen = video_frames.choose

    def change(*arguments):
        write_video(path, panned(range(len(times_s))), times_s)
        return chosen(*arguments)

    monkeypatch.setattr(video_frames, "choose", change)
    with pytest.raises(InputError, match=r"walk\.mp4 has changed since it was first read"):
        make(path, tmp_path / "out")
    assert jpegs(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("name", "folder"),
    [("a: b?.mp4", "a_ b_"), ("Ünï (1).mp4", "Ünï (1)"), ("...mp4", "video"), ("x" * 150 + ".mp4", "x" * 100)],
)
def test_any_name_will_do(video: Path, tmp_path: Path, name: str, folder: str) -> None:
    path = tmp_path / name
    path.write_bytes(video.read_bytes())
    (made,) = make(path, tmp_path / "out", VideoConfig(frames=2))
    assert made.folder == folder and load_image_set(tmp_path / "out").num_images == 2


def test_a_name_of_other_bytes_will_do(video: Path, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"walk\xff\x1b.mp4")
    path.write_bytes(video.read_bytes())
    (made,) = make(path, tmp_path / "out", VideoConfig(frames=2))
    assert made.folder == "walk__" and made.video.isprintable()
    assert load_image_set(tmp_path / "out").num_images == 2
    assert make(path, tmp_path / "out", VideoConfig(frames=2)) == (made,)
