"""The second-order solver's unknowns: cameras in the world, and a free correction of the logarithm of every anchor
depth.

With phi = f / f0, size e^sigma, median depth m and canonical core depth k, an anchor's depth is

    d = e^sigma m (phi + k - 1) e^delta     ("add")       d = e^sigma m phi k e^delta     ("mul")

which is `model.py`'s with the core depth written as a correction delta, so that a prior on delta leaves scale and focal
length free. kappa = d log d / d phi phi is phi / (phi + k - 1), 1, or 0 where the depth is frozen (phi = 1).
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial.transform import Rotation

from anchorsfm.align.config import AnchorDepthMode
from anchorsfm.align.model import ParameterLayout, Variables, chained_pivots
from anchorsfm.align.problem import Problem

SMALLEST_BRACKET = 0.02
"""Depths behind the camera are put at this share of the focal plane's distance."""
SMALLEST_CORE = 1e-6
MAX_LOG_FOCAL_STEP, MAX_LOG_SIZE_STEP, MAX_CORRECTION_STEP = 0.3, 0.7, 0.5


@dataclass(frozen=True, kw_only=True)
class State:
    """Values of the unknowns, in float64."""

    rotation: Float[np.ndarray, "view 3 3"]
    """world_from_cam."""
    centre: Float[np.ndarray, "view 3"]
    log_size: Float[np.ndarray, "view"]
    log_focal: Float[np.ndarray, "camera"]
    principal_point: Float[np.ndarray, "camera 2"]
    """Fraction of the image size."""
    correction: Float[np.ndarray, "anchor"]


@dataclass(frozen=True, kw_only=True)
class Constants:
    """What does not move, as arrays in float64."""

    size: Float[np.ndarray, "view 2"]
    base_focal: Float[np.ndarray, "view"]
    median_depth: Float[np.ndarray, "view"]
    camera: Int[np.ndarray, "view"]
    resized: Float[np.ndarray, "view"]
    """Focal length of each view over that of its camera."""
    anchor_start: Int[np.ndarray, "view_plus_1"]
    core: Float[np.ndarray, "anchor"]
    depth_fixed: Bool[np.ndarray, "view"]
    multiply: bool
    """Depth mode "mul"."""
    log_focal_range: tuple[Float[np.ndarray, "camera"], Float[np.ndarray, "camera"]]

    @property
    def num_views(self) -> int:
        return len(self.base_focal)

    def focal(self, state: State) -> Float[np.ndarray, "view"]:
        return self.focal_of(state.log_focal)

    def focal_of(self, log_focal: Float[np.ndarray, "camera"]) -> Float[np.ndarray, "view"]:
        return np.exp(log_focal)[self.camera] * self.resized

    def principal_point_px(self, state: State) -> Float[np.ndarray, "view 2"]:
        return state.principal_point[self.camera] * self.size

    def per_anchor(self, values: Float[np.ndarray, "view"]) -> Float[np.ndarray, "anchor"]:
        """Values of views for all their anchors."""
        return np.repeat(values, np.diff(self.anchor_start))

    def depths(self, state: State) -> tuple[Float[np.ndarray, "anchor"], Float[np.ndarray, "anchor"]]:
        """Depth d and kappa of every anchor; sizes are not normalised."""
        phi = np.where(self.depth_fixed, 1.0, self.focal(state) / self.base_focal)
        unit = np.exp(state.log_size) * self.median_depth
        frozen = self.per_anchor(self.depth_fixed.astype(float)) > 0
        phi_anchor = self.per_anchor(phi)
        if self.multiply:
            bracket, kappa = phi_anchor * self.core, np.ones_like(self.core)
        else:
            bracket = phi_anchor + self.core - 1
            kappa = np.where(bracket > SMALLEST_BRACKET, phi_anchor / np.maximum(bracket, SMALLEST_BRACKET), 0.0)
            bracket = np.where(frozen, self.core, np.maximum(bracket, SMALLEST_BRACKET))
        depth = self.per_anchor(unit) * bracket * np.exp(state.correction)
        return depth, np.where(frozen, 0.0, kappa)


def constants_of(problem: Problem) -> Constants:
    """The constants of a problem; core depths are those of its start."""
    layout, core = problem.layout, problem.start.core_depth.double().numpy()
    count = np.bincount(layout.anchor_view.numpy(), minlength=layout.num_views)
    lowest, highest = problem.log_focal_range
    return Constants(
        size=layout.size.double().numpy(),
        base_focal=layout.base_focal.double().numpy(),
        median_depth=layout.median_depth.double().numpy(),
        camera=layout.camera.numpy().astype(np.int64),
        resized=layout.resized.double().numpy(),
        anchor_start=np.concatenate([[0], np.cumsum(count)]).astype(np.int64),
        core=np.exp(core) if layout.exp_depth else core,
        depth_fixed=layout.depth_fixed.numpy(),
        multiply=layout.depth_mode == AnchorDepthMode.MULTIPLY,
        log_focal_range=(lowest.double().numpy(), highest.double().numpy()),
    )


def parents_of(layout: ParameterLayout) -> Int[np.ndarray, "view"]:
    """Parent of every view in the pose chain, -1 for those relative to the world."""
    if not layout.ancestors:
        return np.full(layout.num_views, -1)
    parent = layout.ancestors[0].numpy()[:-1]
    return np.where(parent == layout.num_views, -1, parent)


