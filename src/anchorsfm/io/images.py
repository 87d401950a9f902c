"""Photographs from files: found, verified and described once, before any computing starts.

Every file is decoded once, so that a damaged file is known by name. Pixels are not kept: `pictures` reads them again.
"""

import math
import warnings
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
from jaxtyping import Float, Int

from anchorsfm.geometry.geodesy import altitude_problem, geo_positions
from anchorsfm.io.decoding import draft, eight_bits, open_picture, photo_digest, why_unreadable
from anchorsfm.io.exif import Exif, exif_down, exif_focal, read_exif
from anchorsfm.io.files import read_regular
from anchorsfm.io.gps import GpsRecord, read_gps
from anchorsfm.io.listing import find_photographs
from anchorsfm.io.mask_files import without_masks
from anchorsfm.io.workers import ordered_map
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.images import CameraMode, ImageSet, SkippedImage
from anchorsfm.scene.printable import printable
from anchorsfm.scene.progress import SILENT, Progress

_MIN_SIDE = 16
_MAX_SIZES_WITHOUT_EXIF = 2
_MIN_OF_SIZE_IN_SCENE = 6
_NUM_READERS = 4


@dataclass(frozen=True, kw_only=True)
class _Photo:
    """What one readable file says."""

    name: str
    size_wh: tuple[int, int]
    exif: Exif
    gps: GpsRecord
    digest: str


SensorWidths = Callable[[str, str], float]
"""Width of a sensor in millimetres by make and model of the camera; NaN if it is not known."""


def no_widths(make: str, model: str) -> float:
    """A table without cameras."""
    return math.nan


def load_image_set(
    source: Path | Sequence[Path],
    *,
    camera_mode: CameraMode = "auto",
    focal_px: float | None = None,
    masks: Path | None = None,
    reads_positions: bool = True,
    root: Path | None = None,
    sensor_widths: SensorWidths = no_widths,
    progress: Progress = SILENT,
) -> ImageSet:
    """Find and verify photographs.

    `source` is a folder (searched recursively, sorted by name, hidden files ignored), a text file that lists images one
    per line relative to itself, or several of those and image files (kept in the given order). `focal_px` is the focal
    length of all images in original pixels, overriding EXIF. Files below `masks` that are the mask of another image are
    none. Without `reads_positions` nothing is known of where they were taken. Names are relative to `root` if all files
    lie below it, else to the folder that they have in common. `sensor_widths` is a table of cameras, for focal lengths
    in millimetres. Unreadable files are skipped with a warning.

    Raises InputError if there is nothing to work on or an option does not fit the images.
    """
    if camera_mode not in get_args(CameraMode):
        raise InputError(f"unknown camera mode {camera_mode!r}: choose one of {', '.join(get_args(CameraMode))}")
    if focal_px is not None and not (math.isfinite(focal_px) and focal_px > 0):
        raise InputError(f"the focal length must be a positive number of pixels, not {focal_px}")
    root, names = find_photographs(source, root)
    names = names if masks is None else without_masks(root, names, masks)
    photos, skipped = _read_all(root, names, progress)
    if not photos:
        raise InputError(
            f"none of the {len(names)} images in {root} can be read; {skipped[0].name}: {skipped[0].reason}"
        )
    if reads_positions:
        _name_problems(photos, progress)
    camera_index = _group_cameras(photos, camera_mode)
    focal_prior_px, focal_deviation = _focal_priors(photos, camera_index, focal_px, sensor_widths)
    return ImageSet(
        root=root,
        names=tuple(photo.name for photo in photos),
        size_wh=np.array([photo.size_wh for photo in photos], np.int64),
        camera_index=camera_index,
        focal_prior_px=focal_prior_px,
        focal_deviation=focal_deviation,
        digests=tuple(photo.digest for photo in photos),
        taken_s=np.array([photo.exif.taken_s for photo in photos]),
        geo=geo_positions([photo.gps.fix for photo in photos]) if reads_positions else None,
        down=_down(photos),
        is_unnamed=np.array([camera_mode == "auto" and not photo.exif.names_camera for photo in photos]),
        may_be_zoomed=np.array([camera_mode == "auto" and not photo.exif.has_focal_length for photo in photos]),
        skipped=tuple(skipped),
    )


