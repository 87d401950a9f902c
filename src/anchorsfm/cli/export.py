"""`anchorsfm export`: a model in the formats of other programs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, get_args

import tyro

from anchorsfm.export.config import ExportConfig, ExportFormat
from anchorsfm.scene.settings import Settings
from anchorsfm.terminal import Terminal, show_progress


@dataclass(frozen=True, kw_only=True)
class Export(Settings):
    """Write a model in the formats of other programs.

    Pictures that an interrupted export has finished are not made again.
    """

    model: tyro.conf.Positional[Path]
    """An output folder of `anchorsfm reconstruct` (its largest model counts), or a folder with a COLMAP model."""
    to: tuple[ExportFormat, ...]
    """Formats. undistorted: photographs without distortion and a PINHOLE model, for Gaussian splatting; transforms:
    nerfstudio's transforms.json; database: COLMAP's; tum, kitti: camera paths as text."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """Folder for a folder of each format; default: export/ in the output folder the model belongs to."""
    all_models: bool = False
    """Every model of an output folder, in numbered folders."""
    config: Annotated[ExportConfig, tyro.conf.arg(name="")] = field(default_factory=ExportConfig)
    quiet: bool = False
    """No progress display, only warnings and the folders written."""

    def run(self, console: Terminal) -> None:
        export_models(
            console, self.model, self.to, self.output, self.config, every_model=self.all_models, quiet=self.quiet
        )


def exported_formats(output: Path) -> list[ExportFormat]:
    """The formats that the largest model of an output folder was exported in, to OUT/export."""
    from anchorsfm.io.owned import is_ours

    return [name for name in get_args(ExportFormat) if is_ours(output / "export" / name)]


def formats_behind(output: Path) -> list[ExportFormat]:
    """Those of `exported_formats` that are not known to be made of the largest model as it is now."""
    from anchorsfm.export.record import is_of_model, model_digest
    from anchorsfm.export.source import models_to_export

    formats = exported_formats(output)
    if not formats:
        return []
    digest = model_digest(models_to_export(output, every=False)[0].folder)
    return [name for name in formats if not is_of_model(output / "export" / name, digest)]


def export_models(
    console: Terminal,
    model: Path,
    formats: Sequence[ExportFormat],
    output: Path | None = None,
    config: ExportConfig | None = None,
    *,
    every_model: bool = False,
    quiet: bool,
) -> None:
    """Export a model and say where the results are."""
    from anchorsfm.export.run import export

    with show_progress(console, quiet=quiet) as progress:
        folders = export(model, formats, output, config, every_model=every_model, progress=progress)
    for folder in folders:
        console.print(f"{folder.name}: {folder}")
