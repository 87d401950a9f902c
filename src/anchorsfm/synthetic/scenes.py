"""Scenes with known surfaces, textures and cameras.

A room with a group of boxes and spheres in its middle and furniture along its walls; cameras stand on an arc (or a
full circle) around the middle and look inwards. Or an open ground seen from above (see `ground`), a walk along a
street (see `walk`), or two groups of solids that look alike (see `twins`). Everything is a function of the
configuration, seed included.

Cameras are pinholes unless the configuration names a lens: then a pixel's ray is what COLMAP's camera model
of that name says, for fields of view of less than 180 degrees (a ray has depth 1).
"""

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from anchorsfm.colmap import cameras as colmap
from anchorsfm.scene.reconstruction import CAMERA_MODELS, Camera
from anchorsfm.scene.settings import OneOf, Range, Seed, Settings
from anchorsfm.synthetic.ground import GroundConfig, cameras_above, ground_solids
from anchorsfm.synthetic.solids import Hits, Solids, cast
from anchorsfm.synthetic.texture import Texture, make_texture
from anchorsfm.synthetic.twins import TwinsConfig, alike, looks_at_twins, twin_solids
from anchorsfm.synthetic.walk import WalkConfig, cameras_along, street

_Side = Annotated[int, Range(16, 20_000)]
_Offset = Annotated[float, Range(-10_000, 10_000)]
_ROOM_HALF = np.array([4.6, 1.7, 4.6])
_RADIUS_OF_LARGE_ROOM_M = 4.4
_BOXES_IN_THE_MIDDLE = 8
_ROUND_TRIP_PX = 0.1
"""Points whose pixel leads back to another ray by more than this are outside the field of view of their lens."""


@dataclass(frozen=True, kw_only=True)
class LensConfig(Settings):
    """A lens that is not a pinhole."""

    camera_model: Annotated[str, OneOf(*CAMERA_MODELS)] = "OPENCV"
    """COLMAP camera model; the focal length (both, if it has two) and the principal point are the scene's."""
    params: tuple[Annotated[float, Range(-1000, 1000)], ...] = (0.0, 0.0, 0.0, 0.0)
    """Its distortion parameters, in COLMAP's order, without focal lengths and principal point."""

    @property
    def first_param(self) -> int:
        """Where the distortion parameters begin among those of the camera model."""
        return colmap.make_camera(self.camera_model, 1.0, 8, 8).params[:2].count(1.0) + 2

    def check_together(self) -> None:
        count = len(colmap.make_camera(self.camera_model, 1.0, 8, 8).params) - self.first_param
        if len(self.params) != count:
            raise self.refused("params", f"{self.camera_model} has {count} distortion parameters")


@dataclass(frozen=True, kw_only=True)
class SceneConfig(Settings):
    """What to make."""

    num_images: Annotated[int, Range(1, 10000)] = 8
    size_wh: tuple[_Side, _Side] = (800, 600)
    arc_deg: Annotated[float, Range(0, 360)] = 70.0
    """Angle that the cameras span around the middle; 360 is a closed loop."""
    radius_m: Annotated[float, Range(0.1, 100)] = 3.0
    """Mean distance of the cameras from the middle; below 3.4 they keep clear of the furniture, and from 4.4 on (long
    lenses) the room grows with it and has nothing along its walls."""
    focal: Annotated[float, Range(0.1, 100)] = 0.9
    """Focal length in units of the longer side."""
    focal_spread: Annotated[float, Range(0, 10)] = 0.0
    """0: all images share the focal length; else each has its own, log-uniform within this factor minus one."""
    principal_point_offset_px: tuple[_Offset, _Offset] = (0.0, 0.0)
    """Principal point minus image centre, the same for all images."""
    lens: LensConfig | None = None
    """How the photographs are distorted; None: pinhole cameras."""
    jitter: Annotated[float, Range(0, 10)] = 1.0
    """Irregularity of the camera positions and directions; 0: exactly on the arc, level, looking at the middle."""
    ground: GroundConfig | None = None
    """Photographs from above an open ground instead of the room; `radius_m` then has no effect."""
    walk: WalkConfig | None = None
    """A walk along a street instead of the room; `radius_m` and `arc_deg` then have no effect."""
    twins: TwinsConfig | None = None
    """Two groups of solids that look alike instead of the room's furniture."""
    seed: Seed = 0

    def check_together(self) -> None:
        if sum(kind is not None for kind in (self.ground, self.walk, self.twins)) > 1:
            named = "twins" if self.twins is not None else "walk"
            raise self.refused(named, "a scene is a ground, a walk or twins, not several of them")


