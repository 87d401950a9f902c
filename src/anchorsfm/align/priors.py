"""Weak priors of the fine stage: principal points near the middle, depths near the canonical ones.

Reprojection errors alone leave a bas-relief-like valley: principal point, focal length and relief can be exchanged at
almost no cost, and a solver that goes all the way to the minimum ends up further from the truth than one that stops
early. Both priors are quadratic, added to the mean loss; what they weigh does not depend on how many matches there are.

    P = k_pp / (2 num_views) sum_cameras |(pp - 1/2) size / longer side|^2
        + 1 / (2 total confidence) sum_anchors w delta^2,

w = (median confidence / 2) / sigma_depth^2, as if half a typical observation said that the depth is right to
sigma_depth. delta is the logarithm of a depth over what size, focal length and the canonical depth make it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from anchorsfm.align.config import AlignConfig, AnchorDepthMode
from anchorsfm.align.model import Cameras, ParameterLayout, Variables, focal_ratio

SMALLEST_BRACKET = 0.02
"""Depths behind the camera count as this share of the focal plane's distance."""


UNINFORMED_SIGMA = 10.0
"""Stands for no prior on depths: what no observation determines has to stay somewhere."""


@dataclass(frozen=True, kw_only=True)
class Priors:
    """Weights in units of summed confidence (`total`): the prior's share of the mean loss is its value / total."""

    principal_point_weight: Float[np.ndarray, "camera 2"]
    """Of squared offsets of principal points, as fractions of width and height; halved in the cost."""
    depth_weight: float
    """Of squared depth corrections; halved in the cost."""
    total: float
    """Summed confidence of the directed observations."""

    def cost(self, principal_point: Float[np.ndarray, "camera 2"], correction: Float[np.ndarray, "anchor"]) -> float:
        """In units of summed confidence."""
        offset = (self.principal_point_weight * (principal_point - 0.5) ** 2).sum()
        return 0.5 * float(offset + self.depth_weight * (correction @ correction))


def make_priors(
    total: float, typical: float, layout: ParameterLayout, config: AlignConfig, depth_sigma: float
) -> Priors:
    """Priors of a component.

    total: summed confidence; typical: median confidence of an observation; depth_sigma: of the logarithm, 0 for no
    prior.
    """
    size, camera = layout.size.double().numpy(), layout.camera.numpy()
    strength = 0.0 if config.reference.omit_priors else config.pp_prior
    weight = np.zeros((int(camera.max()) + 1, 2))
    weight[camera] = strength * total / len(size) * (size / size.max(axis=1, keepdims=True)) ** 2
    sigma = depth_sigma if depth_sigma > 0 else UNINFORMED_SIGMA
    return Priors(
        principal_point_weight=weight,
        depth_weight=typical / 2 / (UNINFORMED_SIGMA if config.reference.omit_priors else sigma) ** 2,
        total=total,
    )


class PriorLoss:
    """The priors as a part of the mean loss, for solvers that need no more than gradients."""

    def __init__(self, priors: Priors, layout: ParameterLayout, start_core: Float[Tensor, "anchor"] | None) -> None:
        dtype = layout.size.dtype
        self._layout = layout
        self._principal_point = torch.tensor(priors.principal_point_weight / max(priors.total, 1e-30), dtype=dtype)
        self._depth = 0.0 if start_core is None else priors.depth_weight / max(priors.total, 1e-30)
        self._start_core = start_core

    def __call__(self, variables: Variables, cameras: Cameras) -> Float[Tensor, ""]:
        loss = 0.5 * (self._principal_point * (variables.principal_point - 0.5).square()).sum()
        if self._depth > 0 and self._start_core is not None:
            loss = loss + 0.5 * self._depth * self._correction(variables, cameras, self._start_core).square().sum()
        return loss

    def _correction(
        self, variables: Variables, cameras: Cameras, start_core: Float[Tensor, "anchor"]
    ) -> Float[Tensor, "anchor"]:
        layout = self._layout
        now, start = (v.exp() if layout.exp_depth else v for v in (variables.core_depth, start_core))
        if layout.depth_mode == AnchorDepthMode.ADD:
            shift = (focal_ratio(cameras.focal, layout) - 1).index_select(0, layout.anchor_view)
            now, start = now + shift, start + shift
        return (now.clamp(min=SMALLEST_BRACKET) / start.clamp(min=SMALLEST_BRACKET)).log()
