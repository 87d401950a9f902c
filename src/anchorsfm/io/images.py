"""Photographs from files: find, verify, describe, and read pixels again when a stage needs them.

Every file is decoded once when the set is made, so that a damaged file is known by name before any computing starts.
Pixels are not kept. Whenever they are needed again the file is read anew and must have the digest it had then: what is
computed from a picture is cached under that digest. Pictures are upright (EXIF orientation applied) everywhere behind
this module.

Alpha is dropped from pixels; `masks` takes it for a mask. 16-bit pictures map 0..65535 to 0..255.
"""

import hashlib
import io
import math
import os
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import get_args

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image, UnidentifiedImageError, features

from anchorsfm.geometry.geodesy import geo_positions
from anchorsfm.io.exif import Exif, exif_down, exif_focal, read_exif
from anchorsfm.io.files import NotAFileError, read_regular
from anchorsfm.io.gps import GpsRecord, read_gps
from anchorsfm.io.mask_files import without_masks
from anchorsfm.io.owned import holds_results
from anchorsfm.io.remote import RemoteFolder
from anchorsfm.io.workers import ordered_map
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.images import CameraMode, ImageSet, SkippedImage
from anchorsfm.scene.printable import printable
from anchorsfm.scene.progress import SILENT, Progress

EXTENSIONS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".heic", ".heif", ".avif")
RAW_EXTENSIONS = (
    ".dng", ".nef", ".nrw", ".cr2", ".cr3", ".crw", ".arw", ".sr2", ".raf", ".orf", ".rw2", ".pef", ".srw", ".3fr",
    ".iiq", ".gpr", ".x3f", ".raw",
)  # fmt: skip
"""Names of what sensors record, which is no picture before it is developed."""
VIDEO_EXTENSIONS = (
    ".mp4", ".m4v", ".mov", ".qt", ".avi", ".mkv", ".webm", ".mts", ".m2ts", ".ts", ".mpg", ".mpeg", ".vob", ".wmv",
    ".asf", ".flv", ".f4v", ".3gp", ".3g2", ".ogv", ".mxf", ".insv", ".lrv", ".360", ".h264", ".h265", ".hevc", ".y4m",
    ".gif",
)  # fmt: skip
"""Names of videos: their frames are photographs once they are files (`anchorsfm.video`)."""
_HEIC = (".heic", ".heif")
_NO_HEIC = "HEIC pictures need an extra package: pip install 'anchorsfm[heic]'"
_NO_AVIF = "AVIF pictures need Pillow 11.3 or newer: pip install -U pillow"
_NOT_DEVELOPED = "raw files are not read: develop them to JPEG, TIFF or PNG, without correcting the lens"
_MIN_SIDE = 16
_MAX_SIZES_WITHOUT_EXIF = 2
_MIN_OF_SIZE_IN_SCENE = 6
_NUM_READERS = 4
_OPAQUE = 128
_LISTS = (".txt", ".lst", ".list")
"""Names of files that list pictures, where there are several sources."""
_MAX_LIST_BYTES = 16 * 2**20
_OPEN_LOCK = threading.Lock()
"""Changing warning filters is not safe in threads."""

_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TO_TURNED = {1: Image.Transpose.ROTATE_90, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_270}


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
        skipped=tuple(skipped),
    )


def _down(photos: Sequence[_Photo]) -> Float[np.ndarray, "image 3"] | None:
    found = [exif_down(photo.exif, photo.size_wh) for photo in photos]
    if all(down is None for down in found):
        return None
    return np.array([(np.nan,) * 3 if down is None else down for down in found])


