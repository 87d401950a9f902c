"""`anchorsfm report`: the page of a finished run, made again."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from anchorsfm.scene.settings import Settings
from anchorsfm.terminal import Terminal, show_progress


@dataclass(frozen=True, kw_only=True)
class Report(Settings):
    """Make report.html of a finished run again, from what lies in its output folder and the photographs."""

    output: tyro.conf.Positional[Path]
    """An output folder of `anchorsfm reconstruct`."""
    images: Path | None = None
    """Folder that image names are relative to; known from report.json where the photographs have not moved."""
    quiet: bool = False
    """No progress display, only warnings and the path."""

    def run(self, console: Terminal) -> None:
        from anchorsfm.report.folder import make_page

        with show_progress(console, quiet=self.quiet) as progress:
            page = make_page(self.output, photos=self.images, progress=progress)
        console.print(f"report: {page}")
