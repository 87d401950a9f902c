"""Photographs that tell the same twice, or the opposite: the same file or view again, and mirrored copies."""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from anchorsfm.io.pictures import load_grey, working_size_wh
from anchorsfm.scene.images import ImageSet, SkippedImage

MAX_IMAGES = 500
"""Mirrored copies and equal views are looked for in sets of up to this size: every photograph is decoded for it."""
_SIDE = 32
_ALIKE = 0.98
"""Correlation of small pictures from which one is a mirrored copy of the other ..."""
_SYMMETRIC = 0.9
"""... unless it looks like its own mirror image to this degree."""
_CANDIDATE = 0.95
"""Correlation of small pictures from which on they may be the same view, perhaps exposed differently."""
_LONG_SIDE = 640
"""At which the same view is recognised ..."""
_UNMOVED_PX = 0.5
"""... if its corners move by no more than this ..."""
_UNMOVED_PERCENT = 97
"""... nearly all of them: a thing on a turntable may be small."""
_FEWEST_POINTS = 40
_TRACKED = 0.6
"""Share of the corners that must be found in the other photograph: some are lost in overexposed places."""
_BETTER = 1.1
"""Contrast, relative to the first of equal views, from which on another one is kept in its place."""


def without_repeated_files(images: ImageSet) -> ImageSet:
    """The set without files whose bytes are those of an earlier one; they are among the skipped ones."""
    first: dict[str, int] = {}
    repeated = {}
    for image, digest in enumerate(images.digests):
        if digest and digest in first:
            repeated[image] = f"the same file as {images.names[first[digest]]}"
        else:
            first.setdefault(digest, image)
    return _without(images, repeated)


def without_repeated_views(images: ImageSet, num_settled: int = 0) -> ImageSet:
    """The set with one photograph of each view: brackets of exposures, copies saved anew, bursts from a tripod.

    Of several the first is kept, or one that has clearly more contrast; the others are among the skipped ones. Where
    photographs are masked, only what the masks leave counts: around a turntable everything else stays. The first
    `num_settled` photographs are kept whatever they show.

    Raises InputError if a photograph can no longer be read.
    """
    if images.num_images > MAX_IMAGES:
        return images
    small = _small(images)
    alike = _normalised(small) @ _normalised(small).T > _CANDIDATE
    of_view: dict[int, list[int]] = {}
    for image in range(images.num_images):  # each against the first of every view: small steps must not add up
        first = next((k for k in of_view if alike[k, image] and _is_same_view(images, k, image)), image)
        of_view.setdefault(first, []).append(image)
    contrast = small.std(axis=(1, 2))
    repeated: dict[int, str] = {}
    for first, members in of_view.items():
        best = max(members, key=lambda k: contrast[k])
        kept = best if contrast[best] > _BETTER * contrast[first] and first >= num_settled else first
        same = f"the same view as {images.names[kept]}"
        repeated |= {k: same for k in members if k != kept and k >= num_settled}
    return _without(images, repeated)


def mirrored_copies(images: ImageSet) -> list[tuple[int, int]]:
    """Pairs of images one of which is the other one's mirror image (left and right, or top and bottom); i < j.

    Raises InputError if a photograph can no longer be read.
    """
    if images.num_images > MAX_IMAGES:
        return []
    small = _small(images)
    pairs = set()
    for flipped in (small[:, :, ::-1], small[:, ::-1]):
        alike = _normalised(small) @ _normalised(flipped).T
        asymmetric = np.diag(alike) < _SYMMETRIC
        pairs |= {(int(i), int(j)) for i, j in np.argwhere(alike > _ALIKE) if i < j and asymmetric[i] and asymmetric[j]}
    return sorted(pairs)


def _without(images: ImageSet, reasons: dict[int, str]) -> ImageSet:
    """The set without some images, which become skipped ones."""
    if not reasons:
        return images
    kept = [k for k in range(images.num_images) if k not in reasons]
    skipped = [SkippedImage(name=images.names[k], reason=reason) for k, reason in sorted(reasons.items())]
    return images.select(kept, skipped)


def _is_same_view(images: ImageSet, i: int, j: int) -> bool:
    if (images.size_wh[i] != images.size_wh[j]).any():
        return False
    first, second = (_equalised(images, k) for k in (i, j))
    pixels = images.mask_pixels(i)
    mask = (
        None
        if pixels is None
        else cv2.resize(pixels.astype(np.uint8), first.shape[::-1], interpolation=cv2.INTER_NEAREST)
    )
    points = cv2.goodFeaturesToTrack(first, 300, 0.01, 8, mask=mask)
    if points is None or len(points) < _FEWEST_POINTS:
        return False
    found, status, _ = cv2.calcOpticalFlowPyrLK(first, second, points, np.zeros_like(points), winSize=(15, 15))
    tracked = status.reshape(-1) > 0
    moved = np.linalg.norm(found - points, axis=2).reshape(-1)[tracked]
    return bool(tracked.mean() >= _TRACKED and np.percentile(moved, _UNMOVED_PERCENT) < _UNMOVED_PX)


def _equalised(images: ImageSet, image: int) -> UInt8[np.ndarray, "h w"]:
    """The photograph in grey as if it were exposed like any other."""
    return cv2.equalizeHist(load_grey(images, image, working_size_wh(images.size_wh[image], _LONG_SIDE)))


def _small(images: ImageSet) -> Float[np.ndarray, "image h w"]:
    return np.stack([load_grey(images, k, (_SIDE, _SIDE)) for k in range(images.num_images)]).astype(np.float64)


def _normalised(pictures: np.ndarray) -> np.ndarray:
    flat = pictures.reshape(len(pictures), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9))
