"""COLMAP models from disk: whole, or their poses and cameras alone."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pycolmap
from jaxtyping import Float

from anchorsfm.colmap.convert import UNKNOWN_ERROR, from_pycolmap_camera
from anchorsfm.colmap.file_records import StoredImage, pose_of
from anchorsfm.colmap.files import check_files
from anchorsfm.io.layout import Layout
from anchorsfm.io.owned import complete_publication
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.poses import PoseSet, StoredPose
from anchorsfm.scene.printable import printable
from anchorsfm.scene.reconstruction import Camera, Reconstruction, Tracks
from anchorsfm.scene.rigs import Rigs

_IMAGES = ("images.bin", "images.txt")
_SAME_POSE = 1e-4
"""Two poses that differ by less, relative to how far the image is from the origin, are the same with rounded digits."""


def is_model(folder: Path) -> bool:
    """Whether a folder holds a COLMAP model, binary or text."""
    return any((folder / name).is_file() for name in _IMAGES)


def is_text(folder: Path) -> bool:
    """Whether the model in a folder is read from its text files: binary ones count where there are both."""
    return _suffix(folder) == ".txt"


def find_models(folder: Path) -> list[Path]:
    """The models that a folder stands for: itself, its `sparse`, or the components `0`, `1` ... of either.

    Raises InputError if there is none.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}; give a COLMAP model")
    complete_publication(folder)
    for candidate in (folder, Layout(folder).models):
        if is_model(candidate):
            return [candidate]
        components = [path for path in candidate.glob("*") if path.is_dir() and is_model(path)]
        if components:
            return sorted(components, key=_component_order)
    places = f"{folder}, {Layout(folder).models} or {Layout(folder).model(0)}"
    raise InputError(f"no COLMAP model (images.bin or images.txt) in {places}")


def _component_order(path: Path) -> tuple[bool, int, str]:
    """Numbered ones by number, then others by name."""
    return (False, int(path.name), path.name) if path.name.isdecimal() else (True, 0, path.name)


def read_largest_model(folder: Path) -> PoseSet:
    """Poses of the component with the most registered images of what `find_models` finds."""
    return max((read_model(model) for model in find_models(folder)), key=lambda poses: len(poses.names))


def read_model(folder: Path) -> PoseSet:
    """Poses of the registered images of one model, sorted by name.

    Raises InputError if a file is missing or damaged.
    """
    model = _load(folder)
    images = sorted((image for image in model.images.values() if image.has_pose), key=lambda image: image.name)
    cameras = [model.cameras[image.camera_id] for image in images]
    return PoseSet(
        names=tuple(image.name for image in images),
        cam_from_world=np.array([image.cam_from_world().matrix() for image in images], float).reshape(-1, 3, 4),
        focal_px=np.array([c.mean_focal_length() if c.focal_length_idxs() else np.nan for c in cameras], float),
        size_wh=np.array([(camera.width, camera.height) for camera in cameras], np.int64).reshape(-1, 2),
    )


def _load(folder: Path) -> pycolmap.Reconstruction:
    """The cameras and images of a model; its 3D points are left out, whatever state they are in."""
    suffix = _suffix(folder)
    images = check_files(folder, suffix, points=False)
    with tempfile.TemporaryDirectory(prefix="anchorsfm-") as copy:
        _link_without_points(folder, suffix, Path(copy))
        model = _read(Path(copy), suffix, named=folder)
    _require_same_poses(folder, suffix, model, images)
    return model


def _suffix(folder: Path) -> str:
    """Of the files of a model: binary ones count where there are both."""
    return ".bin" if (folder / "images.bin").is_file() else ".txt"


def _read(folder: Path, suffix: str, *, named: Path) -> pycolmap.Reconstruction:
    model = pycolmap.Reconstruction()
    try:
        (model.read_binary if suffix == ".bin" else model.read_text)(str(folder))
    except Exception as error:
        raise _unreadable(named, error) from error
    return model


