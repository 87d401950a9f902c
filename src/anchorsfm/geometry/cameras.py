"""COLMAP's camera models as differentiable functions of points, pixels and parameters.

A point p = (x, y, z) in front of a camera becomes a pixel in three steps:

    w = (x, y) / z                        perspective models: the plane z = 1
    w = (x, y) theta / |(x, y)|           fisheye models: the equidistant plane, theta the angle between p and the axis
    y = D(w) = g(r2) w + t(w) + s r2      distortion, r2 = |w|^2
    pixel = focal * y + principal point

with the radial factor g(r2) = (1 + n_1 r2 + n_2 r2^2 + ...) / (1 + d_1 r2 + d_2 r2^2 + ...), the tangential term
t(w) = (2 p1 x y + p2 (r2 + 2 x^2), 2 p2 x y + p1 (r2 + 2 y^2)) and the thin prism term s r2. A model says which of the
coefficients it has; the others are absent. Models and order of parameters are those of COLMAP's documentation ("Camera
Models"); Brown, "Close-range camera calibration", 1971; Kannala and Brandt, PAMI 2006; Weng et al., PAMI 1992.

D is inverted by Newton's method without a graph. One more step w - J^-1 (D(w; params) - y) from its solution, with J
held constant, does not change the value and has the derivatives of the implicit function w(y, params): dw/dy = J^-1 and
dw/dparams = -J^-1 dD/dparams (implicit function theorem). So gradients are exact however many steps the search took.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

PARAM_NAMES: dict[str, tuple[str, ...]] = {
    "SIMPLE_PINHOLE": ("f", "cx", "cy"),
    "PINHOLE": ("fx", "fy", "cx", "cy"),
    "SIMPLE_RADIAL": ("f", "cx", "cy", "n1"),
    "RADIAL": ("f", "cx", "cy", "n1", "n2"),
    "OPENCV": ("fx", "fy", "cx", "cy", "n1", "n2", "p1", "p2"),
    "FULL_OPENCV": ("fx", "fy", "cx", "cy", "n1", "n2", "p1", "p2", "n3", "d1", "d2", "d3"),
    "SIMPLE_RADIAL_FISHEYE": ("f", "cx", "cy", "n1"),
    "RADIAL_FISHEYE": ("f", "cx", "cy", "n1", "n2"),
    "OPENCV_FISHEYE": ("fx", "fy", "cx", "cy", "n1", "n2", "n3", "n4"),
    "THIN_PRISM_FISHEYE": ("fx", "fy", "cx", "cy", "n1", "n2", "p1", "p2", "n3", "n4", "s1", "s2"),
}
"""What each parameter of a model is, in COLMAP's order, in the names of the module's docstring."""

_MAX_STEPS = 60
_SMALL_ANGLE_SQUARED = 1e-8


def is_fisheye(model: str) -> bool:
    """Whether the model distorts the equidistant plane instead of the plane z = 1."""
    return model.endswith("_FISHEYE")


def project(
    model: str, params: Float[Tensor, "*cameras params"], points_in_cam: Float[Tensor, "point 3"]
) -> Float[Tensor, "point 2"]:
    """COLMAP pixels of points in the camera frame; NaN (with zero gradient) for points that are not in front.

    Args:
        model: a key of `PARAM_NAMES`.
        params: one camera for all points (params,) or one for each (point, params); focal lengths and centre in pixels.
        points_in_cam: in any unit, x right, y down, z forward.
    """
    intrinsics = _Intrinsics.of(model, params)
    in_front = points_in_cam[:, 2] > torch.finfo(points_in_cam.dtype).tiny
    ahead = points_in_cam.new_tensor([0.0, 0.0, 1.0])
    points_in_cam = torch.where(in_front[:, None], points_in_cam, ahead)
    flat = _equidistant(points_in_cam) if is_fisheye(model) else points_in_cam[:, :2] / points_in_cam[:, 2:]
    pixels = intrinsics.focal * intrinsics.distort(flat) + intrinsics.centre
    return torch.where(in_front[:, None], pixels, torch.nan)


def normalised_from_pixels(
    model: str, params: Float[Tensor, "*cameras params"], xy_px: Float[Tensor, "point 2"]
) -> Float[Tensor, "point 2"]:
    """Undistorted coordinates on the plane z = 1; NaN (with zero gradient) where the model cannot be inverted.

    That is beyond the radius where the distortion folds back, and for fisheye models from 90 degrees off the axis on.

    Args:
        model: a key of `PARAM_NAMES`.
        params: one camera for all pixels (params,) or one for each (point, params).
        xy_px: COLMAP pixels.
    """
    intrinsics = _Intrinsics.of(model, params)
    known = torch.isfinite(xy_px).all(1)
    distorted = (torch.where(known[:, None], xy_px, 0.0) - intrinsics.centre) / intrinsics.focal
    flat, found = intrinsics.undistort(distorted)
    found = found & known
    if not is_fisheye(model):
        return torch.where(found[:, None], flat, torch.nan)
    found = found & (flat.detach().norm(dim=1) < torch.pi / 2)
    flat = torch.where(found[:, None], flat, 0.0)
    return torch.where(found[:, None], flat * _tangent_over_angle(flat)[:, None], torch.nan)


@dataclass(frozen=True, kw_only=True)
class _Intrinsics:
    """Parameters sorted by role; every coefficient is () or (point,), the rest (2,) or (point, 2)."""

    focal: Float[Tensor, "*cameras 2"]
    centre: Float[Tensor, "*cameras 2"]
    numerator: Sequence[Tensor]
    denominator: Sequence[Tensor]
    tangential: Float[Tensor, "*cameras 2"] | None
    """(p1, p2)"""
    prism: Float[Tensor, "*cameras 2"] | None

    @staticmethod
    def of(model: str, params: Float[Tensor, "*cameras params"]) -> "_Intrinsics":
        names = PARAM_NAMES[model]
        if params.shape[-1] != len(names):
            raise ValueError(f"{model} has {len(names)} parameters, not {params.shape[-1]}")
        value = dict(zip(names, params.unbind(-1), strict=True))
        pair = lambda a, b: torch.stack([value[a], value[b]], dim=-1)  # noqa: E731
        return _Intrinsics(
            focal=pair("f", "f") if "f" in value else pair("fx", "fy"),
            centre=pair("cx", "cy"),
            numerator=[value[name] for name in ("n1", "n2", "n3", "n4") if name in value],
            denominator=[value[name] for name in ("d1", "d2", "d3") if name in value],
            tangential=pair("p1", "p2") if "p1" in value else None,
            prism=pair("s1", "s2") if "s1" in value else None,
        )

    @property
    def distorts(self) -> bool:
        return bool(self.numerator)

    def detach(self) -> "_Intrinsics":
        """The same values without a graph."""
        return _Intrinsics(
            focal=self.focal.detach(),
            centre=self.centre.detach(),
            numerator=[coefficient.detach() for coefficient in self.numerator],
            denominator=[coefficient.detach() for coefficient in self.denominator],
            tangential=None if self.tangential is None else self.tangential.detach(),
            prism=None if self.prism is None else self.prism.detach(),
        )

    def distort(self, flat: Float[Tensor, "point 2"]) -> Float[Tensor, "point 2"]:
        """D(w)."""
        if not self.distorts:
            return flat
        square = (flat**2).sum(1)
        result = flat * self._radial_factor(square)[:, None]
        if self.tangential is not None:
            product = 2 * flat[:, :1] * flat[:, 1:]
            swapped = self.tangential.flip(-1)
            result = result + self.tangential * product + swapped * (square[:, None] + 2 * flat**2)
        if self.prism is not None:
            result = result + self.prism * square[:, None]
        return result

    def jacobian(self, flat: Float[Tensor, "point 2"]) -> Float[Tensor, "point 2 2"]:
        """dD/dw: g I + 2 g' w w^T + the derivatives of the tangential and prism terms."""
        square = (flat**2).sum(1)
        factor, slope = self._radial_factor(square), self._radial_slope(square)
        identity = torch.eye(2, dtype=flat.dtype, device=flat.device)
        result = factor[:, None, None] * identity + 2 * slope[:, None, None] * flat[:, :, None] * flat[:, None, :]
        if self.tangential is not None:
            p1, p2 = self.tangential.unbind(-1)
            x, y = flat.unbind(1)
            cross = 2 * (p1 * x + p2 * y)
            rows = [2 * p1 * y + 6 * p2 * x, cross, cross, 2 * p2 * x + 6 * p1 * y]
            result = result + torch.stack(rows, dim=1).view(-1, 2, 2)
        if self.prism is not None:
            result = result + 2 * self.prism[..., :, None] * flat[:, None, :]
        return result

    def undistort(self, distorted: Float[Tensor, "point 2"]) -> tuple[Float[Tensor, "point 2"], Bool[Tensor, "point"]]:
        """D^-1, and where it was found (elsewhere the value is 0 and has no gradient)."""
        if not self.distorts:
            return distorted, torch.ones_like(distorted[:, 0], dtype=torch.bool)
        with torch.no_grad():
            constants = self.detach()
            start, found = _invert(constants, distorted.detach())
            inverse, regular = _inverse_2x2(constants.jacobian(start))
            found &= regular
        distorted = torch.where(found[:, None], distorted, 0.0)
        error = torch.where(found[:, None], self.distort(start) - distorted, 0.0)
        return start - (inverse @ error[:, :, None])[:, :, 0], found

    def _radial_factor(self, square: Float[Tensor, "point"]) -> Float[Tensor, "point"]:
        factor = _polynomial(self.numerator, square)
        return factor / _polynomial(self.denominator, square) if self.denominator else factor

    def _radial_slope(self, square: Float[Tensor, "point"]) -> Float[Tensor, "point"]:
        """g'(r2)"""
        slope = _polynomial_slope(self.numerator, square)
        if not self.denominator:
            return slope
        numerator, denominator = _polynomial(self.numerator, square), _polynomial(self.denominator, square)
        return (slope - numerator * _polynomial_slope(self.denominator, square) / denominator) / denominator


