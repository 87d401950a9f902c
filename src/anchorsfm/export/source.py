"""What an export starts from: models, and where their photographs are."""

from pathlib import Path

from anchorsfm.io.layout import EXPORT
from anchorsfm.results.model import StoredModel, read_models
from anchorsfm.scene.errors import InputError


def models_to_export(folder: Path, *, every: bool) -> list[StoredModel]:
    """The models a folder stands for (an output folder, its `sparse`, or a model): all, or the one with most images.

    Raises InputError if there is none or a file is damaged.
    """
    models = read_models(folder)
    if not every:
        models = [max(models, key=lambda entry: len(entry.names))]
    for entry in models:
        if not entry.names:
            raise InputError(f"the model in {entry.folder} has no registered image")
    return models


def default_output(folder: Path, entry: StoredModel) -> Path:
    """Where exports go unless the user says so: `export` in the output folder, or in the folder that was given."""
    run = entry.run
    return (run.root if run is not None and run.has_report else folder) / EXPORT


def photograph_folder(entry: StoredModel, given: Path | None) -> Path | None:
    """The folder that image names are relative to: the given one, else what is known; None if unknown.

    Raises InputError if the given folder does not exist, or report.json cannot be read.
    """
    if given is not None:
        if not given.is_dir():
            raise InputError(f"--images {given}: {'not a folder' if given.exists() else 'no such folder'}")
        return given
    try:
        return entry.image_root
    except InputError as error:
        raise InputError(f"{error}; say where the photographs are with --images") from error
