"""Dense depth and points of aligned images, one image at a time (method: Part A8).

The depth of a pixel is the depth of its anchor times d(p) / d(anchor), the canonical view's relative depth. With a
focal length f other than the front end's f0 the ratio o becomes 1 + (o - 1) f0 / f, as in the alignment.

Cleaning: a point that another image sees through, because it projects well in front of that image's surface and is the
less confident of the two, loses its confidence.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from anchorsfm.anchors import dense_depth_ratio, require_views
from anchorsfm.canonical import spread
from anchorsfm.frontend.classical.grid import undistorted_rgb
from anchorsfm.geometry.transforms import invert, transform
from anchorsfm.graph import ObservedScene
from anchorsfm.io.images import load_rgb
from anchorsfm.scene.alignment import AlignmentResult
from anchorsfm.scene.graph import CanonicalView
from anchorsfm.scene.images import ImageGrid, ImageSet

SURFACE_TOLERANCE = 1e-3
"""A point is in front of a surface if its depth is below (1 - tolerance) x the surface's."""
ROWS_AT_A_TIME = 1 << 20
"""Points handled together, to bound memory."""


@dataclass(frozen=True, kw_only=True)
class DenseView:
    """Depth and confidence of every pixel of one image, with its camera. Pixels are grid pixels."""

    depth: Float[np.ndarray, "h w"]
    confidence: Float[np.ndarray, "h w"]
    cam_from_world: Float[np.ndarray, "3 4"]
    focal_px: float
    principal_point_px: Float[np.ndarray, "2"]

    def points(self, pixel_centre: float = 0.5) -> Float[np.ndarray, "h w 3"]:
        """World points of all pixels, in the type of the depth."""
        height, width = self.depth.shape
        x = (np.arange(width) + pixel_centre - self.principal_point_px[0]) / self.focal_px
        y = (np.arange(height) + pixel_centre - self.principal_point_px[1]) / self.focal_px
        local = np.stack([x[None, :] * self.depth, y[:, None] * self.depth, self.depth], axis=-1)
        return transform(invert(self.cam_from_world), local).astype(self.depth.dtype)


@dataclass(frozen=True, kw_only=True)
class DenseCloud:
    """Coloured points of one aligned component, in its world frame."""

    xyz: Float[np.ndarray, "point 3"]
    rgb: UInt8[np.ndarray, "point 3"]
    confidence: Float[np.ndarray, "point"]


def dense_view(result: AlignmentResult, view: int, canonical: CanonicalView, subsample: int = 8) -> DenseView:
    """Dense depth of aligned view `view` in scene units."""
    height, width = canonical.relative_depth.shape
    rows = slice(result.anchor_start[view], result.anchor_start[view + 1])
    anchor_depth = result.anchor_depth[rows].reshape(canonical.anchor_depth.shape).astype(np.float32)
    focal = float(result.focal_px[view])
    ratio = 1 + (dense_depth_ratio(canonical, subsample) - 1) * np.float32(canonical.focal_px / focal)
    return DenseView(
        depth=(spread(anchor_depth, (width, height), subsample) * ratio).astype(np.float32),
        confidence=canonical.confidence.astype(np.float32),
        cam_from_world=result.cam_from_world[view],
        focal_px=focal,
        principal_point_px=result.principal_point_px[view],
    )


def dense_views(result: AlignmentResult, views: Sequence[CanonicalView], subsample: int = 8) -> tuple[DenseView, ...]:
    """Dense depth of all aligned views; 8 bytes a pixel."""
    return tuple(dense_view(result, k, canonical, subsample) for k, canonical in enumerate(views))


def clean_confidence(
    views: Sequence[DenseView],
    *,
    neighbours: Sequence[Int[np.ndarray, "other"]] | None = None,
    pixel_centre: float = 0.5,
    tolerance: float = SURFACE_TOLERANCE,
) -> tuple[Float[np.ndarray, "h w"], ...]:
    """Confidences with 0 where another view sees through a point.

    Views are taken in order, and the cleaned confidences of earlier ones count for later ones. Depths are compared
    at the pixel whose centre is nearest to the projection. No input is modified.
    neighbours: the views to check each view against; by default all others, which costs views^2 projections.
    """
    cleaned = [view.confidence.copy() for view in views]
    for k, view in enumerate(views):
        points = view.points(pixel_centre).reshape(-1, 3)
        confidence = cleaned[k].reshape(-1)
        for other in range(len(views)) if neighbours is None else neighbours[k].tolist():
            if other == k:
                continue
            blocker = views[other]
            for first in range(0, len(points), ROWS_AT_A_TIME):
                rows = slice(first, first + ROWS_AT_A_TIME)
                seen = _seen_through(points[rows], confidence[rows], blocker, cleaned[other], pixel_centre, tolerance)
                confidence[rows][seen] = 0
    return tuple(cleaned)


def _seen_through(
    points: Float[np.ndarray, "point 3"],
    confidence: Float[np.ndarray, "point"],
    other: DenseView,
    other_confidence: Float[np.ndarray, "h w"],
    pixel_centre: float,
    tolerance: float,
) -> Bool[np.ndarray, "point"]:
    height, width = other.depth.shape
    local = transform(other.cam_from_world.astype(points.dtype), points)
    z = local[:, 2]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        xy = local[:, :2] / z[:, None] * points.dtype.type(other.focal_px)
        xy = np.rint(xy + (other.principal_point_px - pixel_centre).astype(points.dtype))
        inside = (z > 0) & (xy >= 0).all(axis=1) & (xy[:, 0] < width) & (xy[:, 1] < height)
    rows = np.flatnonzero(inside)
    x, y = xy[rows].astype(np.int64).T
    in_front = z[rows] < (1 - tolerance) * other.depth[y, x]
    seen = np.zeros(len(points), bool)
    seen[rows] = in_front & (confidence[rows] < other_confidence[y, x])
    return seen