def load_rgb(
    images: ImageSet, index: int, size_wh: Int[np.ndarray, "2"] | tuple[int, int] | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """Upright pixels of one image, resampled (anti-aliased) to exactly `size_wh` if given.

    Pixel edges map to pixel edges: x_resized = x * width_resized / width in COLMAP pixels.

    Raises InputError if the file can no longer be read or is not the one that was verified.
    """
    return np.array(_load(images, index, "RGB", size_wh))


def load_grey(
    images: ImageSet, index: int, size_wh: Int[np.ndarray, "2"] | tuple[int, int] | None = None
) -> UInt8[np.ndarray, "h w"]:
    """Like `load_rgb`, as luminance (ITU-R 601)."""
    return np.array(_load(images, index, "L", size_wh))


def load_alpha(images: ImageSet, index: int) -> Bool[np.ndarray, "h w"] | None:
    """Where the upright picture is opaque, more or less; None if it has no transparency.

    Raises InputError like `load_rgb`.
    """
    path = images.path(index)
    try:
        with open_picture(photo_bytes(images, index), path.name) as image:
            if "A" not in image.getbands() and "transparency" not in image.info:
                return None
            image.load()
            turned = read_exif(image).orientation
            alpha = image.convert("RGBA").getchannel("A")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read {path}: {why_unreadable(error)}") from error
    upright = alpha.transpose(_TO_UPRIGHT[turned]) if turned in _TO_UPRIGHT else alpha
    return np.asarray(upright) >= _OPAQUE


def load_file_rgb(
    path: Path, full_wh: tuple[int, int], size_wh: Int[np.ndarray, "2"] | tuple[int, int]
) -> UInt8[np.ndarray, "h w 3"]:
    """Like `load_rgb`, of a file of which nothing is known but the upright size that it should have.

    Raises InputError if it cannot be read or has another size.
    """
    return np.array(_decoded(path, _file_bytes(path), "RGB", full_wh, size_wh))


def photo_bytes(images: ImageSet, index: int) -> bytes:
    """The file of one image, whose content is that which was verified when the set was made.

    Raises InputError if it can no longer be read or has changed, and StorageError if it is read from a URL that fails.
    """
    path = images.path(index)
    fetched = _from_origin(images, path)
    data = _file_bytes(path) if fetched is None else fetched
    if images.digests[index] != _digest(data):
        raise InputError(f"{path} has changed since it was first read: run the same command again")
    return data


def _from_origin(images: ImageSet, path: Path) -> bytes | None:
    """The content of a file that is not here, from where it was fetched; None if it is here, or nowhere."""
    found = images.origin(path)
    if found is None or path.exists():
        return None
    url, name = found
    return _remote(url).read(name)


@lru_cache(maxsize=8)
def _remote(url: str) -> RemoteFolder:
    return RemoteFolder(url)


def _file_bytes(path: Path) -> bytes:
    try:
        return read_regular(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {why_unreadable(error)}") from error


@dataclass(frozen=True, kw_only=True)
class PhotoHeader:
    """What a file says about itself without being decoded."""

    digest: str
    """SHA-256 of the file's bytes, as in `ImageSet.digests`."""

    size_wh: tuple[int, int]
    """Of the upright picture."""
    is_upright: bool
    """Whether the pixels are stored upright and no tag asks for a turn."""
    mode: str
    """Pillow's name for the kind of pixels, such as RGB."""
    icc_profile: bytes | None
    """Colour space of the pixels."""
    down: tuple[float, float, float] | None
    """As in `ImageSet.down`."""

    @property
    def is_plain(self) -> bool:
        """Whether every program shows the pixels that `load_rgb` returns."""
        return self.is_upright and self.mode == "RGB"


def read_header(path: Path) -> PhotoHeader:
    """Size, orientation and colour space of a picture.

    Raises InputError if the file cannot be read or is no picture.
    """
    try:
        data = read_regular(path)
        with open_picture(data, path.name) as image:
            width, height = image.size
            tagged = read_exif(image).orientation
            if image.format == "TIFF":  # turned by Pillow itself, which then knows the turned size
                image.load()
                width, height = image.size
            exif = read_exif(image)
            size_wh = (height, width) if exif.orientation >= 5 else (width, height)
            return PhotoHeader(
                digest=_digest(data),
                size_wh=size_wh,
                is_upright=tagged == 1,
                mode=image.mode,
                icc_profile=image.info.get("icc_profile"),
                down=exif_down(exif, size_wh),
            )
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read {path}: {why_unreadable(error)}") from error


def working_size_wh(size_wh: Int[np.ndarray, "*batch 2"], max_size: int) -> Int[np.ndarray, "*batch 2"]:
    """Sizes whose longer side is at most `max_size`, aspect kept to the nearest pixel; never enlarged."""
    scale = np.minimum(1.0, max_size / size_wh.max(axis=-1, keepdims=True))
    return np.maximum(1, np.floor(size_wh * scale + 0.5)).astype(np.int64)


# ---------------------------------------------------------------------------------------------------- finding files


def photograph_files(sources: Sequence[Path]) -> list[Path]:
    """The files that folders, lists and pictures stand for, in order.

    Raises InputError if a folder or list cannot be read or has no pictures.
    """
    return [file for path in sources for file in _files_of(Path(path))]


def find_photographs(source: Path | Sequence[Path], root: Path | None = None) -> tuple[Path, list[str]]:
    """Root folder and the names of all candidate files, by their extensions; arguments as for `load_image_set`.

    Raises InputError if there are none, or they cannot be read.
    """
    if not isinstance(source, Path):
        return _common_root(photograph_files(source), root)
    try:
        if source.is_dir():
            return _list_folder(source)
        if source.is_file():
            return _common_root(_read_list(source))
        missing = not source.exists()
    except PermissionError as error:
        raise InputError(f"cannot read {source}: permission denied") from error
    reason = "no such file or folder" if missing else "neither a file nor a folder"
    raise InputError(f"{source}: {reason}; give a folder of photographs")


def _files_of(path: Path) -> list[Path]:
    """One of several sources: the pictures of a folder or list, or a picture itself."""
    if path.is_dir():
        root, names = _list_folder(path)
        return [root / name for name in names]
    is_list = path.is_file() and path.suffix.lower() in _LISTS
    return _read_list(path) if is_list else [path]


def _list_folder(root: Path) -> tuple[Path, list[str]]:
    if holds_results(root):
        raise InputError(
            f"{root} holds results of this program, which are not taken for photographs: give the folder with the "
            "photographs"
        )
    files = sorted(path.relative_to(root).as_posix() for path in _walk(root))
    names = [name for name in files if name.lower().endswith(EXTENSIONS)]
    if not names:
        raise no_images(root, files)
    return root, names


def no_images(folder: Path | str, files: Iterable[str]) -> InputError:
    """The error of a folder, or URL, that has other files only."""
    kinds = Counter(Path(name).suffix.lower() or "no extension" for name in files)
    found = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common(4)) or "nothing"
    hint = ""
    if any(kind in VIDEO_EXTENSIONS for kind in kinds):
        hint = "; name videos themselves to use their frames"
    elif any(kind in RAW_EXTENSIONS for kind in kinds):
        hint = f"; {_NOT_DEVELOPED}"
    return InputError(f"no images in {folder}: found {found}; supported are {' '.join(EXTENSIONS)}{hint}")


def _walk(root: Path) -> Iterator[Path]:
    """All visible files below a folder, following links to folders once; results of ours are no photographs."""

    def fail(error: OSError) -> None:
        raise InputError(f"cannot read {error.filename or root}: {error.strerror}") from error

    seen = {os.path.realpath(root)}
    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=fail):
        keep = []
        for name in subfolders:
            real = os.path.realpath(Path(folder) / name)
            if not name.startswith(".") and name != "__MACOSX" and real not in seen and not holds_results(Path(real)):
                seen.add(real)
                keep.append(name)
        subfolders[:] = keep
        yield from (Path(folder) / name for name in files if not name.startswith("."))


