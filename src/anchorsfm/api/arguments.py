"""Checks of what Python users pass: every message names the argument, what came, and what is expected."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from anchorsfm.scene.errors import InputError
from anchorsfm.scene.settings import closest

Value = TypeVar("Value")


class UnknownNameError(InputError, KeyError):
    """A name that a mapping does not have; also a KeyError, so that `get` and `in` work as they do elsewhere."""

    def __str__(self) -> str:
        return str(self.args[0])


class ByName(Mapping[str, Value]):
    """A mapping by image name whose error says which names there are."""

    def __init__(self, values: Mapping[str, Value], what: str) -> None:
        """`what` describes the keys in messages, such as "registered image"."""
        self._values = dict(values)
        self._what = what

    def __getitem__(self, name: str) -> Value:
        try:
            return self._values[name]
        except (KeyError, TypeError):
            raise UnknownNameError(f"no {self._what} {name!r}{_hint(name, self._values)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<{len(self)} by {self._what}: {_listed(self._values)}>"


def choice(argument: str, value: object, allowed: Iterable[str]) -> Any:
    """One of some strings. Raises InputError with what there is."""
    allowed = tuple(allowed)
    if isinstance(value, str) and value in allowed:
        return value
    near = closest(value, allowed)
    hint = f"did you mean {near!r}? " if near else ""
    raise InputError(f"{argument} = {short(value)}: {hint}choose one of {', '.join(allowed)}")


def path(argument: str, value: object) -> Path:
    """A path from a string or path. Raises InputError for others and for empty ones."""
    if not isinstance(value, (str, os.PathLike)):
        raise InputError(f"{argument} must be a path (str or Path), not {describe(value)}")
    text = os.fspath(value)
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise InputError(f"{argument} = {text!r}: expected the path of a file or folder")
    return Path(text).expanduser()


def flag(argument: str, value: object) -> bool:
    """A truth value. Raises InputError for anything but True and False: "no" would count as True."""
    if not isinstance(value, (bool, np.bool_)):
        raise InputError(f"{argument} = {short(value)}: expected True or False")
    return bool(value)


def number(argument: str, value: object, *, low: float = -np.inf, high: float = np.inf, above: bool = False) -> float:
    """A finite number from `low` (above it, with `above`) to `high`."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise InputError(f"{argument} = {short(value)}: expected a number")
    result = float(value)
    if not (np.isfinite(result) and low <= result <= high and not (above and result == low)):
        bounds = f"more than {low:g}" if above else f"at least {low:g}" if low > -np.inf else "a finite number"
        upper = f" and at most {high:g}" if high < np.inf else ""
        raise InputError(f"{argument} = {short(value)}: expected {bounds}{upper}")
    return result


