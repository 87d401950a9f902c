"""What progress shows on a terminal, and where nobody looks on."""

import time

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
        with progress.stage("fusing depth", 4) as advance:
            advance(1)
            advance(1)
    assert capsys.readouterr().out.splitlines() == [
        "fine alignment (4)",
        "fine alignment: 2 of 4, loss 0.25, about 12 s left",
        "fusing depth (4)",
        "fusing depth: 2 of 4, about 12 s left",
    ]


def test_bars_show_the_latest_status_of_the_running_stage(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
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
