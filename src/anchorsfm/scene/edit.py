"""Verbs that edit a model, and what they ask it: what belongs together is changed together. Models never change."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from anchorsfm.scene.reconstruction import Camera, Reconstruction, Tracks
from anchorsfm.scene.rigs import Rigs


def view_of_image(model: Reconstruction) -> Int[np.ndarray, "image"]:
    """Row of the pose arrays by image index; -1 for images that are not in the model."""
    lookup = np.full(int(model.image_index.max(initial=-1)) + 1, -1)
    lookup[model.image_index] = np.arange(len(model.image_index))
    return lookup


def observations_per_view(model: Reconstruction) -> Int[np.ndarray, "view"]:
    """Number of observations of triangulated points in each view."""
    return np.bincount(view_of_image(model)[model.tracks.obs_image], minlength=len(model.image_index))


def observations_per_frame(model: Reconstruction) -> Int[np.ndarray, "view"]:
    """Number of observations that hold the pose of each view: its own, or of a rig those of all views of its frame."""
    own = observations_per_view(model)
    if model.rigs is None:
        return own
    frame = model.rigs.frames(model.image_index)
    of_frame = np.bincount(frame[frame >= 0], weights=own[frame >= 0], minlength=int(frame.max(initial=-1)) + 1)
    return np.where(frame >= 0, np.append(of_frame, 0)[frame], own).astype(np.int64)


def without_points(
    image_index: Int[np.ndarray, "view"],
    cam_from_world: Float[np.ndarray, "view 3 4"],
    cameras: Sequence[Camera],
    camera_index: Int[np.ndarray, "view"],
) -> Reconstruction:
    """Cameras and poses as a model that has no points yet; arguments are its fields."""
    return Reconstruction(
        image_index=image_index.astype(np.int64),
        cam_from_world=cam_from_world.astype(np.float64),
        cameras=tuple(cameras),
        camera_index=camera_index.astype(np.int64),
        points=np.zeros((0, 3)),
        rgb=np.zeros((0, 3), np.uint8),
        error_px=np.zeros(0),
        tracks=Tracks.empty(),
    )


def without_view(model: Reconstruction, view: int) -> Reconstruction:
    """The model without one view, its observations, and points that it alone held."""
    keep = np.arange(len(model.image_index)) != view
    return select_views(select_points(model, model.tracks.obs_image != model.image_index[view]), keep)


def select_views(model: Reconstruction, keep: Bool[np.ndarray, "view"] | Int[np.ndarray, "kept"]) -> Reconstruction:
    """The model with the kept views, by mask or row. Cameras, points and observations stay: see `select_points`."""
    return replace(
        model,
        image_index=model.image_index[keep],
        cam_from_world=model.cam_from_world[keep],
        camera_index=model.camera_index[keep],
    )


def with_views(
    model: Reconstruction,
    poses: Mapping[int, Float[np.ndarray, "3 4"]],
    cameras: Sequence[Camera],
    camera_index: Int[np.ndarray, "image"],
) -> Reconstruction:
    """The model with further views (image index -> cam_from_world), its points and observations as they were.

    Cameras that the model has stay as they are there, others are taken from `cameras` (one per camera of the
    ImageSet, `camera_index` (image,) their rows); both views and cameras stay in the order of the ImageSet.
    """
    if not poses:
        return model
    row_of_view = camera_index[model.image_index]
    lens = dict(zip(row_of_view.tolist(), (model.cameras[c] for c in model.camera_index), strict=True))
    image = np.concatenate([model.image_index, np.array(list(poses), np.int64)])
    pose = np.concatenate([model.cam_from_world, np.array(list(poses.values()), np.float64)])
    order = np.argsort(image, kind="stable")
    used, index = np.unique(camera_index[image[order]], return_inverse=True)
    return replace(
        model,
        image_index=image[order],
        cam_from_world=pose[order],
        cameras=tuple(lens.get(int(row), cameras[int(row)]) for row in used),
        camera_index=index.reshape(-1).astype(np.int64),
    )


def with_images_numbered(model: Reconstruction) -> Reconstruction:
    """The model with its images numbered 0, 1, ... in the order of its views."""
    tracks = replace(model.tracks, obs_image=view_of_image(model)[model.tracks.obs_image])
    rigs = None if model.rigs is None else model.rigs.select(model.image_index)
    return replace(model, image_index=np.arange(len(model.image_index)), tracks=tracks, rigs=rigs)


def with_image_index(model: Reconstruction, image: Int[np.ndarray, "view"]) -> Reconstruction:
    """The model by other image indices, one for each view, which are then in their order."""
    order = np.argsort(image, kind="stable")
    tracks = replace(model.tracks, obs_image=image[view_of_image(model)[model.tracks.obs_image]])
    by_point = np.lexsort((tracks.obs_image, tracks.obs_point))
    return replace(
        select_views(model, order),
        image_index=image[order],
        tracks=Tracks(
            obs_point=tracks.obs_point[by_point],
            obs_image=tracks.obs_image[by_point],
            obs_xy=tracks.obs_xy[by_point],
        ),
    )


def with_poses(model: Reconstruction, cam_from_world: Float[np.ndarray, "view 3 4"]) -> Reconstruction:
    """The model with other poses; its points stay."""
    return replace(model, cam_from_world=cam_from_world)


def with_poses_of(model: Reconstruction, other: Reconstruction) -> Reconstruction:
    """The model with the poses of another one of the same views, those of cameras in their rigs included."""
    return replace(model, cam_from_world=other.cam_from_world, rigs=other.rigs)


def with_rigs(model: Reconstruction, rigs: Rigs | None) -> Reconstruction:
    """The model with other ties between its views; poses stay as they are."""
    return replace(model, rigs=rigs)


def with_cameras(model: Reconstruction, cameras: Sequence[Camera]) -> Reconstruction:
    """The model with other intrinsics, one for each camera that it has."""
    if len(cameras) != len(model.cameras):
        raise ValueError(f"{len(cameras)} cameras for a model of {len(model.cameras)}")
    return replace(model, cameras=tuple(cameras))


def with_cameras_of_views(model: Reconstruction) -> Reconstruction:
    """The model without cameras that no view has."""
    used, camera_index = np.unique(model.camera_index, return_inverse=True)
    return replace(
        model,
        cameras=tuple(model.cameras[camera] for camera in used),
        camera_index=camera_index.reshape(-1).astype(np.int64),
    )


def with_former_cameras(
    model: Reconstruction, former: Reconstruction, which: Bool[np.ndarray, "camera"]
) -> Reconstruction:
    """The model with the former parameters of some cameras, and the former poses of their views.

    Poses are adjusted together with the parameters of their camera and mean nothing without them; of a rig, all are.
    """
    cameras = tuple(b if back else a for a, b, back in zip(model.cameras, former.cameras, which, strict=True))
    views = which[model.camera_index]
    rigs = model.rigs
    if rigs is not None and former.rigs is not None:
        sensor = rigs.sensor[model.image_index]
        back = np.isin(rigs.rig, rigs.rig[sensor[views & (sensor >= 0)]])
        views = views | ((sensor >= 0) & back[sensor])
        in_rig = np.where(back[:, None, None], former.rigs.sensor_from_rig, rigs.sensor_from_rig)
        rigs = replace(rigs, sensor_from_rig=in_rig)
    poses = np.where(views[:, None, None], former.cam_from_world, model.cam_from_world)
    return replace(model, cameras=cameras, cam_from_world=poses, rigs=rigs)


def scaled(model: Reconstruction, factor: float) -> Reconstruction:
    """The model with all lengths times a factor."""
    if factor == 1:
        return model
    pose = model.cam_from_world.copy()
    pose[:, :, 3] *= factor
    rigs = None if model.rigs is None else model.rigs.scaled(factor)
    return replace(model, cam_from_world=pose, points=factor * model.points, rigs=rigs)


def moved(model: Reconstruction, scale: float, pose: Float[np.ndarray, "3 4"]) -> Reconstruction:
    """The model in another frame of the world: x becomes scale R x + t with pose [R | t]."""
    rotation, shift = pose[:, :3], pose[:, 3]
    turned = model.cam_from_world[:, :, :3] @ rotation.T
    translation = scale * model.cam_from_world[:, :, 3] - turned @ shift
    return replace(
        model,
        cam_from_world=np.concatenate([turned, translation[:, :, None]], axis=2),
        points=scale * model.points @ rotation.T + shift,
        rigs=None if model.rigs is None else model.rigs.scaled(scale),
    )


def select_points(model: Reconstruction, keep: Bool[np.ndarray, "obs"], min_length: int = 2) -> Reconstruction:
    """The model with the kept observations, and the points that still have `min_length` of them."""
    tracks, old_point = select_observations(model.tracks, keep, min_length)
    return replace(
        model,
        points=model.points[old_point],
        rgb=model.rgb[old_point],
        error_px=model.error_px[old_point],
        tracks=tracks,
    )


def with_points(model: Reconstruction, tracks: Tracks, points: Float[np.ndarray, "point 3"]) -> Reconstruction:
    """The cameras of `model` with other points, uncoloured and with errors that are not known yet."""
    return replace(
        model,
        points=points,
        rgb=np.zeros((len(points), 3), np.uint8),
        error_px=np.full(len(points), np.nan),
        tracks=tracks,
    )


def with_more_points(model: Reconstruction, others: Reconstruction) -> Reconstruction:
    """The model with the points and observations of another one of the same views after its own."""
    return replace(
        model,
        points=np.concatenate([model.points, others.points]),
        rgb=np.concatenate([model.rgb, others.rgb]),
        error_px=np.concatenate([model.error_px, others.error_px]),
        tracks=joined_tracks(model.tracks, others.tracks),
    )


def with_moved_points(model: Reconstruction, points: Float[np.ndarray, "point 3"]) -> Reconstruction:
    """The model with the same points in other places, where their errors are not known yet."""
    return replace(model, points=points, error_px=np.full(len(points), np.nan))


def with_tracks(model: Reconstruction, tracks: Tracks) -> Reconstruction:
    """The model with other observations of the same points."""
    return replace(model, tracks=tracks)


def with_colours(model: Reconstruction, rgb: UInt8[np.ndarray, "point 3"]) -> Reconstruction:
    """The model with other colours of its points."""
    return replace(model, rgb=rgb)


def with_point_errors(model: Reconstruction, error_px: Float[np.ndarray, "point"]) -> Reconstruction:
    """The model with other mean reprojection errors of its points, original pixels."""
    return replace(model, error_px=error_px)


def joined_tracks(*parts: Tracks) -> Tracks:
    """Tracks of several kinds as one, in their order."""
    first = np.cumsum([0, *(part.num_points for part in parts)])
    return Tracks(
        obs_point=np.concatenate([part.obs_point + n for part, n in zip(parts, first, strict=False)]),
        obs_image=np.concatenate([part.obs_image for part in parts]),
        obs_xy=np.concatenate([part.obs_xy for part in parts]),
    )


def select_observations(tracks: Tracks, keep: np.ndarray, min_length: int = 2) -> tuple[Tracks, np.ndarray]:
    """Tracks of the kept observations (obs,) that still have `min_length` of them, and the old row of each point."""
    count = np.bincount(tracks.obs_point[keep], minlength=tracks.num_points)
    keep = keep & (count >= min_length)[tracks.obs_point]
    old_point, point = np.unique(tracks.obs_point[keep], return_inverse=True)
    kept = Tracks(obs_point=point, obs_image=tracks.obs_image[keep], obs_xy=tracks.obs_xy[keep])
    return kept, old_point
