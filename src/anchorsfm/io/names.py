"""Names of files that come out of files: records, models and reports may be damaged or made by somebody else."""

import re
from collections.abc import Iterable
from pathlib import Path, PurePath

from anchorsfm.scene.errors import InputError
from anchorsfm.scene.printable import printable

_UNUSUAL = re.compile(r"[^\w.()+ -]")
"""What file systems, models or terminals may not take in a name; also bytes that are not UTF-8."""
_LONGEST = 100


def plain_stem(name: str, otherwise: str) -> str:
    """The name of a file without its extension, fit to name files of ours; `otherwise`: if nothing is left of it."""
    return _UNUSUAL.sub("_", PurePath(name).stem)[:_LONGEST].strip(". ") or otherwise


def is_inside(name: object) -> bool:
    """Whether a name leads to something below the folder it is relative to, wherever that lies: no `..`, not absolute.

    Links are not looked at.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        return False
    path = PurePath(name)  # on Windows with drives and both kinds of slash
    return not path.anchor and ".." not in path.parts and bool(path.parts)


def require_inside(names: Iterable[object], source: Path) -> None:
    """Raise InputError, which names the file the names come from, if one of them leads out of its folder."""
    for name in names:
        if not is_inside(name):
            raise InputError(f"{source} names a file outside its folder ({printable(str(name))[:200]!r}): not used")
