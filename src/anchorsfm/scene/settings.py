"""What a configuration declares beside its fields, and the check of it when one is made.

A frozen dataclass that derives from `Settings` says in its annotations what each field allows:

    @dataclass(frozen=True, kw_only=True)
    class MatchingConfig(Settings):
        max_ratio: Annotated[float, Range(0.1, 1)] = 0.85
        linkage: Annotated[str, OneOf("ward", "single")] = "ward"

Values are checked for type, for being finite, and against what is declared; what concerns several fields together is
checked by `check_together`. Plain strings are made into enumerations and paths, whole numbers into floats where a float
is expected, and numpy's scalars into Python's, so that equal settings have equal digests.
"""

import dataclasses
import difflib
import math
import operator
import types
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Union, get_args, get_origin, get_type_hints, runtime_checkable

import numpy as np

from anchorsfm.scene.errors import InputError, SettingError

_SHOWN = 60
"""Longest value that a message repeats in full."""


@runtime_checkable
class Constraint(Protocol):
    """What an annotation may declare."""

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value of the right type; None: nothing."""
        ...


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both allowed unless `above` or `below` says that they are not."""

    low: int | float = -math.inf
    high: int | float = math.inf
    above: bool = False
    """Leave out `low` itself."""
    below: bool = False
    """Leave out `high` itself."""

    def problem(self, value: int | float) -> str | None:
        too_low = value <= self.low if self.above else value < self.low
        too_high = value >= self.high if self.below else value > self.high
        return f"must be {self}" if too_low or too_high else None

    def __str__(self) -> str:
        low = f"more than {_number(self.low)}" if self.above else f"at least {_number(self.low)}"
        high = f"less than {_number(self.high)}" if self.below else f"at most {_number(self.high)}"
        if self.low == -math.inf:
            return high
        if self.high == math.inf:
            return low
        ends = f"{_number(self.low)} to {_number(self.high)}"
        return f"{low} and {high}" if self.above or self.below else f"from {ends}"


class OneOf:
    """One of some strings that are known only when the program runs; `Literal` for others."""

    def __init__(self, *allowed: str) -> None:
        self.allowed = allowed

    def problem(self, value: str) -> str | None:
        return None if value in self.allowed else _choose(value, self.allowed)


class NotEmpty:
    """Any text but none."""

    def problem(self, value: str) -> str | None:
        return None if value.strip() else "is empty"


class Parsed:
    """A string in a notation of its own: the parser raises InputError for others."""

    def __init__(self, parser: Callable[[str], object]) -> None:
        self._parser = parser

    def problem(self, value: str) -> str | None:
        try:
            self._parser(value)
        except InputError as error:
            return str(error)
        return None


class Ascending:
    """Two numbers, the first below the second."""

    def problem(self, value: tuple[float, float]) -> str | None:
        return None if value[0] < value[1] else "must ascend: the shortest first"


FocalRange = Annotated[tuple[Annotated[float, Range(0.01, 1000)], Annotated[float, Range(0.01, 1000)]], Ascending()]
"""Shortest and longest focal length over the longer side of the picture."""
TYPICAL_FOCAL = 1.1
"""Focal length over the longer side of the picture that is assumed where nothing is known."""
Threads = Annotated[int, Range(1, 256)]
Seed = Annotated[int, Range(0, 2**31 - 1)]
"""What all random generators take: those of COLMAP have 31 bits."""


class Settings:
    """Base of the configurations: frozen dataclasses whose values are checked when they are made.

    Raises SettingError, an InputError that names the setting, its value and what is allowed.
    """

    def __post_init__(self) -> None:
        kind: Any = type(self)
        for name, hint in _hints(kind).items():
            value = getattr(self, name)
            try:
                checked = _checked(value, hint)
            except _Refused as error:
                raise SettingError(type(self), name, shown(value), str(error)) from None
            if checked is not value:
                object.__setattr__(self, name, checked)
        self.check_together()

    def check_together(self) -> None:
        """What several fields must fulfil together; raises what `refused` returns."""

    def refused(self, setting: str, problem: str) -> SettingError:
        """The error for a field, or a dotted field of a field, in view of the others."""
        return SettingError(type(self), setting, shown(operator.attrgetter(setting)(self)), problem)


def place_of(owner: type, root: type) -> tuple[str, ...] | None:
    """Names of the fields that lead from a configuration to one of its parts; None: it is no part of it."""
    if owner is root:
        return ()
    for name, part in parts_of(root):
        rest = place_of(owner, part)
        if rest is not None:
            return (name, *rest)
    return None


