"""Features of every photograph and matches of every pair, made once and read from the cache from then on.

Keys depend on the photographs' contents and the method only, not on names, pairs or front ends: whoever asks for the
same features (a front end, retrieval before there are pairs, localisation in a finished model) finds them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from anchorsfm.features.base import Detector, FeatureMatches, Features, Matcher
from anchorsfm.io.store import Store, digest
from anchorsfm.io.workers import map_stage
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.progress import Progress


@dataclass(frozen=True, kw_only=True)
class FeatureStore:
    """Features of the photographs of a set."""

    images: ImageSet
    detector: Detector
    store: Store

    def key(self, image: int) -> str:
        """Identifies the features of a photograph."""
        return digest("features", self.images.digests[image], self.detector.digest)

    def features(self, image: int) -> Features:
        """Raises InputError if the photograph cannot be read."""
        key = self.key(image)
        stored = self.store.load("features", key)
        if stored is not None:
            return Features(**stored)
        features = self.detector.detect(self.images, image)
        self.store.save("features", key, vars(features))
        return features

    def detect_all(self, progress: Progress, num_workers: int) -> list[Features]:
        """Features of every photograph, in order."""
        workers = num_workers if self.detector.is_concurrent else 1
        return map_stage("finding keypoints", self.features, self.images.num_images, progress, workers)


@dataclass(frozen=True, kw_only=True)
class MatchStore:
    """Matches between photographs of a `FeatureStore`."""

    features: FeatureStore
    matcher: Matcher

    def key(self, i: int, j: int) -> str:
        """Identifies the matches of a pair."""
        return digest("feature matches", self.features.key(i), self.features.key(j), self.matcher.digest)

    def match_all(
        self,
        pairs: Int[np.ndarray, "pair 2"],
        features: Sequence[Features],
        progress: Progress,
        num_workers: int,
    ) -> list[FeatureMatches]:
        """Matches of every pair, in order; `features`: those of every photograph."""
        store = self.features.store
        prepared: dict[int, Any] = {}  # two threads may both make one: the result is the same

        def prepare(image: int) -> Any:
            if image not in prepared:
                prepared[image] = self.matcher.prepare(features[image])
            return prepared[image]

        def work(pair: int) -> FeatureMatches:
            i, j = pairs[pair].tolist()
            key = self.key(i, j)
            stored = store.load("feature-matches", key)
            if stored is not None:
                return FeatureMatches(**stored)
            found = self.matcher.match(prepare(i), prepare(j))
            store.save("feature-matches", key, vars(found))
            return found

        workers = num_workers if self.matcher.is_concurrent else 1
        return map_stage("matching pairs", work, len(pairs), progress, workers)
