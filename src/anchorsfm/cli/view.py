"""`anchorsfm view`: a finished model in the browser."""

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from anchorsfm import process
from anchorsfm.scene.settings import NotEmpty, Range, Settings
from anchorsfm.terminal import Terminal
from anchorsfm.viewer.guard import ChangesName


@dataclass(frozen=True, kw_only=True)
class View(Settings):
    """Look at a reconstruction in the browser: cameras, points, residuals and matches. Ctrl-C ends it."""

    model: tyro.conf.Positional[Path]
    """An output folder of `anchorsfm reconstruct`, or a folder with COLMAP models."""
    images: Path | None = None
    """Folder of the photographs (default: where the run found them, or images/ beside sparse/)."""
    port: Annotated[int, Range(1, 65535)] = 8080
    """Port to listen on; the next free one is taken if it is in use."""
    host: Annotated[str, NotEmpty()] = "localhost"
    """Address to listen on. 0.0.0.0: everyone who can reach this machine and knows the printed address can look."""
    max_points: Annotated[int, Range(1, 1_000_000_000)] = 500_000
    """Sparse and dense points sent to the browser, of each model; more are thinned."""

    changes: ChangesName = "local"
    """Who may set the scale of the model on disk, by two clicks: local: whoever looks, if host is this machine alone;
    everyone: also over the network; nobody."""

    def run(self, console: Terminal) -> None:
        from anchorsfm.viewer.server import open_viewer

        console.print(f"reading {self.model}")
        try:
            viewer = open_viewer(
                self.model,
                images=self.images,
                host=self.host,
                port=self.port,
                max_points=self.max_points,
                changes=self.changes,
            )
            for line in viewer.lines():
                console.print(line)
            viewer.wait()
        except KeyboardInterrupt as error:
            if getattr(error, "number", signal.SIGINT) != signal.SIGINT:
                raise
            console.print("stopped")
            process.leave(0)
