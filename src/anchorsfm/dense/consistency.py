"""What the depth maps of other views say about the points of one view.

A point of the view is projected into a neighbour and its depth there compared with the neighbour's. The neighbour
agrees if the two differ little, both as a share of depth and in pixels; it contradicts if its own, trusted surface lies
well behind the point: it looks through it. A surface in front of the point hides it and is uninformative.

With x' ~ A x + r b (see `frontend.classical.sweep`) depths along a ray are related by z' = a z + b_3, a = (A x)_3: what
an agreeing neighbour takes for the depth of the point is (z' - b_3) / a. The mean over all of them, weighted by their
correlation, is less noisy than the view's own depth.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from anchorsfm.dense.config import CloudConfig
from anchorsfm.dense.polish import Photo, Polished
from anchorsfm.geometry.transforms import compose, invert
from anchorsfm.stereo.sweep import Epipolar, epipolar, inverse_depth_per_px, sample, warp

SEEN_THROUGH = 3.0
"""A neighbour contradicts where its surface is further behind than this many times the tolerance."""


@dataclass(frozen=True, kw_only=True)
class Witness:
    """A neighbour with its matched depth; correlation is 0 where the depth is not to be trusted."""

    photo: Photo
    polished: Polished


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What neighbours say about every pixel."""

    inverse_depth: Float32[np.ndarray, "h w"]
    """Of the mean depth of the view and the neighbours that agree with it."""
    agreeing: Float32[np.ndarray, "h w"]
    """Number of neighbours that agree."""
    contradicting: Float32[np.ndarray, "h w"]
    """Number of neighbours that see through the point."""
    weight: Float32[np.ndarray, "h w"]
    """Sum of the correlations of the view and the neighbours that agree."""


def compare(own: Witness, others: Sequence[Witness], config: CloudConfig) -> Agreement:
    """Compare every pixel of a view with its neighbours."""
    inverse = own.polished.inverse_depth
    depth, weight = 1 / np.maximum(inverse, 1e-12), np.maximum(own.polished.correlation, 0.05)
    total, mean = weight.copy(), weight * depth
    agreeing, contradicting = np.zeros_like(inverse), np.zeros_like(inverse)
    for other in others:
        to_other, back = _ways(own.photo, other.photo)
        there = warp(inverse, to_other)
        theirs = sample(other.polished.inverse_depth, there, border=-1.0)
        trust = sample(other.polished.correlation, there, border=0.0)
        seen = (there.depth_ratio > 0) & (theirs > 0) & (trust > 0)
        expected = inverse / np.where(seen, there.depth_ratio, 1)
        per_px = sample(inverse_depth_per_px(other.polished.inverse_depth, back), there, border=1.0)
        theirs = np.where(seen, theirs, np.maximum(expected, 1e-12))
        allowed = np.minimum(config.max_depth_error * expected, config.max_error_px * per_px)
        agrees = seen & (np.abs(theirs - expected) < allowed)
        agreeing += agrees
        contradicting += seen & (expected - theirs > SEEN_THROUGH * config.max_depth_error * expected)
        vote = np.where(agrees, trust, 0)
        total += vote
        mean += vote * _depth_along_ray(1 / theirs, to_other)
    return Agreement(
        inverse_depth=(total / mean).astype(np.float32),
        agreeing=agreeing,
        contradicting=contradicting,
        weight=total.astype(np.float32),
    )


def _ways(photo: Photo, other: Photo) -> tuple[Epipolar, Epipolar]:
    there = compose(other.cam_from_world, invert(photo.cam_from_world))
    return (
        epipolar(photo.grid_view, other.grid_view, there),
        epipolar(other.grid_view, photo.grid_view, invert(there)),
    )


def _depth_along_ray(other_depth: Float[np.ndarray, "h w"], way: Epipolar) -> Float32[np.ndarray, "h w"]:
    """Depth in this view of the point of each ray that has a given depth in the other view."""
    height, width = other_depth.shape
    u, v = np.arange(width) + 0.5, (np.arange(height) + 0.5)[:, None]
    slope = way.infinity[2, 0] * u + way.infinity[2, 1] * v + way.infinity[2, 2]
    safe = np.where(np.abs(slope) > 1e-6, slope, 1e-6)
    return ((other_depth - way.epipole[2]) / safe).astype(np.float32)
