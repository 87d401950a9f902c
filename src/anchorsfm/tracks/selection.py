"""A selection of the points of a model that determines its cameras as well as all of them do.

The cost of an adjustment grows with the observations, and cameras are hardly more exact for thousands of them an
image. Long tracks say most about cameras (they tie many together), and tracks all over the picture more than as many
in a heap.
"""

import numpy as np
from jaxtyping import Bool

from anchorsfm.scene.edit import select_points, view_of_image
from anchorsfm.scene.reconstruction import Reconstruction

CELLS = 12
"""Along each side of a picture."""


def spread_points(model: Reconstruction) -> Reconstruction:
    """The model with the points that are the longest track in a cell of some view, of `CELLS` x `CELLS` each.

    Of tracks of equal length the first one is taken. A selection of a selection is the same.
    """
    tracks = model.tracks
    size_wh = np.array([(camera.width, camera.height) for camera in model.cameras])
    view = view_of_image(model)[tracks.obs_image]
    column, row = np.clip(CELLS * tracks.obs_xy / size_wh[model.camera_index[view]], 0, CELLS - 1).astype(np.int64).T
    cell = (view * CELLS + row) * CELLS + column
    length = np.bincount(tracks.obs_point, minlength=len(model.points))
    order = np.lexsort((tracks.obs_point, -length[tracks.obs_point], cell))
    is_longest = np.diff(cell[order], prepend=-1) > 0
    chosen = np.zeros(len(model.points), bool)
    chosen[tracks.obs_point[order[is_longest]]] = True
    return select_points(model, chosen[tracks.obs_point])


def seen_by(model: Reconstruction, views: Bool[np.ndarray, "view"]) -> Bool[np.ndarray, "point"]:
    """Points that some of these views see."""
    of_views = views[view_of_image(model)[model.tracks.obs_image]]
    return np.bincount(model.tracks.obs_point[of_views], minlength=len(model.points)) > 0
