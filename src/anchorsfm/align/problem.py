"""The alignment as a problem: constants, start, what is free, two objectives (docs/method.md, Unknowns, Losses).

Solvers see a `Problem` and an `Objective` only: a function of `Variables` that returns losses. Observations are counted
once per pair in 3D, and once per direction in 2D.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from anchorsfm.align.config import AlignConfig
from anchorsfm.align.losses import (
    CLIP_SIDES,
    FIXED_CLIP_PX,
    PixelClip,
    RayChunks,
    RobustLoss,
    matching_loss_3d,
    regression_loss,
    reprojection_loss,
)
from anchorsfm.align.model import (
    Cameras,
    ParameterLayout,
    Variables,
    anchor_depths,
    calibration,
    cameras_of,
    inverse_calibration,
    relative_poses,
)
from anchorsfm.align.observations import DirectedObservations, point_chunks, ray_chunks
from anchorsfm.align.priors import PriorLoss, make_priors
from anchorsfm.observe.anchors import require_views
from anchorsfm.observe.canonical import anchor_pixels
from anchorsfm.observe.graph import ObservedScene
from anchorsfm.scene.graph import Anchors


@dataclass(frozen=True, kw_only=True)
class Observations:
    """Matches of the well matching pairs in both directions, and regression targets of the other pairs."""

    matches: DirectedObservations
    """Directed pairs 0 .. n-1 look from i to j, n .. 2n-1 from j to i, with rows in the same order."""
    fallback: DirectedObservations
    pose_weight: float
    fallback_weight: float

    @property
    def num_pairs(self) -> int:
        return len(self.matches.source) // 2

    def total_weight(self, fallback_share: float) -> float:
        """Summed confidence over which the losses are means: of the matches, or else of what the fallback counts
        for."""
        return 2 * self.pose_weight if self.pose_weight > 0 else self.fallback_weight / max(fallback_share, 1e-12)

    @cached_property
    def typical_weight(self) -> float:
        """Median confidence of an observation."""
        weight = self.matches.weight if self.pose_weight > 0 else self.fallback.weight
        return float(np.median(weight)) if len(weight) else 0.0


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Weighted means over observations, and what is minimised."""

    matching: Float[Tensor, ""]
    fallback: Float[Tensor, ""]
    total: Float[Tensor, ""]


def collect_observations(scene: ObservedScene, anchors: Anchors, config: AlignConfig) -> Observations:
    """Flat observations of one component."""
    matches = _match_rows(scene, anchors)
    fallback = (
        _fallback_at_matches(scene, anchors) if config.reference.fallback_at_matches else _fallback_rows(scene, anchors)
    )
    return Observations(
        matches=matches,
        fallback=fallback,
        pose_weight=float(matches.weight.sum(dtype=np.float64)) / 2,
        fallback_weight=float(fallback.weight.sum(dtype=np.float64)),
    )


def _match_rows(scene: ObservedScene, anchors: Anchors) -> DirectedObservations:
    graph = scene.graph
    used_pair = graph.is_matching.astype(bool)
    runs = _runs(used_pair[graph.match_pair])
    pair = (np.cumsum(used_pair) - 1)[np.concatenate([graph.match_pair[run] for run in runs])]
    source, target = graph.pair[used_pair].T
    # a pixel behind its camera cannot be observed
    visible = (anchors.depth_ratio_i > 0) & (anchors.depth_ratio_j > 0)
    weight = graph.confidence if visible.all() else np.where(visible, graph.confidence, 0)
    return DirectedObservations(
        source=np.concatenate([source, target]),
        target=np.concatenate([target, source]),
        pair=np.concatenate([pair, pair + len(source)]),
        xy=_used(graph.xy_i, graph.xy_j, runs),
        anchor=_used(anchors.anchor_i, anchors.anchor_j, runs),
        depth_ratio=_used(anchors.depth_ratio_i, anchors.depth_ratio_j, runs),
        goal=_used(graph.xy_j, graph.xy_i, runs),
        weight=_used(weight, weight, runs),
    )


def _used(
    first: Shaped[np.ndarray, "match *value"], second: Shaped[np.ndarray, "match *value"], runs: list[slice]
) -> Shaped[np.ndarray, "row *value"]:
    """Used rows of both, one after the other: whole runs are copied much faster than single rows."""
    return np.concatenate([values[run] for values in (first, second) for run in runs])


