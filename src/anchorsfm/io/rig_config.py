"""Rigs from a file in COLMAP's format (rig_config.json), and rigs that the names of photographs show.

    [{"cameras": [
        {"image_prefix": "rig1/left/", "ref_sensor": true},
        {"image_prefix": "rig1/right/", "cam_from_rig_rotation": [w, x, y, z], "cam_from_rig_translation": [x, y, z],
         "camera_model_name": "OPENCV", "camera_params": [...]}]}, ...]

A photograph is by the camera whose prefix its name begins with; what is left of the name says the moment: photographs
of cameras of one rig with the same rest were taken together. Poses and intrinsics may be left out.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from anchorsfm.io.json_files import checked, read_json
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.printable import printable

_SHARED = 0.8
"""Of the photographs of a folder: names that another one must have too for both to be cameras of one rig."""
_FEWEST = 3
"""Photographs of a camera that names tell anything by."""


@dataclass(frozen=True, kw_only=True)
class RigCamera:
    """A camera of a rig."""

    image_prefix: str
    ref_sensor: bool = False
    cam_from_rig_rotation: tuple[float, float, float, float] | None = None
    """Quaternion w, x, y, z."""
    cam_from_rig_translation: tuple[float, float, float] | None = None
    camera_model_name: str | None = None
    camera_params: tuple[float, ...] | None = None

    @property
    def cam_from_rig(self) -> Float[np.ndarray, "3 4"]:
        """The pose; NaN where it is not given."""
        if self.ref_sensor:
            return np.eye(3, 4)
        if self.cam_from_rig_rotation is None or self.cam_from_rig_translation is None:
            return np.full((3, 4), np.nan)
        w, x, y, z = self.cam_from_rig_rotation
        rotation = Rotation.from_quat([x, y, z, w]).as_matrix()
        return np.concatenate([rotation, np.array(self.cam_from_rig_translation, float)[:, None]], axis=1)


@dataclass(frozen=True, kw_only=True)
class RigDescription:
    """The cameras of one rig, the reference first."""

    cameras: tuple[RigCamera, ...]


def read_rig_config(path: Path) -> tuple[RigDescription, ...]:
    """The rigs that a file describes.

    Raises InputError, which names the file and what is wrong in it.
    """
    try:
        entries = checked(read_json(path), tuple[_Rig, ...])
        rigs = tuple(_described(entry, f"[{number}]") for number, entry in enumerate(entries))
        if not rigs:
            raise ValueError("it describes no rig")
        prefixes = [camera.image_prefix for rig in rigs for camera in rig.cameras]
        for prefix, count in Counter(prefixes).items():
            if count > 1:
                raise ValueError(f"the prefix {printable(prefix)!r} is given twice")
    except ValueError as error:
        raise InputError(f"{path} is no description of rigs as COLMAP's rig_config.json: {error}") from error
    return rigs


@dataclass(frozen=True, kw_only=True)
class _Rig:
    cameras: tuple[RigCamera, ...]


def _described(entry: dict[str, Any], where: str) -> RigDescription:
    """Raises ValueError."""
    cameras = []
    for number, fields in enumerate(entry["cameras"]):
        known = {name: fields[name] for name in RigCamera.__dataclass_fields__}
        arrays = {name: tuple(map(float, value)) for name, value in known.items() if isinstance(value, list)}
        camera = RigCamera(**{**known, **arrays})
        place = f"{where}.cameras[{number}]"
        if not camera.image_prefix:
            raise ValueError(f"{place}.image_prefix is empty")
        if (camera.cam_from_rig_rotation is None) != (camera.cam_from_rig_translation is None):
            raise ValueError(f"{place} has a rotation or a translation, and not both")
        if camera.cam_from_rig_rotation is not None and not np.linalg.norm(camera.cam_from_rig_rotation) > 1e-6:
            raise ValueError(f"{place}.cam_from_rig_rotation is no quaternion")
        if (camera.camera_model_name is None) != (camera.camera_params is None):
            raise ValueError(f"{place} has camera_model_name or camera_params, and not both")
        cameras.append(camera)
    references = sum(camera.ref_sensor for camera in cameras)
    if references != 1:
        raise ValueError(f"{where} has {references} cameras with ref_sensor instead of one")
    return RigDescription(cameras=tuple(sorted(cameras, key=lambda camera: not camera.ref_sensor)))


def rigs_of_names(names: Sequence[str]) -> tuple[RigDescription, ...]:
    """Folders in one folder that hold photographs of the same names are cameras of one rig; none if there are no such.

    `names` are those of the photographs, relative to their common folder.
    """
    stems: dict[PurePosixPath, set[str]] = {}
    for name in names:
        path = PurePosixPath(name)
        stems.setdefault(path.parent, set()).add(path.stem)
    rigs = []
    for above in sorted({folder.parent for folder in stems if folder != folder.parent}):
        folders = sorted(f for f in stems if f.parent == above and f != above and len(stems[f]) >= _FEWEST)
        while folders:
            first, *others = folders
            mine = [first, *(other for other in others if _are_of_one_rig(stems[first], stems[other]))]
            folders = [folder for folder in others if folder not in mine]
            if len(mine) > 1:
                cameras = tuple(RigCamera(image_prefix=f"{f}/", ref_sensor=f == first) for f in mine)
                rigs.append(RigDescription(cameras=cameras))
    return tuple(rigs)


def _are_of_one_rig(first: set[str], second: set[str]) -> bool:
    return len(first & second) >= max(_SHARED * min(len(first), len(second)), _FEWEST)
