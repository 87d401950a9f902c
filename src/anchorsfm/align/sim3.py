"""Second-order coarse stage: similarities of all views from all pairs of matched points at once.

View i maps its points into the world by Y_i + t_i with Y_i = s_i R_i x_i. The residual of a match is relative to the
depths,

    e = D / sqrt(s_i z_i s_j z_j),     D = Y_i + t_i - Y_j - t_j,

so it gains nothing from shrinking the scene, provided that the normaliser is differentiated too: with frozen
normalisers every size but the fixed one shrinks away over some tens of views. With dt = t_i - t_j and steps
R <- exp([w]x) R, t <- t + v, s <- s e^u,

    sqrt(..) de = [w_i]x Y_i + v_i + u_i (Y_i + Y_j - dt) / 2  -  [w_j]x Y_j - v_j - u_j (Y_i + Y_j + dt) / 2.

All columns are linear in (Y_i, Y_j, 1), hence in (x_i, x_j, 1): a pair's normal equations follow from 28 weighted
moments of its points, which is all that is summed over matches. The robust loss is Cauchy's,
tau^2 log(1 + |e|^2 / tau^2), by iteratively reweighted Levenberg-Marquardt. A regression target of a badly matching
pair is a matched point in the target's frame.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial.transform import Rotation

from anchorsfm.align.adam import SolverResult
from anchorsfm.align.config import AlignConfig
from anchorsfm.align.linearise import NUM_NODE
from anchorsfm.align.model import ParameterLayout, Variables
from anchorsfm.align.normal_equations import MatrixBlocks, fixed_gauge
from anchorsfm.align.observations import lay_out
from anchorsfm.align.problem import Problem, UnitPoints
from anchorsfm.align.reduced_system import Pattern, name_of, solve, sparse_pattern
from anchorsfm.align.state import State, constants_of, parents_of, state_of, variables_of
from anchorsfm.scene.alignment import SolverStatus, StageHistory

TOLERANCES = (0.3, 0.1, 0.05)
"""tau of successive rounds: what is further off, as a share of depth, counts little."""
MIN_DECREASE = 1e-3
ROWS_PER_PAIR = 256
MAX_TRIES = 8
NEAR = 1e-3
"""Depths, as a share of the median, nearer than which a point is uninformative."""


@dataclass(frozen=True, kw_only=True)
class PointPairs:
    """A selection of matched points, packed by pair."""

    first: Int[np.ndarray, "pair"]
    second: Int[np.ndarray, "pair"]
    points: Float[torch.Tensor, "pair 7 slot"]
    """Point in the first frame, in the second frame, and 1, for size 1."""
    weight: Float[torch.Tensor, "pair slot"]
    scale: Float[torch.Tensor, "pair slot"]
    """1 / (z_i z_j)."""
    matched: Bool[np.ndarray, "pair"]
    """Pairs of matches; the others are regression targets."""

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """world_from_cam of every view with a scale."""

    rotation: Float[np.ndarray, "view 3 3"]
    shift: Float[np.ndarray, "view 3"]
    size: Float[np.ndarray, "view"]


def minimise_coarse(
    problem: Problem, start: Variables, config: AlignConfig, evaluated: Callable[[float], None]
) -> SolverResult:
    """Poses and sizes that bring matched points together; intrinsics and depths stay.

    evaluated: called in every iteration with the loss of its state.
    """
    constants = constants_of(problem)
    state = state_of(start, constants, problem.layout)
    pairs = _point_pairs(problem, start, config)
    free, pattern = _free(problem), _pattern(pairs, problem.layout.num_views)
    similarity = Similarity(rotation=state.rotation, shift=state.centre, size=np.exp(state.log_size))
    costs: list[tuple[float, float]] = []
    status = SolverStatus.MAX_ITERATIONS
    for tolerance in TOLERANCES:
        damping, moments = 1e-6, _moments(pairs, similarity, tolerance)
        while len(costs) < config.niter1:
            costs.append((moments.matched_cost, moments.fallback_cost))
            evaluated(moments.cost)
            if not np.isfinite(moments.cost):
                return _result(start, costs[:-1], SolverStatus.NON_FINITE, pattern)
            found = _step(pairs, similarity, moments, tolerance, free, pattern, damping)
            if found is None:
                status = SolverStatus.CONVERGED if len(costs) > 1 else SolverStatus.STALLED
                break
            decrease = 1 - found.moments.cost / max(moments.cost, 1e-300)
            similarity, moments, damping = found.similarity, found.moments, max(found.damping / 10, 1e-9)
            if decrease < MIN_DECREASE:
                status = SolverStatus.CONVERGED
                break
        else:
            status = SolverStatus.MAX_ITERATIONS
            break
    costs.append((moments.matched_cost, moments.fallback_cost))
    return _result(_with(start, state, similarity, problem), costs, status, pattern)


def _with(start: Variables, state: State, similarity: Similarity, problem: Problem) -> Variables:
    """Variables with other poses and sizes."""
    layout = problem.layout
    final = replace(state, rotation=similarity.rotation, centre=similarity.shift, log_size=np.log(similarity.size))
    result = variables_of(final, constants_of(problem), layout, parents_of(layout))
    return replace(start, quaternion=result.quaternion, translation=result.translation, log_size=result.log_size)


def _result(
    state: Variables, costs: list[tuple[float, float]], status: SolverStatus, pattern: Pattern | None
) -> SolverResult:
    method = f"second order, similarities of pairs, {name_of(pattern)}"
    matched, fallback = np.array(costs, np.float64).reshape(-1, 2).T.copy()
    history = StageHistory(loss=matched, fallback_loss=fallback, total=matched + fallback, status=status, method=method)
    return SolverResult(state=state, stepped=state, history=history)


def _free(problem: Problem) -> Bool[np.ndarray, "view 10"]:
    layout: ParameterLayout = problem.layout
    free = np.zeros((layout.num_views, NUM_NODE), bool)
    free[:, :6] = problem.coarse_freedom.view.numpy()[:, None]
    free[:, 6] = problem.coarse_freedom.size.numpy()
    return fixed_gauge(free, layout)


def _pattern(pairs: PointPairs, num_views: int) -> Pattern | None:
    return sparse_pattern(np.stack([pairs.first, pairs.second], axis=1), num_views)


def _point_pairs(problem: Problem, start: Variables, config: AlignConfig) -> PointPairs:
    """Matches of well matching pairs, and targets of the others, weighed as in the loss."""
    observations, layout = problem.observations, problem.layout
    matches, fallback = observations.matches, observations.fallback
    count = len(matches) // 2
    total = observations.total_weight(config.loss_dust3r_w)
    chosen = _selection(matches.pair[:count])
    points = UnitPoints(start, layout)
    first, second = points(matches, chosen), points(matches, chosen + count)
    parts = [(matches.source, matches.target, matches.pair[chosen], first, second, matches.weight[chosen], True)]
    if len(fallback) and config.loss_dust3r_w > 0:
        rows = _selection(fallback.pair)
        factor = config.loss_dust3r_w * total / max(observations.fallback_weight, 1e-30) / 2
        parts.append(
            (
                fallback.source,
                fallback.target,
                fallback.pair[rows],
                points(fallback, rows),
                fallback.goal[rows],
                fallback.weight[rows] * factor,
                False,
            )
        )
    return _packed([_part(*part) for part in parts])


def _selection(pair: Int[np.ndarray, "row"]) -> Int[np.ndarray, "some"]:
    """Rows spread evenly over each pair, at most `ROWS_PER_PAIR`."""
    _, begin, length = np.unique(pair, return_index=True, return_counts=True)
    if len(length) == 0:
        return np.zeros(0, np.int64)
    kept = np.minimum(length, ROWS_PER_PAIR)
    within = np.arange(int(kept.sum())) - np.repeat(np.cumsum(kept) - kept, kept)
    return np.repeat(begin, kept) + within * np.repeat(length, kept) // np.repeat(kept, kept)


def _part(
    source: Int[np.ndarray, "all"],
    target: Int[np.ndarray, "all"],
    pair: Int[np.ndarray, "row"],
    first: Float[np.ndarray, "row 3"],
    second: Float[np.ndarray, "row 3"],
    weight: Float[np.ndarray, "row"],
    matched: bool,
) -> PointPairs:
    layout = lay_out(pair, ROWS_PER_PAIR)
    depth = np.maximum(first[:, 2], 1e-30) * np.maximum(second[:, 2], 1e-30)
    sound = (first[:, 2] > NEAR * _median(first[:, 2])) & (second[:, 2] > NEAR * _median(second[:, 2]))
    points = np.column_stack([first, second, np.ones(len(first))])
    slots = [v[layout.row] for v in (points, np.where(sound, weight, 0.0), np.where(sound, 1 / depth, 0.0))]
    return PointPairs(
        first=source[layout.pair],
        second=target[layout.pair],
        points=torch.from_numpy(slots[0]).movedim(1, -1).contiguous(),
        weight=torch.from_numpy(slots[1] * layout.used),
        scale=torch.from_numpy(slots[2]),
        matched=np.full(len(layout.pair), matched),
    )


def _median(values: Float[np.ndarray, "row"]) -> float:
    return float(np.median(values)) if len(values) else 1.0


def _packed(parts: list[PointPairs]) -> PointPairs:
    """Parts joined, their slots padded to the same number."""
    slot = max(part.weight.shape[1] for part in parts)

    def padded(values: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(values, (0, slot - values.shape[-1]))

    return PointPairs(
        first=np.concatenate([part.first for part in parts]),
        second=np.concatenate([part.second for part in parts]),
        points=torch.cat([padded(part.points) for part in parts]),
        weight=torch.cat([padded(part.weight) for part in parts]),
        scale=torch.cat([padded(part.scale) for part in parts]),
        matched=np.concatenate([part.matched for part in parts]),
    )


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Reweighted second moments of (x_i, x_j, 1), each over s_i z_i s_j z_j, and the robust cost."""

    value: Float[np.ndarray, "pair 7 7"]
    matched_cost: float
    fallback_cost: float
    """Robust losses over tau^2, of matches and of targets, as means over all of their weight."""

    @property
    def cost(self) -> float:
        return self.matched_cost + self.fallback_cost


