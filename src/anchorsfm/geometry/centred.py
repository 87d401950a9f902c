"""Centred coordinates: those of the two-view stages.

Their origin is at the image centre (the principal point prior) and they are scaled so that the long side of every image
is REFERENCE_SIZE: thresholds in pixels then mean the same for every photograph. A focal length in these units is
`focal_px * REFERENCE_SIZE / long side`.
"""

import numpy as np
from jaxtyping import Float, Int

from anchorsfm.scene.images import ImageSet

REFERENCE_SIZE = 1024.0


def reference_scale(size_wh: Int[np.ndarray, "*batch 2"]) -> Float[np.ndarray, "*batch"]:
    """Factor from original pixels to centred coordinates."""
    return np.asarray(REFERENCE_SIZE / size_wh.max(axis=-1))


def centred(images: ImageSet, image: int, xy: Float[np.ndarray, "point 2"]) -> Float[np.ndarray, "point 2"]:
    """Centred coordinates of original pixels."""
    size_wh = images.size_wh[image]
    return (xy.astype(np.float64) - size_wh / 2) * reference_scale(size_wh)
