"""Settings of the choice of frames; imports no library that computes."""

from dataclasses import dataclass
from typing import Annotated

import tyro.conf

from anchorsfm.scene.settings import Range, Settings


@dataclass(frozen=True, kw_only=True)
class VideoConfig(Settings):
    """Which frames of a video are used (docs/method.md, Frames of videos)."""

    frames: Annotated[int, Range(2, 100_000), tyro.conf.arg(aliases=["--frames"])] = 200
    """Most frames that are taken of a video; a longer way than they cover is divided among them."""
    fps: Annotated[float | None, Range(0.001, 1000), tyro.conf.arg(aliases=["--fps"])] = None
    """Take frames at this rate, whether the view moves or not, in place of a choice by movement; the sharpest nearby
    is taken."""
    step: Annotated[float, Range(0.005, 0.5)] = 0.08
    """How far the view moves from one frame to the next, as a share of the longer side of the picture; a degree by
    which the camera turns about what it shows counts as 0.01."""
