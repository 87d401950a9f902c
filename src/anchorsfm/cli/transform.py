"""`anchorsfm transform`: a finished model in another frame."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from anchorsfm.scene.settings import Settings
from anchorsfm.terminal import Terminal, show_progress
from anchorsfm.transform.config import TransformConfig


@dataclass(frozen=True, kw_only=True)
class Transform(Settings):
    """Turn, scale, shift and crop a finished model, with everything that belongs to it.

    Model, dense cloud, mesh, depth maps, deviations, report and the exports in the folder stay consistent, and
    transform.json records what was done. Examples:

    anchorsfm transform out --up plane

    anchorsfm transform out --distance a.jpg 812,455 a.jpg 1430,460 2.5

    anchorsfm transform out --gps

    anchorsfm transform out --origin a.jpg --north a.jpg 215 --crop-radius 20
    """

    output: tyro.conf.Positional[Path]
    """An output folder of `anchorsfm reconstruct`."""
    config: Annotated[TransformConfig, tyro.conf.arg(name="")] = field(default_factory=TransformConfig)
    """The new frame."""
    quiet: bool = False
    """No progress display, only warnings and the summary."""

    def run(self, console: Terminal) -> None:
        from anchorsfm.transform.run import transform

        with show_progress(console, quiet=self.quiet) as progress:
            done = transform(self.output, self.config, progress)
        for note in done.notes:
            console.print(note)
        for folder in done.exports:
            console.print(f"followed: {folder}")
        console.print(f"model: {self.output / 'sparse' / str(self.config.model)}")
