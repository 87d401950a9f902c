"""The help that a person reads first: what the program does, and the options of `reconstruct` that matter most."""

import dataclasses
import inspect
import re
import shutil
import textwrap
from enum import Enum
from typing import Any

from anchorsfm.cli.commands import COMMANDS
from anchorsfm.cli.options import Option, options_of
from anchorsfm.cli.reconstruct import Reconstruct

SHORT_HELP = {
    "Input": ("photos", "--output", "--video.frames", "--masks", "--preset", "--config", "--known.model"),
    "Cameras": ("--camera-mode", "--camera-model", "--focal-px"),
    "Pairs of photographs": ("--scene-graph",),
    "Quality and speed": (
        "--max-image-size",
        "--mapper",
        "--no-adjust",
        "--seed",
    ),
    "Output": (
        "--gps",
        "--up",
        "--dense",
        "--no-dense",
        "--cloud.depth-maps",
        "--cloud.mesh",
        "--export",
        "--quiet",
    ),
    "Networks": (
        "--frontend",
        "--classical.features.detector",
        "--weights",
        "--accept-weights-license",
        "--device",
    ),
}
"""The options of `reconstruct --help`, by what they are for."""

_EXAMPLES = """\
anchorsfm reconstruct photos -o out
anchorsfm reconstruct video.mp4 -o out
anchorsfm reconstruct photos -o out --preset splat
anchorsfm reconstruct more_photos -o out2 --config out/config.yaml"""
_INDENT = 27
_FEW = 6
"""Choices that are listed."""


def program_help() -> str:
    """`anchorsfm --help`."""
    width = _width()
    lines = [
        "AnchorSfM: photographs in; camera poses, intrinsics and 3D points out, as a COLMAP model.",
        "",
        "usage: anchorsfm COMMAND ...",
        "",
        "Commands",
    ]
    for name, kind in COMMANDS.items():
        lines += _entry(f"  {name}", _summary(kind), width, indent=15)
    lines += [
        "",
        "Examples",
        "  anchorsfm reconstruct photos -o out",
        "  anchorsfm extend out more_photos",
        "  anchorsfm merge monday tuesday -o both",
        "  anchorsfm view out",
        "  anchorsfm export out --to undistorted",
        "  anchorsfm localise new_photos --model out -o poses",
        "  anchorsfm transform out --up plane",
        "",
        "anchorsfm COMMAND --help tells more; anchorsfm --version.",
        "Exit codes: 0 done; 2 one line says what is wrong; 128 + N ended by signal N, run again to continue.",
    ]
    return "\n".join(lines)


def reconstruct_help() -> str:
    """`anchorsfm reconstruct --help`."""
    width = _width()
    options = {option.name: option for option in options_of(Reconstruct)}
    lines = ["usage: anchorsfm reconstruct PHOTOS --output OUT [options]", _summary(Reconstruct)]
    for title, names in SHORT_HELP.items():
        lines.append(f"{title}:")
        for name in names:
            option = options[name]
            lines += _entry(f"  {_invocation(option)}", _in_short(option), width, indent=_INDENT)
    lines += ["Examples:", *textwrap.indent(_EXAMPLES, "  ").splitlines()]
    lines.append(f"All {len(options)} options: anchorsfm reconstruct --help-all")
    return "\n".join(lines)


def _summary(kind: type) -> str:
    return " ".join(inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0].split())


def _invocation(option: Option) -> str:
    short = [name for name in option.others if not name.startswith("--")]
    if option.is_positional:
        return option.name.upper()
    plain = [] if option.is_switch else [name for name in option.others if name.startswith("--")]
    name = ", ".join([*short, *(plain or [option.name])])
    return name if option.is_switch else f"{name} {_metavar(option)}"


def _metavar(option: Option) -> str:
    if option.choices:
        return "WORD" + (" ..." if option.takes_several else "")
    return {int: "N", float: "X", str: "TEXT"}.get(option.kind, "PATH")


def _in_short(option: Option) -> str:
    """The first clause of the help, with the default and other choices if they are few."""
    text = re.split(r"[.;] ", option.help, maxsplit=1)[0].removesuffix(".")
    shown = _shown(option.default)
    notes = [f"default: {shown}"] if shown else []
    if 0 < len(option.choices) <= _FEW:
        notes.append(", ".join(choice for choice in option.choices if choice != shown))
    return f"{text} ({'; '.join(notes)})" if notes else text


def _shown(default: Any) -> str:
    if default is dataclasses.MISSING or default is None or isinstance(default, (bool, tuple)):
        return ""
    return str(default.value if isinstance(default, Enum) else default)


def _entry(left: str, text: str, width: int, *, indent: int) -> list[str]:
    lines = textwrap.wrap(text, max(width - indent, 20), break_on_hyphens=False)
    if len(left) >= indent:
        return [left, *(" " * indent + line for line in lines)]
    return [left.ljust(indent) + lines[0], *(" " * indent + line for line in lines[1:])]


def _width() -> int:
    return max(min(shutil.get_terminal_size().columns, 100), 40)
