"""Models in another frame of the world, file to file: identifiers, rigs and observations without a point stay."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pycolmap
from jaxtyping import Bool, Float

from anchorsfm.colmap.models import is_text, read_files
from anchorsfm.geometry.similarity import Similarity
from anchorsfm.io.store import storage_error
from anchorsfm.scene.errors import StorageError


def move_model(
    source: Path,
    target: Path,
    similarity: Similarity,
    keeps: Callable[[Float[np.ndarray, "point 3"]], Bool[np.ndarray, "point"]],
) -> Bool[np.ndarray, "point"]:
    """Write the model in `source`, moved, into the new folder `target`.

    Args:
        source: with a binary or text model, as which it is written again.
        target: its parents are made.
        similarity: from the old frame to the new one.
        keeps: which points stay, by their places in the new frame.

    Returns:
        Which points stayed, in the order of their identifiers.

    Raises:
        InputError: the model is damaged.
        StorageError: a file cannot be written.
    """
    stored = read_files(source)
    rotation = pycolmap.Rotation3d(similarity.rotation)
    stored.transform(pycolmap.Sim3d(similarity.scale, rotation, similarity.shift))
    identifiers = sorted(stored.points3D)
    kept = np.ones(len(identifiers), bool)
    if identifiers:
        kept = keeps(np.array([stored.points3D[point].xyz for point in identifiers]))
        for point in np.array(identifiers)[~kept].tolist():
            stored.delete_point3D(point)
    try:
        target.mkdir(parents=True)
        (stored.write_text if is_text(source) else stored.write_binary)(str(target))
        _require_complete(target, stored)
    except OSError as error:
        raise storage_error(target, error) from error
    except (RuntimeError, ValueError) as error:
        raise StorageError(f"cannot write the model to {target}: {str(error).splitlines()[0]}") from error
    return kept


def _require_complete(target: Path, stored: pycolmap.Reconstruction) -> None:
    """Raise StorageError if a model is not what was written: a full disk gives no error inside COLMAP's writer."""
    try:
        back = read_files(target)
        complete = back.num_points3D() == stored.num_points3D() and back.num_images() == stored.num_images()
    except Exception:
        complete = False
    if not complete:
        raise StorageError(
            f"the model in {target} could not be written completely, probably because the disk is full: free some "
            "space and run the same command again"
        )
