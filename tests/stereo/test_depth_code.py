"""Depth in 16 bits."""

import numpy as np
import pytest

from anchorsfm.stereo.depth_code import decode_log_depth, encode_log_depth


@pytest.mark.parametrize("first", [0, 1])
def test_codes_span_the_range_in_equal_steps(first):
    log_depth = np.linspace(-1.0, 3.0, 1000).reshape(20, 50)
    code = encode_log_depth(log_depth, -1.0, 3.0, first=first)
    assert code.min() == first and code.max() == 65535
    step = 4 / (65535 - first)
    back = decode_log_depth(code, np.array([-1.0, 3.0]), first=first)
    assert np.abs(back - log_depth).max() <= 0.501 * step
    assert np.array_equal(encode_log_depth(back, -1.0, 3.0, first=first), code)


def test_equal_depths_have_one_code():
    code = encode_log_depth(np.full((2, 3), 0.7), 0.7, 0.7)
    assert (decode_log_depth(code, np.array([0.7, 0.7])) == 0.7).all()
