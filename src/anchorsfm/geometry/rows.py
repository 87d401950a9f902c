"""Distinct rows of tables of numbers."""

import numpy as np
from jaxtyping import Int, Num


def distinct_rows(
    table: Num[np.ndarray, "row column"],
) -> tuple[Num[np.ndarray, "distinct column"], Int[np.ndarray, "row"]]:
    """The distinct rows in lexicographic order, and which of them each row is.

    The same as `np.unique(table, axis=0, return_inverse=True)`, several times faster: that compares rows as records.
    """
    order = np.lexsort(table.T[::-1])
    ordered = table[order]
    first = np.ones(len(table), bool)
    first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    inverse = np.empty(len(table), np.int64)
    inverse[order] = np.cumsum(first) - 1
    return ordered[first], inverse
