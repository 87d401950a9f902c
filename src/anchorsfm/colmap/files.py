"""The files of a COLMAP model, looked through before pycolmap reads them.

pycolmap 4.2 trusts the counts in a file: it reads zeros past the end of one that was cut short, or never returns. So
every file is first walked record by record here, in time and memory proportional to its size. What is looked at:

- counts fit the file, and the file ends where they say;
- identifiers and names are unique, and everything that is referred to is there;
- numbers are finite and of a size that can be computed with, rotations are unit quaternions, focal lengths positive;
- a point and the observation that its track names agree that they belong together.

The formats are documented at https://colmap.github.io/format.html.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from anchorsfm.colmap.file_binary import BinaryFile
from anchorsfm.colmap.file_records import FARTHEST, NO_POINT, ModelFile, StoredImage, StoredPoints, require_pose
from anchorsfm.colmap.file_text import TextFile
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.printable import printable


def check_files(folder: Path, suffix: str, *, points: bool) -> dict[int, StoredImage]:
    """Look through the files of a model; returns its images by identifier.

    Args:
        folder: where cameras, images, and where there are any rigs and frames lie.
        suffix: `.bin` or `.txt`.
        points: whether there are points, which must then be sound too.

    Raises:
        InputError: names the file and what is wrong with it.
    """
    read = BinaryFile if suffix == ".bin" else TextFile
    cameras = read(folder / f"cameras{suffix}").cameras()
    images = _checked_images(read(folder / f"images{suffix}"), cameras)
    parts = [folder / f"{name}{suffix}" for name in ("rigs", "frames")]
    if any(path.exists() for path in parts):
        rigs = read(parts[0]).rigs(set(cameras))
        read(parts[1]).frames(rigs, images)
    if points:
        file = read(folder / f"points3D{suffix}")
        _check_points(file, file.points(), images)
    return images


def _checked_images(file: BinaryFile | TextFile, cameras: set[int]) -> dict[int, StoredImage]:
    images: dict[int, StoredImage] = {}
    names: set[str] = set()
    for image_id, image in file.images():
        shown = printable(image.name)
        if not image.name:
            raise file.fault(f"image {image_id} has no name")
        if image_id in images or image.name in names:
            raise file.fault(f"it lists image {image_id if image_id in images else shown} twice")
        if image.camera_id not in cameras:
            raise file.fault(f"{shown} has camera {image.camera_id}, which cameras{file.path.suffix} does not list")
        require_pose(file, f"the pose of {shown}", image.pose)
        if not (np.abs(image.xy) < FARTHEST).all():
            raise file.fault(f"an observation of {shown} is not a place")
        names.add(image.name)
        images[image_id] = image
    return images


def _check_points(file: ModelFile, points: StoredPoints, images: Mapping[int, StoredImage]) -> None:
    def fault(row: int, problem: str) -> InputError:
        return file.fault(f"point {int(points.head['id'][row])} {problem}")

    head, elements = points.head, points.elements
    if not len(head) and any((image.point != NO_POINT).any() for image in images.values()):
        raise file.fault("it lists no points, and the images have observations of some")
    order = np.argsort(head["id"], kind="stable")
    repeated = np.flatnonzero(head["id"][order][1:] == head["id"][order][:-1])
    if len(repeated):
        raise fault(int(order[repeated[0]]), "is listed twice")
    wild = ~(np.abs(head["xyz"]) < FARTHEST).all(axis=1) | ~np.isfinite(head["error"])
    if wild.any():
        raise fault(int(np.argmax(wild)), "is not at a place, or has an error that is not finite")
    row = np.repeat(np.arange(len(head)), head["length"].astype(np.int64))
    identifiers = np.array(sorted(images), np.int64)
    at = np.searchsorted(identifiers, elements["image"])
    known = np.append(identifiers, -1)[at] == elements["image"]
    if not known.all():
        first = int(np.argmin(known))
        raise fault(int(row[first]), f"is seen in image {elements['image'][first]}, which is not listed")
    count = np.array([len(images[k].xy) for k in identifiers], np.int64)
    start = np.concatenate([[0], np.cumsum(count)])
    outside = elements["slot"] >= count[at] if len(elements) else np.zeros(0, bool)
    if outside.any():
        raise fault(int(row[np.argmax(outside)]), "is seen in an observation that its image does not have")
    owner = np.concatenate([np.zeros(0, np.uint64), *(images[k].point for k in identifiers)])
    other = owner[start[at] + elements["slot"]] != head["id"][row] if len(elements) else np.zeros(0, bool)
    if other.any():
        raise fault(int(row[np.argmax(other)]), "is seen in an observation that belongs to another point in its image")
