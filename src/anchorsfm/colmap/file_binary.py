"""Binary files of a COLMAP model, walked record by record."""

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from anchorsfm.colmap.file_records import (
    CAMERA_SENSOR,
    ELEMENT,
    MODEL_OF_NUMBER,
    NUM_PARAMS,
    POINT2D,
    POINT_HEAD,
    CameraChecks,
    FrameChecks,
    ModelFile,
    RigChecks,
    StoredImage,
    StoredPoints,
)


class BinaryFile(ModelFile):
    """A cursor in a binary file; every read is checked against its end."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._at = 0

    def cameras(self) -> set[int]:
        checker = CameraChecks(self)
        for _ in range(self._count(24)):
            camera_id, number, width, height = self._take("<IiQQ")
            model = MODEL_OF_NUMBER.get(number)
            if model is None:
                raise self.fault(f"camera {camera_id} has the unknown model {number}")
            params = list(self._take(f"<{NUM_PARAMS[model]}d"))
            checker.add(camera_id, model, (width, height), params)
        self._end()
        return checker.found

    def images(self) -> Iterator[tuple[int, StoredImage]]:
        for _ in range(self._count(73)):
            image_id, *pose, camera_id = self._take("<I7dI")
            name = self._name()
            observations = self._array(POINT2D, self._count(POINT2D.itemsize))
            yield image_id, StoredImage(name=name, camera_id=camera_id, pose=tuple(pose), xy=observations["xy"],
                                        point=observations["point"])  # fmt: skip
        self._end()

    def rigs(self, cameras: set[int]) -> set[int]:
        checker = RigChecks(self, cameras)
        for _ in range(self._count(8)):
            rig_id, sensors = self._take("<II")
            for number in range(sensors):
                kind, sensor_id = self._take("<iI")
                pose = self._take("<7d") if number > 0 and self._take("<?")[0] else None
                checker.add_sensor(rig_id, is_camera=kind == CAMERA_SENSOR, sensor_id=sensor_id, pose=pose)
            checker.add(rig_id)
        self._end()
        return checker.found

    def frames(self, rigs: set[int], images: Mapping[int, StoredImage]) -> None:
        checker = FrameChecks(self, rigs, images)
        for _ in range(self._count(68)):
            frame_id, rig_id, *pose, number = self._take("<II7dI")
            data = [self._take("<iIQ") for _ in range(self._at_most(number, 16))]
            checker.add(frame_id, rig_id, pose, data)
        self._end()
        checker.end()

    def points(self) -> StoredPoints:
        size, starts, ends = POINT_HEAD.itemsize, [], []
        for _ in range(self._count(size)):
            starts.append(self._at)
            self._skip(size)
            length = int.from_bytes(self.content[self._at - 8 : self._at], "little")
            self._skip(8 * self._at_most(length, 8))
            ends.append(self._at)
        self._end()
        heads = b"".join(self.content[start : start + size] for start in starts)
        tracks = b"".join(self.content[start + size : end] for start, end in zip(starts, ends, strict=True))
        return StoredPoints(head=np.frombuffer(heads, POINT_HEAD), elements=np.frombuffer(tracks, ELEMENT))

    def _skip(self, size: int) -> None:
        if size > len(self.content) - self._at:
            raise self.fault("it is cut short")
        self._at += size

    def _take(self, form: str) -> tuple[Any, ...]:
        start = self._at
        self._skip(struct.calcsize(form))
        return struct.unpack_from(form, self.content, start)

    def _count(self, least: int) -> int:
        """A number of things that take at least so many bytes each."""
        return self._at_most(int(self._take("<Q")[0]), least)

    def _at_most(self, number: int, least: int) -> int:
        if number * least > len(self.content) - self._at:
            raise self.fault("it is cut short, or announces more than it holds")
        return number

    def _array(self, kind: np.dtype, number: int) -> np.ndarray:
        start = self._at
        self._skip(number * kind.itemsize)
        return np.frombuffer(self.content, kind, number, start)

    def _name(self) -> str:
        end = self.content.find(b"\0", self._at)
        if end < 0:
            raise self.fault("it is cut short")
        name = self.content[self._at : end]
        self._at = end + 1
        return name.decode("utf-8", "surrogateescape")

    def _end(self) -> None:
        if self._at != len(self.content):
            raise self.fault("it holds more than its counts say")
