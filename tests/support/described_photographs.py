"""Photographs that nobody took: keypoints and descriptors of points on a circle around which cameras stand.

Every point has a descriptor of its own and every camera sees the points of an arc, so which pairs overlap is known.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from anchorsfm.features.base import Features
from anchorsfm.features.config import MatchingConfig
from anchorsfm.features.methods import make_matcher
from anchorsfm.features.store import FeatureStore, MatchStore
from anchorsfm.features.verification import VerificationStore
from anchorsfm.io.store import Store
from anchorsfm.pairing.search import PairChecker
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.progress import SILENT

SIZE_WH = (1024, 768)
POINTS_PER_DEG = 8
ARC_DEG = 40
"""What a camera sees."""


@dataclass(frozen=True)
class Photograph:
    """A camera that looks at a circle's points from outside, or sees nothing of it."""

    scene: int
    angle_deg: float
    is_blank: bool = False


@dataclass(frozen=True)
class DescribedPoints:
    """A detector that knows which photograph is which."""

    photographs: Sequence[Photograph]
    digest: str = "described points"
    is_concurrent: bool = True
    licence: None = None
    calls: list[int] = field(default_factory=list)

    def detect(self, images: ImageSet, image: int) -> Features:
        self.calls.append(image)
        photograph = self.photographs[image]
        if photograph.is_blank:
            return _features(np.zeros((0, 2)), np.zeros((0, 128), np.uint8))
        point = _points(photograph.scene)
        xy = _projected(point, photograph.angle_deg)
        seen = _is_seen(photograph.angle_deg) & (np.abs(xy - np.array(SIZE_WH) / 2) < np.array(SIZE_WH) / 2).all(1)
        rng = np.random.default_rng([photograph.scene, int(photograph.angle_deg * 1000)])
        noisy = _descriptors(photograph.scene)[seen] + rng.integers(-6, 7, (int(seen.sum()), 128))
        return _features(xy[seen] + rng.normal(0, 0.3, (int(seen.sum()), 2)), np.clip(noisy, 0, 255).astype(np.uint8))


def checker(photographs: Sequence[Photograph], folder: Path | None) -> PairChecker:
    """What looks at pairs of these photographs; names are in order."""
    count = len(photographs)
    images = ImageSet(
        root=Path("nowhere"),
        names=tuple(f"{k:04d}.jpg" for k in range(count)),
        size_wh=np.tile(SIZE_WH, (count, 1)),
        camera_index=np.zeros(count, np.int64),
        focal_prior_px=np.full(count, np.nan),
        digests=tuple(f"{p.scene} {p.angle_deg} {p.is_blank}" for p in photographs),
    )
    config = MatchingConfig(seed=0)
    features = FeatureStore(images=images, detector=DescribedPoints(photographs), store=Store(folder))
    matches = MatchStore(features=features, matcher=make_matcher(config))
    verification = VerificationStore(matches=matches, config=config)
    return PairChecker(verification=verification, progress=SILENT, num_workers=1)


def overlap_deg(one: Photograph, other: Photograph) -> float:
    """Of the arcs that two photographs see."""
    if one.scene != other.scene or one.is_blank or other.is_blank:
        return 0.0
    apart = abs((one.angle_deg - other.angle_deg + 180) % 360 - 180)
    return max(0.0, ARC_DEG - apart)


def _angles() -> np.ndarray:
    return np.arange(0, 360, 1 / POINTS_PER_DEG)


def _is_seen(angle_deg: float) -> np.ndarray:
    return np.abs((_angles() - angle_deg + 180) % 360 - 180) < ARC_DEG / 2


def _points(scene: int) -> np.ndarray:
    angle, rng = np.radians(_angles()), np.random.default_rng([scene, 1])
    radius = 2 + 0.3 * rng.uniform(-1, 1, len(angle))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), rng.uniform(-1, 1, len(angle))], axis=1)


def _descriptors(scene: int) -> np.ndarray:
    raw = np.random.default_rng([scene, 2]).exponential(size=(len(_angles()), 128)) ** 2
    return np.clip(512 * np.sqrt(raw / raw.sum(1, keepdims=True)), 0, 255).astype(int)


def _projected(point: np.ndarray, angle_deg: float) -> np.ndarray:
    """Pixels in a camera 4 units from the axis that looks at it."""
    cos, sin = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    depth = 4 - (point[:, 0] * cos + point[:, 1] * sin)
    across = -point[:, 0] * sin + point[:, 1] * cos
    plane = np.stack([across, point[:, 2]], axis=1) / np.maximum(depth, 0.1)[:, None]
    return np.asarray(plane * 700 + np.array(SIZE_WH) / 2)


def _features(xy: np.ndarray, descriptor: np.ndarray) -> Features:
    return Features(
        size_wh=np.array(SIZE_WH),
        xy=xy.astype(np.float32),
        descriptor=descriptor,
        keypoint=np.arange(len(xy), dtype=np.int32),
        score=np.linspace(2, 1, len(xy)).astype(np.float32),
    )
