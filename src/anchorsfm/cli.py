"""The command line: the only module that prints. Errors are one line and exit code 2."""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from anchorsfm.export import ExportConfig, ExportFormat
from anchorsfm.pipeline import PipelineConfig
from anchorsfm.scene.errors import AnchorSfMError, InputError, SettingError
from anchorsfm.scene.progress import Advance, Progress
from anchorsfm.scene.settings import NotEmpty, Range, Seed, Settings, place_of


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

    def run(self, console: Console) -> None:
        from anchorsfm.pipeline import reconstruct
        from anchorsfm.report import summary_lines

        source = self.photos[0] if len(self.photos) == 1 else list(self.photos)
        with _progress(console, self.quiet) as progress:
            result = reconstruct(source, self.output, self._settings(), progress)
        for line in summary_lines(result.report):
            console.print(line, markup=False, highlight=False)
        console.print(f"model: {self.output / 'sparse' / '0'}", markup=False, highlight=False)
        if (self.output / "report.html").exists():
            console.print(f"report: {self.output / 'report.html'}", markup=False, highlight=False)
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
        return replace(self.config, mast3r=network, dense=dense)


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

    def run(self, console: Console) -> None:
        from anchorsfm.demo import run_demo

        with _progress(console, self.quiet) as progress:
            _, lines = run_demo(self.output, num_images=self.num_images, seed=self.seed, progress=progress)
        for line in lines:
            console.print(line, markup=False, highlight=False)


@dataclass(frozen=True, kw_only=True)
class Report(Settings):
    """Make report.html of a finished run again, from what lies in its output folder and the photographs."""

    output: tyro.conf.Positional[Path]
    """An output folder of `reconstruct`."""
    images: Path | None = None
    """Folder that image names are relative to; known from report.json where the photographs have not moved."""
    quiet: bool = False
    """No progress display, only warnings and the path."""

    def run(self, console: Console) -> None:
        from anchorsfm.report.folder import make_page

        with _progress(console, self.quiet) as progress:
            page = make_page(self.output, photos=self.images, progress=progress)
        console.print(f"report: {page}", markup=False, highlight=False)


