"""The photographs and masks of a model, checked by their headers before any work is done."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from anchorsfm.io.files import read_regular
from anchorsfm.io.names import require_inside
from anchorsfm.io.pictures import PhotoHeader, load_rgb, photo_bytes, read_header
from anchorsfm.results.model import StoredModel
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.images import ImageSet

_LOSSLESS = (".png", ".bmp", ".tif", ".tiff")
_NAMED = 3
"""Missing files that a message names."""


@dataclass(frozen=True, kw_only=True)
class ViewPhotographs:
    """Photographs of the views of a model, row by row."""

    images: ImageSet
    headers: tuple[PhotoHeader, ...]
    masks: tuple[Path, ...] | None
    """None: nothing is masked."""
    invert_masks: bool

    def pixels(self, view: int) -> UInt8[np.ndarray, "h w 3"]:
        """Upright pixels in full size; raises InputError if the file cannot be read."""
        return load_rgb(self.images, view)

    def original(self, view: int) -> bytes:
        """The file of a photograph as it is; raises InputError if it cannot be read or has changed."""
        return photo_bytes(self.images, view)

    def mask(self, view: int) -> UInt8[np.ndarray, "h w"] | None:
        """0: ignore, 255: use, in the pixels of the upright photograph; None if nothing is masked."""
        if self.masks is None:
            return None
        wanted = (int(self.images.size_wh[view, 0]), int(self.images.size_wh[view, 1]))
        return _load_mask(self.masks[view], wanted, invert=self.invert_masks)

    def state(self, view: int) -> list[str]:
        """Name and content of the files of a view: what its copy depends on.

        Raises InputError if a mask cannot be read.
        """
        photograph = f"{self.images.path(view).name} {self.images.digests[view]}"
        if self.masks is None:
            return [photograph]
        mask = self.masks[view]
        return [photograph, f"{mask.name} {hashlib.sha256(_mask_bytes(mask)).hexdigest()}"]


def open_photographs(
    entry: StoredModel, root: Path | None, *, masks: Path | None = None, invert_masks: bool = False
) -> ViewPhotographs:
    """Find the photographs of a model, and their masks.

    Args:
        entry: the model; its cameras say how large the photographs are.
        root: folder the names are relative to.
        masks: folder with `<image name>.png` (COLMAP's convention) or `<image name without extension>.png`.
        invert_masks: white instead of black means: ignore.

    Raises:
        InputError: a photograph or mask is missing, damaged or of another size.
    """
    names = entry.view_names
    if root is None:
        raise InputError(f"where are the photographs of {entry.folder}? Say so with --images FOLDER")
    require_inside(names, entry.folder)
    _require([root / name for name in names], "photographs", root, "--images")
    model = entry.model
    sizes = [(model.cameras[row].width, model.cameras[row].height) for row in model.camera_index.tolist()]
    headers = tuple(read_header(root / name) for name in names)
    for name, header, size in zip(names, headers, sizes, strict=True):
        if header.size_wh != size:
            raise InputError(
                f"{root / name} is {header.size_wh[0]}x{header.size_wh[1]} pixels, but its camera in {entry.folder} "
                f"has {size[0]}x{size[1]}: give the photographs the model was made from with --images"
            )
    images = ImageSet(
        root=root,
        names=tuple(names),
        size_wh=np.array(sizes, np.int64).reshape(-1, 2),
        camera_index=model.camera_index.astype(np.int64),
        focal_prior_px=np.full(len(names), np.nan),
        digests=tuple(header.digest for header in headers),
    )
    found = None if masks is None else _find_masks(masks, names)
    return ViewPhotographs(images=images, headers=headers, masks=found, invert_masks=invert_masks)


def copy_suffix(name: str) -> str:
    """Extension of the copy of a photograph: PNG of what is stored without loss, else JPEG."""
    suffix = Path(name).suffix
    if suffix.lower() in (".jpg", ".jpeg", ".png"):
        return suffix
    return ".png" if suffix.lower() in _LOSSLESS else ".jpg"


def _find_masks(folder: Path, names: Sequence[str]) -> tuple[Path, ...]:
    if not folder.is_dir():
        raise InputError(f"--masks {folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    full = [folder / f"{name}.png" for name in names]
    short = [(folder / name).with_suffix(".png") for name in names]
    paths = [b if b.is_file() and not a.is_file() else a for a, b in zip(full, short, strict=True)]
    _require(paths, "masks", folder, "--masks")
    return tuple(paths)


def _require(paths: Sequence[Path], what: str, folder: Path, option: str) -> None:
    """Raise InputError that names the first files that are missing."""
    missing = [path.relative_to(folder).as_posix() for path in paths if not path.is_file()]
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise InputError(
            f"{len(missing)} of {len(paths)} {what} are not in {folder}: {', '.join(missing[:_NAMED])}{more}; "
            f"name the folder they are in with {option}"
        )


def _load_mask(path: Path, size_wh: tuple[int, int], *, invert: bool) -> UInt8[np.ndarray, "h w"]:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(_mask_bytes(path))) as image:
            values = np.asarray(image.convert("L"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read the mask {path}: {error}") from error
    if (values.shape[1], values.shape[0]) != size_wh:
        raise InputError(
            f"the mask {path} is {values.shape[1]}x{values.shape[0]} pixels, the upright photograph "
            f"{size_wh[0]}x{size_wh[1]}"
        )
    return np.where((values > 0) != invert, np.uint8(255), np.uint8(0))


def _mask_bytes(path: Path) -> bytes:
    try:
        return read_regular(path)
    except OSError as error:
        raise InputError(f"cannot read the mask {path}: {error.strerror or error}") from error
