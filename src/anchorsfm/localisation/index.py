"""What a run keeps of a model for localisation: the descriptors of its points in every image, and nothing else.

A file a model. Descriptors are the detector's bytes (RootSIFT); those of an image come largest image structure first.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy.spatial import cKDTree

from anchorsfm.features.base import Features
from anchorsfm.features.config import DescriptorMatchingConfig, FeatureConfig
from anchorsfm.io.json_files import checked
from anchorsfm.io.sealed import damaged, read_sealed, write_sealed
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.reconstruction import Reconstruction

VERSION = 1
"""Raise when the meaning of the file changes."""
_SAME_KEYPOINT_PX = 0.75
"""Working pixels between an observation and its keypoint: refined observations have moved a little."""
_KIND = "localisation index"


@dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """How the descriptors were made: those of other photographs must be made in the same way."""

    version: int
    max_image_size: int
    max_keypoints: int
    contrast_threshold: float
    max_ratio: float

    @property
    def features(self) -> FeatureConfig:
        return FeatureConfig(
            max_image_size=self.max_image_size,
            max_keypoints=self.max_keypoints,
            contrast_threshold=self.contrast_threshold,
        )

    @property
    def matching(self) -> DescriptorMatchingConfig:
        return DescriptorMatchingConfig(max_ratio=self.max_ratio)


@dataclass(frozen=True, kw_only=True)
class ModelIndex:
    """Descriptors of a model's points."""

    settings: IndexSettings
    num_points: int
    """Of the model that it belongs to."""
    descriptor: UInt8[np.ndarray, "row 128"]
    """Those of an image follow each other."""
    point: Int[np.ndarray, "row"]
    """Row of the model's point."""
    start: Int[np.ndarray, "view_plus_1"]
    """Descriptors of view k, in the order of image indices, are rows start[k]:start[k + 1]."""

    @property
    def num_views(self) -> int:
        return len(self.start) - 1

    def rows(self, view: int) -> slice:
        return slice(int(self.start[view]), int(self.start[view + 1]))


def make_index(
    model: Reconstruction,
    features: Callable[[int], Features],
    settings: IndexSettings,
) -> ModelIndex:
    """The index of a model; `features(image)` are those of an image of its ImageSet.

    Raises InputError if a photograph cannot be read.
    """
    descriptor, point, count = [], [], []
    for image in np.sort(model.image_index).tolist():
        mine = model.tracks.obs_image == image
        found = features(image)
        row, of = _of_observations(found, model.tracks.obs_xy[mine], settings.max_image_size)
        descriptor.append(found.descriptor[row])
        point.append(model.tracks.obs_point[mine][of])
        count.append(len(row))
    return ModelIndex(
        settings=settings,
        num_points=len(model.points),
        descriptor=np.concatenate([np.zeros((0, 128), np.uint8), *descriptor]),
        point=np.concatenate([np.zeros(0, np.int64), *point]).astype(np.int32),
        start=np.concatenate([[0], np.cumsum(count)]).astype(np.int64),
    )


def _of_observations(
    features: Features, obs_xy: Float[np.ndarray, "obs 2"], max_image_size: int
) -> tuple[Int[np.ndarray, "row"], Int[np.ndarray, "row"]]:
    """Descriptors of the keypoints that were observed, largest structure first, and the observation of each."""
    if not len(obs_xy) or not len(features.xy):
        none = np.zeros(0, np.int64)
        return none, none
    scale = max(1.0, float(features.size_wh.max()) / max_image_size)
    distance, keypoint = cKDTree(features.xy).query(obs_xy, distance_upper_bound=_SAME_KEYPOINT_PX * scale)
    observed = np.full(len(features.xy) + 1, -1)
    near = np.flatnonzero(np.isfinite(distance))
    observed[np.asarray(keypoint)[near]] = near
    row = np.flatnonzero(observed[features.keypoint] >= 0)
    row = row[np.argsort(-features.score[row], kind="stable")]
    return row, observed[features.keypoint[row]]


def with_points_kept(index: ModelIndex, kept: Bool[np.ndarray, "point"]) -> ModelIndex:
    """The index of a model from which points were removed."""
    rows = kept[index.point]
    before = np.concatenate([[0], np.cumsum(rows)])
    return replace(
        index,
        num_points=int(kept.sum()),
        descriptor=index.descriptor[rows],
        point=(np.cumsum(kept) - 1)[index.point[rows]].astype(index.point.dtype),
        start=before[index.start].astype(index.start.dtype),
    )


def write_index(path: Path, index: ModelIndex) -> None:
    """Raises StorageError if the file cannot be written."""
    arrays = {
        "descriptor": index.descriptor,
        "point": index.point,
        "start": index.start,
        "num_points": np.array([index.num_points], np.int64),
    }
    write_sealed(path, _KIND, json.dumps(asdict(index.settings), sort_keys=True), arrays)


def read_index(path: Path, remedy: str = "make it anew with anchorsfm index") -> ModelIndex | None:
    """The index in a file; None if there is no file. `remedy`: what a message says to do about one that is no use.

    Raises InputError if it is damaged or of another version.
    """
    found = read_sealed(path, _KIND, remedy)
    if found is None:
        return None
    text, arrays = found
    try:
        content = json.loads(text)
        if content["version"] != VERSION:
            raise InputError(f"{path} is of another version of AnchorSfM: {remedy}")
        settings = IndexSettings(**checked(content, IndexSettings))
        num_points = int(arrays.pop("num_points")[0])
        return ModelIndex(settings=settings, num_points=num_points, **arrays)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise damaged(path, remedy) from error
