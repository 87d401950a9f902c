"""Which way is up in a model, whose own frame is arbitrary up to a similarity.

People hold cameras level: the x axes of the cameras are nearly horizontal and their y axes point down on average. With
x_k the x axes and d the mean of the y axes, up is the unit vector u that minimises

    mean (x_k . u)^2  +  w |u - (u . d/|d|) d/|d||^2,    w = (r / t)^2 / n,

r the usual roll of a camera, t the usual tilt of all cameras of a set, n their number. This follows the x axes where
they span a plane, as around an object, and the y axes where they do not, as along a wall. Photographs straight down
from the air have y axes in all directions, or, from a drone that keeps its heading, in one that has nothing to do with
up; there up is where the cameras come from. Such a flight is known by cameras that look one way at a flat ground and
stand apart along their y axes as well, which people who walk along a wall do not.

Cameras that were turned on their side for a few photographs, without a record of it, are left out: those whose x axes
are far from level while those of most are not.

Phones record which way was down in each photograph. Where most of at least three records agree in the world, their
mean is better than all of that: it needs no cameras that are held level.

Two other ways look at the points: the largest plane of them that the cameras see more or less level (a ground, a
floor), and the three directions at right angles that most surfaces of buildings face (Coughlan and Yuille, ICCV 1999:
the Manhattan world).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from anchorsfm.geometry.planes import Plane, fit_plane
from anchorsfm.geometry.transforms import camera_centres

_OVER = -0.5
"""Cosine of an angle that up of cameras is never wrong by."""
_LEVEL = 0.3
"""Mean length of the y axes below which they say nothing about up."""
_PARALLEL = 0.9
"""Mean length of the viewing directions of a flight."""
_APART = 0.25
"""Least spread of a flight's cameras along their y axes, as a share of that along their x axes; and most along the
viewing direction, as a share of the larger of both."""
_GROUND_DEG = 25.0
"""Most that the ground of a flight may be tilted against the viewing directions."""
_RELIEF = 0.25
"""Largest thickness of a ground (see `Plane`)."""
_ROLLED = 0.5
"""Sine of the roll beyond which a camera was not held level."""
_ROLL_DEG, _TILT_DEG, _FLIGHT_DEG, _SURFACE_DEG = 2.0, 8.0, 1.0, 0.5
"""Standard deviations: how level people hold cameras, how far all cameras of a set are tilted up or down, how level
drones fly, and how level floors and walls are."""
_ENOUGH = 25
"""More cameras than this say no more: rolls of neighbours are alike."""
_NOTHING_KNOWN_DEG = 90.0
_ALL_ROUND = 0.05
"""Mean horizontal viewing direction below which cameras look all round."""
_FEWEST, _MOST, _TRIALS, _REFITS = 30, 20_000, 400, 5
_NEARER_SHARE = 80.0
_FLOOR_DEG = 35.0
"""Most that a floor, or the direction that one faces, may be off what the cameras say of up."""
_PLANE_SHARE, _PLANE_POINTS = 0.01, 0.08
"""Half the thickness of a plane as a share of the size of the scene; least share of the points in it."""
_FACING_DEG, _FACING_SHARE, _SECOND_SHARE = 8.0, 0.35, 0.06
"""Normals this close to one of three directions face it; share of all that must face any, and the second of them."""
_SQUARE = 0.3
_INDEPENDENT = 25
"""Surfaces that the spread of the normals is divided by: those of one wall err together."""
_FLAT = 0.04
"""Variance across a plane over that along its narrower direction below which neighbours lie in one."""


_RECORDS, _ALIKE_DEG, _RECORD_DEG = 3, 8.0, 0.5
"""Fewest accelerations that say where down is, how far those that agree are apart at most, and the deviation that all
of a phone's have in common."""
_BELIEVED_DEG = 45.0
"""Most that they may be off what the cameras say: beyond, their axes were taken for others."""


UpSource = Literal["gravity", "cameras", "flight", "plane", "manhattan"]


@dataclass(frozen=True, kw_only=True)
class Upward:
    """Which way is up, and what says so."""

    direction: Float[np.ndarray, "3"]
    """Unit vector in the world frame."""
    source: UpSource
    deviation_deg: float
    """How far it may be off: a standard deviation, of a rough kind."""


