"""Distinct rows of tables."""

import numpy as np
import pytest

from anchorsfm.geometry.rows import distinct_rows


@pytest.mark.parametrize("kind", [np.int64, np.float32, np.float64])
@pytest.mark.parametrize("num", [0, 1, 500])
def test_distinct_rows_are_those_of_numpy(num, kind):
    table = np.random.default_rng(0).integers(-3, 4, (num, 3)).astype(kind) / kind(1)
    table = table.astype(kind)
    rows, inverse = distinct_rows(table)
    expected, other = np.unique(table, axis=0, return_inverse=True)
    assert rows.dtype == kind and np.array_equal(rows, expected) and np.array_equal(inverse, other.reshape(-1))
    assert np.array_equal(rows[inverse], table)