def whole(argument: str, value: object, *, low: int, high: int | None = None) -> int:
    """A whole number from `low` to `high`."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise InputError(f"{argument} = {short(value)}: expected a whole number")
    if value < low or (high is not None and value > high):
        bounds = f"at least {low}" if high is None else f"{low} .. {high}"
        raise InputError(f"{argument} = {value}: expected {bounds}")
    return int(value)


def numbers(argument: str, value: object, axes: str, *, finite: bool = True) -> np.ndarray:
    """An array of float64 from an array, a torch tensor or nested sequences.

    `axes` names the axes, separated by blanks; one that is a number must have that length: "match 2".

    Raises InputError, naming the axes, for another shape, for what is no number, and for NaN and infinities if
    `finite`.
    """
    array = plain_array(argument, value)
    if array.dtype.kind not in "iuf":
        raise InputError(f"{argument}: expected numbers ({axes_text(axes)}), not {array.dtype}")
    names = axes.split()
    fits = array.ndim == len(names) and all(
        not name.isdecimal() or int(name) == length for name, length in zip(names, array.shape, strict=True)
    )
    if not fits:
        raise InputError(f"{argument}: expected an array of shape {axes_text(axes)}, got {shape_text(array.shape)}")
    result = array.astype(np.float64)
    if finite and not np.isfinite(result).all():
        bad = int((~np.isfinite(result)).sum())
        raise InputError(f"{argument}: {bad} of {result.size} numbers are NaN or infinite; expected finite ones")
    return result


def plain_array(argument: str, value: object) -> np.ndarray:
    """A numpy array from an array, a torch tensor on any device, or nested sequences of numbers."""
    if isinstance(value, (str, bytes)) or value is None:
        raise InputError(f"{argument}: expected an array, not {describe(value)}")
    if hasattr(value, "detach"):
        tensor: Any = value.detach().cpu()
        value = tensor.float().numpy() if str(tensor.dtype) in ("torch.bfloat16", "torch.float16") else tensor.numpy()
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise InputError(f"{argument}: expected an array of numbers; rows have different lengths") from error
    if array.dtype.kind not in "biuf":
        raise InputError(f"{argument}: expected an array of numbers, not {describe(value)}")
    return array


def image_rows(argument: str, value: object, names: Sequence[str]) -> int:
    """The row of an image that is given by name, by row, or by a dictionary with `idx` (or `instance`)."""
    if isinstance(value, Mapping):
        if "idx" not in value and "instance" not in value:
            raise InputError(f"{argument}: expected a dictionary with idx, found the keys {_listed(value)}")
        value = value.get("idx", value.get("instance"))
    if isinstance(value, os.PathLike):
        value = Path(value).as_posix()
    if isinstance(value, str):
        if value in names:
            return list(names).index(value)
        short_names = [name.rsplit("/", 1)[-1] for name in names]
        last = value.rsplit("/", 1)[-1]
        if short_names.count(last) == 1:
            return short_names.index(last)
        if value.isdecimal() and int(value) < len(names):  # `instance` of the published tools
            return int(value)
        raise InputError(f"{argument}: no image is named {value!r}{_hint(value, names)}")
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise InputError(f"{argument}: expected an image by row, name or dictionary with idx, not {describe(value)}")
    if not 0 <= value < len(names):
        raise InputError(f"{argument}: there is no image {value}, the {len(names)} images are counted from 0")
    return int(value)


def pair_rows(argument: str, value: object, names: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of rows, i < j, sorted, each once, from [(0, 1), ...], names, or dictionaries with `idx`.

    Raises InputError, naming the pair, for anything else, for an image paired with itself, and if there is none.
    """
    expected = "expected pairs such as [(0, 1), (0, 2)], of rows, names or dictionaries with idx"
    if isinstance(value, (str, bytes, Mapping)) or not (isinstance(value, Iterable) or hasattr(value, "index")):
        raise InputError(f"{argument}: {expected}, not {describe(value)}")
    if not isinstance(value, (Sequence, np.ndarray)) and isinstance(getattr(value, "index", None), np.ndarray):
        value = value.index  # a PairList
    if hasattr(value, "detach") or isinstance(value, np.ndarray):
        value = plain_array(argument, value).tolist()
    assert isinstance(value, Iterable)
    row_of = {name: row for row, name in enumerate(names)}
    found = set()
    for number_, pair in enumerate(value):
        place = f"{argument}[{number_}]"
        ends = [] if isinstance(pair, (str, bytes, Mapping)) or not isinstance(pair, Iterable) else list(pair)
        if len(ends) != 2:
            raise InputError(f"{place} = {short(pair)}: {expected}")
        i, j = (
            row_of[end] if isinstance(end, str) and end in row_of else image_rows(place, end, names) for end in ends
        )
        if i == j:
            raise InputError(f"{place}: image {names[i]} is paired with itself")
        found.add((min(i, j), max(i, j)))
    if not found:
        raise InputError(f"{argument} is empty: {expected}")
    return sorted(found)


def axes_text(axes: str) -> str:
    """How a message shows axes."""
    names = axes.split()
    return f"({', '.join(names)})" if len(names) != 1 else f"({names[0]},)"


def shape_text(shape: tuple[int, ...]) -> str:
    """How a message shows a shape."""
    return str(tuple(int(length) for length in shape))


def describe(value: object) -> str:
    """What an argument is, in a few words."""
    if value is None:
        return "None"
    shape = getattr(value, "shape", None)
    kind = type(value).__name__
    if isinstance(shape, tuple) or type(shape).__name__ == "Size":
        return f"{kind} of shape {shape_text(tuple(shape or ()))}"
    return f"{kind} {short(value)}" if isinstance(value, (str, int, float, bool)) else kind


def short(value: object) -> str:
    """A value on one line, cut where it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:56]} ..."


def _hint(name: object, names: Iterable[str]) -> str:
    names = list(names)
    near = closest(name, names)
    return f": did you mean {near!r}?" if near else f"; there are {_listed(names)}"


def _listed(names: Iterable[object]) -> str:
    texts = [str(name) for name in names]
    return ", ".join(texts[:4]) + (f" ... ({len(texts)})" if len(texts) > 4 else "") if texts else "none"
