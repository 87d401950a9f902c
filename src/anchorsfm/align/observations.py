"""Flat matches -> chunks of equal length that belong to one pair each, so that a pair's matrix acts on a chunk."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anchorsfm.align.losses import PointChunks, RayChunks

SLOT = 256
"""Observations in a chunk. Small enough to waste little on pairs with few matches, large enough for quick kernels."""


@dataclass(frozen=True, kw_only=True)
class ChunkLayout:
    """Where each observation goes. Unused slots repeat the first observation of the chunk at zero weight."""

    pair: Int[np.ndarray, "chunk"]
    row: Int[np.ndarray, "chunk slot"]
    """Observation in each slot."""
    used: Bool[np.ndarray, "chunk slot"]


def lay_out(pair_of_row: Int[np.ndarray, "row"], slot: int = SLOT) -> ChunkLayout:
    """Cut rows, sorted by pair, into chunks."""
    assert (np.diff(pair_of_row) >= 0).all(), "observations are not sorted by pair"
    pair, first, count = np.unique(pair_of_row, return_index=True, return_counts=True)
    slot = max(1, min(slot, int(count.max()))) if len(count) else slot
    num_chunks = -(-count // slot)
    chunk_pair = np.repeat(pair, num_chunks)
    end = np.repeat(first + count, num_chunks)
    within = np.arange(len(chunk_pair)) - np.repeat(np.cumsum(num_chunks) - num_chunks, num_chunks)
    begin = np.repeat(first, num_chunks) + within * slot
    row = begin[:, None] + np.arange(slot)
    used = row < end[:, None]
    return ChunkLayout(pair=chunk_pair, row=np.where(used, row, begin[:, None]), used=used)


@dataclass(frozen=True, kw_only=True)
class DirectedObservations:
    """Source pixels and what they should coincide with in the target image, flat and sorted by directed pair."""

    source: Int[np.ndarray, "pair"]
    target: Int[np.ndarray, "pair"]
    """Views of each directed pair."""
    pair: Int[np.ndarray, "row"]
    xy: Float[np.ndarray, "row 2"]
    anchor: Int[np.ndarray, "row"]
    depth_ratio: Float[np.ndarray, "row"]
    goal: Float[np.ndarray, "row goal_dim"]
    """Matched pixel (2) or predicted point in the frame of the target (3)."""
    weight: Float[np.ndarray, "row"]

    def __len__(self) -> int:
        return len(self.pair)


def ray_chunks(rows: DirectedObservations, size_wh: Float[np.ndarray, "view 2"], dtype: torch.dtype) -> RayChunks:
    """Chunks for the fine stage: everything varies."""
    layout = lay_out(rows.pair)
    centred = rows.xy - size_wh[rows.source[rows.pair]] / 2
    return RayChunks(
        pair=torch.from_numpy(layout.pair),
        pixel=_packed(np.column_stack([centred, np.ones(len(rows))]), layout, dtype),
        anchor=torch.from_numpy(rows.anchor[layout.row].astype(np.int32)),
        relief=_packed(rows.depth_ratio - 1, layout, dtype),
        target=_packed(rows.goal, layout, dtype),
        weight=_packed(rows.weight, layout, dtype) * torch.from_numpy(layout.used),
    )


def point_chunks(
    pair: Int[np.ndarray, "row"],
    point_i: Float[np.ndarray, "row 3"],
    point_j: Float[np.ndarray, "row 3"],
    weight: Float[np.ndarray, "row"],
    dtype: torch.dtype,
) -> PointChunks:
    """Chunks for the coarse stage: points are constant in the frames of their cameras."""
    layout = lay_out(pair)
    return PointChunks(
        pair=torch.from_numpy(layout.pair),
        points=_packed(np.column_stack([point_i, point_j, np.ones(len(pair))]), layout, dtype),
        weight=_packed(weight, layout, dtype) * torch.from_numpy(layout.used),
    )


def _packed(values: Float[np.ndarray, "row *value"], layout: ChunkLayout, dtype: torch.dtype) -> Tensor:
    """Values of the observations in every slot, with the slots last."""
    packed = torch.from_numpy(np.ascontiguousarray(values)).to(dtype)[torch.from_numpy(layout.row)]
    return packed.movedim(1, -1).contiguous()
