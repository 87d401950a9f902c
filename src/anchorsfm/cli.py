"""Photographs in, COLMAP models out. Errors are one line and exit code 2; a signal ends with 128 and its number."""

import json
import signal
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import tyro

from anchorsfm import process
from anchorsfm.export.config import ExportConfig, ExportFormat
from anchorsfm.io.memory import amount_asked, is_out_of_memory
from anchorsfm.run.config import PipelineConfig
from anchorsfm.scene.errors import AnchorSfMError, InputError, OutOfMemoryError, SettingError
from anchorsfm.scene.settings import NotEmpty, Range, Seed, Settings, place_of
from anchorsfm.terminal import Terminal, show_progress


@dataclass(frozen=True, kw_only=True)
class Reconstruct(Settings):
    """Reconstruct photographs: poses, intrinsics, sparse and dense points, as a COLMAP model.

    Running the same command again after an interruption continues where it stopped.
    """

    photos: tyro.conf.Positional[tuple[Path, ...]]
    """A folder (searched recursively), a text file that lists images, or image files."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder for sparse/, dense/, alignment/, cache/, report.html, report.json, uncertainty.json and config.yaml: new,
    empty, or of an earlier run."""
    config: Annotated[PipelineConfig, tyro.conf.arg(name="")] = field(default_factory=PipelineConfig)
    dense: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write a dense cloud however many images there are; without this, for sets of up to 200."""
    no_dense: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write no dense cloud."""
    no_adjust: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Leave the poses as the mapper found them: points are triangulated, nothing is adjusted."""
    weights: Annotated[str | None, NotEmpty()] = None
    """Weights of --frontend mast3r: a Hugging Face id (default: the official MASt3R model) or a local file."""
    accept_weights_license: bool = False
    """Accept the terms the weights come under; asked for once."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the network of --frontend mast3r runs."""
    export: tuple[ExportFormat, ...] = ()
    """Also write the largest model to OUT/export in these formats; `anchorsfm export` has more options."""
    quiet: bool = False
    """No progress display, only warnings and the summary."""

    def run(self, console: Terminal) -> None:
        from anchorsfm.pipeline import reconstruct
        from anchorsfm.report import summary_lines

        source = self.photos[0] if len(self.photos) == 1 else list(self.photos)
        with show_progress(console, quiet=self.quiet) as progress:
            result = reconstruct(source, self.output, self._settings(), progress)
        for line in summary_lines(result.report):
            console.print(line)
        console.print(f"model: {self.output / 'sparse' / '0'}")
        if (self.output / "report.html").exists():
            console.print(f"report: {self.output / 'report.html'}")
        if self.export:
            _export(console, self.output, self.export, quiet=self.quiet)

    def _settings(self) -> PipelineConfig:
        if self.weights is not None and self.config.frontend != "mast3r":
            raise InputError("--weights are those of a network: add --frontend mast3r")
        network = self.config.mast3r
        network = replace(
            network,
            weights=self.weights or network.weights,
            accept_weights_license=self.accept_weights_license or network.accept_weights_license,
            device=self.device if self.device != "auto" else network.device,
        )
        if self.dense and self.no_dense:
            raise InputError("--dense and --no-dense contradict each other: leave one out")
        dense = True if self.dense else False if self.no_dense else self.config.dense
        adjusts = self.config.bundle_adjustment and not self.no_adjust
        return replace(self.config, mast3r=network, dense=dense, bundle_adjustment=adjusts)


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


@dataclass(frozen=True, kw_only=True)
class Report(Settings):
    """Make report.html of a finished run again, from what lies in its output folder and the photographs."""

    output: tyro.conf.Positional[Path]
    """An output folder of `reconstruct`."""
    images: Path | None = None
    """Folder that image names are relative to; known from report.json where the photographs have not moved."""
    quiet: bool = False
    """No progress display, only warnings and the path."""

    def run(self, console: Terminal) -> None:
        from anchorsfm.report.folder import make_page

        with show_progress(console, quiet=self.quiet) as progress:
            page = make_page(self.output, photos=self.images, progress=progress)
        console.print(f"report: {page}")


