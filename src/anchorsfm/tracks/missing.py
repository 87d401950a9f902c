"""What photographs should see of each other's points and do not: the evidence that things look alike but are not one.

Photographs of two things that look alike match well, on them. Whatever else a photograph shows beside them, the others
do not have: its points lie where the other photograph shows surface at the same distance, under nearly the same angle
and at nearly the same size, and none of them is found there. Two photographs of one place miss points all over the
picture, but not all points of a part of it (Zach, Irschara and Bischof, "What can missing correspondences tell us about
3D structure and motion?", CVPR 2008; Heinly, Dunn and Frahm, "Correcting for duplicate scene structure in sparse 3D
reconstruction", ECCV 2014).

Every picture is divided into cells; a cell with enough points that should be seen either confirms the pair or
contradicts it (docs/method.md, Repeated structure).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from scipy.spatial import cKDTree

from anchorsfm.colmap.cameras import focal_length_px, project
from anchorsfm.geometry.transforms import camera_centres, transform
from anchorsfm.scene.edit import view_of_image
from anchorsfm.scene.reconstruction import Camera, Reconstruction

MIN_SHARED = 15
"""Points that two views must share to be compared."""
MAX_PARTNERS = 20
"""Views that each one is compared with: those that share most points with it."""
_CELLS = np.array([8, 6])
_MAX_ANGLE_DEG = 20.0
"""Between the rays of the two views: so far most keypoints are found again, whatever the light."""
_MIN_SCALE = 0.7
"""The size of a surface in one picture over that in the other, or the inverse."""
_NEIGHBOURS, _REACH = 3, 0.06
"""Observations near a place say how far away the surface is there: so many within this share of the long side."""
_IN_FRONT = 0.9
"""A surface at less than this share of a point's depth hides it."""
_BORDER = 0.02
_MIN_EXPECTED = 5
_CONTRADICTS, _CONFIRMS = 0.05, 0.2
"""Share of the expected points of a cell that are seen: at most this, and at least that."""


@dataclass(frozen=True, kw_only=True)
class PairCells:
    """Cells of both pictures of pairs of views that share points."""

    view: Int[np.ndarray, "pair 2"]
    """Rows of the model's views, the smaller one first, sorted."""
    shared: Int[np.ndarray, "pair"]
    """Points that both see."""
    confirming: Int[np.ndarray, "pair"]
    contradicting: Int[np.ndarray, "pair"]


def compare_views(model: Reconstruction) -> PairCells:
    """Compare every view with those that share most points with it.

    The more points the model has, those of two views too, the more can be said.
    """
    views = _views(model)
    pairs, shared = _partners(model, views)
    confirming, contradicting = np.zeros(len(pairs), np.int64), np.zeros(len(pairs), np.int64)
    for row, (i, j) in enumerate(pairs.tolist()):
        for seen, missing in (_expected(model.points, views[i], views[j]), _expected(model.points, views[j], views[i])):
            total = seen + missing
            decided = total >= _MIN_EXPECTED
            confirming[row] += (decided & (seen >= _CONFIRMS * total)).sum()
            contradicting[row] += (decided & (seen <= _CONTRADICTS * total)).sum()
    return PairCells(view=pairs, shared=shared, confirming=confirming, contradicting=contradicting)


@dataclass(frozen=True, kw_only=True)
class _View:
    """A view and its observations."""

    camera: Camera
    pose: Float[np.ndarray, "3 4"]
    centre: Float[np.ndarray, "3"]
    point: Int[np.ndarray, "obs"]
    """Rows of the model's points, ascending."""
    depth: Float[np.ndarray, "obs"]
    near: cKDTree
    """Of the observations, pixels."""

    @property
    def size(self) -> Int[np.ndarray, "2"]:
        return np.array([self.camera.width, self.camera.height])


