"""Which view of a model an image is, and how much each view sees."""

import numpy as np
from jaxtyping import Int

from anchorsfm.scene.reconstruction import Reconstruction


def view_of_image(model: Reconstruction) -> Int[np.ndarray, "image"]:
    """Row of the pose arrays by image index; -1 for images that are not in the model."""
    lookup = np.full(int(model.image.max(initial=-1)) + 1, -1)
    lookup[model.image] = np.arange(len(model.image))
    return lookup


def observations_per_view(model: Reconstruction) -> Int[np.ndarray, "view"]:
    """Number of observations of triangulated points in each view."""
    return np.bincount(view_of_image(model)[model.tracks.obs_image], minlength=len(model.image))
