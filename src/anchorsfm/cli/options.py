"""The options of a command as data: what its dataclass declares, read as tyro reads it."""

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterator
from enum import Enum
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro

from anchorsfm.scene.settings import OneOf, Settings, closest


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
    """An option or a positional argument."""

    name: str
    """With dashes, such as --align.lr1; without for a positional argument."""
    others: tuple[str, ...]
    """More spellings: short ones, and that which switches it off."""
    help: str
    """The docstring of its field, on one line."""
    default: Any
    """dataclasses.MISSING where it must be given."""
    kind: Any
    """Type of a value; of an item, where it takes several."""
    choices: tuple[str, ...]
    """The values there are; empty where they are not a few strings."""
    takes_several: bool

    @property
    def is_positional(self) -> bool:
        """Whether it has no name on the command line."""
        return not self.name.startswith("-")

    @property
    def is_switch(self) -> bool:
        """Whether it takes no value."""
        return self.kind is bool


def options_of(command: type[Any]) -> tuple[Option, ...]:
    """All options of a command, those of its nested settings included."""
    return tuple(_options(command, None, ""))


def names_of(command: type[Any]) -> dict[str, Option]:
    """The options of a command by every spelling."""
    return {
        name: option for option in options_of(command) for name in (option.name, *option.others) if name.startswith("-")
    }


def nearest(wanted: str, command: type[Any]) -> list[str]:
    """The options that an unknown one may mean: those with the same last word, or else the one spelt most like it."""
    names = [name for name in names_of(command) if name.startswith("--")]
    last_word = wanted.lstrip("-").split(".")[-1]
    same = [name for name in names if name.lstrip("-").split(".")[-1] == last_word]
    if same:
        return same
    plain = {name.lstrip("-"): name for name in names}
    last_words = {name.lstrip("-").split(".")[-1]: name for name in reversed(names)}
    near = plain.get(closest(wanted.lstrip("-"), plain) or "") or last_words.get(closest(last_word, last_words) or "")
    return [near] if near else []


def _options(kind: Any, value: Settings | None, prefix: str) -> Iterator[Option]:
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        base, marks = _parts(hints[field.name])
        if tyro.conf.Suppress in marks:
            continue
        default = _default(field) if value is None else getattr(value, field.name)
        given = next((mark.name for mark in marks if getattr(mark, "name", None) is not None), None)
        word = (field.name if given is None else given).replace("_", "-")
        if isinstance(base, type) and issubclass(base, Settings):
            yield from _options(base, default, f"{prefix}{word}." if word else prefix)
            continue
        several = get_origin(base) is tuple
        if several:
            base, more = _parts(get_args(base)[0])
            marks += more
        positional = tyro.conf.Positional in marks
        others = tuple(alias for mark in marks for alias in getattr(mark, "aliases", None) or ())
        if base is bool and tyro.conf.FlagCreatePairsOff not in marks:
            others += (f"--{prefix}no-{word}",)
        yield Option(
            name=word if positional else f"--{prefix}{word}",
            others=others,
            help=help_of(kind).get(field.name, ""),
            default=default,
            kind=base,
            choices=_choices(base, marks),
            takes_several=several,
        )


def _parts(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """The type in an annotation, without None, and what is declared beside it."""
    marks: tuple[Any, ...] = ()
    while True:
        if get_origin(hint) is Annotated:
            hint, *more = get_args(hint)
            marks += tuple(more)
        elif type(None) in get_args(hint):
            hint = next(part for part in get_args(hint) if part is not type(None))
        else:
            return hint, marks


def _choices(kind: Any, marks: tuple[Any, ...]) -> tuple[str, ...]:
    if get_origin(kind) is Literal:
        return get_args(kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return tuple(member.value for member in kind)
    return next((mark.allowed for mark in marks if isinstance(mark, OneOf)), ())


def _default(field: "dataclasses.Field[Any]") -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


@cache
def help_of(kind: type[Any]) -> dict[str, str]:
    """The docstring of every field, inherited ones included."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(definition, ast.ClassDef)
        for field, text in pairwise(definition.body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                assert isinstance(field.target, ast.Name)
                found[field.target.id] = " ".join(str(text.value.value).split())
    return found
