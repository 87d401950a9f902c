"""The settings of a run are light to import: help texts and wrong values do not wait for libraries."""

import subprocess
import sys

HEAVY = {"torch", "scipy", "cv2", "pycolmap", "PIL", "numba", "viser"}


def test_settings_load_no_library_that_computes() -> None:
    program = "import sys, anchorsfm.run.config; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not HEAVY & set(loaded)
