"""Progress for Python users: bars on terminals and in notebooks, lines elsewhere, nothing by default."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from anchorsfm.api.arguments import describe
from anchorsfm.run.display import shown_progress
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
        from rich.console import Console

        # rich's bars need ipywidgets in a notebook; lines do without
        bars = _in_notebook() and find_spec("ipywidgets") is not None
        with shown_progress(Console(file=sys.stdout, soft_wrap=True, force_jupyter=bars or None)) as progress:
            yield progress
    else:
        raise InputError(f"progress: expected True, False or an anchorsfm.Progress, not {describe(value)}")


def _in_notebook() -> bool:
    """Whether the code runs in a Jupyter kernel."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"
