"""Names for copies of photographs that lie in one folder.

Some readers look up photographs by the last part of their path, by what precedes the first dot in it, or by the name
without its extension; text files separate fields by spaces; some file systems do not tell upper from lower case. So
a copy has one path component, only letters, digits, `_`, `-` and the extension's dot, and no two copies differ by case
or extension alone.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

_UNSAFE = re.compile(r"[^\w-]+")


def flat_names(names: Sequence[str], suffix: Callable[[str], str]) -> tuple[str, ...]:
    """A unique name for the copy of every image, the same for the same set of names.

    `a/b.jpg` becomes `a_b.jpg`. Where two images would get one name, an image that had it already keeps it, and the
    others, in the order of their names, get `-2`, `-3`, ... before the extension.

    Args:
        names: different paths relative to the folder of the photographs, with `/`.
        suffix: extension of the copy, with its dot, by the name of the image.
    """
    stems = [_stem(name) for name in names]
    chosen: dict[int, str] = {}
    taken: set[str] = set()
    order = sorted(range(len(names)), key=lambda k: (stems[k] + suffix(names[k]) != names[k], names[k]))
    for k in order:
        stem, number = stems[k], 1
        while stem.casefold() in taken:
            number += 1
            stem = f"{stems[k]}-{number}"
        taken.add(stem.casefold())
        chosen[k] = stem + suffix(names[k])
    return tuple(chosen[k] for k in range(len(names)))


def without_spaces(names: Sequence[str]) -> tuple[str, ...]:
    """Names that a text file with fields separated by spaces can hold; only names with white space change."""
    taken = {name for name in names if not re.search(r"\s", name)}
    result = []
    for name in names:
        candidate, number = re.sub(r"\s+", "_", name), 1
        while candidate != name and candidate in taken:
            number += 1
            path = PurePosixPath(re.sub(r"\s+", "_", name))
            candidate = path.with_name(f"{path.stem}-{number}{path.suffix}").as_posix()
        taken.add(candidate)
        result.append(candidate)
    return tuple(result)


def _stem(name: str) -> str:
    return _UNSAFE.sub("_", PurePosixPath(name).with_suffix("").as_posix()) or "_"