def _views(model: Reconstruction) -> list[_View]:
    tracks = model.tracks
    view = view_of_image(model)[tracks.obs_image]
    order = np.argsort(view, kind="stable")
    bounds = np.searchsorted(view[order], np.arange(len(model.image_index) + 1))
    centres = camera_centres(model.cam_from_world)
    out = []
    for row, pose in enumerate(model.cam_from_world):
        mine = order[bounds[row] : bounds[row + 1]]
        point = tracks.obs_point[mine]
        out.append(
            _View(
                camera=model.cameras[model.camera_index[row]],
                pose=pose,
                centre=centres[row],
                point=point,
                depth=transform(pose, model.points[point])[:, 2],
                near=cKDTree(tracks.obs_xy[mine]),
            )
        )
    return out


def _partners(model: Reconstruction, views: list[_View]) -> tuple[Int[np.ndarray, "pair 2"], Int[np.ndarray, "pair"]]:
    """Pairs of views to compare, and the number of points that both see."""
    row = np.repeat(np.arange(len(views)), [len(view.point) for view in views])
    point = np.concatenate([np.zeros(0, np.int64), *(view.point for view in views)])
    sees = csr_array((np.ones(len(row), np.int32), (row, point)), shape=(len(views), len(model.points)))
    common = csr_array(sees @ sees.T)
    pairs: dict[tuple[int, int], int] = {}
    for i in range(len(views)):
        mine = slice(*common.indptr[i : i + 2])
        other, count = common.indices[mine], common.data[mine]
        enough = (other != i) & (count >= MIN_SHARED)
        other, count = other[enough], count[enough]
        for k in np.lexsort((other, -count))[:MAX_PARTNERS]:
            pairs[min(i, int(other[k])), max(i, int(other[k]))] = int(count[k])
    index = np.array(sorted(pairs), np.int64).reshape(-1, 2)
    return index, np.array([pairs[i, j] for i, j in index.tolist()], np.int64)


def _expected(
    points: Float[np.ndarray, "point 3"], one: _View, other: _View
) -> tuple[Int[np.ndarray, "cell"], Int[np.ndarray, "cell"]]:
    """In each cell of the other picture, how many points of one view are there, and how many should be but are not."""
    world = points[one.point]
    local = transform(other.pose, world)
    xy, ahead = project(other.camera, local)
    long_side = int(other.size.max())
    border = _BORDER * long_side
    inside = ahead & ((xy >= border) & (xy < other.size - border)).all(axis=1)
    rays, rays_other = world - one.centre, world - other.centre
    away, away_other = np.linalg.norm(rays, axis=1), np.linalg.norm(rays_other, axis=1)
    angle = (rays * rays_other).sum(1) >= np.cos(np.radians(_MAX_ANGLE_DEG)) * away * away_other
    scale = _relative_focal(one) * away_other / (_relative_focal(other) * away)
    expected = inside & angle & (scale >= _MIN_SCALE) & (scale <= 1 / _MIN_SCALE)
    there = expected & np.isin(one.point, other.point)
    missing = np.flatnonzero(expected & ~there)
    missing = missing[_is_open(other, xy[missing], local[missing, 2], _REACH * long_side)]
    column, row = np.floor(np.where(expected[:, None], xy, 0.0) / other.size * _CELLS).astype(np.int64).T
    cell, count = row * _CELLS[0] + column, int(_CELLS.prod())
    return np.bincount(cell[there], minlength=count), np.bincount(cell[missing], minlength=count)


def _relative_focal(view: _View) -> float:
    """Focal length over the long side: pictures are looked at in about the same size whatever their resolution."""
    return focal_length_px(view.camera) / int(view.size.max())


def _is_open(view: _View, xy: Float[np.ndarray, "n 2"], depth: Float[np.ndarray, "n"], reach_px: float) -> np.ndarray:
    """Whether a view shows surface near these places, and none that would hide a point of this depth."""
    if len(view.point) < _NEIGHBOURS or not len(xy):
        return np.zeros(len(xy), bool)
    distance, near = view.near.query(xy, k=_NEIGHBOURS, distance_upper_bound=reach_px)
    known = np.isfinite(distance).all(axis=1)
    closest = view.depth[np.minimum(near, len(view.point) - 1)].min(axis=1)
    return known & (closest >= _IN_FRONT * depth)