@dataclass(frozen=True, kw_only=True)
class Evaluate(Settings):
    """Compare the poses of a model with known ones: registered images, RRA, RTA, AUC, ATE, focal error."""

    model: tyro.conf.Positional[Path]
    """An output folder of `reconstruct` (its largest model counts), or a folder with a COLMAP model."""
    truth: Path
    """A COLMAP model, or a JSON file: image name -> R_cam_from_world, t_cam_from_world and K."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self, console: Terminal) -> None:
        from anchorsfm.evaluation import evaluate_poses, format_table, read_poses, to_dict

        evaluation = evaluate_poses(read_poses(self.model), read_poses(self.truth))
        if self.json:
            print(json.dumps(to_dict(evaluation)))
            return
        for line in format_table(evaluation):
            console.print(line)


@dataclass(frozen=True, kw_only=True)
class Export(Settings):
    """Write a model in the formats of other programs.

    Pictures that an interrupted export has finished are not made again.
    """

    model: tyro.conf.Positional[Path]
    """An output folder of `reconstruct` (its largest model counts), or a folder with a COLMAP model."""
    to: tuple[ExportFormat, ...]
    """Formats. undistorted: photographs without distortion and a PINHOLE model, for Gaussian splatting; transforms:
    nerfstudio's transforms.json; database: COLMAP's; tum, kitti: camera paths as text."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """Folder for a folder of each format; default: `export` in the output folder the model belongs to."""
    all_models: bool = False
    """Every model of an output folder, in numbered folders."""
    config: Annotated[ExportConfig, tyro.conf.arg(name="")] = field(default_factory=ExportConfig)
    quiet: bool = False
    """No progress display, only warnings and the folders written."""

    def run(self, console: Terminal) -> None:
        _export(console, self.model, self.to, self.output, self.config, every_model=self.all_models, quiet=self.quiet)


@dataclass(frozen=True, kw_only=True)
class Weights(Settings):
    """List known weights with licence and size, or find, download and verify one of them."""

    source: Annotated[tyro.conf.Positional[str | None], NotEmpty()] = None
    """A Hugging Face id or a local file; nothing lists what is known."""
    accept_weights_license: bool = False
    """Accept the terms the weights come under; asked for once."""

    def run(self, console: Terminal) -> None:
        from anchorsfm.frontend.mast3r.weights import KNOWN_WEIGHTS, resolve_weights

        if self.source is None:
            for known in KNOWN_WEIGHTS:
                console.print(f"{known.name}  ({known.size_bytes / 2**30:.1f} GiB)")
                console.print(f"    {known.description}")
                console.print(f"    licence: {known.terms}")
            return
        found = resolve_weights(self.source, accept_license=self.accept_weights_license)
        for line in (f"file:    {found.path}", f"digest:  {found.digest}", f"licence: {found.licence.terms}"):
            console.print(line)


@dataclass(frozen=True, kw_only=True)
class View(Settings):
    """Look at a reconstruction in the browser: cameras, points, residuals and matches. Ctrl-C ends it."""

    model: tyro.conf.Positional[Path]
    """An output folder of `reconstruct`, or a folder with COLMAP models."""
    images: Path | None = None
    """Folder of the photographs (default: where `reconstruct` found them, or `images` beside `sparse`)."""
    port: Annotated[int, Range(1, 65535)] = 8080
    """Port to listen on; the next free one is taken if it is in use."""
    host: Annotated[str, NotEmpty()] = "localhost"
    """Address to listen on. 0.0.0.0: everyone who can reach this machine and knows the printed address can look."""
    max_points: Annotated[int, Range(1, 1_000_000_000)] = 500_000
    """Sparse and dense points sent to the browser, of each model; more are thinned."""

    def run(self, console: Terminal) -> None:
        from anchorsfm.viewer.server import open_viewer

        console.print(f"reading {self.model}")
        try:
            viewer = open_viewer(
                self.model, images=self.images, host=self.host, port=self.port, max_points=self.max_points
            )
            for line in viewer.lines():
                console.print(line)
            viewer.wait()
        except KeyboardInterrupt as error:
            if getattr(error, "number", signal.SIGINT) != signal.SIGINT:
                raise
            console.print("stopped")
            process.leave(0)


Command = (
    Annotated[Reconstruct, tyro.conf.subcommand("reconstruct")]
    | Annotated[View, tyro.conf.subcommand("view")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Weights, tyro.conf.subcommand("weights")]
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command. In a process of its own, `anchorsfm.__main__` prepares signals and standard streams first."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments == ["--version"]:
        from anchorsfm import __version__

        print(f"anchorsfm {__version__}")
        return
    try:
        with process.tidy_ending():
            _run(arguments)
    except KeyboardInterrupt as error:
        process.end_interrupted(getattr(error, "number", signal.SIGINT))
    lost = getattr(sys.stdout, "error", None)
    if lost is not None:
        _fail(f"cannot write to the standard output: {lost.strerror}")


def _run(arguments: list[str]) -> None:
    warnings.filterwarnings("ignore", module=r"PIL\.")  # remarks about damaged EXIF
    try:
        _refuse_empty(arguments)
        command = tyro.cli(
            Command, prog="anchorsfm", description=__doc__, args=arguments, config=(tyro.conf.EnumChoicesFromValues,)
        )
        command.run(Terminal())
    except AnchorSfMError as error:
        _fail(_in_words(error))
    except Exception as error:
        if is_out_of_memory(error):
            asked = amount_asked(error)
            _fail(
                f"too little memory{f' ({asked} more were asked for)' if asked else ''}: "
                "close other programs, or use fewer or smaller photographs"
            )
        if not isinstance(error, OSError):
            raise
        _fail(f"{error.strerror or error}: {error.filename or ''}")


def _fail(message: str) -> NoReturn:
    Terminal(stderr=True).print(f"error: {message}", style="red")
    process.leave(2)


def _refuse_empty(arguments: Sequence[str]) -> None:
    """Raise InputError for an empty argument, as a shell makes of an unset variable: as a path it is this folder."""
    for number, argument in enumerate(arguments):
        if argument.startswith("--") and argument.endswith("="):
            raise InputError(f"{argument[:-1]} has no value: is a variable of the shell not set?")
        if not argument.strip():
            place = f"after {arguments[number - 1]}" if number else "at the beginning"
            raise InputError(f"there is an empty argument {place}: is a variable of the shell not set?")


def _in_words(error: AnchorSfMError) -> str:
    """The message of an error, with the flag that a user gave for the setting that the library names."""
    if isinstance(error, OutOfMemoryError):
        return error.text([f"--{setting.replace('_', '-')}" for setting in error.settings])
    if not isinstance(error, SettingError):
        return str(error)
    places = (place_of(error.owner, root) for root in (PipelineConfig, ExportConfig))
    place = next((place for place in places if place is not None), ())  # all other settings are a command's own
    flag = ".".join([*place, error.setting]).replace("_", "-")
    return f"--{flag} {error.value}: {error.problem}"


def _export(
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


if __name__ == "__main__":
    process.prepare()
    main()
