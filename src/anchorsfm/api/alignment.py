"""Sparse global alignment block by block, and all blocks in one call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from anchorsfm.align.adam import SolverResult
from anchorsfm.align.config import AlignConfig
from anchorsfm.align.run import PreparedAlignment, coarse_stage, fine_stage, finish, prepare
from anchorsfm.align.scene import long_side_px
from anchorsfm.api import arguments
from anchorsfm.api.arguments import ByName
from anchorsfm.api.condensed import CondensedScene, condense
from anchorsfm.api.depth import DepthMap
from anchorsfm.api.display import progress_of
from anchorsfm.api.images import open_images
from anchorsfm.api.known import CameraKnowledge
from anchorsfm.api.model import Model, Pose
from anchorsfm.api.picture import as_html, draw_scene
from anchorsfm.api.predictions import ImagePairs, are_ready, predict_pairs
from anchorsfm.api.settings import full_name, setting_names, with_settings
from anchorsfm.dense.pinhole import grid_colours
from anchorsfm.dense.views import dense_view
from anchorsfm.frontend import FRONTENDS
from anchorsfm.frontend.base import Frontend
from anchorsfm.geometry.transforms import invert
from anchorsfm.mapping.start_cameras import alignment_model
from anchorsfm.observe.config import KINEMATIC_MODES, GraphConfig
from anchorsfm.observe.tree import build_tree, tree_of_scores
from anchorsfm.scene.alignment import AlignmentResult
from anchorsfm.scene.errors import InputError, NoReconstructionError
from anchorsfm.scene.graph import KinematicTree
from anchorsfm.scene.progress import Progress
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.build import KeypointMatches, build_tracks
from anchorsfm.tracks.config import AdjustConfig, SparsifyConfig
from anchorsfm.tracks.points import triangulate_model
from anchorsfm.tracks.residuals import with_errors
from anchorsfm.tracks.sparsify import sparsify

_OF_FINE_STAGE = (
    "solver", "lr2", "niter2", "gamma2", "opt_pp", "opt_depth", "loss_dust3r_w", "gamma_fallback", "schedule",
    "tolerance", "patience", "pp_prior", "depth_prior",
)  # fmt: skip
"""Settings that can still change after the coarse stage."""


def kinematic_tree(scene: Any, mode: str = "hclust-ward", *, num_blocks: Any = None) -> KinematicTree:
    """The tree that poses are chained along.

    Args:
        scene: a connected `CondensedScene`, or a symmetric matrix (image, image) of pair scores: numbers of
            correspondences, 0 where there is no pair.
        mode: mst, or hclust- with ward, single, complete, average, weighted, centroid or median.
        num_blocks: for a matrix and hclust: blocks (image,) of each image's canonical view, which scores compare with.

    Raises:
        InputError: an argument cannot be used, or the images are not connected.
    """
    mode = arguments.choice("mode", mode, KINEMATIC_MODES)
    if isinstance(scene, CondensedScene):
        return build_tree(scene.scene.graph, scene.anchors, mode)
    scores = arguments.numbers("scene", scene, "image image")
    count = len(scores)
    if scores.shape[0] != scores.shape[1] or not count or not np.array_equal(scores, scores.T) or scores.min() < 0:
        raise InputError("scene: expected a CondensedScene or a symmetric matrix (image, image) of scores, at least 0")
    if num_blocks is None and mode != "mst":
        raise InputError(
            f"num_blocks is missing: mode = {mode!r} compares scores with the blocks (image,) of each image"
        )
    blocks = np.ones(count) if num_blocks is None else arguments.numbers("num_blocks", num_blocks, str(count))
    if blocks.min() < 1:
        raise InputError("num_blocks: expected at least 1 for each image")
    try:
        return tree_of_scores(scores, blocks.astype(np.int64), mode)
    except ValueError as error:
        raise InputError(f"scene: {error}") from error


class Alignment:
    """Aligned images: poses, intrinsics and dense depth by name. Rows of all arrays follow `names`.

    Focal lengths and principal points are in pixels of the original images; depth maps have their own size and `K`.
    """

    def __init__(
        self,
        scene: CondensedScene,
        prepared: PreparedAlignment,
        coarse: SolverResult,
        fine: SolverResult | None,
        *,
        others: "Sequence[Alignment]" = (),
        unregistered: Mapping[str, str] | None = None,
    ) -> None:
        self.scene = scene
        self.prepared = prepared
        self.coarse = coarse
        self.fine = fine
        self.others = tuple(others)
        """Other connected components, the largest first."""
        self.unregistered: Mapping[str, str] = dict(unregistered or {})
        """Images that are in no component, and why."""

    @cached_property
    def result(self) -> AlignmentResult:
        """Everything as plain arrays, in pixels of the front end's grid."""
        if self.fine is not None:
            return _with_exact_poses(finish(self.prepared, self.coarse, self.fine), self.prepared)
        only_coarse = replace(self.prepared, config=replace(self.prepared.config, niter2=0))
        found = finish(only_coarse, self.coarse, fine_stage(only_coarse, self.coarse))
        return _with_exact_poses(found, self.prepared)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the aligned images."""
        return self.scene.names

    @cached_property
    def poses(self) -> Mapping[str, Pose]:
        """Pose of every image by name."""
        poses = self.result.cam_from_world
        return ByName(
            {name: Pose(name=name, cam_from_world=poses[k]) for k, name in enumerate(self.names)}, "aligned image"
        )

    @cached_property
    def cam2w(self) -> Float[np.ndarray, "image 4 4"]:
        """World from camera, camera axes x right, y down, z forward."""
        bottom = np.tile(np.array([[[0.0, 0.0, 0.0, 1.0]]]), (len(self.names), 1, 1))
        return np.concatenate([invert(self.result.cam_from_world), bottom], axis=1)

    @cached_property
    def focals(self) -> Float[np.ndarray, "image"]:
        """Focal lengths in original pixels."""
        grid = self.scene.predictions.grid
        return self.result.focal_px / grid.scale[self._images].mean(axis=1)

    @cached_property
    def principal_points(self) -> Float[np.ndarray, "image 2"]:
        """Principal points in original pixels."""
        grid = self.scene.predictions.grid
        points = zip(self._images.tolist(), self.result.principal_point_px, strict=True)
        return np.concatenate([grid.to_image(image, point[None]) for image, point in points])

    @cached_property
    def pts3d(self) -> Mapping[str, Float[np.ndarray, "point 3"]]:
        """World points of the matched pixels of every image, by name."""
        return self._by_view(self.result.points)

    @cached_property
    def pts3d_confidences(self) -> Mapping[str, Float[np.ndarray, "point"]]:
        """Confidences of `pts3d`."""
        return self._by_view(self.result.point_confidence)

    @cached_property
    def pts3d_colors(self) -> Mapping[str, UInt8[np.ndarray, "point 3"]]:
        """Colours of `pts3d`; grey where the pictures are not known."""
        colours = {}
        for view, name in enumerate(self.names):
            xy = self.result.point_xy[self.result.point_view == view]
            rgb = self._colours(view)
            x, y = np.clip(np.floor(xy).astype(np.int64), 0, np.array(rgb.shape[1::-1]) - 1).T
            colours[name] = rgb[y, x]
        return ByName(colours, "aligned image")

    @property
    def depth_maps(self) -> Mapping[str, DepthMap]:
        """Dense depth with confidence and colours of every image, made when asked for."""
        return _DepthMaps(self)

    @property
    def losses(self) -> dict[str, Float[np.ndarray, "iteration"]]:
        """What was minimised, before every iteration of the `coarse` and the `fine` stage."""
        return {"coarse": self.result.coarse.total, "fine": self.result.fine.total}

    @property
    def status(self) -> dict[str, str]:
        """Why each stage ended."""
        return {"coarse": self.result.coarse.status.value, "fine": self.result.fine.status.value}

    @cached_property
    def model(self) -> Model:
        """The cameras with points: multi-view tracks of the matches, triangulated with these poses, not adjusted."""
        predictions = self.scene.predictions
        cameras = alignment_model(self.result, predictions.images, predictions.grid)
        triangulated = self._triangulated(cameras)
        total = np.zeros((len(triangulated.points), 3))
        tracks = triangulated.tracks
        for view, image in enumerate(self._images.tolist()):
            rows = np.flatnonzero(tracks.obs_image == image)
            rgb = self._colours(view)
            xy = predictions.grid.to_grid(image, tracks.obs_xy[rows])
            x, y = np.clip(np.floor(xy).astype(np.int64), 0, np.array(rgb.shape[1::-1]) - 1).T
            np.add.at(total, tracks.obs_point[rows], rgb[y, x])
        count = np.bincount(tracks.obs_point, minlength=len(total))[:, None]
        coloured = with_errors(replace(triangulated, rgb=np.round(total / count).astype(np.uint8)))
        return Model(
            coloured,
            predictions.images.names,
            unregistered=self.unregistered,
            photographs=predictions.images.root if self._has_pictures else None,
        )

    def save_colmap(self, folder: str | Path, *, text: bool = False) -> Path:
        """Write poses, pinhole cameras, points and tracks as a COLMAP model, and return the folder.

        Raises the errors of `Model.save`.
        """
        return self.model.save(folder, text=text)

    def __repr__(self) -> str:
        more = f", {len(self.others)} further components" if self.others else ""
        stage = "coarse only" if self.fine is None else f"fine stage: {self.status['fine']}"
        return f"<Alignment: {len(self.names)} images, {len(self.result.points):,} points, {stage}{more}>"

    def _repr_html_(self) -> str:
        stride = max(1, len(self.result.points) // 20_000)
        shown = slice(None, None, stride)
        colours = np.zeros((len(self.result.points), 3), np.uint8)
        for view, name in enumerate(self.names):
            colours[self.result.point_view == view] = self.pts3d_colors[name]
        picture = draw_scene(self.result.cam_from_world, self.result.points[shown], colours[shown])
        return as_html(picture, repr(self).strip("<>"))

    @property
    def _images(self) -> Int[np.ndarray, "image"]:
        """Rows of the images among those of the predictions."""
        return self.scene.scene.image_index

    @property
    def _has_pictures(self) -> bool:
        images = self.scene.predictions.images
        return images.path(int(self._images[0])).is_file()

    def _colours(self, view: int) -> UInt8[np.ndarray, "h w 3"]:
        """The picture of a view on the front end's grid."""
        predictions, image = self.scene.predictions, int(self._images[view])
        if self._has_pictures:
            return grid_colours(predictions.images, predictions.grid, image)
        width, height = predictions.grid.size_wh[image].tolist()
        return np.full((height, width, 3), 128, np.uint8)

    def _by_view(self, values: np.ndarray) -> Mapping[str, np.ndarray]:
        of_view = self.result.point_view
        return ByName({name: values[of_view == view] for view, name in enumerate(self.names)}, "aligned image")

    def _triangulated(self, cameras: Reconstruction) -> Reconstruction:
        predictions, graph = self.scene.predictions, self.scene.scene.graph
        grid, size_wh = predictions.grid, predictions.images.size_wh
        ends = [self._images[graph.pair[graph.match_pair, side]] for side in (0, 1)]
        xy = [np.zeros((len(graph.confidence), 2)), np.zeros((len(graph.confidence), 2))]
        for side, coordinates in enumerate((graph.xy_i, graph.xy_j)):
            for image in np.unique(ends[side]).tolist():
                here = ends[side] == image
                xy[side][here] = grid.to_image(image, coordinates[here].astype(np.float64))
        confidence = graph.confidence.astype(np.float64)
        matches = KeypointMatches(image_i=ends[0], image_j=ends[1], xy_i=xy[0], xy_j=xy[1], confidence=confidence)
        pixel_px = 1 / grid.scale.mean(axis=1)
        sparse = sparsify(matches, SparsifyConfig(), pixel_px=pixel_px, size_wh=size_wh).matches
        tracks = build_tracks(sparse, len(size_wh))
        limits = AdjustConfig()
        max_error_px = limits.second_error * size_wh[cameras.image_index].max(axis=1).astype(np.float64)
        return triangulate_model(cameras, tracks, max_error_px=max_error_px, min_angle_deg=limits.min_angle_deg)


