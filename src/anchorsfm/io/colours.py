"""Colours of photographs."""

import numpy as np
from jaxtyping import UInt8


def linear_light(rgb: UInt8[np.ndarray, "*batch 3"]) -> UInt8[np.ndarray, "*batch 3"]:
    """Linear intensities of sRGB colours (IEC 61966-2-1)."""
    share = rgb / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return np.round(255 * linear).astype(np.uint8)