def _runs(flags: Bool[np.ndarray, "match"]) -> list[slice]:
    """Where flags are set, from the first to the last of each run."""
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False))
    runs = [slice(*pair) for pair in edges.reshape(-1, 2).tolist()]
    return runs or [slice(0, 0)]


def _fallback_rows(scene: ObservedScene, anchors: Anchors) -> DirectedObservations:
    """Every anchor that a badly matching pair says something about, once, at its own pixel."""
    targets = scene.graph.fallback
    order = np.lexsort((targets.anchor, targets.frame, targets.image))
    image, frame, anchor = (v[order].astype(np.int64) for v in (targets.image, targets.frame, targets.anchor))
    xy = np.zeros((len(order), 2), np.float32)
    start = np.searchsorted(image, np.arange(scene.graph.num_images + 1))
    for k, view in enumerate(require_views(scene.views)):
        height, width = view.relative_depth.shape
        rows = slice(start[k], start[k + 1])
        xy[rows] = anchor_pixels((width, height), scene.config.subsample)[anchor[rows]] + scene.config.pixel_centre
    source, target, pair = _directed_pairs(image, frame)
    return DirectedObservations(
        source=source,
        target=target,
        pair=pair,
        xy=xy,
        anchor=anchors.start[image] + anchor,
        depth_ratio=np.ones(len(order), np.float32),
        goal=targets.xyz[order],
        weight=targets.confidence[order],
    )


def _fallback_at_matches(scene: ObservedScene, anchors: Anchors) -> DirectedObservations:
    """The original's version: each matched pixel of an image, with whatever image, on the target of its block."""
    graph, targets = scene.graph, scene.graph.fallback
    ends = (
        (graph.pair[graph.match_pair, 0], graph.xy_i, anchors.anchor_i, anchors.depth_ratio_i),
        (graph.pair[graph.match_pair, 1], graph.xy_j, anchors.anchor_j, anchors.depth_ratio_j),
    )
    view, xy, anchor, ratio = (np.concatenate(part) for part in zip(*ends, strict=True))
    group = targets.image.astype(np.int64) * graph.num_images + targets.frame
    pieces: list[tuple[np.ndarray, ...]] = []
    for key in np.unique(group):
        image, frame = divmod(int(key), graph.num_images)
        rows = np.flatnonzero(view == image)
        in_group = group == key
        row_of_anchor = np.full(int(anchors.start[image + 1] - anchors.start[image]), -1)
        row_of_anchor[targets.anchor[in_group]] = np.flatnonzero(in_group)
        target_row = row_of_anchor[anchor[rows] - anchors.start[image]]
        rows, target_row = rows[target_row >= 0], target_row[target_row >= 0]
        sides = (np.full(len(rows), image), np.full(len(rows), frame))
        goals = (targets.xyz[target_row], targets.confidence[target_row])
        pieces.append((*sides, xy[rows], anchor[rows], ratio[rows], *goals))
    if not pieces:
        return _fallback_rows(scene, anchors)
    image_rows, frame_rows, xy, anchor, ratio, goal, weight = (
        np.concatenate(part) for part in zip(*pieces, strict=True)
    )
    source, target, pair = _directed_pairs(image_rows, frame_rows)
    return DirectedObservations(
        source=source, target=target, pair=pair, xy=xy, anchor=anchor, depth_ratio=ratio, goal=goal, weight=weight
    )


def _directed_pairs(
    image: Int[np.ndarray, "row"], frame: Int[np.ndarray, "row"]
) -> tuple[Int[np.ndarray, "pair"], Int[np.ndarray, "pair"], Int[np.ndarray, "row"]]:
    """Source view, target view, and the directed pair of every row."""
    views = int(frame.max(initial=0)) + 1
    unique, inverse = np.unique(image.astype(np.int64) * views + frame, return_inverse=True)
    return unique // views, unique % views, inverse.reshape(-1)


