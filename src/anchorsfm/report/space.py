"""What the 3D view of the page draws: points, dense points and camera frusta of one model, small enough to embed.

The world is turned so that up is z. Positions are 16-bit numbers in a cube around the cameras and the bulk of the
points; the few points outside it, which are wrong as a rule, are left out.
"""

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from anchorsfm.colmap.cameras import focal_length_px, principal_point_px
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.report.figures import upright_from_world
from anchorsfm.scene.reconstruction import Reconstruction

MAX_POINTS = 120_000
"""Points of each kind that are embedded, of all models together."""
_BULK = (2.0, 98.0)
"""Percentiles of each coordinate that say where the points are."""
_REACH = 1.0
"""Points up to this many times the extent of the bulk beyond it are drawn too."""
_ASIDE = (0.35, 1.0)
"""Least and most angle between the first view and the direction the cameras look in."""
_FRUSTUM_STEPS = 2**20
"""Corners are rounded, so that a model read back from disk, whose rotations differ in the last bit, looks the same."""
_STEEPEST = 1.2
"""Widest half of a frustum, as a share of its depth."""


@dataclass(frozen=True, kw_only=True)
class ColouredPoints:
    """Coloured points in world units."""

    xyz: Float[np.ndarray, "point 3"]
    rgb: UInt8[np.ndarray, "point 3"]

    def thinned(self, count: int) -> "ColouredPoints":
        """At most `count` of the points, the same ones every time."""
        if len(self.xyz) <= count:
            return self
        rows = np.sort(np.random.default_rng(0).permutation(len(self.xyz))[:count])
        return ColouredPoints(xyz=self.xyz[rows], rgb=self.rgb[rows])


@dataclass(frozen=True, kw_only=True)
class Space:
    """One model in its cube: positions are -1 .. 1 in units of `half`, about `centre`."""

    turn: Float[np.ndarray, "3 3"]
    centre: Float[np.ndarray, "3"]
    """In turned coordinates."""
    half: float

    @staticmethod
    def around(model: Reconstruction, up: Float[np.ndarray, "3"] | None = None) -> "Space":
        """`up`: in the world; None: what the cameras say."""
        turn = upright_from_world(model, up)
        cameras = camera_centres(model.cam_from_world) @ turn.T
        points = model.points @ turn.T
        low, high = cameras.min(axis=0), cameras.max(axis=0)
        if len(points):
            first, last = np.percentile(points, _BULK, axis=0)
            reach = _REACH * (last - first).max()
            low, high = np.minimum(low, first - reach), np.maximum(high, last + reach)
        return Space(turn=turn, centre=(low + high) / 2, half=max(float((high - low).max()) / 2, 1e-9) * 1.02)

    def place(self, xyz: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
        """World to cube."""
        return (xyz @ self.turn.T - self.centre) / self.half


def describe_space(
    model: Reconstruction,
    dense: ColouredPoints | None,
    *,
    images: list[int],
    max_points: int = MAX_POINTS,
    up: Float[np.ndarray, "3"] | None = None,
) -> dict[str, Any]:
    """What the page's renderer reads.

    Args:
        model: the model.
        dense: its dense cloud.
        images: rows of the report that the views belong to.
        max_points: of each kind that are embedded.
        up: in the world; None: what the cameras say.
    """
    space = Space.around(model, up)
    sparse = ColouredPoints(xyz=model.points, rgb=model.rgb)
    return {
        "unit": space.half,
        "home": _home(model, dense if dense is not None and len(dense.xyz) else sparse, space),
        "points": _embedded(sparse, space, max_points),
        "dense": None if dense is None else _embedded(dense, space, max_points),
        "images": images,
        "frusta": _base64(_frusta(model, space).astype("<f4")),
    }


def _embedded(cloud: ColouredPoints, space: Space, max_points: int) -> dict[str, Any]:
    given = len(cloud.xyz)
    cloud = cloud.thinned(max_points)
    place = space.place(cloud.xyz.astype(np.float64))
    inside = (np.abs(place) <= 1).all(axis=1)
    steps = np.rint((place[inside] + 1) / 2 * 65535).astype("<u2")
    return {
        "of": given,
        "count": int(inside.sum()),
        "xyz": _base64(steps),
        "rgb": _base64(cloud.rgb[inside]),
    }


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def _frusta(model: Reconstruction, space: Space) -> Float[np.ndarray, "view 5 3"]:
    """Centre and corners (top left, top right, bottom right, bottom left) of every camera in the cube."""
    centre = space.place(camera_centres(model.cam_from_world))
    depth = _frustum_depth(centre)
    corners = []
    for row, pose in zip(model.camera_index, model.cam_from_world, strict=True):
        camera = model.cameras[row]
        cx, cy = principal_point_px(camera).tolist()
        sides = np.array([-cx, camera.width - cx, -cy, camera.height - cy]) / focal_length_px(camera)
        left, right, top, bottom = np.clip(sides, -_STEEPEST, _STEEPEST)
        rays = np.array([[left, top, 1], [right, top, 1], [right, bottom, 1], [left, bottom, 1]])
        corners.append(rays @ pose[:, :3] @ space.turn.T)  # rows: R^T ray, then turned
    frusta = np.concatenate([centre[:, None], centre[:, None] + depth * np.stack(corners)], axis=1)
    return np.rint(frusta * _FRUSTUM_STEPS) / _FRUSTUM_STEPS


def _frustum_depth(centre: Float[np.ndarray, "view 3"]) -> float:
    """Depth of the drawn frusta: in proportion to how far neighbours are apart, never a speck, never a giant."""
    from scipy.spatial import cKDTree

    if len(centre) < 2:
        return 0.1
    nearest = np.asarray(cKDTree(centre).query(centre, k=[2])[0])
    return float(np.clip(0.6 * np.median(nearest), 0.015, 0.12))


def _home(model: Reconstruction, cloud: ColouredPoints, space: Space) -> dict[str, Any]:
    """Where the view begins: looking the way the cameras look, but from aside, the more so the deeper the scene is.

    `low` and `high` are the corners of the bulk of the points, all of which should be in the frame.
    """
    points = space.place(cloud.thinned(20_000).xyz)
    low, high = np.percentile(points, _BULK, axis=0) if len(points) else np.zeros((2, 3))
    looks = (model.cam_from_world[:, 2, :3] @ space.turn.T).sum(axis=0)
    round_about = np.linalg.norm(looks[:2]) < 0.3 * len(model.image_index)
    azimuth = float(np.pi / 4 if round_about else np.arctan2(looks[1], looks[0]))
    shown = np.concatenate([space.place(camera_centres(model.cam_from_world)), np.stack([low, high])[: len(points)]])
    turn = np.array([[np.cos(azimuth), -np.sin(azimuth)], [np.sin(azimuth), np.cos(azimuth)]])
    along, across = np.ptp(shown[:, :2] @ turn, axis=0)
    return {
        "low": low.round(5).tolist(),
        "high": high.round(5).tolist(),
        "azimuth": round(azimuth + float(np.clip(0.35 * along / max(across, 1e-9), *_ASIDE)), 4),
    }
