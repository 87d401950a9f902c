"""Two groups of solids that look exactly alike, each with surroundings of its own, and cameras around both.

Photographs of one group match those of the other well although they show different things: what joins such photographs
in one place is wrong (docs/method.md, Repeated structure). World as in `solids`: metres, y down.
"""

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from jaxtyping import Float

from anchorsfm.scene.settings import Range, Settings
from anchorsfm.synthetic.solids import Solids
from anchorsfm.synthetic.texture import Texture

_ROOM_HALF = np.array([7.5, 1.7, 4.6])
_TWIN_BOXES, _TWIN_SPHERES = 3, 2
_WALL_HALF_M = 0.1


@dataclass(frozen=True, kw_only=True)
class TwinsConfig(Settings):
    """Instead of the room's furniture: twins."""

    distance_m: Annotated[float, Range(1.5, 9)] = 7.0
    """Between the middles of the two groups."""
    is_divided: bool = True
    """Whether a wall between the twins lets no photograph show both."""
    seen_together: Annotated[float, Range(0, 1)] = 0.0
    """Share of the photographs that are taken from far enough to show both twins."""
    surroundings: Annotated[int, Range(0, 20)] = 6
    """Boxes around each twin that the other one does not have."""


def twin_solids(config: TwinsConfig, rng: np.random.Generator) -> tuple[Solids, tuple[tuple[int, int], ...]]:
    """The solids, and which of them look alike (numbers as in `Hits.solid`)."""
    middle = _middles(config)
    floor = _ROOM_HALF[1]
    half = rng.uniform([0.2, 0.35, 0.2], [0.38, 0.6, 0.38], (_TWIN_BOXES, 3))
    turn = rng.uniform(0, 2 * np.pi) + np.arange(_TWIN_BOXES) * 2 * np.pi / _TWIN_BOXES
    place = 0.42 * np.stack([np.cos(turn), np.zeros(_TWIN_BOXES), np.sin(turn)], axis=1)
    centre = place + (floor - half[:, 1])[:, None] * [0, 1, 0]
    yaw = rng.uniform(0, np.pi, _TWIN_BOXES)
    radius = rng.uniform(0.2, 0.3, _TWIN_SPHERES)
    balls = centre[:_TWIN_SPHERES] - [0, 1, 0] * (half[:_TWIN_SPHERES, 1:2] + radius[:, None])
    around = [_around(config, middle[side], rng) for side in (0, 1)]
    box_centre = [middle[0] + centre, middle[1] + centre, around[0][0], around[1][0]]
    box_half, box_yaw = [half, half, around[0][1], around[1][1]], [yaw, yaw, around[0][2], around[1][2]]
    if config.is_divided:
        box_centre.append(np.zeros((1, 3)))
        box_half.append(np.array([[_WALL_HALF_M, _ROOM_HALF[1], _ROOM_HALF[2]]]))
        box_yaw.append(np.zeros(1))
    solids = Solids(
        room_half=_ROOM_HALF,
        box_centre=np.concatenate(box_centre),
        box_half=np.concatenate(box_half),
        box_yaw_rad=np.concatenate(box_yaw),
        sphere_centre=np.concatenate([middle[0] + balls, middle[1] + balls]),
        sphere_radius=np.concatenate([radius, radius]),
    )
    first_sphere = 1 + len(solids.box_yaw_rad)
    boxes = [(1 + row, 1 + row + _TWIN_BOXES) for row in range(_TWIN_BOXES)]
    spheres = [(first_sphere + row, first_sphere + row + _TWIN_SPHERES) for row in range(_TWIN_SPHERES)]
    return solids, (*boxes, *spheres)


def alike(config: TwinsConfig, texture: Texture, twins: tuple[tuple[int, int], ...]) -> Texture:
    """The texture with the same pattern on both solids of every pair of twins."""
    base, offset = texture.base_rgb.copy(), texture.offset_m.copy()
    step = _middles(config)[1] - _middles(config)[0]
    for first, second in twins:  # materials: two more than solids, see `scenes.material`
        base[second + 2] = base[first + 2]
        offset[second + 2] = offset[first + 2] - step
    return replace(texture, base_rgb=base, offset_m=offset)


def twin_of_image(config: TwinsConfig, count: int) -> list[int]:
    """Which twin each photograph shows: 0, 1, or -1 for both."""
    both = round(config.seen_together * count)
    single = count - both
    return [0] * (single - single // 2) + [1] * (single // 2) + [-1] * both


def looks_at_twins(
    config: TwinsConfig, count: int, *, radius_m: float, arc_deg: float, jitter: float, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "image 3"], Float[np.ndarray, "image 3"]]:
    """Places of the cameras and what they look at: on an arc around each twin, and before both."""
    side = np.array(twin_of_image(config, count))
    centre, target = np.zeros((count, 3)), np.zeros((count, 3))
    noise = jitter * rng.uniform(-1, 1, (count, 6))
    for which in (0, 1, -1):
        rows = np.flatnonzero(side == which)
        arc = arc_deg if which >= 0 else min(arc_deg, 50.0)
        step = arc / (len(rows) if arc >= 360 else max(len(rows) - 1, 1))
        start = rng.uniform(-0.5, 0.5) * step
        angle = np.radians(step * (np.arange(len(rows)) - (len(rows) - 1) / 2 + 0.15 * noise[rows, 5]) + start)
        distance = radius_m if which >= 0 else min(radius_m + config.distance_m, 0.9 * _ROOM_HALF[2])
        middle = _middles(config)[which] if which >= 0 else np.zeros(3)
        radius = distance * (1 + 0.06 * noise[rows, 0])
        centre[rows] = middle + np.stack(
            [radius * np.sin(angle), -0.15 + 0.3 * noise[rows, 1], -radius * np.cos(angle)], axis=1
        )
        target[rows] = middle + [0.0, 0.75, 0.0] + noise[rows, 2:5] * [0.3, 0.15, 0.3]
    return centre, target


def _middles(config: TwinsConfig) -> Float[np.ndarray, "2 3"]:
    return np.array([[-0.5, 0.0, 0.0], [0.5, 0.0, 0.0]]) * config.distance_m


def _around(
    config: TwinsConfig, middle: Float[np.ndarray, "3"], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres, half sizes and turns of low boxes around one twin."""
    count = config.surroundings
    half = rng.uniform([0.08, 0.06, 0.08], [0.22, 0.2, 0.22], (count, 3))
    angle = rng.uniform(0, 2 * np.pi) + np.arange(count) * 2.4
    distance = rng.uniform(0.85, 1.25, count)
    place = np.stack([distance * np.cos(angle), _ROOM_HALF[1] - half[:, 1], distance * np.sin(angle)], axis=1)
    return middle + place, half, rng.uniform(0, np.pi, count)
