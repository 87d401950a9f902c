"""What the clock of a run's stages measures, and what it does between them."""

import ctypes
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from anchorsfm.io.clock import StageClock
from anchorsfm.io.memory import give_back_freed


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="memory of the GNU C library"
)
def test_memory_that_a_stage_freed_is_the_systems_again() -> None:
    give_back_freed()  # what other tests have left
    clock, before = StageClock(), resident_mib()
    with clock.stage("pieces"):
        pieces = [np.ones(8192) for _ in range(4096)]  # 64 KiB each: none is a region of its own
        kept = pieces[::64]
        full = resident_mib()
        del pieces
    (timing,) = clock.timings
    assert full - before > 200 and timing.peak_memory_mib >= full - 1
    assert resident_mib() - before < 60 and len(kept) == 64
