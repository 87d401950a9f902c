"""The settings of a run as plain values, for its record."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any


def plain(value: Any) -> Any:
    """Nested dataclasses, enums and paths as what YAML can say."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def changed_settings(config: object, default: object) -> tuple[str, ...]:
    """Dotted names of the settings that are not the default."""
    return tuple(_changed(plain(config), plain(default), ""))


def _changed(value: Any, default: Any, name: str) -> Iterator[str]:
    if isinstance(value, dict) and isinstance(default, dict):
        for key, item in value.items():
            yield from _changed(item, default.get(key), f"{name}.{key}" if name else key)
    elif value != default:
        yield name
