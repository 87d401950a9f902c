"""Settings by dotted or plain names, as keyword arguments give them."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from anchorsfm.align.config import ADAM_SETTINGS, AlignConfig, Solver
from anchorsfm.scene.errors import InputError, SettingError
from anchorsfm.scene.settings import closest, place_of

Config = TypeVar("Config")


def with_settings(config: Config, settings: Mapping[str, object]) -> Config:
    """The configuration with some settings replaced.

    A setting is named by its dotted name (`align.lr1`, also with two underscores for the dot) or, where only one group
    has it, by its last word (`kinematic_mode`). Settings that only Adam has choose Adam unless `solver` is given.

    Raises InputError, naming the setting, for a name that does not exist or is ambiguous, and for values that a setting
    does not take.
    """
    names = setting_names(config)
    changes: dict[str, Any] = {}
    for given, value in settings.items():
        *groups, last = full_name(given, names).split(".")
        part = changes
        for group in groups:
            part = part.setdefault(group, {})
        part[last] = value
    try:
        return _replaced(config, changes)
    except SettingError as error:
        place = place_of(error.owner, type(config))
        dotted = ".".join([*(place or ()), error.setting])
        raise InputError(f"{dotted} = {error.value}: {error.problem}") from None


def full_name(given: str, names: list[str]) -> str:
    """The dotted name that a user means. Raises InputError if there is none, or several."""
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
    hint = f"did you mean {near!r}?" if near else f"there are {', '.join(n for n in names if '.' not in n)}"
    raise InputError(f"there is no setting {given!r}: {hint}")


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


def _replaced(config: Any, changes: Mapping[str, Any]) -> Any:
    """All changes of a group at once, because its settings are checked together."""
    values = {}
    for name, change in changes.items():
        inner = getattr(config, name)
        if is_dataclass(inner) and isinstance(change, dict):
            values[name] = _replaced(inner, change)
        elif is_dataclass(inner) and not isinstance(change, type(inner)):
            raise InputError(
                f"{name} is a group of settings: expected a {type(inner).__name__}, or one of its settings"
            )
        else:
            values[name] = change
    if isinstance(config, AlignConfig) and "solver" not in values and any(name in values for name in ADAM_SETTINGS):
        values["solver"] = Solver.ADAM
    return replace(config, **values)