def _polynomial(coefficients: Sequence[Tensor], square: Float[Tensor, "point"]) -> Float[Tensor, "point"]:
    """1 + c_1 r2 + c_2 r2^2 + ..."""
    value = torch.zeros_like(square)
    for coefficient in reversed(coefficients):
        value = (value + coefficient) * square
    return 1 + value


def _polynomial_slope(coefficients: Sequence[Tensor], square: Float[Tensor, "point"]) -> Float[Tensor, "point"]:
    value = torch.zeros_like(square)
    for power in range(len(coefficients), 0, -1):
        value = value * square + power * coefficients[power - 1]
    return value


def _invert(
    intrinsics: _Intrinsics, target: Float[Tensor, "point 2"]
) -> tuple[Float[Tensor, "point 2"], Bool[Tensor, "point"]]:
    """Newton's method from w = y; a step that does not reduce the error is halved until it does.

    The error of a regular inversion falls to rounding level. Beyond the fold of a distortion there is no solution: the
    error stays large. A solution on the far side of a fold (determinant of J not positive) is none.
    """
    tolerance = 64 * torch.finfo(target.dtype).eps
    flat = target.clone()
    residual = intrinsics.distort(flat) - target
    error = _finite_norm(residual)
    length = torch.ones_like(error)
    bound = tolerance * (1 + target.norm(dim=1))
    for _ in range(_MAX_STEPS):
        if bool((error <= bound / 16).all()):
            break
        inverse, _ = _inverse_2x2(intrinsics.jacobian(flat))
        trial = flat - length[:, None] * (inverse @ residual[:, :, None])[:, :, 0]
        trial_residual = intrinsics.distort(trial) - target
        trial_error = _finite_norm(trial_residual)
        better = trial_error < error
        flat = torch.where(better[:, None], trial, flat)
        residual = torch.where(better[:, None], trial_residual, residual)
        error = torch.where(better, trial_error, error)
        length = torch.where(better, (2 * length).clamp(max=1.0), length / 2)
    _, regular = _inverse_2x2(intrinsics.jacobian(flat))
    found = regular & (error <= bound)
    return torch.where(found[:, None], flat, 0.0), found


