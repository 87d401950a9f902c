"""`anchorsfm reconstruct`: photographs in, models out."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from anchorsfm.align.config import Solver
from anchorsfm.cli.advice import advice, wider_search
from anchorsfm.cli.export import export_models
from anchorsfm.export.config import ExportFormat
from anchorsfm.io.layout import Layout
from anchorsfm.io.store import Store
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.presets import PresetName
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.settings import NotEmpty, Settings
from anchorsfm.terminal import Terminal, show_progress

DEVICE_SETTINGS = ("align.device", "mast3r.device", "classical.networks.device")
"""What --device decides."""


@dataclass(frozen=True, kw_only=True)
class Reconstruct(Settings):
    """Reconstruct photographs and videos: poses, intrinsics, sparse and dense points, as a COLMAP model.

    Running the same command again after an interruption continues where it stopped.
    """

    photos: tyro.conf.Positional[tuple[Path, ...]]
    """Folders, videos, image files, lists of images, URLs; folders are searched recursively, lists are text files, a
    URL (s3://bucket/photos) is that of a folder or file."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder for the results: new, empty, or of an earlier run. It gets sparse/, dense/, alignment/, fetched/ (from
    URLs), frames/ (of videos), views/ (of panoramas), cache/, report.html, report.json, uncertainty.json and
    config.yaml."""
    config: Path | None = None
    """Start from an earlier run's settings: its config.yaml. Options that are given here win, such as --device
    on another machine."""
    preset: PresetName | None = None
    """Start from settings for a purpose; options that are given here win. fast: is this set any good? splat: input for
    a Gaussian splat; survey: dense points to measure in; best: as many points as can be had."""
    settings: Annotated[PipelineConfig, tyro.conf.arg(name="")] = field(default_factory=PipelineConfig)
    dense: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write a dense cloud however many images there are; without this, for sets of up to 200."""
    no_dense: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write no dense cloud."""
    no_adjust: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Leave the poses as the mapper found them. Points are triangulated, nothing is adjusted."""
    weights: Annotated[str | None, NotEmpty()] = None
    """Weights of networks. A Hugging Face id or local file for --frontend mast3r; a folder with the released files for
    --features of a network. Without it: the official ones."""
    accept_weights_license: bool = False
    """Accept the terms the weights come under; asked for once."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where networks and alignment compute. auto: networks on a GPU if there is one, the alignment on the processor."""
    export: tuple[ExportFormat, ...] = ()
    """Also write the largest model to OUT/export in these formats; `anchorsfm export` has more options."""
    quiet: bool = False
    """No progress display, only warnings and the summary."""

    def run(self, console: Terminal) -> None:
        from anchorsfm.pipeline import reconstruct
        from anchorsfm.report import summary_lines

        source = self.photos[0] if len(self.photos) == 1 else list(self.photos)
        with show_progress(console, quiet=self.quiet) as progress:
            result = reconstruct(source, self.output, self.configured(), progress)
        for line in [*summary_lines(result.report), *self._results()]:
            console.print(line)
        report = result.report
        used = sum(image.size_wh is not None for image in report.images)
        for hint in (wider_search(len(report.models), used, report.pair_search), advice(report.stages)):
            if hint:
                console.print(hint)
        if self.export:
            export_models(console, self.output, self.export, quiet=self.quiet)
        console.print(f"next: anchorsfm view {shlex.quote(str(self.output))}")

    def _results(self) -> Iterator[str]:
        """What lies where."""
        layout = Layout(self.output)
        for what, path in (("model", layout.model(0)), ("cloud", layout.cloud(0)), ("report", layout.page)):
            if path.exists():
                yield f"{what}: {path}"
        cache = Store(layout.cache)
        if size := cache.size_bytes():
            size_mib = round(size / 2**20)
            yield f"cache: {cache.root} ({size_mib} MiB): further runs start from it, --no-keep-cache removes it"

    def configured(self) -> PipelineConfig:
        """All settings of the run. Raises InputError for options that contradict each other or have no effect."""
        settings = self.settings
        has_learned = settings.frontend == "classical" and settings.classical.uses_networks
        if self.weights is not None and settings.frontend != "mast3r" and not has_learned:
            raise InputError("--weights are those of a network: add --frontend mast3r, or --features aliked")
        if self.config is not None and self.preset is not None:
            raise InputError("--config and --preset both say where to start from: leave one out")
        if self.dense and self.no_dense:
            raise InputError("--dense and --no-dense contradict each other: leave one out")
        if self.weights is not None and has_learned:
            networks = replace(settings.classical.networks, weights=Path(self.weights))
            settings = replace(settings, classical=replace(settings.classical, networks=networks))
        network = replace(
            settings.mast3r,
            weights=settings.mast3r.weights if self.weights is None or has_learned else self.weights,
            accept_weights_license=self.accept_weights_license or settings.mast3r.accept_weights_license,
        )
        settings = replace(
            settings,
            mast3r=network,
            dense=True if self.dense else False if self.no_dense else settings.dense,
            bundle_adjustment=settings.bundle_adjustment and not self.no_adjust,
        )
        return settings if self.device == "auto" else _on(self.device, settings)


def starting_from(start: PipelineConfig, formats: tuple[ExportFormat, ...] = ()) -> type[Reconstruct]:
    """The command with other defaults."""

    @dataclass(frozen=True, kw_only=True)
    class Reconfigured(Reconstruct):
        settings: Annotated[PipelineConfig, tyro.conf.arg(name="")] = field(default=start)
        export: tuple[ExportFormat, ...] = formats

    Reconfigured.__doc__ = Reconstruct.__doc__
    return Reconfigured


def _on(device: Literal["cpu", "cuda", "mps"], settings: PipelineConfig) -> PipelineConfig:
    """The settings with everything that can choose on one device."""
    has_network = settings.frontend == "mast3r"
    has_learned = settings.frontend == "classical" and settings.classical.uses_networks
    aligns = settings.mapper == "align" and settings.align.solver is Solver.SECOND_ORDER
    if device != "cpu" and not has_network and not has_learned and not aligns:
        raise InputError(f"--device {device}: neither front end nor mapper of this run can use it, leave it out")
    classical = settings.classical
    if has_learned:
        classical = replace(classical, networks=replace(classical.networks, device=device))
    return replace(
        settings,
        classical=classical,
        mast3r=replace(settings.mast3r, device=device) if has_network else settings.mast3r,
        align=replace(settings.align, device=device) if aligns else settings.align,
    )
