"""Photographs that tell the same twice, or the opposite: the same file or view again, and mirrored copies."""

from collections.abc import Callable, Mapping
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from anchorsfm.io.pictures import load_grey, working_size_wh
from anchorsfm.io.workers import map_stage
from anchorsfm.scene.images import ImageSet, SkippedImage
from anchorsfm.scene.progress import SILENT, Progress

_SIDE = 32
_NUM_READERS = 4
_AT_ONCE = 512
"""Photographs that are compared with all others together: 50 MB of correlations where there are 25000."""
_ALL_UP_TO, _MOST_ALIKE = 500, 20
"""Of larger sets a photograph is compared with so many views at full detail: those whose small pictures look likest."""
_IN_MEMORY = 100
"""Photographs that are kept for the next comparison."""
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


def small_pictures(images: ImageSet, progress: Progress = SILENT) -> dict[str, UInt8[np.ndarray, "h w"]]:
    """A few pixels of every photograph, in grey, by name: what the searches below begin with.

    Raises InputError if a photograph can no longer be read.
    """
    found = map_stage(
        "small pictures", lambda k: load_grey(images, k, (_SIDE, _SIDE)), images.num_images, progress, _NUM_READERS
    )
    return dict(zip(images.names, found, strict=True))


def without_repeated_views(
    images: ImageSet,
    num_settled: int = 0,
    *,
    small: Mapping[str, UInt8[np.ndarray, "h w"]] | None = None,
    progress: Progress = SILENT,
) -> ImageSet:
    """The set with one photograph of each view: brackets of exposures, copies saved anew, bursts from a tripod.

    Of several the first is kept, or one that has clearly more contrast; the others are among the skipped ones. Where
    photographs are masked, only what the masks leave counts: around a turntable everything else stays. The first
    `num_settled` photographs are kept whatever they show. `small`: of `small_pictures`, of these photographs at least.

    Raises InputError if a photograph can no longer be read.
    """
    pictures = _stacked(images, small)
    unit = _normalised(pictures)
    equalised = lru_cache(maxsize=_IN_MEMORY)(lambda image: _equalised(images, image))
    of_view: dict[int, list[int]] = {}
    is_first = np.zeros(images.num_images, bool)
    with progress.stage("comparing views", images.num_images) as advance:
        for begin in range(0, images.num_images, _AT_ONCE):
            likeness = unit[begin : begin + _AT_ONCE] @ unit[: begin + _AT_ONCE].T
            for image, like in enumerate(likeness, start=begin):  # against the first of each: steps must not add up
                views = np.flatnonzero(is_first[: len(like)] & (like > _CANDIDATE))
                if images.num_images > _ALL_UP_TO:
                    views = np.sort(views[np.argsort(-like[views], kind="stable")[:_MOST_ALIKE]])
                first = next((k for k in views.tolist() if _is_same_view(images, k, image, equalised)), image)
                of_view.setdefault(first, []).append(image)
                is_first[first] = True
                advance(1)
    contrast = pictures.std(axis=(1, 2))
    repeated: dict[int, str] = {}
    for first, members in of_view.items():
        best = max(members, key=lambda k: contrast[k])
        kept = best if contrast[best] > _BETTER * contrast[first] and first >= num_settled else first
        same = f"the same view as {images.names[kept]}"
        repeated |= {k: same for k in members if k != kept and k >= num_settled}
    return _without(images, repeated)


def mirrored_copies(
    images: ImageSet, small: Mapping[str, UInt8[np.ndarray, "h w"]] | None = None
) -> list[tuple[int, int]]:
    """Pairs of images one of which is the other one's mirror image (left and right, or top and bottom); i < j.

    `small`: as above. Raises InputError if a photograph can no longer be read.
    """
    pictures = _stacked(images, small)
    unit = _normalised(pictures)
    pairs = set()
    for flipped in (pictures[:, :, ::-1], pictures[:, ::-1]):
        turned = _normalised(flipped)
        asymmetric = (unit * turned).sum(axis=1) < _SYMMETRIC
        for begin in range(0, len(unit), _AT_ONCE):
            alike = unit[begin : begin + _AT_ONCE] @ turned.T > _ALIKE
            alike &= asymmetric & asymmetric[begin : begin + _AT_ONCE, None]
            pairs |= {(begin + i, j) for i, j in np.argwhere(alike).tolist() if begin + i < j}
    return sorted(pairs)


def _without(images: ImageSet, reasons: dict[int, str]) -> ImageSet:
    """The set without some images, which become skipped ones."""
    if not reasons:
        return images
    kept = [k for k in range(images.num_images) if k not in reasons]
    skipped = [SkippedImage(name=images.names[k], reason=reason) for k, reason in sorted(reasons.items())]
    return images.select(kept, skipped)


def _is_same_view(images: ImageSet, i: int, j: int, equalised: Callable[[int], UInt8[np.ndarray, "h w"]]) -> bool:
    if (images.size_wh[i] != images.size_wh[j]).any():
        return False
    first, second = equalised(i), equalised(j)
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


def _stacked(images: ImageSet, small: Mapping[str, UInt8[np.ndarray, "h w"]] | None) -> UInt8[np.ndarray, "image h w"]:
    found = small_pictures(images) if small is None else small
    return np.stack([found[name] for name in images.names])


def _normalised(pictures: UInt8[np.ndarray, "image h w"]) -> Float32[np.ndarray, "image pixel"]:
    """Of which inner products are correlations."""
    flat = pictures.reshape(len(pictures), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), np.float32(1e-9)))
