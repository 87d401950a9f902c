"""Sums over observations with compiled kernels on the processor."""

from typing import Any

import numpy as np

from anchorsfm.align import kernels_numba as kernels
from anchorsfm.align.linearise import NUM_LOCAL, OF_PAIR, OF_SOURCE, DepthSums, Point, SourceBlock, Term
from anchorsfm.align.state import Constants


class NumbaSums:
    """See `linearise.Sums`. The coupling of one source image is kept in a buffer that the next one overwrites."""

    name = "compiled kernels"

    def __init__(self, terms: tuple[Term, ...], constants: Constants, dtype: np.dtype[Any]) -> None:
        self._terms = terms
        self._start = constants.anchor_start
        self._dtype = dtype
        self._weights = [np.zeros(len(term.rows), dtype) for term in terms]
        self._buffer = np.zeros(0, dtype)

    def source_block(self, view: int, point: Point, coupled: bool) -> SourceBlock:
        first, last = (int(a) for a in self._start[view : view + 2])
        ranges = [tuple(int(k) for k in term.rows.first_pair[view : view + 2]) for term in self._terms]
        num_pairs = sum(end - begin for begin, end in ranges)
        hessian = np.zeros((num_pairs, NUM_LOCAL, NUM_LOCAL))
        gradient = np.zeros((num_pairs, NUM_LOCAL))
        coupling = self._zeroed(last - first if coupled else 0, num_pairs * len(OF_PAIR) + len(OF_SOURCE))
        curvature, slope = np.zeros((2, last - first))
        cost, loss, done = [], [], 0
        inputs = zip(self._terms, ranges, point.pairs, point.robust, self._weights, strict=True)
        for term, (begin, end), pair, robust, weight in inputs:
            here = slice(done, done + end - begin)
            rows = term.rows
            arguments = (
                begin, end, rows.span, pair, rows.xy, rows.goal, rows.anchor, rows.depth_ratio, rows.weight,
                point.depth, point.kappa, first, robust, coupled, hessian[here], gradient[here], coupling,
                done * len(OF_PAIR), curvature, slope, weight,
            )  # fmt: skip
            values = (kernels.linearise_matches if term.projected else kernels.linearise_targets)(*arguments)
            cost.append(values[0])
            loss.append(values[1])
            done += end - begin
        return SourceBlock(
            hessian=hessian,
            gradient=gradient,
            coupling=coupling if coupled else None,
            curvature=curvature,
            slope=slope,
            cost=tuple(cost),
            loss=tuple(loss),
        )

    def depth_sums(self, point: Point, stored: bool) -> DepthSums:
        curvature, slope = np.zeros((2, len(point.depth)))
        cost = []
        for term, pair, robust, weight in zip(self._terms, point.pairs, point.robust, self._weights, strict=True):
            kernel = kernels.depths_from_matches if term.projected else kernels.depths_from_targets
            rows = term.rows
            value = kernel(
                rows.span, pair, rows.xy, rows.goal, rows.anchor, rows.depth_ratio, rows.weight, point.depth,
                robust, stored, weight, curvature, slope,
            )  # fmt: skip
            cost.append(value)
        return DepthSums(curvature=curvature, slope=slope, cost=tuple(cost))

    def _zeroed(self, rows: int, columns: int) -> np.ndarray:
        count = rows * columns
        if len(self._buffer) < count:
            self._buffer = np.empty(count, self._dtype)
        block = self._buffer[:count].reshape(rows, columns)
        block[:] = 0
        return block
