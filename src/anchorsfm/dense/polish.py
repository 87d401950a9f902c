"""Depth of one view matched anew with its neighbours, all at once, with the adjusted cameras.

The front end knows two images at a time and its own poses; here the correlation of windows is averaged over the two
neighbours that match a pixel best, so those from which it is hidden do not count (Kang et al., "Handling occlusions
in dense multi-view stereo", CVPR 2001). Depth maps are moved as a whole along the rays, by fractions of a pixel of the
neighbour in the middle between the near and the far ones: windows then follow the surface, and a parabola through the
correlations of three moves gives the place of the best. Pixels that correlate badly are filled in from those around
them and tried again, which lets depth grow into areas where no pair of images was sure.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from anchorsfm.dense.surface import fit_planes
from anchorsfm.geometry.transforms import compose, invert
from anchorsfm.stereo.confidence import fill_smoothly
from anchorsfm.stereo.sweep import (
    Epipolar,
    GridView,
    Window,
    correlation,
    epipolar,
    inverse_depth_per_px,
    sample,
    warp,
    window_statistics,
)

WINDOW_RADIUS = 3
NOISE_VARIANCE = 2.0
"""Of grey values in windows that show nothing: correlation has at least this added to the variance."""
BEST = 2
"""Neighbours whose correlation counts; the others may not see the point, or at another scale or slant."""
MOVES_PX: tuple[tuple[float, ...], ...] = (
    (-4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0),
    (-1.0, -0.5, 0.0, 0.5, 1.0),
    (-0.25, 0.0, 0.25),
)
"""Moves that are tried, round by round; pixels that are still bad are filled in between rounds."""
MOVE_COST = 0.02
"""Correlation that a move by a pixel must gain."""
BELIEVED = 0.6
"""Pixels that correlate worse are filled in."""
WORTH_FITTING = 0.3
"""Pixels that correlate worse say nothing about the planes around."""
CALM_LOSS = 0.05
"""A plane may correlate by this much worse than the pixel's own depth."""
LARGEST_STEP = 0.05
"""Of inverse depth, relative: beyond, a pixel of the neighbour is uninformative about depth."""


@dataclass(frozen=True, kw_only=True)
class Photo:
    """A pinhole picture and its camera."""

    rgb: UInt8[np.ndarray, "h w 3"]
    grid_view: GridView
    cam_from_world: Float[np.ndarray, "3 4"]
    inside: Bool[np.ndarray, "h w"] | None = None
    """Pixels that the photograph shows and its mask leaves; None: all."""
    masked: Bool[np.ndarray, "h w"] | None = None
    """Pixels that its mask hides; None: it has no mask."""


@dataclass(frozen=True, kw_only=True)
class Polished:
    """Inverse depth of every pixel (0: unknown), and how well windows correlate there, less where texture is weak."""

    inverse_depth: Float32[np.ndarray, "h w"]
    correlation: Float32[np.ndarray, "h w"]


def polish(
    photo: Photo,
    others: Sequence[Photo],
    inverse_depth: Float32[np.ndarray, "h w"],
    weight: Float32[np.ndarray, "h w"],
) -> Polished:
    """Match a view with its neighbours, starting from a depth that is known where `weight` (0 .. 1) is not 0."""
    matcher = _Matcher.of(photo, others)
    guess = _typical(inverse_depth, weight)
    current = fill_smoothly(np.where(weight > 0, inverse_depth, 0).astype(np.float32), 1 + weight, guess)
    found = Polished(inverse_depth=current, correlation=matcher.score(current))
    for number, moves in enumerate(MOVES_PX):
        if number:
            believed = np.clip((found.correlation - BELIEVED) / (1 - BELIEVED), 0, 1)
            filled = fill_smoothly(found.inverse_depth, 1 + believed, guess)
            found = _better(found, Polished(inverse_depth=filled, correlation=matcher.score(filled)))
        found = _calm(matcher, _search(matcher, found, moves), photo.rgb)
    return found


def _calm(matcher: "_Matcher", found: Polished, rgb: UInt8[np.ndarray, "h w 3"]) -> Polished:
    """The depth of the local planes, except where that correlates clearly worse.

    Where texture is weak the best of several correlations is mostly noise; the surface around knows better.
    """
    flat = fit_planes(found.inverse_depth, found.correlation > WORTH_FITTING, rgb).value
    score = matcher.score(flat)
    take = score > found.correlation - CALM_LOSS
    return Polished(
        inverse_depth=np.where(take, flat, found.inverse_depth),
        correlation=np.where(take, score, found.correlation),
    )


