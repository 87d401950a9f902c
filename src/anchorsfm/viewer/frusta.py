"""Cameras as pyramids: apex at the projection centre, base the picture, as arrays for lines, faces and pictures."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

from anchorsfm.colmap.cameras import focal_length_px, normalised_from_pixels
from anchorsfm.scene.reconstruction import Camera
from anchorsfm.viewer.frame import SCENE_RADIUS

_WIDEST = 1.5
"""Half a picture on the plane z = 1 at most: fisheye pictures would be larger than the scene."""
_CORNERS = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
PYRAMID_VERTICES = np.array([[0.0, 0.0, 0.0], *([x, y, 1.0] for x, y in _CORNERS)])
"""Half width, half height and depth 1: an instance is scaled by its own."""
PYRAMID_FACES = np.array([[0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 1]])
"""Without the base, where the picture is."""


@dataclass(frozen=True, kw_only=True)
class Frusta:
    """The cameras of a model in the frame that is shown."""

    shown_from_cam: Float[np.ndarray, "view 3 4"]
    half_wh: Float[np.ndarray, "view 2"]
    """Half the picture on the plane z = 1."""
    depth: float
    """Height of the pyramids before the user changes it."""


def make_frusta(
    shown_from_cam: Float[np.ndarray, "view 3 4"], cameras: tuple[Camera, ...], camera_index: Int[np.ndarray, "view"]
) -> Frusta:
    """Pyramids of a size that suits the distances between the cameras."""
    half = np.array([half_picture(camera) for camera in cameras], float).reshape(-1, 2)
    return Frusta(
        shown_from_cam=shown_from_cam,
        half_wh=half[camera_index],
        depth=_suitable_depth(shown_from_cam[:, :, 3], half[camera_index]),
    )


def half_picture(camera: Camera) -> tuple[float, float]:
    """Half width and height of a picture on the plane z = 1, without lens distortion where that can be undone."""
    ends = np.array([[0.0, camera.height / 2], [camera.width, camera.height / 2],
                     [camera.width / 2, 0.0], [camera.width / 2, camera.height]])  # fmt: skip
    plane = normalised_from_pixels(camera, ends)
    size = np.array([plane[1, 0] - plane[0, 0], plane[3, 1] - plane[2, 1]]) / 2
    if not np.isfinite(size).all() or (size <= 0).any():
        size = np.array([camera.width, camera.height]) / 2 / focal_length_px(camera)
    size *= min(1.0, _WIDEST / size.max())
    return float(size[0]), float(size[1])


def _suitable_depth(centres: Float[np.ndarray, "view 3"], half_wh: Float[np.ndarray, "view 2"]) -> float:
    """So that the base is about as wide as neighbouring cameras are apart, within bounds."""
    from scipy.spatial import cKDTree

    limits = (0.02 * SCENE_RADIUS, 0.16 * SCENE_RADIUS)
    if len(centres) < 2:
        return limits[1]
    nearest = np.asarray(cKDTree(centres).query(centres, k=2)[0])[:, 1]
    return float(np.clip(0.8 * np.median(nearest) / np.median(2 * half_wh[:, 0]), *limits))


def corners(frusta: Frusta, depth: float) -> Float[np.ndarray, "view 4 3"]:
    """Corners of the pictures, from the top left clockwise."""
    offset = np.concatenate(
        [_CORNERS * frusta.half_wh[:, None], np.ones((len(frusta.half_wh), 4, 1))], axis=2
    )  # (view, 4, 3) in the camera frame
    turned = offset @ frusta.shown_from_cam[:, :, :3].swapaxes(1, 2)
    return frusta.shown_from_cam[:, None, :, 3] + depth * turned


def outlines(frusta: Frusta, depth: float) -> Float[np.ndarray, "line 2 3"]:
    """Ten lines for each camera: four edges, the border of the picture, and a tip at its upper side."""
    corner = corners(frusta, depth)
    centre = np.repeat(frusta.shown_from_cam[:, None, :, 3], 4, axis=1)
    edges = np.stack([centre, corner], axis=2)
    border = np.stack([corner, np.roll(corner, -1, axis=1)], axis=2)
    middle = corner[:, :2].mean(1)
    tip = middle - 0.25 * (corner[:, 3] - corner[:, 0])
    roof = np.stack([np.stack([corner[:, 0], tip], 1), np.stack([tip, corner[:, 1]], 1)], axis=1)
    return np.concatenate([edges, border, roof], axis=1).reshape(-1, 2, 3)


def one_of(frusta: Frusta, view: int) -> Frusta:
    """The frusta of one camera."""
    row = slice(view, view + 1)
    return Frusta(shown_from_cam=frusta.shown_from_cam[row], half_wh=frusta.half_wh[row], depth=frusta.depth)


LINES_PER_CAMERA = 10


def outline_colours(rgb: UInt8[np.ndarray, "view 3"]) -> UInt8[np.ndarray, "line 2 3"]:
    """The colours of the cameras for both ends of each of their lines."""
    per_line = np.repeat(rgb, LINES_PER_CAMERA, axis=0)
    return np.stack([per_line, per_line], axis=1)


def quaternions(rotation: Float[np.ndarray, "view 3 3"]) -> Float[np.ndarray, "view 4"]:
    """(w, x, y, z) of rotation matrices."""
    from scipy.spatial.transform import Rotation

    if not len(rotation):
        return np.zeros((0, 4))
    return np.roll(Rotation.from_matrix(rotation).as_quat(), 1, axis=1)


def spread(count: int, limit: int) -> Int[np.ndarray, "chosen"]:
    """At most `limit` of 0 .. count-1, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).astype(np.int64)) if count else np.zeros(0, np.int64)
