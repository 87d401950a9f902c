"""Adam (Kingma and Ba 2015) on the unknowns, with a falling learning rate.

State that is returned was evaluated: its loss is the reported one. Nothing non-finite is ever stepped on or returned.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from anchorsfm.align.model import Variables
from anchorsfm.align.problem import Losses
from anchorsfm.scene.alignment import SolverStatus, StageHistory

BETA1 = BETA2 = 0.9
EPSILON = 1e-8


@dataclass(frozen=True, kw_only=True)
class AdamSettings:
    """One stage of the optimisation."""

    num_iterations: int
    learning_rate: float
    schedule: Callable[[float, float], float]
    active: tuple[str, ...]
    """Names of the unknowns that are stepped."""
    tolerance: float
    patience: int
    keep_last: bool = False
    """Return the last evaluated state rather than the best."""
    repeats: dict[str, int] = field(default_factory=dict)
    """Unknowns stepped more than once per iteration."""


@dataclass(frozen=True, kw_only=True)
class SolverResult:
    """`state` is the evaluated state with the reported loss, `stepped` the one after the last step."""

    state: Variables
    stepped: Variables
    history: StageHistory


class _Moments:
    """Running moments of one parameter."""

    def __init__(self, parameter: Tensor) -> None:
        self.step = 0
        self.mean = torch.zeros_like(parameter)
        self.square = torch.zeros_like(parameter)

    def update(self, parameter: Tensor, gradient: Tensor, learning_rate: float) -> None:
        self.step += 1
        self.mean.lerp_(gradient, 1 - BETA1)
        self.square.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        denominator = (self.square.sqrt() / math.sqrt(1 - BETA2**self.step)).add_(EPSILON)
        parameter.addcdiv_(self.mean, denominator, value=-learning_rate / (1 - BETA1**self.step))


def minimise(
    objective: Callable[[Variables], Losses],
    start: Variables,
    settings: AdamSettings,
    mask: Callable[[str], Tensor | None],
    after_step: Callable[[Variables], None],
    evaluated: Callable[[float], None],
) -> SolverResult:
    """Minimise the objective over the active unknowns.

    mask: 0/1 factor for the gradient of an unknown, None where all of it is free.
    after_step: brings unknowns back into their domain, in place.
    evaluated: called in every iteration with the loss of its state.
    """
    current = start.detached()
    parameters = {name: getattr(current, name).requires_grad_() for name in settings.active}
    moments = {name: _Moments(p.detach()) for name, p in parameters.items()}
    masks = {name: mask(name) for name in settings.active}
    trace = _Trace(settings)
    kept = start.detached()
    status = SolverStatus.MAX_ITERATIONS if settings.num_iterations else SolverStatus.SKIPPED
    for iteration in range(settings.num_iterations):
        losses = objective(current)
        gradients = dict(zip(parameters, torch.autograd.grad(losses.total, list(parameters.values())), strict=True))
        if not _all_finite(losses.total, gradients):
            status = SolverStatus.NON_FINITE
            current = kept.detached()
            break
        if trace.add(losses) or settings.keep_last:
            kept = current.detached()
        evaluated(trace.rows[-1][2])
        if trace.has_converged():
            status = SolverStatus.CONVERGED if trace.has_improved else SolverStatus.STALLED
            break
        rate = settings.schedule(iteration / settings.num_iterations, settings.learning_rate)
        with torch.no_grad():
            for name, parameter in parameters.items():
                factor = masks[name]
                gradient = gradients[name] if factor is None else gradients[name] * factor
                for _ in range(settings.repeats.get(name, 1)):
                    moments[name].update(parameter, gradient, rate)
            after_step(current)
    return SolverResult(state=kept, stepped=current.detached(), history=trace.history(status))


def _all_finite(total: Tensor, gradients: dict[str, Tensor]) -> bool:
    # a sum is not finite if any term is not; overflow of the sum itself would be as bad
    return math.isfinite(total.item()) and all(math.isfinite(g.sum().item()) for g in gradients.values())


class _Trace:
    """Losses so far, and when they stopped falling."""

    def __init__(self, settings: AdamSettings) -> None:
        self.settings = settings
        self.rows: list[tuple[float, float, float]] = []
        self.best = math.inf

    def add(self, losses: Losses) -> bool:
        """Record an iteration; True if it is the best so far."""
        row = (losses.matching.item(), losses.fallback.item(), losses.total.item())
        self.rows.append(row)
        improved = row[2] < self.best
        self.best = min(self.best, row[2])
        return improved

    def has_converged(self) -> bool:
        """The loss moved neither down nor up. Adam first raises the loss of a good start, then lowers it for as long
        as the learning rate falls: that the best loss is old proves nothing."""
        tolerance, patience = self.settings.tolerance, self.settings.patience
        if tolerance <= 0 or len(self.rows) <= patience:
            return False
        recent = [total for _, _, total in self.rows[-1 - patience :]]
        return max(recent) - min(recent) <= tolerance * max(recent)

    @property
    def has_improved(self) -> bool:
        """Any state was better than the start."""
        return self.best < self.rows[0][2]

    def history(self, status: SolverStatus) -> StageHistory:
        loss, fallback, total = np.array(self.rows, np.float64).reshape(-1, 3).T.copy()
        return StageHistory(loss=loss, fallback_loss=fallback, total=total, status=status, method="Adam")


def skipped(start: Variables) -> SolverResult:
    """The result of a stage that is not run."""
    empty = np.zeros(0)
    history = StageHistory(loss=empty, fallback_loss=empty, total=empty, status=SolverStatus.SKIPPED, method="none")
    return SolverResult(state=replace(start), stepped=replace(start), history=history)
