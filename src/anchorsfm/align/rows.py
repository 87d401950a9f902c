"""Observations for the second-order solver: flat, sorted by source image, then by target image.

All that depends on one image's depths is then one contiguous block, so normal equations can be formed and reduced image
by image, and nothing larger than the rows themselves has to be kept.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from anchorsfm.align.observations import DirectedObservations


@dataclass(frozen=True, kw_only=True)
class SortedRows:
    """Directed observations; rows of directed pair k are `start[k]:start[k + 1]`, pairs of source image s are
    `first_pair[s]:first_pair[s + 1]`."""

    source: Int[np.ndarray, "pair"]
    target: Int[np.ndarray, "pair"]
    start: Int[np.ndarray, "pair_plus_1"]
    first_pair: Int[np.ndarray, "view_plus_1"]
    xy: Float[np.ndarray, "row 2"]
    anchor: Int[np.ndarray, "row"]
    relief: Float[np.ndarray, "row"]
    """Depth ratio minus 1."""
    goal: Float[np.ndarray, "row goal_dim"]
    weight: Float[np.ndarray, "row"]

    def __len__(self) -> int:
        return len(self.weight)

    @property
    def num_pairs(self) -> int:
        return len(self.source)

    def rows_of_source(self, view: int) -> slice:
        """Rows that look from an image."""
        first, last = self.start[self.first_pair[view : view + 2]]
        return slice(int(first), int(last))


def sorted_rows(rows: DirectedObservations, num_views: int, dtype: np.dtype, weight_factor: float = 1.0) -> SortedRows:
    """Rows in the solver's order and precision. Rows of one directed pair are contiguous in the input."""
    count = len(rows.source)
    begin = np.searchsorted(rows.pair, np.arange(count + 1))
    order = np.lexsort((rows.target, rows.source))
    order = order[np.diff(begin)[order] > 0]
    length = np.diff(begin)[order]
    start = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
    pieces = [slice(int(begin[pair]), int(begin[pair + 1])) for pair in order]
    return SortedRows(
        source=rows.source[order].astype(np.int64),
        target=rows.target[order].astype(np.int64),
        start=start,
        first_pair=np.searchsorted(rows.source[order], np.arange(num_views + 1)).astype(np.int64),
        xy=_joined(rows.xy, pieces).astype(dtype, copy=False),
        anchor=_joined(rows.anchor, pieces).astype(np.int32, copy=False),
        relief=_joined(rows.depth_ratio, pieces).astype(dtype, copy=False) - dtype.type(1),
        goal=_joined(rows.goal, pieces).astype(dtype, copy=False),
        weight=(_joined(rows.weight, pieces) * weight_factor).astype(dtype, copy=False),
    )


def _joined(values: Shaped[np.ndarray, "all *value"], pieces: list[slice]) -> Shaped[np.ndarray, "row *value"]:
    return np.concatenate([values[piece] for piece in pieces]) if pieces else values[:0]


def thinned(rows: SortedRows, step: int, least: int) -> SortedRows:
    """Every step-th row of each pair, with proportionally more weight; pairs keep at least about `least` rows."""
    length = np.diff(rows.start)
    stride = np.clip(length // least, 1, step)
    kept = -(-(length - stride // 2) // stride)
    start = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
    within = np.arange(int(start[-1])) - np.repeat(start[:-1], kept)
    row_stride = np.repeat(stride, kept)
    chosen = np.repeat(rows.start[:-1] + stride // 2, kept) + within * row_stride
    return SortedRows(
        source=rows.source,
        target=rows.target,
        start=start,
        first_pair=rows.first_pair,
        xy=rows.xy[chosen],
        anchor=rows.anchor[chosen],
        relief=rows.relief[chosen],
        goal=rows.goal[chosen],
        weight=rows.weight[chosen] * row_stride.astype(rows.weight.dtype),
    )