def state_of(variables: Variables, constants: Constants, layout: ParameterLayout) -> State:
    """The state at some value of the variables, with sizes and centres as they are before normalisation."""
    values = variables.detached()
    with torch.no_grad():
        rotation, origin = chained_pivots(values, layout)
    turned, origin_64 = rotation.double().numpy(), origin.double().numpy()
    size, log_focal = values.log_size.double().numpy(), values.log_focal.double().numpy()
    offset = _pivots(size, log_focal, values.principal_point.double().numpy(), constants)
    fixed = layout.pose_fixed.numpy()
    centre = origin_64 - np.einsum("vij,vj->vi", turned, offset)
    core = values.core_depth.double().numpy()
    core = np.exp(core) if layout.exp_depth else core
    bare = State(
        rotation=np.where(fixed[:, None, None], layout.fixed_rotation.double().numpy(), turned),
        centre=np.where(fixed[:, None], layout.fixed_centre.double().numpy(), centre),
        log_size=size,
        log_focal=log_focal,
        principal_point=values.principal_point.double().numpy(),
        correction=np.zeros(len(core)),
    )
    if np.array_equal(core, constants.core):
        return bare
    wanted, _ = replace(constants, core=core).depths(bare)
    return replace(bare, correction=np.log(wanted / constants.depths(bare)[0]))


def variables_of(
    state: State, constants: Constants, layout: ParameterLayout, parent: Int[np.ndarray, "view"]
) -> Variables:
    """The state as variables of the model, chained along the tree (`parent` -1: relative to the world)."""
    offset = _pivots(state.log_size, state.log_focal, state.principal_point, constants)
    origin = state.centre + np.einsum("vij,vj->vi", state.rotation, offset)
    relative = parent >= 0
    up = np.where(relative, parent, 0)
    inward = np.where(relative[:, None, None], np.swapaxes(state.rotation[up], 1, 2), np.eye(3))
    shift = np.where(relative[:, None], origin[up], 0.0)
    core = _core_of(state, constants)
    dtype = layout.size.dtype

    def tensor(values: np.ndarray) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype)

    return Variables(
        quaternion=tensor(Rotation.from_matrix(inward @ state.rotation).as_quat()),
        translation=tensor(np.einsum("vij,vj->vi", inward, origin - shift)),
        log_size=tensor(state.log_size),
        log_focal=tensor(state.log_focal),
        principal_point=tensor(state.principal_point),
        core_depth=tensor(np.log(np.maximum(core, SMALLEST_CORE)) if layout.exp_depth else core),
    )


def _core_of(state: State, constants: Constants) -> Float[np.ndarray, "anchor"]:
    """Core depths that give the state's depths in the model."""
    depth, _ = constants.depths(state)
    ratio = depth / constants.per_anchor(np.exp(state.log_size) * constants.median_depth)
    phi = constants.per_anchor(np.where(constants.depth_fixed, 1.0, constants.focal(state) / constants.base_focal))
    core = ratio / phi if constants.multiply else ratio + 1 - phi
    # frozen and never corrected: exactly as given
    same = (state.correction == 0) & (constants.per_anchor(constants.depth_fixed.astype(float)) > 0)
    return np.where(same, constants.core, core)


def _pivots(
    log_size: Float[np.ndarray, "view"],
    log_focal: Float[np.ndarray, "camera"],
    principal_point: Float[np.ndarray, "camera 2"],
    constants: Constants,
) -> Float[np.ndarray, "view 3"]:
    """Pivots in the camera frames (`model.pivot_offset`)."""
    focal = constants.focal_of(log_focal)
    phi = np.where(constants.depth_fixed, 1.0, focal / constants.base_focal)
    distance = np.exp(log_size) * constants.median_depth * phi
    lateral = (0.5 - principal_point[constants.camera]) * constants.size / focal[:, None]
    return distance[:, None] * np.column_stack([lateral, np.ones(len(focal))])


def moved(
    state: State,
    pose: Float[np.ndarray, "view 7"],
    intrinsics: Float[np.ndarray, "camera 3"],
    constants: Constants,
) -> State:
    """The state after a step: rotation vector and shift in the camera's frame, log size; log focal, principal point."""
    turn = Rotation.from_rotvec(pose[:, :3]).as_matrix()
    lowest, highest = constants.log_focal_range
    step = np.clip(intrinsics[:, 0], -MAX_LOG_FOCAL_STEP, MAX_LOG_FOCAL_STEP)
    log_focal = np.clip(state.log_focal + step, lowest, highest)
    return State(
        rotation=state.rotation @ turn,
        centre=state.centre + np.einsum("vij,vj->vi", state.rotation, pose[:, 3:6]),
        log_size=state.log_size + np.clip(pose[:, 6], -MAX_LOG_SIZE_STEP, MAX_LOG_SIZE_STEP),
        log_focal=np.where(intrinsics[:, 0] == 0, state.log_focal, log_focal),
        principal_point=state.principal_point + intrinsics[:, 1:],
        correction=state.correction,
    )


def corrected(state: State, step: Float[np.ndarray, "anchor"]) -> State:
    """The state with depth corrections moved by a step of limited length."""
    limited = np.clip(step, -MAX_CORRECTION_STEP, MAX_CORRECTION_STEP)
    return replace(state, correction=state.correction + limited)
