"""Camera paths as text: one pose a line, world_from_cam with COLMAP's camera axes (x right, y down, z forward).

TUM (https://cvg.cit.tum.de/data/datasets/rgbd-dataset/file_formats): `timestamp tx ty tz qx qy qz qw`. The timestamp is
the number at the end of the image's name if all images have different ones, else the position in the order of names.
KITTI odometry (https://www.cvlibs.net/datasets/kitti/eval_odometry.php): the 12 numbers of the matrix [R | centre],
row by row, in the order of names.

`names.txt` beside either lists the images line by line.
"""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from scipy.spatial.transform import Rotation

from anchorsfm.geometry.transforms import invert
from anchorsfm.io.store import write_atomic
from anchorsfm.results.model import StoredModel

_NUMBER = re.compile(r"\d+(?:\.\d+)?$")


def export_tum(entry: StoredModel, folder: Path) -> None:
    """Write poses.txt and names.txt; raises StorageError."""
    names = entry.view_names
    lines = tum_lines(names)
    world_from_cam = invert(entry.model.cam_from_world)
    quaternion = Rotation.from_matrix(world_from_cam[:, :, :3]).as_quat()
    rows = [f"{stamp} {_line([*world_from_cam[v, :, 3], *quaternion[v]])}" for stamp, v in lines]
    _write(folder, ["# timestamp tx ty tz qx qy qz qw", *rows], [names[v] for _, v in lines])


def export_kitti(entry: StoredModel, folder: Path) -> None:
    """Write poses.txt and names.txt; raises StorageError."""
    names = entry.view_names
    order = sorted(range(len(names)), key=lambda view: names[view])
    world_from_cam = invert(entry.model.cam_from_world)
    _write(folder, [_line(world_from_cam[v].ravel()) for v in order], [names[v] for v in order])


def tum_lines(names: Sequence[str]) -> list[tuple[str, int]]:
    """Time and row of every image in the order of the lines of poses.txt."""
    stamps = timestamps(names)
    order = sorted(range(len(names)), key=lambda view: (float(stamps[view]), names[view]))
    return [(stamps[view], view) for view in order]


def timestamps(names: Sequence[str]) -> list[str]:
    """Time of every image as text; all are different."""
    found = [_NUMBER.search(PurePosixPath(name).stem) for name in names]
    numbers = [match.group() for match in found if match is not None]
    if len({float(number) for number in numbers}) == len(names):
        return numbers
    position = {name: str(k) for k, name in enumerate(sorted(names))}
    return [position[name] for name in names]


def _line(values: Sequence[float] | np.ndarray) -> str:
    return " ".join(f"{value:.17g}" for value in values)


def _write(folder: Path, rows: Sequence[str], names: Sequence[str]) -> None:
    write_atomic(folder / "poses.txt", "\n".join([*rows, ""]))
    write_atomic(folder / "names.txt", "\n".join([*names, ""]))
