"""Dense depth of both images of a pair, rounded to what the cache keeps."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, UInt8, UInt16

from anchorsfm.geometry.transforms import invert
from anchorsfm.stereo.confidence import confidence, fill_smoothly, left_right_error_px
from anchorsfm.stereo.config import SweepConfig
from anchorsfm.stereo.depth_code import decode_log_depth, encode_log_depth
from anchorsfm.stereo.subplane import refine_below_planes
from anchorsfm.stereo.sweep import (
    Epipolar,
    GridView,
    choose_planes,
    epipolar,
    sweep,
    window_statistics,
)

CONFIDENCE_STEPS = 20
"""Stored steps per unit of confidence."""
REFERENCE_AREA_PX = 512 * 384
"""`min_region_px` is meant for grids of about this area."""


@dataclass(frozen=True, kw_only=True)
class DepthMap:
    """Depth and confidence as stored: see `depth_code`.

    Values are rounded before anything is derived from them, so that a resumed run repeats the first one exactly.
    """

    depth_code: UInt16[np.ndarray, "h w"]
    log_range: Float[np.ndarray, "2"]
    confidence_code: UInt8[np.ndarray, "h w"]

    @property
    def depth(self) -> Float32[np.ndarray, "h w"]:
        """In baselines of the pair."""
        return np.exp(decode_log_depth(self.depth_code, self.log_range).astype(np.float32))

    @property
    def confidence(self) -> Float32[np.ndarray, "h w"]:
        return 1 + self.confidence_code.astype(np.float32) / CONFIDENCE_STEPS


@dataclass(frozen=True, kw_only=True)
class DensePair:
    """Depth of the two images of a pair, each in its own camera."""

    i: DepthMap
    j: DepthMap


@dataclass(frozen=True, kw_only=True)
class StereoPair:
    """Both views of a pair, the pose between them and the way from either to the other."""

    view_i: GridView
    view_j: GridView
    to_j: Epipolar
    to_i: Epipolar


def stereo_pair(view_i: GridView, view_j: GridView, j_from_i: Float[np.ndarray, "3 4"]) -> StereoPair:
    return StereoPair(
        view_i=view_i,
        view_j=view_j,
        to_j=epipolar(view_i, view_j, j_from_i),
        to_i=epipolar(view_j, view_i, invert(j_from_i)),
    )


def dense_depth(pair: StereoPair, match_depth: Float[np.ndarray, "match 2"], config: SweepConfig) -> DensePair:
    """Sweep both images against each other. `match_depth`: depths of sparse matches in i and j, in baselines."""
    found_i = _sweep_one(pair.view_i, pair.view_j, pair.to_j, match_depth[:, 0], config)
    found_j = _sweep_one(pair.view_j, pair.view_i, pair.to_i, match_depth[:, 1], config)
    error_i = left_right_error_px(found_i.inverse_depth, pair.to_j, found_j.inverse_depth, pair.to_i)
    error_j = left_right_error_px(found_j.inverse_depth, pair.to_i, found_i.inverse_depth, pair.to_j)
    return DensePair(
        i=_judge(pair.view_i, found_i, error_i, match_depth[:, 0], config),
        j=_judge(pair.view_j, found_j, error_j, match_depth[:, 1], config),
    )


@dataclass(frozen=True, kw_only=True)
class _Found:
    inverse_depth: Float32[np.ndarray, "h w"]
    correlation: Float32[np.ndarray, "h w"]


def _sweep_one(
    reference: GridView,
    other: GridView,
    geometry: Epipolar,
    match_depth: Float[np.ndarray, "match"],
    config: SweepConfig,
) -> _Found:
    planes = choose_planes(reference, geometry, match_depth, config)
    inverse_depth, correlation = sweep(reference, other, geometry, planes, config)
    if config.refine:
        inverse_depth, correlation = refine_below_planes(reference, other, geometry, inverse_depth, correlation, config)
    return _Found(inverse_depth=inverse_depth, correlation=correlation)


def _judge(
    view: GridView,
    found: _Found,
    error_px: Float32[np.ndarray, "h w"],
    match_depth: Float[np.ndarray, "match"],
    config: SweepConfig,
) -> DepthMap:
    window = window_statistics(view.grey, config.window_radius)
    region = int(config.min_region_px * view.grey.size / REFERENCE_AREA_PX)
    trust = confidence(found.correlation, error_px, found.inverse_depth, window, region)
    code = np.rint((trust - 1) * CONFIDENCE_STEPS).astype(np.uint8)
    filled = fill_smoothly(
        found.inverse_depth, 1 + code.astype(np.float32) / CONFIDENCE_STEPS, float(np.median(1 / match_depth))
    )
    log_depth = -np.log(np.maximum(filled, 1e-12))
    low, high = float(log_depth.min()), float(log_depth.max())
    return DepthMap(
        depth_code=encode_log_depth(log_depth, low, high), log_range=np.array([low, high]), confidence_code=code
    )
