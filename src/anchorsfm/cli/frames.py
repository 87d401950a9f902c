"""`anchorsfm frames`: frames of videos as photographs."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from anchorsfm.scene.settings import Settings
from anchorsfm.terminal import Terminal, show_progress
from anchorsfm.video.config import VideoConfig


@dataclass(frozen=True, kw_only=True)
class Frames(Settings):
    """Choose frames of videos by sharpness and movement, and write them as photographs.

    `anchorsfm reconstruct` takes videos itself; this is for a look at the frames, or for other programs.
    """

    videos: tyro.conf.Positional[tuple[Path, ...]]
    """Video files: whatever FFmpeg reads."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder for the frames, a folder in it for each video: new, empty, or of an earlier `anchorsfm frames`."""
    video: VideoConfig = field(default_factory=VideoConfig)
    """Which frames are taken."""
    quiet: bool = False
    """No progress display, only warnings and the summary."""

    def run(self, console: Terminal) -> None:
        from anchorsfm.io.owned import FolderPart, OwnedFolder, holds_results
        from anchorsfm.io.store import Store
        from anchorsfm.scene.errors import StorageError
        from anchorsfm.video.frames import make_frames

        folder = OwnedFolder(self.output)
        folder.require_ours()
        if holds_results(self.output):
            raise StorageError(f"{self.output} holds results of another command: choose another --output")
        folder.require_writable()
        folder.complete()
        with show_progress(console, quiet=self.quiet) as progress:
            chosen = make_frames(
                self.videos, self.video, FolderPart(owned=folder), Store(None), progress, keep_others=False
            )
        for video in chosen:
            console.print(f"{video.summary()}: {self.output / video.folder}")
