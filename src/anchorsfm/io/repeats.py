"""Photographs that tell the same twice, or the opposite: the same file again, and mirrored copies."""

import numpy as np

from anchorsfm.io.images import load_grey
from anchorsfm.scene.images import ImageSet, SkippedImage

MAX_IMAGES = 500
"""Mirrored copies are looked for in sets of up to this size: every photograph is decoded for it."""
_SIDE = 32
_ALIKE = 0.98
"""Correlation of small pictures from which one is a mirrored copy of the other ..."""
_SYMMETRIC = 0.9
"""... unless it looks like its own mirror image to this degree."""


def without_repeated_files(images: ImageSet) -> ImageSet:
    """The set without files whose bytes are those of an earlier one; they are among the skipped ones."""
    first: dict[str, int] = {}
    kept, skipped = [], []
    for image, (name, digest) in enumerate(zip(images.names, images.digests, strict=True)):
        if digest and digest in first:
            skipped.append(SkippedImage(name=name, reason=f"the same file as {images.names[first[digest]]}"))
        else:
            first.setdefault(digest, image)
            kept.append(image)
    if not skipped:
        return images
    return images.select(kept, skipped)


def mirrored_copies(images: ImageSet) -> list[tuple[int, int]]:
    """Pairs of images one of which is the other one's mirror image (left and right, or top and bottom); i < j.

    Raises InputError if a photograph can no longer be read.
    """
    if images.num_images > MAX_IMAGES:
        return []
    small = np.stack([load_grey(images, k, (_SIDE, _SIDE)) for k in range(images.num_images)]).astype(np.float64)
    pairs = set()
    for flipped in (small[:, :, ::-1], small[:, ::-1]):
        alike = _normalised(small) @ _normalised(flipped).T
        asymmetric = np.diag(alike) < _SYMMETRIC
        pairs |= {(int(i), int(j)) for i, j in np.argwhere(alike > _ALIKE) if i < j and asymmetric[i] and asymmetric[j]}
    return sorted(pairs)


def _normalised(pictures: np.ndarray) -> np.ndarray:
    flat = pictures.reshape(len(pictures), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9))
