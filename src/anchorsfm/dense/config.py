"""What a user can set about dense output. The defaults hold for photographs of any size and number."""

from dataclasses import dataclass
from typing import Annotated, Literal

from anchorsfm.scene.settings import Range, Settings

MAX_IMAGES_BY_DEFAULT = 200
"""Sets with more images get a dense cloud only if it is asked for."""

MeshMethod = Literal["none", "poisson", "delaunay"]


@dataclass(frozen=True, kw_only=True)
class CloudConfig(Settings):
    """Dense depth, the cloud made of it, and what else is written beside the cloud."""

    num_neighbours: Annotated[int, Range(1, 1000)] = 8
    """Views that the depth of a view is matched with and checked against."""
    min_views: Annotated[int, Range(1, 1000)] = 2
    """Other views that must agree on a point, all of them where a view has fewer neighbours."""
    min_views_certain: Annotated[int, Range(1, 1000)] = 1
    """The same where the front end is certain, the correlation is high and no view sees through the point."""
    max_depth_error: Annotated[float, Range(0, 1, above=True)] = 0.01
    """Views agree where their depths of a point differ by no more than this share of it."""
    max_error_px: Annotated[float, Range(0, 1000, above=True)] = 2.0
    """... and by no more than moves the point by this many pixels of the depth map."""
    min_correlation: Annotated[float, Range(0, 1, below=True)] = 0.6
    """Correlation of the pixels around a point in the views that show it best."""
    resolution: Annotated[float, Range(0.01, 1000)] = 1.0
    """Side of the cells in which points are merged: 1 is a pixel of the depth map of the view that is closest."""
    max_points: Annotated[int, Range(1, 1_000_000_000)] = 5_000_000
    """Cells are doubled in size until a cloud has no more points."""
    depth_maps: bool = False
    """Write depth, confidence and cameras of every view to OUT/dense/depth."""
    mesh: MeshMethod = "none"
    """Write a surface to OUT/dense/N-mesh.ply: poisson closes small gaps and follows the normals."""
