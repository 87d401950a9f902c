"""Least-squares points of given observations as a differentiable function of all that they depend on.

A point X minimises f(X) = 1/2 sum w |u(X)|^2, u = projection of X - observation on the plane z = 1 of each camera. The
minimum is found without a graph; the value returned is X - H^-1 f'(X) with the Hessian H of f held constant. At the
minimum f' = 0, so the value is X, and its derivative -H^-1 df'/dp with respect to anything (p) that f depends on is
that of the implicit function X(p) (implicit function theorem). This needs the full Hessian: Gauss-Newton's leaves out
the second derivatives of u, which matter as soon as residuals are not zero.

Intrinsics, distortion and pixels enter by `geometry.cameras.normalised_from_pixels`.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anchorsfm.geometry.small_systems import inverse_3x3, solve_3x3


def optimise_points(
    start: Float[Tensor, "point 3"],
    *,
    point: Int[Tensor, "obs"],
    view: Int[Tensor, "obs"],
    xy: Float[Tensor, "obs 2"],
    cam_from_world: Float[Tensor, "view 3 4"],
    weight: Float[Tensor, "obs"] | None = None,
    max_steps: int = 20,
) -> Float[Tensor, "point 3"]:
    """Least-squares points of given inliers as a differentiable function of observations, poses and weights.

    Args:
        start: points to start from, for example those of a robust triangulation; not differentiated.
        point, view: rows of `start` and `cam_from_world` of each observation, in any order.
        xy: undistorted coordinates on the plane z = 1; NaN rows are left out.
        cam_from_world: finite poses; matrices that are not rotations are taken as they are.
        weight: of the squared error on the plane z = 1, for example focal^2 to weigh pixels equally (default: 1).
        max_steps: steps at most; usually 4 reach rounding level.

    Returns:
        The points; NaN with zero gradient where the observations do not determine one. All in the precision of `start`.
    """
    terms = _Observations(
        point=point,
        pose=cam_from_world[view],
        xy=xy,
        weight=torch.ones_like(xy[:, 0]) if weight is None else weight,
    )
    with torch.no_grad():
        solution, inverse, regular = _minimum(start.detach(), terms, max_steps)
    gradient, _ = _normal_equations(solution, terms, second_order=False)
    gradient = torch.where(regular[:, None], gradient, 0.0)
    step = torch.einsum("ijn,nj->ni", inverse, gradient)
    return torch.where(regular[:, None], solution - step, torch.nan)


@dataclass(frozen=True, kw_only=True)
class _Observations:
    """Flat observations of `optimise_points`."""

    point: Int[Tensor, "obs"]
    pose: Float[Tensor, "obs 3 4"]
    xy: Float[Tensor, "obs 2"]
    weight: Float[Tensor, "obs"]


def _minimum(
    start: Float[Tensor, "point 3"], terms: _Observations, max_steps: int
) -> tuple[Float[Tensor, "point 3"], Float[Tensor, "3 3 point"], Bool[Tensor, "point"]]:
    """Points, inverse Hessians there, and where both exist (elsewhere both are 0): Gauss-Newton, then Newton steps."""
    solution = start.clone()
    small = torch.finfo(start.dtype).eps ** 0.6  # the steps converge quadratically: the next one is below rounding
    for number in range(max_steps):
        gradient, hessian = _normal_equations(solution, terms, second_order=number >= 3)
        step = solve_3x3(hessian.movedim(0, -1), gradient.T)[0].T
        solution = solution - step
        if not bool((step.norm(dim=1) > small * solution.norm(dim=1)).any()):
            break
    _, hessian = _normal_equations(solution, terms, second_order=True)
    inverse, regular = inverse_3x3(hessian.movedim(0, -1))
    regular &= torch.isfinite(solution).all(1)
    return torch.where(regular[:, None], solution, 0.0), torch.where(regular, inverse, 0.0), regular


def _normal_equations(
    points: Float[Tensor, "point 3"], terms: _Observations, *, second_order: bool
) -> tuple[Float[Tensor, "point 3"], Float[Tensor, "point 3 3"]]:
    """Gradient and Hessian of f, the latter with or without the second derivatives of the residuals.

    With J the Jacobian of u: u'' = -(J^T c + c^T J) / depth for either coordinate.
    """
    camera = (terms.pose[:, :, :3] @ points[terms.point][:, :, None])[:, :, 0] + terms.pose[:, :, 3]
    used = (camera[:, 2] > 0) & torch.isfinite(terms.xy).all(1)
    depth = torch.where(used, camera[:, 2], 1.0)
    weight = torch.where(used, terms.weight, 0.0)
    projected = camera[:, :2] / depth[:, None]
    axis = terms.pose[:, 2, :3]
    jacobian = (terms.pose[:, :2, :3] - projected[:, :, None] * axis[:, None, :]) / depth[:, None, None]
    residual = projected - torch.where(used[:, None], terms.xy, 0.0)
    pull = (jacobian * (weight[:, None] * residual)[:, :, None]).sum(1)
    gradient = torch.zeros_like(points).index_add(0, terms.point, pull)
    outer = jacobian.transpose(1, 2) @ (weight[:, None, None] * jacobian)
    if second_order:
        bend = pull[:, :, None] * axis[:, None, :] / depth[:, None, None]
        outer = outer - bend - bend.transpose(1, 2)
    hessian = points.new_zeros(len(points), 9).index_add(0, terms.point, outer.reshape(-1, 9))
    return gradient, hessian.view(-1, 3, 3)