def _read_list(path: Path) -> list[Path]:
    """Paths listed in a text file, relative to it; blank lines and lines that begin with # are ignored."""
    if path.suffix.lower() in RAW_EXTENSIONS:
        raise InputError(f"{path}: {_NOT_DEVELOPED}")
    if path.suffix.lower() in EXTENSIONS:
        raise InputError(f"{path} is a single image: give the folder it is in, or a text file listing images")
    try:
        text = read_regular(path, _MAX_LIST_BYTES).decode("utf-8-sig")
    except (UnicodeDecodeError, NotAFileError) as error:
        raise InputError(f"{path} is neither a folder nor a text file listing images") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {why_unreadable(error)}") from error
    if "\0" in text:
        raise InputError(f"{path} is neither a folder nor a text file listing images")
    listed = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            listed.append(path.parent / line.strip())
            if not listed[-1].is_file():
                raise InputError(f"{path}, line {number}: no such file: {line.strip()}")
    if not listed:
        raise InputError(f"{path} lists no images")
    return listed


def _common_root(paths: list[Path], wanted: Path | None = None) -> tuple[Path, list[str]]:
    if not paths:
        raise InputError("the list of images is empty")
    for path in paths:
        if not path.is_file():
            other = "is a folder, not an image" if path.is_dir() else "is not a regular file"
            raise InputError(f"{path}: {other if path.exists() else 'no such file'}")
        if path.suffix.lower() in RAW_EXTENSIONS:
            raise InputError(f"{path}: {_NOT_DEVELOPED}")
        if path.suffix.lower() not in EXTENSIONS:
            raise InputError(f"{path}: not a supported kind of image; supported are {' '.join(EXTENSIONS)}")
    plain = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100 - `resolve` would follow links to other names
    repeated = [path for path, count in Counter(plain).items() if count > 1]
    if repeated:
        raise InputError(f"{repeated[0]} is listed more than once")
    if wanted is not None and all(path.is_relative_to(wanted) for path in plain):
        return wanted, [path.relative_to(wanted).as_posix() for path in plain]
    try:
        root = Path(os.path.commonpath([path.parent for path in plain]))
    except ValueError as error:
        raise InputError("the photographs lie on different drives: models need names from one folder on") from error
    return root, [path.relative_to(root).as_posix() for path in plain]


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


