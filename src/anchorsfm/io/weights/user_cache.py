"""What is kept between runs, for all folders of a user: weights, their digests, terms that were accepted."""

import os
from pathlib import Path
from typing import Any

from anchorsfm.io.json_files import read_json as read_json_file
from anchorsfm.io.store import to_json, write_atomic
from anchorsfm.scene.errors import InputError, StorageError


def user_cache() -> Path:
    """Folder for what is kept between runs: $ANCHORSFM_CACHE, else the user's cache folder."""
    given = os.environ.get("ANCHORSFM_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "anchorsfm"


def read_json(path: Path) -> dict[str, Any]:
    """An object, empty where there is none or it cannot be read."""
    try:
        value = read_json_file(path)
    except InputError:
        return {}
    return value if isinstance(value, dict) else {}


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Keep for later runs; not being able to is no reason to stop this one."""
    try:
        write_atomic(path, to_json(value))
    except StorageError:
        return
