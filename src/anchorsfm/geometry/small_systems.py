"""Many 3x3 systems at once in closed form: the last axis counts the systems, so that every operation is one long loop.

Matrices are (3, 3, n), vectors (3, n). Singular systems are reported, not an error.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def dot(first: Float[Tensor, "3 *rest"], second: Float[Tensor, "3 *rest"]) -> Float[Tensor, "*rest"]:
    """Scalar products."""
    return torch.addcmul(first[0] * second[0], first[1], second[1]).addcmul_(first[2], second[2])


def solve_3x3(
    matrices: Float[Tensor, "3 3 n"], right: Float[Tensor, "3 n"]
) -> tuple[Float[Tensor, "3 n"], Bool[Tensor, "n"]]:
    """Solutions of symmetric systems (0 where singular), and where they are regular."""
    inverse, regular = inverse_3x3(matrices)
    solution = torch.stack([dot(row, right) for row in inverse])
    regular = regular & torch.isfinite(solution).all(0)
    return torch.where(regular, solution, 0.0), regular


def inverse_3x3(matrices: Float[Tensor, "3 3 n"]) -> tuple[Float[Tensor, "3 3 n"], Bool[Tensor, "n"]]:
    """Adjugate over determinant of symmetric matrices, and where they are positive definite to working precision."""
    (a, b, c), (_, d, e), (_, _, f) = matrices
    aa, bb, cc = d * f - e * e, c * e - b * f, b * e - c * d
    dd, ee, ff = a * f - c * c, b * c - a * e, a * d - b * b
    determinant = a * aa + b * bb + c * cc
    scale = (a + d + f) / 3
    regular = (determinant > 4 * torch.finfo(matrices.dtype).eps * scale**3) & (scale > 0)
    inverse = torch.stack([torch.stack([aa, bb, cc]), torch.stack([bb, dd, ee]), torch.stack([cc, ee, ff])])
    return inverse / torch.where(regular, determinant, 1.0), regular
