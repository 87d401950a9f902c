"""Condensed scene, tree and knowledge -> `Problem`: constants, start and freedom of the unknowns."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial.transform import Rotation

from anchorsfm.align.config import AlignConfig, InitialPoses
from anchorsfm.align.initialise import (
    coincident,
    from_pairs,
    onto_known,
    triangulated_scales,
)
from anchorsfm.align.model import ParameterLayout, Variables, ancestor_rounds, cameras_of, focal_ratio, pivot_offset
from anchorsfm.align.problem import Freedom, Observations, Problem, UnitPoints, collect_observations
from anchorsfm.align.synchronise import Similarities
from anchorsfm.geometry.transforms import invert
from anchorsfm.observe.anchors import require_views
from anchorsfm.observe.graph import ObservedScene
from anchorsfm.scene.alignment import KnownImage
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.graph import Anchors, CanonicalView, KinematicTree

MIN_CORE_DEPTH = 1e-3
"""Depths, as a share of the median, below which a canonical depth is not believed."""


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """What is known about each view of the component, one entry a view."""

    images: tuple[KnownImage, ...]

    @property
    def world_from_cam(self) -> list[Float[np.ndarray, "3 4"] | None]:
        return [None if k.cam_from_world is None else invert(k.cam_from_world) for k in self.images]

    @property
    def pose_frozen(self) -> Bool[np.ndarray, "view"]:
        return np.array([k.freeze_pose and k.cam_from_world is not None for k in self.images])

    @property
    def depth_frozen(self) -> Bool[np.ndarray, "view"]:
        return np.array([k.freeze_depth and k.anchor_depth is not None for k in self.images])

    @property
    def intrinsics_frozen(self) -> Bool[np.ndarray, "view"]:
        return np.array([k.freeze_intrinsics and k.focal_px is not None for k in self.images])


def check_knowledge(known: Sequence[KnownImage | None] | None, scene: ObservedScene) -> Knowledge:
    """One `KnownImage` per view. Raises InputError, naming the image, for values that cannot be used."""
    num = scene.graph.num_images
    images = tuple(k or KnownImage() for k in (known or [None] * num))
    if len(images) != num:
        raise InputError(f"known quantities for {len(images)} images were given, but {num} are aligned")
    for k, image, view in zip(images, scene.image_index.tolist(), require_views(scene.views), strict=True):
        if k.freeze_pose and k.cam_from_world is None:
            raise InputError(f"image {image}: its pose is to be frozen but none was given")
        if k.freeze_intrinsics and k.focal_px is None:
            raise InputError(f"image {image}: its intrinsics are to be frozen but no focal length was given")
        if k.freeze_depth and k.anchor_depth is None:
            raise InputError(f"image {image}: its depth is to be frozen but none was given")
        if k.cam_from_world is not None and not np.isfinite(k.cam_from_world).all():
            raise InputError(f"image {image}: its known pose has numbers that are not finite")
        if k.principal_point_px is not None and not np.isfinite(k.principal_point_px).all():
            raise InputError(f"image {image}: its known principal point has numbers that are not finite")
        if k.focal_px is not None and not 0 < k.focal_px < np.inf:
            raise InputError(f"image {image}: focal length {k.focal_px} is not positive and finite")
        if k.anchor_depth is not None and k.anchor_depth.shape != view.anchor_depth.shape:
            raise InputError(
                f"image {image}: known depth has {k.anchor_depth.shape} anchors, expected {view.anchor_depth.shape}"
            )
        if k.anchor_depth is not None and not ((k.anchor_depth > 0) & (k.anchor_depth < np.inf)).all():
            raise InputError(f"image {image}: known depths must be positive and finite")
    return Knowledge(images=images)


def build_problem(
    scene: ObservedScene,
    anchors: Anchors,
    tree: KinematicTree,
    config: AlignConfig,
    camera_index: Int[np.ndarray, "view"] | None = None,
    known: Sequence[KnownImage | None] | None = None,
    long_side_px: Float[np.ndarray, "view"] | None = None,
) -> Problem:
    """Everything a solver needs for one connected component; arguments as for `run.align`."""
    knowledge = check_knowledge(known, scene)
    num_views = scene.graph.num_images
    camera = np.arange(num_views) if camera_index is None else np.unique(camera_index, return_inverse=True)[1]
    dtype = torch.float64 if config.double_precision else torch.float32
    depth, median = _median_and_core(scene, anchors, knowledge)
    resized = _resized(scene, camera, long_side_px)
    layout = _layout(scene, anchors, tree, config, camera, resized, knowledge, median).to(dtype)
    observations = collect_observations(scene, anchors, config)
    start = _intrinsics_and_depths(scene, layout, camera, depth, knowledge, config)
    confirmed = scene.graph.pair[scene.graph.confirmed]
    initial = _initial_similarities(observations, start, layout, tree, config, knowledge, confirmed)
    start = _with_poses(start, initial.similarities, layout, tree, knowledge)
    freedom = _freedom(layout, camera, knowledge)
    return Problem(
        layout=layout,
        observations=observations,
        start=start,
        coarse_freedom=replace(freedom, size=freedom.size & torch.from_numpy(~initial.scale_known)),
        fine_freedom=freedom,
        log_focal_range=_log_focal_range(layout, camera, scene.config.focal_range),
        fixed_pose=knowledge.pose_frozen,
    )


def _median_and_core(
    scene: ObservedScene, anchors: Anchors, knowledge: Knowledge
) -> tuple[Float[np.ndarray, "anchor"], Float[np.ndarray, "view"]]:
    """Core depths (1 at the median) of all anchors and the lower median of each view."""
    core = anchors.depth.astype(np.float64)
    median = np.ones(scene.graph.num_images)
    for view, k in enumerate(knowledge.images):
        rows = slice(anchors.start[view], anchors.start[view + 1])
        depth = core[rows] if k.anchor_depth is None else k.anchor_depth.ravel().astype(np.float64)
        positive = np.sort(depth[depth > 0])
        median[view] = positive[(len(positive) - 1) // 2] if len(positive) else 1.0
        core[rows] = np.maximum(depth / median[view], MIN_CORE_DEPTH)
    return core, median


def _layout(
    scene: ObservedScene,
    anchors: Anchors,
    tree: KinematicTree,
    config: AlignConfig,
    camera: Int[np.ndarray, "view"],
    resized: Float[np.ndarray, "view"],
    knowledge: Knowledge,
    median: Float[np.ndarray, "view"],
) -> ParameterLayout:
    """The constants in float64."""
    views = require_views(scene.views)
    num_views = len(views)
    frozen = knowledge.pose_frozen
    rotation, centre = np.tile(np.eye(3), (num_views, 1, 1)), np.zeros((num_views, 3))
    for view in np.flatnonzero(frozen):
        pose = knowledge.world_from_cam[view]
        assert pose is not None
        rotation[view], centre[view] = pose[:, :3], pose[:, 3]
    spread = np.ptp(centre[frozen], axis=0).max() if frozen.sum() > 1 else 0.0
    origin = centre[frozen][0] if frozen.any() else np.zeros(3)
    parent = np.where(frozen, -1, tree.parent)
    return ParameterLayout(
        size=torch.tensor([view.relative_depth.shape[::-1] for view in views], dtype=torch.float64),
        base_focal=torch.from_numpy(_base_focal(views, knowledge)),
        median_depth=torch.from_numpy(median),
        camera=torch.from_numpy(camera),
        resized=torch.from_numpy(resized),
        anchor_view=torch.from_numpy(np.repeat(np.arange(num_views), np.diff(anchors.start))),
        ancestors=ancestor_rounds(torch.from_numpy(parent)),
        pose_fixed=torch.from_numpy(frozen),
        fixed_rotation=torch.from_numpy(rotation),
        fixed_centre=torch.from_numpy(centre),
        depth_fixed=torch.from_numpy(knowledge.depth_frozen),
        normalise=bool(spread == 0 and not knowledge.depth_frozen.any()),
        scale_origin=torch.from_numpy(origin),
        depth_mode=config.depth_mode,
        exp_depth=config.exp_depth,
    )


def _resized(
    scene: ObservedScene, camera: Int[np.ndarray, "view"], long_side_px: Float[np.ndarray, "view"] | None
) -> Float[np.ndarray, "view"]:
    """Longer side of each picture over that of the largest one of its camera."""
    if long_side_px is None:
        long_side_px = np.array([max(view.relative_depth.shape) for view in require_views(scene.views)])
    largest = np.zeros(int(camera.max()) + 1)
    np.maximum.at(largest, camera, long_side_px)
    return np.asarray(long_side_px / largest[camera], np.float64)


def _base_focal(views: Sequence[CanonicalView], knowledge: Knowledge) -> Float[np.ndarray, "view"]:
    """f0: what is known, or else what the predicted points imply. They are taken to be wrong sideways, not in depth."""
    known = [k.focal_px for k in knowledge.images]
    return np.array([view.focal_px if f is None else f for view, f in zip(views, known, strict=True)], np.float64)


def _intrinsics_and_depths(
    scene: ObservedScene,
    layout: ParameterLayout,
    camera: Int[np.ndarray, "view"],
    core: Float[np.ndarray, "anchor"],
    knowledge: Knowledge,
    config: AlignConfig,
) -> Variables:
    """Unknowns with everything but the poses; a shared camera starts at the confidence-weighted mean of its views,
    or at the mean of what is known about it."""
    num_cameras = int(camera.max()) + 1
    confidence = np.array([view.confidence.mean(dtype=np.float64) for view in require_views(scene.views)])
    size = layout.size.double().numpy()
    focal, pp = np.ones(num_cameras), np.full((num_cameras, 2), 0.5)
    resized = layout.resized.double().numpy()
    base_focal = _base_focal(require_views(scene.views), knowledge) / resized
    for row in range(num_cameras):
        members = np.flatnonzero(camera == row)
        frozen = [v for v in members if knowledge.intrinsics_frozen[v]]
        given = frozen or [v for v in members if knowledge.images[v].focal_px is not None]
        weight = confidence[members] / confidence[members].sum()
        focal[row] = base_focal[given].mean() if given else weight @ base_focal[members]
        centres = [
            np.asarray(point) / size[v]
            for v in (frozen or members)
            if (point := knowledge.images[v].principal_point_px) is not None
        ]
        if centres:
            pp[row] = np.mean(centres, axis=0)
    dtype, num_views = layout.size.dtype, len(camera)
    quaternion = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=dtype).repeat(num_views, 1)
    return Variables(
        quaternion=quaternion,
        translation=torch.zeros(num_views, 3, dtype=dtype),
        log_size=torch.zeros(num_views, dtype=dtype),
        log_focal=torch.tensor(np.log(focal), dtype=dtype),
        principal_point=torch.tensor(pp, dtype=dtype),
        core_depth=torch.tensor(np.log(core) if config.exp_depth else core, dtype=dtype),
    )


@dataclass(frozen=True, kw_only=True)
class _Initial:
    similarities: Similarities
    scale_known: Bool[np.ndarray, "view"]
    """Views whose size follows from frozen poses by triangulation. The coarse loss, which gains by shrinking the
    scene, must not touch it."""


def _initial_similarities(
    observations: Observations,
    start: Variables,
    layout: ParameterLayout,
    tree: KinematicTree,
    config: AlignConfig,
    knowledge: Knowledge,
    confirmed: Int[np.ndarray, "pair 2"],
) -> _Initial:
    similarities = coincident(_unit_pivot_offset(start, layout))
    world_from_cam = knowledge.world_from_cam
    any_pose = any(pose is not None for pose in world_from_cam)
    if config.init_poses == InitialPoses.IDENTITY and not any_pose:
        return _at_known_scale(similarities, knowledge)
    points = UnitPoints(start, layout)
    if config.init_poses == InitialPoses.PAIRS:
        similarities = from_pairs(observations, points, similarities, confirmed)
    if any_pose:
        scales = triangulated_scales(observations, points, world_from_cam)
        similarities = onto_known(similarities, world_from_cam, scales, tree.parent)
        frozen_scale = np.where(knowledge.depth_frozen, 1.0, similarities.scale)
        return _Initial(
            similarities=replace(similarities, scale=frozen_scale),
            scale_known=knowledge.pose_frozen & np.isfinite(scales) & (not layout.normalise),
        )
    return _at_known_scale(similarities, knowledge)


def _at_known_scale(similarities: Similarities, knowledge: Knowledge) -> _Initial:
    """Rescale the world so that views with frozen depth have scale 1."""
    frozen = knowledge.depth_frozen
    if frozen.any():
        factor = np.exp(-np.log(similarities.scale[frozen]).mean())
        scale = np.where(frozen, 1.0, similarities.scale * factor)
        similarities = replace(similarities, scale=scale, centre=similarities.centre * factor)
    return _Initial(similarities=similarities, scale_known=np.zeros(len(frozen), bool))


def _unit_pivot_offset(start: Variables, layout: ParameterLayout) -> Float[np.ndarray, "view 3"]:
    """Pivots in the camera frames for size 1."""
    cameras = cameras_of(start, layout)
    distance = layout.median_depth * focal_ratio(cameras.focal, layout)
    pp = start.principal_point.index_select(0, layout.camera)
    return pivot_offset(distance, cameras.focal, pp, layout).double().numpy()


def _with_poses(
    start: Variables, similarities: Similarities, layout: ParameterLayout, tree: KinematicTree, knowledge: Knowledge
) -> Variables:
    """Express similarities as pivots relative to the parents in the tree."""
    rotation = similarities.rotation
    offset = similarities.scale[:, None] * _unit_pivot_offset(start, layout)
    origin = similarities.centre + np.einsum("vij,vj->vi", rotation, offset)
    relative = (tree.parent >= 0) & ~knowledge.pose_frozen
    parent = np.where(relative, tree.parent, 0)
    outer = np.where(relative[:, None, None], rotation[parent], np.eye(3))
    shift = np.where(relative[:, None], origin[parent], 0.0)
    inward = np.swapaxes(outer, 1, 2)
    dtype = start.log_size.dtype
    return replace(
        start,
        quaternion=torch.tensor(Rotation.from_matrix(inward @ rotation).as_quat(), dtype=dtype),
        translation=torch.tensor(np.einsum("vij,vj->vi", inward, origin - shift), dtype=dtype),
        log_size=torch.tensor(np.log(similarities.scale), dtype=dtype),
    )


def _freedom(layout: ParameterLayout, camera: Int[np.ndarray, "view"], knowledge: Knowledge) -> Freedom:
    camera_frozen = np.zeros(int(camera.max()) + 1, bool)
    camera_frozen[camera[knowledge.intrinsics_frozen]] = True
    return Freedom(
        view=~layout.pose_fixed,
        size=~layout.depth_fixed,
        camera=torch.from_numpy(~camera_frozen),
        anchor=~layout.depth_fixed[layout.anchor_view],
    )


def _log_focal_range(
    layout: ParameterLayout, camera: Int[np.ndarray, "view"], focal_range: tuple[float, float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Bounds of the focal length of every camera, from its largest image."""
    side = np.zeros(int(camera.max()) + 1)
    np.maximum.at(side, camera, layout.size.double().numpy().max(axis=1))
    lowest, highest = (torch.tensor(np.log(bound * side), dtype=layout.size.dtype) for bound in focal_range)
    return lowest, highest
