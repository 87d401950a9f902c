"""`anchorsfm localise`: poses of new photographs against a finished model."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from anchorsfm.localisation.config import LocaliseConfig
from anchorsfm.scene.settings import Settings
from anchorsfm.terminal import Terminal, show_progress


@dataclass(frozen=True, kw_only=True)
class Localise(Settings):
    """Find the poses of new photographs in a finished model, which stays as it is.

    The photographs that the model was made from are not needed. Examples:

    anchorsfm localise new_photos --model out -o poses

    anchorsfm localise query.jpg --model out/sparse/1 -o poses --focal-px 2800
    """

    photos: tyro.conf.Positional[tuple[Path, ...]]
    """Folders, image files or text files that list images; one photograph is enough."""
    model: Path
    """An output folder of `anchorsfm reconstruct` (its largest model counts), or one of its models."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder for the poses: new, empty, or of an earlier `anchorsfm localise`."""
    config: Annotated[LocaliseConfig, tyro.conf.arg(name="")] = field(default_factory=LocaliseConfig)
    """How the photographs are placed."""
    quiet: bool = False
    """No progress display, only warnings and the summary."""

    def run(self, console: Terminal) -> None:
        from anchorsfm.localisation.folder import LocalisationFolder
        from anchorsfm.localisation.run import localise, read_localisable
        from anchorsfm.scene.errors import InputError

        if not self.photos:
            raise InputError("name the photographs: anchorsfm localise PHOTOS --model OUT --output DIR")
        folder = LocalisationFolder(self.output)
        folder.require_ready()
        model = read_localisable(self.model)
        source = self.photos[0] if len(self.photos) == 1 else list(self.photos)
        with show_progress(console, quiet=self.quiet) as progress:
            found = localise(source, model, self.config, progress)
        folder.write(found, model.stored)
        for name, reason in found.refused.items():
            console.print(f"not placed: {name}: {reason}")
        console.print(f"placed {len(found.placed)} of {len(found.images)} photographs: {self.output}")