def up_direction(
    cam_from_world: Float[np.ndarray, "view 3 4"], points: Float[np.ndarray, "point 3"]
) -> Float[np.ndarray, "3"]:
    """Unit vector that points up in the world frame; without cameras against COLMAP's y axis."""
    return up_of_cameras(cam_from_world, points).direction


def is_upside_down(up: Float[np.ndarray, "3"]) -> bool:
    """Whether up of the cameras, in a frame whose z is said to be up, is about the opposite; never across, which it is
    for cameras that look straight down along a line."""
    return bool(up[2] < _OVER)


def up_of_cameras(cam_from_world: Float[np.ndarray, "view 3 4"], points: Float[np.ndarray, "point 3"]) -> Upward:
    """Up as the cameras were held or, for photographs straight down from the air, as they flew."""
    if not len(cam_from_world):
        return Upward(direction=np.array([0.0, -1.0, 0.0]), source="cameras", deviation_deg=_NOTHING_KNOWN_DEG)
    ground = _ground_of_flight(cam_from_world, points[np.isfinite(points).all(axis=1)])
    if ground is not None:
        return ground
    up = _up_of_axes(cam_from_world)
    rolled = np.abs(cam_from_world[:, 0, :3] @ up.direction) > _ROLLED
    if rolled.any() and 2 * rolled.sum() < len(rolled):
        return _up_of_axes(cam_from_world[~rolled])
    return up


def _up_of_axes(cam_from_world: Float[np.ndarray, "view 3 4"]) -> Upward:
    """The minimum of the module's text."""
    right, down, forward = (cam_from_world[:, row, :3] for row in range(3))
    mean_up = -down.mean(0)
    tilt_deg = _TILT_DEG
    if np.linalg.norm(mean_up) < _LEVEL and np.linalg.norm(forward.mean(0)) > _LEVEL:
        mean_up = -forward.mean(0)
        right = right[:0]
        tilt_deg /= np.sqrt(len(down))
    if np.linalg.norm(mean_up) < 1e-9:
        mean_up = -down[0]
    towards = mean_up / np.linalg.norm(mean_up)
    horizontal, count = right.T @ right / max(len(right), 1), min(max(len(right), 1), _ENOUGH)
    pull = (_ROLL_DEG / _TILT_DEG) ** 2 / count
    values, vectors = np.linalg.eigh(horizontal + pull * (np.eye(3) - np.outer(towards, towards)))
    up = vectors[:, 0] * (1.0 if vectors[:, 0] @ towards >= 0 else -1.0)
    roll = float(np.linalg.norm(right @ up)) / np.sqrt(max(len(right), 1))
    roll_deg = max(float(np.degrees(np.arcsin(min(roll, 1.0)))), _ROLL_DEG)
    # in both directions across up: what rolls move, and what a common tilt of all cameras does through the pull
    by_roll = roll_deg / np.sqrt(count * values[1:]) if len(right) else np.zeros(2)
    by_tilt = tilt_deg * pull / values[1:]
    deviation = float(np.sqrt((by_roll**2).sum() + (by_tilt**2).sum()))
    return Upward(direction=up, source="cameras", deviation_deg=min(deviation, _NOTHING_KNOWN_DEG))


def up_of_gravity(
    cam_from_world: Float[np.ndarray, "view 3 4"], down: Float[np.ndarray, "view 3"], towards: Float[np.ndarray, "3"]
) -> Upward | None:
    """The mean of what accelerometers recorded, without those that contradict the most; None if fewer than half of at
    least three agree, or their mean is far from `towards`, about up.

    `down`: unit vectors in the frames of the cameras; NaN where nothing was recorded.
    """
    known = np.isfinite(down).all(axis=1)
    up = -np.einsum("nji,nj->ni", cam_from_world[known, :, :3], down[known])
    if len(up) < _RECORDS:
        return None
    limit = np.cos(np.radians(_ALIKE_DEG))
    agree = (up @ up.T > limit)[int((up @ up.T > limit).sum(axis=1).argmax())]
    for _ in range(_REFITS):
        mean = up[agree].mean(axis=0)
        mean /= np.linalg.norm(mean)
        agree = up @ mean > limit
    count = int(agree.sum())
    if count < _RECORDS or 2 * count <= len(up) or mean @ towards < np.cos(np.radians(_BELIEVED_DEG)):
        return None
    spread_deg = float(np.degrees(np.sqrt(2 * np.maximum(1 - up[agree] @ mean, 0).mean())))
    deviation = float(np.hypot(_RECORD_DEG, spread_deg / np.sqrt(min(count, _ENOUGH))))
    return Upward(direction=mean, source="gravity", deviation_deg=deviation)


