"""Lint, format, types and the layer contract are part of the test command."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = Path(sys.executable).parent


def run(*command: str) -> None:
    program = shutil.which(command[0], path=str(TOOLS)) or shutil.which(command[0])
    assert program, f"{command[0]} is not installed: pip install -c constraints.txt -e '.[dev]'"
    result = subprocess.run([program, *command[1:]], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("mypy",),
        ("lint-imports",),
    ],
    ids=["lint", "format", "types", "layers"],
)
def test_quality(command: tuple[str, ...]) -> None:
    run(*command)


def test_import_is_silent_and_light() -> None:
    code = (
        "import sys, anchorsfm; "
        "heavy = {'torch', 'cv2', 'pycolmap', 'scipy'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
