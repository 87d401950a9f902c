"""Scene graph, canonical views, anchors and kinematic tree: the alignment's constants (docs/method.md, Scene graph).

Ragged data is flat plus index vectors. Pixel coordinates are grid pixels of the front end. A block is a
`subsample` x `subsample` square of the grid; its anchor is the pixel with index (subsample/2, subsample/2) in it.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, kw_only=True)
class CanonicalView:
    """What all pairs together say about one image (docs/method.md, Canonical views)."""

    focal_px: float
    """Grid pixels, estimated from the canonical pointmap."""
    anchor_depth: Float[np.ndarray, "block_row block_col"]
    """Canonical depth at the anchor of every block."""
    relative_depth: Float[np.ndarray, "h w"]
    """Depth of every pixel relative to the anchor of its block (1 at anchors)."""
    confidence: Float[np.ndarray, "h w"]
    """sum w^2 / sum w with w = C - 0.999; about 0.001 where nothing is known."""


@dataclass(frozen=True, kw_only=True)
class FallbackTargets:
    """Where badly matching pairs predict anchors to be: anchor `anchor` of image `image` lies at `xyz` in the
    frame of camera `frame` (docs/method.md, Losses)."""

    image: Int[np.ndarray, "row"]
    frame: Int[np.ndarray, "row"]
    anchor: Int[np.ndarray, "row"]
    """Anchor index within the image, row-major over blocks."""
    xyz: Float[np.ndarray, "row 3"]
    confidence: Float[np.ndarray, "row"]

    @staticmethod
    def empty() -> "FallbackTargets":
        none = np.zeros(0, np.int64)
        return FallbackTargets(
            image=none,
            frame=none,
            anchor=none,
            xyz=np.zeros((0, 3), np.float32),
            confidence=np.zeros(0, np.float32),
        )


@dataclass(frozen=True, kw_only=True)
class SceneGraph:
    """All pairs that know something, flat."""

    num_images: int
    pair: Int[np.ndarray, "pair 2"]
    """i < j, each pair once."""
    score: Float[np.ndarray, "pair"]
    """Number of correspondences: weight of the pair in the kinematic tree."""
    match_pair: Int[np.ndarray, "match"]
    """Row of `pair`, ascending."""
    xy_i: Float[np.ndarray, "match 2"]
    xy_j: Float[np.ndarray, "match 2"]
    confidence: Float[np.ndarray, "match"]
    is_matching: Int[np.ndarray, "pair"]
    """1 where the best match confidence exceeds `matching_conf_thr`; the other pairs are used through `fallback`."""
    confirmed: Bool[np.ndarray, "pair"]
    """Pairs whose relative rotation closes cycles with those of others."""
    fallback: FallbackTargets
    component: Int[np.ndarray, "image"]
    """Connected component of each image, 0 the largest; -1 for an image that no usable pair reaches."""


@dataclass(frozen=True, kw_only=True)
class Anchors:
    """Every matched pixel belongs to the anchor of its block with a fixed relative depth (docs/method.md, Anchors).

    Anchors of all images are concatenated; those of image k are rows `start[k]:start[k + 1]`, row-major over blocks.
    """

    start: Int[np.ndarray, "image_plus_1"]
    depth: Float[np.ndarray, "anchor"]
    """Canonical depth."""
    anchor_i: Int[np.ndarray, "match"]
    anchor_j: Int[np.ndarray, "match"]
    """Global anchor rows of both ends of every match of the scene graph."""
    depth_ratio_i: Float[np.ndarray, "match"]
    depth_ratio_j: Float[np.ndarray, "match"]
    """Depth of the matched pixel divided by the depth of its anchor."""


@dataclass(frozen=True, kw_only=True)
class KinematicTree:
    """Poses are chained along this tree; -1 is the parent of the root."""

    root: int
    parent: Int[np.ndarray, "image"]
    order: Int[np.ndarray, "image"]
    """Images with parents before children, root first."""
