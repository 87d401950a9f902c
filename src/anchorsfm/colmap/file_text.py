"""Text files of a COLMAP model, line by line."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from anchorsfm.colmap.file_records import (
    CAMERA_SENSOR,
    ELEMENT,
    NUM_PARAMS,
    POINT_HEAD,
    CameraChecks,
    FrameChecks,
    ModelFile,
    RigChecks,
    StoredImage,
    StoredPoints,
)
from anchorsfm.scene.errors import InputError


class TextFile(ModelFile):
    """The lines of a text file; `# Number of ...: N` in its header is held against what follows."""

    unit_within = 1e-3  # texts are written with few digits

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            self._lines = self.content.decode("utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise self.fault("it is not text") from error
        self._number = 0

    def cameras(self) -> set[int]:
        checker = CameraChecks(self)
        for words in self._records():
            self._least(words, 4)
            model = words[1]
            if model not in NUM_PARAMS:
                raise self._wrong(f"the camera model {model[:40]!r} is not known")
            camera_id, width, height = self._integers([words[0], *words[2:4]])
            params = self._numbers(words[4:])
            if len(params) != NUM_PARAMS[model]:
                raise self._wrong(f"{model} has {NUM_PARAMS[model]} parameters, not {len(params)}")
            checker.add(camera_id, model, (width, height), params)
        self._require_announced(len(checker.found))
        return checker.found

    def images(self) -> Iterator[tuple[int, StoredImage]]:
        lines, total = iter(enumerate(self._lines, 1)), 0
        for number, line in lines:
            self._number = number
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            words = line.split(maxsplit=9)
            self._least(words, 10)
            image_id, camera_id = self._integers([words[0], words[8]])
            pose = tuple(self._numbers(words[1:8]))
            self._number, second = next(lines, (self._number + 1, None))
            if second is None:
                raise self.fault("it is cut short: the last image has no line of observations")
            triples = second.split()
            if len(triples) % 3:
                raise self._wrong("observations are x, y and a point, three numbers each")
            xy = np.array([self._numbers(triples[0::3]), self._numbers(triples[1::3])]).T.reshape(-1, 2)
            point = np.array([k % 2**64 for k in self._integers(triples[2::3])], np.uint64)
            total += 1
            yield image_id, StoredImage(name=words[9].strip(), camera_id=camera_id, pose=pose, xy=xy, point=point)
        self._require_announced(total)

    def rigs(self, cameras: set[int]) -> set[int]:
        checker = RigChecks(self, cameras)
        for words in self._records():
            self._least(words, 2)
            rig_id, sensors = self._integers(words[:2])
            rest = words[2:]
            for number in range(min(sensors, len(words))):
                self._least(rest, 2 + (number > 0))
                (sensor_id,) = self._integers(rest[1:2])
                has_pose = number > 0 and rest[2] != "0"
                self._least(rest, 10 if has_pose else 2)
                pose = self._numbers(rest[3:10]) if has_pose else None
                checker.add_sensor(rig_id, is_camera=rest[0] == "CAMERA", sensor_id=sensor_id, pose=pose)
                rest = rest[2 + (number > 0) + 7 * has_pose :]
            if rest or sensors > len(words):
                raise self._wrong("the sensors of a rig are more or fewer than it says")
            checker.add(rig_id)
        self._require_announced(len(checker.found))
        return checker.found

    def frames(self, rigs: set[int], images: Mapping[int, StoredImage]) -> None:
        checker, total = FrameChecks(self, rigs, images), 0
        for words in self._records():
            self._least(words, 10)
            frame_id, rig_id, number = self._integers([*words[:2], words[9]])
            if len(words) != 10 + 3 * number:
                raise self._wrong(f"the frame announces {number} images")
            kinds = [CAMERA_SENSOR if kind == "CAMERA" else CAMERA_SENSOR + 1 for kind in words[10::3]]
            sensor_ids, data_ids = self._integers(words[11::3]), self._integers(words[12::3])
            checker.add(
                frame_id, rig_id, self._numbers(words[2:9]), list(zip(kinds, sensor_ids, data_ids, strict=True))
            )
            total += 1
        self._require_announced(total)
        checker.end()

    def points(self) -> StoredPoints:
        heads: list[tuple[object, ...]] = []
        elements: list[tuple[int, int]] = []
        for words in self._records():
            self._least(words, 8)
            if len(words) % 2:
                raise self._wrong("a track is images and observations, two numbers each")
            (point_id, *rgb), track = self._integers([words[0], *words[4:7]]), self._integers(words[8:])
            numbers = self._numbers([*words[1:4], words[7]])
            if not all(0 <= value < 2**32 for value in track) or not all(0 <= value < 256 for value in rgb):
                raise self._wrong("a colour or an observation is out of range")
            heads.append((point_id, numbers[:3], rgb, numbers[3], len(track) // 2))
            elements += zip(track[0::2], track[1::2], strict=True)
        self._require_announced(len(heads))
        return StoredPoints(head=np.array(heads, POINT_HEAD), elements=np.array(elements, ELEMENT))

    def _records(self) -> Iterator[list[str]]:
        for number, line in enumerate(self._lines, 1):
            self._number = number
            words = line.split()
            if words and not words[0].startswith("#"):
                yield words

    def _wrong(self, problem: str) -> InputError:
        return self.fault(f"line {self._number}: {problem}")

    def _least(self, words: Sequence[str], number: int) -> None:
        if len(words) < number:
            raise self._wrong("it is cut short")

    def _integers(self, words: Sequence[str]) -> list[int]:
        try:
            values = [int(word) for word in words if word.isascii() and "_" not in word and len(word) <= 20]
        except ValueError as error:
            raise self._wrong("a number is missing or not whole") from error
        if len(values) != len(words) or not all(-1 <= value < 2**64 for value in values):
            raise self._wrong("a number is out of range")
        return values

    def _numbers(self, words: Sequence[str]) -> list[float]:
        try:
            values = [float(word) for word in words if word.isascii() and "_" not in word]
        except ValueError as error:
            raise self._wrong("something is not a number") from error
        if len(values) != len(words):
            raise self._wrong("something is not a number")
        return values

    def _require_announced(self, number: int) -> None:
        for line in self._lines:
            if not line.startswith("#"):
                return
            words = line.removeprefix("# Number of ").split(":")[1:2] if line.startswith("# Number of ") else []
            announced = words[0].split(",")[0].strip() if words else ""
            if announced.isdecimal() and announced.isascii() and announced != str(number):
                raise self.fault(f"its header announces {announced}, and {number} follow (or correct that line)")