class _DepthMaps(ByName[DepthMap]):
    """Depth maps of an alignment by name; only the one that is asked for is in memory."""

    def __init__(self, alignment: Alignment) -> None:
        super().__init__(dict.fromkeys(alignment.names), "aligned image")  # type: ignore[arg-type]
        self._alignment = alignment

    def __getitem__(self, name: str) -> DepthMap:
        super().__getitem__(name)  # the error of an unknown name
        alignment = self._alignment
        view = alignment.names.index(name)
        observed = alignment.scene.scene
        canonical = observed.views[view]
        assert canonical is not None, "an aligned image has a canonical view"
        found = dense_view(alignment.result, view, canonical, observed.config.subsample)
        return DepthMap(
            depth=np.maximum(found.depth, 0),
            confidence=found.confidence,
            focal_px=found.focal_px,
            principal_point_px=found.principal_point_px,
            cam_from_world=found.cam_from_world,
            rgb=alignment._colours(view),
        )


def align_coarse(
    scene: CondensedScene,
    tree: KinematicTree | str = "hclust-ward",
    *,
    shared_intrinsics: bool | None = None,
    poses: Any = None,
    intrinsics: Any = None,
    freeze_poses: bool = True,
    freeze_intrinsics: bool = True,
    progress: bool | Progress | None = None,
    **settings: object,
) -> Alignment:
    """The coarse stage: poses and sizes that bring matched 3D points together.

    Args:
        scene: one connected component (`scene.components`).
        tree: of `kinematic_tree`, or its mode.
        shared_intrinsics: True: one camera for all images; False: one for each; None: as files say.
        poses: known poses, as for `sparse_global_alignment`.
        intrinsics: known intrinsics, as for `sparse_global_alignment`.
        freeze_poses: False: known poses are only where this stage starts, and where the result lies.
        freeze_intrinsics: False: known intrinsics are only where the stages start.
        progress: as for `reconstruct`.
        settings: of `AlignConfig`: niter1, lr1, gamma1, solver ... Settings that only Adam has choose Adam.

    Raises:
        InputError: an argument cannot be used.
    """
    if not isinstance(scene, CondensedScene):
        raise InputError(f"scene: expected what condense() returns, not {arguments.describe(scene)}")
    config = with_settings(AlignConfig(), settings)
    if isinstance(tree, str):
        tree = kinematic_tree(scene, tree)
    elif not isinstance(tree, KinematicTree) or len(tree.parent) != len(scene.names):
        raise InputError(f"tree: expected what kinematic_tree() returns for these {len(scene.names)} images, or a mode")
    known = CameraKnowledge(
        shared_intrinsics=shared_intrinsics,
        poses=poses,
        intrinsics=intrinsics,
        freeze_poses=freeze_poses,
        freeze_intrinsics=freeze_intrinsics,
    )
    prepared = _prepared(scene, tree, config, known)
    with progress_of(progress) as shown:
        return Alignment(scene, prepared, coarse_stage(prepared, shown), None)


