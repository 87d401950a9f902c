"""Small videos with known content."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

TICKS = Fraction(1, 1000)


def texture(width: int = 900, height: int = 400, seed: int = 0) -> np.ndarray:
    """A picture with structure of every size."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for scale in (2, 4, 8, 16, 32):
        small = rng.standard_normal((height // scale + 1, width // scale + 1, 3)).astype(np.float32)
        total += scale**0.5 * cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(128 + 14 * total, 0, 255).astype(np.uint8)


def panned(offsets_px: Sequence[float], blur_px: Sequence[int] | None = None, size_wh: tuple[int, int] = (240, 160)):
    """Views of the texture, each shifted to the right by an offset, blurred along the way by as much as is said."""
    picture, (width, height) = texture(int(max(offsets_px)) + size_wh[0] + 40), size_wh
    for number, offset in enumerate(offsets_px):
        shift = np.array([[1, 0, -offset - 20], [0, 1, -20]], np.float32)
        view = cv2.warpAffine(picture, shift, (width, height), flags=cv2.INTER_CUBIC)
        length = 0 if blur_px is None else blur_px[number]
        yield cv2.blur(view, (length, 1)) if length > 1 else view


def write_video(
    path: Path,
    frames: Any,
    times_s: Sequence[float] | None = None,
    *,
    codec: str = "libx264",
    preset: str = "ultrafast",
    rotation: int | None = None,
    aspect: Fraction | None = None,
    tags: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode RGB frames, shown at the given times (default: 30 a second)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options or {}) as container:
        container.metadata.update(tags or {})
        stream: Any = None
        for number, rgb in enumerate(frames):
            if stream is None:
                stream = container.add_stream(codec, rate=30)
                stream.height, stream.width = rgb.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.codec_context.time_base = TICKS
                stream.codec_context.gop_size = 8
                if codec == "libx264":
                    stream.options = {"preset": preset, "crf": "12"}
                if rotation is not None:
                    stream.set_display_rotation(rotation)
                if aspect is not None:
                    stream.codec_context.sample_aspect_ratio = aspect
            frame = av.VideoFrame.from_ndarray(rgb, "rgb24")
            frame.pts, frame.time_base = round(1000 * (number / 30 if times_s is None else times_s[number])), TICKS
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_streams(path: Path, sizes_wh: Sequence[tuple[int, int]], cover_wh: tuple[int, int] | None = None) -> Path:
    """Black videos of several sizes in one file, and a picture of its cover."""
    with av.open(str(path), "w") as container:
        streams: list[Any] = [container.add_stream("libx264", rate=30) for _ in sizes_wh]
        if cover_wh is not None:
            streams.append(container.add_stream("mjpeg", rate=1))
            streams[-1].disposition = av.stream.Disposition.attached_pic
        packets = []
        for stream, (width, height) in zip(streams, [*sizes_wh, *([cover_wh] if cover_wh else [])], strict=True):
            stream.width, stream.height = width, height
            stream.pix_fmt = "yuv420p" if stream.name == "h264" else "yuvj420p"
            frame = av.VideoFrame.from_ndarray(np.zeros((height, width, 3), np.uint8), "rgb24")
            frame.pts = 0
            packets += [*stream.encode(frame), *stream.encode()]
        container.mux(packets)
    return path


def write_audio(path: Path) -> Path:
    """A file with sound only."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=44100)
        for number in range(4):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.rate, frame.pts = 44100, 1024 * number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
