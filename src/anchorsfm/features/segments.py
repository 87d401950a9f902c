"""Straight edges of photographs: line segments (von Gioi et al., "LSD", PAMI 2010, as OpenCV has it)."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float

from anchorsfm.io.pictures import load_grey
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.masks import uses

_LONG_SIDE = 1024
"""Pixels of the reduced picture that segments are looked for in."""
_SHORTEST_PX, _SHORTEST = 25.0, 0.03
"""Of a segment in the reduced picture, and as a share of its long side."""
_END_PX = 0.7
"""Deviation of an end across its segment, in the reduced picture."""
_BEND_RAD = math.radians(0.4)
"""Deviation of the direction of a long segment: edges are not exactly straight."""


@dataclass(frozen=True, kw_only=True)
class Edges:
    """Line segments of one photograph."""

    ends_px: Float[np.ndarray, "segment 2 2"]
    """Original pixels."""
    sigma: Float[np.ndarray, " segment"]
    """Standard deviation of the direction in radians."""


def straight_edges(images: ImageSet, image: int) -> Edges:
    """Line segments of a photograph, without those that a mask hides, be it in part.

    Raises InputError or StorageError like `load_grey`.
    """
    full_wh = images.size_wh[image]
    shrunk = min(1.0, _LONG_SIDE / float(full_wh.max()))
    size_wh = np.maximum(np.round(full_wh * shrunk), 1).astype(np.int64)
    found = cv2.createLineSegmentDetector(cv2.LSD_REFINE_STD).detect(load_grey(images, image, size_wh))[0]
    # OpenCV answers None where there is none, and counts from the centre of the first pixel
    ends = np.zeros((0, 2, 2)) if found is None else found.reshape(-1, 2, 2).astype(np.float64) + 0.5
    length = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)
    kept = length > max(_SHORTEST_PX, _SHORTEST * float(size_wh.max()))
    ends_px = ends * (full_wh / size_wh)
    mask = images.mask_pixels(image)
    if mask is not None and len(ends):
        places = np.stack([ends_px[:, 0], ends_px.mean(axis=1), ends_px[:, 1]], axis=1)
        kept &= uses(mask, places.reshape(-1, 2), full_wh).reshape(-1, 3).all(axis=1)
    return Edges(ends_px=ends_px[kept], sigma=np.hypot(_BEND_RAD, 2 * _END_PX / length[kept]))
