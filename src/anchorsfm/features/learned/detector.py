"""ALIKED, DISK and XFeat as detectors.

kornia puts (0, 0) at the centre of the top-left pixel; half a pixel is added at once, so that all coordinates are
COLMAP's. Networks run in float32 on every device: in half precision their keypoints would lie on a grid of a quarter of
a pixel or worse.
"""

from collections.abc import Mapping
from threading import Lock

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from anchorsfm.features.base import Features
from anchorsfm.features.config import FeatureConfig, LearnedDetectorName, NetworkConfig
from anchorsfm.features.learned.networks import in_any_process, kornia_features, load_detector
from anchorsfm.features.learned.releases import DETECTOR_WEIGHTS
from anchorsfm.io.memory import physical_bytes
from anchorsfm.io.pictures import load_rgb, working_size_wh
from anchorsfm.io.store import digest
from anchorsfm.io.weights.licence import LicenceRecord
from anchorsfm.io.weights.release import find_release
from anchorsfm.io.workers import Budget
from anchorsfm.networks.devices import inference, resolve_device
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.progress import SILENT, Progress

VERSION = 2
"""Raise when results change: what older versions cached is then ignored."""
MAX_KEYPOINTS: Mapping[LearnedDetectorName, int] = {"aliked": 2048, "disk": 2048, "xfeat": 4096}
"""Kept per image unless the settings say otherwise."""
DESCRIPTOR_WIDTH: Mapping[LearnedDetectorName, int] = {"aliked": 128, "disk": 128, "xfeat": 64}
_BYTES_PER_PIXEL: Mapping[LearnedDetectorName, int] = {"aliked": 1800, "disk": 2300, "xfeat": 150}
"""Memory that a network takes for a picture, as measured on a processor."""
_USABLE = 0.4
"""Share of the memory that pictures may take which are looked at side by side."""
_MIN_SIDE = 32
"""Pixels: smaller photographs have no keypoints, as networks halve them five times."""
_BLOCK = 32
"""XFeat's pictures have sides that are multiples of this."""


class LearnedDetector:
    """A network that finds keypoints and describes them by unit vectors; scores are the network's own, best first."""

    def __init__(
        self, name: LearnedDetectorName, config: FeatureConfig, networks: NetworkConfig, progress: Progress
    ) -> None:
        """Raises InputError if kornia, the device or the weights are not there; these are downloaded if need be."""
        kornia_features()
        release = DETECTOR_WEIGHTS[name]
        self._name: LearnedDetectorName = name
        self._device = resolve_device(networks.device)
        self._settings = name, config, in_any_process(networks, self._device)
        self._path = find_release(release, networks.weights, progress)
        self._max_image_size = config.max_image_size
        self._max_keypoints = config.max_learned_keypoints or MAX_KEYPOINTS[name]
        self._network: nn.Module | None = None
        self._lock = Lock()
        self._memory = Budget(int(_USABLE * physical_bytes()))
        self.licence: LicenceRecord | None = release.licence
        self.is_concurrent = self._device.type == "cpu"
        self.digest = digest(name, VERSION, release.sha256, config.max_image_size, self._max_keypoints)

    def __reduce__(self) -> tuple[object, ...]:
        """In another process, on another machine: on a device of the same kind, with the weights that are there."""
        return type(self), (*self._settings, SILENT)

    def detect(self, images: ImageSet, image: int) -> Features:
        """Raises InputError if the photograph cannot be read."""
        size_wh = images.size_wh[image]
        working_wh = self._working_wh(size_wh)
        if working_wh.min() < _MIN_SIDE:
            return _no_features(size_wh, DESCRIPTOR_WIDTH[self._name])
        xy, descriptor, score = self._run(load_rgb(images, image, working_wh))
        return _features(xy * (size_wh / working_wh), descriptor, score, size_wh)

    def _working_wh(self, size_wh: Int[np.ndarray, "2"]) -> Int[np.ndarray, "2"]:
        working_wh = working_size_wh(size_wh, self._max_image_size or int(size_wh.max()))
        return working_wh // _BLOCK * _BLOCK if self._name == "xfeat" else working_wh

    def _run(
        self, rgb: UInt8[np.ndarray, "h w 3"]
    ) -> tuple[Float[np.ndarray, "keypoint 2"], Float[np.ndarray, "keypoint width"], Float[np.ndarray, "keypoint"]]:
        """Positions in COLMAP pixels of the picture, descriptors and scores."""
        picture = torch.from_numpy(rgb).to(self._device).permute(2, 0, 1)[None].float() / 255
        network = self._loaded()
        with self._memory.taking(_BYTES_PER_PIXEL[self._name] * picture[0, 0].numel()), inference():
            if self._name == "aliked":
                (found,) = network(picture)
                result = found.keypoints, found.descriptors, found.keypoint_scores
            elif self._name == "disk":
                (found,) = network(picture, n=self._max_keypoints, pad_if_not_divisible=True)
                result = found.keypoints, found.descriptors, found.detection_scores
            else:
                (found,) = network.detectAndCompute(picture)  # type: ignore[operator]
                result = found["keypoints"], found["descriptors"], found["scores"]
        xy, descriptor, score = (_array(value) for value in result)
        return xy.astype(np.float64) + 0.5, descriptor, score

    def _loaded(self) -> nn.Module:
        with self._lock:
            if self._network is None:
                self._network = load_detector(self._name, self._max_keypoints, self._path, self._device)
            return self._network


def _array(value: Tensor) -> Float[np.ndarray, "..."]:
    return np.asarray(value.float().cpu().numpy())


def _features(
    xy: Float[np.ndarray, "keypoint 2"],
    descriptor: Float[np.ndarray, "keypoint width"],
    score: Float[np.ndarray, "keypoint"],
    size_wh: Int[np.ndarray, "2"],
) -> Features:
    """Best first; of keypoints in one place the best."""
    order = np.argsort(-score, kind="stable")
    position = xy[order].astype(np.float32)
    order = order[np.sort(np.unique(position, axis=0, return_index=True)[1])]
    return Features(
        size_wh=size_wh,
        xy=xy[order].astype(np.float32),
        descriptor=np.ascontiguousarray(descriptor[order], np.float32),
        keypoint=np.arange(len(order), dtype=np.int32),
        score=score[order].astype(np.float32),
    )


def _no_features(size_wh: Int[np.ndarray, "2"], width: int) -> Features:
    return _features(np.zeros((0, 2)), np.zeros((0, width)), np.zeros(0), size_wh)
