"""`anchorsfm extend`: more photographs for a finished model."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from anchorsfm.cli.export import export_models, exported_formats, formats_behind
from anchorsfm.scene.settings import Settings
from anchorsfm.terminal import Terminal, show_progress


@dataclass(frozen=True, kw_only=True)
class Extend(Settings):
    """Let new photographs join the models of an output folder, whose poses stay exactly as they are.

    Only the new photographs and their pairs are computed. A command that is stopped before its result is there leaves
    the folder as it was; the same command continues, also where only exports are left. Examples:

    anchorsfm extend out new_photos

    anchorsfm extend out new_photos --adjust-all
    """

    model: tyro.conf.Positional[Path]
    """An output folder of `anchorsfm reconstruct`; its photographs must be where they were."""
    photos: tyro.conf.Positional[tuple[Path, ...]]
    """Folders, videos, image files, lists of images; those that the models know are passed over."""
    adjust_all: bool = False
    """Adjust all poses and intrinsics together; without this those of the models stay."""
    dense: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write a dense cloud however many images there are; without this, as the folder's config.yaml says."""
    no_dense: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write no dense cloud."""
    quiet: bool = False
    """No progress display, only warnings and the summary."""

    def run(self, console: Terminal) -> None:
        from anchorsfm.pipeline import extend
        from anchorsfm.report import summary_lines
        from anchorsfm.scene.errors import InputError, NothingNewError

        if not self.photos:
            raise InputError("name the new photographs: anchorsfm extend OUT PHOTOS")
        if self.dense and self.no_dense:
            raise InputError("--dense and --no-dense contradict each other: leave one out")
        dense = True if self.dense else False if self.no_dense else None
        try:
            with show_progress(console, quiet=self.quiet) as progress:
                result = extend(self.model, self.photos, progress, adjust_all=self.adjust_all, dense=dense)
        except NothingNewError:
            formats = formats_behind(self.model)
            if not formats:
                raise
            console.print(f"no photograph is new; exports of an earlier model are made again: {', '.join(formats)}")
        else:
            for line in summary_lines(result.report):
                console.print(line)
            formats = exported_formats(self.model)
        if formats:
            export_models(console, self.model, formats, quiet=self.quiet)
        console.print(f"next: anchorsfm view {shlex.quote(str(self.model))}")
