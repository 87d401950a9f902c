"""Which frames are taken (docs/method.md, Frames of videos): places along the way of the view, a sharp frame at each.

A pure function of what was measured, so equal videos and settings give equal frames.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from jaxtyping import Bool, Float, Int

from anchorsfm.video.config import VideoConfig
from anchorsfm.video.measure import FrameTrack

WINDOW_S = 0.2
"""A blurred frame is never taken where there is a sharp one within this time."""
SHARP = 0.75
"""Sharpness, as a share of the best within the window, from which on a frame counts as sharp."""
WEAK = 0.5
"""Sharpness, as a share of what is usual within `USUAL_S`, below which even the best of a window is blurred ..."""
USUAL_S = 3.0
WIDEST_GAP = 0.3
"""... and taken only where the view would move further than this without it."""
USELESS = 0.45
"""The same share, below which a frame is never taken: nothing is found in it again."""
STILL = 0.01
"""A view that moves less within `STILL_S` before and after a frame stands still."""
STILL_S = 0.5
_ROUNDING = 1e-6
_SHARPNESS_WEIGHT = 1.0
"""A frame half a step from its place is as good as one on it that has half the sharpness."""


class Fate(IntEnum):
    """What became of a frame."""

    CHOSEN = 0
    BLURRED = 1
    STILL = 2
    BETWEEN = 3
    """Sharp enough, but close to a chosen one."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The chosen frames of a video, and why not the others."""

    rows: Int[np.ndarray, "chosen"]
    """Of the track, ascending."""
    fate: Int[np.ndarray, "frame"]
    """`Fate` of every measured frame."""
    step: float
    """How far the view moves between places, in longer sides of the picture; 0: it does not."""

    def count(self, fate: Fate) -> int:
        """Frames with this fate."""
        return int((self.fate == fate).sum())


def choose(track: FrameTrack, config: VideoConfig) -> Choice:
    """Choose among measured frames; at least one of at least one."""
    way = np.maximum.accumulate(track.way)
    best = _best_within(track.time_s, track.sharpness, WINDOW_S)
    sharp = track.sharpness >= SHARP * best
    length = float(way[-1] - way[0])
    if config.fps is not None:
        position, spacing = track.time_s, 1 / config.fps
    else:
        position, spacing = way, config.step
    extent = float(position[-1] - position[0])
    count = min(config.frames, max(int(extent / spacing + _ROUNDING) + 1, 2))
    spacing = extent / (count - 1)
    reach = min(WINDOW_S, spacing / 2) if config.fps is not None else spacing / 2
    share = _share_of_usual(track, sharp)
    allowed = np.flatnonzero(sharp & (share >= USELESS))
    rows = _at_places(position, track.sharpness, allowed, count, spacing, reach)
    if config.fps is None:
        rows = _without_needless(rows, way, share < WEAK)
    fate = np.full(len(way), Fate.BETWEEN, np.int64)
    fate[_stands_still(track.time_s, way)] = Fate.STILL
    fate[~sharp | (share < USELESS)] = Fate.BLURRED
    fate[rows] = Fate.CHOSEN
    return Choice(rows=rows, fate=fate, step=length / max(len(rows) - 1, 1))


def _at_places(
    position: Float[np.ndarray, "frame"],
    sharpness: Float[np.ndarray, "frame"],
    allowed: Int[np.ndarray, "_"],
    count: int,
    spacing: float,
    reach: float,
) -> Int[np.ndarray, "chosen"]:
    """For each of `count` places the allowed frame within reach that is near and sharp, else the nearest one that
    belongs to no other place; at places that the view jumped over there is none."""
    own = position[allowed]  # ascending, as positions are
    chosen = set()
    for place in position[0] + spacing * np.arange(count):
        for far in (reach, spacing / 2 + _ROUNDING):
            low, high = np.searchsorted(own, place - far, "left"), np.searchsorted(own, place + far, "right")
            if low < high:
                value = sharpness[allowed[low:high]]
                distance = np.abs(own[low:high] - place) / max(spacing, _ROUNDING)
                cost = distance - _SHARPNESS_WEIGHT * value / max(value.max(), _ROUNDING)
                chosen.add(int(allowed[low + int(np.argmin(cost))]))
                break
    return np.array(sorted(chosen or {int(np.argmax(sharpness))}), np.int64)


def _best_within(
    time_s: Float[np.ndarray, "frame"], value: Float[np.ndarray, "frame"], window_s: float
) -> Float[np.ndarray, "frame"]:
    """The largest value up to `window_s` before and after each frame."""
    low = np.searchsorted(time_s, time_s - window_s, side="left")
    high = np.searchsorted(time_s, time_s + window_s, side="right")
    return np.array([value[first:end].max() for first, end in zip(low, high, strict=True)])


def _share_of_usual(track: FrameTrack, sharp: Bool[np.ndarray, "frame"]) -> Float[np.ndarray, "frame"]:
    """Sharpness beside what is usual of sharp frames at the time of a frame; 1 where nothing is."""
    rows = np.flatnonzero(sharp)
    low = np.searchsorted(track.time_s[rows], track.time_s - USUAL_S, side="left")
    high = np.searchsorted(track.time_s[rows], track.time_s + USUAL_S, side="right")
    usual = [np.median(track.sharpness[rows[a:b]]) if a < b else 0.0 for a, b in zip(low, high, strict=True)]
    return np.where(np.array(usual) > 0, track.sharpness / np.maximum(usual, _ROUNDING), 1.0)


def _without_needless(
    rows: Int[np.ndarray, "chosen"], way: Float[np.ndarray, "frame"], weak: Bool[np.ndarray, "frame"]
) -> Int[np.ndarray, "kept"]:
    """Leave out blurred frames between neighbours that overlap enough without them."""
    kept: list[int] = []
    for number, row in enumerate(rows.tolist()):
        inner = 0 < number < len(rows) - 1
        if inner and weak[row] and way[rows[number + 1]] - way[kept[-1]] <= WIDEST_GAP:
            continue
        kept.append(row)
    return np.array(kept, np.int64)


def _stands_still(time_s: Float[np.ndarray, "frame"], way: Float[np.ndarray, "frame"]) -> Bool[np.ndarray, "frame"]:
    low = np.searchsorted(time_s, time_s - STILL_S, side="left")
    high = np.searchsorted(time_s, time_s + STILL_S, side="right") - 1
    return np.asarray((way[high] - way[low] < STILL) & (high > low))
