"""Settings by dotted or plain names, as keyword arguments give them."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from anchorsfm.api.arguments import closest
from anchorsfm.scene.errors import InputError

Config = TypeVar("Config")


def with_settings(config: Config, settings: Mapping[str, object]) -> Config:
    """The configuration with some settings replaced.

    A setting is named by its dotted name (`align.lr1`, also with two underscores for the dot) or, where only one group
    has it, by its last word (`kinematic_mode`).

    Raises InputError for a name that does not exist or is ambiguous, and for values that a setting does not take.
    """
    names = setting_names(config)
    for given, value in settings.items():
        config = _replaced(config, _full_name(given, names).split("."), value)
    return config


def setting_names(config: object) -> list[str]:
    """Dotted names of all settings, those of the configuration itself first."""
    assert is_dataclass(config)
    own, below = [], []
    for field in fields(config):
        value = getattr(config, field.name)
        own.append(field.name)
        if is_dataclass(value):
            below += [f"{field.name}.{name}" for name in setting_names(value)]
    return own + below


def _full_name(given: str, names: list[str]) -> str:
    name = given.replace("__", ".").replace("-", "_")
    if name in names:
        return name
    candidates = [full for full in names if full.endswith(f".{name}")]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise InputError(f"the setting {given!r} is ambiguous: use one of {', '.join(candidates)}")
    last_words = {full.rsplit(".", 1)[-1]: full for full in reversed(names)}
    near = closest(name, names) or last_words.get(closest(name.rsplit(".", 1)[-1], last_words) or "")
    hint = f": did you mean {near!r}?" if near else "; config.yaml of a run lists all"
    raise InputError(f"there is no setting {given!r}{hint}")


def _replaced(config: Any, name: list[str], value: object) -> Any:
    first, *rest = name
    inner = getattr(config, first)
    if rest:
        return replace(config, **{first: _replaced(inner, rest, value)})
    if is_dataclass(inner) and not isinstance(value, type(inner)):
        raise InputError(f"{first} is a group of settings: expected a {type(inner).__name__}, or name one of {first}.…")
    return replace(config, **{first: value})
