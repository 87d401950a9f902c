"""The documentation builds, its links lead somewhere, and what it tells users to type exists."""

import re
from pathlib import Path

import pytest

from anchorsfm.cli.commands import COMMANDS
from anchorsfm.cli.options import names_of

ROOT = Path(__file__).resolve().parents[1]
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9.-]*[a-z0-9]")


@pytest.fixture(scope="module")
def options() -> dict[str, set[str]]:
    """Long options of every command."""
    return {name: {"--help", "--help-all", *names_of(kind)} for name, kind in COMMANDS.items()}


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
        if command in ("--version", "--help", "--tyro-write-completion"):
            continue
        assert command in options, f"{path.name}: anchorsfm {line}"
        wrong = set(OPTION.findall(" ".join(rest).split("#")[0])) - options[command]
        assert not wrong, f"{path.name}: anchorsfm {line}"
    every = set().union(*options.values())
    inline = {
        option for code in re.findall(r"`([^`\n]+)`", text) if code.startswith("--") for option in OPTION.findall(code)
    }
    assert not inline - every, path.name
