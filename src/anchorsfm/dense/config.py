"""What a user can set about dense output. The defaults hold for photographs of any size and number."""

from dataclasses import dataclass
from typing import Literal

from anchorsfm.scene.errors import InputError

MAX_IMAGES_BY_DEFAULT = 200
"""Sets with more images get a dense cloud only if it is asked for."""

MeshMethod = Literal["none", "poisson", "delaunay"]


@dataclass(frozen=True, kw_only=True)
class CloudConfig:
    """Dense depth, the cloud made of it, and what else is written beside the cloud."""

    num_neighbours: int = 8
    """Views that the depth of a view is matched with and checked against."""
    min_views: int = 2
    """Other views that must agree on a point, all of them where a view has fewer neighbours."""
    min_views_certain: int = 1
    """The same where the front end is certain, the correlation is high and no view sees through the point."""
    max_depth_error: float = 0.01
    """Views agree where their depths of a point differ by no more than this share of it."""
    max_error_px: float = 2.0
    """... and by no more than moves the point by this many pixels of the depth map."""
    min_correlation: float = 0.6
    """Correlation of the pixels around a point in the views that show it best."""
    resolution: float = 1.0
    """Side of the cells in which points are merged: 1 is a pixel of the depth map of the view that is closest."""
    max_points: int = 5_000_000
    """Cells are doubled in size until a cloud has no more points."""
    depth_maps: bool = False
    """Write depth, confidence and cameras of every view to OUT/dense/depth."""
    mesh: MeshMethod = "none"
    """Write a surface to OUT/dense/N-mesh.ply: poisson closes small gaps and follows the normals."""

    def check(self) -> None:
        """Raise InputError for values that make no sense."""
        for name, lowest in (("num_neighbours", 1), ("min_views", 1), ("min_views_certain", 1), ("max_points", 1)):
            if getattr(self, name) < lowest:
                raise InputError(f"--cloud.{name.replace('_', '-')} must be at least {lowest}")
        for name in ("max_depth_error", "max_error_px", "resolution"):
            if not getattr(self, name) > 0:
                raise InputError(f"--cloud.{name.replace('_', '-')} must be more than 0")
        if not 0 <= self.min_correlation < 1:
            raise InputError("--cloud.min-correlation must be at least 0 and less than 1")
