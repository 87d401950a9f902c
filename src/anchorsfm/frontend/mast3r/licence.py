"""The terms that weights come under: shown, accepted once by the user, and recorded for the report."""

import datetime
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from anchorsfm.frontend.base import Acceptance, LicenceRecord
from anchorsfm.io.json_files import read_json as read_json_file
from anchorsfm.io.store import to_json, write_atomic
from anchorsfm.scene.errors import InputError, StorageError

ACCEPT_VARIABLE = "ANCHORSFM_ACCEPT_WEIGHTS_LICENSE"
ACCEPT_OPTION = "--accept-weights-license"


def user_cache() -> Path:
    """Folder for what is kept between runs: $ANCHORSFM_CACHE, else the user's cache folder."""
    given = os.environ.get("ANCHORSFM_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "anchorsfm"


def require_acceptance(weights: str, terms: str, *, accept: bool) -> LicenceRecord:
    """The record of the acceptance of `terms`, which is asked for once per set of weights.

    Raises InputError that shows the terms and how to accept them.
    """
    known = read_json(_record_path())
    if accept or _environment_accepts():
        acceptance: Acceptance = "option" if accept else "environment"
        record = LicenceRecord(weights=weights, terms=terms, accepted=acceptance)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        write_json(_record_path(), {**known, weights: {**asdict(record), "date": now}})
        return record
    entry = known.get(weights)
    if isinstance(entry, dict) and entry.get("terms") == terms:
        return LicenceRecord(weights=weights, terms=terms, accepted="earlier")
    raise InputError(
        f"the weights {weights} come under these terms: {terms}. If you accept them, run the command once with "
        f"{ACCEPT_OPTION} or with {ACCEPT_VARIABLE}=1 in the environment"
    )


def _environment_accepts() -> bool:
    return os.environ.get(ACCEPT_VARIABLE, "").strip().lower() in ("1", "true", "yes")


def _record_path() -> Path:
    return user_cache() / "accepted-licenses.json"


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
