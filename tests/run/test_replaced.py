"""What is said before a result replaces one that other commands have changed."""

import json
from pathlib import Path

import pytest

from anchorsfm.io.layout import Layout
from anchorsfm.run.replaced import undone
from finished_run import write_finished_run


@pytest.fixture
def output(tmp_path: Path) -> Path:
    write_finished_run(tmp_path / "out")
    return tmp_path / "out"


def test_what_other_commands_did_is_named(output: Path, tmp_path: Path) -> None:
    assert undone(output) == [] and undone(tmp_path / "none") == []
    layout = Layout(output)
    layout.transform.write_text("{}")
    (line,) = undone(output)
    assert str(output) in line and "anchorsfm transform" in line
    report = json.loads(layout.report.read_text())
    report["extensions"] = [{"command": "extend", "sources": ["more"], "added": 3, "kept_poses": True}]
    layout.report.write_text(json.dumps(report))
    line, _ = undone(output)
    assert "by 3 photographs (more)" in line and "anchorsfm extend" in line


def test_a_result_that_cannot_be_read_is_not_spoken_of(output: Path) -> None:
    Layout(output).transform.write_text("{}")
    Layout(output).report.write_text("[")
    assert undone(output) == []
