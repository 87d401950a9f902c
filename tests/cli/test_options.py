"""Options of the command line: what the helps list, what is said about wrong ones, and where they come from."""

import os
import re
from pathlib import Path

import pytest
import yaml

from anchorsfm.cli.commands import COMMANDS
from anchorsfm.cli.main import main
from anchorsfm.cli.options import names_of, options_of
from anchorsfm.cli.overview import SHORT_HELP
from anchorsfm.cli.parsing import _first_remark, parse, print_all_options
from anchorsfm.cli.reconstruct import Reconstruct
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.settings import plain, read_config
from anchorsfm.scene.errors import InputError
from unix import unix_only

LONG = re.compile(r"(?<![\w-])--[a-z][a-z0-9.-]*[a-z0-9]")


def configured(*arguments: object) -> PipelineConfig:
    command = parse("reconstruct", ["photos", "-o", "out", *map(str, arguments)])
    assert isinstance(command, Reconstruct)
    return command.configured()


@pytest.mark.parametrize("name", COMMANDS)
def test_options_are_those_that_are_parsed(name: str, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours are read from the dataclasses, theirs by tyro."""
    monkeypatch.setenv("COLUMNS", "200")
    print_all_options(name)
    parsed = set(LONG.findall(capsys.readouterr().out))
    assert parsed == {"--help", *(option for option in names_of(COMMANDS[name]) if option.startswith("--"))}
    assert all(option.help for option in options_of(COMMANDS[name]))


def test_no_option_denies_a_denial() -> None:
    assert not [name for kind in COMMANDS.values() for name in names_of(kind) if "no-no-" in name]


def test_keypoints_have_short_options_of_their_own() -> None:
    networks = ("--weights", "folder", "--device", "cuda", "--mapper", "tracks")
    given = configured("--features", "aliked", "--matcher", "mutual", *networks).classical
    assert (given.features.detector, given.matching.matcher) == ("aliked", "mutual")
    assert (given.networks.weights, given.networks.device) == (Path("folder"), "cuda")
    with pytest.raises(InputError, match="cannot match keypoints of sift: choose one of ratio-test, mutual"):
        configured("--matcher", "lightglue")
    with pytest.raises(InputError, match="--weights are those of a network: add --frontend mast3r, or --features"):
        configured("--weights", "folder")


def test_observations_of_networks_are_refined() -> None:
    names = ("sift", "aliked", "disk")
    chosen = {name: configured("--features", name).refines_keypoints(from_grid=False) for name in names}
    assert chosen == {"sift": False, "aliked": True, "disk": True}
    assert not configured("--features", "xfeat", "--refine-keypoints", "off").refines_keypoints(from_grid=False)


def test_there_is_one_device() -> None:
    assert [name for name in names_of(Reconstruct) if name.endswith("device")] == ["--device"]
    given = configured("--device", "cpu", "--frontend", "mast3r")
    assert (given.mast3r.device, given.align.device) == ("cpu", "cpu")
    assert configured("--frontend", "mast3r").mast3r.device == "auto"
    with pytest.raises(InputError, match="--device cuda: neither front end nor mapper"):
        configured("--device", "cuda", "--mapper", "tracks")


def test_the_help_of_the_program_says_what_it_does(capsys) -> None:
    main(["--help"])
    first, *rest = capsys.readouterr().out.splitlines()
    assert "photographs in" in first and "COLMAP model" in first
    assert all(f"  {name} " in "\n".join(rest) for name in COMMANDS)


def test_the_help_of_reconstruct_is_a_page(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    main(["reconstruct", "--help"])
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 60
    assert "Examples" in text and "--help-all" in text
    for line in re.findall(r"^  anchorsfm (.*?)(?:   .*)?$", text, re.MULTILINE):
        name, *arguments = line.split()
        if "--config" not in arguments:
            parse(name, arguments)


def test_the_short_help_lists_options_that_exist() -> None:
    listed = [name for names in SHORT_HELP.values() for name in names]
    assert len(listed) == len(set(listed)) and 22 <= len(listed) <= 28
    assert set(listed) <= {option.name for option in options_of(Reconstruct)}


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["reconstruct", "--help"], ["view", "--help-all"]])
def test_helps_load_no_library_that_computes(arguments: list[str]) -> None:
    import subprocess
    import sys

    script = (
        f"import sys; from anchorsfm.cli.main import main; main({arguments!r})\n"
        "print(sorted({'torch', 'scipy', 'pycolmap', 'cv2'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout and done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("reconstuct x -o y", "there is no command reconstuct: did you mean reconstruct?"),
        ("reconstruct x -o y --max-imag-size 3", "there is no option --max-imag-size: did you mean --max-image-size?"),
        ("reconstruct x -o y --lr1 0.1", "there is no option --lr1: did you mean --align.lr1?"),
        ("reconstruct x -o y --align.kinematik-mode mst", "did you mean --align.kinematic-mode?"),
        (
            "reconstruct x -o y --max-keypoints 9",
            "--classical.features.max-keypoints or --classical.second.max-keypoints or --sparsify.max-keypoints?",
        ),
        ("reconstruct x -o y --qqqqqqqq", "there is no option --qqqqqqqq: see anchorsfm reconstruct --help-all"),
        ("reconstruct x -o y --mapper incrmental", "--mapper incrmental: did you mean incremental?"),
        ("reconstruct x -o y --mapper=Tracks", "--mapper Tracks: did you mean tracks?"),
        ("reconstruct x -o y --camera-model SIMPLE_RADAIL", "did you mean SIMPLE_RADIAL?"),
        ("reconstruct x -o y --seed a", "--seed a: must be a whole number"),
        ("reconstruct x -o y --seed -1", "--seed -1: must be"),
        ("reconstruct x -o y --align.gamma2 1,5", "--align.gamma2 1,5: must be a number"),
        ("reconstruct x -o", "--output needs a value"),
        ("reconstruct x -o --seed 3", "--output needs a value"),
        ("reconstruct x", "--output must be given"),
        ("reconstruct", "PHOTOS and --output must be given"),
        ("view", "MODEL must be given"),
        ("view --port 99", "MODEL must be given"),
        ("evaluate a", "--truth must be given"),
        ("demo a b", "Unrecognized options: b"),
        ("export x --to ply undistrted", "--to undistrted: did you mean undistorted?"),
    ],
)
def test_what_is_not_understood_is_one_line(words: str, said: str, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr("anchorsfm.process.leave", leave)
    with pytest.raises(SystemExit, match="2"):
        main(words.split())
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and said in line


@pytest.mark.parametrize(
    "box",
    [
        "╭─ Value error ─╮\n│ Error in   │\n│ this one   │\n│ ────── │\n│ help │\n╰──╯\n",
        " Value error \n ------------ \n  Error in   \n  this one   \n  ------\n  help \n",
    ],
)
def test_boxes_of_either_kind_are_read(box: str) -> None:
    assert _first_remark(box) == "Error in this one"


# --------------------------------------------------------------------------------------------- settings from a file


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_the_settings_of_a_run_can_be_given_back(tmp_path: Path) -> None:
    first = configured(
        "--mapper", "tracks", "--align.niter1", 7, "--known.no-use-poses", "--cloud.depth-maps", "--no-adjust",
        "--no-dense", "--adjust.first-error", "1e-5", "--similarity", "a/b.npy", "--keep-database",
        "--graph.focal-range", 0.3, 9, "--align.init-poses", "identity",
    )  # fmt: skip
    path = written(tmp_path / "config.yaml", yaml.safe_dump(plain(first), sort_keys=False))
    assert read_config(path) == first
    assert configured("--config", path) == first
    changed = configured(
        "--seed", 5, f"--config={path}", "--mapper", "align", "--known.use-poses", "--no-keep-database", "--dense"
    )
    assert (changed.seed, changed.mapper, changed.known.use_poses, changed.keep_database) == (5, "align", True, False)
    assert changed.dense is True and changed.align.niter1 == 7 and not changed.bundle_adjustment


def test_a_device_that_is_not_here_gives_way_to_the_one_that_is_given(tmp_path: Path) -> None:
    """Records of a machine with a GPU can be given back on one without."""
    lost = "cuda:9999"
    path = written(tmp_path / "config.yaml", f"{{seed: 3, align: {{device: '{lost}', niter1: 7}}}}")
    with pytest.raises(InputError, match=rf"align\.device = {lost}: .* finds no such device here; cpu is always there"):
        configured("--config", path)
    for given in (["--device", "cpu"], ["--device=auto"]):
        found = configured("--config", path, *given)
        assert (found.seed, found.align.niter1, found.align.device) == (3, 7, "cpu")
    path = written(tmp_path / "other.yaml", "{frontend: mast3r, mast3r: {device: cuda, batch_size: 2}}")
    for given, device in (("cpu", "cpu"), ("auto", "auto")):
        found = configured("--config", path, "--device", given)
        assert (found.mast3r.device, found.mast3r.batch_size) == (device, 2)
    assert configured("--config", path).mast3r.device == "cuda"


def test_a_part_of_the_settings_leaves_the_others(tmp_path: Path) -> None:
    assert read_config(written(tmp_path / "c.yaml", "seed: 4\n")) == PipelineConfig(seed=4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no settings of a run"),
        ("[1, 2]", "holds no settings of a run"),
        ("{{{", "is no YAML file"),
        ("\x00\x01", "is no YAML file"),
        ("a: !!python/object:os.system x", "is no YAML file"),
        ("[" * 20_000, "is no YAML file"),
        ("seeed: 3", "there is no setting seeed: did you mean seed?"),
        ("align: {gama2: 3}", r"there is no setting align\.gama2: did you mean gamma2?"),
        ("1: 3", "there is no setting 1: give the config.yaml of a run"),
        ("align: 3", "align holds no settings"),
        ("align: {gamma2: .nan}", r"align\.gamma2 = nan: must be a finite number"),
        ("classical: {matching: {max_ratio: 7}}", r"classical\.matching\.max_ratio = 7: must be from 0\.1 to 1"),
        ("mapper: incrmental", "mapper = incrmental: did you mean incremental?"),
        ("seed: null", "seed = None: must be a whole number"),
    ],
)
def test_a_damaged_or_foreign_file_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path / "config.yaml", text)
    with pytest.raises(InputError, match=said.replace("?", r"\?")) as raised:
        read_config(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml cannot be read"):
        configured("--config", tmp_path / "none.yaml")
    with pytest.raises(InputError, match="is no file"):
        configured("--config", tmp_path)


@unix_only
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe is no file"):
        configured("--config", tmp_path / "pipe")


def test_a_whole_disk_of_settings_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is too large"):
        read_config(written(tmp_path / "config.yaml", "#" * 1_000_001))
