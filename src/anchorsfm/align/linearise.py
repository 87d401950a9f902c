"""What the second-order solver sums over observations (docs/method.md, Second-order solver).

A directed observation looks from source image s (which has the depth) into target image t. With pixel p,
x = ((p - c_s) / f_s, 1), z = d (1 + (o - 1) f0 / f_s), R = R_t^T R_s and T = R_t^T (C_s - C_t),

    Y = z R x + T,     residual r = f_t (Y_0, Y_1) / Y_2 + c_t - q     or     r = n (Y - e^sigma_t x')

against a matched pixel q or a predicted point x'.

Both depend on 12 local unknowns of the directed pair: dY = a x Y + b of the relative pose (6), log f_s, c_s (2), and
log f_t, c_t (2), or sigma_t and sigma_s and nothing; and on the logarithm of the depth. With P = dr / dY, for which
P Y = 0 in the projection, the columns are

    a, b: P [-Y]x, P     log depth: P (Y - T)     log f_s: e P (Y - T) + z P R_2     c_s: -z / f_s P (R_0, R_1),

e = kappa - 1 - (o - 1) (f0 / f_s) / (1 + (o - 1) f0 / f_s). The size of the source acts in the projection as b = -T, so
it needs no column of its own.

The robust loss g(|r|) enters by iteratively reweighted least squares with weight w g'(s) / s, s = sqrt(|r|^2 + eps^2):
a quadratic that majorises the smoothed loss g(s). Points behind, or almost in, the plane of the target camera and
pixels far outside have constant loss and no weight.

A body-frame step (w, v) of a pose is R <- R exp([w]x), C <- C + R v. Then a = R w_s - w_t,
b = [T]x R w_s + R v_s - v_t.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from anchorsfm.align.losses import CLIP_SIDES, FIXED_CLIP_PX, offset_of
from anchorsfm.align.rows import SortedRows
from anchorsfm.align.state import Constants, State

NUM_LOCAL = 12
OF_PAIR = (0, 1, 2, 3, 4, 5, 9, 10, 11)
OF_SOURCE = (6, 7, 8)
"""Local unknowns that differ from pair to pair, and those of the intrinsics of the source."""
NUM_NODE = 10
"""Unknowns of a node: rotation (3), shift (3), log size; log focal, principal point (2)."""


# Columns of `Point.pairs`, what the observations of a directed pair share:
ROTATION, SHIFT = slice(0, 9), slice(9, 12)
"""R, row by row, and T."""
FOCAL, CENTRE = 12, slice(13, 15)
"""f_t and c_t, of terms whose residuals are pixels."""
UNIT, SIZE = 12, 13
"""n and e^sigma_t, of the others."""
SOURCE_INVERSE_FOCAL, SOURCE_CENTRE, FOCAL_RATIO = 15, slice(16, 18), 18
"""1 / f_s, c_s and f0 / f_s."""
LOWEST, HIGHEST = slice(19, 21), slice(21, 23)
"""Pixels (x, y) that projections are clipped to."""


@dataclass(frozen=True, kw_only=True)
class Term:
    """Observations of one kind and their loss."""

    rows: SortedRows
    projected: bool
    """Residuals are pixels; otherwise distances from predicted points."""
    gamma: float
    smoothing: float
    """eps of the smoothed loss, px or scene units."""
    unit: float
    """n: factor of distances from predicted points."""
    unscaled: bool
    """Predicted points do not follow the size of their image."""

    @property
    def robust(self) -> tuple[float, float, float]:
        """gamma, offset and eps^2."""
        return self.gamma, offset_of(self.gamma), self.smoothing**2


@dataclass(frozen=True, kw_only=True)
class Point:
    """Where sums are evaluated: what observations depend on, for all terms."""

    pairs: tuple[Float[np.ndarray, "_ 23"], ...]
    """Per term and directed pair: see `ROTATION` and the columns after it."""
    depth: Float[np.ndarray, "anchor"]
    kappa: Float[np.ndarray, "anchor"]
    robust: tuple[tuple[float, float, float], ...]
    """Per term: gamma, offset and eps^2 of the loss."""


@dataclass(frozen=True, kw_only=True)
class SourceBlock:
    """Normal equations of the directed pairs of one source image, in local unknowns."""

    hessian: Float[np.ndarray, "pair 12 12"]
    gradient: Float[np.ndarray, "pair 12"]
    coupling: Float[np.ndarray, "anchor column"] | None
    """Between log depths and local unknowns: those of each pair, then those of the source's intrinsics, summed over
    pairs; None where depths are rigid."""
    curvature: Float[np.ndarray, "anchor"]
    slope: Float[np.ndarray, "anchor"]
    """Second and first derivative by the log depths."""
    cost: tuple[float, ...]
    loss: tuple[float, ...]
    """Smoothed and plain loss of each term."""


@dataclass(frozen=True, kw_only=True)
class DepthSums:
    """Derivatives by all log depths."""

    curvature: Float[np.ndarray, "anchor"]
    slope: Float[np.ndarray, "anchor"]
    cost: tuple[float, ...]
    """Smoothed loss of each term."""


@runtime_checkable
class Sums(Protocol):
    """One way of computing the sums. Weights of the last linearisation are kept, for back-substitution."""

    name: str
    """As the history of the solver says it."""

    def source_block(self, view: int, point: Point, coupled: bool) -> SourceBlock: ...

    def depth_sums(self, point: Point, stored: bool) -> DepthSums:
        """stored: with the weights of the last linearisation."""
        ...


MakeSums = Callable[[tuple[Term, ...], Constants, np.dtype[Any]], Sums]


def evaluation_point(
    state: State, terms: tuple[Term, ...], constants: Constants, dtype: np.dtype[Any], fixed_clip: bool
) -> Point:
    """All that observations depend on at a state."""
    depth, kappa = constants.depths(state)
    return Point(
        pairs=tuple(_pair_constants(state, term, constants, fixed_clip).astype(dtype) for term in terms),
        depth=depth.astype(dtype),
        kappa=kappa.astype(dtype),
        robust=tuple(term.robust for term in terms),
    )


def relative_pose(
    state: State, source: Int[np.ndarray, "pair"], target: Int[np.ndarray, "pair"]
) -> tuple[Float[np.ndarray, "pair 3 3"], Float[np.ndarray, "pair 3"]]:
    """R and T of target_from_source."""
    inward = np.swapaxes(state.rotation[target], 1, 2)
    shift = np.einsum("pij,pj->pi", inward, state.centre[source] - state.centre[target])
    return inward @ state.rotation[source], shift


def _pair_constants(state: State, term: Term, constants: Constants, fixed_clip: bool) -> Float[np.ndarray, "pair 23"]:
    s, t = term.rows.source, term.rows.target
    rotation, shift = relative_pose(state, s, t)
    focal, pp = constants.focal(state), constants.principal_point_px(state)
    side = constants.size[t].max(axis=1, initial=0.0)
    low, high = (np.full(len(s), bound) for bound in FIXED_CLIP_PX) if fixed_clip else (k * side for k in CLIP_SIDES)
    constant = np.zeros((len(s), 23))
    constant[:, ROTATION], constant[:, SHIFT] = rotation.reshape(-1, 9), shift
    if term.projected:
        constant[:, FOCAL], constant[:, CENTRE] = focal[t], pp[t]
    else:
        constant[:, UNIT], constant[:, SIZE] = term.unit, 1.0 if term.unscaled else np.exp(state.log_size[t])
    constant[:, SOURCE_INVERSE_FOCAL], constant[:, SOURCE_CENTRE] = 1 / focal[s], pp[s]
    constant[:, FOCAL_RATIO] = constants.base_focal[s] / focal[s]
    constant[:, LOWEST], constant[:, HIGHEST] = low[:, None], high[:, None]
    return constant


def local_maps(
    state: State, term: Term, constants: Constants
) -> tuple[Float[np.ndarray, "pair 12 10"], Float[np.ndarray, "pair 12 10"]]:
    """Local unknowns of directed pairs from the unknowns of their source and of their target."""
    s, t = term.rows.source, term.rows.target
    rotation, shift = relative_pose(state, s, t)
    size = constants.size
    source, target = np.zeros((2, len(s), NUM_LOCAL, NUM_NODE))
    source[:, 0:3, 0:3] = rotation
    source[:, 3:6, 0:3] = _cross(shift) @ rotation
    source[:, 3:6, 3:6] = rotation
    source[:, 6, 7] = 1
    source[:, 7, 8], source[:, 8, 9] = size[s].T
    target[:, range(6), range(6)] = -1
    if term.projected:
        source[:, 3:6, 6] = -shift
        target[:, 9, 7] = 1
        target[:, 10, 8], target[:, 11, 9] = size[t].T
    else:
        source[:, 10, 6] = 1
        target[:, 9, 6] = 0 if term.unscaled else 1
    return source, target


def _cross(vector: Float[np.ndarray, "pair 3"]) -> Float[np.ndarray, "pair 3 3"]:
    x, y, z = vector.T
    zero = np.zeros_like(x)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)