def _ground_of_flight(
    cam_from_world: Float[np.ndarray, "view 3 4"], points: Float[np.ndarray, "point 3"]
) -> Upward | None:
    """Up for photographs straight down: the normal of the cameras' plane or the ground's, whichever is clearer."""
    right, down, forward = (cam_from_world[:, row, :3].mean(axis=0) for row in range(3))
    if len(cam_from_world) < 3 or len(points) < 10 or np.linalg.norm(forward) < _PARALLEL:
        return None
    ahead = forward / np.linalg.norm(forward)
    ground = fit_plane(points)
    tilt_deg = np.degrees(np.arccos(min(abs(float(ground.normal @ ahead)), 1.0)))
    if ground.thickness > _RELIEF or tilt_deg > _GROUND_DEG:
        return None
    centres = camera_centres(cam_from_world)
    across, along, deep = (float((centres @ axis).std()) for axis in (right, down, ahead))
    if along < _APART * across or deep > _APART * max(along, across):
        return None
    planes: list[Plane] = [ground, fit_plane(centres)]
    best = min(planes, key=lambda plane: plane.thickness)
    deviation = max(_FLIGHT_DEG, float(np.degrees(np.arctan(best.thickness))))
    return Upward(direction=-best.normal * np.sign(best.normal @ ahead), source="flight", deviation_deg=deviation)


def level_rotation(
    cam_from_world: Float[np.ndarray, "view 3 4"], up: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "3 3"]:
    """Rotation to axes with z up and, as far as that allows, y where the cameras look on average."""
    looks = cam_from_world[:, 2, :3].sum(axis=0)
    ahead = looks - (looks @ up) * up
    if np.linalg.norm(ahead) < _ALL_ROUND * len(cam_from_world):  # any direction does
        ahead = np.eye(3)[int(np.argmin(np.abs(up).round(3)))]
        ahead = ahead - (ahead @ up) * up
    ahead = ahead / np.linalg.norm(ahead)
    return np.stack([np.cross(ahead, up), ahead, up])


def up_of_plane(
    points: Float[np.ndarray, "point 3"], towards: Float[np.ndarray, "3"], *, seed: int = 0
) -> Upward | None:
    """The normal of the plane that most points lie in, of those within `_FLOOR_DEG` of level; None if there is none.

    `towards`: about up.
    """
    points = points[np.isfinite(points).all(axis=1)]
    if len(points) < _FEWEST:
        return None
    rng = np.random.default_rng(seed)
    points = points if len(points) <= _MOST else points[rng.choice(len(points), _MOST, replace=False)]
    middle = np.median(points, axis=0)
    distance = np.linalg.norm(points - middle, axis=1)
    size = float(np.percentile(distance, _NEARER_SHARE))
    points = points[distance <= 3 * size]
    corner = points[rng.integers(0, len(points), (_TRIALS, 3))]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    length = np.linalg.norm(normal, axis=1)
    normal /= np.maximum(length, 1e-300)[:, None]
    level = (length > 0) & (np.abs(normal @ towards) > np.cos(np.radians(_FLOOR_DEG)))
    normal, origin = normal[level], corner[level, 0]
    if not len(normal):
        return None
    near = [np.abs((points - a) @ n) < _PLANE_SHARE * size for n, a in zip(normal, origin, strict=True)]
    inlier = max(near, key=np.count_nonzero)
    if inlier.mean() < _PLANE_POINTS:
        return None
    for _ in range(_REFITS):
        plane = _plane_of(points[inlier])
        inlier = np.abs((points - plane.centre) @ plane.normal) < _PLANE_SHARE * size
    plane = _plane_of(points[inlier])
    if abs(float(plane.normal @ towards)) < np.cos(np.radians(_FLOOR_DEG)) or not np.isfinite(plane.thickness):
        return None
    deviation = max(_SURFACE_DEG, float(np.degrees(np.arctan(plane.thickness))))
    up = plane.normal * (1.0 if plane.normal @ towards > 0 else -1.0)
    return Upward(direction=up, source="plane", deviation_deg=deviation)


