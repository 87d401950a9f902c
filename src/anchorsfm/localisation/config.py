"""What a user can set about localisation."""

from dataclasses import dataclass
from typing import Annotated

from anchorsfm.scene.settings import Range, Settings


@dataclass(frozen=True, kw_only=True)
class LocaliseConfig(Settings):
    """How new photographs are placed."""

    focal_px: Annotated[float | None, Range(1, 10_000_000)] = None
    """Focal length of the new photographs in original pixels. Without it: that of the model's camera with the same
    picture size, that of EXIF, or an estimate."""
    min_inliers: Annotated[int, Range(12, 100_000)] = 25
    """Fewest points of the model that must agree with a pose."""
    max_candidates: Annotated[int, Range(1, 10_000)] = 20
    """Most images of the model that a photograph is compared with: those that look most alike."""
