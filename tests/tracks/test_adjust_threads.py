"""On how many threads a set is adjusted."""

import os

from anchorsfm.tracks.config import MAX_IMAGES_ON_ONE_THREAD, AdjustConfig


def test_small_sets_have_equal_bits_and_large_ones_all_cores():
    assert AdjustConfig().threads_for(MAX_IMAGES_ON_ONE_THREAD) == 1
    assert AdjustConfig().threads_for(MAX_IMAGES_ON_ONE_THREAD + 1) == os.cpu_count()
    assert AdjustConfig(num_threads=3).threads_for(2) == 3
