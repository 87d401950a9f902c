"""Alignment of small windows of two photographs by affine least squares, many at a time.

A template is a square of pixels around a point of the reference photograph; d is the place of one of its pixels
relative to the point. The warp y = c + A d says where that pixel lies in the other photograph. Both windows are
reduced to zero mean and unit length, t(d) and i(y), so brightness and contrast of the photographs drop out, and their
product rho = t . i is the zero-mean normalised cross-correlation.

Gauss-Newton in the inverse compositional form (Baker and Matthews, "Lucas-Kanade 20 years on", IJCV 2004): what is
linearised is the template, once, so that Jacobian and inverse Hessian do not change between the steps. With
J = dt/d(a, B) for a small affine motion d -> a + (I + B) d of the template, made orthogonal to t and to constants,

    (a, B) = (J^T J)^-1 J^T i / rho,      A <- A (I + B)^-1,      c <- c - A a   (with the new A),

where 1 / rho is the best gain between the windows. The variance of the residual i / rho - t, which has the squared
length 1 / rho^2 - 1, times (J^T J)^-1 is the covariance of the result (Gruen, "Adaptive least squares correlation",
1985): of its position here.

Templates are cut at whole pixels, so only the other photograph is interpolated (cubic convolution). Level l of a
pyramid is reduced by 2^l, and COLMAP pixels scale exactly: u_l = u / 2^l.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch.nn.functional import grid_sample

_NUM_PARAMETERS = 6
_FREE_GREYS = 2
"""Gain and offset: parameters of the grey values."""
_MAX_STEP_PX = 1.5
"""A longer step leaves the range in which the linearisation holds."""
_DAMPING = 0.1
"""Relative addition to the diagonal of the Hessian; changes the way, not the goal."""
_MIN_RHO = 0.2
"""The gain of windows that agree less is taken for this correlation's."""
_MIN_CONTRAST = 1.0
"""Standard deviation of a window in grey levels, below which it shows nothing but noise."""


@dataclass(frozen=True, kw_only=True)
class Templates:
    """Windows of a reference photograph around points."""

    pixels: UInt8[np.ndarray, "n side side"]
    """With a border of one pixel for the gradient."""
    offset: Float[np.ndarray, "n 2"]
    """Centre of the middle pixel minus the point, x and y."""
    inside: Bool[np.ndarray, "n"]
    """False where the window leaves the photograph; its pixels mean nothing."""


@dataclass(frozen=True, kw_only=True)
class Warps:
    """Affine maps y = c + A d from windows of a reference to another photograph, in pixels of both."""

    centre: Float[np.ndarray, "n 2"]
    affine: Float[np.ndarray, "n 2 2"]


@dataclass(frozen=True, kw_only=True)
class Aligned:
    """What the alignment found."""

    warps: Warps
    """The best seen; the start where nothing could be computed."""
    score: Float[np.ndarray, "n"]
    """Zero-mean normalised cross-correlation there; -1 where nothing could be computed."""
    sigma_px: Float[np.ndarray, "n"]
    """Standard deviation of the position along its worst direction, from residual and texture; infinite if unknown."""
    converged: Bool[np.ndarray, "n"]
    """Whether the last step was short enough."""


@dataclass(frozen=True, kw_only=True)
class StepLimits:
    """When to stop."""

    max_iterations: int
    step_px: float
    """A shorter step is the last."""


