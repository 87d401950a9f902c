"""A cloud of points seen by cameras on an arc: the smallest scene with known truth for tracks and adjustment."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.spatial.transform import Rotation

from anchorsfm.colmap.cameras import project
from anchorsfm.scene.edit import select_observations
from anchorsfm.scene.reconstruction import Camera, Reconstruction, Tracks
from anchorsfm.tracks.build import KeypointMatches


@dataclass(frozen=True, kw_only=True)
class PointScene:
    model: Reconstruction
    """Cameras and points; tracks of exact observations."""
    matches: KeypointMatches
    """Noisy matches of neighbouring views, some of them wrong."""


def look_at(position: np.ndarray, target: np.ndarray) -> np.ndarray:
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    return np.concatenate([rotation, -(rotation @ position)[:, None]], axis=1)


def make_point_scene(
    num_views: int = 8,
    num_points: int = 600,
    *,
    noise_px: float = 0.3,
    outliers: float = 0.0,
    centre: tuple[float, float] = (800.0, 600.0),
    seed: int = 0,
) -> PointScene:
    rng = np.random.default_rng(seed)
    points = rng.uniform([-2, -1.5, -2], [2, 1.5, 2], (num_points, 3))
    angles = np.deg2rad(np.linspace(-40, 40, num_views))
    height = rng.uniform(-0.8, 0.8, num_views)
    poses = np.stack([look_at(np.array([7 * np.sin(a), h, -7 * np.cos(a)]), rng.normal(0, 0.3, 3))
                      for a, h in zip(angles, height, strict=True)])  # fmt: skip
    camera = Camera(model="SIMPLE_RADIAL", width=1600, height=1200, params=(1500.0, *centre, 0.0))
    xy = np.stack([project_pinhole(camera, pose, points) for pose in poses])  # (view, point, 2)
    noisy = xy + noise_px * rng.standard_normal(xy.shape)
    inside = np.all((xy >= 0) & (xy < [1600, 1200]), axis=-1)
    rows = []
    for i in range(num_views):
        for j in range(i + 1, min(i + 4, num_views)):
            common = np.flatnonzero(inside[i] & inside[j])
            rows.append((np.full(len(common), i), np.full(len(common), j), noisy[i, common], noisy[j, common]))
    image_i, image_j, xy_i, xy_j = (np.concatenate(part) for part in zip(*rows, strict=True))
    wrong = rng.random(len(image_i)) < outliers
    xy_j = np.where(wrong[:, None], rng.uniform([0, 0], [1600, 1200], xy_j.shape), xy_j)
    confidence = np.where(wrong, 5.0, 10.0)
    from anchorsfm.scene.edit import with_points
    from anchorsfm.tracks.build import build_tracks

    exact = KeypointMatches(image_i=image_i, image_j=image_j, xy_i=xy_i, xy_j=xy_j, confidence=confidence)
    empty = Reconstruction(
        image_index=np.arange(num_views),
        cam_from_world=poses,
        cameras=(camera,),
        camera_index=np.zeros(num_views, np.int64),
        points=np.zeros((0, 3)),
        rgb=np.zeros((0, 3), np.uint8),
        error_px=np.zeros(0),
        tracks=build_tracks(
            KeypointMatches(image_i=image_i[:0], image_j=image_j[:0], xy_i=xy_i[:0], xy_j=xy_j[:0],
                            confidence=confidence[:0]), num_views),
    )  # fmt: skip
    return PointScene(model=with_points(empty, empty.tracks, np.zeros((0, 3))), matches=exact)


def project_pinhole(camera: Camera, pose: np.ndarray, points: np.ndarray) -> np.ndarray:
    local = points @ pose[:, :3].T + pose[:, 3]
    return camera.params[0] * local[:, :2] / local[:, 2:] + camera.params[1:3]


def perturb(model: Reconstruction, *, degrees: float, distance: float, focal: float, seed: int = 1) -> Reconstruction:
    from dataclasses import replace

    from scipy.spatial.transform import Rotation

    rng = np.random.default_rng(seed)
    poses = model.cam_from_world.copy()
    for pose in poses:
        wobble = Rotation.from_rotvec(np.deg2rad(degrees) * rng.standard_normal(3)).as_matrix()
        pose[:, :3] = wobble @ pose[:, :3]
        pose[:, 3] = wobble @ pose[:, 3] + distance * rng.standard_normal(3)
    camera = model.cameras[0]
    params = (camera.params[0] * focal, camera.width / 2, camera.height / 2, *camera.params[3:])
    return replace(model, cam_from_world=poses, cameras=(replace(camera, params=params),))


def make_lens_scene(
    cameras: tuple[Camera, ...],
    num_views: int = 8,
    num_points: int = 1500,
    *,
    noise_px: float = 0.3,
    outliers: float = 0.0,
    extent: float = 5.0,
    roll_deg: float = 0.0,
    arc_deg: float = 80.0,
    seed: int = 0,
) -> Reconstruction:
    """True cameras, poses and points with noisy observations, some of them wrong, through any camera models.

    Views take the cameras in turn. The cloud has half the side `extent`, the cameras are seven from its middle.
    """
    rng = np.random.default_rng(seed)
    points = rng.uniform(-extent, extent, (num_points, 3))
    angles = np.deg2rad(np.linspace(-arc_deg / 2, arc_deg / 2, num_views))
    places = [np.array([7 * np.sin(a), rng.uniform(-1.5, 1.5), -7 * np.cos(a)]) for a in angles]
    poses = np.stack([look_at(place, rng.normal(0, 0.5, 3)) for place in places])
    rolls = Rotation.from_rotvec(np.deg2rad(rng.uniform(-roll_deg, roll_deg, (num_views, 1))) * [0, 0, 1]).as_matrix()
    poses = rolls @ poses
    camera_index = np.arange(num_views) % len(cameras)
    rows = []
    for view, pose in enumerate(poses):
        camera = cameras[camera_index[view]]
        local = points @ pose[:, :3].T + pose[:, 3]
        xy, valid = project(camera, local)
        size = np.array([camera.width, camera.height])
        valid = valid & (local[:, 2] > 1) & ((xy >= 0) & (xy < size)).all(1)
        xy = xy + noise_px * rng.standard_normal(xy.shape)
        wrong = rng.random(num_points) < outliers
        xy[wrong] = rng.uniform(0, 1, (int(wrong.sum()), 2)) * size
        rows.append((np.flatnonzero(valid), np.full(int(valid.sum()), view), xy[valid]))
    obs_point, obs_image, obs_xy = (np.concatenate(part) for part in zip(*rows, strict=True))
    order = np.lexsort((obs_image, obs_point))
    count = np.bincount(obs_point, minlength=num_points)
    used = count > 0
    everything = Tracks(
        obs_point=(np.cumsum(used) - 1)[obs_point[order]], obs_image=obs_image[order], obs_xy=obs_xy[order]
    )
    tracks, kept = select_observations(everything, np.ones(len(order), bool), min_length=3)
    return Reconstruction(
        image_index=np.arange(num_views),
        cam_from_world=poses,
        cameras=cameras,
        camera_index=camera_index,
        points=points[used][kept],
        rgb=np.zeros((len(kept), 3), np.uint8),
        error_px=np.zeros(len(kept)),
        tracks=tracks,
    )


def all_matches(model: Reconstruction) -> KeypointMatches:
    """Matches between the observations of every point in every two images."""
    tracks = model.tracks
    bounds = np.searchsorted(tracks.obs_point, np.arange(tracks.num_points + 1))
    pairs = [(a, b) for low, high in pairwise(bounds)
             for a in range(low, high) for b in range(a + 1, high)]  # fmt: skip
    first, second = np.array(pairs).T
    return KeypointMatches(
        image_i=tracks.obs_image[first],
        image_j=tracks.obs_image[second],
        xy_i=tracks.obs_xy[first],
        xy_j=tracks.obs_xy[second],
        confidence=np.full(len(first), 10.0),
    )
