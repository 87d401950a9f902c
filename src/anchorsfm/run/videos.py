"""Before the first stage: frames of the videos among what a run is given."""

from pathlib import Path

from anchorsfm.io.listing import frames_not_taken, not_taken
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.folder import RunFolder
from anchorsfm.scene.progress import Progress
from anchorsfm.video.frames import frame_files, make_frames
from anchorsfm.video.record import VideoFrames
from anchorsfm.video.sources import split


def with_frames(
    source: Path | list[Path], config: PipelineConfig, folder: RunFolder, progress: Progress
) -> tuple[Path | list[Path], tuple[VideoFrames, ...]]:
    """Photographs and the frames of videos in the place of videos, which are written to OUT/frames; and their choice.

    What in folders is not taken is named in warnings.

    Raises:
        InputError: none of the videos can be used, or a frame would lie where no photograph can be named from.
        StorageError: the frames cannot be written.
    """
    sources = [source] if isinstance(source, Path) else source
    for passed_over in (not_taken(sources), frames_not_taken(sources)):
        if passed_over is not None:
            progress.warn(passed_over)
    photographs, videos = split(sources)
    if not videos:
        return source, ()
    chosen = make_frames(videos, config.video, folder.frames, folder.store, progress, keep_others=True)
    frames = frame_files(folder.frames, chosen)
    folder.use_frames(frames)
    return [*photographs, *frames], chosen