def _verify(root: Path, name: str) -> _Photo | SkippedImage:
    if not _is_utf8(name):
        return SkippedImage(name=printable(name), reason="its name is not UTF-8, which models need: rename it")
    try:
        data = read_regular(root / name)
        if not data:
            return SkippedImage(name=name, reason="empty file")
        with open_picture(data, name) as image:
            # An eighth of the size decodes faster, and libjpeg still reads every byte and notices a missing end.
            full_wh = _draft(image, "RGB", at_least=0.0)
            image.load()
            exif, gps = read_exif(image), read_gps(image)
            if _eight_bits(image) is None:
                return SkippedImage(name=name, reason=f"unsupported kind of pixels ({image.mode})")
            stored_wh = full_wh or image.size
        size_wh = (stored_wh[1], stored_wh[0]) if exif.orientation >= 5 else stored_wh
        if min(size_wh) < _MIN_SIDE:
            return SkippedImage(name=name, reason=f"too small ({size_wh[0]}x{size_wh[1]})")
        return _Photo(name=name, size_wh=size_wh, exif=exif, gps=gps, digest=_digest(data))
    except MemoryError:
        raise
    except Exception as error:  # decoders of damaged files raise almost anything
        return SkippedImage(name=name, reason=why_unreadable(error))


def _name_problems(photos: list[_Photo], progress: Progress) -> None:
    """One line about recorded positions that cannot be used."""
    wrong = [photo for photo in photos if photo.gps.problem is not None]
    if wrong:
        more = "" if len(wrong) == 1 else f" (and of {len(wrong) - 1} more photographs)"
        progress.warn(f"recorded position of {wrong[0].name}{more}: {wrong[0].gps.problem}; ignored")


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that are none come as lone surrogates
        return False
    return True


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def open_picture(data: bytes, name: str) -> Image.Image:
    """The picture in a file's content, not decoded yet. Raises almost anything where it is damaged."""
    if name.lower().endswith(_HEIC):
        _register_heic()
    if name.lower().endswith(".avif") and not features.check("avif"):
        raise InputError(_NO_AVIF)
    with _OPEN_LOCK, warnings.catch_warnings():
        # Photographs of 100 megapixels are no attack; at twice that Pillow refuses, and the file is skipped.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(io.BytesIO(data))


def _register_heic() -> None:
    try:
        import pillow_heif
    except ImportError as error:
        raise InputError(_NO_HEIC) from error
    pillow_heif.register_heif_opener()


def _draft(image: Image.Image, mode: str, at_least: float) -> tuple[int, int] | None:
    """Let libjpeg decode at 1/2, 1/4 or 1/8, but not below `at_least` of the full size, which is returned; None if the
    picture is no such JPEG."""
    full_wh = image.size
    if image.format not in ("JPEG", "MPO") or image.mode not in ("RGB", "L"):
        return None
    image.draft(mode, (max(1, math.ceil(at_least * full_wh[0])), max(1, math.ceil(at_least * full_wh[1]))))
    return full_wh


