"""The rigs that the settings name: which photographs were taken together, by which camera."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from anchorsfm.colmap.cameras import camera_of_params
from anchorsfm.io.rig_config import RigDescription, read_rig_config, rigs_of_names, rigs_of_times
from anchorsfm.mapping.config import RigConfig
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.progress import Progress
from anchorsfm.scene.reconstruction import Camera
from anchorsfm.scene.rigs import Rigs


@dataclass(frozen=True, kw_only=True)
class RigPhotographs:
    """Photographs with their rigs, and what is given about the cameras of these."""

    images: ImageSet
    cameras: dict[int, Camera]
    """Row of the ImageSet's cameras -> intrinsics."""


def check_rig(config: RigConfig) -> None:
    """Raise InputError for a file of rigs that cannot be used, before a photograph is read."""
    if config.file is not None and config.file != "auto":
        read_rig_config(Path(config.file))


def with_rigs_of(images: ImageSet, config: RigConfig, progress: Progress) -> RigPhotographs:
    """The photographs with the rigs that the settings name; each camera of a rig is one camera of the set.

    Raises InputError if the rigs do not fit the photographs.
    """
    if config.file is None:
        return RigPhotographs(images=images, cameras={})
    moments: dict[str, str] = {}
    if config.file == "auto":
        source, rigs = "the names of the photographs", rigs_of_names(images.names)
        if not rigs and images.taken_s is not None:
            source, (rigs, moments) = "the times of the photographs", rigs_of_times(images.names, images.taken_s)
        if not rigs:
            raise config.refused(
                "file",
                "no rig shows in the photographs, which would be a folder for each camera and in them the same names, "
                "or the same times, for what was taken at one moment, or left_001.jpg beside right_001.jpg: describe "
                "it in a file",
            )
    else:
        source, rigs = config.file, read_rig_config(Path(config.file))
    placed = _placed(images, rigs, moments, source)
    found = _rigs(rigs, placed, images.num_images, refine=config.refine)
    _require_frames(found, source)
    cameras = _cameras(images, rigs, placed, source)
    sensors, frames = (
        int((np.bincount(found.sensor[found.sensor >= 0]) > 0).sum()),
        len(np.unique(found.frame[found.frame >= 0])),
    )
    number = len(np.unique(found.rig))
    progress.note(
        f"{'a rig' if number == 1 else f'{number} rigs'} of {sensors} cameras, {frames} shots, by {source}: "
        f"{int((found.sensor >= 0).sum())} of {images.num_images} photographs"
    )
    key = [
        ("own", int(c)) if s < 0 else ("rig", int(s)) for c, s in zip(images.camera_index, found.sensor, strict=True)
    ]
    rows = {entry: row for row, entry in enumerate(dict.fromkeys(key))}
    return RigPhotographs(
        images=replace(images, camera_index=np.array([rows[entry] for entry in key], np.int64), rigs=found),
        cameras={rows["rig", sensor]: camera for sensor, camera in cameras.items()},
    )


@dataclass(frozen=True)
class _Place:
    """Where a photograph is in the rigs."""

    rig: int
    sensor: int
    """Row among all sensors."""
    moment: str


def _placed(
    images: ImageSet, rigs: Sequence[RigDescription], moments: Mapping[str, str], source: str
) -> list[_Place | None]:
    """Moments are given by name, or what the name has after the prefix."""
    prefixes = [(camera.image_prefix, number) for number, rig in enumerate(rigs) for camera in rig.cameras]
    places: list[_Place | None] = []
    for name in images.names:
        mine = [row for row, (prefix, _) in enumerate(prefixes) if name.startswith(prefix)]
        if not mine:
            places.append(None)
            continue
        sensor = max(mine, key=lambda row: len(prefixes[row][0]))
        prefix, rig = prefixes[sensor]
        rest = name[len(prefix) :].removesuffix(PurePosixPath(name).suffix)
        places.append(_Place(rig, sensor, moments.get(name, rest)))
    seen = {place.sensor for place in places if place is not None}
    for sensor, (prefix, _) in enumerate(prefixes):
        if sensor not in seen:
            raise InputError(
                f"{source}: no photograph has a name that begins with {prefix!r} (there is {images.names[0]})"
            )
    count = Counter((place.sensor, place.moment) for place in places if place is not None)
    twice = next((key for key, number in count.items() if number > 1), None)
    if twice is not None:
        names = [
            n for n, p in zip(images.names, places, strict=True) if p is not None and (p.sensor, p.moment) == twice
        ]
        raise InputError(f"{source}: {names[0]} and {names[1]} would be by one camera at one moment")
    return places


def _rigs(rigs: Sequence[RigDescription], placed: Sequence[_Place | None], num_images: int, *, refine: bool) -> Rigs:
    poses = np.stack([camera.cam_from_rig for rig in rigs for camera in rig.cameras])
    of_rig = np.array([number for number, rig in enumerate(rigs) for _ in rig.cameras], np.int64)
    first = np.array([camera.ref_sensor for rig in rigs for camera in rig.cameras])
    moments = {key: row for row, key in enumerate(dict.fromkeys((p.rig, p.moment) for p in placed if p is not None))}
    given = np.isfinite(poses).all(axis=(1, 2))
    fixed = first | (given & (not refine))
    for rig in range(len(rigs)):  # without baselines, views of one picture
        mine = of_rig == rig
        if given[mine].all() and not poses[mine, :, 3].any():
            fixed |= mine
    return Rigs(
        sensor=np.array([-1 if p is None else p.sensor for p in placed], np.int64),
        frame=np.array([-1 if p is None else moments[p.rig, p.moment] for p in placed], np.int64),
        rig=of_rig,
        sensor_from_rig=poses,
        is_fixed=fixed,
    )


def _require_frames(rigs: Rigs, source: str) -> None:
    sizes = np.bincount(rigs.frame[rigs.frame >= 0])
    if not (sizes > 1).any():
        raise InputError(
            f"{source}: no two cameras have a photograph of the same moment: names must be equal after the prefixes"
        )


def _cameras(
    images: ImageSet, rigs: Sequence[RigDescription], placed: Sequence[_Place | None], source: str
) -> dict[int, Camera]:
    """Given intrinsics by sensor; all photographs of a sensor have one size."""
    described = [camera for rig in rigs for camera in rig.cameras]
    found = {}
    for sensor, camera in enumerate(described):
        mine = [k for k, place in enumerate(placed) if place is not None and place.sensor == sensor]
        width, height = images.size_wh[mine[0]].tolist()
        for k in mine:
            if images.size_wh[k].tolist() != [width, height]:
                raise InputError(
                    f"{source}: a camera of a rig takes photographs of one size, but {images.names[mine[0]]} is "
                    f"{width}x{height} and {images.names[k]} {images.size_wh[k, 0]}x{images.size_wh[k, 1]}"
                )
        if camera.camera_model_name is not None and camera.camera_params is not None:
            try:
                found[sensor] = camera_of_params(camera.camera_model_name, width, height, camera.camera_params)
            except ValueError as error:
                raise InputError(f"{source}: the camera of {camera.image_prefix!r}: {error}") from error
    return found