def _down(photos: Sequence[_Photo]) -> Float[np.ndarray, "image 3"] | None:
    found = [exif_down(photo.exif, photo.size_wh) for photo in photos]
    if all(down is None for down in found):
        return None
    return np.array([(np.nan,) * 3 if down is None else down for down in found])


# ------------------------------------------------------------------------------------------------- verifying files


def _read_all(root: Path, names: list[str], progress: Progress) -> tuple[list[_Photo], list[SkippedImage]]:
    """Verify every file; four at a time, since hashing and decoding release the interpreter lock."""
    photos: list[_Photo] = []
    skipped: list[SkippedImage] = []
    with (
        progress.stage("reading photographs", len(names)) as advance,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # Pillow's remarks about damaged EXIF
        for result in ordered_map(lambda name: _verify(root, name), names, _NUM_READERS):
            advance(1)
            if isinstance(result, SkippedImage):
                skipped.append(result)
                progress.warn(f"skipped {result.name}: {result.reason}")
            else:
                photos.append(result)
    return photos, skipped


def unusable(files: Sequence[Path]) -> dict[Path, str]:
    """Those of some files that are skipped as photographs, and why; for those who must know it before names are given.

    A skipped file has a part in the folder that names are relative to.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = ordered_map(lambda path: _verify(path.parent, path.name), files, _NUM_READERS)
        return {
            path: result.reason for path, result in zip(files, found, strict=True) if isinstance(result, SkippedImage)
        }


def _verify(root: Path, name: str) -> _Photo | SkippedImage:
    if not _is_utf8(name):
        return SkippedImage(name=printable(name), reason="its name is not UTF-8, which models need: rename it")
    try:
        data = read_regular(root / name)
        if not data:
            return SkippedImage(name=name, reason="empty file")
        with open_picture(data, name) as image:
            # An eighth of the size decodes faster, and libjpeg still reads every byte and notices a missing end.
            full_wh = draft(image, "RGB", at_least=0.0)
            image.load()
            exif, gps = read_exif(image), read_gps(image)
            if eight_bits(image) is None:
                return SkippedImage(name=name, reason=f"unsupported kind of pixels ({image.mode})")
            stored_wh = full_wh or image.size
        size_wh = (stored_wh[1], stored_wh[0]) if exif.orientation >= 5 else stored_wh
        if min(size_wh) < _MIN_SIDE:
            return SkippedImage(name=name, reason=f"too small ({size_wh[0]}x{size_wh[1]})")
        return _Photo(name=name, size_wh=size_wh, exif=exif, gps=gps, digest=photo_digest(data))
    except MemoryError:
        raise
    except Exception as error:  # decoders of damaged files raise almost anything
        return SkippedImage(name=name, reason=why_unreadable(error))


def _name_problems(photos: list[_Photo], progress: Progress) -> None:
    """One line about recorded positions that cannot be used, and one about altitudes."""
    wrong = [photo for photo in photos if photo.gps.problem is not None]
    if wrong:
        more = "" if len(wrong) == 1 else f" (and of {len(wrong) - 1} more photographs)"
        progress.warn(f"recorded position of {wrong[0].name}{more}: {wrong[0].gps.problem}; ignored")
    if (problem := altitude_problem([photo.gps.fix for photo in photos])) is not None:
        progress.warn(problem)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that are none come as lone surrogates
        return False
    return True


# --------------------------------------------------------------------------------------------------------- cameras


def _group_cameras(photos: list[_Photo], mode: CameraMode) -> Int[np.ndarray, "image"]:
    """Row of the camera of each photo, in order of first appearance.

    `auto`: same size, make, model, focal lengths and digital zoom. Images without EXIF: equal size means one camera as
    long as they have at most two sizes (landscape and portrait); a collection of many sizes comes from many cameras,
    some of which agree by chance, so there every image gets its own.
    """
    if mode == "single":
        _check_one_size(photos)
        return np.zeros(len(photos), np.int64)
    if mode == "per-image":
        return np.arange(len(photos))
    if mode == "per-folder":
        return _number_groups((Path(photo.name).parent, photo.size_wh) for photo in photos)
    unnamed_sizes = {photo.size_wh for photo in photos if not photo.exif.names_camera}
    share = len(unnamed_sizes) <= _MAX_SIZES_WITHOUT_EXIF
    return _number_groups(_camera_key(photo, share) for photo in photos)


def with_cameras_of_scenes(images: ImageSet, scene: Int[np.ndarray, "image"]) -> ImageSet:
    """The photographs with cameras shared within scenes, as if each scene were a folder of its own.

    Mode `auto` gives every photograph without EXIF its own camera where a folder has many sizes. Where they fall into
    several scenes, each of which has at most two sizes and enough photographs of a size that it is no chance, those of
    a size have one camera.
    """
    alone = np.bincount(images.camera_index)[images.camera_index] == 1
    unnamed = alone & ~np.isfinite(images.focal_prior_px)
    key: list[Hashable] = [("own", int(camera)) for camera in images.camera_index]
    for number in np.unique(scene):
        rows = np.flatnonzero(unnamed & (scene == number))
        sizes, size_of, count = np.unique(images.size_wh[rows], axis=0, return_inverse=True, return_counts=True)
        if len(sizes) <= _MAX_SIZES_WITHOUT_EXIF:
            for row, size in zip(rows.tolist(), size_of.reshape(-1).tolist(), strict=True):
                if count[size] >= _MIN_OF_SIZE_IN_SCENE:
                    key[row] = ("scene", int(number), size)
    return replace(images, camera_index=_number_groups(key))


def _camera_key(photo: _Photo, share_without_exif: bool) -> Hashable:
    exif = photo.exif
    if not exif.names_camera:
        return photo.size_wh if share_without_exif else photo.name
    focal = tuple(0.0 if math.isnan(value) else value for value in (exif.focal_mm, exif.focal_35mm))
    return photo.size_wh, exif.make, exif.model, exif.video, exif.digital_zoom, focal


def _number_groups(keys: Iterable[Hashable]) -> Int[np.ndarray, "image"]:
    rows: dict[Hashable, int] = {}
    return np.array([rows.setdefault(key, len(rows)) for key in keys], np.int64)


def _check_one_size(photos: list[_Photo]) -> None:
    first = photos[0]
    for photo in photos:
        if photo.size_wh != first.size_wh:
            raise InputError(
                f"a single camera needs images of one size, but {first.name} is {first.size_wh[0]}x{first.size_wh[1]} "
                f"and {photo.name} {photo.size_wh[0]}x{photo.size_wh[1]}: choose camera mode auto"
            )


def _focal_priors(
    photos: list[_Photo], camera_index: np.ndarray, given_px: float | None, sensor_widths: SensorWidths
) -> tuple[np.ndarray, np.ndarray]:
    """Focal length per image, the given one or else the median of what EXIF says about the images of its camera; and
    the deviation of recorded ones, as a share."""
    if given_px is not None:
        return np.full(len(photos), float(given_px)), np.full(len(photos), np.nan)
    recorded = [
        exif_focal(photo.exif, photo.size_wh, sensor_widths(photo.exif.make, photo.exif.model))
        if photo.exif.model and math.isfinite(photo.exif.focal_mm)
        else exif_focal(photo.exif, photo.size_wh)
        for photo in photos
    ]
    priors, deviations = np.array([r.focal_px for r in recorded]), np.array([r.deviation for r in recorded])
    for camera in range(camera_index.max() + 1):
        mine = camera_index == camera
        known = mine & np.isfinite(priors)
        priors[mine], deviations[mine] = (
            (np.median(values[known]) if known.any() else np.nan) for values in (priors, deviations)
        )
    return priors, deviations
