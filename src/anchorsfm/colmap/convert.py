"""Between our `Reconstruction` and `pycolmap.Reconstruction`.

Identifiers: camera_id = row of `cameras` + 1, image_id = index in the ImageSet + 1, point3D_id = row of `points` + 1.
Only observations that belong to a point become COLMAP 2D points, ordered by point within each image. Views of no rig
are frames by themselves, with the identifier of their image; a rig has that of the camera that is its reference in the
model, the first one there, a frame that of its first image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pycolmap
from jaxtyping import Float

from anchorsfm.geometry.mean_poses import mean_pose
from anchorsfm.geometry.transforms import compose, invert
from anchorsfm.scene.edit import with_cameras, with_moved_points, with_poses, with_rigs
from anchorsfm.scene.poses import StoredPose
from anchorsfm.scene.reconstruction import Camera, Reconstruction, Tracks
from anchorsfm.scene.rigs import Rigs

UNKNOWN_ERROR = -1.0
"""COLMAP's error of a point where it has not been computed."""


def to_pycolmap(
    reconstruction: Reconstruction,
    names: Sequence[str],
    stored: Mapping[int, StoredPose] | None = None,
) -> pycolmap.Reconstruction:
    """The model as pycolmap's; `names` are those of the whole ImageSet.

    Views of one frame get the pose that their own poses say together. `stored`: poses of images, by index in the
    ImageSet, as a file had them (`models.read_stored_poses`).
    """
    model = pycolmap.Reconstruction()
    placed = place_rigs(reconstruction)
    in_rigs = set() if placed is None else set(placed.camera_of_sensor.values())
    for row, camera in enumerate(reconstruction.cameras):
        add = model.add_camera if row in in_rigs else model.add_camera_with_trivial_rig
        add(to_pycolmap_camera(camera, row + 1))
    frame_of_view = {} if placed is None else _add_rigs(model, reconstruction, placed, stored or {})
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
        if view in frame_of_view:
            entry.frame_id = frame_of_view[view]
            model.add_image(entry)
        elif pose is None:
            model.add_image_with_trivial_frame(entry, _rigid(reconstruction.cam_from_world[view]))
        else:
            model.add_image_with_trivial_frame(entry, _stored_rigid(pose.cam_from_world))
    for frame_id in sorted(set(frame_of_view.values())):
        model.register_frame(frame_id)
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
    return with_moved_points(with_rigs(moved, _rigs_of(model, reconstruction)), points)


@dataclass(frozen=True, kw_only=True)
class PlacedRigs:
    """The rigs of a model as COLMAP counts them."""

    camera_of_sensor: dict[int, int]
    """Row of the camera of every sensor that some view is of and that has a known pose."""
    reference: dict[int, int]
    """Sensor -> the reference sensor of its rig in this model."""
    frames: dict[int, list[int]]
    """Frame -> its views, rows of the model."""

    def sensor_from_reference(self, sensor: int, rigs: Rigs) -> Float[np.ndarray, "3 4"]:
        """Pose of a sensor in the rig."""
        return compose(rigs.sensor_from_rig[sensor], invert(rigs.sensor_from_rig[self.reference[sensor]]))


def place_rigs(reconstruction: Reconstruction) -> PlacedRigs | None:
    """The rigs of a model, None if it has none.

    Raises ValueError if a camera is of a sensor and of other views too: COLMAP has no such models.
    """
    rigs = reconstruction.rigs
    if rigs is None:
        return None
    frame = rigs.frames(reconstruction.image_index)
    sensor = np.where(frame >= 0, rigs.sensor[reconstruction.image_index], -1)
    pairs = np.unique(np.stack([sensor, reconstruction.camera_index], axis=1), axis=0)
    shared = {camera for camera in pairs[:, 1].tolist() if (pairs[:, 1] == camera).sum() > 1}
    camera_of_sensor = {int(s): int(camera) for s, camera in pairs if s >= 0}
    if shared & set(camera_of_sensor.values()) or len(camera_of_sensor) < (pairs[:, 0] >= 0).sum():
        raise ValueError("every sensor of a rig needs a camera for itself")
    reference: dict[int, int] = {}
    first = sorted(camera_of_sensor, key=lambda s: (not rigs.is_fixed[s], s))  # what is fixed stays so to each other
    for s in sorted(camera_of_sensor):
        reference[s] = next(t for t in first if rigs.rig[t] == rigs.rig[s])
    frames: dict[int, list[int]] = {}
    for view in np.flatnonzero(frame >= 0).tolist():
        frames.setdefault(int(frame[view]), []).append(view)
    return PlacedRigs(camera_of_sensor=camera_of_sensor, reference=reference, frames=frames) if frames else None