def texture(photo: Photo) -> Float32[np.ndarray, "h w"]:
    """How much windows show besides noise, 0 .. 1."""
    variance = window_statistics(photo.grid_view.grey, WINDOW_RADIUS).variance
    return variance / (variance + NOISE_VARIANCE)


def _typical(inverse_depth: Float32[np.ndarray, "h w"], weight: Float32[np.ndarray, "h w"]) -> float:
    known = inverse_depth[weight > 0]
    return float(np.median(known)) if len(known) else float(np.median(inverse_depth)) or 1.0


@dataclass(frozen=True, kw_only=True)
class _Matcher:
    window: Window
    texture: Float32[np.ndarray, "h w"]
    targets: tuple[Float32[np.ndarray, "_ _"], ...]
    ways: tuple[Epipolar, ...]

    @staticmethod
    def of(photo: Photo, others: Sequence[Photo]) -> "_Matcher":
        back = invert(photo.cam_from_world)
        return _Matcher(
            window=window_statistics(photo.grid_view.grey, WINDOW_RADIUS),
            texture=texture(photo),
            targets=tuple(other.grid_view.grey.astype(np.float32) for other in others),
            ways=tuple(
                epipolar(photo.grid_view, other.grid_view, compose(other.cam_from_world, back)) for other in others
            ),
        )

    def score(self, inverse_depth: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
        """Mean correlation with the `BEST` neighbours of each pixel; of one, where only one shows it."""
        values = (
            correlation(self.window, sample(target, warp(inverse_depth, way), border=-1.0))
            for target, way in zip(self.targets, self.ways, strict=True)
        )
        best = [next(values)]
        for value in values:  # the highest first, no more than BEST
            for rank, lower in enumerate(best):
                best[rank], value = np.maximum(lower, value), np.minimum(lower, value)
            best += [value] if len(best) < BEST else []
        alone = best[-1] == 0  # no more than one neighbour has the pixel in its picture
        return np.where(alone, best[0], sum(best[1:], start=best[0]) / np.float32(len(best))) * self.texture

    def step(self, inverse_depth: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
        """Inverse depth per pixel of movement in the neighbours, the median of them."""
        steps = [inverse_depth_per_px(inverse_depth, way) for way in self.ways]
        return np.minimum(np.median(np.stack(steps), axis=0), LARGEST_STEP * inverse_depth)


def _search(matcher: _Matcher, start: Polished, moves: Sequence[float]) -> Polished:
    """Move the whole depth map by each of `moves`; at each pixel take the best, refined by a parabola."""
    step = matcher.step(start.inverse_depth)
    scores = np.stack(
        [
            start.correlation if move == 0 else matcher.score(start.inverse_depth + np.float32(move) * step)
            for move in moves
        ]
    )
    cost = np.abs(np.array(moves, np.float32)) * MOVE_COST
    ranked = scores - cost[:, None, None]
    winner = ranked.argmax(axis=0)
    inner = np.clip(winner, 1, len(moves) - 2)
    before, at, after = (np.take_along_axis(scores, (inner + k)[None], axis=0)[0] for k in (-1, 0, 1))
    curvature = before - 2 * at + after
    bent = (curvature < -1e-4) & (inner == winner)
    shift = np.where(bent, 0.5 * (before - after) / np.where(bent, curvature, 1), 0)
    place = np.array(moves, np.float32)[winner] + np.clip(shift, -0.5, 0.5) * np.float32(moves[1] - moves[0])
    moved = (start.inverse_depth + place.astype(np.float32) * step).astype(np.float32)
    calm = cv2.medianBlur(moved, 3)
    candidates = [Polished(inverse_depth=values, correlation=matcher.score(values)) for values in (calm, moved)]
    best = start
    for candidate in candidates:
        best = _better(best, candidate)
    return best


def _better(a: Polished, b: Polished) -> Polished:
    """At each pixel the one that correlates better."""
    take = b.correlation > a.correlation
    return Polished(
        inverse_depth=np.where(take, b.inverse_depth, a.inverse_depth),
        correlation=np.where(take, b.correlation, a.correlation),
    )
