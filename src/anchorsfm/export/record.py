"""Which model an export was made of: one whose model has changed since is behind it.

    <export>/.anchorsfm/model.json   SHA-256 of the files of the model

It is written after the export itself. A command that is killed in between leaves an export that counts as behind,
never one that wrongly counts as current.
"""

import hashlib
from pathlib import Path

from anchorsfm.io.json_files import read_json
from anchorsfm.io.owned import MARKER
from anchorsfm.io.store import to_json, write_atomic
from anchorsfm.scene.errors import InputError

_PARTS = ("cameras", "images", "points3D", "rigs", "frames")


def model_digest(model: Path) -> str:
    """Of the files of a COLMAP model."""
    digest = hashlib.sha256()
    for path in sorted(path for path in model.iterdir() if path.stem in _PARTS and path.is_file()):
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def keep_model(export: Path, digest: str) -> None:
    """Keep what model a folder of ours has been made of."""
    write_atomic(_record(export), to_json({"sha256": digest}))


def is_of_model(export: Path, digest: str) -> bool:
    """Whether an export is known to be made of a model."""
    try:
        return bool(read_json(_record(export)) == {"sha256": digest})
    except InputError:
        return False


def _record(export: Path) -> Path:
    return export / MARKER / "model.json"