def grey_pyramid(grey: UInt8[np.ndarray, "h w"], num_levels: int) -> list[UInt8[np.ndarray, "level_h level_w"]]:
    """The picture at 1, 1/2, 1/4 ...; fewer levels where a side would fall below two pixels.

    The filter (1 3 3 1) / 8 is centred between two pixels; a last odd row or column is left out.
    """
    kernel = np.array([1, 3, 3, 1], np.float32) / 8
    levels = [grey]
    while len(levels) < num_levels and min(levels[-1].shape) >= 4:
        height, width = (side // 2 * 2 for side in levels[-1].shape)
        smooth = cv2.sepFilter2D(levels[-1], cv2.CV_8U, kernel, kernel, anchor=(1, 1), borderType=cv2.BORDER_REPLICATE)
        levels.append(np.ascontiguousarray(smooth[:height:2, :width:2]))
    return levels


def cut_templates(picture: UInt8[np.ndarray, "h w"], xy: Float[np.ndarray, "n 2"], radius: int) -> Templates:
    """Windows of 2 radius + 1 pixels (and the border) around points, in pixels of the picture."""
    height, width = picture.shape
    middle = np.floor(xy).astype(np.int64)
    reach = np.arange(-radius - 1, radius + 2)
    inside = ((middle > radius) & (middle < np.array([width, height]) - radius - 1)).all(axis=1)
    column = np.clip(middle[:, :1] + reach, 0, width - 1)
    row = np.clip(middle[:, 1:] + reach, 0, height - 1)
    return Templates(pixels=picture[row[:, :, None], column[:, None, :]], offset=middle + 0.5 - xy, inside=inside)


def align_patches(
    templates: Templates,
    picture: UInt8[np.ndarray, "h w"],
    start: Warps,
    limits: StepLimits,
    *,
    batch_size: int = 2048,
    device: torch.device | None = None,
) -> Aligned:
    """Find every template in a picture, starting from approximate warps; nothing fails, see `Aligned`."""
    device = device or torch.device("cpu")
    image = torch.as_tensor(picture, device=device).to(torch.float32)[None, None]
    parts = [
        _align_batch(templates, image, start, limits, np.arange(first, min(first + batch_size, len(start.centre))))
        for first in range(0, len(start.centre), batch_size)
    ]
    if not parts:
        none = np.zeros(0)
        return Aligned(warps=start, score=none, sigma_px=none, converged=np.zeros(0, bool))
    return Aligned(
        warps=Warps(
            centre=np.concatenate([part.warps.centre for part in parts]),
            affine=np.concatenate([part.warps.affine for part in parts]),
        ),
        score=np.concatenate([part.score for part in parts]),
        sigma_px=np.concatenate([part.sigma_px for part in parts]),
        converged=np.concatenate([part.converged for part in parts]),
    )


@dataclass(frozen=True, kw_only=True)
class _Linearised:
    """Normalised templates and what their alignment needs in every step."""

    place: Float[torch.Tensor, "n pixel 2"]
    """d of each pixel."""
    values: Float[torch.Tensor, "n pixel"]
    jacobian: Float[torch.Tensor, "n 6 pixel"]
    inverse_hessian: Float[torch.Tensor, "n 6 6"]
    usable: Bool[torch.Tensor, "n"]


def _align_batch(
    templates: Templates,
    image: Float[torch.Tensor, "1 1 h w"],
    start: Warps,
    limits: StepLimits,
    rows: Int[np.ndarray, "row"],
) -> Aligned:
    template = _linearise(templates, rows, image.device)
    centre = torch.as_tensor(start.centre[rows], dtype=torch.float32, device=image.device)
    affine = torch.as_tensor(start.affine[rows], dtype=torch.float32, device=image.device)
    best_centre, best_affine = centre.clone(), affine.clone()
    best = torch.full((len(rows),), -1.0, device=image.device)
    converged = torch.zeros(len(rows), dtype=torch.bool, device=image.device)
    active = torch.nonzero(template.usable)[:, 0]
    for iteration in range(limits.max_iterations + 1):
        window, inside = _window(image, template.place[active], centre[active], affine[active])
        active, window = active[inside], window[inside]
        rho = (window * template.values[active]).sum(1)
        better = rho > best[active]
        improved = active[better]
        best[improved], best_centre[improved], best_affine[improved] = rho[better], centre[improved], affine[improved]
        going = ~converged[active]
        active, window, rho = active[going], window[going], rho[going]
        if not len(active) or iteration == limits.max_iterations:
            break
        step = _step(template, active, window, rho)
        centre[active], affine[active], length = _compose(centre[active], affine[active], step)
        converged[active] = length < limits.step_px
    return Aligned(
        warps=Warps(centre=_numpy(best_centre), affine=_numpy(best_affine)),
        score=_numpy(best),
        sigma_px=_numpy(_position_sigma(template, best, best_affine)),
        converged=converged.cpu().numpy() & (_numpy(best) > -1),
    )


def _numpy(values: torch.Tensor) -> np.ndarray:
    return values.cpu().numpy().astype(np.float64)


def _linearise(templates: Templates, rows: Int[np.ndarray, "row"], device: torch.device) -> _Linearised:
    pixels = torch.as_tensor(templates.pixels[rows], device=device).to(torch.float32)
    offset = torch.as_tensor(templates.offset[rows], dtype=torch.float32, device=device)
    radius = (pixels.shape[1] - 3) // 2
    reach = torch.arange(-radius, radius + 1, dtype=torch.float32, device=device)
    grid = torch.stack([reach.repeat(len(reach)), reach.repeat_interleave(len(reach))], dim=1)
    place = grid + offset[:, None]
    gradient_x = (pixels[:, 1:-1, 2:] - pixels[:, 1:-1, :-2]).flatten(1) / 2
    gradient_y = (pixels[:, 2:, 1:-1] - pixels[:, :-2, 1:-1]).flatten(1) / 2
    values, length = _normalised(pixels[:, 1:-1, 1:-1].flatten(1))
    x, y = place[:, :, 0], place[:, :, 1]
    columns = [gradient_x, gradient_y, gradient_x * x, gradient_x * y, gradient_y * x, gradient_y * y]
    jacobian = torch.stack(columns, dim=1) / length[:, None, None]
    jacobian -= jacobian.mean(dim=2, keepdim=True)
    jacobian -= (jacobian @ values[:, :, None]) * values[:, None, :]
    hessian = jacobian @ jacobian.mT
    diagonal = torch.diagonal(hessian, dim1=1, dim2=2)
    damped = hessian + torch.diag_embed(_DAMPING * diagonal + 1e-12)
    inverse, failed = torch.linalg.inv_ex(damped)
    contrast = length / len(grid) ** 0.5
    usable = torch.as_tensor(templates.inside[rows], device=device) & (contrast >= _MIN_CONTRAST)
    usable &= (failed == 0) & torch.isfinite(inverse).all(dim=2).all(dim=1)
    return _Linearised(place=place, values=values, jacobian=jacobian, inverse_hessian=inverse, usable=usable)


def _normalised(
    window: Float[torch.Tensor, "n pixel"],
) -> tuple[Float[torch.Tensor, "n pixel"], Float[torch.Tensor, "n"]]:
    """Zero mean, unit length; and the length before."""
    window = window - window.mean(dim=1, keepdim=True)
    length = window.norm(dim=1).clamp_min(1e-3)
    return window / length[:, None], length


def _window(
    image: Float[torch.Tensor, "1 1 h w"],
    place: Float[torch.Tensor, "n pixel 2"],
    centre: Float[torch.Tensor, "n 2"],
    affine: Float[torch.Tensor, "n 2 2"],
) -> tuple[Float[torch.Tensor, "n pixel"], Bool[torch.Tensor, "n"]]:
    """Normalised grey values under the warped windows, and which windows lie in the picture."""
    scale = 2 / torch.tensor([image.shape[3], image.shape[2]], dtype=torch.float32, device=image.device)
    grid = torch.baddbmm((centre * scale - 1)[:, None], place, (affine * scale[:, None]).mT)
    inside = (grid.abs() <= 1).flatten(1).all(dim=1)
    greys = grid_sample(image, grid[None], mode="bicubic", padding_mode="border", align_corners=False)[0, 0]
    return _normalised(greys)[0], inside


def _step(
    template: _Linearised,
    rows: Int[torch.Tensor, "row"],
    window: Float[torch.Tensor, "row pixel"],
    rho: Float[torch.Tensor, "row"],
) -> Float[torch.Tensor, "row 6"]:
    gradient = template.jacobian[rows] @ window[:, :, None]
    step = (template.inverse_hessian[rows] @ gradient)[:, :, 0] / rho.clamp_min(_MIN_RHO)[:, None]
    return step / (step[:, :2].norm(dim=1, keepdim=True) / _MAX_STEP_PX).clamp_min(1)


def _compose(
    centre: Float[torch.Tensor, "n 2"], affine: Float[torch.Tensor, "n 2 2"], step: Float[torch.Tensor, "n 6"]
) -> tuple[Float[torch.Tensor, "n 2"], Float[torch.Tensor, "n 2 2"], Float[torch.Tensor, "n"]]:
    """Warps after the inverse of a step of the template, and how far the centres moved."""
    identity = torch.eye(2, device=step.device)
    turned = torch.linalg.inv_ex(identity + step[:, 2:].reshape(-1, 2, 2).clamp(-0.3, 0.3))[0]
    affine = affine @ turned
    moved = (affine @ step[:, :2, None])[:, :, 0]
    return centre - moved, affine, moved.norm(dim=1)


def _position_sigma(
    template: _Linearised, rho: Float[torch.Tensor, "n"], affine: Float[torch.Tensor, "n 2 2"]
) -> Float[torch.Tensor, "n"]:
    freedom = template.values.shape[1] - _NUM_PARAMETERS - _FREE_GREYS
    variance = (rho.clamp(_MIN_RHO, 1) ** -2 - 1) / freedom
    covariance = affine @ template.inverse_hessian[:, :2, :2] @ affine.mT * variance[:, None, None]
    half_trace = (covariance[:, 0, 0] + covariance[:, 1, 1]) / 2
    half_gap = torch.hypot((covariance[:, 0, 0] - covariance[:, 1, 1]) / 2, covariance[:, 0, 1])
    return torch.where(template.usable & (rho > -1), (half_trace + half_gap).clamp_min(0).sqrt(), torch.inf)
