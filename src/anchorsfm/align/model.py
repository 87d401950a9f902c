"""From the unknowns to cameras and depths (docs/method.md, Unknowns). Pure functions of tensors.

Per view: quaternion q (x, y, z, w) and translation t of a pivot frame T relative to the pivot of the parent in the
kinematic tree, log size s, log focal length f, principal point pp as a fraction of the image size, core depths (anchor
depth divided by its median m in the image). A view's focal length f is that of its camera times what its picture was
resized by. With f0 the known focal length, or else the front end's, phi = f / f0, and e^s the size,

    z_cam = e^s m phi                                distance from the camera to its focal plane
    C = T(-z_cam ((0.5 - pp) size / f, 1))           camera centre: a longer focal length moves the camera back
    depth = z_cam + (core - 1) m e^s     ("add")     or  z_cam core  ("mul")

Centres and depths are multiplied by 1 / min e^s, because the loss would otherwise shrink the scene, unless known poses
or depths fix the scale. A depth that is frozen does not follow the focal length (phi = 1), a frozen pose is a constant.
"""

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anchorsfm.align.config import AnchorDepthMode


@dataclass(frozen=True, kw_only=True)
class Variables:
    """The unknowns."""

    quaternion: Float[Tensor, "view 4"]
    translation: Float[Tensor, "view 3"]
    log_size: Float[Tensor, "view"]
    log_focal: Float[Tensor, "camera"]
    principal_point: Float[Tensor, "camera 2"]
    """Fraction of the image size."""
    core_depth: Float[Tensor, "anchor"]
    """Anchor depth over its median, or its logarithm."""

    def detached(self) -> "Variables":
        """A copy that later steps do not touch."""
        return replace(self, **{f.name: getattr(self, f.name).detach().clone() for f in fields(self)})

    def to(self, dtype: torch.dtype) -> "Variables":
        """The same values in another precision."""
        return replace(self, **{f.name: getattr(self, f.name).to(dtype) for f in fields(self)})


POSE_VARIABLES = ("quaternion", "translation", "log_size")


@dataclass(frozen=True, kw_only=True)
class ParameterLayout:
    """The constants of the model: what the views are and how they are tied together."""

    size: Float[Tensor, "view 2"]
    """Grid width and height."""
    base_focal: Float[Tensor, "view"]
    median_depth: Float[Tensor, "view"]
    camera: Int[Tensor, "view"]
    resized: Float[Tensor, "view"]
    """Focal length of each view over that of its camera, which is the one of its largest picture."""
    anchor_view: Int[Tensor, "anchor"]
    ancestors: tuple[Int[Tensor, "view_plus_1"], ...]
    """Composition rounds of the pose chain; index `view` is the world."""
    pose_fixed: Bool[Tensor, "view"]
    fixed_rotation: Float[Tensor, "view 3 3"]
    fixed_centre: Float[Tensor, "view 3"]
    depth_fixed: Bool[Tensor, "view"]
    normalise: bool
    """Divide by the smallest size: nothing known fixes the scale."""
    scale_origin: Float[Tensor, "3"]
    """Point that normalising leaves in place."""
    depth_mode: AnchorDepthMode
    exp_depth: bool

    @property
    def num_views(self) -> int:
        return len(self.base_focal)

    def to(self, dtype: torch.dtype) -> "ParameterLayout":
        """The same constants in another precision."""
        names = ("size", "base_focal", "median_depth", "resized", "fixed_rotation", "fixed_centre", "scale_origin")
        return replace(self, **{name: getattr(self, name).to(dtype) for name in names})


@dataclass(frozen=True, kw_only=True)
class Cameras:
    """Poses, intrinsics and scales at one value of the unknowns."""

    rotation: Float[Tensor, "view 3 3"]
    """world_from_cam."""
    centre: Float[Tensor, "view 3"]
    focal: Float[Tensor, "view"]
    principal_point: Float[Tensor, "view 2"]
    """Pixels."""
    scale: Float[Tensor, "view"]
    """Size after normalisation: scene units per unit of the front end."""


def ancestor_rounds(parent: Int[Tensor, "view"]) -> tuple[Int[Tensor, "view_plus_1"], ...]:
    """Path doubling: after round k a pose is relative to the 2^k-th ancestor, so log2(depth) products make the chain.

    `parent` is -1 for views that are relative to the world.
    """
    world = len(parent)
    ancestor = torch.cat([torch.where(parent < 0, world, parent), torch.tensor([world])])
    rounds = []
    while bool((ancestor != world).any()):
        rounds.append(ancestor)
        ancestor = ancestor[ancestor]
    return tuple(rounds)


def rotation_of(quaternion: Float[Tensor, "view 4"]) -> Float[Tensor, "view 3 3"]:
    """Rotation matrices of quaternions (x, y, z, w) of any length."""
    unit = quaternion / quaternion.norm(dim=1, keepdim=True)
    outer = 2 * unit[:, :, None] * unit[:, None, :]
    xx, yy, zz = outer[:, 0, 0], outer[:, 1, 1], outer[:, 2, 2]
    xy, xz, yz = outer[:, 0, 1], outer[:, 0, 2], outer[:, 1, 2]
    xw, yw, zw = outer[:, 0, 3], outer[:, 1, 3], outer[:, 2, 3]
    entries = [1 - yy - zz, xy - zw, xz + yw, xy + zw, 1 - xx - zz, yz - xw, xz - yw, yz + xw, 1 - xx - yy]
    return torch.stack(entries, dim=1).view(-1, 3, 3)


