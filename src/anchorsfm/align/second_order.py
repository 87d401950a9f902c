"""Iteratively reweighted Levenberg-Marquardt for the fine stage (docs/method.md, Second-order solver).

Notation as in `linearise.py`.

One iteration: linearise at the current state and eliminate the depths (`normal_equations.py`), solve for the cameras
(`reduced_system.py`), then let the depths follow twice, each by one Newton step of its own (they do not interact):
first with the weights of the linearisation, which is the back-substitution of the elimination taken at the moved
cameras, so that nothing of it needs to be stored, then with fresh weights (embedded point iterations, Jeong et al.,
"Pushing the envelope of modern methods for bundle adjustment", PAMI 2012). A step counts if the cost falls.

The loss is steep at zero and flat far out, so stages of falling smoothing lead there: the first ones see a part of the
anchors and hold depths, then intrinsics, closer to where they start.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from anchorsfm.align.adam import SolverResult
from anchorsfm.align.config import AlignConfig
from anchorsfm.align.linearise import NUM_NODE, MakeSums, Point, Sums, Term, evaluation_point
from anchorsfm.align.model import ParameterLayout, Variables
from anchorsfm.align.normal_equations import (
    Freedoms,
    Nodes,
    ReducedSystem,
    SourceLayout,
    damped,
    fixed_gauge,
    nodes_of,
    reduced_system,
    source_layouts,
)
from anchorsfm.align.priors import Priors, make_priors
from anchorsfm.align.problem import Problem
from anchorsfm.align.reduced_system import Pattern, name_of, solve, sparse_pattern
from anchorsfm.align.rows import sorted_rows, thinned
from anchorsfm.align.state import Constants, State, constants_of, corrected, moved, parents_of, state_of, variables_of
from anchorsfm.scene.alignment import SolverStatus, StageHistory

FIRST_DAMPING, LEAST_DAMPING, DAMPING_AFTER_FAILURE = 1e-4, 1e-9, 1e-6
DAMPING_FALL, DAMPING_RISE = 5.0, 10.0
MAX_TRIES = 8
OVERSTEP = 1.6
"""Steps of the cameras are this much longer than the weights say. Reweighting replaces the loss by a quadratic above
it, whose minimum falls short; close to the minimum of the loss the cost falls for any factor below 2."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One level of smoothing."""

    smoothing_px: float
    depth_sigma: float | None
    """Of the prior on depths; None: depths stay where they are."""
    principal_point: bool
    """Principal points are free."""
    step: int
    """Every how many-th anchor of an image counts."""
    max_iterations: int
    opening: tuple[tuple[float, float], ...]
    """Newton steps of the depths by themselves before the first step of the cameras: smoothing (px) and `depth_sigma`
    of each."""
    tolerance: float
    """The stage ends when an iteration lowers the cost by less than this share."""


STAGES = (
    Stage(
        smoothing_px=2.0,
        depth_sigma=None,
        principal_point=False,
        step=8,
        max_iterations=4,
        opening=(),
        tolerance=0.02,
    ),
    Stage(
        smoothing_px=1.0,
        depth_sigma=0.05,
        principal_point=True,
        step=8,
        max_iterations=30,
        opening=(),
        tolerance=0.005,
    ),
    Stage(
        smoothing_px=1.0,
        depth_sigma=0.1,
        principal_point=True,
        step=1,
        max_iterations=30,
        opening=((4.0, 0.02), (2.0, 0.05)),
        tolerance=0.002,
    ),
    Stage(
        smoothing_px=0.15,
        depth_sigma=0.0,
        principal_point=True,
        step=1,
        max_iterations=30,
        opening=((0.15, 0.0),),
        tolerance=0.004,
    ),
    Stage(
        smoothing_px=0.05,
        depth_sigma=0.0,
        principal_point=True,
        step=1,
        max_iterations=300,
        opening=((0.05, 0.0),),
        tolerance=0.0006,
    ),
)
"""A `depth_sigma` of 0 stands for the configured prior; tighter ones only lead there. Depths that the first stages
leave out are led in by the opening of the third: from too far away a steep loss leads some of them astray."""
LEAST_ROWS = 200
"""Matches that thinning leaves a pair, about."""


