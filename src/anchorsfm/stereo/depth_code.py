"""Depth in 16 bits: its logarithm in equal steps between the smallest and the largest of a picture."""

import numpy as np
from jaxtyping import Float, UInt16

_LAST = 65535


def encode_log_depth(
    log_depth: Float[np.ndarray, "h w"], low: float, high: float, *, first: int = 0
) -> UInt16[np.ndarray, "h w"]:
    """Codes `first` .. 65535 of `low` .. `high`; those below `first` are left for pixels without depth."""
    code = first + np.rint((log_depth - low) * ((_LAST - first) / max(high - low, 1e-9)))
    return np.clip(code, first, _LAST).astype(np.uint16)


def decode_log_depth(
    code: UInt16[np.ndarray, "h w"], log_range: Float[np.ndarray, "2"], *, first: int = 0
) -> Float[np.ndarray, "h w"]:
    """The logarithms of depth, float64; without meaning where the code is below `first`."""
    low, high = log_range
    return np.asarray(low + (code.astype(np.float64) - first) * ((high - low) / (_LAST - first)))