class CoarseObjective:
    """Distances between matched 3D points; poses and sizes are free, intrinsics and depths are constants."""

    def __init__(
        self, observations: Observations, start: Variables, layout: ParameterLayout, config: AlignConfig
    ) -> None:
        self._layout = layout
        self._observations = observations
        self._robust = RobustLoss(config.gamma1)
        self._robust_fallback = RobustLoss(config.gamma_fallback)
        self._fallback_share = config.loss_dust3r_w
        self._unscaled = config.reference.fallback_unscaled
        matches, fallback = observations.matches, observations.fallback
        count = len(matches) // 2
        points = unit_points(matches, start, layout)
        dtype = start.log_size.dtype
        self._chunks = point_chunks(matches.pair[:count], points[:count], points[count:], matches.weight[:count], dtype)
        fallback_points = unit_points(fallback, start, layout)
        self._fallback_chunks = point_chunks(fallback.pair, fallback_points, fallback.goal, fallback.weight, dtype)
        self._pairs = _views_of(matches, observations.num_pairs)
        self._fallback_pairs = _views_of(fallback, len(fallback.source))

    def __call__(self, variables: Variables) -> Losses:
        cameras = cameras_of(variables, self._layout)
        zero = variables.log_size.new_zeros(())
        matching = fallback = zero
        if len(self._observations.matches):
            matrix = self._matrices(cameras, self._pairs, unscaled=False)
            matching = matching_loss_3d(matrix, self._chunks, self._robust) / self._observations.pose_weight
        if len(self._observations.fallback):
            matrix = self._matrices(cameras, self._fallback_pairs, self._unscaled)
            fallback = matching_loss_3d(matrix, self._fallback_chunks, self._robust_fallback)
            fallback = fallback / self._observations.fallback_weight
        return Losses(matching=matching, fallback=fallback, total=matching + self._fallback_share * fallback)

    @staticmethod
    def _matrices(
        cameras: Cameras, pairs: tuple[Int[Tensor, "pair"], Int[Tensor, "pair"]], unscaled: bool
    ) -> Float[Tensor, "pair 3 7"]:
        """M such that M (x_a, x_b, 1) is the difference of both points in frame b."""
        rotation, translation = relative_poses(cameras, *pairs)
        scale_a, scale_b = (cameras.scale.index_select(0, view)[:, None, None] for view in pairs)
        if unscaled:
            scale_b = torch.ones_like(scale_b)
        identity = torch.eye(3, dtype=rotation.dtype).expand(len(rotation), 3, 3)
        return torch.cat([scale_a * rotation, -scale_b * identity, translation[:, :, None]], dim=2)


class FineObjective:
    """Reprojection errors of matches in both directions; everything may be free."""

    def __init__(
        self,
        observations: Observations,
        layout: ParameterLayout,
        config: AlignConfig,
        dtype: torch.dtype,
        start_core: Float[Tensor, "anchor"] | None = None,
    ) -> None:
        """start_core: core depths of the front end, from which the prior measures corrections; None: no prior on
        depths."""
        self._layout = layout
        self._observations = observations
        self._robust = RobustLoss(config.gamma2)
        self._robust_fallback = RobustLoss(config.gamma_fallback)
        self._fallback_share = config.loss_dust3r_w
        self._unscaled = config.reference.fallback_unscaled
        size = layout.size.numpy().astype(np.float64)
        self._chunks: RayChunks = ray_chunks(observations.matches, size, dtype)
        self._fallback_chunks: RayChunks = ray_chunks(observations.fallback, size, dtype)
        self._pairs = _views_of(observations.matches, len(observations.matches.source))
        self._fallback_pairs = _views_of(observations.fallback, len(observations.fallback.source))
        self._clip = _pixel_clip(layout.size.index_select(0, self._pairs[1]), config.reference.fixed_pixel_clip)
        total, typical = observations.total_weight(config.loss_dust3r_w), observations.typical_weight
        priors = make_priors(total, typical, layout, config, config.depth_prior)
        on_depths = config.depth_prior > 0 and not config.reference.omit_priors
        self._prior = PriorLoss(priors, layout, start_core if on_depths else None)

    def __call__(self, variables: Variables) -> Losses:
        layout = self._layout
        cameras = cameras_of(variables, layout)
        depth = anchor_depths(variables, cameras, layout)
        inverse = inverse_calibration(cameras, layout)
        relief_factor = layout.base_focal / cameras.focal
        zero = variables.log_size.new_zeros(())
        matching = fallback = zero
        if len(self._observations.matches):
            source, target = self._pairs
            rotation, translation = relative_poses(cameras, source, target)
            project = calibration(cameras).index_select(0, target)
            matching = reprojection_loss(
                project @ rotation @ inverse.index_select(0, source),
                (project @ translation[:, :, None])[:, :, 0],
                depth,
                relief_factor.index_select(0, source),
                self._chunks,
                self._robust,
                self._clip,
            ) / (2 * self._observations.pose_weight)
        if len(self._observations.fallback):
            source, target = self._fallback_pairs
            rotation, translation = relative_poses(cameras, source, target)
            scale = cameras.scale.index_select(0, target)
            fallback = (
                regression_loss(
                    rotation @ inverse.index_select(0, source),
                    translation,
                    depth,
                    relief_factor.index_select(0, source),
                    torch.ones_like(scale) if self._unscaled else scale,
                    self._fallback_chunks,
                    self._robust_fallback,
                )
                / self._observations.fallback_weight
            )
        prior = self._prior(variables, cameras)
        return Losses(matching=matching, fallback=fallback, total=matching + self._fallback_share * fallback + prior)