@dataclass(frozen=True, kw_only=True)
class SyntheticScene:
    """Surfaces, textures and cameras; pixels are COLMAP's."""

    config: SceneConfig
    solids: Solids
    texture: Texture
    light: Float[np.ndarray, "3"]
    """Position of the lamp."""
    cam_from_world: Float[np.ndarray, "image 3 4"]
    focal_px: Float[np.ndarray, "image"]
    principal_point_px: Float[np.ndarray, "2"]

    @property
    def num_images(self) -> int:
        return len(self.focal_px)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{image:04d}.jpg" for image in range(self.num_images))

    def intrinsics(self, image: int) -> Float[np.ndarray, "3 3"]:
        """Calibration matrix of an image."""
        (cx, cy), f = self.principal_point_px, self.focal_px[image]
        return np.array([[f, 0, cx], [0, f, cy], [0, 0, 1]])

    def camera(self, image: int) -> Camera:
        """Camera of an image with its distortion."""
        lens, (width, height) = (
            self.config.lens or LensConfig(camera_model="SIMPLE_PINHOLE", params=()),
            self.config.size_wh,
        )
        focal_px = float(self.focal_px[image])
        camera = colmap.make_camera(lens.camera_model, focal_px, width, height, self.principal_point_px)
        return replace(camera, params=(*camera.params[: lens.first_param], *lens.params))


def make_scene(config: SceneConfig) -> SyntheticScene:
    """The scene a configuration describes."""
    rng = np.random.default_rng([config.seed, 0])
    solids, pairs = _solids(config, rng)
    texture, light = make_texture(3, solids.count - 1, rng), np.array([1.2, -1.5, -0.8])
    if config.twins is not None:  # the lamp is between them
        texture, light = alike(config.twins, texture, pairs), np.array([0.0, -1.5, -0.8])
    longer = max(config.size_wh)
    spread = np.log1p(config.focal_spread) * rng.uniform(-1, 1, config.num_images)
    return SyntheticScene(
        config=config,
        solids=solids,
        texture=texture,
        light=light,
        cam_from_world=_cameras(config, np.random.default_rng([config.seed, 1])),
        focal_px=config.focal * longer * np.exp(spread),
        principal_point_px=np.array(config.size_wh) / 2 + config.principal_point_offset_px,
    )


def rays(
    scene: SyntheticScene, image: int, xy: Float[np.ndarray, "ray 2"]
) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "ray 3"]]:
    """Camera centre and directions in the world of the rays through pixels; directions have depth 1."""
    rotation, translation = scene.cam_from_world[image, :, :3], scene.cam_from_world[image, :, 3]
    if scene.config.lens is None:
        plane = (xy - scene.principal_point_px.astype(xy.dtype)) / xy.dtype.type(scene.focal_px[image])
    else:
        plane = colmap.normalised_from_pixels(scene.camera(image), xy.astype(np.float64)).astype(xy.dtype)
    direction = np.concatenate([plane, np.ones_like(plane[:, :1])], axis=1) @ rotation.astype(xy.dtype)
    return -rotation.T @ translation, direction


def cast_pixels(scene: SyntheticScene, image: int, xy: Float[np.ndarray, "ray 2"]) -> Hits:
    """What the rays through pixels hit; distances are depths in metres."""
    origin, direction = rays(scene, image, xy)
    return cast(scene.solids, origin, direction)


