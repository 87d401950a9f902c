"""A video as a stream of frames, through PyAV: whatever FFmpeg reads, one frame in memory at a time.

Frames are upright (the rotation that the container records is applied) and have square pixels. Times are those at which
frames are shown, in seconds from the first one: rates vary, so frames are never counted to tell the time. What is
damaged is passed over and counted; a file that was cut short gives the frames before the cut.
"""

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from anchorsfm.io.listing import EXTENSIONS
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.printable import printable

if TYPE_CHECKING:
    import av

_NO_AV = "videos need an extra package: pip install 'anchorsfm[video]'"
_NUM_THREADS = 2
"""Of the decoder: each keeps frames of its own in memory."""
_MOST_FAILURES = 1000
"""Packets in succession that cannot be read or decoded, after which the rest of the file is given up."""
_HD_HEIGHT = 720
"""From which on videos that do not name their colours have those of high definition."""
_MIN_SIDE = 16
_LISTS = ("concat", "hls", "dash")
"""What FFmpeg calls texts that name other files, whose content our digests would not know."""
_OLDEST_YEAR = 1990
"""Cameras whose clock was never set write 1904 or 1970."""


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a container says about its video."""

    expected_frames: int | None
    """None: it does not say."""
    duration_s: float | None
    taken: datetime | None
    """When the first frame was taken, by the camera's clock."""
    make: str
    model: str
    """Of the camera; empty where it is not said."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One decoded frame, valid until the next one is asked for."""

    number: int
    """Counted from 0, damaged ones left out."""
    time_s: float
    """From the first frame."""
    size_wh: tuple[int, int]
    """Upright, with square pixels."""
    _raw: "av.VideoFrame"
    _quarter_turns: int

    def small_grey(self, long_side: int) -> UInt8[np.ndarray, "h w"]:
        """Luminance, averaged down to at most this long side; as stored, not turned upright."""
        scale = min(1.0, long_side / max(self._raw.width, self._raw.height))
        width, height = (max(round(scale * side), 1) for side in (self._raw.width, self._raw.height))
        return self._raw.reformat(width, height, "gray", interpolation="AREA").to_ndarray()

    def rgb(self) -> UInt8[np.ndarray, "h w 3"]:
        """Upright pixels at full size."""
        raw, (width, height) = self._raw, self.size_wh
        if self._quarter_turns % 2:
            width, height = height, width
        pixels = raw.reformat(width, height, "rgb24", _colours(raw), interpolation="BICUBIC").to_ndarray()
        return np.ascontiguousarray(np.rot90(pixels, self._quarter_turns))


class VideoStream:
    """The frames of a video file, in order; iterate once. `damaged` is known when it has ended."""

    def __init__(self, path: Path) -> None:
        """Raises InputError if the file has no video that FFmpeg can open."""
        self.path = path
        self.damaged = 0
        """Packets and frames that could not be used."""
        self._container, self._stream = _open(path)
        self.info = _info(self._container, self._stream)

    def close(self) -> None:
        """Only needed where its frames are not asked for."""
        self._container.close()

    def __iter__(self) -> Iterator[Frame]:
        with closing(self._container):
            yield from self._frames()

    def _frames(self) -> Iterator[Frame]:
        first_s = last_s = math.nan
        size_wh: tuple[int, int] | None = None
        number = 0
        for raw in self._decoded():
            time_s = _time_s(raw, self._stream)
            upright_wh = _upright_wh(raw, self._stream)
            if raw.is_corrupt or (size_wh is not None and upright_wh != size_wh) or min(upright_wh) < _MIN_SIDE:
                self.damaged += 1
                continue
            if number == 0:
                first_s, size_wh = (0.0 if math.isnan(time_s) else time_s), upright_wh
            elif math.isnan(time_s):
                time_s = last_s + float(1 / (self._stream.average_rate or 30))
            if not math.isnan(last_s) and time_s <= last_s:  # shown at no time of its own
                continue
            last_s = first_s if number == 0 else time_s
            yield Frame(
                number=number,
                time_s=last_s - first_s,
                size_wh=upright_wh,
                _raw=raw,
                _quarter_turns=_quarter_turns(raw),
            )
            number += 1

    def _decoded(self) -> Iterator["av.VideoFrame"]:
        """Every frame that the decoder gives; what it refuses is passed over."""
        import av

        failures = 0
        while failures < _MOST_FAILURES:
            try:
                for packet in self._container.demux(self._stream):
                    try:
                        frames = packet.decode()
                        failures = 0 if frames else failures
                    except (av.FFmpegError, ValueError):
                        frames = []
                        failures += 1
                        self.damaged += 1
                    yield from frames
                    if failures >= _MOST_FAILURES:
                        return
                return
            except av.EOFError:
                return
            except (av.FFmpegError, ValueError):
                failures += 1
                self.damaged += 1


