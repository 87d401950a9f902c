"""Poses in files that robots, telephones and trainers write: nerfstudio's transforms.json, TUM and KITTI text.

- `transforms.json` (https://docs.nerf.studio/quickstart/data_conventions.html), which applications for ARKit write too:
  `transform_matrix` is world_from_cam with the camera axes x right, y up, z backward. Lenses are those of OpenCV; those
  of one camera stand at the top, else with their frame. Files that NeRF's scenes came with have `camera_angle_x`.
- TUM: `timestamp tx ty tz qx qy qz qw` a line; KITTI: the twelve numbers of [R | centre] a line. Both are
  world_from_cam with the camera axes x right, y down, z forward, and say nothing of lenses.

Photographs belong to entries of transforms.json by name: the path as it is there, or the end of it, with or without
extension. Lines belong to those that `names.txt` beside the file lists, one a line. Without it, lines of TUM belong to
the photograph whose time, the number at the end of its name, is nearest, and lines of KITTI to the photographs in the
order of their names.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from anchorsfm.geometry.transforms import invert
from anchorsfm.io.files import read_regular
from anchorsfm.io.json_files import read_json
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.printable import printable
from anchorsfm.scene.reconstruction import Camera

_NUMBER = re.compile(r"\d+(?:\.\d+)?$")
_TUM, _KITTI = 8, 12
_LARGEST_FILE = 1 << 30
_FARTHEST = 1e12
_NOT_ROTATED = 1e-2
"""Most that a matrix may be off a rotation: digits of text files are few."""
_SAME_TIME = 0.5
"""Of the least time between two photographs: entries further from theirs belong to none."""
_DISTORTION = ("k1", "k2", "p1", "p2", "k3", "k4")

Entry = tuple[Camera | None, Float[np.ndarray, "3 4"] | None]
"""Camera, if it is known, and cam_from_world."""


def read_pose_file(path: Path, names: Sequence[str], sizes_wh: Sequence[tuple[int, int]]) -> dict[str, Entry]:
    """What a file knows about photographs, by name.

    Args:
        path: a .json, or a text file.
        names: of all photographs.
        sizes_wh: their sizes, for files that do not say them.

    Raises:
        InputError: names the file and what is wrong with it.
    """
    if path.suffix.lower() == ".json":
        return _read_transforms(path, names, sizes_wh)
    return _read_lines(path, names)


# ----------------------------------------------------------------------------------------------------- transforms.json


@dataclass(frozen=True)
class _Names:
    """Photographs by what a file may call them."""

    by_end: Mapping[str, str]

    @staticmethod
    def of(names: Sequence[str]) -> "_Names":
        """Ends that several photographs share name none."""
        found: dict[str, list[str]] = {}
        for name in names:
            parts = PurePosixPath(name).parts
            for first in range(len(parts)):
                end = "/".join(parts[first:])
                for word in {end, end.removesuffix(PurePosixPath(end).suffix)}:
                    found.setdefault(word, []).append(name)
        return _Names({word: those[0] for word, those in found.items() if len(set(those)) == 1})

    def find(self, word: str) -> str | None:
        """The photograph that a path means."""
        parts = [part for part in PurePosixPath(word.replace("\\", "/")).parts if part not in (".", "..", "/")]
        for first in range(len(parts)):
            if (name := self.by_end.get("/".join(parts[first:]))) is not None:
                return name
        return None


def _read_transforms(path: Path, names: Sequence[str], sizes_wh: Sequence[tuple[int, int]]) -> dict[str, Entry]:
    content = read_json(path)
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list):
        raise InputError(f"{path} has no frames: expected nerfstudio's transforms.json")
    size_of, known = dict(zip(names, sizes_wh, strict=True)), _Names.of(names)
    found: dict[str, Entry] = {}
    for row, frame in enumerate(frames):
        where = f"{path}, frames[{row}]"
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise InputError(f"{where} has no file_path")
        name = known.find(frame["file_path"])
        if name is None:
            continue
        matrix = _array(frame.get("transform_matrix"), f"{where}.transform_matrix")
        if matrix.shape not in ((3, 4), (4, 4)):
            raise InputError(f"{where}.transform_matrix has not the shape 4x4")
        world_from_cam = matrix[:3].copy()
        world_from_cam[:, 1:3] *= -1
        if name in found:
            raise InputError(f"{where}: {printable(frame['file_path'])} and an earlier one both mean {printable(name)}")
        camera = _camera({**content, **frame}, size_of[name], where)
        found[name] = (camera, invert(_rigid(world_from_cam, f"{where}.transform_matrix")))
    return found


def _camera(values: Mapping[str, Any], size_wh: tuple[int, int], where: str) -> Camera | None:
    """The lens of a frame, at the size of the photograph; None if the file does not say."""

    def number(key: str) -> float | None:
        value = values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _FARTHEST:
            raise InputError(f"{where}: {key} is no number")
        return float(value)

    width, height = size_wh
    factor = width / (number("w") or width)
    if abs((number("h") or height / factor) * factor - height) > 1.5:
        raise InputError(f"{where} is {values.get('w')}x{values.get('h')}, but the photograph is {width}x{height}")
    focal, angle = number("fl_x"), number("camera_angle_x")
    if focal is None and angle is not None and 0 < angle < np.pi:
        focal = 0.5 * width / factor / float(np.tan(angle / 2))
    if focal is None:
        return None
    if not focal > 0:
        raise InputError(f"{where}: fl_x is not positive")
    focal_y = number("fl_y") or focal
    centre = [number("cx") or width / factor / 2, number("cy") or height / factor / 2]
    lens = [number(key) or 0.0 for key in _DISTORTION]
    pinhole = tuple(factor * value for value in (focal, focal_y, *centre))
    kind = str(values.get("camera_model", "OPENCV"))
    if kind in ("OPENCV_FISHEYE", "EQUIDISTANT"):
        k1, k2, _, _, k3, k4 = lens
        return Camera(model="OPENCV_FISHEYE", width=width, height=height, params=(*pinhole, k1, k2, k3, k4))
    if kind not in ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE"):
        raise InputError(f"{where}: cameras of the model {printable(kind)} are not read")
    if any(lens[4:]):
        k1, k2, p1, p2, k3, k4 = lens
        if k4:
            raise InputError(f"{where}: lenses of the model {kind} with k4 are not read")
        more = (*pinhole, k1, k2, p1, p2, k3, 0.0, 0.0, 0.0)
        return Camera(model="FULL_OPENCV", width=width, height=height, params=more)
    if any(lens):
        return Camera(model="OPENCV", width=width, height=height, params=(*pinhole, *lens[:4]))
    return Camera(model="PINHOLE", width=width, height=height, params=pinhole)


# ---------------------------------------------------------------------------------------------------------- text files


def _read_lines(path: Path, names: Sequence[str]) -> dict[str, Entry]:
    rows = _rows(path)
    if rows.shape[1] == _TUM:
        length = np.linalg.norm(rows[:, 4:], axis=1)
        if (np.abs(length - 1) > _NOT_ROTATED).any():
            raise InputError(f"{path}: the quaternion of pose {int(np.argmax(np.abs(length - 1)))} is not of length 1")
        rotation = Rotation.from_quat(rows[:, 4:]).as_matrix()
        world_from_cam = np.concatenate([rotation, rows[:, 1:4, None]], axis=2)
    else:
        matrices = rows.reshape(-1, 3, 4)
        world_from_cam = np.stack([_rigid(matrix, f"{path}, pose {row}") for row, matrix in enumerate(matrices)])
    listed = path.parent / "names.txt"
    if listed.is_file():
        belongs = _listed(path, listed, len(rows), names)
    elif rows.shape[1] == _TUM:
        belongs = _by_time(rows[:, 0], names)
    elif len(rows) == len(names):
        belongs = dict(zip(sorted(names), range(len(rows)), strict=True))
    else:
        raise InputError(
            f"{path} has {len(rows)} poses for {len(names)} photographs: say which belong together in a names.txt "
            "beside it, a name a line"
        )
    return {name: (None, invert(world_from_cam[row])) for name, row in belongs.items()}


def _rows(path: Path) -> Float[np.ndarray, "pose number"]:
    """The numbers of every line that is no comment: eight (TUM) or twelve (KITTI)."""
    lines = [line.split("#")[0].replace(",", " ").split() for line in _text(path).splitlines()]
    rows = [(number, words) for number, words in enumerate(lines, 1) if words]
    if not rows:
        raise InputError(f"{path} has no poses")
    count = len(rows[0][1])
    if count not in (_TUM, _KITTI):
        raise InputError(
            f"{path} has {count} words in its first line: expected the 8 of a TUM file (timestamp tx ty tz qx qy qz "
            "qw) or the 12 of a KITTI file"
        )
    values = np.zeros((len(rows), count))
    for row, (number, words) in enumerate(rows):
        if len(words) != count:
            raise InputError(f"{path}, line {number}: {len(words)} numbers instead of {count}")
        try:
            values[row] = [float(word) for word in words]
        except ValueError as error:
            raise InputError(f"{path}, line {number}: {error}") from error
    if not (np.abs(values) < _FARTHEST).all():
        raise InputError(f"{path} has a number that is not finite, or too large")
    return values


def _listed(path: Path, listed: Path, count: int, names: Sequence[str]) -> dict[str, int]:
    lines = [line for line in _text(listed).splitlines() if line.strip()]
    if len(lines) != count:
        raise InputError(f"{listed} has {len(lines)} names for the {count} poses of {path}")
    known = _Names.of(names)
    found: dict[str, int] = {}
    for row, line in enumerate(lines):
        name = known.find(line)
        if name is None:
            continue
        if name in found:
            raise InputError(f"{listed}: {printable(line)} and an earlier line both mean {printable(name)}")
        found[name] = row
    return found


def _by_time(stamps: Float[np.ndarray, "pose"], names: Sequence[str]) -> dict[str, int]:
    """Photographs with the entry nearest in time; those between entries, and without a time, have none."""
    timed = [(name, _NUMBER.search(PurePosixPath(name).stem)) for name in names]
    times = {name: float(match.group()) for name, match in timed if match is not None}
    ordered = np.unique(list(times.values()))
    apart = float(np.diff(ordered).min()) if len(ordered) > 1 else np.inf
    found = {}
    for name, time in times.items():
        nearest = int(np.abs(stamps - time).argmin())
        if abs(stamps[nearest] - time) <= _SAME_TIME * apart:
            found[name] = nearest
    return found


def _text(path: Path) -> str:
    try:
        return read_regular(path, _LARGEST_FILE).decode("utf-8", "replace")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def _array(value: Any, where: str) -> np.ndarray:
    try:
        array = np.array(value, np.float64) if value is not None else np.zeros(0)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where} is not made of numbers") from error
    if not (np.abs(array) < _FARTHEST).all():
        raise InputError(f"{where} has a number that is not finite, or too large")
    return array


def _rigid(world_from_cam: Float[np.ndarray, "3 4"], where: str) -> Float[np.ndarray, "3 4"]:
    """The pose with the nearest rotation; raises InputError if it is far from one."""
    u, _, vt = np.linalg.svd(world_from_cam[:, :3])
    rotation = u @ vt
    if np.linalg.det(rotation) < 0 or np.abs(rotation - world_from_cam[:, :3]).max() > _NOT_ROTATED:
        raise InputError(f"{where} is no rotation and translation")
    return np.concatenate([rotation, world_from_cam[:, 3:]], axis=1)