@dataclass(frozen=True, kw_only=True)
class Evaluate(Settings):
    """Compare the poses of a model with known ones: registered images, RRA, RTA, AUC, ATE, focal error."""

    model: tyro.conf.Positional[Path]
    """An output folder of `reconstruct` (its largest model counts), or a folder with a COLMAP model."""
    truth: Path
    """A COLMAP model, or a JSON file: image name -> R_cam_from_world, t_cam_from_world and K."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self, console: Console) -> None:
        from anchorsfm.evaluation import evaluate_poses, format_table, read_poses, to_dict

        evaluation = evaluate_poses(read_poses(self.model), read_poses(self.truth))
        if self.json:
            print(json.dumps(to_dict(evaluation)))
            return
        for line in format_table(evaluation):
            console.print(line, markup=False, highlight=False)


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

    def run(self, console: Console) -> None:
        _export(console, self.model, self.to, self.output, self.config, every_model=self.all_models, quiet=self.quiet)


@dataclass(frozen=True, kw_only=True)
class Weights(Settings):
    """List known weights with licence and size, or find, download and verify one of them."""

    source: Annotated[tyro.conf.Positional[str | None], NotEmpty()] = None
    """A Hugging Face id or a local file; nothing lists what is known."""
    accept_weights_license: bool = False
    """Accept the terms the weights come under; asked for once."""

    def run(self, console: Console) -> None:
        from anchorsfm.frontend.mast3r.weights import KNOWN_WEIGHTS, resolve_weights

        if self.source is None:
            for known in KNOWN_WEIGHTS:
                console.print(f"{known.name}  ({known.size_bytes / 2**30:.1f} GiB)", markup=False, highlight=False)
                console.print(f"    {known.description}", markup=False, highlight=False)
                console.print(f"    licence: {known.terms}", markup=False, highlight=False)
            return
        found = resolve_weights(self.source, accept_license=self.accept_weights_license)
        for line in (f"file:    {found.path}", f"digest:  {found.digest}", f"licence: {found.licence.terms}"):
            console.print(line, markup=False, highlight=False)


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

    def run(self, console: Console) -> None:
        from anchorsfm.viewer.server import open_viewer

        console.print(f"reading {self.model}", markup=False, highlight=False)
        try:
            viewer = open_viewer(
                self.model, images=self.images, host=self.host, port=self.port, max_points=self.max_points
            )
            for line in viewer.lines():
                console.print(line, markup=False, highlight=False)
            viewer.wait()
        except KeyboardInterrupt:
            console.print("stopped", markup=False, highlight=False)
            _leave(0)


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
    """Entry point of the `anchorsfm` command."""
    console = Console(stderr=False, soft_wrap=True)
    errors = Console(stderr=True, soft_wrap=True)
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments == ["--version"]:
        from anchorsfm import __version__

        print(f"anchorsfm {__version__}")
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _refuse_empty(arguments)
        command = tyro.cli(
            Command, prog="anchorsfm", description=__doc__, args=arguments, config=(tyro.conf.EnumChoicesFromValues,)
        )
        command.run(console)
    except AnchorSfMError as error:
        errors.print(f"error: {_in_words(error)}", markup=False, highlight=False, style="red")
        _leave(2)
    except KeyboardInterrupt:
        errors.print("interrupted: run the same command again and it continues", markup=False, highlight=False)
        _leave(2)
    except OSError as error:
        errors.print(f"error: {error.strerror or error}: {error.filename or ''}", markup=False, highlight=False)
        _leave(2)


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
    if not isinstance(error, SettingError):
        return str(error)
    places = (place_of(error.owner, root) for root in (PipelineConfig, ExportConfig))
    place = next((place for place in places if place is not None), ())  # all other settings are a command's own
    flag = ".".join([*place, error.setting]).replace("_", "-")
    return f"--{flag} {error.value}: {error.problem}"


def _export(
    console: Console,
    model: Path,
    formats: Sequence[ExportFormat],
    output: Path | None = None,
    config: ExportConfig | None = None,
    *,
    every_model: bool = False,
    quiet: bool,
) -> None:
    """Export a model and say where the results are."""
    from anchorsfm.export import export

    with _progress(console, quiet) as progress:
        folders = export(model, formats, output, config, every_model=every_model, progress=progress)
    for folder in folders:
        console.print(f"{folder.name}: {folder}", markup=False, highlight=False)


def _leave(code: int) -> None:
    """Exit at once: worker threads that are still busy must not hold the terminal."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class _RichProgressAdapter(Progress):
    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars

    @contextmanager
    def stage(self, description: str, total: int | None = None) -> Iterator[Advance]:
        task = self._bars.add_task(description, total=total)
        yield lambda steps: self._bars.update(task, advance=steps)
        if total is None:
            self._bars.update(task, total=1, completed=1)
        self._bars.stop_task(task)

    def warn(self, message: str) -> None:
        self._bars.console.print(f"warning: {message}", markup=False, highlight=False, style="yellow")


class _PlainLines(Progress):
    """For logs and pipes: a line when a stage begins, and one every ten seconds of a long one."""

    def __init__(self, console: Console, *, quiet: bool) -> None:
        self._console = console
        self._quiet = quiet

    @contextmanager
    def stage(self, description: str, total: int | None = None) -> Iterator[Advance]:
        start = last = time.monotonic()
        done = 0

        def advance(steps: int) -> None:
            nonlocal done, last
            done += steps
            now = time.monotonic()
            if total and now - last >= 10:
                last = now
                left = (now - start) / done * (total - done)
                self._line(f"{description}: {done} of {total}, about {left:.0f} s left")

        self._line(description + (f" ({total})" if total else ""))
        yield advance

    def _line(self, text: str) -> None:
        if not self._quiet:
            self._console.print(text, markup=False, highlight=False)

    def warn(self, message: str) -> None:
        self._console.print(f"warning: {message}", markup=False, highlight=False)


@contextmanager
def _progress(console: Console, quiet: bool) -> Iterator[Progress]:
    if quiet or not console.is_terminal:
        yield _PlainLines(console, quiet=quiet)
        return
    columns = (
        TextColumn("{task.description:<26}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with RichProgress(*columns, console=console) as bars:
        yield _RichProgressAdapter(bars)


if __name__ == "__main__":
    main()
