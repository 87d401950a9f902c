"""Where poses to compare come from: COLMAP models, truth files, and reconstructions in memory.

A truth file is a JSON object: image name -> `R_cam_from_world` (3x3), `t_cam_from_world` (3), and optionally `K` (3x3,
COLMAP pixels, at the size of the images) and `width`, `height` of the image that `K` belongs to.
"""

from pathlib import Path
from typing import Any

import numpy as np

from anchorsfm.colmap.cameras import focal_length_px
from anchorsfm.colmap.file_records import FARTHEST
from anchorsfm.colmap.models import read_largest_model
from anchorsfm.io.json_files import read_json
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.poses import PoseSet
from anchorsfm.scene.printable import printable
from anchorsfm.scene.reconstruction import Reconstruction

_LARGEST_SIDE = 10**6


def read_poses(path: Path) -> PoseSet:
    """Poses from a truth file (.json) or a folder with a COLMAP model; of several components the largest.

    Raises InputError, naming the file and what is wrong with it.
    """
    return read_truth(path) if path.suffix.lower() == ".json" or path.is_file() else read_largest_model(path)


def read_truth(path: Path) -> PoseSet:
    """Poses from a truth file, sorted by name.

    Raises InputError, naming the file and what is wrong with it.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: expected a JSON object that maps image names to poses")
    entries = [_entry(path, name, content[name]) for name in sorted(content)]
    return PoseSet(
        names=tuple(sorted(content)),
        cam_from_world=np.array([pose for pose, _, _ in entries]),
        focal_px=np.array([focal for _, focal, _ in entries], float),
        size_wh=np.array([size for _, _, size in entries], np.int64),
    )


def _entry(path: Path, name: str, entry: Any) -> tuple[np.ndarray, float, list[int]]:
    """Pose, focal length and size of one image."""
    shown = printable(name)
    if not isinstance(entry, dict):
        raise InputError(f"{path}, {shown}: expected an object with R_cam_from_world and t_cam_from_world")
    rotation = _array(path, shown, entry, "R_cam_from_world", (3, 3))
    translation = _array(path, shown, entry, "t_cam_from_world", (3,))
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-2 or np.linalg.det(rotation) < 0:
        raise InputError(f"{path}, {shown}: R_cam_from_world is not a rotation")
    focal = np.nan
    if entry.get("K") is not None:
        intrinsics = _array(path, shown, entry, "K", (3, 3))
        focal = float(intrinsics[0, 0] + intrinsics[1, 1]) / 2
        if intrinsics[0, 0] <= 0 or intrinsics[1, 1] <= 0:
            raise InputError(f"{path}, {shown}: the focal lengths in K must be positive")
    size = [_side(path, shown, entry, key) for key in ("width", "height")]
    return np.concatenate([rotation, translation[:, None]], axis=1), focal, size


def _side(path: Path, name: str, entry: dict[str, Any], key: str) -> int:
    """Width or height in pixels; 0 where it is not given."""
    side = entry.get(key) or 0
    if not isinstance(side, int) or not 0 <= side <= _LARGEST_SIDE:
        raise InputError(f"{path}, {name}: {key} must be a whole number of pixels")
    return side


def _array(path: Path, name: str, entry: dict[str, Any], key: str, shape: tuple[int, ...]) -> np.ndarray:
    try:
        array = np.array(entry[key], float)
    except KeyError as error:
        raise InputError(f"{path}, {name}: {key} is missing") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path}, {name}: {key} is not an array of numbers") from error
    if array.shape != shape or not (np.abs(array) < FARTHEST).all():
        raise InputError(f"{path}, {name}: {key} must hold {' x '.join(map(str, shape))} finite numbers")
    return array


def poses_of(reconstruction: Reconstruction, images: ImageSet) -> PoseSet:
    """Poses of a reconstruction in memory."""
    cameras = [reconstruction.cameras[camera] for camera in reconstruction.camera_index]
    return PoseSet(
        names=tuple(images.names[image] for image in reconstruction.image_index),
        cam_from_world=reconstruction.cam_from_world,
        focal_px=np.array([focal_length_px(camera) for camera in cameras], float),
        size_wh=np.array([(camera.width, camera.height) for camera in cameras], np.int64).reshape(-1, 2),
    )