def parts_of(root: type) -> Iterator[tuple[str, type["Settings"]]]:
    """The fields of a configuration that are configurations themselves."""
    for name, hint in _hints(root).items():
        for kind in (hint, *get_args(hint)):
            if isinstance(kind, type) and issubclass(kind, Settings):
                yield name, kind


def shown(value: object) -> str:
    """A value as a message says it: on one line, cut where it is long."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, str) and value.isprintable() and value.split() == [value]:
        return value if len(value) <= _SHOWN else f"{value[: _SHOWN - 4]} ..."
    try:
        text = repr(value)
    except ValueError:  # Python does not print integers of many thousand digits
        return "a number of thousands of digits"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 4]} ..."


def closest(value: object, allowed: Iterable[str]) -> str | None:
    """The allowed string that a misspelt one most probably means: letter case, blanks, - and _ do not count."""

    def plain(text: str) -> str:
        return text.lower().replace("_", "-").replace(" ", "-")

    by_plain = {plain(name): name for name in allowed}
    if not isinstance(value, str):
        return None
    near = difflib.get_close_matches(plain(value), list(by_plain), n=1)
    near = near or [name for name in by_plain if len(value) > 2 and name.startswith(plain(value))]
    return by_plain[near[0]] if near else None


class _Refused(Exception):
    """What is wrong with a value."""


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _checked(value: Any, hint: Any) -> Any:
    """The value as the hint's type; raises _Refused."""
    origin = get_origin(hint)
    if origin is Annotated:
        kind, *declared = get_args(hint)
        value = _checked(value, kind)
        for constraint in declared:
            if isinstance(constraint, Constraint) and value is not None:
                problem = constraint.problem(value)
                if problem is not None:
                    raise _Refused(problem)
        return value
    if origin in (Union, types.UnionType):
        kinds = get_args(hint)
        if value is None and type(None) in kinds:
            return None
        (kind,) = (kind for kind in kinds if kind is not type(None))
        return _checked(value, kind)
    if origin is Literal:
        allowed = get_args(hint)
        if not isinstance(value, str) or value not in allowed:
            raise _Refused(_choose(value, allowed))
        return value
    if origin is tuple:
        return _checked_tuple(value, get_args(hint))
    return _checked_plain(value, hint)


def _checked_tuple(value: Any, kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    if not isinstance(value, (tuple, list, np.ndarray)):
        raise _Refused("must be a sequence")
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(value) != len(kinds):
        raise _Refused(f"must have {len(kinds)} elements")
    checked = tuple(_checked(item, kind) for item, kind in zip(value, kinds, strict=True))
    unchanged = isinstance(value, tuple) and all(a is b for a, b in zip(checked, value, strict=True))
    return tuple(value) if unchanged else checked


def _checked_plain(value: Any, kind: Any) -> Any:
    if kind is bool:
        if not isinstance(value, (bool, np.bool_)):
            raise _Refused("must be True or False")
        return bool(value)
    if kind in (int, float):
        return _checked_number(value, kind)
    if kind is Path:
        return _checked_path(value)
    if issubclass(kind, Enum):
        if isinstance(value, kind):
            return value
        allowed = [member.value for member in kind]
        if not isinstance(value, str) or isinstance(value, Enum) or value not in allowed:
            raise _Refused(_choose(value, allowed))
        return kind(value)
    if not isinstance(value, kind):
        raise _Refused("must be a string" if kind is str else f"must be a {kind.__name__}")
    return value


def _checked_number(value: Any, kind: type) -> int | float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise _Refused("must be a whole number" if kind is int else "must be a number")
    if kind is int:
        if not isinstance(value, (int, np.integer)):
            raise _Refused("must be a whole number")
        return int(value)
    try:
        number = float(value)
    except OverflowError:
        raise _Refused("is too large") from None
    if not math.isfinite(number):
        raise _Refused("must be a finite number")
    return number


def _checked_path(value: Any) -> Path:
    if not isinstance(value, (str, Path)):
        raise _Refused("must be a path")
    if value == "":
        raise _Refused("is empty: name a file or folder")
    if "\0" in str(value):
        raise _Refused("holds a character that no path has")
    return Path(value)


def _choose(value: object, allowed: "tuple[str, ...] | list[str]") -> str:
    near = closest(value, allowed)
    hint = f"did you mean {near}? " if near else ""
    return f"{hint}choose one of {', '.join(allowed)}"


def _number(value: int | float) -> str:
    return f"{value:,}".replace(",", " ") if isinstance(value, int) and value >= 10000 else f"{value:g}"
