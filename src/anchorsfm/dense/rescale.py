"""The depth maps of an alignment brought onto the cameras of the adjusted model."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from anchorsfm.colmap.cameras import focal_length_px, principal_point_px
from anchorsfm.dense.views import DenseView, dense_view
from anchorsfm.geometry.transforms import transform
from anchorsfm.observe.anchors import require_views
from anchorsfm.observe.graph import ObservedScene
from anchorsfm.scene.alignment import AlignmentResult, SolverStatus, StageHistory
from anchorsfm.scene.images import ImageGrid
from anchorsfm.scene.reconstruction import Reconstruction


def canonical_depths(model: Reconstruction, scene: ObservedScene) -> AlignmentResult:
    """Canonical depths in place of an alignment, for the views of a model that another mapper made.

    Each view's depths have a scale of their own until `onto_model` gives them that of the model. Views that no usable
    pair reaches have no depth and are left out.
    """
    views = [k for k, image in enumerate(model.image_index) if scene.views[int(image)] is not None]
    canonical = require_views(tuple(scene.views[int(image)] for image in model.image_index[views]))
    nothing = np.zeros(0)
    skipped = StageHistory(
        loss=nothing, fallback_loss=nothing, total=nothing, status=SolverStatus.SKIPPED, method="none"
    )
    return AlignmentResult(
        image_index=model.image_index[views],
        cam_from_world=model.cam_from_world[views],
        focal_px=np.array([view.focal_px for view in canonical]),
        base_focal_px=np.array([view.focal_px for view in canonical]),
        principal_point_px=np.array([view.relative_depth.shape[::-1] for view in canonical]) / 2,
        anchor_start=np.cumsum([0, *(view.anchor_depth.size for view in canonical)]),
        anchor_depth=np.concatenate([view.anchor_depth.ravel() for view in canonical]),
        points=np.zeros((0, 3)),
        point_view=np.zeros(0, np.int64),
        point_xy=np.zeros((0, 2)),
        point_confidence=nothing,
        coarse=skipped,
        fine=skipped,
        pose_known=np.zeros(len(views), bool),
    )


def onto_model(
    alignment: AlignmentResult, model: Reconstruction, scene: ObservedScene, grid: ImageGrid
) -> AlignmentResult:
    """The registered views with the model's poses and intrinsics, and depths in the scale of the model.

    The depths of each view are multiplied by the median ratio of the depths of its triangulated points to the dense
    depths at the pixels where it sees them: more parameters than this one gain less than what matching with the
    adjusted cameras then removes. Distortion is left to `dense.pinhole`; here it would move a point by less than a grid
    pixel for common lenses.
    """
    row = {int(image): k for k, image in enumerate(alignment.image_index)}
    model = _views_of(model, np.isin(model.image_index, alignment.image_index))
    views = np.array([row[int(image)] for image in model.image_index])
    focal_px = np.array([focal_length_px(model.cameras[c]) for c in model.camera_index])
    centre_px = np.array([principal_point_px(model.cameras[c]) for c in model.camera_index])
    starts = [slice(alignment.anchor_start[v], alignment.anchor_start[v + 1]) for v in views]
    kept = replace(
        alignment,
        image_index=model.image_index,
        cam_from_world=model.cam_from_world,
        focal_px=focal_px * grid.scale[model.image_index].mean(axis=1),
        base_focal_px=alignment.base_focal_px[views],
        principal_point_px=centre_px * grid.scale[model.image_index] + grid.offset[model.image_index],
        anchor_start=np.concatenate([[0], np.cumsum([s.stop - s.start for s in starts])]),
        anchor_depth=np.concatenate([alignment.anchor_depth[s] for s in starts]),
        points=np.zeros((0, 3)),
        point_view=np.zeros(0, np.int64),
        point_xy=np.zeros((0, 2)),
        point_confidence=np.zeros(0),
        pose_known=alignment.pose_known[views],
    )
    canonical = require_views(tuple(scene.views[k] for k in model.image_index.tolist()))
    depth = kept.anchor_depth.copy()
    for view, canonical_view in enumerate(canonical):
        rows = slice(kept.anchor_start[view], kept.anchor_start[view + 1])
        dense = dense_view(kept, view, canonical_view, scene.config.subsample)
        depth[rows] *= _depth_ratio(dense, model, view, grid)
    return replace(kept, anchor_depth=depth)


def _views_of(model: Reconstruction, keep: Bool[np.ndarray, "view"]) -> Reconstruction:
    """Some of the views; points and tracks stay."""
    return replace(
        model,
        image_index=model.image_index[keep],
        cam_from_world=model.cam_from_world[keep],
        camera_index=model.camera_index[keep],
    )


def _depth_ratio(dense: DenseView, model: Reconstruction, view: int, grid: ImageGrid) -> float:
    rows = np.flatnonzero(model.tracks.obs_image == model.image_index[view])
    z = transform(model.cam_from_world[view], model.points[model.tracks.obs_point[rows]])[:, 2]
    size_wh = np.array(dense.depth.shape[::-1])
    xy = grid.to_grid(int(model.image_index[view]), model.tracks.obs_xy[rows])
    x, y = np.clip(np.floor(xy).astype(np.int64), 0, size_wh - 1).T
    known: Float[np.ndarray, obs] = dense.confidence[y, x]
    good = (known > 1) & (dense.depth[y, x] > 0) & (z > 0)
    return float(np.median(z[good] / dense.depth[y, x][good])) if good.any() else 1.0
