"""Photographs from above an open ground: flights straight down, and views of a plane from around it.

World as in `solids`: metres, y down; the ground is the floor of a room so wide that no photograph sees its walls.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from anchorsfm.scene.settings import Range, Settings
from anchorsfm.synthetic.solids import Solids

_ROOM_HALF = np.array([40.0, 1.7, 40.0])
_NUM_BOXES = 40
_ACROSS, _ALONG = 0.6, 0.7
"""Overlap of neighbouring flight lines, and of photographs along a line."""


@dataclass(frozen=True, kw_only=True)
class GroundConfig(Settings):
    """Instead of the room: a ground, and cameras above it."""

    height_m: Annotated[float, Range(0.5, 3.3)] = 2.6
    """Of the cameras above the ground."""
    relief: Annotated[float, Range(0, 0.8)] = 0.0
    """Height of the highest boxes on the ground over that of the cameras; 0: a plane."""
    tilt_deg: Annotated[float, Range(0, 70)] = 0.0
    """0: parallel flight lines, all cameras look down. Otherwise they stand on an arc and look at one place of the
    ground, this far from straight down."""


def ground_solids(config: GroundConfig, rng: np.random.Generator) -> Solids:
    """The ground with boxes on it, if it has relief."""
    count = _NUM_BOXES if config.relief > 0 else 0
    reach = 1.2 * config.height_m
    half = rng.uniform(0.05, 0.14, (count, 3)) * config.height_m
    half[:, 1] = rng.uniform(0.25, 1.0, count) * config.relief * config.height_m / 2
    place = rng.uniform(-reach, reach, (count, 2))
    return Solids(
        room_half=_ROOM_HALF,
        box_centre=np.stack([place[:, 0], _ROOM_HALF[1] - half[:, 1], place[:, 1]], axis=1),
        box_half=half,
        box_yaw_rad=rng.uniform(0, np.pi, count),
        sphere_centre=np.zeros((0, 3)),
        sphere_radius=np.zeros(0),
    )


def cameras_above(
    config: GroundConfig,
    count: int,
    *,
    field: Float[np.ndarray, "2"],
    arc_deg: float,
    jitter: float,
    rng: np.random.Generator,
) -> Float[np.ndarray, "image 3 4"]:
    """cam_from_world of `count` cameras.

    `field` is the width and height that a photograph covers at unit distance, `arc_deg` the angle that tilted cameras
    span; `jitter` 1 makes positions and directions as irregular as those of a drone in some wind.
    """
    noise = jitter * rng.uniform(-1, 1, (count, 6))
    if config.tilt_deg == 0:
        centre = _lines(count, config.height_m * field * (1 - _ACROSS, 1 - _ALONG))
        yaw = np.zeros(count)
    else:
        yaw = np.radians(np.linspace(-arc_deg / 2, arc_deg / 2, count))
        distance = config.height_m * np.tan(np.radians(config.tilt_deg))
        centre = distance * np.stack([-np.sin(yaw), -np.cos(yaw)], axis=1)
    above = config.height_m * (1 + 0.04 * noise[:, 0])
    xyz = np.stack([centre[:, 0], _ROOM_HALF[1] - above, centre[:, 1]], axis=1)
    xyz[:, [0, 2]] += 0.04 * config.height_m * noise[:, 1:3]
    # x right, y towards -z on the ground, looking down (+y); then tilted up towards +z and turned about the vertical
    down = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
    wind = Rotation.from_rotvec(np.radians(2.5) * noise[:, 3:]).as_matrix()
    tilt = Rotation.from_euler("x", -config.tilt_deg, degrees=True).as_matrix()
    turn = Rotation.from_rotvec(np.outer(yaw, [0.0, 1.0, 0.0])).as_matrix()
    rotation = wind @ down @ np.swapaxes(turn @ tilt, 1, 2)
    return np.concatenate([rotation, -rotation @ xyz[:, :, None]], axis=2)


def _lines(count: int, step: Float[np.ndarray, "2"]) -> Float[np.ndarray, "image 2"]:
    """Places on parallel lines, flown there and back."""
    num_lines = max(round(np.sqrt(count)), 1)
    per_line = -(-count // num_lines)
    line, along = np.divmod(np.arange(count), per_line)
    along = np.where(line % 2 == 0, along, per_line - 1 - along)
    return np.stack([line - (num_lines - 1) / 2, along - (per_line - 1) / 2], axis=1) * step
