"""Features of every photograph and matches of every pair, made once and read from the cache from then on.

Keys depend on the photographs' contents and the method only, not on names, pairs or front ends: whoever asks for the
same features (a front end, retrieval before there are pairs, localisation in a finished model) finds them.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, Int

from anchorsfm.features.base import BatchMatcher, Detector, FeatureMatches, Features, Matcher
from anchorsfm.geometry.links import near_each_other
from anchorsfm.io.recent import Recent
from anchorsfm.io.store import Store, digest
from anchorsfm.io.workers import map_stage, single_threaded_libraries
from anchorsfm.scene.executor import Tool, Work
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.masks import uses
from anchorsfm.scene.progress import SILENT, Progress

Output = TypeVar("Output")

_KEPT = 64
"""Photographs whose features stay in memory: 1.7 MB each at 12,000 descriptors."""
_PREPARED = 192
"""Photographs whose features stay in memory as the matcher wants them, twice as much each."""


@dataclass(frozen=True, kw_only=True)
class FeatureStore:
    """Features of the photographs of a set."""

    images: ImageSet
    detector: Detector
    store: Store
    _recent: Recent[int, Features] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        all_of_them = not self.store.keeps  # nothing else keeps them
        object.__setattr__(self, "_recent", Recent(self.images.num_images if all_of_them else _KEPT))

    def key(self, image: int) -> str:
        """Identifies the features of a photograph."""
        key = digest("features", self.images.contents[image], self.detector.digest)
        turns = 0 if self.images.quarter_turns is None else int(self.images.quarter_turns[image]) % 4
        return self.store.current("features", digest("turned features", key, turns) if turns else key)

    def features(self, image: int) -> Features:
        """Raises InputError if the photograph cannot be read."""
        return self._recent.get(image, lambda: self._made(image))

    def each(
        self, use: Callable[[Features], Output], description: str, progress: Progress, num_workers: int
    ) -> list[Output]:
        """What is made of the features of every photograph, in order; the features themselves are not kept."""
        workers = num_workers if self.detector.is_concurrent else 1
        self.fill(np.arange(self.images.num_images), description, progress)
        return map_stage(
            description, lambda image: use(self.features(image)), self.images.num_images, progress, workers
        )

    def fill(self, rows: Int[np.ndarray, "row"], description: str, progress: Progress) -> None:
        """Let the executor of the store find the keypoints of some photographs ahead."""
        work = Work(
            tool=FindFeatures(features=self),
            part=lambda chosen: rows[chosen].tolist(),
            is_done=lambda row: self.store.has("features", self.key(int(rows[row]))),
            name=lambda row: self.images.names[rows[row]],
            set_aside=lambda row: self._set_aside(int(rows[row])),
            needs_gpu=not self.detector.is_concurrent,
        )
        self.store.fill(description, work, len(rows), progress)

    def _set_aside(self, image: int) -> None:
        """Let a photograph have no keypoints in this run, with descriptors of the kind that others have."""
        found = (self.store.load("features", self.key(other)) for other in range(self.images.num_images))
        kind = next((Features(**arrays) for arrays in found if arrays is not None), None)
        nothing = Features(
            size_wh=self.images.size_wh[image],
            xy=np.zeros((0, 2), np.float32),
            descriptor=np.zeros((0, 128), np.uint8) if kind is None else kind.descriptor[:0],
            keypoint=np.zeros(0, np.int32),
            score=np.zeros(0, np.float32),
        )
        self.store.stand_in("features", self.key(image), vars(nothing))

    def _made(self, image: int) -> Features:
        key = self.key(image)
        stored = self.store.load("features", key)
        if stored is not None:
            return Features(**stored)
        features = _without_masked(self.detector.detect(self.images, image), self.images.mask_pixels(image))
        self.store.save("features", key, vars(features))
        return features


def _without_masked(features: Features, mask: Bool[np.ndarray, "h w"] | None) -> Features:
    """Features without keypoints in masked pixels."""
    if mask is None or not len(features.xy):
        return features
    keep = uses(mask, features.xy, features.size_wh)
    of_kept = keep[features.keypoint]
    return replace(
        features,
        xy=features.xy[keep],
        descriptor=features.descriptor[of_kept],
        keypoint=(np.cumsum(keep) - 1)[features.keypoint[of_kept]].astype(features.keypoint.dtype),
        score=features.score[of_kept],
    )


@dataclass(frozen=True, kw_only=True)
class MatchStore:
    """Matches between photographs of a `FeatureStore`."""

    features: FeatureStore
    matcher: Matcher
    _prepared: Recent[int, Any] = field(
        default_factory=lambda: Recent(_PREPARED), init=False, repr=False, compare=False
    )

    def key(self, i: int, j: int) -> str:
        """Identifies the matches of a pair."""
        key = digest("feature matches", self.features.key(i), self.features.key(j), self.matcher.digest)
        return self.features.store.current("feature-matches", key)

    def matches(self, i: int, j: int) -> FeatureMatches:
        """Those of a pair. Raises InputError if the matcher cannot compare these features."""
        store, key = self.features.store, self.key(i, j)
        stored = store.load("feature-matches", key)
        if stored is not None:
            return FeatureMatches(**stored)
        found = self.matcher.match(self._prepare(i), self._prepare(j))
        store.save("feature-matches", key, vars(found))
        return found

    def match_all(self, pairs: Int[np.ndarray, "pair 2"], progress: Progress, num_workers: int) -> list[FeatureMatches]:
        """Matches of every pair, in order. Pairs of the same photographs are matched one soon after the other."""
        order = neighbouring(pairs, self.features.images.num_images)
        self.fill(MatchPairs(matches=self), pairs[order], progress, self._is_matched)
        if isinstance(self.matcher, BatchMatcher) and self.matcher.batch_size > 1:
            found = self._match_batches(self.matcher, pairs[order], progress)
        else:

            def work(row: int) -> FeatureMatches:
                i, j = pairs[order[row]].tolist()
                return self.matches(i, j)

            found = map_stage("matching pairs", work, len(pairs), progress, self.num_workers(num_workers))
        return [found[row] for row in np.argsort(order)]

    def _match_batches(
        self, matcher: BatchMatcher, pairs: Int[np.ndarray, "pair 2"], progress: Progress
    ) -> list[FeatureMatches]:
        """Pairs that are not in the cache wait until there are enough of a kind for a batch."""
        found: list[FeatureMatches | None] = [None] * len(pairs)
        waiting: dict[Hashable, list[tuple[int, Any, Any]]] = {}
        store = self.features.store
        with progress.stage("matching pairs", len(pairs)) as advance:

            def match(batch: list[tuple[int, Any, Any]]) -> None:
                matched = matcher.match_batch([(i, j) for _, i, j in batch])
                for (row, _, _), made in zip(batch, matched, strict=True):
                    store.save("feature-matches", self.key(*pairs[row].tolist()), vars(made))
                    found[row] = made
                advance(len(batch))

            for row, (i, j) in enumerate(pairs.tolist()):
                stored = store.load("feature-matches", self.key(i, j))
                if stored is not None:
                    found[row] = FeatureMatches(**stored)
                    advance(1)
                    continue
                ready = self._prepare(i), self._prepare(j)
                key = matcher.batch_key(*ready)
                waiting.setdefault(key, []).append((row, *ready))
                if len(waiting[key]) == matcher.batch_size:
                    match(waiting.pop(key))
            for batch in waiting.values():
                match(batch)
        return [matches for matches in found if matches is not None]

    def fill(
        self,
        tool: Tool[Int[np.ndarray, "pair 2"]],
        pairs: Int[np.ndarray, "pair 2"],
        progress: Progress,
        is_done: Callable[[int, int], bool],
    ) -> None:
        """Let the executor of the store match pairs ahead, in an order in which those of an image are near each other.

        `tool`: makes the entries; `is_done`: whether those of a pair are there.
        """
        names = self.features.images.names
        work = Work(
            tool=tool,
            part=lambda rows: pairs[rows],
            is_done=lambda row: is_done(*pairs[row].tolist()),
            name=lambda row: " - ".join(names[image] for image in pairs[row]),
            set_aside=lambda row: self._set_aside(*pairs[row].tolist()),
            needs_gpu=not self.matcher.is_concurrent,
        )
        self.features.store.fill("matching pairs", work, len(pairs), progress)

    def _is_matched(self, i: int, j: int) -> bool:
        return self.features.store.has("feature-matches", self.key(i, j))

    def _set_aside(self, i: int, j: int) -> None:
        self.features.store.stand_in("feature-matches", self.key(i, j), vars(FeatureMatches.empty()))

    def num_workers(self, wanted: int) -> int:
        """How many threads may match, of those that one would like."""
        return wanted if self.matcher.is_concurrent else 1

    def _prepare(self, image: int) -> Any:
        return self._prepared.get(image, lambda: self.matcher.prepare(self.features.features(image)))


@dataclass(frozen=True, kw_only=True)
class FindFeatures:
    """Finds the keypoints of photographs for the store."""

    features: FeatureStore

    @property
    def store(self) -> Store:
        return self.features.store

    def __call__(self, part: list[int]) -> None:
        """Raises InputError if a photograph cannot be read."""
        with single_threaded_libraries():
            for image in part:
                self.features.features(image)


@dataclass(frozen=True, kw_only=True)
class MatchPairs:
    """Matches pairs of photographs for the store."""

    matches: MatchStore

    @property
    def store(self) -> Store:
        return self.matches.features.store

    def __call__(self, part: Int[np.ndarray, "pair 2"]) -> None:
        """Raises InputError if the matcher cannot compare the features."""
        with single_threaded_libraries():
            self.matches.match_all(part, SILENT, 1)


def neighbouring(pairs: Int[np.ndarray, "pair 2"], num_images: int) -> Int[np.ndarray, "pair"]:
    """Pairs in an order in which those of an image are near each other: a few prepared ones in memory are then enough,
    whatever the names."""
    place = np.argsort(near_each_other(num_images, pairs))[pairs]
    return np.lexsort((place.min(axis=1), place.max(axis=1)))
