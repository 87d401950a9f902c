"""What a user can set about depth of two views by plane sweep."""

from dataclasses import dataclass
from typing import Annotated

from anchorsfm.scene.settings import Range, Settings


@dataclass(frozen=True, kw_only=True)
class SweepConfig(Settings):
    """Plane sweep with semi-global aggregation."""

    plane_step_px: Annotated[float, Range(0.01, 16)] = 1.0
    """Distance between neighbouring depth planes in pixels of the other image: 1 for quality, 2 for speed."""
    min_planes: Annotated[int, Range(2, 1024)] = 24
    """Smallest number of depth planes that are swept for a pair."""
    max_planes: Annotated[int, Range(2, 1024)] = 160
    """Largest number of depth planes that are swept for a pair; bounds memory and time where depths vary widely."""
    window_radius: Annotated[int, Range(1, 15)] = 3
    """Radius of the correlation window in pixels: 3 compares 7x7 pixels."""
    refine: bool = True
    """Refine depth below the distance of the planes, by local alignment of the windows."""
    min_region_px: Annotated[int, Range(0, 1_000_000)] = 150
    """Smallest connected region of consistent depth that is trusted, in pixels of a picture of 512x384."""

    def check_together(self) -> None:
        if self.min_planes > self.max_planes:
            raise self.refused("min_planes", f"must not be more than max_planes, {self.max_planes}")
