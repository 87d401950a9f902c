"""Masks from files: one for each photograph, one for all, and the transparent pixels of the photographs themselves.

Black is ignored, everything else is looked at; of transparency, what is less than half opaque is ignored. Masks fit the
upright photograph (EXIF orientation applied) in any size of its aspect. Those in a folder are called as COLMAP's are,
`<name of the photograph>.png`, or `<name without its extension>.png`.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from PIL import Image

from anchorsfm.io.decoding import open_picture, why_unreadable
from anchorsfm.io.files import read_regular
from anchorsfm.io.mask_files import mask_file
from anchorsfm.io.pictures import load_alpha
from anchorsfm.io.remote import url_of
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.images import ImageSet, SkippedImage
from anchorsfm.scene.masks import ImageMask
from anchorsfm.scene.progress import SILENT, Progress

_ROUNDING = 1.0
"""Pixels by which a side of a mask may differ from what the aspect of the photograph asks for, and ..."""
_TOLERANCE = 0.005
"""... this share of it."""


def with_masks(
    images: ImageSet,
    folder: Path | None,
    single: Path | None,
    *,
    alpha: bool,
    given: Mapping[int, Bool[np.ndarray, "h w"] | None] | None = None,
    found: Mapping[int, Bool[np.ndarray, "h w"]] | None = None,
    progress: Progress = SILENT,
) -> ImageSet:
    """The photographs with their masks; those of which nothing is left are skipped, and named.

    Args:
        images: the photographs.
        folder: with a mask for some or all of them.
        single: a mask for all of them.
        alpha: transparent pixels are ignored.
        given: masks of some photographs, None for a whole one; no others are looked for.
        found: masks of some photographs, beside all others.
        progress: gets a note of what was found, and warnings.

    Raises:
        InputError: a mask cannot be read or has another aspect, the folder has none for any of the photographs, or
            masks leave nothing of all of them.
    """
    check_masks(folder, single)
    given, found = given or {}, found or {}
    files = [
        None if folder is None or k in given else mask_file(folder, name, images.path(k))
        for k, name in enumerate(images.names)
    ]
    if folder is not None and not any(files) and not any(use is not None for use in given.values()):
        raise InputError(
            f"{folder} has no mask for any of the photographs: {images.names[0]} would have {images.names[0]}.png"
        )
    common = None if single is None else read_mask(single)
    masks: list[ImageMask | None] = []
    transparent, empty = 0, {}
    for image, file in enumerate(files):
        layers = [own for own in (given.get(image), found.get(image)) if own is not None]
        for path, use in ((single, common), (file, None if file is None else read_mask(file))):
            if use is not None and image not in given:
                require_aspect(path, use, images.size_wh[image], images.names[image])
                layers.append(use)
        opaque = load_alpha(images, image) if alpha else None
        if opaque is not None and not opaque.all():
            transparent += 1
            layers.append(opaque)
        if not layers:
            masks.append(None)
            continue
        use = both_masks(layers)
        if not use.any():
            is_transparent = opaque is not None and not opaque.any()
            empty[image] = "it is transparent throughout" if is_transparent else "its mask leaves nothing of it"
        masks.append(None if use.all() else ImageMask.of(use))
    if transparent:
        progress.note(f"{transparent} photographs have transparent pixels, which are ignored")
    without = sum(file is None and given.get(image) is None for image, file in enumerate(files))
    if folder is not None and without:
        progress.note(f"{without} of {images.num_images} photographs have no mask in {folder}: they count as a whole")
    if not any(masks):
        return images
    masked = replace(images, masks=tuple(masks))
    return _without(masked, empty, progress)


def check_masks(folder: Path | None, single: Path | None) -> None:
    """Raise InputError for a folder of masks that is none, and for a mask for all that cannot be read."""
    if folder is not None and url_of(folder) is None and not folder.is_dir():
        raise InputError(f"the masks {folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    if single is not None:
        read_mask(single)


def _without(images: ImageSet, empty: Mapping[int, str], progress: Progress) -> ImageSet:
    """The set without photographs of which nothing is left, for the reasons given."""
    if not empty:
        return images
    skipped = [SkippedImage(name=images.names[k], reason=reason) for k, reason in empty.items()]
    if len(empty) == images.num_images:
        raise InputError(
            f"nothing is left of any photograph; {skipped[0].name}: {skipped[0].reason} (black is ignored in masks, "
            "and transparent pixels are, unless alpha masks are off)"
        )
    for entry in skipped:
        progress.warn(f"skipped {entry.name}: {entry.reason}")
    return images.select(np.setdiff1d(np.arange(images.num_images), list(empty)), skipped)


def mask_png(mask: ImageMask | None, size_wh: tuple[int, int]) -> bytes:
    """A mask as the file of a picture of some size: white is looked at."""
    width, height = size_wh
    pixels = np.ones((height, width), bool) if mask is None else mask.pixels()
    buffer = io.BytesIO()
    picture = Image.fromarray(np.where(pixels, np.uint8(255), np.uint8(0)))
    picture.resize(size_wh, Image.Resampling.NEAREST).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def read_mask(path: Path) -> Bool[np.ndarray, "h w"]:
    """True where a mask leaves something. Raises InputError if it cannot be read."""
    try:
        with open_picture(read_regular(path), path.name) as image:
            return np.asarray(image.convert("L")) > 0
    except MemoryError:
        raise
    except Exception as error:  # decoders of damaged files raise almost anything
        raise InputError(f"cannot read the mask {path}: {why_unreadable(error)}; replace or remove it") from error


def require_aspect(what: Path | None, use: Bool[np.ndarray, "h w"], size_wh: np.ndarray, name: str) -> None:
    """Raise InputError unless a mask has the aspect of its photograph."""
    height, width = use.shape
    full_width, full_height = size_wh.tolist()
    scale = max(width / full_width, height / full_height)
    wanted = scale * full_width, scale * full_height
    if any(abs(a - b) > _ROUNDING + _TOLERANCE * b for a, b in zip((width, height), wanted, strict=True)):
        raise InputError(
            f"the mask {what} is {width}x{height} pixels, {name} upright is {full_width}x{full_height}: masks have the "
            "aspect of their photograph"
        )


def both_masks(layers: Sequence[np.ndarray]) -> Bool[np.ndarray, "h w"]:
    """What all masks leave, in the size of the largest."""
    largest = max(layers, key=lambda layer: layer.size).shape
    out = np.ones(largest, bool)
    for layer in layers:
        picture = Image.fromarray(layer.astype(np.uint8))
        out &= np.asarray(picture.resize(largest[::-1], Image.Resampling.NEAREST)).astype(bool)
    return out
