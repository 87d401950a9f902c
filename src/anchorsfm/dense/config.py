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
    """Other views with which the depth map of a view is matched and compared."""
    min_views: Annotated[int, Range(1, 1000)] = 2
    """Fewest other views that must agree on a point of the cloud; all neighbours, where a view has fewer."""
    min_views_certain: Annotated[int, Range(1, 1000)] = 1
    """Fewest other views that must agree where the front end is certain, the correlation is high and no view sees
    through the point."""
    max_depth_error: Annotated[float, Range(0, 1, above=True)] = 0.01
    """Largest difference of depths with which two views agree on a point, as a share of its depth."""
    max_error_px: Annotated[float, Range(0, 1000, above=True)] = 2.0
    """Largest difference of depths with which two views agree on a point, in pixels that it moves the point in the
    depth map."""
    min_correlation: Annotated[float, Range(0, 1, below=True)] = 0.6
    """Smallest correlation of the windows around a point in the views that show it best."""
    resolution: Annotated[float, Range(0.05, 1000)] = 1.0
    """Side of the cells in which points of the cloud are merged: 1 is a pixel of the depth map of the closest view."""
    max_points: Annotated[int, Range(1000, 1_000_000_000)] = 5_000_000
    """Most points of a cloud; cells are doubled in size until it has no more."""
    depth_maps: bool = False
    """Write depth, confidence and cameras of every view to OUT/dense/depth."""
    mesh: MeshMethod = "none"
    """Write a surface to OUT/dense/N-mesh.ply: poisson closes small gaps and follows the normals."""
