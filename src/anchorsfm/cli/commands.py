"""Which commands there are."""

from collections.abc import Mapping
from typing import Annotated, Any, Union

import tyro

from anchorsfm.cli.demo import Demo
from anchorsfm.cli.evaluate import Evaluate
from anchorsfm.cli.export import Export
from anchorsfm.cli.extend import Extend
from anchorsfm.cli.frames import Frames
from anchorsfm.cli.index import Index
from anchorsfm.cli.localise import Localise
from anchorsfm.cli.merge import Merge
from anchorsfm.cli.reconstruct import Reconstruct
from anchorsfm.cli.report import Report
from anchorsfm.cli.transform import Transform
from anchorsfm.cli.triangulate import Triangulate
from anchorsfm.cli.view import View
from anchorsfm.cli.weights import Weights

Command = (
    Reconstruct
    | Extend
    | Merge
    | Frames
    | View
    | Export
    | Index
    | Localise
    | Triangulate
    | Transform
    | Report
    | Evaluate
    | Demo
    | Weights
)

COMMANDS: Mapping[str, type[Command]] = {
    "reconstruct": Reconstruct,
    "extend": Extend,
    "merge": Merge,
    "frames": Frames,
    "view": View,
    "export": Export,
    "index": Index,
    "localise": Localise,
    "triangulate": Triangulate,
    "transform": Transform,
    "report": Report,
    "evaluate": Evaluate,
    "demo": Demo,
    "weights": Weights,
}
"""By the names that users type, in the order of the help."""


def all_commands() -> Any:
    """One type of all commands, as tyro takes it for the scripts that complete names in a shell."""
    return Union[tuple(Annotated[kind, tyro.conf.subcommand(name)] for name, kind in COMMANDS.items())]  # noqa: UP007
