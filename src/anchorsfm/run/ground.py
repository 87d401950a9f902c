"""Ground control points of a run: from their file to the metric frame and the photographs of the set."""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from anchorsfm.geometry.geodesy import enu_from_geodetic
from anchorsfm.io.gcp import GcpFile, Mark, read_gcp
from anchorsfm.io.reference_systems import check_system, geodetic
from anchorsfm.mapping.config import GcpConfig
from anchorsfm.mapping.control import MIN_POINTS
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.ground import GroundPoints
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.positions import GeoPositions
from anchorsfm.scene.progress import Progress

_UTM = re.compile(r"wgs\s*84\s+utm\s+(\d{1,2})\s*([ns])", re.IGNORECASE)


def check_gcp(config: GcpConfig) -> None:
    """Raise InputError for a file of ground control points that cannot be used, before a photograph is read."""
    if config.file is not None:
        file = read_gcp(config.file)
        if file.system is not None and not _is_wgs84(file.system):
            check_system(_system(file.system), f"{file.path}, line 1")


def with_ground_points(images: ImageSet, config: GcpConfig, progress: Progress) -> tuple[ImageSet, GroundPoints | None]:
    """The photographs, whose frame on the Earth the points say if nothing else does, and the points.

    Raises InputError if the file does not fit the photographs.
    """
    if config.file is None:
        return images, None
    file = read_gcp(config.file)
    rows = _image_rows(images, file, progress)
    marks = [mark for mark in file.marks if mark.image in rows]
    points = _points(file, marks, config.check)
    places = np.array([own[0].xyz for own in points.values()])
    if file.system is None:
        xyz = places
        if images.geo is not None:
            progress.note("recorded positions are not looked at: ground control points are in a frame of their own")
            images = replace(images, geo=None)
    else:
        lat_lon_alt = _geodetic(file, places, points)
        if images.geo is None:
            images = replace(images, geo=_frame(lat_lon_alt, images.num_images))
        assert images.geo is not None
        xyz = enu_from_geodetic(lat_lon_alt, images.geo.origin)
    flat = [(row, rows[mark.image], mark.xy_px) for row, own in enumerate(points.values()) for mark in own]
    found = GroundPoints(
        names=tuple(points),
        xyz_m=xyz,
        given=places,
        is_check=np.array([own[0].is_check or name in config.check for name, own in points.items()]),
        point=np.array([row for row, _, _ in flat], np.int64),
        image=np.array([image for _, image, _ in flat], np.int64),
        xy_px=np.array([xy for _, _, xy in flat], np.float64),
    )
    _require_inside(images, file, marks, rows)
    count = np.bincount(found.point, minlength=len(points))
    usable = int((~found.is_check & (count >= 2)).sum())
    if usable < MIN_POINTS:
        raise InputError(
            f"{file.path}: {usable} control points are marked in two photographs and more, {MIN_POINTS} are needed"
        )
    return images, found


def _image_rows(images: ImageSet, file: GcpFile, progress: Progress) -> dict[str, int]:
    """Index of the photographs that marks name, by the whole name or by that of the file where it is the only one."""
    rows: dict[str, int] = {}
    last: dict[str, list[int]] = {}
    for k, name in enumerate(images.names):
        rows[name] = k
        last.setdefault(name.rpartition("/")[2], []).append(k)
    for mark in file.marks:
        same = last.get(mark.image.replace("\\", "/").rpartition("/")[2], [])
        if mark.image not in rows and len(same) > 1:
            raise file.fault(mark.line, f"several photographs are called {mark.image}: name them with their folders")
        if mark.image not in rows and same:
            rows[mark.image] = same[0]
    unknown = list(dict.fromkeys(mark.image for mark in file.marks if mark.image not in rows))
    if len(unknown) == len({mark.image for mark in file.marks}):
        raise file.fault(file.marks[0].line, f"there is no photograph {unknown[0]} (there is {images.names[0]})")
    if unknown:
        more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        progress.warn(f"{file.path}: there is no photograph {unknown[0]}{more}: its marks are left out")
    return rows


def _points(file: GcpFile, marks: Sequence[Mark], check: Sequence[str]) -> dict[str, list[Mark]]:
    """The marks of every point by its name; points are told apart by their coordinates."""
    of_place: dict[tuple[float, float, float], list[Mark]] = {}
    for mark in marks:
        of_place.setdefault(mark.xyz, []).append(mark)
    points: dict[str, list[Mark]] = {}
    for number, own in enumerate(of_place.values(), start=1):
        names = list(dict.fromkeys(mark.name for mark in own if mark.name))
        name = names[0] if names else f"point {number}"
        if name in points:
            raise file.fault(own[0].line, f"{name} has other coordinates than in line {points[name][0].line}")
        seen: dict[str, Mark] = {}
        for mark in own:
            if mark.image in seen:
                raise file.fault(mark.line, f"{name} is marked in {mark.image} already in line {seen[mark.image].line}")
            seen[mark.image] = mark
        points[name] = own
    for name in check:
        if name not in points:
            raise InputError(f"{file.path} has no point {name} to check (there is {next(iter(points))})")
    return points


def _require_inside(images: ImageSet, file: GcpFile, marks: Sequence[Mark], rows: dict[str, int]) -> None:
    for mark in marks:
        width, height = images.size_wh[rows[mark.image]].tolist()
        if not (0 <= mark.xy_px[0] <= width and 0 <= mark.xy_px[1] <= height):
            raise file.fault(
                mark.line,
                f"pixel {mark.xy_px[0]:g} {mark.xy_px[1]:g} lies outside {mark.image}, which is {width}x{height}",
            )


def _is_wgs84(system: str) -> bool:
    return system.strip().upper().replace(" ", "") in ("WGS84", "EPSG:4326")


def _system(text: str) -> str:
    """As pyproj understands it."""
    utm = _UTM.fullmatch(text.strip())
    return f"EPSG:{326 if utm[2].upper() == 'N' else 327}{int(utm[1]):02d}" if utm else text.strip()


def _geodetic(
    file: GcpFile, places: Float[np.ndarray, "point 3"], points: dict[str, list[Mark]]
) -> Float[np.ndarray, "point 3"]:
    assert file.system is not None
    found = places[:, [1, 0, 2]] if _is_wgs84(file.system) else geodetic(places, _system(file.system))
    wrong = ~(np.isfinite(found).all(axis=1) & (np.abs(found[:, 0]) <= 90) & (np.abs(found[:, 1]) <= 180))
    if wrong.any():
        first = list(points.values())[int(np.argmax(wrong))][0]
        raise file.fault(first.line, f"{first.xyz[0]:g} {first.xyz[1]:g} is no place in {file.system}")
    return found


def _frame(lat_lon_alt: Float[np.ndarray, "point 3"], num_images: int) -> GeoPositions:
    """A frame about the points, where no photograph has a recorded position."""
    latitude, longitude, altitude = np.median(lat_lon_alt, axis=0).tolist()
    return GeoPositions.unrecorded(num_images, (latitude, longitude, altitude))
