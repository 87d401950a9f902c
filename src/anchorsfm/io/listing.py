"""Photographs by name: which files folders, lists and pictures stand for. None is opened."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from anchorsfm.io.decoding import why_unreadable
from anchorsfm.io.files import NotAFileError, read_regular
from anchorsfm.io.owned import holds_frames, holds_results, is_ours
from anchorsfm.scene.errors import InputError

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
_OTHER_PICTURES = (
    ".jxl",
    ".jp2",
    ".j2k",
    ".jpf",
    ".jpx",
    ".exr",
    ".hdr",
    ".psd",
    ".tga",
    ".pgm",
    ".ppm",
    ".pnm",
    ".dds",
)
"""Names of pictures of kinds that are not read."""
_NAME_VIDEOS = "name videos themselves to use their frames"
_NAME_FRAMES = "to use them, name that folder too"
_NOT_DEVELOPED = "raw files are not read: develop them to JPEG, TIFF or PNG, without correcting the lens"
_LISTS = (".txt", ".lst", ".list")
"""Names of files that list pictures, where there are several sources."""
_MAX_LIST_BYTES = 16 * 2**20


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


def not_taken(sources: Sequence[Path]) -> str | None:
    """Which files of folders show something and are not taken, though others are, and what to do; None: there are none.

    A raw file or a video beside a photograph of its name, as cameras and phones write them, is not missed; nor is a
    video that is a source itself.
    """
    named = {os.path.realpath(path) for path in sources if not path.is_dir()}
    kinds: Counter[str] = Counter()
    folders = []
    for root in sources:
        if not root.is_dir() or holds_results(root):
            continue
        files = list(_walk(root))
        taken = {str(path.with_suffix("")).lower() for path in files if path.suffix.lower() in EXTENSIONS}
        left = [
            path.suffix.lower()
            for path in files
            if path.suffix.lower() in (*RAW_EXTENSIONS, *VIDEO_EXTENSIONS, *_OTHER_PICTURES)
            if str(path.with_suffix("")).lower() not in taken and os.path.realpath(path) not in named
        ]
        if taken and left:
            folders.append(str(root))
            kinds.update(left)
    if not kinds:
        return None
    hints = (
        (RAW_EXTENSIONS, _NOT_DEVELOPED),
        (VIDEO_EXTENSIONS, _NAME_VIDEOS),
        (_OTHER_PICTURES, "save other pictures as JPEG, TIFF or PNG"),
    )
    counts = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common())
    ways_out = "; ".join(hint for extensions, hint in hints if any(kind in extensions for kind in kinds))
    return f"not taken from {', '.join(folders)}: {counts}; {ways_out}"


def frames_not_taken(sources: Sequence[Path]) -> str | None:
    """Which folders of frames of videos, as `anchorsfm frames` writes them, lie below folders and are not taken, and
    what to do; None: there are none, or they, or what is in them, are sources themselves."""
    named = [Path(os.path.realpath(path)) for path in sources]
    folders = [
        str(folder)
        for root in sources
        if root.is_dir() and not holds_results(root)
        for folder in _frames_below(root)
        if not any(path.is_relative_to(os.path.realpath(folder)) for path in named)
    ]
    return f"not taken: frames of videos in {', '.join(dict.fromkeys(folders))}; {_NAME_FRAMES}" if folders else None


def _frames_below(root: Path) -> list[Path]:
    passed: list[Path] = []
    for _ in _walk(root, passed):
        pass
    return [folder for folder in sorted(passed) if holds_frames(folder)]


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
        frames = _frames_below(root)
        if frames:
            raise InputError(f"no images in {root} but frames of videos in {frames[0]}: name that folder itself")
        raise no_images(root, files)
    return root, names


def no_images(folder: Path | str, files: Iterable[str]) -> InputError:
    """The error of a folder, or URL, that has other files only."""
    kinds = Counter(Path(name).suffix.lower() or "no extension" for name in files)
    found = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common(4)) or "nothing"
    hint = ""
    if any(kind in VIDEO_EXTENSIONS for kind in kinds):
        hint = f"; {_NAME_VIDEOS}"
    elif any(kind in RAW_EXTENSIONS for kind in kinds):
        hint = f"; {_NOT_DEVELOPED}"
    return InputError(f"no images in {folder}: found {found}; supported are {' '.join(EXTENSIONS)}{hint}")


def _walk(root: Path, passed: list[Path] | None = None) -> Iterator[Path]:
    """All visible files below a folder, following links to folders once. Folders of ours are left out, whatever they
    hold, and go to `passed`: who wants what we wrote names it."""

    def fail(error: OSError) -> None:
        raise InputError(f"cannot read {error.filename or root}: {error.strerror}") from error

    seen = {os.path.realpath(root)}
    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=fail):
        keep = []
        for name in subfolders:
            real = os.path.realpath(Path(folder) / name)
            if name.startswith(".") or name == "__MACOSX" or real in seen:
                continue
            seen.add(real)
            if not is_ours(Path(real)):
                keep.append(name)
            elif passed is not None:
                passed.append(Path(folder) / name)
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
