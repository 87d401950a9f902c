"""What a user can set about the scene graph and canonical views: light to import."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Literal, get_args

from anchorsfm.pairing.config import ConsistencyConfig
from anchorsfm.scene.settings import FocalRange, Range, Settings

FOCAL_RANGE = (0.2, 20.0)
"""Focal lengths that are believed, over the longer side: 136 to 2.9 degrees."""
Linkage = Literal["single", "complete", "average", "weighted", "centroid", "median", "ward"]
LINKAGES: tuple[Linkage, ...] = get_args(Linkage)
KINEMATIC_MODES = ("mst", *(f"hclust-{name}" for name in LINKAGES))


class DepthMode(StrEnum):
    """How depth relative to the anchor is averaged over pairs."""

    AVERAGE_ANGLE = "avg-angle"
    AVERAGE_RELATIVE_DEPTH = "avg-reldepth"


@dataclass(frozen=True, kw_only=True)
class GraphConfig(Settings):
    """How predictions are condensed."""

    subsample: Annotated[int, Range(1, 64)] = 8
    """Side of the blocks that share one unknown depth, in pixels of the front end's grid."""
    matching_conf_thr: Annotated[float, Range(0, 1_000_000)] = 5.0
    """Confidence that the best match of a pair must exceed; other pairs are used through the regression fallback."""
    canonical_mode: DepthMode = DepthMode.AVERAGE_ANGLE
    """How depth within a block is averaged over the pairs of an image: avg-angle, or the simpler avg-reldepth."""
    pixel_centre: Annotated[float, Range(0, 1)] = 0.5
    """Coordinate of the centre of the first pixel: 0.5 as in COLMAP. Others are for comparisons only."""
    double_precision: bool = False
    """Keep the running sums of canonical views in float64."""
    robust_focal: bool = True
    """Leave points that no focal length explains out of the estimate of a canonical view's focal length."""
    focal_range: FocalRange = FOCAL_RANGE
    """Shortest and longest focal length that is believed, as multiples of the longer side of the picture, in canonical
    views and in the alignment."""
    consistency: ConsistencyConfig = field(default_factory=ConsistencyConfig)
    """Which pairs are believed, by the relative rotations of their pointmaps."""
    corner_targets: bool = False
    """Sample targets of the regression fallback at block corners instead of anchors, half a block off. For comparisons
    only."""
