"""Which of the files that a user names are videos."""

from collections.abc import Sequence
from pathlib import Path

from anchorsfm.io.files import read_beginning
from anchorsfm.io.listing import EXTENSIONS, RAW_EXTENSIONS, VIDEO_EXTENSIONS

_LOOKED_AT = 4096


def is_video(path: Path) -> bool:
    """Whether a file is to be read as a video: neither a picture nor a text that lists pictures."""
    suffix = path.suffix.lower()
    if suffix in (*EXTENSIONS, *RAW_EXTENSIONS) or not path.is_file():
        return False
    return suffix in VIDEO_EXTENSIONS or not _is_text(path)


def _is_text(path: Path) -> bool:
    try:
        beginning = read_beginning(path, _LOOKED_AT)
    except OSError:
        return True  # whoever reads it as a list says what is wrong
    if b"\0" in beginning:
        return False
    try:
        beginning.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return error.start > _LOOKED_AT - 4  # a character that was cut
    return True


def split(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Photographs (files, lists and folders) and videos, each in order."""
    videos = [path for path in paths if is_video(path)]
    return [path for path in paths if path not in videos], videos