@dataclass(frozen=True, kw_only=True)
class FineProblem:
    """What all stages share."""

    constants: Constants
    layout: ParameterLayout
    nodes: Nodes
    layouts: list[SourceLayout]
    pattern: Pattern | None
    terms: tuple[Term, ...]
    config: AlignConfig
    make_sums: MakeSums
    dtype: np.dtype
    selections: dict[int, tuple[tuple[Term, ...], Sums]] = field(default_factory=dict)

    def selection(self, step: int) -> tuple[tuple[Term, ...], Sums]:
        """Terms with the observations of about every step-th anchor, and sums over them."""
        if step not in self.selections:
            self.selections.clear()  # an earlier one is not needed any more
            terms = self.terms
            if step > 1:
                terms = tuple(replace(term, rows=thinned(term.rows, step, LEAST_ROWS)) for term in terms)
            self.selections[step] = terms, self.make_sums(terms, self.constants, self.dtype)
        return self.selections[step]


def minimise_fine(
    problem: Problem, start: Variables, config: AlignConfig, make_sums: MakeSums, evaluated: Callable[[float], None]
) -> SolverResult:
    """Minimise the reprojection loss, the fallback's share and the priors over everything that is free.

    evaluated: called with the loss of every state that is evaluated, smoothed as its stage is.
    """
    fine = _fine_problem(problem, config, make_sums, start)
    state = state_of(start, fine.constants, problem.layout)
    trace = _Trace(limit=config.niter2, evaluated=evaluated)
    for stage in STAGES:
        for smoothing_px, depth_sigma in stage.opening:
            eased = replace(stage, smoothing_px=smoothing_px, depth_sigma=depth_sigma)
            state = _stage_run(problem, fine, eased).with_depths(state, stored=False)[0]
        state = _stage_run(problem, fine, stage).minimise(state, trace)
        if trace.is_over:
            break
    final = _evaluate(fine, state, _priors(problem, config, STAGES[-1]))
    trace.add(final.loss, final.total, final.cost)
    if not final.says_something:
        trace.status = SolverStatus.STALLED
    result = variables_of(state, fine.constants, problem.layout, parents_of(problem.layout))
    sums = fine.selection(STAGES[-1].step)[1]
    method = f"second order, depths eliminated, {sums.name}, {name_of(fine.pattern)}"
    return SolverResult(state=result, stepped=result, history=trace.history(method))


def _fine_problem(problem: Problem, config: AlignConfig, make_sums: MakeSums, start: Variables) -> FineProblem:
    constants = constants_of(problem)
    dtype = np.dtype(np.float64 if config.double_precision else np.float32)
    terms = _terms(problem, config, dtype, float(np.exp(-start.log_size.double().numpy()).max()))
    nodes = nodes_of(constants.camera)
    layouts = source_layouts(terms, nodes)
    return FineProblem(
        constants=constants,
        layout=problem.layout,
        nodes=nodes,
        layouts=layouts,
        pattern=sparse_pattern([layout.nodes for layout in layouts], nodes.count),
        terms=terms,
        config=config,
        make_sums=make_sums,
        dtype=dtype,
    )


def _terms(problem: Problem, config: AlignConfig, dtype: np.dtype, unit: float) -> tuple[Term, ...]:
    """unit: 1 over the smallest size, in which distances count."""
    observations, num_views = problem.observations, problem.layout.num_views
    share, total = config.loss_dust3r_w, observations.total_weight(config.loss_dust3r_w)
    factor = share * total / max(observations.fallback_weight, 1e-30)
    matches = Term(
        rows=sorted_rows(observations.matches, num_views, dtype),
        projected=True,
        gamma=config.gamma2,
        smoothing=0.0,
        unit=1.0,
        unscaled=False,
    )
    if len(observations.fallback) == 0 or share == 0:
        return (matches,)
    targets = Term(
        rows=sorted_rows(observations.fallback, num_views, dtype, factor),
        projected=False,
        gamma=config.gamma_fallback,
        smoothing=0.0,
        unit=unit if problem.layout.normalise else 1.0,
        unscaled=config.reference.fallback_unscaled,
    )
    return matches, targets


