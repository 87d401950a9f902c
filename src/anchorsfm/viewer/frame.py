"""The frame a model is shown in: upright, in the middle, and of one size whatever the model's unit is.

Sizes are those of robust quantiles, so a few points at infinity do not shrink the rest.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.geometry.upright import up_direction

SCENE_RADIUS = 3.0
"""Of the points and cameras together in the frame that is shown; the browser's clipping planes suit such sizes."""
FAR_AWAY = 100.0
"""Points further out than this many scene radii are not drawn."""
_CLOSENESS = 0.8
"""Of the first view: corners of a ball around a scene are empty as a rule."""
_MANY_IN_POINTS = 0.9
_MANY_IN_CAMERAS = 0.95


@dataclass(frozen=True, kw_only=True)
class ShownFrame:
    """x_shown = scale * rotation @ (x_world - centre); z is up."""

    rotation: Float[np.ndarray, "3 3"]
    centre: Float[np.ndarray, "3"]
    scale: float

    def points(self, xyz_world: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
        """Points in the frame that is shown."""
        return self.scale * (xyz_world - self.centre) @ self.rotation.T

    def shown_from_cam(self, cam_from_world: Float[np.ndarray, "view 3 4"]) -> Float[np.ndarray, "view 3 4"]:
        """Rotations of the cameras and their centres in the frame that is shown."""
        rotation = self.rotation @ cam_from_world[:, :, :3].swapaxes(1, 2)
        return np.concatenate([rotation, self.points(camera_centres(cam_from_world))[:, :, None]], axis=2)


def shown_frame(
    cam_from_world: Float[np.ndarray, "view 3 4"],
    points: Float[np.ndarray, "point 3"],
    up: Float[np.ndarray, "3"] | None = None,
) -> ShownFrame:
    """The frame for a model: up is z, most points and cameras lie within SCENE_RADIUS of the origin.

    `up`: in the world; None: what the cameras say.
    """
    up = up_direction(cam_from_world, points) if up is None else up
    aside = np.eye(3)[np.argmin(np.abs(up))]
    x = np.cross(up, aside)
    x /= np.linalg.norm(x)
    rotation = np.stack([x, np.cross(up, x), up])
    centres = camera_centres(cam_from_world)
    finite = points[np.isfinite(points).all(axis=1)]
    core = _core(finite) if len(finite) else centres
    low, high = _box(core, centres)
    centre = (low + high) / 2
    reach = [_quantile_distance(core, centre, 1.0), _quantile_distance(centres, centre, _MANY_IN_CAMERAS)]
    radius = max(reach)
    return ShownFrame(rotation=rotation, centre=centre, scale=SCENE_RADIUS / radius if radius > 1e-12 else 1.0)


def _core(points: Float[np.ndarray, "point 3"]) -> Float[np.ndarray, "near 3"]:
    """The points that are not among the furthest from the median."""
    distance = np.linalg.norm(points - np.median(points, axis=0), axis=1)
    return points[distance <= np.quantile(distance, _MANY_IN_POINTS)]


def _box(core: np.ndarray, centres: np.ndarray) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
    """Corners of a box around the core of the points and most of the cameras."""
    spread = (1 - _MANY_IN_CAMERAS) / 2
    inner = np.quantile(centres, [spread, 1 - spread], axis=0) if len(centres) else core
    both = np.concatenate([core, inner])
    return both.min(0), both.max(0)


def _quantile_distance(points: np.ndarray, centre: np.ndarray, share: float) -> float:
    return float(np.quantile(np.linalg.norm(points - centre, axis=1), share)) if len(points) else 0.0


@dataclass(frozen=True, kw_only=True)
class Viewpoint:
    """Where the browser's camera stands and looks, in the frame that is shown."""

    position: Float[np.ndarray, "3"]
    look_at: Float[np.ndarray, "3"]
    up: Float[np.ndarray, "3"]
    fov: float
    """Vertical, radians."""


_MARGIN = 0.9
"""Share of the window that the cameras fill at most at first."""
_FURTHEST = 2.0
"""Cameras further away than this many times the usual distance stay outside at first."""


def overview(
    shown_from_cam: Float[np.ndarray, "view 3 4"], radius: float = SCENE_RADIUS, *, aspect: float | None = None
) -> Viewpoint:
    """From behind and above the cameras, far enough to see a ball of `radius` around the origin and nearly all cameras.

    `aspect`: width by height of the window; None: at least as wide as high.
    """
    fov = np.radians(50.0)
    forward = shown_from_cam[:, :, 2].mean(0) if len(shown_from_cam) else np.array([0.0, 1.0, 0.0])
    level = np.array([forward[0], forward[1], 0.0])
    if np.linalg.norm(level) < 0.1:  # they look inwards from all sides, or down: stand where the first one does
        level = -np.array([*shown_from_cam[0, :2, 3], 0.0]) if len(shown_from_cam) else level
    level = level / np.linalg.norm(level) if np.linalg.norm(level) > 1e-9 else np.array([0.0, 1.0, 0.0])
    tilt = np.radians(25.0)
    direction = level * np.cos(tilt) - np.array([0.0, 0.0, np.sin(tilt)])
    narrow = min(1.0, aspect or 1.0)
    distance = _CLOSENESS * radius / np.sin(np.arctan(np.tan(fov / 2) * narrow))
    centres = shown_from_cam[:, :, 3]
    if len(centres):
        right = np.array([level[1], -level[0], 0.0])
        sides = np.abs(np.stack([centres @ right, centres @ np.cross(right, direction)]))
        tans = _MARGIN * np.tan(fov / 2) * np.array([[aspect or 1.0], [1.0]])
        needed = (sides / tans - centres @ direction).max(axis=0)
        distance = float(np.clip(np.quantile(needed, _MANY_IN_CAMERAS), distance, _FURTHEST * distance))
    return Viewpoint(position=-direction * distance, look_at=np.zeros(3), up=np.array([0.0, 0.0, 1.0]), fov=float(fov))


def look_through(
    shown_from_cam: Float[np.ndarray, "3 4"], half_wh: Float[np.ndarray, "2"], aspect: float, distance: float
) -> Viewpoint:
    """From a photograph's place, with its picture just inside a window of `aspect` (width by height).

    `half_wh`: half the picture on the plane z = 1; `distance`: of what the view turns about afterwards.
    """
    rotation, centre = shown_from_cam[:, :3], shown_from_cam[:, 3]
    half_height = max(half_wh[1], half_wh[0] / aspect)
    return Viewpoint(
        position=centre,
        look_at=centre + distance * rotation[:, 2],
        up=-rotation[:, 1],
        fov=float(2 * np.arctan(half_height)),
    )