def _finite_norm(vectors: Float[Tensor, "point 2"]) -> Float[Tensor, "point"]:
    return torch.nan_to_num(vectors.norm(dim=1), nan=torch.inf)


def _inverse_2x2(matrices: Float[Tensor, "n 2 2"]) -> tuple[Float[Tensor, "n 2 2"], Bool[Tensor, "n"]]:
    """Inverses (the identity where there is none), and whether determinant and trace are positive."""
    a, b, c, d = matrices.reshape(-1, 4).unbind(1)
    determinant = a * d - b * c
    regular = (determinant.abs() > 1e-12) & torch.isfinite(determinant)
    safe = torch.where(regular, determinant, 1.0)
    inverse = torch.stack([d, -b, -c, a], dim=1).view(-1, 2, 2) / safe[:, None, None]
    identity = torch.eye(2, dtype=matrices.dtype, device=matrices.device)
    return torch.where(regular[:, None, None], inverse, identity), regular & (determinant > 0) & (a + d > 0)


def _equidistant(points: Float[Tensor, "point 3"]) -> Float[Tensor, "point 2"]:
    """(x, y) theta / |(x, y)|, with its series on the optical axis where the quotient is 0 / 0."""
    xy, z = points[:, :2], points[:, 2]
    square = (xy**2).sum(1)
    central = square < _SMALL_ANGLE_SQUARED * z.detach() ** 2
    radius = torch.where(central, 1.0, square).sqrt()
    series = (1 - square / (3 * z**2)) / z
    factor = torch.where(central, series, torch.atan2(radius, z) / radius)
    return xy * factor[:, None]


def _tangent_over_angle(flat: Float[Tensor, "point 2"]) -> Float[Tensor, "point"]:
    """tan(theta) / theta of points on the equidistant plane."""
    square = (flat**2).sum(1)
    central = square < _SMALL_ANGLE_SQUARED
    angle = torch.where(central, 1.0, square).sqrt()
    return torch.where(central, 1 + square / 3, torch.tan(angle) / angle)