def dense_cloud(
    result: AlignmentResult,
    scene: ObservedScene,
    images: ImageSet,
    grid: ImageGrid,
    *,
    min_confidence: float = 1.5,
    max_points: int = 2_000_000,
) -> DenseCloud:
    """Cleaned, thinned, coloured points of an aligned component; `result.image` indexes `scene`, `images` and `grid`.

    The voxel is the size of a grid pixel at the median depth, so that overlapping views are not stored twice.
    Raises InputError if a photograph cannot be read.
    """
    canonical = require_views(tuple(scene.views[k] for k in result.image.tolist()))
    centre = scene.config.pixel_centre
    views = dense_views(result, canonical, scene.config.subsample)
    confidence = clean_confidence(views, neighbours=_paired(result, scene), pixel_centre=centre)
    voxel = float(np.median([np.median(view.depth) / view.focal_px for view in views]))
    clouds = (
        view_cloud(view, c, grid_colours(images, grid, image), min_confidence=min_confidence, pixel_centre=centre)
        for view, c, image in zip(views, confidence, result.image.tolist(), strict=True)
    )
    return voxel_cloud(clouds, max(voxel, 1e-12), max_points)


def _paired(result: AlignmentResult, scene: ObservedScene) -> list[Int[np.ndarray, "other"]]:
    """For each view the views it shares a pair with."""
    local = np.full(scene.graph.num_images, -1)
    local[result.image] = np.arange(len(result.image))
    pair = local[scene.graph.pair]
    pair = pair[(pair >= 0).all(axis=1)]
    both = np.concatenate([pair, pair[:, ::-1]])
    return [np.unique(both[both[:, 0] == k, 1]) for k in range(len(result.image))]


def grid_colours(images: ImageSet, grid: ImageGrid, image: int) -> UInt8[np.ndarray, "h w 3"]:
    """Colour of every grid pixel of a photograph, to the nearest pixel where the grid is a crop.

    Raises InputError if the photograph cannot be read.
    """
    if grid.is_distorted(image):
        return undistorted_rgb(images, grid, image)
    width, height = grid.size_wh[image].tolist()
    x, y = np.rint(-grid.offset[image]).astype(np.int64)
    whole_wh = np.maximum(np.rint(images.size_wh[image] * grid.scale[image]).astype(np.int64), (x + width, y + height))
    return load_rgb(images, image, whole_wh)[y : y + height, x : x + width]


def point_colours(result: AlignmentResult, images: ImageSet, grid: ImageGrid) -> UInt8[np.ndarray, "point 3"]:
    """Colour of every sparse point of a result, from the pixel it was seen at."""
    colours = np.zeros((len(result.points), 3), np.uint8)
    for view, image in enumerate(result.image.tolist()):
        rows = np.flatnonzero(result.point_view == view)
        pixels = grid_colours(images, grid, image)
        x, y = np.clip(np.floor(result.point_xy[rows]).astype(np.int64), 0, grid.size_wh[image] - 1).T
        colours[rows] = pixels[y, x]
    return colours


def view_cloud(
    view: DenseView,
    confidence: Float[np.ndarray, "h w"],
    colour: UInt8[np.ndarray, "h w 3"],
    *,
    min_confidence: float = 1.5,
    pixel_centre: float = 0.5,
) -> DenseCloud:
    """Coloured points of a view whose (cleaned) confidence exceeds the threshold."""
    points = view.points(pixel_centre)
    keep = (confidence > min_confidence) & np.isfinite(points).all(axis=-1) & (view.depth > 0)
    return DenseCloud(xyz=points[keep], rgb=colour[keep], confidence=confidence[keep])


def voxel_cloud(points: Iterable[DenseCloud], voxel: float, max_points: int | None = None) -> DenseCloud:
    """One point per voxel of side `voxel`: the most confident of those that fall into it.

    Clouds are merged as they come, so that no more than the thinned cloud and one image are in memory. `max_points`
    keeps the most confident.
    """
    kept: DenseCloud | None = None
    for cloud in points:
        kept = _thinned(cloud if kept is None else _joined(kept, cloud), voxel)
    if kept is None:
        return DenseCloud(xyz=np.zeros((0, 3), np.float32), rgb=np.zeros((0, 3), np.uint8), confidence=np.zeros(0))
    if max_points is not None and len(kept.xyz) > max_points:
        return _rows(kept, np.sort(np.argsort(-kept.confidence, kind="stable")[:max_points]))
    return kept


def _thinned(cloud: DenseCloud, voxel: float) -> DenseCloud:
    assert voxel > 0
    if len(cloud.xyz) == 0:
        return cloud
    cell = np.floor(cloud.xyz / voxel).astype(np.int64)
    order = np.lexsort((-cloud.confidence, cell[:, 2], cell[:, 1], cell[:, 0]))
    ordered = cell[order]
    first = np.concatenate([[True], (np.diff(ordered, axis=0) != 0).any(axis=1)])
    return _rows(cloud, order[first])


def _joined(a: DenseCloud, b: DenseCloud) -> DenseCloud:
    return DenseCloud(
        xyz=np.concatenate([a.xyz, b.xyz]),
        rgb=np.concatenate([a.rgb, b.rgb]),
        confidence=np.concatenate([a.confidence, b.confidence]),
    )


def _rows(cloud: DenseCloud, rows: Int[np.ndarray, "kept"]) -> DenseCloud:
    return DenseCloud(xyz=cloud.xyz[rows], rgb=cloud.rgb[rows], confidence=cloud.confidence[rows])