def chained_pivots(
    variables: Variables, layout: ParameterLayout
) -> tuple[Float[Tensor, "view 3 3"], Float[Tensor, "view 3"]]:
    """Rotations and origins of the pivot frames in the world."""
    quaternion, translation = variables.quaternion, variables.translation
    rotation = torch.cat([rotation_of(quaternion), torch.eye(3, dtype=quaternion.dtype)[None]])
    origin = torch.cat([translation, translation.new_zeros(1, 3)])
    for ancestor in layout.ancestors:
        outer = rotation.index_select(0, ancestor)
        origin = (outer @ origin[:, :, None])[:, :, 0] + origin.index_select(0, ancestor)
        rotation = outer @ rotation
    return rotation[:-1], origin[:-1]


def focal_ratio(focal: Float[Tensor, "view"], layout: ParameterLayout) -> Float[Tensor, "view"]:
    """phi = f / f0, 1 where the depth is frozen."""
    return torch.where(layout.depth_fixed, 1.0, focal / layout.base_focal)


def pivot_offset(
    distance: Float[Tensor, "view"], focal: Float[Tensor, "view"], pp: Float[Tensor, "view 2"], layout: ParameterLayout
) -> Float[Tensor, "view 3"]:
    """The pivot in the camera frame, z_cam ((0.5 - pp) size / f, 1)."""
    lateral = (0.5 - pp) * layout.size / focal[:, None]
    return distance[:, None] * torch.cat([lateral, torch.ones_like(focal)[:, None]], dim=1)


def cameras_of(variables: Variables, layout: ParameterLayout) -> Cameras:
    """Poses, intrinsics and scales."""
    size = variables.log_size.exp()
    focal = variables.log_focal.exp().index_select(0, layout.camera) * layout.resized
    pp = variables.principal_point.index_select(0, layout.camera)
    rotation, origin = chained_pivots(variables, layout)
    distance = size * layout.median_depth * focal_ratio(focal, layout)
    offset = pivot_offset(distance, focal, pp, layout)
    centre = origin - (rotation @ offset[:, :, None])[:, :, 0]
    if layout.normalise:
        factor = 1 / size.min()
        centre = layout.scale_origin + factor * (centre - layout.scale_origin)
        size = size * factor
    if bool(layout.pose_fixed.any()):
        rotation = torch.where(layout.pose_fixed[:, None, None], layout.fixed_rotation, rotation)
        centre = torch.where(layout.pose_fixed[:, None], layout.fixed_centre, centre)
    return Cameras(rotation=rotation, centre=centre, focal=focal, principal_point=pp * layout.size, scale=size)


def anchor_depths(variables: Variables, cameras: Cameras, layout: ParameterLayout) -> Float[Tensor, "anchor"]:
    """Depth of every anchor in scene units."""
    core = variables.core_depth.exp() if layout.exp_depth else variables.core_depth
    unit = cameras.scale * layout.median_depth
    ratio = focal_ratio(cameras.focal, layout)
    if layout.depth_mode == AnchorDepthMode.ADD:
        # unit (phi + core - 1) = unit core + unit (phi - 1)
        shift = (unit * (ratio - 1)).index_select(0, layout.anchor_view)
        return torch.addcmul(shift, unit.index_select(0, layout.anchor_view), core)
    return (unit * ratio).index_select(0, layout.anchor_view) * core


def calibration(cameras: Cameras) -> Float[Tensor, "view 3 3"]:
    """K: pixels of directions."""
    f, (cx, cy) = cameras.focal, cameras.principal_point.unbind(1)
    zero, one = torch.zeros_like(f), torch.ones_like(f)
    return torch.stack([f, zero, cx, zero, f, cy, zero, zero, one], dim=1).view(-1, 3, 3)


def inverse_calibration(cameras: Cameras, layout: ParameterLayout) -> Float[Tensor, "view 3 3"]:
    """Directions of pixels given relative to the middle of the image."""
    inverse = 1 / cameras.focal
    shift = (layout.size / 2 - cameras.principal_point) * inverse[:, None]
    zero, one = torch.zeros_like(inverse), torch.ones_like(inverse)
    entries = [inverse, zero, shift[:, 0], zero, inverse, shift[:, 1], zero, zero, one]
    return torch.stack(entries, dim=1).view(-1, 3, 3)


def relative_poses(
    cameras: Cameras, source: Int[Tensor, "pair"], target: Int[Tensor, "pair"]
) -> tuple[Float[Tensor, "pair 3 3"], Float[Tensor, "pair 3"]]:
    """Rotations and translations of target_from_source."""
    target_from_world = cameras.rotation.index_select(0, target).transpose(1, 2)
    rotation = target_from_world @ cameras.rotation.index_select(0, source)
    baseline = cameras.centre.index_select(0, source) - cameras.centre.index_select(0, target)
    return rotation, (target_from_world @ baseline[:, :, None])[:, :, 0]
