"""Poses of new photographs in a finished model."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from anchorsfm.api import arguments
from anchorsfm.api.display import progress_of
from anchorsfm.api.run import source_of
from anchorsfm.scene.progress import Progress

if TYPE_CHECKING:
    from anchorsfm.localisation.run import Localisation


def localise(
    photos: str | Path | Sequence[str | Path],
    model: str | Path,
    output: str | Path | None = None,
    *,
    focal_px: float | None = None,
    min_inliers: int | None = None,
    progress: bool | Progress | None = None,
) -> "Localisation":
    """Find the poses of new photographs in a finished model, without the photographs that it was made from.

    Args:
        photos: an image file, a folder (searched recursively), a text file that lists images; or a list of those.
        model: an output folder of `reconstruct` (its largest model counts), or one of its models.
        output: folder for the poses as a COLMAP model, JSON and TUM lines, as the command line writes them; None:
            nothing is written.
        focal_px: focal length of the photographs in original pixels; None: that of the model's camera of the same
            picture size, that of EXIF, or an estimate.
        min_inliers: fewest points of the model that must agree with a pose.
        progress: True shows it, or your own `Progress`.

    Returns:
        A `Localisation`: `images` in the order of the photographs, `placed` those with a pose by name, `refused` the
        reasons of the others by name.

    Raises:
        InputError: the photographs, the model or an argument cannot be used.
        StorageError: the output cannot be written.
    """
    from anchorsfm.api.settings import with_settings
    from anchorsfm.localisation import run
    from anchorsfm.localisation.config import LocaliseConfig
    from anchorsfm.localisation.folder import LocalisationFolder

    given = {"focal_px": focal_px, "min_inliers": min_inliers}
    config = with_settings(LocaliseConfig(), {name: value for name, value in given.items() if value is not None})
    source, place = source_of(photos), arguments.path("model", model)
    folder = None if output is None else LocalisationFolder(arguments.path("output", output))
    if folder is not None:
        folder.require_ready()
    opened = run.read_localisable(place)
    with progress_of(progress) as shown:
        found = run.localise(source, opened, config, shown)
    if folder is not None:
        folder.write(found, opened.stored)
    return found
