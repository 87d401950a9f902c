"""What a run decides for its front end."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """The defaults are those of a front end that is used by itself."""

    max_image_size: int = 1024
    """Long side in pixels at which photographs are looked at, for front ends that can choose."""
    seed: int = 0
    focal_is_exact: bool = False
    """The focal lengths given with the photographs are to be taken as they are."""
    needs_depth: bool = True
    """Otherwise matches are enough."""
