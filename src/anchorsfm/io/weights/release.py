"""Files that authors released under permissive licences: found on this computer or downloaded, and identified.

A release is known by its SHA-256: whatever lies under its name is used only if it is that file.
"""

import hashlib
import os
import tempfile
import urllib.request
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from anchorsfm.io.weights.identity import file_sha256
from anchorsfm.io.weights.licence import LicenceRecord
from anchorsfm.io.weights.user_cache import user_cache
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.progress import Progress

_BLOCK_BYTES = 1 << 20
_TIMEOUT_S = 30


@dataclass(frozen=True, kw_only=True)
class ReleaseFile:
    """Weights that somebody published, once and for all."""

    name: str
    """Of the file here."""
    network: str
    """What it belongs to, for people."""
    url: str
    sha256: str
    size_bytes: int
    terms: str
    """Licence, and of whom."""

    @property
    def licence(self) -> LicenceRecord:
        """For the report: permissive terms are not asked about."""
        return LicenceRecord(weights=self.name, terms=self.terms, accepted="not asked")


def weights_folder() -> Path:
    """Where downloads are kept."""
    return user_cache() / "weights"


def present(release: ReleaseFile) -> Path | None:
    """Where the file lies in the user's cache, if it does; it is not looked into."""
    path = weights_folder() / release.name
    return path if path.is_file() else None


def find_release(release: ReleaseFile, folder: Path | None, progress: Progress) -> Path:
    """The file: in a folder of the user's (or the file itself, given by name), else in the cache, else downloaded.

    Raises InputError if it is not there and cannot be downloaded, or is another file than the release.
    """
    if folder is not None:
        path = folder if folder.is_file() else folder / release.name
        if not path.is_file():
            raise InputError(f"there is no {release.name} in {folder}: it is to be had at {release.url}")
    else:
        path = present(release) or _download(release, progress)
    found = file_sha256(path)
    if found != release.sha256:
        raise InputError(
            f"{path} is not the released {release.name}: its SHA-256 is {found}, not {release.sha256}; "
            f"delete it, or put there what {release.url} has"
        )
    return path


def joint_licence(licences: Iterable[LicenceRecord | None]) -> LicenceRecord | None:
    """One record of several, for what was computed with all of them; None where there is none."""
    known = list(dict.fromkeys(licence for licence in licences if licence is not None))
    if len(known) < 2:
        return known[0] if known else None
    return LicenceRecord(
        weights=", ".join(licence.weights for licence in known),
        terms=", ".join(dict.fromkeys(licence.terms for licence in known)),
        accepted=known[0].accepted,
    )


def _download(release: ReleaseFile, progress: Progress) -> Path:
    """Into the cache, complete or not at all."""
    path = weights_folder() / release.name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".download-")
    except OSError as error:
        raise _failed(release, path, error.strerror or str(error)) from error
    partial = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            found = _fetch(release, file.write, progress)
        if found != release.sha256:
            raise InputError(
                f"what {release.url} sent is not the released {release.name}: its SHA-256 is {found}, "
                f"not {release.sha256}; {_by_hand(release, path)}"
            )
        partial.replace(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise _failed(release, path, str(reason).partition("\n")[0] or type(error).__name__) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return path


def _fetch(release: ReleaseFile, write: Callable[[bytes], object], progress: Progress) -> str:
    """Write what the address sends; its SHA-256."""
    state, done = hashlib.sha256(), 0
    with (
        urllib.request.urlopen(release.url, timeout=_TIMEOUT_S) as answer,
        progress.stage(f"downloading {release.name} (KiB)", release.size_bytes >> 10) as advance,
    ):
        while block := answer.read(_BLOCK_BYTES):
            state.update(block)
            write(block)
            advance(((done + len(block)) >> 10) - (done >> 10))
            done += len(block)
    return state.hexdigest()


def _failed(release: ReleaseFile, path: Path, reason: str) -> InputError:
    return InputError(f"cannot download {release.name} from {release.url} ({reason}); {_by_hand(release, path)}")


def _by_hand(release: ReleaseFile, path: Path) -> str:
    return f"put the file at {path}, or say --weights FOLDER with the folder that has {release.name}"
