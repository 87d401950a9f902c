"""The guard between stages: numbers that are not finite go no further."""

import numpy as np

from anchorsfm.scene.errors import NonFiniteError


def require_finite(stage: str, what: str, *values: float | np.ndarray) -> None:
    """Raise NonFiniteError, naming stage and thing, unless all numbers are finite."""
    bad = sum(int((~np.isfinite(v)).sum()) for v in values)
    if bad:
        raise NonFiniteError(f"{stage}: {what} has {bad} numbers that are not finite; please report this")