def _moments(pairs: PointPairs, similarity: Similarity, tolerance: float) -> Moments:
    matrix = torch.from_numpy(_to_difference(pairs, similarity))
    size = torch.from_numpy(1 / (similarity.size[pairs.first] * similarity.size[pairs.second]))
    inverse = pairs.scale * size[:, None]
    square = torch.bmm(matrix, pairs.points).square().sum(1) * (inverse / tolerance**2)
    weight = pairs.weight * inverse / (1 + square)
    value = torch.bmm(pairs.points * weight[:, None], pairs.points.transpose(1, 2))
    total = float(pairs.weight.sum())
    cost = (pairs.weight * torch.log1p(square)).sum(1).numpy() / max(total, 1e-300)
    return Moments(
        value=value.numpy() / max(total, 1e-300) / tolerance**2,
        matched_cost=float(cost[pairs.matched].sum()),
        fallback_cost=float(cost[~pairs.matched].sum()),
    )


def _to_difference(pairs: PointPairs, similarity: Similarity) -> Float[np.ndarray, "pair 3 7"]:
    """D from (x_i, x_j, 1)."""
    i, j = pairs.first, pairs.second
    scaled = similarity.size[:, None, None] * similarity.rotation
    shift = similarity.shift[i] - similarity.shift[j]
    return np.concatenate([scaled[i], -scaled[j], shift[:, :, None]], axis=2)