def _add_rigs(
    model: pycolmap.Reconstruction,
    reconstruction: Reconstruction,
    placed: PlacedRigs,
    stored: Mapping[int, StoredPose],
) -> dict[int, int]:
    """Add rigs and frames with poses; the frame's identifier by view."""
    rigs, image = reconstruction.rigs, reconstruction.image_index
    assert rigs is not None
    from_reference = {sensor: placed.sensor_from_reference(sensor, rigs) for sensor in placed.camera_of_sensor}
    of_sensor = {int(rigs.sensor[k]): pose for k, pose in stored.items() if pose.rig_from_world is not None}
    still = {s for s, pose in of_sensor.items() if pose.sensor_from_rig is None}
    """Reference sensors that were it in the file too."""
    for reference in sorted(set(placed.reference.values())):
        rig = pycolmap.Rig(rig_id=placed.camera_of_sensor[reference] + 1)
        rig.add_ref_sensor(camera_sensor(placed.camera_of_sensor[reference]))
        for sensor, of in placed.reference.items():
            if of == reference != sensor:
                pose = of_sensor[sensor].sensor_from_rig if sensor in of_sensor and reference in still else None
                rigid = _rigid(from_reference[sensor]) if pose is None else _stored_rigid(pose)
                rig.add_sensor(camera_sensor(placed.camera_of_sensor[sensor]), rigid)
        model.add_rig(rig)
    frame_of_view: dict[int, int] = {}
    for views in placed.frames.values():
        frame_id = int(image[views[0]]) + 1
        sensors = rigs.sensor[image[views]].tolist()
        poses = np.stack(
            [
                compose(invert(from_reference[s]), reconstruction.cam_from_world[v])
                for s, v in zip(sensors, views, strict=True)
            ]
        )
        frame = pycolmap.Frame(frame_id=frame_id, rig_id=placed.camera_of_sensor[placed.reference[sensors[0]]] + 1)
        for sensor, view in zip(sensors, views, strict=True):
            data = pycolmap.data_t(camera_sensor(placed.camera_of_sensor[sensor]), int(image[view]) + 1)
            frame.add_data_id(data)
            frame_of_view[view] = frame_id
        known = [stored[int(image[view])].rig_from_world for view in views if int(image[view]) in stored]
        own = next((pose for pose in known if pose is not None), None)
        is_same = placed.reference[sensors[0]] in still
        frame.rig_from_world = _stored_rigid(own) if own is not None and is_same else _rigid(mean_pose(poses))
        model.add_frame(frame)
    return frame_of_view


def _rigs_of(model: pycolmap.Reconstruction, reconstruction: Reconstruction) -> Rigs | None:
    """The rigs of `model`, made by `to_pycolmap(reconstruction, ...)` and since adjusted in place."""
    rigs, placed = reconstruction.rigs, place_rigs(reconstruction)
    if rigs is None or placed is None:
        return rigs
    poses = rigs.sensor_from_rig.copy()
    for sensor, reference in placed.reference.items():
        if sensor != reference:
            rig = model.rigs[placed.camera_of_sensor[reference] + 1]
            pose = rig.sensor_from_rig(camera_sensor(placed.camera_of_sensor[sensor])).matrix()
            poses[sensor] = compose(pose, rigs.sensor_from_rig[reference])
    return replace(rigs, sensor_from_rig=poses)


def camera_sensor(row: int) -> pycolmap.sensor_t:
    """COLMAP's name for the sensor that a camera is, by the row of the camera."""
    return pycolmap.sensor_t(pycolmap.SensorType.CAMERA, row + 1)


def _stored_rigid(pose: Float[np.ndarray, "7"]) -> pycolmap.Rigid3d:
    return pycolmap.Rigid3d(pycolmap.Rotation3d(pose[:4]), pose[4:])


def _rigid(pose: Float[np.ndarray, "3 4"]) -> pycolmap.Rigid3d:
    return pycolmap.Rigid3d(pycolmap.Rotation3d(pose[:, :3]), pose[:, 3])


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
