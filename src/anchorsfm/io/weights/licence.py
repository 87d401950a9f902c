"""The terms that weights come under: shown, accepted once by the user, and recorded for the report."""

import datetime
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from anchorsfm.io.weights.user_cache import read_json, user_cache, write_json
from anchorsfm.scene.errors import InputError

Acceptance = Literal["option", "environment", "earlier", "not asked"]
ACCEPT_VARIABLE = "ANCHORSFM_ACCEPT_WEIGHTS_LICENSE"
ACCEPT_OPTION = "--accept-weights-license"


@dataclass(frozen=True, kw_only=True)
class LicenceRecord:
    """Under which terms the weights of a run were used, for the report."""

    weights: str
    """Name of the weights such as a Hugging Face id, or the file."""
    terms: str
    accepted: Acceptance
    """How the user agreed: now by option or environment variable, or `earlier` on this computer."""


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