@dataclass(frozen=True, kw_only=True)
class _Found:
    similarity: Similarity
    moments: Moments
    damping: float


def _step(
    pairs: PointPairs,
    similarity: Similarity,
    moments: Moments,
    tolerance: float,
    free: Bool[np.ndarray, "view 10"],
    pattern: Pattern | None,
    damping: float,
) -> _Found | None:
    """The first of ever shorter steps that lowers the cost."""
    matrix, gradient = normal_equations(pairs, similarity, moments, pattern)
    for _ in range(MAX_TRIES):
        step = solve(matrix, gradient, free, damping)
        if step is not None:
            trial = moved(similarity, step.value)
            after = _moments(pairs, trial, tolerance)
            if after.cost < moments.cost:
                return _Found(similarity=trial, moments=after, damping=damping)
        damping = max(damping * 30, 1e-5)
    return None


def moved(similarity: Similarity, step: Float[np.ndarray, "view 10"]) -> Similarity:
    """After a step in the world frame."""
    turn = Rotation.from_rotvec(step[:, :3]).as_matrix()
    return Similarity(
        rotation=turn @ similarity.rotation,
        shift=similarity.shift + step[:, 3:6],
        size=similarity.size * np.exp(np.clip(step[:, 6], -0.7, 0.7)),
    )


