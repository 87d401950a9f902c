"""Videos as streams of frames: times, rotation, damage."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from anchorsfm.scene.errors import InputError
from anchorsfm.video.decoding import VideoStream
from anchorsfm.video.sources import is_video, split
from video_files import TICKS, panned, write_audio, write_streams, write_video


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
    unset = write_video(tmp_path / "b.mp4", strips(), tags={"creation_time": "1971-01-01T00:00:00Z"})
    assert VideoStream(unset).info.taken is None
    local = {"com.apple.quicktime.creationdate": "2024-05-06T09:08:09+0200", "creation_time": "2024-05-06T07:08:10Z"}
    phone = VideoStream(write_video(tmp_path / "c.mkv", strips(), tags=local)).info
    assert phone.taken is not None and phone.taken.isoformat() == "2024-05-06T09:08:09+02:00"


def test_frames_come_in_the_order_in_which_they_are_shown(tmp_path: Path) -> None:
    """Encoders put frames that others are predicted from first."""
    path = write_video(tmp_path / "a.mp4", panned(range(30)), preset="veryfast")
    assert [frame.time_s for frame in VideoStream(path)] == pytest.approx(np.arange(30) / 30, abs=0.0011)


def test_times_rise_and_sizes_stay_where_recordings_were_put_together(tmp_path: Path) -> None:
    first = write_video(tmp_path / "a.ts", panned(range(10))).read_bytes()
    twice = VideoStream(written(tmp_path / "twice.ts", first + first))
    assert [frame.number for frame in twice] == list(range(10))
    other = write_video(tmp_path / "b.ts", panned(range(9), size_wh=(160, 120)), 1 + np.arange(9) / 30).read_bytes()
    both = VideoStream(written(tmp_path / "both.ts", first + other))
    assert [frame.size_wh for frame in both] == [(240, 160)] * 10 and both.damaged == 9


def test_the_largest_video_counts_and_no_cover(tmp_path: Path) -> None:
    path = write_streams(tmp_path / "a.mp4", [(96, 64), (160, 120), (96, 64)], cover_wh=(640, 480))
    assert [frame.size_wh for frame in VideoStream(path)] == [(160, 120)]
    with pytest.raises(InputError, match="has no video, only"):
        VideoStream(write_streams(tmp_path / "song.mp4", [], cover_wh=(640, 480)))


@pytest.mark.parametrize(("height", "red", "green"), [(704, 1.596, -0.813), (720, 1.793, -0.533)])
def test_colours_without_a_name_are_those_of_their_size(tmp_path: Path, height: int, red: float, green: float) -> None:
    """BT.601 for small videos and BT.709 for those of high definition, as players do."""
    stored = np.full((height * 3 // 2, 64), 128, np.uint8)
    stored[:height], stored[-height // 4 :] = 120, 168  # luminance and the share of red
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast", "crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, height, "yuv420p"
        frame = av.VideoFrame.from_ndarray(stored, "yuv420p")
        frame.pts, frame.time_base = 0, TICKS
        container.mux([*stream.encode(frame), *stream.encode()])
    rgb = next(iter(VideoStream(tmp_path / "a.mkv"))).rgb().reshape(-1, 3).mean(axis=0)
    assert rgb[:2] == pytest.approx(1.164 * (120 - 16) + 40 * np.array([red, green]), abs=2.5)


def test_a_name_that_looks_like_a_protocol_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "tape:1.mp4", strips())
    monkeypatch.chdir(tmp_path)
    assert sum(1 for _ in VideoStream(Path("tape:1.mp4"))) == 3


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
    (tmp_path / "list").write_text("x" + "ü" * 3000)  # of which a beginning may end within a letter
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8")
    (tmp_path / "clip").write_bytes(b"\x1aE\xdf\xa3" + bytes(20))
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "folder.mp4").mkdir()
    paths = [tmp_path / name for name in ("list", "photo.jpg", "clip", "text.mp4", "folder.mp4", "none.mov")]
    assert [is_video(path) for path in paths] == [False, False, True, True, False, False]
    assert split(paths[:3]) == (paths[:2], paths[2:3])
