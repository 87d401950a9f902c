"""Solid textures: colour as a function of the 3D point, so that all views agree on it.

Sums of band-limited noise over octaves of cell size ("fractal noise", Perlin 1985), with about the same contrast at
every size, so that detectors of local features find many at any distance. Each octave looks its values up in one
periodic table; a different rotation per octave keeps the period out of sight: no plane contains a period of the rotated
lattice. An octave fades out before its cells get smaller than a pixel, as a lens and a sensor would blur them.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

_TABLE_SIZE = 64
_COARSEST_CELL_M = 0.5
_NUM_OCTAVES = 9


@dataclass(frozen=True, kw_only=True)
class Texture:
    """Noise table and the colours of every material."""

    table: Float32[np.ndarray, "n n n"]
    table_from_world: Float[np.ndarray, "octave 3 3"]
    """Rotation and scaling to table cells."""
    table_offset: Float[np.ndarray, "octave 3"]
    cell_m: Float[np.ndarray, "octave"]
    base_rgb: Float[np.ndarray, "material 2 3"]
    """Two colours, between which patches alternate; linear, 0..1."""
    offset_m: Float[np.ndarray, "material 3"]
    """Shift of the noise, so that touching solids do not share patterns."""


def make_texture(num_plain: int, num_coloured: int, rng: np.random.Generator) -> Texture:
    """Random noise and colours: first the plain materials (bright, nearly grey), then the coloured ones."""
    num_materials = num_plain + num_coloured
    noise = gaussian_filter(rng.standard_normal((_TABLE_SIZE,) * 3), 0.8, mode="wrap")
    cell_m = _COARSEST_CELL_M * 0.5 ** np.arange(_NUM_OCTAVES)
    hue = np.linspace(0, 2 * np.pi, num_materials, endpoint=False)[:, None] * 2.4
    turn = hue + rng.normal(0, 0.6, (num_materials, 2))
    tint = np.stack([np.cos(turn), np.cos(turn - 2.1), np.cos(turn + 2.1)], axis=-1)
    plain = (np.arange(num_materials) < num_plain)[:, None, None]
    level = np.where(plain, [[[0.42], [0.3]]], rng.uniform(0.12, 0.5, (num_materials, 2, 1)))
    return Texture(
        table=(noise / noise.std()).astype(np.float32),
        table_from_world=Rotation.random(_NUM_OCTAVES, random_state=rng).as_matrix() / cell_m[:, None, None],
        table_offset=rng.uniform(0, _TABLE_SIZE, (_NUM_OCTAVES, 3)),
        cell_m=cell_m,
        base_rgb=np.clip(level * (1 + np.where(plain, 0.12, 0.6) * tint), 0, 1),
        offset_m=rng.uniform(-30, 30, (num_materials, 3)),
    )


def colour(
    texture: Texture,
    points: Float[np.ndarray, "point 3"],
    material: Int[np.ndarray, "point"],
    footprint_m: Float[np.ndarray, "point"],
) -> Float32[np.ndarray, "point 3"]:
    """Reflectance (linear RGB, 0..1) of surface points; `footprint_m` is the size of a pixel on the surface."""
    local = points + texture.offset_m[material].astype(points.dtype)
    octaves = np.stack([_octave(texture, k, local, footprint_m) for k in range(len(texture.cell_m))])
    # Patches of two colours with borders a sixth of a patch wide, plus brightness and a little hue at every size.
    patch = 1 / (1 + np.exp(-4 * (octaves[1] + 0.7 * octaves[3])))
    rgb = texture.base_rgb[material, 0] * (1 - patch[:, None]) + texture.base_rgb[material, 1] * patch[:, None]
    brightness = 0.26 * octaves[2:].sum(axis=0) + 0.15 * octaves[0]
    warmth = 0.12 * (octaves[0] + octaves[2] - octaves[4])
    gain = np.exp(np.clip(brightness[:, None] + warmth[:, None] * np.array([1, 0, -1]), -2.0, 1.2))
    return np.clip(rgb * gain, 0, 1).astype(np.float32)


def _octave(
    texture: Texture, octave: int, points: Float[np.ndarray, "point 3"], footprint_m: Float[np.ndarray, "point"]
) -> Float32[np.ndarray, "point"]:
    """Noise of unit variance, fading to 0 where a pixel is wider than about one cell."""
    values = np.zeros(len(points), np.float32)
    weight = np.clip(1.6 - footprint_m / texture.cell_m[octave], 0, 1).astype(np.float32)
    seen = weight > 0
    cells = points[seen] @ texture.table_from_world[octave].T.astype(points.dtype) + texture.table_offset[octave]
    values[seen] = weight[seen] * map_coordinates(texture.table, cells.T, order=1, mode="grid-wrap", output=np.float32)
    return values
