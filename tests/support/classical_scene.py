"""The textured corner of a house behind a card, rendered by ray casting: images with exactly known depth."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

TEXTURE_SIZE = 2048
TEXTURE_PER_M = 70.0


def _texture(seed: int) -> np.ndarray:
    """Random grey values with structure from coarse to fine."""
    rng = np.random.default_rng(seed)
    total = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE), np.float32)
    for sigma, gain in ((1.5, 1.0), (4.0, 1.0), (12.0, 1.0), (40.0, 0.7)):
        layer = cv2.GaussianBlur(rng.standard_normal(total.shape).astype(np.float32), (0, 0), sigma)
        total += gain * layer / layer.std()
    return np.clip(128 + 30 * total, 0, 255).astype(np.float32)


@dataclass(frozen=True)
class Plane:
    """Points p with normal . p = offset; limited to |x| <= half_x, |y| <= half_y."""

    normal: tuple[float, float, float]
    offset: float
    seed: int
    half_xy: tuple[float, float] = (100.0, 100.0)


WALL = Plane((0.25, 0.1, 1.0), 6.0, seed=1)
SIDE = Plane((-0.6, -0.1, 1.0), 6.0, seed=3)
CARD = Plane((0.0, 0.0, 1.0), 4.0, seed=2, half_xy=(0.6, 0.5))
_TEXTURES = {plane.seed: _texture(plane.seed) for plane in (WALL, SIDE, CARD)}


@dataclass(frozen=True)
class View:
    """A camera: world point X is at rotation @ (X - centre)."""

    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rotation_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    focal_px: float = 330.0
    size_wh: tuple[int, int] = (360, 270)
    planes: Sequence[Plane] = field(default=(WALL, SIDE, CARD))

    @property
    def cam_from_world(self) -> np.ndarray:
        rotation = Rotation.from_rotvec(self.rotation_deg, degrees=True).as_matrix()
        return np.column_stack([rotation, -rotation @ self.centre])


def render(view: View) -> tuple[np.ndarray, np.ndarray]:
    """Grey image (uint8) and depth (float)."""
    width, height = view.size_wh
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack([(u - width / 2) / view.focal_px, (v - height / 2) / view.focal_px, np.ones_like(u)], axis=-1)
    in_world = rays @ view.cam_from_world[:, :3]  # rotation^T r
    depth, grey = np.full(u.shape, np.inf), np.zeros(u.shape, np.float32)
    for plane in view.planes:
        normal, centre = np.array(plane.normal), np.array(view.centre)
        distance = (plane.offset - normal @ centre) / (in_world @ normal)
        point = centre + distance[..., None] * in_world
        x, y = point[..., 0], point[..., 1]
        hit = (distance > 0) & (np.abs(x) < plane.half_xy[0]) & (np.abs(y) < plane.half_xy[1]) & (distance < depth)
        maps = [(TEXTURE_SIZE / 2 + axis * TEXTURE_PER_M).astype(np.float32) for axis in (x, y)]
        colour = cv2.remap(_TEXTURES[plane.seed], maps[0], maps[1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        depth, grey = np.where(hit, distance, depth), np.where(hit, colour, grey)
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8), depth


def pose_between(view_i: View, view_j: View) -> np.ndarray:
    """j_from_i with the baseline in metres."""
    i, j = view_i.cam_from_world, view_j.cam_from_world
    rotation = j[:, :3] @ i[:, :3].T
    return np.column_stack([rotation, j[:, 3] - rotation @ i[:, 3]])


def save_images(folder: Path, pictures: Sequence[np.ndarray]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{index:02d}.png")
    return folder


def project_random(
    rng: np.random.Generator, pose_j_from_i: np.ndarray, focal_ij: tuple[float, float], num: int, noise_px: float = 0.3
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centred matches of random points in depths 4 .. 8, and their depths (match, 2) in the units of the pose."""
    depth_i = rng.uniform(4, 8, num)
    xy_i = rng.uniform(-1, 1, (num, 2)) * (500, 380)
    points = np.column_stack([xy_i / focal_ij[0], np.ones(num)]) * depth_i[:, None]
    in_j = points @ pose_j_from_i[:, :3].T + pose_j_from_i[:, 3]
    xy_j = in_j[:, :2] / in_j[:, 2:] * focal_ij[1]
    noisy = [xy + noise_px * rng.standard_normal(xy.shape) for xy in (xy_i, xy_j)]
    return noisy[0], noisy[1], np.column_stack([depth_i, in_j[:, 2]])
