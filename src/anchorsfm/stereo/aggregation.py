"""Semi-global aggregation of a cost volume along four paths, in integers.

Hirschmueller, "Stereo processing by semiglobal matching and mutual information", PAMI 2008. Along a path r the cost of
plane d at pixel p is

    L(p, d) = C(p, d) + min(L(p-r, d), L(p-r, d-1) + P1, L(p-r, d+1) + P1, min_k L(p-r, k) + P2) - min_k L(p-r, k)

and the aggregated cost the sum over paths. P2 is smaller across strong image gradients, where depth may jump.
int16 arithmetic on whole image rows keeps numpy close to memory speed.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Int16, UInt8

COST_SCALE = 256
"""Integer cost of a correlation of 0; a correlation of 1 costs 0."""
SMALL_STEP = 32
"""P1: a change of one plane."""
LARGE_STEP = 256
"""P2: a larger change, in areas without image gradient."""
GRADIENT_FREE = 4.0
"""Grey value differences up to this do not lower P2."""


@dataclass(frozen=True, kw_only=True)
class StepPenalties:
    """P2 for a step between a pixel and its left, or upper, neighbour."""

    horizontal: Int16[np.ndarray, "w h"]
    vertical: Int16[np.ndarray, "h w"]


def step_penalties(grey: UInt8[np.ndarray, "h w"]) -> StepPenalties:
    """P2 falls with the grey value difference d as 8/(d + 4), never below 1.5 P1."""
    values = grey.astype(np.float32)
    return StepPenalties(
        horizontal=_penalty(np.ascontiguousarray(np.diff(values, axis=1, prepend=values[:, :1]).T)),
        vertical=_penalty(np.diff(values, axis=0, prepend=values[:1])),
    )


def _penalty(difference: Float[np.ndarray, "a b"]) -> Int16[np.ndarray, "a b"]:
    lowered = LARGE_STEP * 8 / np.maximum(np.abs(difference) + GRADIENT_FREE, 8)
    return np.maximum(lowered, 1.5 * SMALL_STEP).astype(np.int16)


def aggregate(cost: Int16[np.ndarray, "h plane w"], penalties: StepPenalties) -> Int16[np.ndarray, "h plane w"]:
    """Sum of the four path costs minus three times the cost itself (which every path contains once)."""
    total = np.zeros_like(cost)
    _add_paths(cost, penalties.vertical, total)
    sideways = np.ascontiguousarray(cost.transpose(2, 1, 0))
    total_sideways = np.zeros_like(sideways)
    _add_paths(sideways, penalties.horizontal, total_sideways)
    del sideways  # volumes are large: 63 MB at 160 planes of 512x384
    total += total_sideways.transpose(2, 1, 0)
    for _ in range(3):
        total -= cost
    return total


def _add_paths(
    cost: Int16[np.ndarray, "step plane lane"],
    penalty: Int16[np.ndarray, "step lane"],
    total: Int16[np.ndarray, "step plane lane"],
) -> None:
    """Add the path costs of both directions along the first axis to `total`, in place."""
    num_steps, num_planes, num_lanes = cost.shape
    path = np.empty((num_planes, num_lanes), np.int16)
    relaxed = np.empty_like(path)
    neighbour = np.empty_like(path)
    lowest = np.empty(num_lanes, np.int16)
    for order, offset in ((range(num_steps), 0), (range(num_steps - 1, -1, -1), 1)):
        first = order[0]
        path[:] = cost[first]
        total[first] += path
        for step in order[1:]:
            np.minimum.reduce(path, axis=0, out=lowest)
            np.subtract(path, lowest, out=path)
            np.minimum(path, penalty[step + offset], out=relaxed)  # penalties lie between `step` and `step - 1`
            np.add(path, SMALL_STEP, out=neighbour)
            np.minimum(relaxed[1:], neighbour[:-1], out=relaxed[1:])
            np.minimum(relaxed[:-1], neighbour[1:], out=relaxed[:-1])
            np.add(cost[step], relaxed, out=path)
            total[step] += path


def winning_plane(
    total: Int16[np.ndarray, "h plane w"],
) -> tuple[Int[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
    """Plane of least cost, and its position refined by the parabola through the neighbouring planes."""
    num_planes = total.shape[1]
    winner = total.argmin(axis=1)
    inner = np.clip(winner, 1, num_planes - 2)
    before, at, after = (
        np.take_along_axis(total, (inner + k)[:, None], axis=1)[:, 0].astype(np.float32) for k in (-1, 0, 1)
    )
    curvature = before - 2 * at + after
    shift = np.where(curvature > 0, 0.5 * (before - after) / np.maximum(curvature, 1e-6), 0)
    return winner, (inner + np.clip(shift, -1, 1)).astype(np.float32)
