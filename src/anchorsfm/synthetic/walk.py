"""A walk along a street that comes back to where it began: many photographs, of which only near ones overlap.

World as in `solids`: metres, y down. The street is a ring between two rows of houses (boxes of different widths, depths
and heights, with smaller boxes in front); its length follows from the number of photographs. The photographer walks in
the middle and looks ahead and at the outer row.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from anchorsfm.scene.settings import Range, Settings
from anchorsfm.synthetic.solids import Solids

_HALF_HEIGHT_M = 2.2
_HOUSE_M = 3.0
"""Mean width of a house."""
_SHORTEST_RADIUS_M = 6.0


@dataclass(frozen=True, kw_only=True)
class WalkConfig(Settings):
    """Instead of the room: a street that is a ring, and a walk once around it."""

    step_m: Annotated[float, Range(0.05, 5)] = 0.5
    """Between one photograph and the next."""
    width_m: Annotated[float, Range(3, 20)] = 6.0
    """Of the street."""
    ahead_deg: Annotated[float, Range(-90, 90)] = 35.0
    """How far the cameras look ahead; 0: straight at the outer row of houses."""

    def radius_m(self, num_images: int) -> float:
        """Of the path."""
        return max(num_images * self.step_m / (2 * np.pi), _SHORTEST_RADIUS_M)


def street(config: WalkConfig, num_images: int, rng: np.random.Generator) -> Solids:
    """The houses, and what stands in front of them."""
    radius, half_width = config.radius_m(num_images), config.width_m / 2
    rows = [
        _row(radius + half_width, 1.0, 1.0, rng),
        _row(radius - half_width, -1.0, 1.0, rng),
        _row(radius + half_width - 0.3, 1.0, 0.25, rng),
    ]
    centre, half, yaw = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    beyond = radius + half_width + 6.0
    return Solids(
        room_half=np.array([beyond, _HALF_HEIGHT_M, beyond]),
        box_centre=centre,
        box_half=half,
        box_yaw_rad=yaw,
        sphere_centre=np.zeros((0, 3)),
        sphere_radius=np.zeros(0),
    )


def _row(
    front_m: float, outwards: float, size: float, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "box 3"], Float[np.ndarray, "box 3"], Float[np.ndarray, "box"]]:
    """Centres, half extents and turns of boxes whose fronts stand about `front_m` from the middle of the ring."""
    count = max(int(2 * np.pi * front_m / _HOUSE_M), 6)
    angle = 2 * np.pi * (np.arange(count) + rng.uniform(-0.2, 0.2, count)) / count
    half = rng.uniform([0.3, 0.3, 0.2], [0.55, 0.95, 0.5], (count, 3)) * [_HOUSE_M, _HALF_HEIGHT_M, 2.0] * size
    distance = front_m + outwards * half[:, 2] + rng.uniform(-0.4, 0.4, count) * size
    centre = np.stack([distance * np.sin(angle), _HALF_HEIGHT_M - half[:, 1], -distance * np.cos(angle)], axis=1)
    return centre, half, -angle + rng.uniform(-0.25, 0.25, count)


def cameras_along(
    config: WalkConfig, count: int, *, jitter: float, rng: np.random.Generator
) -> Float[np.ndarray, "image 3 4"]:
    """cam_from_world of `count` cameras in the order of the walk; `jitter` 1: as a hand-held camera sways."""
    noise = jitter * rng.uniform(-1, 1, (count, 6))
    angle = 2 * np.pi * (np.arange(count) + 0.2 * noise[:, 0]) / count
    radius = config.radius_m(count) + 0.25 * noise[:, 1]
    height = _HALF_HEIGHT_M - 1.6 + 0.1 * noise[:, 2]
    centre = np.stack([radius * np.sin(angle), height, -radius * np.cos(angle)], axis=1)
    # z outwards (0, 0, -1 at angle 0), turned towards the direction of the walk (x at angle 0); y down
    heading = np.pi - angle - np.radians(config.ahead_deg)
    turn = Rotation.from_rotvec(np.outer(heading, [0.0, 1.0, 0.0])).as_matrix()
    sway = Rotation.from_rotvec(np.radians(4.0) * noise[:, 3:]).as_matrix()
    rotation = sway @ np.swapaxes(turn, 1, 2)
    return np.concatenate([rotation, -rotation @ centre[:, :, None]], axis=2)
