"""What is seen at a pixel of a photograph: a place in the frame of a model."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from anchorsfm.colmap.cameras import normalised_from_pixels, project
from anchorsfm.geometry.transforms import invert, transform
from anchorsfm.results.model import StoredModel
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.printable import printable

_NEAR_PX = 4.0
"""How far from a pixel an observation may be, in a picture with a long side of `_LONG_SIDE`; the dense cloud too."""
_LONG_SIDE = 1024
_SURFACE = 0.02
"""Points of the dense cloud whose depth is larger than the least by at most this share are on the same surface."""


@dataclass(frozen=True, kw_only=True)
class Pick:
    """A place that is seen at a pixel."""

    xyz: Float[np.ndarray, "3"]
    """In the frame of the model: on the ray of the pixel."""
    found_in: str
    """What its depth is from: `points` of the model, or its dense `cloud`."""
    off_px: float
    """How far the nearest of these is from the pixel."""


def view_named(stored: StoredModel, name: str) -> int:
    """The view of a photograph; raises InputError if the model has none of this name."""
    names = stored.view_names
    if name not in names:
        raise InputError(
            f"{printable(name)} is not among the {len(names)} photographs of the model {stored.folder} "
            f"(such as {printable(names[0]) if names else 'none'})"
        )
    return names.index(name)


def pick(stored: StoredModel, name: str, xy: Float[np.ndarray, "2"]) -> Pick:
    """The place seen at pixel `xy` of a photograph.

    Its depth is that of the nearest observed point, if it is near enough, or that of the dense cloud there.

    Raises InputError if the photograph is not in the model, the pixel not in the photograph, or nothing known there.
    """
    view = view_named(stored, name)
    camera = stored.model.cameras[stored.model.camera_index[view]]
    where = f"{xy[0]:g},{xy[1]:g} of {printable(name)}"
    if not (0 <= xy[0] <= camera.width and 0 <= xy[1] <= camera.height):
        raise InputError(f"{where} is outside of the picture, which has {camera.width}x{camera.height} pixels")
    near_px = _NEAR_PX * max(1.0, max(camera.width, camera.height) / _LONG_SIDE)
    found = _from_points(stored, view, xy, near_px) or _from_cloud(stored, view, xy, near_px)
    ray = normalised_from_pixels(camera, xy[None])[0]
    if found is None or not np.isfinite(ray).all():
        raise InputError(
            f"nothing is known about the place at {where}: no point of the model and none of a dense cloud is within "
            f"{near_px:.0f} pixels; mark a place with texture that several photographs show"
        )
    depth, what, off_px = found
    in_cam = depth * np.array([*ray, 1.0])
    xyz = transform(invert(stored.model.cam_from_world[view]), in_cam)
    return Pick(xyz=xyz, found_in=what, off_px=off_px)


def _from_points(
    stored: StoredModel, view: int, xy: Float[np.ndarray, "2"], near_px: float
) -> tuple[float, str, float] | None:
    """Depth of the point whose observation is nearest, and how far that is."""
    model, rows = stored.model, stored.observations(view)
    if not len(rows):
        return None
    distance = np.linalg.norm(model.tracks.obs_xy[rows] - xy, axis=1)
    nearest = int(distance.argmin())
    pose = model.cam_from_world[view]
    depth = float(pose[2, :3] @ model.points[model.tracks.obs_point[rows[nearest]]] + pose[2, 3])
    return (depth, "points", float(distance[nearest])) if distance[nearest] <= near_px and depth > 0 else None


def _from_cloud(
    stored: StoredModel, view: int, xy: Float[np.ndarray, "2"], near_px: float
) -> tuple[float, str, float] | None:
    """Depth of the foremost surface of the dense cloud around the pixel."""
    cloud = stored.read_cloud()
    if cloud is None or not len(cloud.xyz):
        return None
    model = stored.model
    in_cam = transform(model.cam_from_world[view], cloud.xyz.astype(np.float64))
    seen, valid = project(model.cameras[model.camera_index[view]], in_cam)
    distance = np.linalg.norm(np.where(valid[:, None], seen, np.inf) - xy, axis=1)
    near = np.flatnonzero(distance <= near_px)
    if not len(near):
        return None
    depth = in_cam[near, 2]
    surface = near[depth <= depth.min() * (1 + _SURFACE)]
    return float(np.median(in_cam[surface, 2])), "cloud", float(distance[surface].min())
