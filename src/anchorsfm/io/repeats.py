"""Photographs that tell the same twice, or the opposite: the same file again, and mirrored copies."""

from dataclasses import replace

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
    prior = images.distortion_prior
    return replace(
        images,
        names=tuple(images.names[k] for k in kept),
        size_wh=images.size_wh[kept],
        camera_index=np.unique(images.camera_index[kept], return_inverse=True)[1],
        focal_prior_px=images.focal_prior_px[kept],
        focal_deviation=None if images.focal_deviation is None else images.focal_deviation[kept],
        digests=tuple(images.digests[k] for k in kept),
        distortion_prior=None if prior is None else prior[kept],
        is_unnamed=None if images.is_unnamed is None else images.is_unnamed[kept],
        geo=None if images.geo is None else images.geo.select(kept),
        taken_s=None if images.taken_s is None else images.taken_s[kept],
        skipped=(*images.skipped, *skipped),
    )


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
