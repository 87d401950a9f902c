"""What errors the cameras of a finished model may have together, as a file beside it."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from anchorsfm.io.sealed import damaged, read_sealed, write_sealed
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.error_modes import ErrorModes

_KIND = "error modes"
_VERSION = 1
"""Raise when the meaning of the file changes."""
_REMEDY = "run the same anchorsfm reconstruct again, which makes it anew from its cache"
_ARRAYS = ("rotation", "position", "params")


def write_errors(path: Path, modes: ErrorModes, names: Sequence[str]) -> None:
    """Write the modes of a model; `names`: of the images of its views.

    Raises StorageError if the file cannot be written.
    """
    text = json.dumps({"version": _VERSION, "names": list(names)})
    write_sealed(path, _KIND, text, {name: getattr(modes, name).astype(np.float32) for name in _ARRAYS})


def read_errors(path: Path, names: Sequence[str], model: Reconstruction) -> ErrorModes | None:
    """The modes in a file for the views of some images; None if there is no file, or it is of another version or model.

    Args:
        path: the file.
        names: of the images of the model's views.
        model: that they are of.

    Raises InputError if it is damaged.
    """
    found = read_sealed(path, _KIND, _REMEDY)
    if found is None:
        return None
    text, arrays = found
    try:
        content = json.loads(text)
        if content["version"] != _VERSION:
            return None
        row = {name: k for k, name in enumerate(content["names"])}
        rotation, position, params = (arrays[name].astype(np.float64) for name in _ARRAYS)
        if rotation.shape != position.shape or rotation.shape[1:] != (len(row), 3) or params.ndim != 2:
            raise ValueError("arrays do not fit each other")
    except (ValueError, TypeError, KeyError) as error:
        raise damaged(path, _REMEDY) from error
    num_params = sum(len(camera.params) for camera in model.cameras)
    if sorted(row) != sorted(names) or params.shape != (len(rotation), num_params):
        return None
    view = [row[name] for name in names]
    return ErrorModes(rotation=rotation[:, view], position=position[:, view], params=params)
