"""What an export starts from: models, the folder they came from, and where the photographs are."""

from dataclasses import dataclass
from pathlib import Path

from anchorsfm.colmap.models import StoredModel, find_models, read_reconstruction
from anchorsfm.io.json_files import checked, read_json
from anchorsfm.io.layout import REPORT, SPARSE
from anchorsfm.scene.errors import InputError


@dataclass(frozen=True, kw_only=True)
class _Recorded:
    """What an export takes from report.json."""

    image_root: str | None = None


def read_models(folder: Path, *, every: bool) -> list[StoredModel]:
    """The models a folder stands for (an output folder, its `sparse`, or a model): all, or the one with most images.

    Raises InputError if there is none or a file is damaged.
    """
    models = [read_reconstruction(path) for path in find_models(folder)]
    if not every:
        models = [max(models, key=lambda entry: len(entry.model.image_index))]
    for entry in models:
        if not len(entry.model.image_index):
            raise InputError(f"the model in {entry.folder} has no registered image")
    return models


def output_folder(folder: Path) -> Path | None:
    """The output folder of `anchorsfm reconstruct` that a model belongs to; None for models from elsewhere."""
    folder = folder.resolve()
    for candidate in (folder, *folder.parents[:2]):
        if (candidate / REPORT).is_file():
            return candidate
    return None


def default_output(folder: Path) -> Path:
    """Where exports go unless the user says so: `export` in the output folder, or in the folder that was given."""
    return (output_folder(folder) or folder) / "export"


def photograph_folder(folder: Path, given: Path | None) -> Path | None:
    """The folder that image names are relative to; None if unknown.

    The given one; else what is nearest to the model: `images` beside `sparse`, as COLMAP and our undistorted copies lie
    on disk, or what report.json says.

    Raises InputError if the given folder does not exist, or report.json cannot be read.
    """
    if given is not None:
        if not given.is_dir():
            raise InputError(f"--images {given}: {'not a folder' if given.exists() else 'no such folder'}")
        return given
    folder = folder.resolve()
    for candidate in (folder, *folder.parents[:2]):
        if (candidate / REPORT).is_file():
            return _recorded_folder(candidate / REPORT)
        if (candidate / "images").is_dir() and (candidate / SPARSE).is_dir():
            return candidate / "images"
    return None


def _recorded_folder(report: Path) -> Path | None:
    try:
        recorded = checked(read_json(report), _Recorded)["image_root"]
    except (InputError, ValueError) as error:
        raise InputError(f"{_sentence(report, error)}; say where the photographs are with --images") from error
    return Path(recorded) if recorded is not None else None


def _sentence(report: Path, error: Exception) -> str:
    return str(error) if isinstance(error, InputError) else f"{report} cannot be used: {error}"
