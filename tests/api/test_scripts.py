"""The scripts of docs/python do what their pages say."""

import runpy
import sys
from pathlib import Path

import pytest

import anchorsfm
from tiny_network import MAST3R, write_weights

SCRIPTS = Path(__file__).resolve().parents[2] / "docs" / "python"
NAMES = ("reconstruct", "alignment", "matches", "frontend", "network")


@pytest.mark.parametrize("name", NAMES)
def test_a_script_runs_and_is_short(name, workplace, tmp_path, monkeypatch, capsys):
    path = SCRIPTS / f"{name}.py"
    assert len(path.read_text().splitlines()) <= 15 and (SCRIPTS / f"{name}.md").is_file()
    assert f'--8<-- "{name}.py"' in (SCRIPTS / f"{name}.md").read_text()
    more = []
    if name == "network":
        more = [write_weights(tmp_path / "net", MAST3R)]
        monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(sys, "argv", [str(path), *more])
    runpy.run_path(str(path), run_name="__main__")
    printed = capsys.readouterr().out
    written = {"reconstruct": "exported", "alignment": "aligned", "matches": "from-matches", "frontend": "out-mine"}
    if name in written:
        model = anchorsfm.load(workplace / written[name])
        assert len(model) == 4 and len(model.points) > 50
    assert {
        "reconstruct": "<Model: 4 of 4 images",
        "alignment": "<Alignment: 4 images",
        "matches": "<Model: 4 of 4 images",
        "frontend": "<Model: 4 of 4 images",
        "network": "pairs at once",
    }[name] in printed


def test_every_script_is_tested():
    assert {path.stem for path in SCRIPTS.glob("*.py")} == {
        "reconstruct",
        "alignment",
        "matches",
        "frontend",
        "network",
    }
