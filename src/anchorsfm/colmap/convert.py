"""Between our `Reconstruction` and `pycolmap.Reconstruction`.

Identifiers: camera_id = row of `cameras` + 1, image_id = index in the ImageSet + 1, point3D_id = row of `points` + 1.
Only observations that belong to a point become COLMAP 2D points, ordered by point within each image.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pycolmap
from jaxtyping import Float

from anchorsfm.scene.edit import with_cameras, with_moved_points, with_poses
from anchorsfm.scene.reconstruction import Camera, Reconstruction, Tracks

UNKNOWN_ERROR = -1.0
"""COLMAP's error of a point where it has not been computed."""


def to_pycolmap(
    reconstruction: Reconstruction,
    names: Sequence[str],
    stored: Mapping[int, Float[np.ndarray, "7"]] | None = None,
) -> pycolmap.Reconstruction:
    """A pycolmap model with trivial rigs and frames; `names` are those of the whole ImageSet.

    `stored`: poses of images, by index in the ImageSet, as a file had them (`models.read_stored_poses`).
    """
    model = pycolmap.Reconstruction()
    for row, camera in enumerate(reconstruction.cameras):
        model.add_camera_with_trivial_rig(to_pycolmap_camera(camera, row + 1))
    tracks = reconstruction.tracks
    slot = np.zeros(len(tracks.obs_point), np.int64)  # position of each observation in its image's list
    by_image = np.argsort(tracks.obs_image, kind="stable")
    ends = np.searchsorted(tracks.obs_image[by_image], [reconstruction.image_index, reconstruction.image_index + 1])
    for view, image in enumerate(reconstruction.image_index):
        rows = by_image[ends[0, view] : ends[1, view]]
        slot[rows] = np.arange(len(rows))
        entry = pycolmap.Image(
            name=names[image],
            keypoints=tracks.obs_xy[rows].astype(np.float64).reshape(-1, 2),
            camera_id=int(reconstruction.camera_index[view]) + 1,
            image_id=int(image) + 1,
        )
        pose = (stored or {}).get(int(image))
        if pose is None:
            matrix = reconstruction.cam_from_world[view]
            rigid = pycolmap.Rigid3d(pycolmap.Rotation3d(matrix[:, :3]), matrix[:, 3])
        else:
            rigid = pycolmap.Rigid3d(pycolmap.Rotation3d(pose[:4]), pose[4:])
        model.add_image_with_trivial_frame(entry, rigid)
    bounds = np.searchsorted(tracks.obs_point, np.arange(len(reconstruction.points) + 1))
    image_ids, slots = (tracks.obs_image + 1).tolist(), slot.tolist()
    errors = np.where(np.isnan(reconstruction.error_px), UNKNOWN_ERROR, reconstruction.error_px).tolist()
    for point, (first, last) in enumerate(pairwise(bounds.tolist())):
        # one value at a time: constructors with lists and keywords take four times as long, and this is done often
        track, entry = pycolmap.Track(), pycolmap.Point3D()
        for k in range(first, last):
            track.add_element(image_ids[k], slots[k])
        entry.xyz = reconstruction.points[point]
        entry.color = reconstruction.rgb[point]
        entry.error = errors[point]
        entry.track = track
        model.add_point3D_with_id(point + 1, entry)
    return model


def from_pycolmap(model: pycolmap.Reconstruction, reconstruction: Reconstruction) -> Reconstruction:
    """The state of `model`, made by `to_pycolmap(reconstruction, ...)` and since adjusted in place."""
    poses = [model.images[int(image) + 1].cam_from_world().matrix() for image in reconstruction.image_index]
    points = np.array([model.points3D[k + 1].xyz for k in range(len(reconstruction.points))]).reshape(-1, 3)
    cameras = [from_pycolmap_camera(model.cameras[k + 1]) for k in range(len(reconstruction.cameras))]
    moved = with_poses(with_cameras(reconstruction, cameras), np.array(poses).reshape(-1, 3, 4))
    return with_moved_points(moved, points)


def from_mapper(model: pycolmap.Reconstruction, keypoints: Sequence[Float[np.ndarray, "_ 2"]]) -> Reconstruction | None:
    """A model that one of COLMAP's mappers made from a database of `colmap.database`; None if it holds no view.

    Views are ordered by image and cameras by their row in the database; cameras without a registered image are left
    out. `keypoints` are those of the whole ImageSet in full precision, in the order of the database. COLMAP may give a
    point two observations in one image: the first is kept, and points left with fewer than two are dropped.
    """
    entries = {image_id - 1: model.images[image_id] for image_id in sorted(model.reg_image_ids())}
    if not entries:
        return None
    camera_ids = np.array([entry.camera_id for entry in entries.values()], np.int64)
    used, camera_index = np.unique(camera_ids, return_inverse=True)
    points, tracks = _mapper_points(model, keypoints)
    return Reconstruction(
        image_index=np.array(list(entries), np.int64),
        cam_from_world=np.array([entry.cam_from_world().matrix() for entry in entries.values()], np.float64),
        cameras=tuple(from_pycolmap_camera(model.cameras[int(camera_id)]) for camera_id in used),
        camera_index=camera_index.reshape(-1).astype(np.int64),
        points=points,
        rgb=np.zeros((len(points), 3), np.uint8),
        error_px=np.full(len(points), np.nan),
        tracks=tracks,
    )


def _mapper_points(
    model: pycolmap.Reconstruction, keypoints: Sequence[Float[np.ndarray, "_ 2"]]
) -> tuple[Float[np.ndarray, "point 3"], Tracks]:
    """Points in the order of their ids, and their observations."""
    kept: list[np.ndarray] = []
    rows: list[tuple[int, int, int]] = []
    for _, point in sorted(model.points3D.items()):
        first: dict[int, int] = {}
        for element in point.track.elements:
            first.setdefault(element.image_id - 1, element.point2D_idx)
        if len(first) >= 2:
            rows += [(len(kept), image, first[image]) for image in sorted(first)]
            kept.append(point.xyz)
    if not rows:
        return np.zeros((0, 3)), Tracks.empty()
    obs_point, obs_image, slot = np.array(rows, np.int64).T
    obs_xy = np.zeros((len(rows), 2))
    for image in np.unique(obs_image).tolist():
        seen = obs_image == image
        obs_xy[seen] = keypoints[image][slot[seen]]
    return np.array(kept, np.float64), Tracks(obs_point=obs_point, obs_image=obs_image, obs_xy=obs_xy)


def to_pycolmap_camera(camera: Camera, camera_id: int = 1) -> pycolmap.Camera:
    """The same camera as pycolmap's type."""
    return pycolmap.Camera(
        model=camera.model,
        width=camera.width,
        height=camera.height,
        params=list(camera.params),
        camera_id=camera_id,
    )


def from_pycolmap_camera(camera: pycolmap.Camera) -> Camera:
    """The same camera as our type."""
    return Camera(
        model=camera.model.name,
        width=int(camera.width),
        height=int(camera.height),
        params=tuple(float(p) for p in camera.params),
    )
