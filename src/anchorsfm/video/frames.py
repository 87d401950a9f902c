"""From videos to files: frames are chosen in one pass over a video and written in a second one, once.

    <folder>/frames.json                              how they were chosen
    <folder>/<video>/<video>_<seconds>.jpg            one frame, named by when it is shown

New frames appear as a whole or not at all, and those that are there already, of the same video and with the same
settings, are used again.
"""

import hashlib
import io
import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from anchorsfm.io.exif import frame_exif
from anchorsfm.io.layout import FRAMES_RECORD
from anchorsfm.io.names import plain_stem
from anchorsfm.io.owned import FolderPart
from anchorsfm.io.store import Store, digest, write_atomic
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.printable import printable
from anchorsfm.scene.progress import Progress
from anchorsfm.video.choice import Choice, Fate, choose
from anchorsfm.video.config import VideoConfig
from anchorsfm.video.decoding import Frame, VideoInfo, VideoStream
from anchorsfm.video.measure import LONG_SIDE, FrameTrack, Odometer, sharpness
from anchorsfm.video.record import VideoFrames, read_record, record_text

_SHORTEST_INTERVAL_S = 0.0249
"""Frames that follow sooner than this are not measured: of 60 a second every other one is."""
_MEASURES = 2
"""Raised when frames are measured in another way."""
_JPEG_QUALITY = 95
_CUT_SHORT = 0.02
"""Share of the duration that must be missing ..."""
_CUT_SHORT_S = 1.0
"""... and seconds, for a video to count as cut short."""
_WIDE_STEP = 0.34
"""Beyond this, neighbours share less than two thirds of the view."""


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """A video after the first pass."""

    info: VideoInfo
    track: FrameTrack
    decoded: int
    damaged: int


def make_frames(
    videos: Sequence[Path],
    config: VideoConfig,
    folder: FolderPart,
    store: Store,
    progress: Progress,
    *,
    keep_others: bool,
) -> tuple[VideoFrames, ...]:
    """Choose and write the frames of videos, unless they are there; those of unusable videos are warned of.

    Args:
        videos: files.
        config: which frames.
        folder: where they go.
        store: keeps what was measured, for another choice.
        progress: receives stages, notes and warnings.
        keep_others: leave frames in the folder that are not of this choice.

    Raises:
        InputError: no video can be used, or one changes meanwhile.
        StorageError: the folder cannot be written, or something of somebody else is in the way.
    """
    _require_each_once(videos)
    written = folder.owned.files()
    whole = set(written) - set(folder.owned.changed([folder.inner]))
    there = read_record(folder.root) if folder.name(FRAMES_RECORD) in whole else ()
    made: list[VideoFrames] = []
    new: list[tuple[Path, VideoInfo, list[int], VideoFrames]] = []
    for path, key in _with_digests(videos, progress):
        reusable = [video for video in there if video.is_of(key, config) and _files(folder, video) <= whole]
        if reusable:
            made.append(replace(reusable[0], video=printable(path.name)))
        else:
            try:
                measured = _measured(path, key, store, progress)
            except InputError as error:
                if len(videos) == 1:
                    raise
                progress.warn(f"skipped {path.name}: {error}")
                continue
            choice = choose(measured.track, config)
            name = _folder_name(path, key, [*there, *made])
            made.append(_described(path, key, name, measured, choice, config))
            new.append((path, measured.info, measured.track.number[choice.rows].tolist(), made[-1]))
            _warn_of(made[-1], measured.info, progress)
        progress.note(made[-1].summary())
    if not made:
        raise InputError(f"none of the {len(videos)} videos can be used; see the warnings")
    digests = {video.digest for video in made}
    others = [video for video in there if video.digest not in digests] if keep_others else []
    if not new and (*made, *others) == there:
        return tuple(made)
    with folder.owned.publication() as publication:
        for path, info, numbers, video in new:
            missing = [
                (number, time_s, name)
                for number, time_s, name in zip(numbers, video.time_s, video.names, strict=True)
                if folder.name(video.folder, name) not in whole
            ]
            _write(path, info, video, missing, publication.path / folder.name(video.folder), progress)
        write_atomic(publication.path / folder.name(FRAMES_RECORD), record_text([*made, *others]))
        used = set().union(*(_files(folder, video) for video in made))
        publication.publish([folder.inner], kept=written if keep_others else used)
    return tuple(made)


def frame_files(folder: FolderPart, videos: Iterable[VideoFrames]) -> list[Path]:
    """The frames of videos, in order."""
    return [folder.root / video.folder / name for video in videos for name in video.names]


def _files(folder: FolderPart, video: VideoFrames) -> set[str]:
    """The frames of a video, as its owner lists them."""
    return {folder.name(video.folder, name) for name in video.names}


def _require_each_once(videos: Sequence[Path]) -> None:
    if not videos:
        raise InputError("there are no videos: name some")
    seen: set[Path] = set()
    for path in videos:
        if path.resolve() in seen:
            raise InputError(f"{path} is listed more than once")
        seen.add(path.resolve())


def _with_digests(videos: Sequence[Path], progress: Progress) -> Iterable[tuple[Path, str]]:
    """Every video with its SHA-256; copies of an earlier one are warned of and left out."""
    seen: dict[str, Path] = {}
    for path in videos:
        try:
            VideoStream(path).close()  # what is no video is said before anything is read of it
            with path.open("rb") as file:
                key = hashlib.file_digest(file, "sha256").hexdigest()
        except (InputError, OSError) as error:
            if len(videos) == 1:
                raise
            progress.warn(f"skipped {path.name}: {error}")
            continue
        if key in seen:
            progress.warn(f"skipped {path.name}: the same file as {seen[key].name}")
            continue
        seen[key] = path
        yield path, key


