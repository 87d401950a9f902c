"""Writing models: complete or not at all, and read back, because a full disk gives no error inside COLMAP's writer."""

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pycolmap

from anchorsfm.colmap.convert import to_pycolmap
from anchorsfm.io.layout import TEMPORARY_PREFIX
from anchorsfm.io.store import storage_error
from anchorsfm.scene.errors import InputError, StorageError
from anchorsfm.scene.poses import StoredPose
from anchorsfm.scene.printable import printable
from anchorsfm.scene.reconstruction import Reconstruction


def write_models(
    folder: Path,
    models: Sequence[Reconstruction],
    names: Sequence[str],
    *,
    text: bool = False,
    stored: Mapping[int, StoredPose] | None = None,
) -> None:
    """Make `folder`, which is new or empty, with subfolders 0, 1, ... of one COLMAP model each (binary, or text).

    `stored`: poses of images, by index in the ImageSet, that are written with the bits a file had them in.

    Raises StorageError if anything cannot be written or `folder` holds something, InputError if a model is not finite;
    `folder` is then as it was.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=TEMPORARY_PREFIX))
    except OSError as error:
        raise storage_error(folder, error) from error
    try:
        for number, model in enumerate(models):
            _write_checked(temporary / str(number), model, names, text=text, stored=stored)
        temporary.chmod(0o755)
        temporary.rename(folder)
    except OSError as error:
        raise storage_error(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_model(folder: Path, model: Reconstruction, names: Sequence[str], *, text: bool = False) -> None:
    """Write the files of one COLMAP model (binary, or text) into `folder`; other files in it stay.

    The model is written and read back beside its place first, so that earlier files are replaced by complete ones.

    Raises StorageError if anything cannot be written, InputError if the model is not finite.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder, prefix=TEMPORARY_PREFIX))
    except OSError as error:
        raise storage_error(folder, error) from error
    try:
        _write_checked(temporary / "0", model, names, text=text)
        for path in sorted((temporary / "0").iterdir()):
            path.replace(folder / path.name)
    except OSError as error:
        raise storage_error(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _require_finite(folder: Path, model: Reconstruction, names: Sequence[str]) -> None:
    """Raise InputError, naming it, if a model holds something that is not finite."""

    def first_wild(values: np.ndarray) -> int | None:
        wild = ~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
        return int(np.argmax(wild)) if wild.any() else None

    def require(what: str, row: int | None, name: Callable[[int], object] = str) -> None:
        if row is not None:
            raise InputError(f"the model for {folder} cannot be written: {what} {name(row)} is not finite")

    require("the pose of", first_wild(model.cam_from_world), lambda row: printable(names[int(model.image_index[row])]))
    wild = (row for row, camera in enumerate(model.cameras) if not np.isfinite(camera.params).all())
    require("a parameter of camera", next(wild, None))
    require("point", first_wild(model.points))
    require("the error of point", first_wild(np.nan_to_num(model.error_px, nan=0.0, posinf=np.inf, neginf=-np.inf)))
    require("an observation of point", first_wild(model.tracks.obs_xy), lambda row: model.tracks.obs_point[row])


def _write_checked(
    folder: Path,
    model: Reconstruction,
    names: Sequence[str],
    *,
    text: bool,
    stored: Mapping[int, StoredPose] | None = None,
) -> None:
    _require_finite(folder.parent.parent, model, names)
    folder.mkdir()
    entry = to_pycolmap(model, names, stored)
    if np.isnan(model.error_px).any():
        entry.update_point_3d_errors()
    try:
        (entry.write_text if text else entry.write_binary)(str(folder))
        # sizes first: pycolmap's reader does not return from a points3D.bin that was cut short
        complete = text or all((folder / name).stat().st_size == size for name, size in _sizes(model, names).items())
        if complete:
            back = pycolmap.Reconstruction(str(folder))
            complete = back.num_reg_images() == len(model.image_index)
            complete = complete and back.compute_num_observations() == len(model.tracks.obs_point)
    except (RuntimeError, ValueError, IndexError) as error:
        raise StorageError(f"cannot write the model to {folder}: {str(error).splitlines()[0]}") from error
    if not complete:
        raise StorageError(
            f"the model in {folder.parent.parent} could not be written completely, probably because the disk is full: "
            "free some space and run the same command again, it continues"
        )


def _sizes(model: Reconstruction, names: Sequence[str]) -> dict[str, int]:
    """Bytes of the binary files, from COLMAP's documented format (https://colmap.github.io/format.html)."""
    observations = len(model.tracks.obs_point)
    name_bytes = sum(len(names[image].encode()) + 1 for image in model.image_index)
    return {
        "cameras.bin": 8 + sum(24 + 8 * len(camera.params) for camera in model.cameras),
        "images.bin": 8 + 72 * len(model.image_index) + name_bytes + 24 * observations,
        "points3D.bin": 8 + 51 * len(model.points) + 8 * observations,
    }