def align_fine(coarse: Alignment, *, progress: bool | Progress | None = None, **settings: object) -> Alignment:
    """The fine stage: all unknowns from reprojection errors, from where the coarse stage ended.

    `settings` are those that this stage has: niter2, lr2, gamma2, opt_pp, opt_depth, loss_dust3r_w, solver ...

    Raises InputError for an argument that cannot be used.
    """
    if not isinstance(coarse, Alignment):
        raise InputError(f"coarse: expected what align_coarse() returns, not {arguments.describe(coarse)}")
    names = setting_names(AlignConfig())
    for name in settings:
        if full_name(name, names) not in _OF_FINE_STAGE:
            raise InputError(f"{name} has no effect after the coarse stage: give it to align_coarse()")
    config = with_settings(coarse.prepared.config, settings)
    if config.niter2 == 0:
        raise InputError("niter2 = 0: expected at least 1 iteration; without any, the coarse result is the result")
    prepared = replace(coarse.prepared, config=config)
    with progress_of(progress) as shown:
        return Alignment(coarse.scene, prepared, coarse.coarse, fine_stage(prepared, coarse.coarse, shown))


@dataclass(frozen=True)
class _Split:
    """Settings of one call by the block that takes them."""

    graph: dict[str, object]
    align: dict[str, object]
    frontend: dict[str, object]


