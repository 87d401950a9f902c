"""Which way of computing sums over observations is used."""

from importlib.util import find_spec
from typing import Any

import numpy as np

from anchorsfm.align.config import AlignConfig
from anchorsfm.align.linearise import MakeSums, Sums, Term
from anchorsfm.align.state import Constants


def sums_of(config: AlignConfig) -> MakeSums:
    """Compiled kernels where numba is installed and wanted, torch otherwise."""
    if config.device == "cpu" and config.compiled and find_spec("numba") is not None:
        from anchorsfm.align.sums_numba import NumbaSums

        return NumbaSums
    from anchorsfm.align.sums_torch import TorchSums

    def make(terms: tuple[Term, ...], constants: Constants, dtype: np.dtype[Any]) -> Sums:
        return TorchSums(terms, constants, dtype, config.device)

    return make