def _require_same_poses(
    folder: Path, suffix: str, model: pycolmap.Reconstruction, images: Mapping[int, StoredImage]
) -> None:
    """Raise InputError if frames and rigs, which COLMAP goes by, give an image another pose than its own file does."""
    for image_id, image in images.items():
        if not model.images[image_id].has_pose:
            continue
        own, used = pose_of(image), model.images[image_id].cam_from_world().matrix()
        if np.abs(own - used).max() > _SAME_POSE * max(1.0, float(np.abs(own).max())):
            raise InputError(
                f"{folder / f'frames{suffix}'} and {folder / f'images{suffix}'} disagree about the pose of "
                f"{printable(image.name)}: one of them is damaged or was changed alone; write the model again"
            )


def _unreadable(folder: Path, error: Exception) -> InputError:
    """The user's error: pycolmap turns failed checks into various types."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return InputError(f"cannot read the COLMAP model in {folder}: {reason}")


def _link_without_points(folder: Path, suffix: str, copy: Path) -> None:
    """Make `copy` the same model with no 3D points."""
    for name in ("cameras", "images", "rigs", "frames"):
        if (folder / (name + suffix)).is_file():
            _link(folder / (name + suffix), copy / (name + suffix))
    (copy / f"points3D{suffix}").write_bytes(bytes(8) if suffix == ".bin" else b"")


def _link(file: Path, place: Path) -> None:
    """The file under another name: a link, or a copy where links need special rights, as on Windows."""
    try:
        place.symlink_to(file.resolve())
    except OSError:
        shutil.copyfile(file, place)


def read_cameras(folder: Path) -> dict[str, tuple[Camera, np.ndarray | None]]:
    """Camera and cam_from_world (3, 4) of every image of a model by name; None for images without a pose.

    Raises InputError if a file is missing or damaged.
    """
    model = _load(folder)
    return {
        image.name: (
            from_pycolmap_camera(model.cameras[image.camera_id]),
            np.array(image.cam_from_world().matrix(), float) if image.has_pose else None,
        )
        for image in model.images.values()
    }


def read_stored_poses(folder: Path) -> dict[str, StoredPose]:
    """Poses of every registered image by name, with all their bits: matrices made of them do not lead back to the same
    ones.

    Raises InputError if a file is missing or damaged.
    """
    model = _load(folder)
    return {image.name: _stored_pose(model, image) for image in model.images.values() if image.has_pose}


def _stored_pose(model: pycolmap.Reconstruction, image: pycolmap.Image) -> StoredPose:
    rig, camera = model.rigs[image.frame.rig_id], pycolmap.sensor_t(pycolmap.SensorType.CAMERA, image.camera_id)
    if not rig.non_ref_sensors:
        return StoredPose(cam_from_world=_quaternion_pose(image.cam_from_world()))
    is_reference = rig.is_ref_sensor(camera)
    return StoredPose(
        cam_from_world=_quaternion_pose(image.cam_from_world()),
        rig_from_world=_quaternion_pose(image.frame.rig_from_world),
        sensor_from_rig=None if is_reference else _quaternion_pose(rig.sensor_from_rig(camera)),
    )


def _quaternion_pose(pose: pycolmap.Rigid3d) -> Float[np.ndarray, "7"]:
    return np.concatenate([pose.rotation.quat, pose.translation])


def read_reconstruction(folder: Path) -> tuple[Reconstruction, tuple[str, ...]]:
    """A whole model with points and tracks, binary or text, and the names of its registered images by image id.

    Its `image_index` is 0 .. view-1: rows of the names. Observations of no point are left out. A point that is
    seen twice in one image, as COLMAP allows, keeps the first of these observations.

    Raises InputError if a file is missing or damaged.
    """
    stored = read_files(folder)
    entries = [stored.images[image_id] for image_id in sorted(stored.reg_image_ids())]
    row = {entry.image_id: k for k, entry in enumerate(entries)}
    camera_ids = sorted({entry.camera_id for entry in entries})
    points = [point for _, point in sorted(stored.points3D.items())]
    observations = [_observations(stored, point, row) for point in points]
    kept = [k for k, seen in enumerate(observations) if seen]
    flat = [(n, image, xy) for n, k in enumerate(kept) for image, xy in sorted(observations[k].items())]
    model = Reconstruction(
        image_index=np.arange(len(entries)),
        cam_from_world=np.array([entry.cam_from_world().matrix() for entry in entries], float).reshape(-1, 3, 4),
        cameras=tuple(from_pycolmap_camera(stored.cameras[camera_id]) for camera_id in camera_ids),
        camera_index=np.array([camera_ids.index(entry.camera_id) for entry in entries], np.int64),
        points=np.array([points[k].xyz for k in kept], float).reshape(-1, 3),
        rgb=np.array([points[k].color for k in kept], np.uint8).reshape(-1, 3),
        error_px=np.array([np.nan if points[k].error == UNKNOWN_ERROR else points[k].error for k in kept], float),
        tracks=Tracks(
            obs_point=np.array([n for n, _, _ in flat], np.int64),
            obs_image=np.array([image for _, image, _ in flat], np.int64),
            obs_xy=np.array([xy for _, _, xy in flat], float).reshape(-1, 2),
        ),
        rigs=_stored_rigs(stored, entries),
    )
    return model, tuple(entry.name for entry in entries)


def _stored_rigs(stored: pycolmap.Reconstruction, entries: Sequence[pycolmap.Image]) -> Rigs | None:
    """The rigs of several cameras that registered images are of; None if there are none."""
    sensors: dict[tuple[int, int], int] = {}
    """(rig, camera) -> row."""
    poses: list[np.ndarray] = []
    for rig_id, rig in sorted(stored.rigs.items()):
        others = {
            sensor.id: pose
            for sensor, pose in rig.non_ref_sensors.items()
            if sensor.type == pycolmap.SensorType.CAMERA and pose is not None
        }
        if not others or rig.ref_sensor_id.type != pycolmap.SensorType.CAMERA:
            continue
        sensors[rig_id, rig.ref_sensor_id.id] = len(poses)
        poses.append(np.eye(3, 4))
        for camera_id, pose in sorted(others.items()):
            sensors[rig_id, camera_id] = len(poses)
            poses.append(np.array(pose.matrix(), float))
    sensor = np.array([sensors.get((e.frame.rig_id, e.camera_id), -1) for e in entries], np.int64)
    if not (sensor >= 0).any():
        return None
    references = {rig_id: row for (rig_id, _), row in reversed(sensors.items())}
    return Rigs(
        sensor=sensor,
        frame=np.where(sensor >= 0, [entry.frame_id for entry in entries], -1),
        rig=np.array([rig_id for rig_id, _ in sensors], np.int64),
        sensor_from_rig=np.stack(poses),
        is_fixed=np.isin(np.arange(len(poses)), list(references.values())),
    )


def read_files(folder: Path) -> pycolmap.Reconstruction:
    """A whole model as it is, binary or text.

    Raises InputError if a file is missing or damaged.
    """
    suffix = _suffix(folder)
    images = check_files(folder, suffix, points=True)
    stored = _read(folder, suffix, named=folder)
    _require_same_poses(folder, suffix, stored, images)
    return stored


def _observations(
    stored: pycolmap.Reconstruction, point: pycolmap.Point3D, row: dict[int, int]
) -> dict[int, np.ndarray]:
    """First observation of a point in each registered image."""
    seen: dict[int, np.ndarray] = {}
    for element in point.track.elements:
        if element.image_id in row:
            xy = stored.images[element.image_id].points2D[element.point2D_idx].xy
            seen.setdefault(row[element.image_id], xy)
    return seen