def sparse_global_alignment(
    images: Any,
    pairs: ImagePairs = "complete",
    frontend: str | Frontend = "classical",
    *,
    cache: str | Path | None = None,
    shared_intrinsics: bool | None = None,
    poses: Any = None,
    intrinsics: Any = None,
    freeze_poses: bool = True,
    freeze_intrinsics: bool = True,
    desc_conf: str = "desc_conf",
    focal_px: int | float | None = None,
    progress: bool | Progress | None = None,
    **settings: object,
) -> Alignment:
    """All blocks: predictions, canonical views, tree, coarse and fine alignment. Nothing is adjusted afterwards.

    Args:
        images: a folder, files, arrays (height, width, 3), `Predictions`, or a list of ready predictions.
        pairs: a scene graph such as "swin-5", or pairs: rows [(0, 1), ...], names, or dictionaries with `idx`.
        frontend: "classical", "mast3r", or an object of your own.
        cache: folder for predictions: another call goes on from there.
        shared_intrinsics: True: one camera for all images; False: one for each; None: as files say.
        poses: image name or row -> cam_from_world (3, 4) or (4, 4), or the `Pose` of another model, of some images or
            all: the result is in their world, at their scale.
        intrinsics: for all images, or image name or row -> a focal length in original pixels, a matrix K (3, 3), or the
            `Intrinsics` of another model. A front end that is asked here is told them. The alignment has one focal
            length for both directions and no distortion.
        freeze_poses: False: known poses are only where the alignment starts, and where the result lies.
        freeze_intrinsics: False: known intrinsics are only where the alignment starts.
        desc_conf: confidence of matches: "desc_conf" the front end's own, "conf" that of the pointmaps.
        focal_px: focal length of all images in original pixels that the front end starts from; the alignment refines
            it. `intrinsics` are kept.
        progress: as for `reconstruct`.
        settings: subsample, matching_conf_thr, kinematic_mode, lr1, niter1, gamma1, lr2, niter2, gamma2, opt_pp,
            opt_depth, loss_dust3r_w ... (fields of `GraphConfig` and `AlignConfig`) or of the front end. lr1, lr2 and
            gamma1, which the default solver does not have, choose Adam.

    Returns:
        The largest connected component; others are its `others`, images that match nothing are in `unregistered`.

    Raises:
        InputError: an argument or image cannot be used.
        NoReconstructionError: no pair has a match.
    """
    parts = _split(settings, frontend)
    config = with_settings(AlignConfig(), parts.align)
    with_settings(GraphConfig(), parts.graph)
    arguments.choice("desc_conf", desc_conf, ("desc_conf", "conf"))
    if focal_px is not None and intrinsics is not None:
        raise InputError("focal_px and intrinsics: give one of them")
    known = CameraKnowledge(
        shared_intrinsics=shared_intrinsics,
        poses=poses,
        intrinsics=intrinsics,
        freeze_poses=freeze_poses,
        freeze_intrinsics=freeze_intrinsics,
    )
    of_frontend = parts.frontend
    with progress_of(progress) as shown:
        if not known.is_empty and not are_ready(images):
            images = known.as_priors(open_images(images, focal_px=focal_px, progress=shown))
            if frontend == "classical" and intrinsics is not None and freeze_intrinsics:
                of_frontend = {"intrinsics__recorded_focal_spread": 0.0, **of_frontend}
        predictions = predict_pairs(
            images, pairs, frontend, cache=cache, focal_px=focal_px, progress=shown, **of_frontend
        )
        scene = condense(predictions, desc_conf=desc_conf, progress=shown, **parts.graph)
        aligned = []
        for part in scene.components:
            tree = build_tree(
                part.scene.graph,
                part.anchors,
                config.kinematic_mode,
                allow_unmatched_edges=config.reference.unmatched_tree_edges,
            )
            prepared = _prepared(part, tree, config, known)
            coarse = coarse_stage(prepared, shown)
            fine = fine_stage(prepared, coarse, shown) if config.niter2 else None
            aligned.append(Alignment(part, prepared, coarse, fine))
    if not aligned:
        raise NoReconstructionError(f"none of the {len(predictions)} pairs of images has a match with depth")
    placed = {name for part in aligned for name in part.names}
    missing = {name: "no pair that matches shows it" for name in predictions.names if name not in placed}
    first = aligned[0]
    return Alignment(first.scene, first.prepared, first.coarse, first.fine, others=aligned[1:], unregistered=missing)