def _views_of(rows: DirectedObservations, count: int) -> tuple[Int[Tensor, "pair"], Int[Tensor, "pair"]]:
    return torch.from_numpy(rows.source[:count].copy()), torch.from_numpy(rows.target[:count].copy())


def _pixel_clip(size: Float[Tensor, "pair 2"], fixed: bool) -> PixelClip:
    """Far outside the image a projection says no more than that."""
    if fixed:
        return PixelClip(*(torch.full_like(size, bound) for bound in FIXED_CLIP_PX))
    side = size.max(dim=1, keepdim=True).values.expand(-1, 2) if len(size) else size
    return PixelClip(*((k * side).contiguous() for k in CLIP_SIDES))


class UnitPoints:
    """Points of source pixels in the frames of their cameras for size 1 and no normalisation, in float64."""

    def __init__(self, variables: Variables, layout: ParameterLayout) -> None:
        with torch.no_grad():
            cameras = cameras_of(variables, layout)
            self._cameras = Cameras(
                rotation=cameras.rotation,
                centre=cameras.centre,
                focal=cameras.focal,
                principal_point=cameras.principal_point,
                scale=torch.ones_like(cameras.scale),
            )
            self._depth = anchor_depths(variables, self._cameras, layout).double().numpy()
        self._layout = layout

    def __call__(self, rows: DirectedObservations, chosen: Int[np.ndarray, "some"]) -> Float[np.ndarray, "some 3"]:
        return points_in_camera(picked(rows, chosen), self._depth, self._cameras, self._layout)


def unit_points(
    rows: DirectedObservations, variables: Variables, layout: ParameterLayout
) -> Float[np.ndarray, "row 3"]:
    """`UnitPoints` of all rows."""
    return UnitPoints(variables, layout)(rows, np.arange(len(rows)))


def picked(rows: DirectedObservations, chosen: Int[np.ndarray, "some"]) -> DirectedObservations:
    """Some of the rows."""
    return replace(
        rows,
        pair=rows.pair[chosen],
        xy=rows.xy[chosen],
        anchor=rows.anchor[chosen],
        depth_ratio=rows.depth_ratio[chosen],
        goal=rows.goal[chosen],
        weight=rows.weight[chosen],
    )


def points_in_camera(
    rows: DirectedObservations, depth: Float[np.ndarray, "anchor"], cameras: Cameras, layout: ParameterLayout
) -> Float[np.ndarray, "row 3"]:
    """Points of source pixels in the frames of their cameras."""
    view = rows.source[rows.pair]
    focal, base = cameras.focal.detach().double().numpy(), layout.base_focal.double().numpy()
    pp = cameras.principal_point.detach().double().numpy()
    z = depth[rows.anchor] * (1 + (rows.depth_ratio - 1) * (base / focal)[view])
    lateral = (rows.xy - pp[view]) / focal[view, None] * z[:, None]
    return np.column_stack([lateral, z])


@dataclass(frozen=True, kw_only=True)
class Freedom:
    """Which elements of the unknowns may move."""

    view: Bool[Tensor, "view"]
    """Views whose pose is free."""
    size: Bool[Tensor, "view"]
    camera: Bool[Tensor, "camera"]
    anchor: Bool[Tensor, "anchor"]

    def mask(self, name: str) -> Tensor | None:
        """0/1 factor for the gradient of a variable, None where all of it is free."""
        by_name = {
            "quaternion": self.view,
            "translation": self.view,
            "log_size": self.size,
            "log_focal": self.camera,
            "principal_point": self.camera,
            "core_depth": self.anchor,
        }
        flags = by_name[name]
        if bool(flags.all()):
            return None
        return flags[:, None] if name in ("quaternion", "translation", "principal_point") else flags


@dataclass(frozen=True, kw_only=True)
class Problem:
    """All a solver needs to know."""

    layout: ParameterLayout
    observations: Observations
    start: Variables
    coarse_freedom: Freedom
    fine_freedom: Freedom
    log_focal_range: tuple[Float[Tensor, "camera"], Float[Tensor, "camera"]]
    fixed_pose: Bool[np.ndarray, "view"]
