"""The help of every setting can be understood alone, and names things as the command line does."""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import pytest

from anchorsfm.cli.commands import COMMANDS
from anchorsfm.cli.options import help_of, names_of
from anchorsfm.export.config import ExportConfig
from anchorsfm.mapping.incremental import FromScratchConfig
from anchorsfm.run.config import PipelineConfig

LEANS_ON_OTHERS = re.compile(r"(Of|The same|It|Its|They|Their|Every how)\b|\.\.\.|.*\bthe (above|below)\b")
WORD = re.compile(r"(?<![\w.-])[a-z][a-z0-9_]*(?![\w-])")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9.-]*[a-z0-9]")
QUOTED = re.compile(r"`([^`]*)`")
TYPED = re.compile(r"(anchorsfm|pip) ")
"""What a help may set in backticks: a command, to be typed as it stands."""


def texts(config: type[Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted name and help of every setting of a configuration or command, those of nested ones included."""
    for field in dataclasses.fields(config):
        if field.default_factory not in (PipelineConfig, ExportConfig):  # those of a command, under their own names
            yield prefix + field.name, help_of(config).get(field.name, "")
        nested = None if field.default_factory is dataclasses.MISSING else field.default_factory()
        if dataclasses.is_dataclass(nested):
            yield from texts(type(nested), f"{prefix}{field.name}.")


CONFIGS = [PipelineConfig, ExportConfig, FromScratchConfig, *COMMANDS.values()]
NAMES = {name.split(".")[-1] for config in CONFIGS for name, _ in texts(config)}
PYTHON_NAMES = {name for name in NAMES if re.search(r"_|\d$", name)}
"""Names of settings that are no words of English."""


def not_as_typed(text: str) -> list[str]:
    """What of a help is named otherwise than on the command line."""
    quoted = [words for words in QUOTED.findall(text) if not TYPED.match(words)]
    return quoted + [word for word in WORD.findall(text) if word in PYTHON_NAMES]


@pytest.mark.parametrize("config", CONFIGS)
def test_every_help_is_a_sentence_of_its_own(config: type[Any]) -> None:
    found = dict(texts(config))
    assert not [name for name, text in found.items() if not text.endswith(".") or text[:1] != text[:1].upper()]
    assert not [f"{name}: {text}" for name, text in found.items() if LEANS_ON_OTHERS.match(text)]


@pytest.mark.parametrize("config", CONFIGS)
def test_no_help_names_a_setting_as_python_does(config: type[Any]) -> None:
    assert not [f"{name}: {text}" for name, text in texts(config) if not_as_typed(text)]


@pytest.mark.parametrize(
    "text",
    [
        "Cameras that enough images share (see `principal_point_min_images`).",
        "How the losses are minimised. lr1 and lr2 are Adam's only.",
        "Varied by less than this share over `patience` iterations.",
        "Points of the formats `undistorted` and `transforms`.",
    ],
)
def test_a_setting_named_as_python_does_is_noticed(text: str) -> None:
    assert not_as_typed(text)


@pytest.mark.parametrize("command", COMMANDS)
def test_helps_name_options_of_the_same_command(command: str) -> None:
    options = names_of(COMMANDS[command])
    named = {flag: name for name, text in texts(COMMANDS[command]) for flag in FLAG.findall(text)}
    assert not {flag: name for flag, name in named.items() if flag not in options}
