"""`anchorsfm index`: any COLMAP model made ready for `anchorsfm localise`."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from anchorsfm.scene.settings import Range, Settings
from anchorsfm.terminal import Terminal, show_progress


@dataclass(frozen=True, kw_only=True)
class Index(Settings):
    """Make any COLMAP model ready for `anchorsfm localise`: find the descriptors of its points in its photographs.

    Models that `anchorsfm reconstruct` makes of SIFT keypoints are ready. Example:

    anchorsfm index project/sparse/0 --images project/images
    """

    model: tyro.conf.Positional[Path]
    """A folder with a COLMAP model, or an output folder (its largest model counts)."""
    images: Path | None = None
    """Folder that image names are relative to; known from report.json where the photographs have not moved."""
    max_image_size: Annotated[int, Range(64, 65536)] = 1024
    """Long side in pixels at which photographs are looked at, those of the model and new ones."""
    quiet: bool = False
    """No progress display, only warnings and the summary."""

    def run(self, console: Terminal) -> None:
        from anchorsfm.localisation.preparation import prepare

        with show_progress(console, quiet=self.quiet) as progress:
            made = prepare(self.model, self.images, max_image_size=self.max_image_size, progress=progress)
        console.print(f"descriptors of {made.num_points} points in {made.num_views} images: {made.path}")
        console.print(f"next: anchorsfm localise PHOTOS --model {shlex.quote(str(self.model))} --output DIR")
