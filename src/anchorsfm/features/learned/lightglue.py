"""LightGlue, and LighterGlue for XFeat: matches by attention between the keypoints of two photographs."""

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from anchorsfm.features.base import FeatureMatches, Features
from anchorsfm.features.config import DescriptorMatchingConfig, LearnedDetectorName, NetworkConfig
from anchorsfm.features.learned.detector import DESCRIPTOR_WIDTH
from anchorsfm.features.learned.networks import in_any_process, kornia_features, load_lightglue
from anchorsfm.features.learned.releases import MATCHER_WEIGHTS
from anchorsfm.features.one_to_one import one_to_one
from anchorsfm.io.store import digest
from anchorsfm.io.weights.licence import LicenceRecord
from anchorsfm.io.weights.release import find_release
from anchorsfm.networks.devices import inference, inference_dtype, resolve_device
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.progress import SILENT, Progress

VERSION = 2
"""Raise when results change: what older versions cached is then ignored."""
GPU_BATCH = 8
"""Pairs at a time on a GPU, unless the settings say otherwise."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Features on the device of the network."""

    xy: Float[Tensor, "descriptor 2"]
    descriptor: Float[Tensor, "descriptor width"]
    size_wh: Float[Tensor, "2"]
    keypoint: Int[np.ndarray, "descriptor"]


class LightGlueMatcher:
    """Matches of keypoints of one learned detector; scores are the probabilities that the network gives them."""

    def __init__(
        self,
        detector: LearnedDetectorName,
        config: DescriptorMatchingConfig,
        networks: NetworkConfig,
        progress: Progress,
    ) -> None:
        """Raises InputError if kornia, the device or the weights are not there; these are downloaded if need be."""
        kornia_features()
        release = MATCHER_WEIGHTS[detector]
        self._detector: LearnedDetectorName = detector
        self._min_score = config.min_score
        self._device = resolve_device(networks.device)
        self._settings = detector, config, in_any_process(networks, self._device)
        dtype = inference_dtype(self._device, networks.half_precision, "classical.networks.half-precision")
        self._half_precision = dtype == torch.float16
        self._path = find_release(release, networks.weights, progress)
        self._network: nn.Module | None = None
        self._lock = Lock()
        self.licence: LicenceRecord | None = release.licence
        self.is_concurrent = self._device.type == "cpu"
        self.batch_size = networks.batch_size or (1 if self._device.type == "cpu" else GPU_BATCH)
        self.digest = digest(
            "lightglue", VERSION, release.sha256, config.min_score, self._half_precision, self.batch_size > 1
        )

    def __reduce__(self) -> tuple[object, ...]:
        """In another process, on another machine: on a device of the same kind, with the weights that are there."""
        return type(self), (*self._settings, SILENT)

    def prepare(self, features: Features) -> Prepared:
        """Raises InputError for descriptors of another detector."""
        if features.descriptor.dtype != np.float32 or features.descriptor.shape[1] != DESCRIPTOR_WIDTH[self._detector]:
            raise InputError(f"this LightGlue matches {self._detector} keypoints: these are of another detector")
        return Prepared(
            xy=torch.from_numpy(features.xy[features.keypoint].astype(np.float32)).to(self._device),
            descriptor=torch.from_numpy(features.descriptor).to(self._device),
            size_wh=torch.from_numpy(features.size_wh.astype(np.float32)).to(self._device),
            keypoint=features.keypoint,
        )

    def match(self, i: Prepared, j: Prepared) -> FeatureMatches:
        """Matches of two photographs that were prepared."""
        return self.match_batch([(i, j)])[0]

    def match_batch(self, pairs: Sequence[tuple[Prepared, Prepared]]) -> list[FeatureMatches]:
        """Matches of several pairs at a time, whose photographs i have equally many keypoints, and whose j have.

        A batch always has `batch_size` pairs, the last one repeated: so the matches of a pair do not depend on how many
        others there are.
        """
        if not len(pairs[0][0].xy) or not len(pairs[0][1].xy):
            return [FeatureMatches.empty() for _ in pairs]
        filled = [*pairs, *[pairs[-1]] * (self.batch_size - len(pairs))]
        network = self._loaded()
        with inference():
            found = network({"image0": _stacked([i for i, _ in filled]), "image1": _stacked([j for _, j in filled])})
        return [
            one_to_one(
                np.stack([i.keypoint[rows[:, 0]], j.keypoint[rows[:, 1]]], axis=1),
                np.clip(score.float().cpu().numpy(), 0, 1),
            )
            for (i, j), rows, score in zip(
                pairs, (rows.cpu().numpy() for rows in found["matches"]), found["scores"], strict=False
            )
        ]

    @staticmethod
    def batch_key(i: Prepared, j: Prepared) -> tuple[int, int]:
        """Pairs of one batch have the same."""
        return len(i.xy), len(j.xy)

    def _loaded(self) -> nn.Module:
        with self._lock:
            if self._network is None:
                self._network = load_lightglue(
                    self._detector,
                    self._min_score,
                    self._path,
                    self._device,
                    half_precision=self._half_precision,
                    adapts=self.batch_size == 1,
                )
            return self._network


def _stacked(images: Sequence[Prepared]) -> dict[str, Any]:
    """As the network wants them. It measures positions from the centre in half long sides, whatever their unit."""
    return {
        "keypoints": torch.stack([image.xy for image in images]),
        "descriptors": torch.stack([image.descriptor for image in images]),
        "image_size": torch.stack([image.size_wh for image in images]),
    }
