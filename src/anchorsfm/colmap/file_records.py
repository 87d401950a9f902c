"""What the files of a COLMAP model consist of, and the rules that each record must keep whatever file it comes from."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from jaxtyping import Float

from anchorsfm.io.files import read_regular
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.printable import printable

FARTHEST = 1e15
"""Coordinates beyond are no places: their squares and differences lose all digits."""
CAMERA_SENSOR = 0
NO_POINT = np.uint64(2**64 - 1)
"""What an observation of no point has in the place of its point."""
POINT_HEAD = np.dtype([("id", "<u8"), ("xyz", "<f8", 3), ("rgb", "u1", 3), ("error", "<f8"), ("length", "<u8")])
POINT2D = np.dtype([("xy", "<f8", 2), ("point", "<u8")])
ELEMENT = np.dtype([("image", "<u4"), ("slot", "<u4")])
_LARGEST_FILE = 64 * 2**30
_LARGEST_SIDE = 10**6
"""Pixels of an image."""


class ModelFile:
    """A file of a model with all its content."""

    unit_within = 1e-5
    """How far the length of a quaternion may be from 1."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.content = read_regular(path, _LARGEST_FILE)
        except FileNotFoundError as error:
            raise InputError(f"{path} is missing: write the model again") from error
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from error

    def fault(self, problem: str) -> InputError:
        """The error for a broken rule."""
        return InputError(f"{self.path} is damaged: {problem}; write the model again")


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    """What images.bin or images.txt says about one image."""

    name: str
    camera_id: int
    pose: tuple[float, ...]
    """Quaternion w, x, y, z and translation of cam_from_world."""
    xy: Float[np.ndarray, "observation 2"]
    point: np.ndarray
    """Identifier of the point of each observation, (observation,) of uint64."""


@dataclass(frozen=True, kw_only=True)
class StoredPoints:
    """The content of points3D.bin or points3D.txt."""

    head: np.ndarray
    """(point,) of `POINT_HEAD`."""
    elements: np.ndarray
    """(observation,) of `ELEMENT`, track after track."""


_CAMERAS = {
    name: pycolmap.Camera.create_from_model_name(1, name, 1.0, 1, 1)
    for name in pycolmap.CameraModelId.__members__
    if name != "INVALID"
}
NUM_PARAMS = {name: len(camera.params) for name, camera in _CAMERAS.items()}
"""Of every camera model."""
MODEL_OF_NUMBER = {int(number): name for name, number in pycolmap.CameraModelId.__members__.items() if name in _CAMERAS}
"""Camera models by what stands for them in binary files."""


def require_pose(file: ModelFile, what: str, pose: Sequence[float]) -> None:
    """Raise InputError unless a quaternion and translation are a pose; `what` names it."""
    if not all(abs(value) < FARTHEST for value in pose[4:]):  # also where it is not a number
        raise file.fault(f"{what} is not finite")
    if not abs(math.hypot(*pose[:4]) - 1) < file.unit_within:
        raise file.fault(f"{what} has a rotation that is no unit quaternion")


class CameraChecks:
    """Cameras of known models, each once, with a size, finite parameters and positive focal lengths."""

    def __init__(self, file: ModelFile) -> None:
        self._file = file
        self.found: set[int] = set()

    def add(self, camera_id: int, model: str, size: tuple[int, int], params: Sequence[float]) -> None:
        """Take down a camera; there are as many parameters as the model has."""
        file, what = self._file, f"camera {camera_id}"
        if not all(1 <= side <= _LARGEST_SIDE for side in size):
            raise file.fault(f"{what} is {size[0]}x{size[1]} pixels")
        if not all(abs(value) < FARTHEST for value in params):
            raise file.fault(f"a parameter of {what} is not finite")
        focal = [params[row] for row in _CAMERAS[model].focal_length_idxs()]
        if not all(value > 0 for value in focal):
            raise file.fault(f"{what} has a focal length of {min(focal):g}")
        if camera_id in self.found:
            raise file.fault(f"it lists {what} twice")
        self.found.add(camera_id)


class RigChecks:
    """Rigs, each once, of cameras that are listed."""

    def __init__(self, file: ModelFile, cameras: set[int]) -> None:
        self._file, self._cameras = file, cameras
        self.found: set[int] = set()

    def add_sensor(self, rig_id: int, *, is_camera: bool, sensor_id: int, pose: Sequence[float] | None) -> None:
        """Look at a sensor; `pose`: relative to the first one, if it is known."""
        if is_camera and sensor_id not in self._cameras:
            suffix = self._file.path.suffix
            raise self._file.fault(f"a rig has camera {sensor_id}, which cameras{suffix} does not list")
        if pose is not None:
            require_pose(self._file, f"a sensor of rig {rig_id}", pose)

    def add(self, rig_id: int) -> None:
        """Take down a rig after its sensors."""
        if rig_id in self.found:
            raise self._file.fault(f"it lists rig {rig_id} twice")
        self.found.add(rig_id)


class FrameChecks:
    """Frames: each with a known rig, every image in exactly one."""

    def __init__(self, file: ModelFile, rigs: set[int], images: Mapping[int, StoredImage]) -> None:
        self._file, self._rigs, self._images = file, rigs, images
        self._frames: set[int] = set()
        self._seen: set[int] = set()

    def add(self, frame_id: int, rig_id: int, pose: Sequence[float], data: Sequence[Sequence[int]]) -> None:
        """Take down a frame; `data`: kind of sensor, sensor and image of all it holds."""
        if frame_id in self._frames:
            raise self._file.fault(f"it lists frame {frame_id} twice")
        self._frames.add(frame_id)
        if rig_id not in self._rigs:
            raise self._file.fault(
                f"frame {frame_id} has rig {rig_id}, which rigs{self._file.path.suffix} does not list"
            )
        require_pose(self._file, f"the pose of frame {frame_id}", pose)
        for kind, sensor_id, data_id in data:
            if kind != CAMERA_SENSOR:
                continue
            image = self._images.get(data_id)
            if image is None or image.camera_id != sensor_id or data_id in self._seen:
                raise self._file.fault(f"frame {frame_id} has image {data_id}, which is not listed so")
            self._seen.add(data_id)

    def end(self) -> None:
        """All frames have been added."""
        left = self._images.keys() - self._seen
        if left:
            raise self._file.fault(f"image {printable(self._images[min(left)].name)} is in no frame")


def pose_of(image: StoredImage) -> Float[np.ndarray, "3 4"]:
    """cam_from_world of an image as its file says it."""
    w, x, y, z, *shift = image.pose
    return np.array(pycolmap.Rigid3d(pycolmap.Rotation3d(np.array([x, y, z, w])), np.array(shift)).matrix())