def _measured(path: Path, key: str, store: Store, progress: Progress) -> _Measured:
    """The first pass: what the choice needs to know of every frame."""
    stream = VideoStream(path)
    entry = digest("frames", key, _MEASURES, LONG_SIDE)
    arrays = store.load("video", entry)
    if arrays is None:
        arrays = _pass(stream, progress)
        store.save("video", entry, arrays)
    else:
        stream.close()
    if not len(arrays["number"]):
        raise InputError(f"cannot read {path}: none of its frames can be decoded")
    track = FrameTrack(**{name: arrays[name] for name in ("number", "time_s", "sharpness", "way")})
    decoded, damaged = arrays["decoded_damaged"].tolist()
    return _Measured(info=stream.info, track=track, decoded=decoded, damaged=damaged)


def _pass(stream: VideoStream, progress: Progress) -> dict[str, np.ndarray]:
    odometer = Odometer()
    rows = array("d")  # number, time, sharpness of one after the other: an hour has a hundred thousand
    decoded, last_s = 0, -math.inf
    with progress.stage(f"choosing frames of {stream.path.name}", stream.info.expected_frames) as advance:
        for frame in stream:
            decoded += 1
            advance(1)
            if frame.time_s - last_s < _SHORTEST_INTERVAL_S:
                continue
            last_s = frame.time_s
            grey = frame.small_grey(LONG_SIDE)
            rows.extend((frame.number, frame.time_s, sharpness(grey)))
            odometer.add(grey)
    number, time_s, sharp = np.array(rows).reshape(-1, 3).T.copy()
    return {
        "number": number.astype(np.int64),
        "time_s": time_s,
        "sharpness": sharp,
        "way": odometer.way,
        "decoded_damaged": np.array([decoded, stream.damaged]),
    }


def _folder_name(path: Path, key: str, others: Iterable[VideoFrames]) -> str:
    """The folder of a video's frames: its name, unless another video has it."""
    own = next((video.folder for video in others if video.digest == key), None)
    if own is not None:
        return own
    stem = plain_stem(path.name, "video")
    return f"{stem}-{key[:6]}" if any(v.folder.casefold() == stem.casefold() for v in others) else stem


def _described(
    path: Path, key: str, folder: str, measured: _Measured, choice: Choice, config: VideoConfig
) -> VideoFrames:
    track = measured.track
    time_s = [float(f"{value:.3f}") for value in track.time_s[choice.rows]]
    digits = max(5, len(str(int(track.time_s[-1]))))
    return VideoFrames(
        video=printable(path.name),
        digest=key,
        folder=folder,
        max_frames=config.frames,
        fps=config.fps,
        wanted_step=config.step,
        duration_s=round(float(track.time_s[-1]), 3),
        decoded=measured.decoded,
        measured=len(track.time_s),
        blurred=choice.count(Fate.BLURRED),
        still=choice.count(Fate.STILL),
        between=choice.count(Fate.BETWEEN),
        damaged=measured.damaged,
        step=round(choice.step, 4),
        names=tuple(f"{folder}_{value:0{digits + 4}.3f}.jpg" for value in time_s),
        time_s=tuple(time_s),
    )


def _warn_of(video: VideoFrames, info: VideoInfo, progress: Progress) -> None:
    if video.damaged:
        progress.warn(f"{video.video}: {video.damaged} damaged packets or frames were passed over")
    missing_s = (info.duration_s or 0.0) - video.duration_s
    if missing_s > max(_CUT_SHORT_S, _CUT_SHORT * video.duration_s):
        progress.warn(
            f"{video.video} ends after {video.duration_s:.1f} of {info.duration_s:.1f} s: what there is of it is used"
        )
    if video.step > _WIDE_STEP:
        progress.warn(
            f"{video.video}: with at most {video.max_frames} frames each is {100 * video.step:.0f} % of the view away "
            "from the next, which may be too far to join them: allow more frames, or use a part of the video"
        )


def _write(
    path: Path,
    info: VideoInfo,
    video: VideoFrames,
    wanted: Sequence[tuple[int, float, str]],
    folder: Path,
    progress: Progress,
) -> None:
    """The second pass: `wanted` frames (number, time, name) as JPEG files."""
    if not wanted:
        return
    left = list(reversed(wanted))
    with progress.stage(f"writing frames of {path.name}", len(wanted)) as advance:
        for frame in VideoStream(path):
            if frame.number == left[-1][0]:
                _, time_s, name = left.pop()
                if abs(frame.time_s - time_s) > 0.001:
                    break
                write_atomic(folder / name, _jpeg(frame.rgb(), _exif(frame, info, video)))
                advance(1)
                if not left:
                    return
    raise InputError(f"{path} has changed since it was first read: run the same command again")


def _exif(frame: Frame, info: VideoInfo, video: VideoFrames) -> Image.Exif:
    taken = None if info.taken is None else info.taken + timedelta(seconds=frame.time_s)
    return frame_exif(f"{video.video} {video.digest[:16]}", taken, info.make, info.model)


def _jpeg(rgb: UInt8[np.ndarray, "h w 3"], exif: Image.Exif) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=_JPEG_QUALITY, exif=exif)
    return buffer.getvalue()
