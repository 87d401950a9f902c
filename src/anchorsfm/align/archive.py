"""An alignment result as plain arrays, so that it can be cached and passed on."""

from collections.abc import Mapping
from dataclasses import fields

import numpy as np

from anchorsfm.scene.alignment import AlignmentResult, SolverStatus, StageHistory

_STAGES = ("coarse", "fine")


def to_arrays(result: AlignmentResult) -> dict[str, np.ndarray]:
    """All arrays of a result; keys are field names and `<stage>.<field>`.

    Arrays are contiguous, as they are when read back from a file: sums over them then take the same order.
    """
    arrays: dict[str, np.ndarray] = {}
    for field in fields(result):
        value = getattr(result, field.name)
        if field.name not in _STAGES:
            arrays[field.name] = value
            continue
        for name in ("loss", "fallback_loss", "total"):
            arrays[f"{field.name}.{name}"] = getattr(value, name)
        arrays[f"{field.name}.method"] = np.frombuffer(value.method.encode(), np.uint8)
        arrays[f"{field.name}.status"] = np.array([list(SolverStatus).index(value.status)])
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def from_arrays(arrays: Mapping[str, np.ndarray]) -> AlignmentResult:
    """Inverse of `to_arrays`."""
    plain = {field.name: arrays[field.name] for field in fields(AlignmentResult) if field.name not in _STAGES}
    coarse, fine = (_stage(arrays, stage) for stage in _STAGES)
    return AlignmentResult(**plain, coarse=coarse, fine=fine)


def _stage(arrays: Mapping[str, np.ndarray], name: str) -> StageHistory:
    return StageHistory(
        loss=arrays[f"{name}.loss"],
        fallback_loss=arrays[f"{name}.fallback_loss"],
        total=arrays[f"{name}.total"],
        status=list(SolverStatus)[int(arrays[f"{name}.status"][0])],
        method=arrays[f"{name}.method"].tobytes().decode(),
    )
