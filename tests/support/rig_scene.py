"""Points seen by a rig of three cameras."""

from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from anchorsfm.geometry.transforms import compose
from anchorsfm.scene.edit import select_observations
from anchorsfm.scene.reconstruction import Camera, Reconstruction, Tracks
from anchorsfm.scene.rigs import Rigs

CAMERA = Camera(model="SIMPLE_PINHOLE", width=640, height=480, params=(500.0, 320.0, 240.0))


def rig_truth(frames: int, points: int = 150) -> Reconstruction:
    """Exact poses and points; images frame after frame, in each camera after camera. Only the reference is fixed."""
    rng = np.random.default_rng(0)
    turns = Rotation.from_rotvec([[0, 0, 0], [0.0, 0.3, 0.02], [0.01, -0.3, 0.0]]).as_matrix()
    shifts = np.array([[0, 0, 0], [-0.2, 0.0, 0.02], [0.25, 0.01, 0.0]])
    sensor_from_rig = np.concatenate([turns, shifts[:, :, None]], axis=2)
    step = np.arange(frames)
    rotation = Rotation.from_rotvec(np.stack([0.03 * np.sin(step), 0.06 * step, 0.02 * step], axis=1)).as_matrix()
    shift = np.stack([-0.5 * step, 0.1 * (step % 2), 0.05 * step], axis=1)
    rig_from_world = np.concatenate([rotation, shift[:, :, None]], axis=2)
    poses = compose(sensor_from_rig[None], rig_from_world[:, None]).reshape(-1, 3, 4)
    xyz = rng.uniform(-2.5, 2.5, (points, 3)) + np.array([0.25 * frames, 0, 6])
    in_camera = np.einsum("vij,pj->pvi", poses[:, :, :3], xyz) + poses[:, :, 3]
    xy = 500 * in_camera[..., :2] / in_camera[..., 2:] + [320, 240]
    seen = (in_camera[..., 2] > 0.5) & (xy >= 0).all(axis=2) & (xy < [640, 480]).all(axis=2)
    point, image = np.nonzero(seen)
    tracks, kept = select_observations(
        Tracks(obs_point=point, obs_image=image, obs_xy=xy[point, image]), np.ones(len(point), bool)
    )
    return Reconstruction(
        image_index=np.arange(3 * frames),
        cam_from_world=poses,
        cameras=(CAMERA,) * 3,
        camera_index=np.tile(np.arange(3), frames),
        points=xyz[kept],
        rgb=np.zeros((len(kept), 3), np.uint8),
        error_px=np.full(len(kept), np.nan),
        tracks=tracks,
        rigs=Rigs(
            sensor=np.tile(np.arange(3), frames),
            frame=np.repeat(np.arange(frames), 3),
            rig=np.zeros(3, np.int64),
            sensor_from_rig=sensor_from_rig,
            is_fixed=np.array([True, False, False]),
        ),
    )


def rig_model(truth: Reconstruction, *, noise_px: float, pose_noise: float) -> Reconstruction:
    """With noise on observations and, view by view, on poses (radians and units of the world)."""
    rng = np.random.default_rng(1)
    count = len(truth.image_index)
    turned = Rotation.from_rotvec(pose_noise * rng.standard_normal((count, 3))).as_matrix()
    change = np.concatenate([turned, pose_noise * rng.standard_normal((count, 3, 1))], axis=2)
    tracks = replace(
        truth.tracks, obs_xy=truth.tracks.obs_xy + noise_px * rng.standard_normal((len(truth.tracks.obs_xy), 2))
    )
    poses = compose(change, truth.cam_from_world) if pose_noise else truth.cam_from_world
    return replace(truth, cam_from_world=poses, tracks=tracks)
