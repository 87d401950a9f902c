"""Progress for Python users: bars on terminals and in notebooks, lines elsewhere, nothing by default."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from anchorsfm.api.arguments import describe
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.progress import SILENT, Progress


@contextmanager
def progress_of(value: object) -> Iterator[Progress]:
    """What the argument `progress` asks for: None or False nothing, True a display that fits, or one's own `Progress`.

    Raises InputError for anything else.
    """
    if value is None or value is False:
        yield SILENT
    elif isinstance(value, Progress):
        yield value
    elif value is True:
        from anchorsfm.terminal import Terminal, show_progress

        # rich's bars need ipywidgets in a notebook; lines do without
        with show_progress(
            Terminal(notebook=_in_notebook() and find_spec("ipywidgets") is not None), quiet=False
        ) as bars:
            yield bars
    else:
        raise InputError(f"progress: expected True, False or an anchorsfm.Progress, not {describe(value)}")


def _in_notebook() -> bool:
    """Whether the code runs in a Jupyter kernel."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"
