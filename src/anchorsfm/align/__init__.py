"""Sparse global alignment: cameras and anchor depths of all images at once.

`problem.py` states what is unknown and what is minimised, `model.py` and `losses.py` are the forward pass, `setup.py`
and `initialise.py` say where the unknowns start, `sim3.py` and `second_order.py` are the two stages of the default
solver, `adam.py` is another, `run.py` puts the stages together for one connected component and `scene.py` for a whole
scene (docs/method.md, Unknowns, Initialisation, Losses, Result of the alignment).
"""

from anchorsfm.align.archive import from_arrays, to_arrays
from anchorsfm.align.config import AlignConfig, AnchorDepthMode, InitialPoses, ReferenceCompat, Solver
from anchorsfm.align.run import align
from anchorsfm.align.scene import align_component, align_scene, sparse_global_alignment

__all__ = [
    "AlignConfig",
    "AnchorDepthMode",
    "InitialPoses",
    "ReferenceCompat",
    "Solver",
    "align",
    "align_component",
    "align_scene",
    "from_arrays",
    "sparse_global_alignment",
    "to_arrays",
]
