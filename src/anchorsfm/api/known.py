"""Poses and intrinsics that Python users know, by image name or row."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from anchorsfm.align.scene import camera_index_of
from anchorsfm.api import arguments
from anchorsfm.api.model import Intrinsics, Pose
from anchorsfm.mapping.config import KnownConfig
from anchorsfm.mapping.known import KnownCameras
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.reconstruction import Camera

_ROTATION_TOLERANCE = 1e-3
"""How far the rows of a rotation may be from unit length and right angles: poses are written with few digits."""


@dataclass(frozen=True, kw_only=True)
class CameraKnowledge:
    """What arguments say about the cameras of images, to be applied to a set of them."""

    shared_intrinsics: bool | None
    """True: one camera for all images; False: one for each; None: as files say."""
    poses: Any = None
    intrinsics: Any = None
    freeze_poses: bool = True
    freeze_intrinsics: bool = True

    def __post_init__(self) -> None:
        for name in ("freeze_poses", "freeze_intrinsics"):
            arguments.flag(name, getattr(self, name))
        if self.shared_intrinsics is not None:
            arguments.flag("shared_intrinsics", self.shared_intrinsics)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known."""
        return self.poses is None and self.intrinsics is None

    def camera_index(self, images: ImageSet) -> Int[np.ndarray, "image"]:
        """The camera of each image."""
        return camera_index_of(images, self.shared_intrinsics)

    def about(self, images: ImageSet) -> KnownCameras:
        """What is known, by row of the images.

        Raises InputError, naming the argument and the image, for what cannot be used.
        """
        camera_index = self.camera_index(images)
        return KnownCameras(
            config=KnownConfig(freeze_poses=self.freeze_poses, freeze_intrinsics=self.freeze_intrinsics),
            poses=known_poses(self.poses, images),
            cameras=known_cameras(self.intrinsics, replace(images, camera_index=camera_index)),
            camera_index=camera_index,
        )

    def as_priors(self, images: ImageSet) -> ImageSet:
        """The photographs with what is known about their intrinsics, for a front end; they share cameras as before.

        Raises the errors of `about`.
        """
        known = self.about(images)
        if not known.cameras:
            return images
        told = known.with_priors(replace(images, camera_index=known.camera_index))
        return replace(told, camera_index=images.camera_index)


def known_poses(poses: Any, images: ImageSet) -> dict[int, Float[np.ndarray, "3 4"]]:
    """cam_from_world by row of the images, with exact rotations."""
    if poses is None:
        return {}
    if not isinstance(poses, Mapping) or not poses:
        raise InputError(
            f"poses: expected image name -> cam_from_world (3, 4), such as the poses of a model, "
            f"not {arguments.describe(poses)}"
        )
    found: dict[int, Float[np.ndarray, "3 4"]] = {}
    for name, value in poses.items():
        place = f"poses[{arguments.short(name)}]"
        image = arguments.image_rows(place, name, images.names)
        if image in found:
            raise InputError(f"{place}: image {images.names[image]} comes twice")
        found[image] = _pose(place, value)
    return found


def _pose(place: str, value: Any) -> Float[np.ndarray, "3 4"]:
    if isinstance(value, Pose):
        return value.cam_from_world
    array = arguments.plain_array(place, value)
    matrix = arguments.numbers(place, array, "4 4" if array.shape == (4, 4) else "3 4")
    rotation = matrix[:3, :3]
    is_rotation = np.abs(rotation @ rotation.T - np.eye(3)).max() < _ROTATION_TOLERANCE and np.linalg.det(rotation) > 0
    if not is_rotation or not np.allclose(matrix[3:], [0, 0, 0, 1]):
        raise InputError(f"{place}: expected cam_from_world [R | t] with a rotation R, x_cam = R x_world + t")
    return np.column_stack([Rotation.from_matrix(rotation).as_matrix(), matrix[:3, 3]])


def known_cameras(intrinsics: Any, images: ImageSet) -> dict[int, Camera]:
    """By row of the cameras; those of which one image is known are known."""
    if intrinsics is None:
        return {}
    entries = intrinsics if isinstance(intrinsics, Mapping) else dict.fromkeys(images.names, intrinsics)
    known: dict[int, Camera] = {}
    for name, value in entries.items():
        place = f"intrinsics[{name!r}]" if isinstance(intrinsics, Mapping) else "intrinsics"
        image = arguments.image_rows(place, name, images.names)
        camera = _camera(place, value, images.size_wh[image])
        row = int(images.camera_index[image])
        if known.setdefault(row, camera) != camera:
            raise InputError(
                f"{place}: it shares a camera with images of other intrinsics; use shared_intrinsics=False"
            )
    return known


def _camera(place: str, value: Any, size_wh: Int[np.ndarray, "2"]) -> Camera:
    width, height = size_wh.tolist()
    if isinstance(value, Intrinsics):
        if value.size_wh != (width, height):
            raise InputError(f"{place}: is of {value.width}x{value.height} pixels, the image has {width}x{height}")
        return Camera(model=value.model, width=width, height=height, params=value.params)
    if np.ndim(value) == 0 if not hasattr(value, "ndim") else value.ndim == 0:
        plain = value.item() if hasattr(value, "item") else value
        focal = arguments.number(place, plain, low=1.0)
        return Camera(model="SIMPLE_PINHOLE", width=width, height=height, params=(focal, width / 2, height / 2))
    matrix = arguments.numbers(place, value, "3 3")
    if not np.allclose(matrix[[0, 1, 2, 2, 2], [1, 0, 0, 1, 2]], [0, 0, 0, 0, 1]) or np.diag(matrix)[:2].min() < 1:
        raise InputError(f"{place}: expected K = [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels")
    params = (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2])
    return Camera(model="PINHOLE", width=width, height=height, params=tuple(map(float, params)))
