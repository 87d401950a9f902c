"""`anchorsfm merge`: two models become one."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from anchorsfm.scene.settings import Settings
from anchorsfm.terminal import Terminal, show_progress


@dataclass(frozen=True, kw_only=True)
class Merge(Settings):
    """Join the models of two output folders, which stay as they are.

    They have photographs in common, or only views that overlap. An interrupted command continues when it is run again.
    Example:

    anchorsfm merge monday tuesday -o both
    """

    first: tyro.conf.Positional[Path]
    """An output folder of `anchorsfm reconstruct`, whose frame and settings the result has."""
    second: tyro.conf.Positional[Path]
    """Another one."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder for the result, as `anchorsfm reconstruct` writes it: new, empty, or of an earlier run."""
    dense: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write a dense cloud however many images there are; without this, as the settings of the first folder say."""
    no_dense: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write no dense cloud."""
    quiet: bool = False
    """No progress display, only warnings and the summary."""

    def run(self, console: Terminal) -> None:
        from anchorsfm.pipeline import merge
        from anchorsfm.report import summary_lines
        from anchorsfm.scene.errors import InputError

        if self.dense and self.no_dense:
            raise InputError("--dense and --no-dense contradict each other: leave one out")
        dense = True if self.dense else False if self.no_dense else None
        with show_progress(console, quiet=self.quiet) as progress:
            result = merge(self.first, self.second, self.output, progress, dense=dense)
        for line in summary_lines(result.report):
            console.print(line)
        console.print(f"next: anchorsfm view {shlex.quote(str(self.output))}")