def _open(path: Path) -> "tuple[av.container.InputContainer, av.VideoStream]":
    try:
        import av
    except ImportError as error:
        raise InputError(f"{path}: {_NO_AV}") from error
    if not path.is_file():  # a pipe would wait for a writer
        raise InputError(f"{path}: {'not a regular file' if path.exists() else 'no such file'}")
    if path.suffix.lower() in EXTENSIONS:
        raise InputError(f"{path} is a photograph, not a video")
    if path.stat().st_size == 0:
        raise InputError(f"cannot read {path}: empty file")
    try:
        container = av.open(f"file:{path}", metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {_reason(error)}") from error
    if container.format.name in _LISTS:
        container.close()
        raise InputError(f"{path} is a list of other files, not a video: name those")
    streams = [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]
    if not streams:
        kinds = sorted({s.type for s in container.streams})
        container.close()
        raise InputError(f"{path} has no video, only {' and '.join(kinds) or 'no stream that FFmpeg knows'}")
    stream = max(streams, key=lambda s: s.width * s.height)
    if stream.codec_context is None:
        container.close()
        raise InputError(f"cannot read {path}: this FFmpeg has no decoder for its video")
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = _NUM_THREADS
    return container, stream


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    if "nvalid data" in text or "End of file" in text:
        return "not a video that FFmpeg reads, or cut short or damaged where it says what it holds"
    return printable(text.splitlines()[0]) if text else type(error).__name__


def _info(container: Any, stream: Any) -> VideoInfo:
    tags = {key.lower(): value for key, value in {**container.metadata, **stream.metadata}.items()}
    duration = stream.duration * stream.time_base if stream.duration and stream.time_base else None
    if duration is None and container.duration:
        duration = Fraction(container.duration, 1_000_000)
    expected = stream.frames or None
    if expected is None and duration is not None and stream.average_rate:
        expected = round(duration * stream.average_rate)
    return VideoInfo(
        expected_frames=expected if expected is None or expected > 0 else None,
        duration_s=None if duration is None or duration <= 0 else float(duration),
        taken=_date(tags.get("com.apple.quicktime.creationdate") or tags.get("creation_time") or tags.get("date")),
        make=_text(tags.get("com.apple.quicktime.make") or tags.get("make")),
        model=_text(tags.get("com.apple.quicktime.model") or tags.get("model")),
    )


def _date(text: str | None) -> datetime | None:
    """A date of the container; None if it is none, or that of a clock that was never set."""
    try:
        date = datetime.fromisoformat((text or "").strip())
    except ValueError:
        return None
    date = date.replace(tzinfo=UTC) if date.tzinfo is None else date
    return date if date.year >= _OLDEST_YEAR else None


def _text(value: str | None) -> str:
    return printable((value or "").strip())[:64]


def _time_s(raw: "av.VideoFrame", stream: Any) -> float:
    """When a frame is shown, by the clock of the stream; NaN if nothing says."""
    stamp = raw.pts if raw.pts is not None else raw.dts
    base = raw.time_base or stream.time_base
    return math.nan if stamp is None or base is None else float(stamp * base)


def _quarter_turns(raw: "av.VideoFrame") -> int:
    """Counter-clockwise quarter turns that make a frame upright."""
    return round(raw.rotation / 90) % 4


def _upright_wh(raw: "av.VideoFrame", stream: Any) -> tuple[int, int]:
    aspect = stream.sample_aspect_ratio or 1
    aspect = aspect if 0.2 < aspect < 5 else 1
    width, height = max(round(raw.width * aspect), 1), raw.height
    return (height, width) if _quarter_turns(raw) % 2 else (width, height)


def _colours(raw: "av.VideoFrame") -> str | None:
    """The colours of a video that does not name them, as players guess; None: it does."""
    unspecified = 2
    if int(raw.colorspace) != unspecified:
        return None
    return "ITU709" if raw.height >= _HD_HEIGHT else "ITU601"
