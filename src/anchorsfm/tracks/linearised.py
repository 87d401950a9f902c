"""The adjustment linearised at its optimum, for what follows from leaving observations out or from a richer lens.

Unknowns are, for every view, a rotation vector and a shift of the camera centre (R' = exp([w]x) R, c' = c + dc), then
the parameters of every camera, then coefficients of `further_distortion`; points are eliminated (Schur complement).

The adjustment minimises the Cauchy loss rho(s) = a^2 log(1 + s / a^2) of the squared residuals s = |r|^2. Its gradient
weighs residuals by w = 1 / (1 + s / a^2), its second derivative, for residuals in all directions alike, by w - w^2 s /
a^2 = w^2. With these, one Newton step from the optimum of all observations to that of some of them is right to first
order, and H^-1 (sum of g g^T over points) H^-1 is the covariance of the estimate whatever the distribution of the
residuals ("sandwich": Huber 1967, White 1980); the inverse of H times a variance is so only if they are all alike.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import coo_array, csc_array, csr_array, hstack

from anchorsfm.colmap.cameras import principal_point_px, project
from anchorsfm.geometry.transforms import camera_centres, cross_matrix
from anchorsfm.scene.edit import view_of_image
from anchorsfm.scene.reconstruction import Camera, Reconstruction

_STEP = 1e-6
"""Of numerical derivatives of projections: relative to depth and to the size of parameters."""
_DAMPING = 1e-12
"""Added to the unit diagonal of scaled normal equations: what nothing determines does not end in an error."""
POINT_DAMPING = 1e-10
"""The same of points, as a share of the trace of their normal equations."""
NUM_FURTHER = 8
"""Unknowns of `with_further_distortion` for every camera."""
_OBSERVATIONS_AT_A_TIME = 250_000
_DENSE = 0.2
"""Products of arrays of which more is not zero are faster as dense ones."""


@dataclass(frozen=True, kw_only=True)
class Linearised:
    """Residuals (projected minus observed) and derivatives of all observations that project."""

    residual: Float[np.ndarray, "obs 2"]
    weight: Float[np.ndarray, "obs"]
    """w of the module docstring."""
    row: Int[np.ndarray, "obs"]
    """Among the observations of the model."""
    view: Int[np.ndarray, "obs"]
    """Of each observation; with rigs, what has a pose of its own (`rig_unknowns`)."""
    camera: Int[np.ndarray, "obs"]
    point: Int[np.ndarray, "obs"]
    by_unknown: csr_array
    """Derivatives, (2 obs, unknown)."""
    by_point: Float[np.ndarray, "obs 2 3"]
    first_param: tuple[int, ...]
    """Column of the first parameter of every camera."""


@dataclass(frozen=True, kw_only=True)
class NormalEquations:
    """Over some unknowns, without the points."""

    hessian: Float[np.ndarray, "free free"]
    gradient: Float[np.ndarray, "free"]
    outer: Float[np.ndarray, "free free"] | None
    """Sum over points of the outer products of their parts of the gradient; None: not asked for."""


def linearise(model: Reconstruction, loss_scale_px: float) -> Linearised:
    """Derivatives at the model as it is."""
    tracks = model.tracks
    view = view_of_image(model)[tracks.obs_image]
    camera = model.camera_index[view]
    rotation = model.cam_from_world[view, :, :3]
    in_camera = np.einsum("nij,nj->ni", rotation, model.points[tracks.obs_point]) + model.cam_from_world[view, :, 3]
    longest = max(len(entry.params) for entry in model.cameras)
    residual = np.full((len(view), 2), np.nan)
    by_place, by_param = np.zeros((len(view), 2, 3)), np.zeros((len(view), 2, longest))
    for row, entry in enumerate(model.cameras):
        mine = np.flatnonzero(camera == row)
        residual[mine] = project(entry, in_camera[mine])[0] - tracks.obs_xy[mine]
        by_place[mine] = _by_place(entry, in_camera[mine])
        by_param[mine, :, : len(entry.params)] = _by_params(entry, in_camera[mine])
    finite = np.isfinite(residual).all(1) & np.isfinite(by_place).all((1, 2)) & np.isfinite(by_param).all((1, 2))
    rows = np.flatnonzero(finite)
    residual, view, camera, in_camera = residual[rows], view[rows], camera[rows], in_camera[rows]
    by_point = by_place[rows] @ rotation[rows]
    by_pose = np.concatenate([-by_place[rows] @ cross_matrix(in_camera), -by_point], axis=2)
    count = np.array([len(entry.params) for entry in model.cameras])
    first = 6 * len(model.image_index) + np.concatenate([[0], np.cumsum(count)])
    columns = np.concatenate(
        [
            6 * view[:, None] + np.arange(6),
            np.minimum(first[camera][:, None] + np.arange(longest), first[-1] - 1),  # those beyond the last are 0
        ],
        axis=1,
    )
    values = np.concatenate([by_pose, by_param[rows]], axis=2)
    return Linearised(
        residual=residual,
        weight=1 / (1 + (residual**2).sum(1) / loss_scale_px**2),
        row=rows,
        view=view,
        camera=camera,
        point=tracks.obs_point[rows],
        by_unknown=_sparse_rows(values, columns, int(first[-1])),
        by_point=by_point,
        first_param=tuple(first[:-1].tolist()),
    )


def _sparse_rows(values: Float[np.ndarray, "obs 2 k"], columns: Int[np.ndarray, "obs k"], width: int) -> csr_array:
    lines = np.broadcast_to(np.arange(2 * len(values)).reshape(-1, 2, 1), values.shape)
    across = np.broadcast_to(columns[:, None], values.shape)
    return csr_array(coo_array((values.ravel(), (lines.ravel(), across.ravel())), shape=(2 * len(values), width)))


def _by_place(camera: Camera, in_camera: Float[np.ndarray, "obs 3"]) -> Float[np.ndarray, "obs 2 3"]:
    step = _STEP * np.maximum(np.abs(in_camera[:, 2]), 1e-12)[:, None]
    ends = [[project(camera, in_camera + sign * step * axis)[0] for sign in (1, -1)] for axis in np.eye(3)]
    return np.stack([(ahead - back) / (2 * step) for ahead, back in ends], axis=2)


def _by_params(camera: Camera, in_camera: Float[np.ndarray, "obs 3"]) -> Float[np.ndarray, "obs 2 param"]:
    columns = []
    for k, value in enumerate(camera.params):
        step = _STEP * max(abs(value), 1.0) * np.eye(len(camera.params))[k]
        ends = [
            project(replace(camera, params=tuple((np.array(camera.params) + sign * step).tolist())), in_camera)[0]
            for sign in (1, -1)
        ]
        columns.append((ends[0] - ends[1]) / (2 * step[k]))
    return np.stack(columns, axis=2)


def with_further_distortion(
    lin: Linearised, model: Reconstruction, *, radial: float, other: float, centre: float
) -> Linearised:
    """Further unknowns: what the lenses might do beyond their models, in units of what is expected of it.

    For every camera three radial terms (powers 3, 5 and 7 of the distance from the principal point), two of decentring,
    unequal scales of both axes, and a shift of the principal point. Terms that a camera's own model has only add to
    what is undetermined already.

    Args:
        lin: of the model.
        model: with all its views.
        radial: standard deviation of a radial term, as a share of half the diagonal, at a corner.
        other: the same of the other terms.
        centre: standard deviation of the principal point, as a share of the long side.
    """
    # where the points project: at observed places the terms would correlate with the noise of the observations
    place = model.tracks.obs_xy[lin.row] + lin.residual
    camera = lin.camera
    values, columns = np.zeros((len(place), 2, NUM_FURTHER)), np.zeros((len(place), NUM_FURTHER), np.int64)
    for row, entry in enumerate(model.cameras):
        mine = np.flatnonzero(camera == row)
        half = float(np.hypot(entry.width, entry.height)) / 2
        x, y = ((place[mine] - principal_point_px(entry)) / half).T
        square, one, zero = x**2 + y**2, np.ones(len(mine)), np.zeros(len(mine))
        shift = centre * max(entry.width, entry.height)
        values[mine] = np.stack(
            [
                *(radial * half * np.stack([x * square**k, y * square**k], axis=1) for k in (1, 2, 3)),
                other * half * np.stack([square + 2 * x**2, 2 * x * y], axis=1),
                other * half * np.stack([2 * x * y, square + 2 * y**2], axis=1),
                other * half * np.stack([x, -y], axis=1),
                shift * np.stack([one, zero], axis=1),
                shift * np.stack([zero, one], axis=1),
            ],
            axis=2,
        )
        columns[mine] = NUM_FURTHER * row + np.arange(NUM_FURTHER)
    more = _sparse_rows(values, columns, NUM_FURTHER * len(model.cameras))
    return replace(lin, by_unknown=csr_array(hstack([lin.by_unknown, more])))


def normal_equations(
    lin: Linearised,
    unknowns: Int[np.ndarray, "free"],
    keep: Bool[np.ndarray, "obs"],
    point_damping: float = POINT_DAMPING,
    *,
    with_outer: bool = True,
) -> NormalEquations:
    """Of some unknowns, with the observations that are kept; points with fewer than two of them do not count."""
    length = np.bincount(lin.point[keep], minlength=int(lin.point.max(initial=0)) + 1)
    length[length < 2] = 0
    length[~_depends_on(lin, unknowns, len(length))] = 0
    shape = (len(unknowns), len(unknowns))
    hessian, gradient, outer = np.zeros(shape), np.zeros(len(unknowns)), np.zeros(shape)
    # the sums over some points at a time, whose sparse arrays are all that needs memory
    part = (np.cumsum(length) - length) // _OBSERVATIONS_AT_A_TIME
    for number in np.unique(part[length > 0]).tolist():
        rows = np.flatnonzero(keep & ((length > 0) & (part == number))[lin.point])
        of_points = _of_points(lin, unknowns, rows, point_damping, with_outer=with_outer)
        hessian += of_points.hessian
        gradient += of_points.gradient
        if of_points.outer is not None:
            outer += of_points.outer
    return NormalEquations(hessian=hessian, gradient=gradient, outer=outer if with_outer else None)


def _depends_on(lin: Linearised, unknowns: Int[np.ndarray, "free"], num_points: int) -> Bool[np.ndarray, "point"]:
    """Points with an observation that some of the unknowns change; others say nothing of them."""
    is_asked = np.zeros(lin.by_unknown.shape[1], bool)
    is_asked[unknowns] = True
    lines = np.repeat(np.arange(lin.by_unknown.shape[0]), np.diff(lin.by_unknown.indptr))
    points = lin.point[lines[is_asked[lin.by_unknown.indices]] // 2]
    return np.bincount(points, minlength=num_points) > 0


def _of_points(
    lin: Linearised,
    unknowns: Int[np.ndarray, "free"],
    rows: Int[np.ndarray, "row"],
    point_damping: float,
    *,
    with_outer: bool,
) -> NormalEquations:
    """What some points add, from all of their observations that count."""
    weight, by_point = lin.weight[rows], lin.by_point[rows]
    point = np.unique(lin.point[rows], return_inverse=True)[1]
    num_points = int(point.max(initial=-1)) + 1
    lines = (2 * rows[:, None] + np.arange(2)).ravel()
    by_unknown = csr_array(lin.by_unknown[lines][:, unknowns].multiply(np.repeat(weight, 2)[:, None]))
    block = np.zeros((num_points, 3, 3))
    np.add.at(block, point, np.einsum("n,nki,nkj->nij", weight**2, by_point, by_point))
    block += point_damping * np.trace(block, axis1=1, axis2=2)[:, None, None] * np.eye(3)
    root = np.linalg.inv(np.linalg.cholesky(block))  # block^-1 = root^T root
    scaled = weight[:, None, None] * np.einsum("nki,nji->nkj", by_point, root[point])
    of_points = _sparse_rows(scaled, 3 * point[:, None] + np.arange(3), 3 * num_points)
    cross = by_unknown.T @ of_points
    cross = cross.toarray() if cross.nnz > _DENSE * math.prod(cross.shape) else csr_array(cross)
    residual = lin.residual[rows].ravel()
    hessian = _dense(by_unknown.T @ by_unknown) - _dense(cross @ cross.T)
    # of a point after it has moved to where its own gradient is zero
    gradient = np.asarray(by_unknown.T @ residual - cross @ (of_points.T @ residual))
    if not with_outer:
        return NormalEquations(hessian=hessian, gradient=gradient, outer=None)
    own = csr_array((residual, (np.repeat(point, 2), np.arange(2 * len(rows)))), shape=(num_points, 2 * len(rows)))
    parts = own @ by_unknown - (own @ of_points) @ cross.T
    return NormalEquations(hessian=hessian, gradient=gradient, outer=_dense(parts.T @ parts))


def _dense(array: csr_array | csc_array | Float[np.ndarray, "m n"]) -> Float[np.ndarray, "m n"]:
    return array if isinstance(array, np.ndarray) else array.toarray()


def solve(
    hessian: Float[np.ndarray, "free free"], right: Float[np.ndarray, "free column"]
) -> Float[np.ndarray, "free column"]:
    """hessian^-1 right for a symmetric matrix that should be positive definite."""
    scale = 1 / np.sqrt(np.maximum(np.diag(hessian), 1e-300))
    scaled = hessian * scale[:, None] * scale
    damping = _DAMPING
    while True:
        try:
            factor = cho_factor(scaled + damping * np.eye(len(scaled)), lower=True)
            return np.asarray(scale[:, None] * cho_solve(factor, scale[:, None] * right))
        except np.linalg.LinAlgError:
            damping *= 10


def gauge_directions(cam_from_world: Float[np.ndarray, "view 3 4"]) -> Float[np.ndarray, "6*view 7"]:
    """What the seven parameters of a similarity do to (rotation vector, camera centre) of all views; weighed.

    Added to the normal equations as G G^T, they leave the cameras as a whole where they are: solutions are orthogonal
    to them (inner constraints; Triggs et al., "Bundle adjustment - a modern synthesis", 2000, section 9). Rotations
    (radians) weigh with the scene size, so that both parts are lengths.
    """
    centres = camera_centres(cam_from_world)
    offset = centres - centres.mean(axis=0)
    size = max(float(np.sqrt((offset**2).sum(1).mean())), 1e-12)
    generator = np.zeros((len(centres), 6, 7))
    generator[:, :3, :3] = -cam_from_world[:, :, :3] * size**2
    generator[:, 3:, :3] = -cross_matrix(offset)
    generator[:, 3:, 3:6] = np.eye(3)
    generator[:, 3:, 6] = offset
    return generator.reshape(-1, 7)
