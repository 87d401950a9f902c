"""A closed room with boxes and spheres in it, and the exact hits of rays.

World: metres, y down, the floor below. Solids are numbered room, boxes, spheres.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True)
class Solids:
    """The surfaces of a scene; the room is seen from inside, everything else from outside."""

    room_half: Float[np.ndarray, "3"]
    """The room reaches from -room_half to room_half."""
    box_centre: Float[np.ndarray, "box 3"]
    box_half: Float[np.ndarray, "box 3"]
    box_yaw_rad: Float[np.ndarray, "box"]
    """Turn about the vertical axis."""
    sphere_centre: Float[np.ndarray, "sphere 3"]
    sphere_radius: Float[np.ndarray, "sphere"]

    @property
    def count(self) -> int:
        return 1 + len(self.box_yaw_rad) + len(self.sphere_radius)


@dataclass(frozen=True, kw_only=True)
class Hits:
    """Where rays first meet a surface."""

    distance: Float[np.ndarray, "ray"]
    """In units of the ray's direction vector: depth, if that has z = 1 in the camera frame."""
    solid: Int[np.ndarray, "ray"]
    normal: Float[np.ndarray, "ray 3"]
    """Unit vector towards the ray's origin side."""


def cast(solids: Solids, origin: Float[np.ndarray, "3"], direction: Float[np.ndarray, "ray 3"]) -> Hits:
    """First hits of rays from a point inside the room, in the precision of `direction`."""
    dtype = direction.dtype
    distance, normal = _leave_room(solids.room_half.astype(dtype), origin.astype(dtype), direction)
    solid = np.zeros(len(direction), np.int64)
    squared = np.einsum("rk,rk->r", direction, direction)
    in_view = _in_view(direction, squared)
    num_boxes = len(solids.box_yaw_rad)
    for row in range(solids.count - 1):
        if row < num_boxes:
            offset, radius = solids.box_centre[row] - origin, float(np.linalg.norm(solids.box_half[row]))
        else:
            offset, radius = (
                solids.sphere_centre[row - num_boxes] - origin,
                float(solids.sphere_radius[row - num_boxes]),
            )
        if not in_view(offset, radius):
            continue
        near = _pass_by(direction, squared, offset.astype(dtype), radius)
        if row < num_boxes:
            enter, entry_normal = _enter_box(
                solids.box_half[row].astype(dtype), solids.box_yaw_rad[row], offset.astype(dtype), direction[near]
            )
        else:
            enter, entry_normal = _enter_sphere(radius, offset.astype(dtype), direction[near], squared[near])
        first = enter < distance[near]
        distance[near[first]], normal[near[first]], solid[near[first]] = enter[first], entry_normal[first], 1 + row
    return Hits(distance=distance, solid=solid, normal=normal)


def _in_view(direction: np.ndarray, squared: np.ndarray) -> Callable[[np.ndarray, float], bool]:
    """Whether a sphere may be hit by any ray: whether it touches the cone about their mean that holds all of them."""
    unit = direction / np.sqrt(squared)[:, None]
    total = unit.sum(axis=0, dtype=float)
    axis = total / max(float(np.linalg.norm(total)), 1e-12)
    opening = np.arccos(np.clip((unit @ axis.astype(unit.dtype)).min(initial=1.0), -1, 1)) + 0.02

    def touches(offset: np.ndarray, radius: float) -> bool:
        distance = float(np.linalg.norm(offset))
        if distance <= radius:
            return True
        return bool(np.arccos(np.clip(offset @ axis / distance, -1, 1)) <= opening + np.arcsin(radius / distance))

    return touches


def _pass_by(direction: np.ndarray, squared: np.ndarray, offset: np.ndarray, radius: float) -> Int[np.ndarray, "near"]:
    """Rows of the rays that pass a point within a radius (and a little more), ahead of their origin."""
    along = direction @ offset
    miss_squared = max(float(offset @ offset) - (1.001 * radius) ** 2, 0.0)
    return np.flatnonzero((along > 0) & (along * along >= direction.dtype.type(miss_squared) * squared))


def _leave_room(half: np.ndarray, origin: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    to_wall = (np.copysign(half, direction) - origin) / _away_from_zero(direction)
    axis = to_wall.argmin(axis=1)
    rows = np.arange(len(direction))
    normal = np.zeros_like(direction)
    normal[rows, axis] = -np.sign(direction[rows, axis])
    return to_wall[rows, axis], normal


def _enter_box(
    half: np.ndarray, yaw_rad: float, offset: np.ndarray, direction: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distance (infinite if missed) and normal by the slab test in the frame of the box (Kay and Kajiya 1986)."""
    box_from_world = _yaw(-yaw_rad).astype(direction.dtype)
    local = direction @ box_from_world.T
    inverse = 1 / _away_from_zero(local)
    reach = np.abs(half * inverse)
    middle = (box_from_world @ offset) * inverse
    enter, leave = (middle - reach).max(axis=1), (middle + reach).min(axis=1)
    axis = (middle - reach).argmax(axis=1)
    rows = np.arange(len(axis))
    normal = np.zeros_like(direction)
    normal[rows, axis] = -np.sign(local[rows, axis])
    return np.where((enter < leave) & (enter > 1e-6), enter, np.inf).astype(direction.dtype), normal @ box_from_world


def _enter_sphere(
    radius: float, offset: np.ndarray, direction: np.ndarray, squared: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distance (infinite if missed) and normal from the quadratic |t direction - offset| = radius."""
    along = direction @ offset
    discriminant = along * along - squared * (offset @ offset - direction.dtype.type(radius**2))
    enter = (along - np.sqrt(np.maximum(discriminant, 0))) / squared
    normal = (enter[:, None] * direction - offset) / direction.dtype.type(radius)
    return np.where((discriminant > 0) & (enter > 1e-6), enter, np.inf).astype(direction.dtype), normal


def _away_from_zero(direction: np.ndarray) -> np.ndarray:
    tiny = np.finfo(direction.dtype).tiny ** 0.5
    return np.where(np.abs(direction) < tiny, np.copysign(tiny, direction), direction)


def _yaw(angle_rad: float) -> np.ndarray:
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
