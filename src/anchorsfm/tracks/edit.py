"""Verbs that edit a model: what belongs together is changed together."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from anchorsfm.colmap.cameras import has_absurd_params
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.build import select_observations


def with_plausible_cameras(adjusted: Reconstruction, before: Reconstruction) -> Reconstruction:
    """Cameras whose parameters left the plausible range get their former ones back, and their views the former poses.

    The poses were adjusted together with the absurd parameters and mean nothing without them. Observations of these
    views will not fit well, so the next round gives the views new poses.
    """
    absurd = np.array([has_absurd_params(camera) for camera in adjusted.cameras], bool)
    if not absurd.any():
        return adjusted
    cameras = tuple(b if bad else a for a, b, bad in zip(adjusted.cameras, before.cameras, absurd, strict=True))
    former = absurd[adjusted.camera_index]
    poses = np.where(former[:, None, None], before.cam_from_world, adjusted.cam_from_world)
    return replace(adjusted, cameras=cameras, cam_from_world=poses)


def remove_view(model: Reconstruction, view: int) -> Reconstruction:
    """The model without one view, its observations, and points that it alone held."""
    keep_view = np.arange(len(model.image)) != view
    tracks, old_point = select_observations(model.tracks, model.tracks.obs_image != model.image[view])
    return replace(
        model,
        image=model.image[keep_view],
        cam_from_world=model.cam_from_world[keep_view],
        camera_index=model.camera_index[keep_view],
        points=model.points[old_point],
        rgb=model.rgb[old_point],
        error_px=model.error_px[old_point],
        tracks=tracks,
    )


def with_cameras_of_views(model: Reconstruction) -> Reconstruction:
    """The model without cameras that no view has."""
    used, camera_index = np.unique(model.camera_index, return_inverse=True)
    return replace(
        model,
        cameras=tuple(model.cameras[camera] for camera in used),
        camera_index=camera_index.reshape(-1).astype(np.int64),
    )


def with_poses(model: Reconstruction, cam_from_world: Float[np.ndarray, "view 3 4"]) -> Reconstruction:
    """The model with other poses; its points stay."""
    return replace(model, cam_from_world=cam_from_world)
