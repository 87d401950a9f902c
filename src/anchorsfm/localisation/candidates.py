"""Which images of a model a photograph may show, and which of their points it sees."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int

from anchorsfm.features.base import Features
from anchorsfm.features.one_to_one import one_to_one
from anchorsfm.features.ratio_test import DescriptorIndex, RatioTestMatcher
from anchorsfm.localisation.index import ModelIndex

_STRONGEST_OF_PHOTOGRAPH, _STRONGEST_OF_IMAGE = 500, 200
"""Descriptors that are compared to find out which images look alike: those of the largest image structures."""
_SHORT_LIST, _FEW_OF_PHOTOGRAPH, _FEW_OF_IMAGE = 100, 250, 100
"""Of models with more images as many are compared so: those that look likest by fewer descriptors."""
_FIRST = 6
"""Images that a photograph is compared with at first: their points are enough as a rule."""
_FEWEST, _MANY = 2, 1000
"""Fewest of these that are enough where they give as many points."""
_AT_ONCE = 64
"""Images whose similarity is computed together."""


@dataclass(frozen=True, kw_only=True)
class PointMatches:
    """Keypoints of a photograph and points of the model that look the same; each occurs at most once."""

    xy: Float[np.ndarray, "match 2"]
    """Of the keypoints, original pixels."""
    point: Int[np.ndarray, "match"]


@dataclass(frozen=True, kw_only=True)
class PointFinder:
    """Compares photographs with the images of a model."""

    index: ModelIndex
    max_candidates: int
    _matcher: RatioTestMatcher = field(init=False, repr=False)
    _prepared: dict[int, DescriptorIndex] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_matcher", RatioTestMatcher(self.index.settings.matching))

    def first(self, features: Features, enough: int) -> Iterator[PointMatches]:
        """Points that a photograph shows by the few images that look most like it, where these are `enough`."""
        pairs, scores, candidates = [], [], self.candidates(features)[:_FIRST].tolist()
        many: float = max(enough, _MANY)
        for rank, (some, score) in enumerate(self._compared(features, candidates), start=1):
            pairs.append(some)
            scores.append(score)
            needed = enough if rank == len(candidates) else many
            if rank < min(_FEWEST, len(candidates)) or sum(map(len, pairs)) < needed:
                continue
            found = _one_to_one(features, pairs, scores)
            if len(found.point) >= needed:
                yield found
                many = np.inf

    def all(self, features: Features) -> PointMatches:
        """Points that a photograph shows by all candidates."""
        found = list(self._compared(features, self.candidates(features).tolist()))
        return _one_to_one(features, [some for some, _ in found], [score for _, score in found])

    def _compared(
        self, features: Features, views: list[int]
    ) -> Iterator[tuple[Int[np.ndarray, "_ 2"], Float[np.ndarray, "_"]]]:
        """Of one view after the other (point, keypoint) that look the same, and how sure that is.

        Descriptors of the points are compared with all of the photograph's: the ratio test then knows everything that
        the photograph shows, not only what became a point.
        """
        if len(features.descriptor) < 2:
            return
        photograph = self._matcher.prepare(features)
        for view in views:
            found = self._matcher.match(self._image(view), photograph)
            yield found.keypoint.astype(np.int64), found.score.astype(float)

    def candidates(self, features: Features) -> Int[np.ndarray, "candidate"]:
        """Views of the model that look most like a photograph, the likest first."""
        if self.index.num_views <= min(_FIRST, self.max_candidates):
            return np.arange(self.index.num_views)
        order = np.argsort(-features.score, kind="stable")
        strongest = _unit(features.descriptor[order[:_STRONGEST_OF_PHOTOGRAPH]])
        views = np.arange(self.index.num_views)
        if len(views) > max(_SHORT_LIST, self.max_candidates):
            votes = _votes(strongest[:_FEW_OF_PHOTOGRAPH], self.index, views, _FEW_OF_IMAGE)
            views = np.sort(np.argsort(-votes, kind="stable")[: max(_SHORT_LIST, self.max_candidates)])
        votes = _votes(strongest, self.index, views, _STRONGEST_OF_IMAGE)
        return views[np.argsort(-votes, kind="stable")[: self.max_candidates]]

    def _image(self, view: int) -> DescriptorIndex:
        """The descriptors of an image with the points as its keypoints."""
        if view not in self._prepared:
            rows = self.index.rows(view)
            descriptor = self.index.descriptor[rows]
            self._prepared[view] = self._matcher.prepare(
                Features(
                    size_wh=np.zeros(2, np.int64),
                    xy=np.zeros((0, 2)),
                    descriptor=descriptor,
                    keypoint=self.index.point[rows],
                    score=np.zeros(len(descriptor), np.float32),
                )
            )
        return self._prepared[view]


def _one_to_one(
    features: Features, pairs: list[Int[np.ndarray, "_ 2"]], scores: list[Float[np.ndarray, "_"]]
) -> PointMatches:
    """Of (point, keypoint) from several images those that agree best; what more images say is worth more."""
    pair, group = np.unique(np.concatenate([np.zeros((0, 2), np.int64), *pairs]), axis=0, return_inverse=True)
    total = np.bincount(group.reshape(-1), np.concatenate([np.zeros(0), *scores]), len(pair)).astype(float)
    point, keypoint = one_to_one(pair, total).keypoint.astype(np.int64).T
    return PointMatches(xy=features.xy[keypoint].astype(float), point=point)


def _votes(
    photograph: Float[torch.Tensor, "descriptor 128"], index: ModelIndex, views: Int[np.ndarray, "view"], count: int
) -> Float[np.ndarray, "view"]:
    """How much each view looks like a photograph, by the first `count` descriptors of its image."""
    best = np.zeros((len(photograph), len(views)), np.float32)
    for first in range(0, len(views), _AT_ONCE):
        some = views[first : first + _AT_ONCE].tolist()
        parts = [index.descriptor[index.rows(view)][:count] for view in some]
        ends = np.cumsum([0, *map(len, parts)])
        cosine = photograph @ _unit(np.concatenate(parts)).T
        for column, (low, high) in enumerate(pairwise(ends), start=first):
            if high > low:
                best[:, column] = cosine[:, low:high].amax(1).numpy()
    # what a descriptor has in common with most images says nothing about any of them
    return np.maximum(best - np.median(best, axis=1, keepdims=True), 0).sum(axis=0)


def _unit(descriptor: np.ndarray) -> Float[torch.Tensor, "descriptor 128"]:
    return torch.nn.functional.normalize(torch.from_numpy(np.ascontiguousarray(descriptor)).float(), dim=1)