def material(hits: Hits) -> Int[np.ndarray, "ray"]:
    """Row of the texture: walls, floor and ceiling of the room, then the other solids."""
    vertical = hits.normal[:, 1]
    of_room = np.where(vertical < -0.5, 1, np.where(vertical > 0.5, 2, 0))
    return np.where(hits.solid == 0, of_room, hits.solid + 2)


def project(
    scene: SyntheticScene, image: int, points: Float[np.ndarray, "point 3"]
) -> tuple[Float[np.ndarray, "point 2"], Float[np.ndarray, "point"]]:
    """Pixels and depths of world points; pixels mean nothing where the depth is not positive.

    Points that a lens does not see (its polynomial would fold them back into the picture) have NaN pixels.
    """
    pose = scene.cam_from_world[image]
    in_cam = points @ pose[:, :3].T + pose[:, 3]
    depth = in_cam[:, 2]
    if scene.config.lens is not None:
        return _project_through(scene.camera(image), in_cam), depth
    plane = in_cam[:, :2] / np.where(np.abs(depth) < 1e-9, 1e-9, depth)[:, None]
    return plane * scene.focal_px[image] + scene.principal_point_px, depth


def _project_through(camera: Camera, in_cam: Float[np.ndarray, "point 3"]) -> Float[np.ndarray, "point 2"]:
    xy, seen = colmap.project(camera, in_cam)
    back = colmap.normalised_from_pixels(camera, np.where(seen[:, None], xy, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        miss = np.linalg.norm(back - in_cam[:, :2] / in_cam[:, 2:], axis=1) * colmap.focal_length_px(camera)
    xy[~(miss < _ROUND_TRIP_PX)] = np.nan
    return xy


def _solids(config: SceneConfig, rng: np.random.Generator) -> tuple[Solids, tuple[tuple[int, int], ...]]:
    """The solids, and which of them look alike."""
    if config.twins is not None:
        return twin_solids(config.twins, rng)
    if config.walk is not None:
        return street(config.walk, config.num_images, rng), ()
    if config.ground is not None:
        return ground_solids(config.ground, rng), ()
    solids = _furnish(rng)
    if config.radius_m > _RADIUS_OF_LARGE_ROOM_M:
        solids = _in_large_room(solids, config.radius_m)
    return solids, ()


def _furnish(rng: np.random.Generator) -> Solids:
    """Solids in the middle and along the walls, all standing on the floor or on a box."""
    floor = _ROOM_HALF[1]
    half = rng.uniform([0.18, 0.2, 0.18], [0.42, 0.6, 0.42], (_BOXES_IN_THE_MIDDLE, 3))
    place = _spread_out(rng, _BOXES_IN_THE_MIDDLE, 1.7)
    centre = np.stack([place[:, 0], floor - half[:, 1], place[:, 1]], axis=1)
    yaw = rng.uniform(0, np.pi, 8)
    radius = rng.uniform(0.16, 0.34, 6)
    on_box, on_floor = centre[:3] - [0, 1, 0] * (half[:3, 1:2] + radius[:3, None]), _spread_out(rng, 3, 1.9)
    sphere_floor = np.stack([on_floor[:, 0], floor - radius[3:], on_floor[:, 1]], axis=1)
    wall_half = rng.uniform([0.35, 0.3, 0.2], [0.75, 1.2, 0.45], (12, 3))
    wall_centre, wall_yaw = _along_walls(rng, wall_half)
    return Solids(
        room_half=_ROOM_HALF,
        box_centre=np.concatenate([centre, wall_centre]),
        box_half=np.concatenate([half, wall_half]),
        box_yaw_rad=np.concatenate([yaw, wall_yaw]),
        sphere_centre=np.concatenate([on_box, sphere_floor]),
        sphere_radius=radius,
    )


def _in_large_room(solids: Solids, radius_m: float) -> Solids:
    """What stands in the middle, with walls behind the cameras."""
    middle, larger = slice(_BOXES_IN_THE_MIDDLE), radius_m * _ROOM_HALF[0] / 3
    return replace(
        solids,
        room_half=np.array([larger, solids.room_half[1], larger]),
        box_centre=solids.box_centre[middle],
        box_half=solids.box_half[middle],
        box_yaw_rad=solids.box_yaw_rad[middle],
    )


def _spread_out(rng: np.random.Generator, count: int, radius_m: float) -> Float[np.ndarray, "place 2"]:
    """Places (x, z) in a disc, well apart: best of several random draws for each."""
    places = np.zeros((0, 2))
    for _ in range(count):
        angle, distance = rng.uniform(0, 2 * np.pi, 24), radius_m * np.sqrt(rng.uniform(0, 1, 24))
        draws = np.stack([distance * np.cos(angle), distance * np.sin(angle)], axis=1)
        gap = np.linalg.norm(draws[:, None] - places, axis=2).min(axis=1, initial=radius_m)
        places = np.append(places, draws[gap.argmax()][None], axis=0)
    return places


def _along_walls(rng: np.random.Generator, half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres and turns of boxes with their backs to the four walls, three to a wall."""
    count = len(half)
    yaw = np.arange(count) % 4 * (np.pi / 2)
    slot = (np.arange(count) // 4 - (count // 4 - 1) / 2) * 2.4 + rng.uniform(-0.35, 0.35, count)
    back = _ROOM_HALF[0] - half[:, 2] - 0.01
    x, z = slot * np.cos(yaw) + back * np.sin(yaw), -slot * np.sin(yaw) + back * np.cos(yaw)
    return np.stack([x, _ROOM_HALF[1] - half[:, 1], z], axis=1), yaw


def _cameras(config: SceneConfig, rng: np.random.Generator) -> Float[np.ndarray, "image 3 4"]:
    if config.twins is not None:
        centre, target = looks_at_twins(
            config.twins, config.num_images, radius_m=config.radius_m, arc_deg=config.arc_deg, jitter=config.jitter,
            rng=rng,
        )  # fmt: skip
        return np.stack([_look_at(c, t, np.eye(3)) for c, t in zip(centre, target, strict=True)])
    if config.walk is not None:
        return cameras_along(config.walk, config.num_images, jitter=config.jitter, rng=rng)
    if config.ground is None:
        return _cameras_on_arc(config, rng)
    field = np.array(config.size_wh) / (config.focal * max(config.size_wh))
    return cameras_above(
        config.ground, config.num_images, field=field, arc_deg=config.arc_deg, jitter=config.jitter, rng=rng
    )


def _cameras_on_arc(config: SceneConfig, rng: np.random.Generator) -> Float[np.ndarray, "image 3 4"]:
    count = config.num_images
    step = config.arc_deg / (count if config.arc_deg >= 360 else max(count - 1, 1))
    angle = np.radians(step * (np.arange(count) - (count - 1) / 2 + 0.15 * config.jitter * rng.uniform(-1, 1, count)))
    noise = config.jitter * rng.uniform(-1, 1, (count, 6))
    radius = config.radius_m * (1 + 0.06 * noise[:, 0])
    height = -0.15 + 0.3 * noise[:, 1]
    centre = np.stack([radius * np.sin(angle), height, -radius * np.cos(angle)], axis=1)
    target = np.array([0.0, 0.75, 0.0]) + noise[:, 2:5] * [0.3, 0.15, 0.3]
    roll = Rotation.from_rotvec(np.radians(3) * noise[:, 5:] * [0, 0, 1]).as_matrix()
    return np.stack([_look_at(c, t, r) for c, t, r in zip(centre, target, roll, strict=True)])


def _look_at(centre: np.ndarray, target: np.ndarray, roll: np.ndarray) -> Float[np.ndarray, "3 4"]:
    """cam_from_world of a camera with y down."""
    forward = (target - centre) / np.linalg.norm(target - centre)
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    rotation = roll @ np.stack([right, np.cross(forward, right), forward])
    return np.concatenate([rotation, -rotation @ centre[:, None]], axis=1)
