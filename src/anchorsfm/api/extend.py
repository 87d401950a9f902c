"""More photographs for a finished model, and two models as one."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from anchorsfm.api import arguments
from anchorsfm.api.display import progress_of
from anchorsfm.api.run import model_of, source_of
from anchorsfm.scene.progress import Progress

if TYPE_CHECKING:
    from anchorsfm.api.model import Model


def extend(
    output: str | Path,
    photos: str | Path | Sequence[str | Path],
    *,
    adjust_all: bool = False,
    dense: bool | None = None,
    progress: bool | Progress | None = None,
) -> "Model":
    """Let new photographs join the models of an output folder, with the settings of the run that made them.

    Only the new photographs and their pairs are computed. A run that was interrupted leaves the folder as it was, and
    the same call continues.

    Args:
        output: the output folder of `reconstruct`; its photographs must be where they were.
        photos: a folder (searched recursively), a text file that lists images, a video; or a list of those and
            image files. Photographs that the models know are passed over.
        adjust_all: adjust all poses and intrinsics together; False: those of the models stay exactly.
        dense: whether dense clouds are made; None: as the settings of the run say.
        progress: True shows it, or your own `Progress`.

    Returns:
        The largest model; further ones are its `others`, images without a pose are in `unregistered`.

    Raises:
        InputError: the photographs, the folder or an argument cannot be used, or no photograph is new.
        StorageError: the output cannot be written.
    """
    from anchorsfm import pipeline

    folder, source = arguments.path("output", output), source_of(photos)
    sources = [source] if isinstance(source, Path) else source
    arguments.flag("adjust_all", adjust_all)
    with progress_of(progress) as shown:
        result = pipeline.extend(folder, sources, shown, adjust_all=adjust_all, dense=dense)
    return model_of(result, folder)


def merge(
    first: str | Path,
    second: str | Path,
    output: str | Path,
    *,
    dense: bool | None = None,
    progress: bool | Progress | None = None,
) -> "Model":
    """Join the models of two output folders, which stay as they are.

    They have photographs in common, or only views that overlap.

    Args:
        first: an output folder of `reconstruct`, whose frame and settings the result has.
        second: another one.
        output: folder for the result, as `reconstruct` writes it.
        dense: whether dense clouds are made; None: as the settings of the first run say.
        progress: True shows it, or your own `Progress`.

    Returns:
        The largest model; further ones are its `others`, images without a pose are in `unregistered`.

    Raises:
        InputError: a folder or an argument cannot be used.
        NoReconstructionError: the models have too little in common; the message says how much.
        StorageError: the output cannot be written.
    """
    from anchorsfm import pipeline

    sources = arguments.path("first", first), arguments.path("second", second)
    target = arguments.path("output", output)
    with progress_of(progress) as shown:
        result = pipeline.merge(*sources, target, shown, dense=dense)
    return model_of(result, target)
