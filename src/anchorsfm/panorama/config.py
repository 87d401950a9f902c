"""Settings of panoramas; imports no library that computes."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro.conf

from anchorsfm.scene.settings import Range, Settings


@dataclass(frozen=True, kw_only=True)
class PanoramaConfig(Settings):
    """Photographs of 360 degrees, and the views that are cut from them (docs/method.md, Panoramas)."""

    use: Annotated[Literal["auto", "all", "off"], tyro.conf.arg(aliases=["--panoramas"])] = "auto"
    """Equirectangular photographs and frames, twice as wide as high, are cut into views. auto: those that say so (XMP
    GPano) or whose borders fit together as those of a whole sphere do; all: all that are twice as wide as high; off:
    none, they are photographs like others."""
    views: Literal["level", "sphere"] = "level"
    """Views of each panorama, 90 degrees wide and high. level: 6 around the horizon; sphere: 4 more that look up and 4
    that look down, for ceilings, floors and clouds without gaps."""
    size: Annotated[int | None, Range(64, 8192)] = None
    """Side of the views in pixels. None: as sharp in their middle as the panorama."""
