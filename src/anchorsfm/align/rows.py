"""Observations for the second-order solver: directed pairs in the order of their source images, then target images.

All that depends on one image's depths belongs to pairs that follow each other, so normal equations can be formed and
reduced image by image. The observations themselves stay where they are.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from anchorsfm.align.observations import DirectedObservations

GOLDEN_RATIO = (np.sqrt(5) - 1) / 2


@dataclass(frozen=True, kw_only=True)
class SortedRows:
    """Directed observations; those of directed pair k are the rows `span[k, 0]:span[k, 1]`, pairs of source image s are
    `first_pair[s]:first_pair[s + 1]`."""

    source: Int[np.ndarray, "pair"]
    target: Int[np.ndarray, "pair"]
    span: Int[np.ndarray, "pair 2"]
    first_pair: Int[np.ndarray, "view_plus_1"]
    xy: Float[np.ndarray, "row 2"]
    anchor: Int[np.ndarray, "row"]
    depth_ratio: Float[np.ndarray, "row"]
    goal: Float[np.ndarray, "row goal_dim"]
    weight: Float[np.ndarray, "row"]

    def __len__(self) -> int:
        return len(self.weight)

    @property
    def num_pairs(self) -> int:
        return len(self.source)

    @property
    def length(self) -> Int[np.ndarray, "pair"]:
        return self.span[:, 1] - self.span[:, 0]


def sorted_rows(rows: DirectedObservations, num_views: int, dtype: np.dtype, weight_factor: float = 1.0) -> SortedRows:
    """Observations with their pairs in the solver's order, copied only where the precision or a factor asks for it.

    Rows of one directed pair are contiguous in the input.
    """
    begin = np.searchsorted(rows.pair, np.arange(len(rows.source) + 1))
    order = np.lexsort((rows.target, rows.source))
    order = order[np.diff(begin)[order] > 0]
    weight = rows.weight.astype(dtype, copy=False)
    return SortedRows(
        source=rows.source[order].astype(np.int64),
        target=rows.target[order].astype(np.int64),
        span=np.stack([begin[order], begin[order + 1]], axis=1).astype(np.int64),
        first_pair=np.searchsorted(rows.source[order], np.arange(num_views + 1)).astype(np.int64),
        xy=rows.xy.astype(dtype, copy=False),
        anchor=rows.anchor.astype(np.int32, copy=False),
        depth_ratio=rows.depth_ratio.astype(dtype, copy=False),
        goal=rows.goal.astype(dtype, copy=False),
        weight=weight if weight_factor == 1 else weight * dtype.type(weight_factor),
    )


def thinned(rows: SortedRows, step: int, least: int) -> SortedRows:
    """The rows of about every step-th anchor, with proportionally more weight; pairs keep at least about `least` rows.

    Depths that remain are seen by as many images as before, so that they are determined as well as before. Anchors are
    chosen by their fractional multiples of the golden ratio, which are spread evenly, and the same in all pairs.
    """
    length = rows.length
    share = 1 / np.clip(length / least, 1, step)
    rank = (np.arange(int(rows.anchor.max(initial=0)) + 1) * GOLDEN_RATIO % 1).astype(np.float32)
    stored = np.argsort(rows.span[:, 0])
    while True:
        chosen = np.flatnonzero(rank[rows.anchor] <= np.repeat(share[stored].astype(np.float32), length[stored]))
        span = np.searchsorted(chosen, rows.span)
        kept = span[:, 1] - span[:, 0]
        few = (kept < 0.5 * share * length) & (share < 1)
        if not few.any():
            break
        share[few] = 1  # so few anchors that none, or hardly any, of them is among the chosen ones
    factor = (length / np.maximum(kept, 1)).astype(rows.weight.dtype)
    return SortedRows(
        source=rows.source,
        target=rows.target,
        span=span,
        first_pair=rows.first_pair,
        xy=rows.xy[chosen],
        anchor=rows.anchor[chosen],
        depth_ratio=rows.depth_ratio[chosen],
        goal=rows.goal[chosen],
        weight=rows.weight[chosen] * np.repeat(factor[stored], kept[stored]),
    )
