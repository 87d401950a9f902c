"""Anchors: every matched pixel is tied to the anchor of its block by a fixed depth ratio (docs/method.md, Anchors).

With d the relative depth of the canonical view, pixel p of the block with anchor c has depth ratio d(p) / d(c). Dense
correspondences thus constrain one unknown per block.
"""

import numpy as np
from jaxtyping import Float, Int

from anchorsfm.observe.canonical import at_anchors, num_blocks, spread
from anchorsfm.observe.graph import ObservedScene
from anchorsfm.scene.graph import Anchors, CanonicalView


def build_anchors(scene: ObservedScene) -> Anchors:
    """Anchors of a scene whose images all have a canonical view (one connected component)."""
    views = require_views(scene.views)
    subsample, graph = scene.config.subsample, scene.graph
    start = np.cumsum([0, *(view.anchor_depth.size for view in views)])
    anchor = np.zeros((2, len(graph.match_pair)), np.int64)
    ratio = np.ones((2, len(graph.match_pair)), views[0].relative_depth.dtype)
    first = np.searchsorted(graph.match_pair, np.arange(len(graph.pair) + 1))
    for row, pair in enumerate(graph.pair):
        matches = slice(first[row], first[row + 1])
        for end, (image, xy) in enumerate(zip(pair, (graph.xy_i[matches], graph.xy_j[matches]), strict=True)):
            anchor[end, matches] = start[image] + anchor_of_pixel(views[image], xy, subsample)
            ratio[end, matches] = depth_ratio(views[image], xy, subsample)
    return Anchors(
        start=start,
        depth=np.concatenate([view.anchor_depth.ravel() for view in views]),
        anchor_i=anchor[0],
        anchor_j=anchor[1],
        depth_ratio_i=ratio[0],
        depth_ratio_j=ratio[1],
    )


def require_views(views: tuple[CanonicalView | None, ...]) -> tuple[CanonicalView, ...]:
    """All views, which must be known: the caller has picked one component."""
    known = tuple(view for view in views if view is not None)
    if not known or len(known) != len(views):
        raise ValueError(f"{len(views) - len(known)} of {len(views)} images have no canonical view")
    return known


def pixel_index(view: CanonicalView, xy: Float[np.ndarray, "point 2"]) -> Int[np.ndarray, "point 2"]:
    """Index (x, y) of the pixel each point lies in, clamped into the image."""
    height, width = view.relative_depth.shape
    return np.clip(np.floor(xy).astype(np.int64), 0, np.array([width - 1, height - 1]))


def anchor_of_pixel(view: CanonicalView, xy: Float[np.ndarray, "point 2"], subsample: int) -> Int[np.ndarray, "point"]:
    """Row of the anchor of each point within its image."""
    block = pixel_index(view, xy) // subsample
    return block[:, 1] * num_blocks(view.relative_depth.shape[1], subsample) + block[:, 0]


def depth_ratio(view: CanonicalView, xy: Float[np.ndarray, "point 2"], subsample: int) -> Float[np.ndarray, "point"]:
    """Depth of each point's pixel divided by the depth of its anchor."""
    x, y = pixel_index(view, xy).T
    anchor = at_anchors(view.relative_depth, subsample).ravel()
    return view.relative_depth[y, x] / anchor[anchor_of_pixel(view, xy, subsample)]


def dense_depth_ratio(view: CanonicalView, subsample: int) -> Float[np.ndarray, "h w"]:
    """Depth of every pixel divided by the depth of its anchor."""
    height, width = view.relative_depth.shape
    return view.relative_depth / spread(at_anchors(view.relative_depth, subsample), (width, height), subsample)
