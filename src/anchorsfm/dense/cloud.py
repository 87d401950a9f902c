"""From cleaned depth maps to one cloud."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float

from anchorsfm.dense.cells import CellMerger, FusedCloud
from anchorsfm.dense.config import CloudConfig
from anchorsfm.dense.maps import CleanView
from anchorsfm.dense.specks import without_specks


def fuse(views: Iterable[CleanView], config: CloudConfig, origin: Float[np.ndarray, "3"]) -> FusedCloud:
    """Merge the points of all views and drop specks.

    A pixel covers depth / focal length of the surface that it sees; cells are about `config.resolution` times that.
    `origin`: any place in the model, from which cells are counted.
    """
    merger = CellMerger(origin, config.max_points)
    for clean in views:
        view = clean.view
        kept = view.confidence > 0
        if kept.any():
            merger.add(
                view.points()[kept],
                clean.normal[kept],
                clean.rgb[kept],
                view.confidence[kept],
                view.depth[kept] * (config.resolution / view.focal_px),
            )
    return without_specks(merger.finish())
