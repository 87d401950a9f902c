"""Photographs of a scene by rigs: several cameras that are fixed to each other, and panoramas of the whole sphere."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float, UInt8

from anchorsfm.geometry.pixels import pixel_centres
from anchorsfm.geometry.transforms import camera_centres, compose
from anchorsfm.synthetic.render import shade_rays
from anchorsfm.synthetic.scenes import SyntheticScene

_SECTORS = 12
"""Parts of a panorama that are rendered by themselves: what a part does not see costs nothing."""


def with_rig(
    scene: SyntheticScene, sensor_from_rig: Float[np.ndarray, "sensor 3 4"], focal_px: Float[np.ndarray, "sensor"]
) -> SyntheticScene:
    """The scene seen by a rig at every pose of its cameras: images frame after frame, in each sensor after sensor."""
    poses = compose(sensor_from_rig[None], scene.cam_from_world[:, None]).reshape(-1, 3, 4)
    config = replace(scene.config, num_images=len(poses))
    return replace(scene, config=config, cam_from_world=poses, focal_px=np.tile(focal_px, scene.num_images))


def render_panorama(scene: SyntheticScene, image: int, width: int, *, noise: float = 1.0) -> UInt8[np.ndarray, "h w 3"]:
    """The whole sphere around the camera of an image, equirectangular, in sRGB; its optical axis is in the middle."""
    height = width // 2
    xy = pixel_centres((width, height)).reshape(-1, 2)
    longitude, latitude = (xy[:, 0] / width - 0.5) * 2 * np.pi, (0.5 - xy[:, 1] / height) * np.pi
    flat = np.cos(latitude)
    rays = np.stack([flat * np.sin(longitude), -np.sin(latitude), flat * np.cos(longitude)], axis=1)
    direction = (rays @ scene.cam_from_world[image, :, :3]).astype(np.float32)
    origin = camera_centres(scene.cam_from_world[image])
    rgb = np.zeros((len(xy), 3), np.float32)
    sector = (xy[:, 0] / width * _SECTORS).astype(np.int64) * 2 + (latitude > 0)
    for number in np.unique(sector):
        rows = np.flatnonzero(sector == number)
        rgb[rows] = shade_rays(scene, origin, direction[rows], width / (2 * np.pi))[0]
    encoded = 255 * np.clip(rgb, 0, 1) ** np.float32(1 / 2.2)
    rng = np.random.default_rng([scene.config.seed, 3, image])
    encoded += noise * rng.standard_normal(encoded.shape, dtype=np.float32)
    return np.clip(np.round(encoded), 0, 255).astype(np.uint8).reshape(height, width, 3)
