"""Rigs from a file in COLMAP's format (rig_config.json), and rigs that names and times of photographs show.

    [{"cameras": [
        {"image_prefix": "rig1/left/", "ref_sensor": true},
        {"image_prefix": "rig1/right/", "cam_from_rig_rotation": [w, x, y, z], "cam_from_rig_translation": [x, y, z],
         "camera_model_name": "OPENCV", "camera_params": [...]}]}, ...]

A photograph is by the camera whose prefix its name begins with; what is left of the name says the moment: photographs
of cameras of one rig with the same rest were taken together. Poses and intrinsics may be left out.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from anchorsfm.io.json_files import checked, read_json
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.printable import printable

_SHARED = 0.8
"""Of the photographs of a camera: those that must have one of the same moment for both to be cameras of one rig."""
_FEWEST = 3
"""Photographs of a camera that names or times tell anything by."""
_NUMBERED = re.compile(r"(.*?)([0-9]*)", re.DOTALL)
"""A beginning, and a number at the end."""
_SAME_TIME_S = 1.0
"""EXIF often has whole seconds."""


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
    """Rigs that names show; none if there are no such.

    Cameras of one rig are folders in one folder that hold photographs of the same names. Without such folders they are
    beginnings of names in one folder, before numbers at the end that are the same: left_001.jpg, right_001.jpg.

    `names` are those of the photographs, relative to their common folder.
    """
    stems: dict[PurePosixPath, set[str]] = {}
    numbers: dict[PurePosixPath, dict[str, set[str]]] = {}
    for name in names:
        path = PurePosixPath(name)
        stems.setdefault(path.parent, set()).add(path.stem)
        start, number = _NUMBERED.fullmatch(path.stem).groups()  # type: ignore[union-attr]  # matches everything
        if start and number:
            prefix = name[: len(name) - len(path.name)] + start
            numbers.setdefault(path.parent, {}).setdefault(prefix, set()).add(number)
    of_folders = [{f"{f}/": stems[f] for f in folders} for folders in _siblings(stems)]
    for cameras in (of_folders, [numbers[folder] for folder in sorted(numbers)]):
        rigs = [
            _rig_of(mine) for moments in cameras for mine in _of_one_rig(moments, _have_the_same_names) if len(mine) > 1
        ]
        if rigs:
            return tuple(rigs)
    return ()


def rigs_of_times(
    names: Sequence[str], taken_s: Float[np.ndarray, "image"]
) -> tuple[tuple[RigDescription, ...], dict[str, str]]:
    """Rigs that times show: folders in one folder are cameras of one rig if most of their photographs were taken at the
    same times. Cameras whose clocks differ show nothing.

    Times are the same where they differ by no more than a second, and than a quarter of the shortest time between two
    photographs of a camera. NaN: unknown.

    Returns the rigs, and of their photographs by name the moment they were taken at.
    """
    times: dict[PurePosixPath, dict[str, float]] = {}
    for name, time in zip(names, taken_s.tolist(), strict=True):
        if np.isfinite(time):
            times.setdefault(PurePosixPath(name).parent, {})[name] = time
    rigs: list[RigDescription] = []
    moment: dict[str, str] = {}
    for folders in _siblings(times):
        for mine in _of_one_rig({f"{f}/": times[f] for f in folders}, _have_the_same_times):
            if len(mine) > 1:
                rigs.append(_rig_of(mine))
                first = next(iter(mine.values()))
                for shots in mine.values():
                    moment |= {name: name for name in shots} | _together(first, shots)
    return tuple(rigs), moment


Moments = TypeVar("Moments", bound=Sized)
"""What is known of when the photographs of a camera were taken."""


def _siblings(folders: Collection[PurePosixPath]) -> list[list[PurePosixPath]]:
    """The folders in each folder that has any."""
    above = sorted({folder.parent for folder in folders if folder != folder.parent})
    return [sorted(f for f in folders if f.parent == parent and f != parent) for parent in above]


def _of_one_rig(
    moments: Mapping[str, Moments], are_of_one_rig: Callable[[Moments, Moments], bool]
) -> Iterator[dict[str, Moments]]:
    """Cameras, by their prefixes, that fit the first of them."""
    left = [prefix for prefix in sorted(moments) if len(moments[prefix]) >= _FEWEST]
    while left:
        first, *others = left
        mine = [first, *(other for other in others if are_of_one_rig(moments[first], moments[other]))]
        left = [prefix for prefix in others if prefix not in mine]
        yield {prefix: moments[prefix] for prefix in mine}


def _rig_of(prefixes: Iterable[str]) -> RigDescription:
    cameras = [RigCamera(image_prefix=prefix, ref_sensor=not row) for row, prefix in enumerate(prefixes)]
    return RigDescription(cameras=tuple(cameras))


def _have_the_same_names(first: set[str], second: set[str]) -> bool:
    return _are_most(len(first & second), first, second)


def _have_the_same_times(first: dict[str, float], second: dict[str, float]) -> bool:
    return _are_most(len(_together(first, second)), first, second)


def _are_most(common: int, first: Sized, second: Sized) -> bool:
    return common >= max(_SHARED * min(len(first), len(second)), _FEWEST)


def _together(first: dict[str, float], second: dict[str, float]) -> dict[str, str]:
    """Photographs of the second camera, and those of the first that were taken at the same time."""
    shortest = min(float(np.diff(sorted(shots.values())).min()) for shots in (first, second))
    names, times = list(first), np.array(list(first.values()))
    nearest = {name: int(np.argmin(np.abs(times - time))) for name, time in second.items()}
    within = min(_SAME_TIME_S, shortest / 4)
    return {
        name: names[row] for name, row in nearest.items() if shortest > 0 and abs(times[row] - second[name]) <= within
    }
