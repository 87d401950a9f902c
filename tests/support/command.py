"""The command line in processes of its own, as a user meets it."""

import subprocess
import sys

COMMAND = [sys.executable, "-m", "anchorsfm"]
QUICK = ("--classical.dense.size", "200", "--align.niter1", "60", "--align.niter2", "60")
"""Settings that make a run short; what the tests that take it look at does not depend on them."""


def anchorsfm(*arguments, **options) -> subprocess.CompletedProcess:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


def assert_one_clear_line(result: subprocess.CompletedProcess, *words: str) -> None:
    assert result.returncode == 2, result.stdout + result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    for word in words:
        assert word in lines[0]
