"""Learning rate against the share `alpha` of iterations done."""

import math
from collections.abc import Callable

from anchorsfm.align.config import Schedule


def cosine(alpha: float, base: float, end: float = 0.0) -> float:
    """Half a cosine from base (alpha 0) to end (alpha 1)."""
    return end + (base - end) * (1 + math.cos(alpha * math.pi)) / 2


def linear(alpha: float, base: float, end: float = 0.0) -> float:
    """Straight line from base to end."""
    return (1 - alpha) * base + alpha * end


SCHEDULES: dict[Schedule, Callable[[float, float], float]] = {Schedule.COSINE: cosine, Schedule.LINEAR: linear}
