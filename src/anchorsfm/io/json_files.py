"""JSON files of unknown origin: read without a way to hang or to exhaust the parser, and held against a type.

What a file must hold is said by a dataclass, as the program writes it: `checked(value, Record)` finds the first key
that is missing or has a value of another kind.
"""

import json
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from anchorsfm.io.files import read_regular
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.printable import printable

_DEEPEST = 64
"""Nested lists and objects; what programs write has a dozen."""
_LARGEST_WHOLE = 2**53
_LARGEST = 1e100
"""Numbers beyond cannot be computed with: their squares are infinite."""


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises InputError, naming the file, if it is missing, not a file, not JSON, names a key twice or is nested deeper
    than anything useful.
    """
    try:
        content = read_regular(path)
        value = json.loads(content.decode("utf-8"), object_pairs_hook=_unique)
        if b"\\ud" in content.lower():  # half a character can be written in JSON, but is neither text nor a file name
            json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except RecursionError as error:
        raise InputError(f"{path} is nested too deeply to be read") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    _require_shallow(path, value)
    return value


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{printable(next(name for name in names if names.count(name) > 1))} is there twice")
    return found


def _require_shallow(path: Path, value: Any) -> None:
    level = [value]
    for _ in range(_DEEPEST):
        level = [item for part in level if isinstance(part, (dict, list))
                 for item in (part.values() if isinstance(part, dict) else part)]  # fmt: skip
        if not level:
            return
    raise InputError(f"{path} is nested too deeply to be read")


def read_own(path: Path, kind: type, schema_version: int) -> dict[str, Any] | None:
    """What we wrote beside files of ours that are used again; None if there is nothing, or nothing that can be used.

    Args:
        path: of the file.
        kind: the dataclass that says what it holds; its `schema_version` among it.
        schema_version: that of today; records of others are none.
    """
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = checked(read_json(path), kind)
    except (InputError, ValueError):
        return None
    return content if content["schema_version"] == schema_version else None


def checked(value: Any, kind: Any, where: str = "") -> Any:
    """A JSON value of a type: plain types, unions, tuples for arrays, dictionaries, and dataclasses for objects.

    Keys that a dataclass does not know are kept; those that are missing get its default.

    Raises ValueError that says where what is wrong.
    """
    if kind is Any:
        return value
    if kind is None or kind is type(None):
        return _plain(value, value is None, "null", where)
    if is_dataclass(kind):
        return _object(value, kind, where)
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _one_of(value, parts, where)
    if origin is tuple:
        return _array(value, parts, where)
    if origin in (dict, Mapping):
        _plain(value, isinstance(value, dict), "an object", where)
        return {key: checked(item, parts[1], _key(where, key)) for key, item in value.items()}
    if kind is bool:
        return _plain(value, isinstance(value, bool), "true or false", where)
    if kind is str:
        return _plain(value, isinstance(value, str), "a text", where)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        whole = number and isinstance(value, int) and abs(value) <= _LARGEST_WHOLE
        return _plain(value, whole, "a whole number", where)
    if kind is float:
        return _plain(value, number and math.isfinite(value) and abs(value) <= _LARGEST, "a number", where)
    raise TypeError(f"{kind} is not a type of JSON")


def _plain(value: Any, fits: bool, wanted: str, where: str) -> Any:
    if not fits:
        text = json.dumps(value, ensure_ascii=True)
        raise ValueError(f"{where or 'it'} is {text if len(text) <= 40 else f'{text[:37]}...'} instead of {wanted}")
    return value


def _one_of(value: Any, kinds: tuple[Any, ...], where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    problems = []
    for kind in kinds:
        if kind is not type(None):
            try:
                return checked(value, kind, where)
            except ValueError as error:
                problems.append(error)
    raise problems[0]


def _array(value: Any, kinds: tuple[Any, ...], where: str) -> list[Any]:
    _plain(value, isinstance(value, list), "a list", where)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(value) != len(kinds):
        raise ValueError(f"{where or 'it'} has {len(value)} values instead of {len(kinds)}")
    return [checked(item, kind, f"{where}[{row}]") for row, (item, kind) in enumerate(zip(value, kinds, strict=True))]


def _object(value: Any, kind: Any, where: str) -> dict[str, Any]:
    _plain(value, isinstance(value, dict), "an object", where)
    hints, result = _hints(kind), dict(value)
    for field in fields(kind):
        if field.name in value:
            result[field.name] = checked(value[field.name], hints[field.name], _key(where, field.name))
        else:
            result[field.name] = _default(field, _key(where, field.name))
    return result


_hints = cache(get_type_hints)


def _default(field: Field[Any], where: str) -> Any:
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    if default is MISSING:
        raise ValueError(f"{where} is missing")
    return list(default) if isinstance(default, tuple) else default


def _key(where: str, key: str) -> str:
    return f"{where}.{printable(key)}" if where else printable(key)
