"""The settings of a run as plain values, for its record, and read back from there."""

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from anchorsfm.run.config import PipelineConfig
from anchorsfm.scene.errors import InputError, SettingError
from anchorsfm.scene.settings import closest, parts_of, place_of, shown

SURROUNDINGS = ("ray", "cache_url")
"""Settings of where a run was made, which need not be there for another one: its cluster, the URL of its cache."""
_MAX_BYTES = 1_000_000
"""Records are a few kilobytes."""


def plain(value: Any) -> Any:
    """A value of settings as YAML has it, all that it holds included.

    Dataclasses become dictionaries by the names of their fields, enumerations their values, paths strings, lists and
    tuples lists. Everything else is returned as it is: None, truth values, numbers and strings, which is all that
    settings hold beside.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def read_config(path: Path, without: Sequence[str] = ()) -> PipelineConfig:
    """The settings in the record of a run, OUT/config.yaml; those that it lacks have their defaults.

    without: dotted names of settings that have their defaults whatever the record says, such as those of a machine that
        this one is not.

    Raises InputError, naming the file, if it cannot be read, is no such record, or has a setting that does not exist or
    a value that is not allowed.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise InputError(f"{path} is no file: give the config.yaml of a run")
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise InputError(f"{path} is too large for the settings of a run: give the config.yaml of one")
        values = yaml.safe_load(content)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; give the config.yaml of a run") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise InputError(f"{path} is no YAML file: give the config.yaml of a run") from None
    try:
        return _configured(PipelineConfig, values, path, (), frozenset(without))
    except SettingError as error:
        setting = ".".join([*(place_of(error.owner, PipelineConfig) or ()), error.setting])
        raise InputError(f"{path}: {setting} = {error.value}: {error.problem}") from None


def _configured(kind: type[Any], values: object, path: Path, place: tuple[str, ...], without: frozenset[str]) -> Any:
    if not isinstance(values, dict):
        what = f"{'.'.join(place)} holds no settings" if place else "holds no settings of a run"
        raise InputError(f"{path}: {what}: give the config.yaml of a run")
    names, parts = [field.name for field in fields(kind)], dict(parts_of(kind))
    for name in values:
        if name not in names:
            near = closest(name, names)
            hint = f"did you mean {near}?" if near else "give the config.yaml of a run"
            raise InputError(f"{path}: there is no setting {shown('.'.join([*place, str(name)]))}: {hint}")
    return kind(
        **{
            name: _configured(parts[name], value, path, (*place, name), without) if name in parts else value
            for name, value in values.items()
            if ".".join([*place, name]) not in without
        }
    )


def changed_settings(config: object, default: object) -> tuple[str, ...]:
    """Dotted names of the settings that are not the default."""
    return tuple(_changed(plain(config), plain(default), ""))


def _changed(value: Any, default: Any, name: str) -> Iterator[str]:
    if isinstance(value, dict) and isinstance(default, dict):
        for key, item in value.items():
            yield from _changed(item, default.get(key), f"{name}.{key}" if name else key)
    elif value != default:
        yield name