def _plane_of(points: Float[np.ndarray, "point 3"]) -> Plane:
    """Least squares through all points."""
    centre = points.mean(axis=0)
    square, axes = np.linalg.eigh((points - centre).T @ (points - centre))
    across, narrow, wide = np.sqrt(np.maximum(square, 0))
    clear = narrow > 1e-6 * max(wide, 1e-300)
    return Plane(centre=centre, normal=axes[:, 0], thickness=float(across / narrow) if clear else np.inf)


def up_of_manhattan(
    normals: Float[np.ndarray, "point 3"], towards: Float[np.ndarray, "3"], *, seed: int = 0
) -> Upward | None:
    """The one nearest to `towards` of three directions, at right angles, that surfaces face; None without such.

    `normals` are vectors of about unit length and either sign.
    """
    normals = normals[np.isfinite(normals).all(axis=1) & (np.linalg.norm(normals, axis=1) > 0.5)]
    normals = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    if len(normals) < _FEWEST:
        return None
    rng = np.random.default_rng(seed)
    normals = normals if len(normals) <= _MOST else normals[rng.choice(len(normals), _MOST, replace=False)]
    close = np.cos(np.radians(_FACING_DEG))
    best, score = None, 0.0
    for first, second in normals[rng.integers(0, len(normals), (_TRIALS, 2))]:
        beside = second - (second @ first) * first
        if np.linalg.norm(beside) < 1 - _SQUARE:
            continue
        beside /= np.linalg.norm(beside)
        axes = np.stack([first, beside, np.cross(first, beside)])
        found = float((np.abs(normals @ axes.T).max(axis=1) > close).mean())
        if found > score:
            best, score = axes, found
    if best is None:
        return None
    for _ in range(_REFITS):
        along = normals @ best.T
        nearest = np.abs(along).argmax(axis=1)
        faces = np.abs(along).max(axis=1) > close
        square = np.zeros((3, 3))
        for axis in range(3):
            mine = faces & (nearest == axis)
            square[axis] = (np.sign(along[mine, axis])[:, None] * normals[mine]).sum(axis=0)
        u, _, vt = np.linalg.svd(square)
        best = u @ vt
    along = np.abs(normals @ best.T)
    faces = along.max(axis=1) > close
    shares = [float((faces & (along.argmax(axis=1) == axis)).mean()) for axis in range(3)]
    if faces.mean() < _FACING_SHARE or sorted(shares)[1] < _SECOND_SHARE:
        return None
    spread_deg = float(np.degrees(np.arccos(min(float(along.max(axis=1)[faces].mean()), 1.0))))
    nearest_up = int(np.abs(best @ towards).argmax())
    if abs(float(best[nearest_up] @ towards)) < np.cos(np.radians(_FLOOR_DEG)):
        return None
    up = best[nearest_up] * (1.0 if best[nearest_up] @ towards > 0 else -1.0)
    deviation = max(_SURFACE_DEG, spread_deg / np.sqrt(_INDEPENDENT))
    return Upward(direction=up, source="manhattan", deviation_deg=float(deviation))


def normals_of(points: Float[np.ndarray, "point 3"], *, neighbours: int = 12) -> Float[np.ndarray, "point 3"]:
    """Normals, of either sign, of the planes through each point's nearest ones; zero where they show none."""
    from scipy.spatial import cKDTree

    if len(points) <= neighbours:
        return np.zeros_like(points)
    _, rows = cKDTree(points).query(points, k=neighbours)
    near = points[np.asarray(rows)]
    near = near - near.mean(axis=1, keepdims=True)
    square, axes = np.linalg.eigh(np.swapaxes(near, 1, 2) @ near)
    is_flat = square[:, 0] < _FLAT * square[:, 1]
    return np.where(is_flat[:, None], axes[:, :, 0], 0.0)
