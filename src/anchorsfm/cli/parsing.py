"""From words to a command. What cannot be understood is one line that names the option and what may be meant."""

import dataclasses
import io
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, cast

import tyro

from anchorsfm.cli.commands import COMMANDS, Command, all_commands
from anchorsfm.cli.options import Option, names_of, nearest, options_of
from anchorsfm.cli.reconstruct import DEVICE_SETTINGS, Reconstruct, starting_from
from anchorsfm.run.presets import PRESETS, PresetName
from anchorsfm.run.settings import SURROUNDINGS, read_config
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.settings import OneOf, closest, shown

_TYRO = (tyro.conf.EnumChoicesFromValues,)


def parse(name: str, arguments: Sequence[str]) -> Command:
    """The command of this name with its options.

    Raises InputError for an option that does not exist, for a value that it does not take, and for a missing one.
    """
    require_command(name)
    kind = COMMANDS[name]
    _require_known(name, arguments)
    if kind is Reconstruct and (given := _value_of("--config", arguments)):
        # the machine of the record may have devices, and reach clusters and stores, that this one cannot
        decided = DEVICE_SETTINGS if _value_of("--device", arguments) else ()
        kind = starting_from(read_config(Path(given), without=(*decided, *SURROUNDINGS)))
    elif kind is Reconstruct and (word := _value_of("--preset", arguments)):
        preset = PRESETS[cast(PresetName, word)]
        kind = starting_from(preset.settings, preset.export)
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            command: Command = tyro.cli(kind, prog=f"anchorsfm {name}", args=list(arguments), config=_TYRO)
    except SystemExit as end:
        if end.code in (0, None):
            raise
        problem = _first_remark(said.getvalue()).removesuffix(".")
        problem = _missing(kind, arguments) if problem.startswith("Missing from") else problem
        raise InputError(f"{problem}; see anchorsfm {name} --help") from None
    return command


def print_all_options(name: str) -> None:
    """Every option of a command, with its help."""
    try:
        tyro.cli(COMMANDS[name], prog=f"anchorsfm {name}", args=["--help"], config=_TYRO)
    except SystemExit:
        return


def complete(arguments: Sequence[str]) -> None:
    """Write the script with which a shell completes commands and options."""
    said = io.StringIO()
    try:
        with redirect_stdout(said):
            tyro.cli(all_commands(), prog="anchorsfm", args=list(arguments), config=_TYRO)
    except SystemExit as end:
        if end.code not in (0, None):
            raise
    sys.stdout.write(_on_one_line(said.getvalue()))
    for word in arguments:
        if Path(word).is_file():
            Path(word).write_text(_on_one_line(Path(word).read_text("utf-8")), "utf-8")


def _on_one_line(script: str) -> str:
    """tyro's script with the help of every option on one line: a shell takes each line for a completion."""
    return re.sub(r"^COMPLETION_SPEC = .*$", lambda spec: spec[0].replace(r"\n", " "), script, flags=re.MULTILINE)


def require_command(name: str) -> None:
    """Raise InputError for a command that does not exist."""
    if name not in COMMANDS:
        near = closest(name, COMMANDS)
        hint = f"did you mean {near}? " if near else ""
        raise InputError(f"there is no command {shown(name)}: {hint}choose one of {', '.join(COMMANDS)}")


def _require_known(name: str, arguments: Sequence[str]) -> None:
    options = names_of(COMMANDS[name])
    current: Option | None = None
    pending: Option | None = None
    flag = ""
    for word in arguments:
        if word.startswith("-") and not _is_number(word):
            flag, equals, value = word.partition("=")
            flag = flag if flag in options else flag.replace("_", "-")
            if flag not in options:
                raise InputError(_unknown(flag, name))
            _require_no_more(pending)
            current = pending = options[flag]
            if equals:
                _require_value(flag, value, current)
                current = pending = None
        elif current is not None:
            pending = None
            _require_value(flag, word, current)
            current = current if current.takes_several else None
    _require_no_more(pending)


def _require_no_more(pending: Option | None) -> None:
    """Raise InputError for an option that lacks its value."""
    if pending is not None and not pending.is_switch and not pending.takes_several:
        raise InputError(f"{pending.name} needs a value")


def _unknown(flag: str, name: str) -> str:
    near = nearest(flag, COMMANDS[name])
    way_out = f"did you mean {' or '.join(near)}?" if near else f"see anchorsfm {name} --help-all"
    return f"there is no option {shown(flag)}: {way_out}"


def _require_value(flag: str, value: str, option: Option) -> None:
    if value == "None" or option.is_switch:
        return
    problem = None
    if option.choices:
        problem = OneOf(*option.choices).problem(value)
    elif option.kind in (int, float) and not _is_number(value, option.kind):
        problem = "must be a whole number" if option.kind is int else "must be a number"
    if problem:
        raise InputError(f"{flag} {shown(value)}: {problem}")


def _is_number(word: str, kind: Any = float) -> bool:
    try:
        kind(word)
    except ValueError:
        return False
    return True


def _missing(kind: type[Command], arguments: Sequence[str]) -> str:
    """What must be given and is not, in words, where tyro says that something is missing."""
    required = [option for option in options_of(kind) if option.default is dataclasses.MISSING]
    given = {word.partition("=")[0] for word in arguments}
    named = [o.name for o in required if not o.is_positional and given.isdisjoint((o.name, *o.others))]
    positional = [o.name.upper() for o in required if o.is_positional]
    missing = named if named and arguments else [*positional, *named]
    return f"{' and '.join(missing)} must be given"


def _value_of(flag: str, arguments: Sequence[str]) -> str | None:
    """The value that an option is given; the last one counts."""
    found = None
    for number, word in enumerate(arguments):
        if word == flag and number + 1 < len(arguments):
            found = arguments[number + 1]
        elif word.startswith(f"{flag}="):
            found = word.partition("=")[2]
    return found


def _first_remark(box: str) -> str:
    """What tyro says in the box of an error below its title, up to a rule: on one line. Boxes may be of ASCII."""
    words: list[str] = []
    for line in box.splitlines()[1:]:
        text = line.strip("│| ")
        is_rule = not text.strip("─-╭╮╰╯+ ")
        if is_rule and words:
            break
        words += [] if is_rule else text.split()
    return " ".join(words)