def _split(settings: Mapping[str, object], frontend: object) -> _Split:
    """Each setting to the blocks that have it. Raises InputError for one that none has."""
    graph_names, align_names = setting_names(GraphConfig()), setting_names(AlignConfig())
    own_names: list[str] = []
    if isinstance(frontend, str):
        own_names = setting_names(FRONTENDS[arguments.choice("frontend", frontend, FRONTENDS)]())
    parts = _Split({}, {}, {})
    for given, value in settings.items():
        name = given.replace("__", ".")
        owners = [part for part, names in ((parts.graph, graph_names), (parts.align, align_names)) if name in names]
        if not owners:
            full_name(given, [*graph_names, *align_names, *own_names])
            owners = [parts.frontend]
        for part in owners:
            part[given] = value
    return parts


def _with_exact_poses(result: AlignmentResult, prepared: PreparedAlignment) -> AlignmentResult:
    """The result with frozen poses in full precision."""
    poses = result.cam_from_world.copy()
    for view, known in enumerate(prepared.known or ()):
        if known is not None and known.cam_from_world is not None and result.pose_known[view]:
            poses[view] = known.cam_from_world
    return replace(result, cam_from_world=poses)


def _prepared(
    scene: CondensedScene, tree: KinematicTree, config: AlignConfig, known: CameraKnowledge
) -> PreparedAlignment:
    predictions, rows = scene.predictions, scene.scene.image_index
    images, grid = predictions.images, predictions.grid
    return prepare(
        scene.scene,
        scene.anchors,
        tree,
        config,
        camera_index=known.camera_index(images)[rows],
        long_side_px=long_side_px(images, grid)[rows],
        known=None if known.is_empty else known.about(images).for_alignment(rows, grid),
    )
