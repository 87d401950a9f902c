"""The documentation builds, its links lead somewhere, and what it tells users to type exists."""

import re
from pathlib import Path
from typing import get_args

import pytest

from anchorsfm.cli import Command, main

ROOT = Path(__file__).resolve().parents[1]
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = [get_args(command)[1].name for command in get_args(Command)]
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9.-]*[a-z0-9]")


@pytest.fixture(scope="module")
def options() -> dict[str, set[str]]:
    """Long options of every command, from its help."""
    import contextlib
    import io
    import os

    found = {}
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "200"
    try:
        for command in COMMANDS:
            text = io.StringIO()
            with contextlib.redirect_stdout(text), pytest.raises(SystemExit):
                main([command, "--help"])
            found[command] = set(OPTION.findall(text.getvalue()))
    finally:
        os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)
    return found


def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path), strict=True))
    assert (tmp_path / "index.html").is_file()


def test_every_command_has_a_page() -> None:
    assert {page.stem for page in (ROOT / "docs" / "commands").glob("*.md")} == set(COMMANDS)


def test_links_of_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)", (ROOT / "README.md").read_text())
    local = [link for link in links if "://" not in link]
    assert local
    assert not [link for link in local if not (ROOT / link).exists()]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_commands_and_options_exist(path: Path, options: dict[str, set[str]]) -> None:
    text = path.read_text().replace("\\\n", " ")
    for line in re.findall(r"(?:^|`|&& |then )\s*(?:\.venv/bin/)?anchorsfm ([^`\n]*)", text, re.MULTILINE):
        command, *rest = line.split()
        if command in ("--version", "--tyro-write-completion"):
            continue
        assert command in options, f"{path.name}: anchorsfm {line}"
        wrong = set(OPTION.findall(" ".join(rest).split("#")[0])) - options[command]
        assert not wrong, f"{path.name}: anchorsfm {line}"
    every = set().union(*options.values())
    inline = {
        option for code in re.findall(r"`([^`\n]+)`", text) if code.startswith("--") for option in OPTION.findall(code)
    }
    assert not inline - every, path.name
