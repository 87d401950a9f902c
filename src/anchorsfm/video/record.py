"""What is known of the frames of a video once they are chosen, and the file beside them that says it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from anchorsfm.io.json_files import read_own
from anchorsfm.io.layout import FRAMES_RECORD
from anchorsfm.io.names import is_inside
from anchorsfm.io.store import to_json
from anchorsfm.video.config import VideoConfig

SCHEMA_VERSION = 1
"""Raised when other frames would be chosen with the same settings, or when a key changes its meaning."""


@dataclass(frozen=True, kw_only=True)
class VideoFrames:
    """The frames that were chosen of a video, and why not the others."""

    video: str
    """Name of the file."""
    digest: str
    """SHA-256 of its bytes."""
    folder: str
    """Of the frames, relative to that of all videos."""
    max_frames: int
    fps: float | None
    wanted_step: float
    """Settings they were chosen with."""
    duration_s: float
    """From the first frame to the last one that could be decoded."""
    decoded: int
    """Frames that could be decoded; of fast videos some of them were measured."""
    measured: int
    blurred: int
    still: int
    between: int
    """Measured frames that were not taken: less sharp than one nearby, of moments without movement, close to others."""
    damaged: int
    """Packets and frames that could not be used."""
    step: float
    """How far the view moves from one chosen frame to the next, as a share of the longer side of the picture."""
    names: tuple[str, ...]
    """Of the chosen frames, in order, relative to `folder`."""
    time_s: tuple[float, ...]
    """From the first frame of the video."""

    @staticmethod
    def of(entry: Mapping[str, Any]) -> "VideoFrames":
        """From JSON that has been checked, where whole numbers may stand for others."""
        plain: dict[str, Any] = {field.name: entry[field.name] for field in fields(VideoFrames)}
        numbers = {key: float(plain[key]) for key in ("wanted_step", "duration_s", "step")}
        fps = None if plain["fps"] is None else float(plain["fps"])
        names, time_s = tuple(plain["names"]), tuple(map(float, plain["time_s"]))
        return VideoFrames(**plain | numbers | {"fps": fps, "names": names, "time_s": time_s})

    def is_of(self, digest: str, config: VideoConfig) -> bool:
        """Whether the same frames would be chosen again."""
        settings = (self.max_frames, self.fps, self.wanted_step)
        return self.digest == digest and settings == (config.frames, config.fps, config.step)

    def summary(self) -> str:
        """One line on what was chosen and why not the rest."""
        others = [
            f"{count} {why}"
            for count, why in (
                (self.blurred, "blurred"),
                (self.still, "of still moments"),
                (self.between, "between them"),
            )
            if count
        ]
        way = f", each {100 * self.step:.2g} % of the view further" if self.step else ""
        rest = f" (not taken: {', '.join(others)})" if others else ""
        return f"{self.video}: {len(self.names)} of {self.decoded} frames in {self.duration_s:.1f} s{way}{rest}"


@dataclass(frozen=True, kw_only=True)
class _Record:
    schema_version: int
    videos: tuple[VideoFrames, ...]


def record_text(videos: Sequence[VideoFrames]) -> str:
    """The content of the record."""
    return to_json(_Record(schema_version=SCHEMA_VERSION, videos=tuple(videos)))


def read_record(folder: Path) -> tuple[VideoFrames, ...]:
    """The videos that the record of a folder names; none if there is no record, or no usable one."""
    content = read_own(folder / FRAMES_RECORD, _Record, SCHEMA_VERSION)
    if content is None:
        return ()
    videos = [VideoFrames.of(entry) for entry in content["videos"]]
    return tuple(
        video
        for video in videos
        if all(map(is_inside, (video.folder, *video.names))) and len(video.names) == len(video.time_s)
    )