def normal_equations(
    pairs: PointPairs, similarity: Similarity, moments: Moments, pattern: Pattern | None
) -> tuple[MatrixBlocks, Float[np.ndarray, "view 10"]]:
    """Gauss-Newton matrix and gradient of half the squared residuals, from the moments."""
    i, j = pairs.first, pairs.second
    count, num_views = len(pairs), len(similarity.size)
    scaled = similarity.size[:, None, None] * similarity.rotation
    world = np.zeros((count, 7, 7))  # (Y_i, Y_j, 1) from (x_i, x_j, 1)
    world[:, :3, :3], world[:, 3:6, 3:6], world[:, 6, 6] = scaled[i], scaled[j], 1
    moment = world @ moments.value @ np.swapaxes(world, 1, 2)
    columns = _columns(similarity.shift[i] - similarity.shift[j]).reshape(count, 15 * 3, 7)
    weighted = (columns @ moment).reshape(count, 15, 21)
    product = weighted @ np.swapaxes(columns.reshape(count, 15, 21), 1, 2)
    matrix, gradient = MatrixBlocks(num_views, pattern), np.zeros((num_views, NUM_NODE))
    for a, rows in ((i, slice(0, 7)), (j, slice(7, 14))):
        np.add.at(gradient[:, :7], a, product[:, rows, 14])
        for b, others in ((i, slice(0, 7)), (j, slice(7, 14))):
            padded = np.zeros((count, NUM_NODE, NUM_NODE))
            padded[:, :7, :7] = product[:, rows, others]
            matrix.add_each(a, b, padded)
    return matrix, gradient


def _columns(shift: Float[np.ndarray, "pair 3"]) -> Float[np.ndarray, "pair 15 3 7"]:
    """Derivatives of D by the 14 unknowns of a pair, and D itself, as matrices that act on (Y_i, Y_j, 1)."""
    cross = np.zeros((3, 3, 3))  # cross[a] y = e_a x y
    for a, b, c in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        cross[a, c, b], cross[a, b, c] = 1, -1
    unit = np.eye(3)
    columns = np.zeros((len(shift), 15, 3, 7))
    columns[:, 0:3, :, 0:3], columns[:, 7:10, :, 3:6] = cross, -cross
    columns[:, 3:6, :, 6], columns[:, 10:13, :, 6] = unit, -unit
    columns[:, 6, :, 0:3] = columns[:, 6, :, 3:6] = 0.5 * unit
    columns[:, 13, :, 0:3] = columns[:, 13, :, 3:6] = -0.5 * unit
    columns[:, 6, :, 6] = columns[:, 13, :, 6] = -0.5 * shift
    columns[:, 14, :, 0:3], columns[:, 14, :, 3:6], columns[:, 14, :, 6] = unit, -unit, shift
    return columns
