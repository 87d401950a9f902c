"""Videos as streams of frames: times, rotation, damage."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from anchorsfm.scene.errors import InputError
from anchorsfm.video.decoding import VideoStream
from anchorsfm.video.sources import is_video, split
from video_files import panned, write_audio, write_video


def strips(count: int = 3) -> list[np.ndarray]:
    """A frame with a red strip at the top and a green one at the left."""
    frame = np.zeros((64, 96, 3), np.uint8)
    frame[:20], frame[:, :10] = (250, 40, 40), (20, 200, 30)
    return [frame] * count


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def colour(rgb: np.ndarray, side: str) -> str:
    height, width = rgb.shape[:2]
    y, x = {"top": (3, width // 2), "bottom": (-4, width // 2), "left": (height // 2, 3), "right": (height // 2, -4)}[
        side
    ]
    red, green, _ = (int(value) for value in rgb[y, x])
    return "red" if red > 180 > green else "green" if green > 150 > red else "black"


@pytest.mark.parametrize(
    ("clockwise", "sides"),
    [(0, "top left"), (90, "right top"), (180, "bottom right"), (270, "left bottom")],
)
def test_recorded_rotation_is_applied(tmp_path: Path, clockwise: int, sides: str) -> None:
    """`rotation` is what players turn a frame by, counter-clockwise."""
    path = write_video(tmp_path / "a.mp4", strips(), rotation=-clockwise)
    frame = next(iter(VideoStream(path)))
    red, green = sides.split()
    rgb = frame.rgb()
    assert (colour(rgb, red), colour(rgb, green)) == ("red", "green")
    assert frame.size_wh == ((64, 96) if clockwise % 180 else (96, 64)) == rgb.shape[1::-1]
    assert frame.small_grey(48).shape == (32, 48)


def test_pixels_become_square(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", strips(), aspect=Fraction(4, 3))
    frame = next(iter(VideoStream(path)))
    assert frame.size_wh == (128, 64) and frame.rgb().shape == (64, 128, 3)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_times_are_those_of_the_frames(tmp_path: Path, name: str) -> None:
    times = [0.5, 0.53, 0.6, 1.9, 2.0, 2.4]
    path = write_video(tmp_path / name, panned(range(0, 12, 2)), times)
    stream = VideoStream(path)
    found = [(frame.number, frame.time_s) for frame in stream]
    assert [number for number, _ in found] == list(range(6))
    assert [time_s for _, time_s in found] == pytest.approx([t - 0.5 for t in times], abs=0.0011)
    assert stream.damaged == 0


def test_what_the_camera_wrote_is_known(tmp_path: Path) -> None:
    tags = {"creation_time": "2024-05-06T07:08:09.000000Z", "comment": "x"}
    info = VideoStream(write_video(tmp_path / "a.mp4", strips(), tags=tags)).info
    assert info.taken is not None and info.taken.isoformat() == "2024-05-06T07:08:09+00:00"
    assert (info.expected_frames, info.make) == (3, "")
    unset = write_video(tmp_path / "b.mp4", strips(), tags={"creation_time": "1970-01-01T00:00:00Z"})
    assert VideoStream(unset).info.taken is None


@pytest.mark.parametrize("name", ["a.mkv", "a.ts", "a.mp4"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_what_is_left_of_a_cut_file_is_used(tmp_path: Path, name: str, share: float) -> None:
    options = {"movflags": "frag_keyframe+empty_moov"} if name.endswith("mp4") else None
    path = write_video(tmp_path / name, panned(range(60)), options=options)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    count = sum(1 for _ in VideoStream(path))
    assert 40 * share < count < 60


def test_damage_in_the_middle_costs_the_frames_that_it_touches(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", panned(range(60)))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = bytes(3000)
    path.write_bytes(content)
    stream = VideoStream(path)
    times = [frame.time_s for frame in stream]
    assert 25 < len(times) < 60 and times[-1] > 1.8


def test_what_is_no_video_is_one_line(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mp4", strips()).read_bytes()
    cases = {
        "empty.mp4": (b"", "empty file"),
        "noise.mp4": (np.random.default_rng(0).bytes(3000), "not a video that FFmpeg reads"),
        "cut.mp4": (whole[: len(whole) // 2], "or cut short"),
    }
    for name, (content, said) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=said) as raised:
            VideoStream(tmp_path / name)
        assert name in str(raised.value) and "\n" not in str(raised.value)
    for path, said in (
        (write_audio(tmp_path / "sound.m4a"), "has no video, only audio"),
        (written(tmp_path / "list.mp4", b"ffconcat version 1.0\nfile a.mp4\n"), "a list of other files"),
        (written(tmp_path / "a.jpg", b""), "a photograph, not a video"),
        (tmp_path, "not a regular file"),
        (tmp_path / "none.mp4", "no such file"),
    ):
        with pytest.raises(InputError, match=said):
            VideoStream(path)


def test_without_the_package_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", strips())
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(InputError, match=r"a\.mp4: videos need an extra package: pip install 'anchorsfm\[video\]'"):
        VideoStream(path)


def test_videos_are_told_from_pictures_and_lists(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("a.jpg\n" * 3000 + "ü" * 3000)
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8")
    (tmp_path / "clip").write_bytes(b"\x1aE\xdf\xa3" + bytes(20))
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "folder.mp4").mkdir()
    paths = [tmp_path / name for name in ("list", "photo.jpg", "clip", "text.mp4", "folder.mp4", "none.mov")]
    assert [is_video(path) for path in paths] == [False, False, True, True, False, False]
    assert split(paths[:3]) == (paths[:2], paths[2:3])
