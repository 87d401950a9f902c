"""What there is to look at: the models of a folder, and where their photographs are."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from anchorsfm.results.errors import read_errors
from anchorsfm.results.model import StoredModel, read_models
from anchorsfm.scene.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ViewedFolder:
    """Everything that a folder shows."""

    models: tuple[StoredModel, ...]
    photo_root: Path | None
    """Folder that image names are relative to; None: no photographs."""
    notes: tuple[str, ...]
    """What is missing, in words for the user."""


def read_folder(folder: Path, images: Path | None = None) -> ViewedFolder:
    """Read an output folder, or any folder with COLMAP models, for looking at.

    `images`: folder of the photographs; None: what report.json says.

    Raises InputError if there is no readable model or `images` has none of its photographs.
    """
    models = read_models(folder)
    if not any(model.names for model in models):
        raise InputError(f"the model in {models[0].folder} has no registered images: there is nothing to look at")
    notes = list(_damaged_parts(models[0]))
    photo_root = _given_root(images, models) if images is not None else _known_root(models, notes)
    return ViewedFolder(models=tuple(models), photo_root=photo_root, notes=tuple(notes))


def _damaged_parts(model: StoredModel) -> Iterator[str]:
    """What lies beside a model and cannot be read."""
    run = model.run
    if run is None:
        return
    parts: list[Callable[[], object]] = [lambda: run.recorded_image_root]
    if model.is_result:
        errors = run.layout.errors(model.title)
        parts += [lambda: run.precision, lambda: read_errors(errors, model.view_names, model.model)]
    for part in parts:
        try:
            part()
        except InputError as error:
            yield f"{error}; it is left out"


def _given_root(images: Path, models: Sequence[StoredModel]) -> Path:
    if not images.is_dir():
        raise InputError(f"--images {images}: {'not a folder' if images.exists() else 'no such folder'}")
    if not any(model.has_photographs_in(images) for model in models):
        name = next(name for model in models for name in model.names)
        raise InputError(f"--images {images} has none of the photographs of the model, for example {name}")
    return images


def _known_root(models: Sequence[StoredModel], notes: list[str]) -> Path | None:
    """The folder of the photographs; None, with a note, if they are not there."""
    known = [root for root in map(_image_root, models) if root is not None]
    for root in known:
        if any(model.has_photographs_in(root) for model in models):
            return root
    moved = f"are no longer in {known[0]}" if known else "were not found"
    notes.append(f"the photographs {moved}: give their folder with --images to see them")
    return None


def _image_root(model: StoredModel) -> Path | None:
    try:
        return model.image_root
    except InputError:  # which is among the notes
        return None
