"""The pairs of a large set, found by looking at photographs: similarity, orders, positions, expansion in rounds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from anchorsfm.features.store import FeatureStore, MatchStore, neighbouring
from anchorsfm.features.verification import VerificationStore, Verified, verify
from anchorsfm.geometry.centred import centred
from anchorsfm.geometry.links import connected_groups
from anchorsfm.io.store import Store
from anchorsfm.io.workers import map_stage, single_threaded_libraries
from anchorsfm.pairing.config import Auto
from anchorsfm.pairing.expansion import TriedPairs, expand
from anchorsfm.pairing.sequence import nearest, neighbours
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.pairs import PairList, PairSearch
from anchorsfm.scene.progress import SILENT, Progress

MIN_PAIRS = 5
"""Pairs of an image, those added that failed: they may verify once the lens is known, and reports say how far off they
are."""
MIN_PAIRS_OF_NETWORK = 10
"""The same for front ends that match what keypoints do not."""
MIN_PAIRS_OF_SECOND = 8
"""The same where a second method looks at some of those that failed."""
MIN_BETWEEN = 10
"""Failed pairs that it may look at between a group of connected photographs and the others."""
SURE = 100
"""Verified matches from which on two photographs show the same scene."""


@dataclass(frozen=True, kw_only=True)
class SelectedPairs:
    """The pairs that a front end looks at."""

    pairs: PairList
    search: PairSearch | None = None
    """None: a scene graph says which."""
    scene: Int[np.ndarray, "image"] | None = None
    """Number of the scene that each photograph shows, as far as well matching pairs tell; None: nobody looked."""


@dataclass(frozen=True, kw_only=True)
class PairChecker:
    """Matches keypoints of pairs and verifies them; the results stay in the store for the front end."""

    verification: VerificationStore[MatchStore]
    progress: Progress
    num_workers: int

    @property
    def features(self) -> FeatureStore:
        return self.verification.matches.features

    def checker(self) -> Callable[[Int[np.ndarray, "pair 2"]], Int[np.ndarray, "pair"]]:
        """A function that gives the numbers of verified matches of pairs."""
        matches = self.verification.matches
        points = self.features.each(lambda features: features.xy, "finding keypoints", self.progress, self.num_workers)

        def check(pairs: Int[np.ndarray, "pair 2"]) -> Int[np.ndarray, "pair"]:
            tool = CheckPairs(verification=self.verification)
            matches.fill(tool, pairs[neighbouring(pairs, len(points))], self.progress, self._is_checked)
            candidates = matches.match_all(pairs, self.progress, self.num_workers)

            def count(row: int) -> int:
                i, j = pairs[row].tolist()
                return len(verified(self.verification, i, j, candidates[row].keypoint, points[i], points[j]).keypoint)

            return np.array(map_stage("verifying pairs", count, len(pairs), self.progress, self.num_workers), np.int64)

        return check

    def _is_checked(self, i: int, j: int) -> bool:
        return self.features.store.has("verified-matches", self.verification.key(i, j, np.zeros((2, 2))))


@dataclass(frozen=True, kw_only=True)
class CheckPairs:
    """Matches and verifies pairs of photographs for the store."""

    verification: VerificationStore[MatchStore]

    @property
    def store(self) -> Store:
        return self.verification.matches.features.store

    def __call__(self, part: Int[np.ndarray, "pair 2"]) -> None:
        """Raises InputError if the matcher cannot compare the features."""
        matches = self.verification.matches
        with single_threaded_libraries():
            for (i, j), found in zip(part.tolist(), matches.match_all(part, SILENT, 1), strict=True):
                xy_i, xy_j = (matches.features.features(image).xy for image in (i, j))
                verified(self.verification, i, j, found.keypoint, xy_i, xy_j)


def verified(
    verification: VerificationStore[MatchStore],
    i: int,
    j: int,
    keypoint: Int[np.ndarray, "match 2"],
    xy_i: Float[np.ndarray, "keypoint_i 2"],
    xy_j: Float[np.ndarray, "keypoint_j 2"],
) -> Verified:
    """Verified matches of a pair before any lens is known, from its matches and the keypoints of both photographs."""
    images, config = verification.matches.features.images, verification.config
    ends = centred(images, i, xy_i[keypoint[:, 0]]), centred(images, j, xy_j[keypoint[:, 1]])
    return verification.verified(i, j, lambda: verify(*ends, keypoint, config))


def search_pairs(
    similarity: Float[np.ndarray, "image image"],
    checker: PairChecker,
    config: Auto,
    *,
    allowed: Bool[np.ndarray, "image image"] | None,
    for_network: bool,
    for_second: bool = False,
) -> SelectedPairs:
    """Pairs that keypoints verify, and some by similarity for images that have too few.

    Args:
        similarity: larger is more alike.
        checker: looks at pairs.
        config: how many.
        allowed: pairs that may be looked at.
        for_network: the front end may match what keypoints do not.
        for_second: a second method may match what these keypoints do not; then the best pairs that failed between
            groups of photographs which no verified pair connects are among them.

    Raises InputError if a photograph cannot be read.
    """
    nearby = _likely(checker.features.images, similarity)
    tried = expand(similarity, checker.checker(), config, neighbours=nearby, allowed=allowed)
    matched = tried.index[tried.verified > 0]
    if for_network:
        index = with_fewest(matched, _most_similar(similarity, allowed), MIN_PAIRS_OF_NETWORK)
    else:
        failed = _failed(tried, similarity)
        index = with_fewest(matched, failed, MIN_PAIRS_OF_SECOND if for_second else MIN_PAIRS)
        if for_second:
            apart = _apart(matched, failed, len(similarity))
            index = np.unique(np.concatenate([index, apart]), axis=0)
    return SelectedPairs(
        pairs=PairList(index=index),
        search=PairSearch(tried=len(tried.index), verified=len(matched), rounds=tried.rounds),
        scene=_scenes(tried, checker.features.images.num_images),
    )


def _scenes(tried: TriedPairs, num_images: int) -> Int[np.ndarray, "image"]:
    """Photographs that pairs with many matches connect: chance joins no two scenes with so many."""
    return connected_groups(num_images, tried.index[tried.verified >= SURE])


def _likely(images: ImageSet, similarity: Float[np.ndarray, "image image"]) -> Int[np.ndarray, "pair 2"]:
    """Pairs that what is known of photographs beside their pixels proposes: names, times and positions, where
    neighbours in them are alike.

    Names of a folder count by themselves too: frames of a video are in order, whatever lies beside them.
    """
    orders = [np.arange(images.num_images), *_in_folders(images.names)]
    if images.taken_s is not None:
        by_time = np.argsort(images.taken_s, kind="stable")
        orders.append(by_time[np.isfinite(images.taken_s[by_time])])
    near = [] if images.geo is None else [nearest(similarity, images.geo.enu_m)]
    return np.concatenate([*near, *(neighbours(similarity, order) for order in orders)])


def _in_folders(names: Sequence[str]) -> list[Int[np.ndarray, "_"]]:
    """The photographs of each folder, in order; none if all are in one."""
    folder = np.unique([name.rpartition("/")[0] for name in names], return_inverse=True)[1].reshape(-1)
    return [np.flatnonzero(folder == row) for row in range(folder.max(initial=0) + 1)] if folder.any() else []


def with_fewest(
    pairs: Int[np.ndarray, "pair 2"], others: Int[np.ndarray, "other 2"], fewest: int
) -> Int[np.ndarray, "all 2"]:
    """Pairs, and others (best first) for images that are in fewer than `fewest`; i < j, sorted, each once."""
    chosen = {(int(i), int(j)) for i, j in pairs}
    count = np.bincount(pairs.reshape(-1), minlength=int(others.max(initial=-1)) + 1)
    for i, j in others.tolist():
        if (i, j) not in chosen and min(count[i], count[j]) < fewest:
            chosen.add((i, j))
            count[[i, j]] += 1
    return np.array(sorted(chosen), np.int64).reshape(-1, 2)


def _failed(tried: TriedPairs, similarity: Float[np.ndarray, "image image"]) -> Int[np.ndarray, "pair 2"]:
    """Tried pairs that did not verify, the most similar first."""
    index = tried.index[tried.verified == 0]
    return index[np.argsort(-similarity[index[:, 0], index[:, 1]], kind="stable")]


def _apart(matched: Int[np.ndarray, "pair 2"], failed: Int[np.ndarray, "failed 2"], num_images: int) -> np.ndarray:
    """Failed pairs (best first) between photographs that matched pairs do not connect, `MIN_BETWEEN` of each group."""
    group = connected_groups(num_images, matched)
    count = np.zeros(num_images, np.int64)
    chosen = []
    for i, j in failed.tolist():
        ends = [group[i], group[j]]
        if ends[0] != ends[1] and count[ends].min() < MIN_BETWEEN:
            chosen.append((i, j))
            count[ends] += 1
    return np.array(chosen, np.int64).reshape(-1, 2)


def _most_similar(
    similarity: Float[np.ndarray, "image image"], allowed: Bool[np.ndarray, "image image"] | None
) -> Int[np.ndarray, "pair 2"]:
    """The most similar others of every image, the most similar pairs first."""
    masked = np.where(np.eye(len(similarity), dtype=bool), -np.inf, similarity)
    if allowed is not None:
        masked[~allowed] = -np.inf
    nearest = np.argsort(-masked, axis=1, kind="stable")[:, :MIN_PAIRS_OF_NETWORK]
    pairs = np.stack([np.repeat(np.arange(len(masked)), nearest.shape[1]), nearest.reshape(-1)], axis=1)
    value = masked[pairs[:, 0], pairs[:, 1]]
    order = np.argsort(-value, kind="stable")
    return np.sort(pairs[order[np.isfinite(value[order])]], axis=1)
