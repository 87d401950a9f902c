"""What progress shows where nobody looks on."""

import pytest

from anchorsfm.terminal import Terminal, show_progress


@pytest.mark.parametrize("quiet", [False, True])
def test_lines_show_what_stages_come_to_and_warnings_always(quiet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress(Terminal(), quiet=quiet) as progress:
        with progress.stage("fine alignment", 3) as advance:
            advance(3)
        progress.note("fine alignment: loss 2 -> 1 [/b]")
        progress.warn("a.jpg is damaged")
    shown = ["fine alignment (3)", "fine alignment: loss 2 -> 1 [/b]"]
    assert capsys.readouterr().out.splitlines() == [*([] if quiet else shown), "warning: a.jpg is damaged"]