def _priors(problem: Problem, config: AlignConfig, stage: Stage) -> Priors:
    sigma = config.depth_prior
    if stage.depth_sigma:
        sigma = min(sigma, stage.depth_sigma) if sigma > 0 else stage.depth_sigma
    total = problem.observations.total_weight(config.loss_dust3r_w)
    return make_priors(total, problem.observations.typical_weight, problem.layout, config, sigma)


def _freedoms(problem: Problem, fine: FineProblem, stage: Stage) -> Freedoms:
    """What moves in a stage."""
    nodes, freedom = fine.nodes, problem.fine_freedom
    free = np.zeros((nodes.count, NUM_NODE), bool)
    views = slice(0, nodes.num_views)
    free[views, :6] = freedom.view.numpy()[:, None]
    free[views, 6] = freedom.size.numpy()
    free[nodes.of_camera, 7] = freedom.camera.numpy()
    free[nodes.of_camera, 8:] = (freedom.camera.numpy() & fine.config.opt_pp & stage.principal_point)[:, None]
    movable = ~fine.constants.depth_fixed & fine.config.opt_depth & (stage.depth_sigma is not None)
    return Freedoms(node=fixed_gauge(free, problem.layout), depth=movable)


def _stage_run(problem: Problem, fine: FineProblem, stage: Stage) -> "_StageRun":
    return _StageRun(fine, stage, _priors(problem, fine.config, stage), _freedoms(problem, fine, stage))


class _StageRun:
    """One stage: sums over its selection of observations, and the steps."""

    def __init__(self, fine: FineProblem, stage: Stage, priors: Priors, freedoms: Freedoms) -> None:
        self.fine, self.stage, self.priors, self.freedoms = fine, stage, priors, freedoms
        terms, self.sums = fine.selection(stage.step)
        self.terms = tuple(_smoothed(term, stage) for term in terms)
        self.depths_follow = True
        """After each step the depths take another one by themselves, with fresh weights."""

    def point(self, state: State) -> Point:
        reference = self.fine.config.reference
        return evaluation_point(state, self.terms, self.fine.constants, self.fine.dtype, reference.fixed_pixel_clip)

    def prior(self, state: State) -> float:
        return self.priors.cost(state.principal_point, state.correction)

    def minimise(self, state: State, trace: "_Trace") -> State:
        """Step until the cost hardly falls. The states stepped from are evaluated; so is the last one, by the next
        stage."""
        damping = FIRST_DAMPING
        before_depths, accepted = state, np.inf
        for iteration in range(self.stage.max_iterations):
            if trace.is_over:
                return state
            system = self.linearise(state)
            cost = sum(system.cost) + self.prior(state)
            if not np.isfinite(cost):
                trace.status = SolverStatus.NON_FINITE
                return before_depths
            if cost > accepted:  # the depths' own step went too far
                self.depths_follow = False
                state, accepted = before_depths, np.inf
                continue
            trace.add(system.loss, self.priors.total, cost)
            trial = self.step(state, system, cost, damping)
            if trial is None:
                trace.status = SolverStatus.CONVERGED if iteration else SolverStatus.STALLED
                return state
            before_depths, accepted = trial.before_depths, trial.cost
            state, damping = trial.state, max(trial.damping / DAMPING_FALL, LEAST_DAMPING)
            if cost - trial.cost < self.stage.tolerance * cost:
                trace.status = SolverStatus.CONVERGED
                return state
        trace.status = SolverStatus.MAX_ITERATIONS
        return state

    def linearise(self, state: State) -> ReducedSystem:
        fine = self.fine
        return reduced_system(
            self.sums, self.point(state), state, self.terms, fine.constants, fine.layouts, fine.nodes, self.priors,
            self.freedoms, fine.pattern,
        )  # fmt: skip

    def step(self, state: State, system: ReducedSystem, cost: float, damping: float) -> "_Trial | None":
        """The first of ever shorter steps that lowers the cost."""
        fine = self.fine
        for attempt in range(MAX_TRIES):
            found = solve(system.matrix, system.gradient, self.freedoms.node, damping)
            if found is not None:
                nodes, value = fine.nodes, (1.0 if attempt else OVERSTEP) * found.value
                pose, intrinsics = nodes.pose_step(value), nodes.intrinsics_step(value)
                trial = moved(state, pose, intrinsics, fine.constants)
                if self.freedoms.depth.any():
                    trial = self.with_depths(trial, stored=True)[0]
                    after, trial_cost = self.with_depths(trial, stored=False)
                    after = after if self.depths_follow else trial
                else:
                    after = trial
                    trial_cost = sum(self.sums.depth_sums(self.point(trial), False).cost) + self.prior(trial)
                if trial_cost < cost:
                    return _Trial(state=after, before_depths=trial, cost=trial_cost, damping=damping)
            if attempt:
                damping = max(damping * DAMPING_RISE, DAMPING_AFTER_FAILURE)
        return None

    def with_depths(self, state: State, stored: bool) -> tuple[State, float]:
        """One Newton step of every depth, and the cost before it."""
        constants, weight = self.fine.constants, self.priors.depth_weight
        sums = self.sums.depth_sums(self.point(state), stored)
        curvature = sums.curvature + weight
        movable = constants.per_anchor(self.freedoms.depth.astype(float)) > 0
        step = np.where(movable, -(sums.slope + weight * state.correction) / damped(curvature), 0.0)
        return corrected(state, step), sum(sums.cost) + self.prior(state)


