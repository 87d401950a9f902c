"""What progress shows on a terminal, and where nobody looks on."""

import sys
import threading
import time
from typing import Any

import pytest

from anchorsfm.scene.progress import RecordingProgress
from anchorsfm.terminal import Terminal, show_progress


@pytest.mark.parametrize("quiet", [False, True])
def test_lines_show_what_stages_come_to_and_warnings_always(quiet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress(Terminal(), quiet=quiet) as progress:
        with progress.stage("fine alignment", 3) as advance:
            progress.status("loss 1.5")
            advance(3)
        progress.note("fine alignment: loss 2 -> 1 [/b]")
        progress.warn("a.jpg is damaged")
    shown = ["fine alignment (3)", "fine alignment: loss 2 -> 1 [/b]"]
    assert capsys.readouterr().out.splitlines() == [*([] if quiet else shown), "warning: a.jpg is damaged"]


def test_what_only_understands_colours_gets_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with show_progress(Terminal(), quiet=False) as progress, progress.stage("fine alignment", 3) as advance:
        advance(3)
    assert capsys.readouterr().out == "fine alignment (3)\n"


def test_lines_of_a_long_stage_say_where_it_stands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(0, 1000, 6))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(now)))
    with show_progress(Terminal(), quiet=False) as inner:
        progress = RecordingProgress(inner)
        with progress.stage("fine alignment", 4) as advance:
            for loss in (0.5, 0.25):
                progress.status(f"loss {loss}")
                advance(1)
        progress.whole(130.0)
        with progress.stage("fusing depth", 4) as advance:
            advance(1)
            advance(1)
    assert capsys.readouterr().out.splitlines() == [
        "fine alignment (4)",
        "fine alignment: 2 of 4, loss 0.25, about 10 s left",
        "fusing depth (4)",
        "fusing depth: 2 of 4, about 2 min left in all",
    ]


def test_bars_show_the_latest_status_of_the_running_stage(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    with show_progress(Terminal(), quiet=False) as progress:
        progress.status("of no stage")
        with progress.stage("coarse alignment", 2) as advance:
            progress.status("loss [0.5]")
            progress._bars.refresh()  # type: ignore[attr-defined]
            progress.status("loss \x1b[0.25]")
            advance(1)
            progress._bars.refresh()  # type: ignore[attr-defined]
            during = capsys.readouterr().out
        with progress.stage("fine alignment", 2):
            pass
    after = capsys.readouterr().out
    assert "of no stage" not in during + after
    assert "loss [0.5]" in during and "loss \\x1b[0.25]" in during and "1/2" in during
    assert "fine alignment" in after and "loss" not in after


def test_the_last_bars_say_what_was_done(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    with show_progress(Terminal(), quiet=False) as progress:
        with progress.stage("fine alignment", 300) as advance:
            progress.whole(50.0)
            advance(7)
            advance(5)
        capsys.readouterr()
    last = capsys.readouterr().out
    assert "12/12" in last and "the whole run" not in last and "300" not in last


def test_bars_in_a_notebook_are_drawn_by_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would draw into the widget, with whatever is printed meanwhile, and wipe that out."""
    drawn: list[str] = []

    def refresh(bars: Any) -> None:
        assert threading.current_thread() is threading.main_thread()
        drawn.append(" ".join(f"{task.description} {task.completed:g}/{task.total:g}" for task in bars.tasks))

    now = iter(range(1000))
    monkeypatch.setattr("anchorsfm.terminal.RichProgress.refresh", refresh)
    monkeypatch.setattr("anchorsfm.terminal.RichProgress.start", lambda bars: None)
    monkeypatch.setattr("anchorsfm.terminal.RichProgress.stop", lambda bars: None)
    monkeypatch.setattr(time, "monotonic", lambda: 0.15 * next(now))
    with show_progress(Terminal(notebook=True), quiet=False) as progress, progress.stage("fusing depth", 4) as advance:
        for _ in range(4):
            advance(1)
    assert drawn[0] == "fusing depth 0/4" and drawn[-1] == "fusing depth 4/4" and 3 <= len(drawn) <= 6
