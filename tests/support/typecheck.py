"""The run-time type checker of the tests: beartype, except for configurations.

Those check their values themselves, convert what is unambiguous (`solver="adam"`), and must do so in the tests as well.
"""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from beartype import beartype


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    strict = beartype(function)
    if getattr(function, "__name__", "") != "__init__":
        return strict

    @wraps(function)
    def init(self: Any, *args: Any, **keywords: Any) -> Any:
        return (function if _is_configuration(self) else strict)(self, *args, **keywords)

    return init


def _is_configuration(made: object) -> bool:
    settings = getattr(sys.modules.get("anchorsfm.scene.settings"), "Settings", None)
    return settings is not None and isinstance(made, settings)
