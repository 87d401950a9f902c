"""A folder of copies of photographs that is made piece by piece and continues after an interruption.

`photographs.json` in the folder says which file was made from which photograph, with a digest of all it depends on.
Where copies are made it is written before the first one and after removing those that it no longer describes, and every
copy appears complete or not at all: so a copy that is there and listed is finished.
"""

import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from anchorsfm.export.names import flat_names
from anchorsfm.export.photographs import ViewPhotographs, copy_suffix
from anchorsfm.io.json_files import checked, read_json
from anchorsfm.io.names import require_inside
from anchorsfm.io.store import to_json, write_atomic
from anchorsfm.io.workers import ordered_map, single_threaded_libraries
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.progress import Progress

RECORD = "photographs.json"
_MAX_THREADS = 8
_FULL_COLOUR_QUALITY = 90
"""From this JPEG quality on colours are stored for every pixel, not for every four."""


@dataclass(frozen=True, kw_only=True)
class Copy:
    """The files that are made from one photograph."""

    view: int
    photograph: str
    """Name of the photograph in the model."""
    image: str
    """Path of the copy in the folder."""
    mask: str | None
    """Path of its mask."""
    key: str
    """Digest of what the files depend on."""

    @property
    def paths(self) -> list[str]:
        return [self.image, *([self.mask] if self.mask is not None else [])]


def plan_copies(
    photographs: ViewPhotographs, *, keys: Sequence[str], with_masks: bool, names: Sequence[str] | None = None
) -> list[Copy]:
    """A copy `images/<flat name>` of every photograph, with `masks/<flat name without extension>.png` if wanted."""
    originals = photographs.images.names
    flat = flat_names(originals, copy_suffix) if names is None else names
    return [
        Copy(
            view=view,
            photograph=originals[view],
            image=f"images/{name}",
            mask=f"masks/{Path(name).stem}.png" if with_masks else None,
            key=keys[view],
        )
        for view, name in enumerate(flat)
    ]


def require_own_folder(folder: Path, photographs: ViewPhotographs) -> None:
    """Raise InputError if a folder holds images that were not copied here, or the photographs themselves."""
    if not (folder / RECORD).is_file() and any((folder / name).exists() for name in ("images", "masks")):
        raise InputError(f"{folder} holds images that were not exported by anchorsfm: choose another --output")
    _read_record(folder)
    if photographs.images.root.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"the photographs lie in {folder}, where their copies would go: choose another --output")


def make_copies(
    target: Path,
    folder: Path,
    copies: Sequence[Copy],
    make: Callable[[Copy], Mapping[str, bytes]],
    progress: Progress,
    *,
    what: str,
) -> list[str]:
    """Make those copies that are not there yet, several at a time.

    Args:
        target: where finished copies of an earlier export may lie, after `require_own_folder`; they are not touched.
        folder: where new copies go; an interrupted export may have left some.
        copies: all that shall be there in the end.
        make: content of the files of one copy by their paths; called in threads.
        progress: shows how many are done.
        what: is done, in words.

    Returns:
        Paths of the copies that lie in `target` already.

    Raises:
        InputError: a photograph cannot be read.
        StorageError: something cannot be written.
    """
    earlier, begun = _read_record(target), _read_record(folder)
    wanted = {path: copy.key for copy in copies for path in copy.paths}
    for path in begun:
        if begun[path] != wanted.get(path):
            (folder / path).unlink(missing_ok=True)
    write_atomic(folder / RECORD, to_json([_entry(copy) for copy in copies]))
    kept = [path for path, key in wanted.items() if earlier.get(path) == key and (target / path).is_file()]
    there = {*kept, *(path for path in wanted if (folder / path).is_file())}
    missing = [copy for copy in copies if not there.issuperset(copy.paths)]

    def finish(copy: Copy) -> None:
        for path, content in make(copy).items():
            write_atomic(folder / path, content)

    threads = min(os.cpu_count() or 1, _MAX_THREADS)
    with progress.stage(what, len(missing)) as advance, single_threaded_libraries():
        for _ in ordered_map(finish, missing, threads):
            advance(1)
    made = {path for copy in missing for path in copy.paths}
    return [path for path in kept if path not in made]


def encode_picture(
    picture: UInt8[np.ndarray, "..."], suffix: str, *, quality: int, icc_profile: bytes | None = None
) -> bytes:
    """The file of a picture (h, w, 3) or mask (h, w) of uint8: JPEG or PNG, by its extension."""
    from PIL import Image

    buffer, image = io.BytesIO(), Image.fromarray(picture)
    if suffix.lower() == ".png":
        image.save(buffer, "PNG", icc_profile=icc_profile)
    else:
        subsampling = 0 if quality >= _FULL_COLOUR_QUALITY else 2
        image.save(buffer, "JPEG", quality=quality, subsampling=subsampling, icc_profile=icc_profile)
    return buffer.getvalue()


def _entry(copy: Copy) -> dict[Literal["image", "mask", "photograph", "key"], str | None]:
    return {"image": copy.image, "mask": copy.mask, "photograph": copy.photograph, "key": copy.key}


def _read_record(folder: Path) -> dict[str, str]:
    """Digest of every file that was or was to be made here."""
    record = folder / RECORD
    if not record.is_file():
        return {}
    try:
        entries = checked(read_json(record), tuple[_Entry, ...])
        made = {e[kind]: e["key"] for e in entries for kind in ("image", "mask") if e[kind] is not None}
    except (InputError, ValueError) as error:
        raise InputError(f"{record} is damaged: delete the folder {folder} and export again") from error
    require_inside(made, record)
    return made


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """One entry of the record, as `_entry` makes it."""

    image: str
    mask: str | None
    photograph: str
    key: str
