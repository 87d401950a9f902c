"""Rotations that are known with some uncertainty, in PyCOLMAP's adjustment, which takes positions only.

A camera with a known rotation carries three levers along its axes (docs/method.md, Known cameras and positions). The
ends are cameras of the same frame, at fixed places in it, whose positions are known: an end at the distance L, off by
s L sqrt(2), says that the two rotations across the lever are off by s sqrt(2); three levers together say that all
rotations are off by s. L is many times the deviation of positions over s, so that the ends add next to nothing to what
is known of the position.

PyCOLMAP leaves out priors of cameras that see nothing. So the ends see one fixed point together, which says nothing:
their focal length is next to 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pycolmap
from jaxtyping import Float

_LEVER = 30.0
"""Length in position over rotation deviations: positions then get .2 % more weight than they should."""
_FOCAL_PX = 1e-9
_SIZE_PX = 2
_AHEAD = 10.0
"""Lever lengths to the point that the ends see."""


def with_rotation_priors(
    model: pycolmap.Reconstruction,
    config: pycolmap.BundleAdjustmentConfig,
    positions: Sequence[pycolmap.PosePrior],
    rotation: Mapping[int, Float[np.ndarray, "3 3"]],
    sigma_rad: float,
) -> tuple[pycolmap.Reconstruction, list[pycolmap.PosePrior]]:
    """The model with the levers, and the priors of their ends.

    Args:
        model: one without rigs.
        config: of its adjustment: the ends become part of it.
        positions: priors of the positions of images; rotations of others are left out.
        rotation: known rotations cam_from_world by identifier of the image.
        sigma_rad: standard deviation of the rotation about each axis.
    """
    largest = max(float(np.sqrt(np.diag(prior.position_covariance).max())) for prior in positions)
    length = _LEVER * largest / sigma_rad
    levers = _Levers(model, length)
    covariance, priors = 2 * (length * sigma_rad) ** 2 * np.eye(3), []
    for known in positions:
        for end in levers.ends_of.get(known.pose_prior_id, ()) if known.pose_prior_id in rotation else ():
            prior = pycolmap.PosePrior()
            prior.position = known.position + rotation[known.pose_prior_id].T @ end.place
            prior.position_covariance = covariance
            prior.coordinate_system = pycolmap.PosePriorCoordinateSystem.CARTESIAN
            prior.pose_prior_id = end.image_id
            prior.corr_data_id = levers.model.images[end.image_id].data_id
            priors.append(prior)
    levers.hold(config)
    return levers.model, priors


@dataclass(frozen=True, kw_only=True)
class _End:
    """The end of a lever of one image."""

    image_id: int
    place: Float[np.ndarray, "3"]
    """In the frame of the camera."""


class _Levers:
    """A copy of a model whose cameras all have levers: frames that are in a model get no further images."""

    def __init__(self, model: pycolmap.Reconstruction, length: float) -> None:
        self.model = pycolmap.Reconstruction()
        self.ends_of: dict[int, list[_End]] = {}
        self._ends = length * np.eye(3)
        self._cameras: dict[int, list[int]] = {}
        self._points: list[int] = []
        for camera in model.cameras.values():
            self.model.add_camera(camera)
        for rig in model.rigs.values():
            self._add_rig(rig, max(model.cameras))
        for image in model.images.values():
            self._add_image(image, max(model.images))
        for point_id, point in model.points3D.items():
            self.model.add_point3D_with_id(point_id, point)
        for image in model.images.values():
            self._add_point(image, _AHEAD * length)

    def hold(self, config: pycolmap.BundleAdjustmentConfig) -> None:
        """Add the ends to an adjustment, and hold what is theirs."""
        for ends in self.ends_of.values():
            for end in ends:
                config.add_image(end.image_id)
        for cameras in self._cameras.values():
            for camera_id in cameras:
                config.set_constant_cam_intrinsics(camera_id)
                config.set_constant_sensor_from_rig_pose(self.model.cameras[camera_id].sensor_id)
        for point_id in self._points:
            config.add_constant_point(point_id)

    def _add_rig(self, rig: pycolmap.Rig, last_camera: int) -> None:
        own = rig.ref_sensor_id.id
        copy = pycolmap.Rig(rig_id=rig.rig_id)
        copy.add_ref_sensor(rig.ref_sensor_id)
        self._cameras[own] = [last_camera + 3 * (own - 1) + axis for axis in (1, 2, 3)]
        for camera_id, place in zip(self._cameras[own], self._ends, strict=True):
            params = [_FOCAL_PX, _SIZE_PX / 2, _SIZE_PX / 2]
            end = pycolmap.Camera(
                model="SIMPLE_PINHOLE", width=_SIZE_PX, height=_SIZE_PX, params=params, camera_id=camera_id
            )
            self.model.add_camera(end)
            copy.add_sensor(end.sensor_id, pycolmap.Rigid3d(pycolmap.Rotation3d(), -place))
        self.model.add_rig(copy)

    def _add_image(self, image: pycolmap.Image, last_image: int) -> None:
        frame = pycolmap.Frame(frame_id=image.frame_id, rig_id=image.frame.rig_id)
        frame.rig_from_world = image.frame.rig_from_world
        ends = [
            _End(image_id=last_image + 3 * (image.image_id - 1) + axis, place=self._ends[axis - 1])
            for axis in (1, 2, 3)
        ]
        self.ends_of[image.image_id] = ends
        copies = [_copy(image.name, [point.xy for point in image.points2D], image.camera_id, image.image_id)]
        for end, camera_id in zip(ends, self._cameras[image.camera_id], strict=True):
            copies.append(_copy(f"end {end.image_id}", [np.full(2, _SIZE_PX / 2)], camera_id, end.image_id))
        for copy in copies:
            copy.frame_id = image.frame_id
            frame.add_data_id(copy.data_id)
        self.model.add_frame(frame)
        for copy in copies:
            self.model.add_image(copy)
        self.model.register_frame(image.frame_id)

    def _add_point(self, image: pycolmap.Image, distance: float) -> None:
        """What the ends of an image see: it is given once the points of the model are."""
        track = pycolmap.Track()
        for end in self.ends_of[image.image_id]:
            track.add_element(end.image_id, 0)
        ahead = image.cam_from_world().inverse() * np.array([0, 0, distance])
        self._points.append(self.model.add_point3D(ahead, track, np.zeros(3, np.uint8)))


def _copy(name: str, xy: list[Float[np.ndarray, "2"]], camera_id: int, image_id: int) -> pycolmap.Image:
    keypoints = np.array(xy, np.float64).reshape(-1, 2)
    return pycolmap.Image(name=name, keypoints=keypoints, camera_id=camera_id, image_id=image_id)
