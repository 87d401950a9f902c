"""Poses and focal lengths out of COLMAP models on disk."""

import tempfile
from pathlib import Path

import numpy as np
import pycolmap

from anchorsfm.colmap.convert import from_pycolmap_camera
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.poses import PoseSet
from anchorsfm.scene.reconstruction import Camera

_IMAGES = ("images.bin", "images.txt")


def is_model(folder: Path) -> bool:
    """Whether a folder holds a COLMAP model, binary or text."""
    return any((folder / name).is_file() for name in _IMAGES)


def find_models(folder: Path) -> list[Path]:
    """The models that a folder stands for: itself, its `sparse`, or the components `0`, `1` ... of either.

    Raises InputError if there is none.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}; give a COLMAP model")
    for candidate in (folder, folder / "sparse"):
        if is_model(candidate):
            return [candidate]
        components = sorted(path for path in candidate.glob("*") if path.is_dir() and is_model(path))
        if components:
            return components
    raise InputError(f"no COLMAP model (images.bin or images.txt) in {folder}, {folder}/sparse or {folder}/sparse/0")


def read_largest_model(folder: Path) -> PoseSet:
    """Poses of the component with the most registered images of what `find_models` finds."""
    return max((read_model(model) for model in find_models(folder)), key=lambda poses: len(poses.names))


def read_model(folder: Path) -> PoseSet:
    """Poses of the registered images of one model, sorted by name.

    Raises InputError if a file is missing or damaged.
    """
    model = _load(folder)
    images = sorted((image for image in model.images.values() if image.has_pose), key=lambda image: image.name)
    cameras = [model.cameras[image.camera_id] for image in images]
    return PoseSet(
        names=tuple(image.name for image in images),
        cam_from_world=np.array([image.cam_from_world().matrix() for image in images], float).reshape(-1, 3, 4),
        focal_px=np.array([c.mean_focal_length() if c.focal_length_idxs() else np.nan for c in cameras], float),
        size_wh=np.array([(camera.width, camera.height) for camera in cameras], np.int64).reshape(-1, 2),
    )


def _load(folder: Path) -> pycolmap.Reconstruction:
    """The cameras and images of a model; its 3D points are left out."""
    try:
        with tempfile.TemporaryDirectory(prefix="anchorsfm-") as copy:
            _link_without_points(folder, Path(copy))
            return pycolmap.Reconstruction(copy)
    except Exception as error:  # pycolmap turns failed checks into various types
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"cannot read the COLMAP model in {folder}: {reason}") from error


def _link_without_points(folder: Path, copy: Path) -> None:
    """Make `copy` the same model with no 3D points: nobody here needs them, and pycolmap 4.2 never returns from a
    truncated points3D.bin."""
    suffix = ".bin" if (folder / "images.bin").is_file() else ".txt"
    for name in ("cameras", "images", "rigs", "frames"):
        if (folder / (name + suffix)).is_file():
            (copy / (name + suffix)).symlink_to((folder / (name + suffix)).resolve())
    (copy / f"points3D{suffix}").write_bytes(bytes(8) if suffix == ".bin" else b"")


def read_cameras(folder: Path) -> dict[str, tuple[Camera, np.ndarray | None]]:
    """Camera and cam_from_world (3, 4) of every image of a model by name; None for images without a pose.

    Raises InputError if a file is missing or damaged.
    """
    model = _load(folder)
    return {
        image.name: (
            from_pycolmap_camera(model.cameras[image.camera_id]),
            np.array(image.cam_from_world().matrix(), float) if image.has_pose else None,
        )
        for image in model.images.values()
    }
