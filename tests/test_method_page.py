"""docs/method.md says what the code does: its sections are there to be cited, its defaults are the code's."""

import dataclasses
import re
from enum import Enum
from pathlib import Path

import pytest

from anchorsfm.run.config import PipelineConfig

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
SECTIONS = re.findall(r"^#{2,3} (.+)$", PAGE, re.MULTILINE)
DEFAULTS = re.findall(r"^\| `([a-z0-9_.]+)` \| ([^|]+?) \|", PAGE, re.MULTILINE)
CITATION = re.compile(r"docs/method\.md, ([^).]+)")


def _cited() -> list[tuple[str, str]]:
    """File and section of every citation in the package."""
    found = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        for listed in CITATION.findall(path.read_text(encoding="utf-8")):
            names = " ".join(listed.split()).split(", ")
            found += [(path.relative_to(ROOT).as_posix(), name) for name in names]
    return found


def _default(setting: str) -> str:
    """The default of a setting, as the page writes it."""
    value: object = PipelineConfig()
    for name in setting.split("."):
        assert dataclasses.is_dataclass(value), setting
        value = getattr(value, name)
    if isinstance(value, tuple):
        return " ".join(f"{part:g}" for part in value)
    return str(value.value if isinstance(value, Enum) else value)


def test_sections_that_docstrings_cite_exist() -> None:
    cited = _cited()
    assert len(cited) >= 30
    assert not [(path, name) for path, name in cited if name not in SECTIONS]
    assert len(set(SECTIONS)) == len(SECTIONS), "a section must be citable by its name alone"


def test_the_tables_are_found() -> None:
    assert len(DEFAULTS) >= 80


@pytest.mark.parametrize(("setting", "default"), DEFAULTS, ids=[setting for setting, _ in DEFAULTS])
def test_defaults_are_those_of_the_code(setting: str, default: str) -> None:
    actual = _default(setting)
    try:
        assert float(actual) == float(default)
    except ValueError:  # not numbers
        assert actual == default
