"""`anchorsfm demo`: a scene with known truth, reconstructed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from anchorsfm.scene.settings import Range, Seed, Settings
from anchorsfm.terminal import Terminal, show_progress


@dataclass(frozen=True, kw_only=True)
class Demo(Settings):
    """Render photographs of a synthetic scene, reconstruct from the JPEGs alone, and compare with the truth."""

    output: tyro.conf.Positional[Path]
    """Folder for the photographs, the truth and the reconstruction."""
    num_images: Annotated[int, Range(2, 10_000)] = 8
    """Photographs to render."""
    seed: Seed = 0
    """Another seed is another scene."""
    quiet: bool = False
    """No progress display, only warnings and the summary."""

    def run(self, console: Terminal) -> None:
        from anchorsfm.demo import run_demo

        with show_progress(console, quiet=self.quiet) as progress:
            _, lines = run_demo(self.output, num_images=self.num_images, seed=self.seed, progress=progress)
        for line in lines:
            console.print(line)