@dataclass(frozen=True, kw_only=True)
class _Trial:
    state: State
    before_depths: State
    cost: float
    """Of `before_depths`."""
    damping: float


def _smoothed(term: Term, stage: Stage) -> Term:
    return replace(term, smoothing=stage.smoothing_px if term.projected else 1e-3 * stage.smoothing_px)


@dataclass(frozen=True, kw_only=True)
class _Evaluation:
    """Plain losses of all observations at a state, total confidence, and plain cost."""

    loss: tuple[float, ...]
    total: float
    cost: float
    says_something: bool
    """False: every observation lies behind its target or far outside, where losses are constant."""


def _evaluate(fine: FineProblem, state: State, priors: Priors) -> _Evaluation:
    _, sums = fine.selection(1)
    point = evaluation_point(state, fine.terms, fine.constants, fine.dtype, fine.config.reference.fixed_pixel_clip)
    found = sums.depth_sums(point, False)  # terms of the problem are not smoothed
    return _Evaluation(
        loss=found.cost,
        total=priors.total,
        cost=sum(found.cost) + priors.cost(state.principal_point, state.correction),
        says_something=bool((found.curvature > 0).any()),
    )


class _Trace:
    """Losses so far."""

    def __init__(self, limit: int, evaluated: Callable[[float], None]) -> None:
        self._limit, self._evaluated = limit, evaluated
        self._rows: list[tuple[float, float, float]] = []
        self.status = SolverStatus.MAX_ITERATIONS

    def add(self, loss: tuple[float, ...], total: float, cost: float) -> None:
        """Record a state: summed losses, and cost, of which the total confidence makes means."""
        fallback = loss[1] / total if len(loss) > 1 else 0.0
        self._rows.append((loss[0] / total, fallback, cost / total))
        self._evaluated(cost / total)

    @property
    def is_over(self) -> bool:
        """No iteration is left, or the loss is not a number."""
        if self.status == SolverStatus.NON_FINITE:
            return True
        if len(self._rows) >= self._limit:
            self.status = SolverStatus.MAX_ITERATIONS
        return len(self._rows) >= self._limit

    def history(self, method: str) -> StageHistory:
        loss, fallback, total = np.array(self._rows, np.float64).reshape(-1, 3).T.copy()
        return StageHistory(loss=loss, fallback_loss=fallback, total=total, status=self.status, method=method)