def why_unreadable(error: Exception) -> str:
    """What is wrong with a picture, in a few words, from the error of whoever read it."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or damaged at its beginning"
    if isinstance(error, PermissionError):
        return "permission denied"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6} megapixels"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return text.replace("image file is truncated", "truncated")


# --------------------------------------------------------------------------------------------------------- cameras


def _group_cameras(photos: list[_Photo], mode: CameraMode) -> Int[np.ndarray, "image"]:
    """Row of the camera of each photo, in order of first appearance.

    `auto`: same size, make, model and focal lengths. Images without EXIF: equal size means one camera as long as they
    have at most two sizes (landscape and portrait); a collection of many sizes comes from many cameras, some of which
    agree by chance, so there every image gets its own.
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
    return photo.size_wh, exif.make, exif.model, exif.video, focal


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


# ---------------------------------------------------------------------------------------------------------- pixels


def _load(images: ImageSet, index: int, mode: str, size_wh: np.ndarray | tuple[int, int] | None) -> Image.Image:
    full_wh = (int(images.size_wh[index, 0]), int(images.size_wh[index, 1]))
    target_wh = full_wh if size_wh is None else (int(size_wh[0]), int(size_wh[1]))
    data = photo_bytes(images, index)
    turns = 0 if images.quarter_turns is None else int(images.quarter_turns[index]) % 4
    if turns % 2:
        full_wh, target_wh = full_wh[::-1], target_wh[::-1]
    stored = _decoded(images.path(index), data, mode, full_wh, target_wh)
    return stored.transpose(_TO_TURNED[turns]) if turns else stored


def _decoded(
    path: Path, data: bytes, mode: str, full_wh: tuple[int, int], size_wh: np.ndarray | tuple[int, int]
) -> Image.Image:
    target_wh = (int(size_wh[0]), int(size_wh[1]))
    try:
        with open_picture(data, path.name) as image:
            return _decode(image, mode, full_wh, target_wh)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read {path}: {why_unreadable(error)}") from error


def _decode(image: Image.Image, mode: str, full_wh: tuple[int, int], target_wh: tuple[int, int]) -> Image.Image:
    """Load, convert, resample and turn upright; ValueError if the picture is not of the expected upright size."""
    # Decoding at twice the target keeps the resampling filter's quality; for a target near full size it does nothing.
    scale = max(target_wh[0] / full_wh[0], target_wh[1] / full_wh[1])
    stored_wh = _draft(image, mode, at_least=2 * scale)
    image.load()
    turned = read_exif(image).orientation
    stored_wh = stored_wh or image.size
    to_stored: Callable[[tuple[int, int]], tuple[int, int]] = (lambda wh: wh[::-1]) if turned >= 5 else (lambda wh: wh)
    if to_stored(stored_wh) != full_wh:
        raise ValueError("the file has changed since it was first read")
    converted = _convert(image, mode)
    if to_stored(target_wh) != converted.size:
        converted = _resample(converted, stored_wh, to_stored(target_wh))
    return converted.transpose(_TO_UPRIGHT[turned]) if turned in _TO_UPRIGHT else converted


def _resample(image: Image.Image, stored_wh: tuple[int, int], target_wh: tuple[int, int]) -> Image.Image:
    """Resize what may be a reduced decoding of a picture of size `stored_wh`.

    libjpeg rounds reduced sizes up, so the last column may lie partly outside the picture: the exact box is resized.
    """
    reduced = next((by for by in (1, 2, 4, 8) if image.width == -(-stored_wh[0] // by)), 1)
    box = (0.0, 0.0, stored_wh[0] / reduced, stored_wh[1] / reduced)
    enlarging = target_wh[0] > stored_wh[0] or target_wh[1] > stored_wh[1]
    method = Image.Resampling.BICUBIC if enlarging else Image.Resampling.LANCZOS
    return image.resize(target_wh, method, box=box)


def _convert(image: Image.Image, mode: str) -> Image.Image:
    eight_bits = _eight_bits(image)
    if eight_bits is None:
        raise ValueError(f"unsupported kind of pixels ({image.mode})")
    if "transparency" in image.info and image.mode == "P":
        eight_bits = eight_bits.convert("RGBA")
    if mode == "L" and eight_bits.mode not in ("L", "RGB"):
        eight_bits = eight_bits.convert("RGB")
    return eight_bits.convert(mode)


def _eight_bits(image: Image.Image) -> Image.Image | None:
    """The picture with 8-bit channels, None if its numbers have no agreed white."""
    if image.mode == "F":
        return None
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.int64)
        return Image.fromarray(((np.clip(values, 0, 65535) * 255 + 32767) // 65535).astype(np.uint8))
    return image
