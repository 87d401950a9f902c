"""A second detector and matcher where the first ones found too little: on which pairs, and what comes of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from anchorsfm.features.base import FeatureMatches
from anchorsfm.features.config import DetectorName
from anchorsfm.features.joint import JointMatchStore, joined
from anchorsfm.features.methods import make_detector, make_matcher
from anchorsfm.features.same_points import once_each, same_points
from anchorsfm.features.store import FeatureStore, MatchStore
from anchorsfm.features.verification import verify
from anchorsfm.frontend.classical.config import ClassicalConfig
from anchorsfm.frontend.classical.two_view import RelativePose
from anchorsfm.geometry.centred import centred
from anchorsfm.geometry.quarter_turns import turned_size_wh, turned_xy
from anchorsfm.io.pictures import working_size_wh
from anchorsfm.io.workers import map_stage
from anchorsfm.pairing.quarter_turns import quarter_turns, turn_between
from anchorsfm.pairing.reinforce import Reinforcement
from anchorsfm.pairing.retrieval import image_similarity
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.progress import Progress

SAME_POINT_PX = 1.0
"""Keypoints of two methods within this distance at both ends of a match are one point, in pixels of the size that
photographs are looked at in: about the error of the coarser method."""

CLEARLY_MORE = 2
"""Times as many matches that a picture has when it is turned as it should be."""
KEYPOINT_COST: Mapping[DetectorName, float] = {"aliked": 1.1, "disk": 3.0, "xfeat": 0.1}
"""Time that a network takes to find the keypoints of a picture over that of its matcher for a pair, as measured at 1024
pixels on a processor. Other methods cost little beside what all photographs have cost already."""


@dataclass(frozen=True, kw_only=True)
class Helped:
    """Keypoints of a set and the verified matches of its pairs, whichever method found them."""

    xy: tuple[Float[np.ndarray, "_ 2"], ...]
    """Original pixels: those of the first method, then those of the second."""
    num_first: tuple[int, ...]
    """How many of each image are the first method's."""
    keypoint: tuple[Int[np.ndarray, "_ 2"], ...]
    """Verified matches of every pair: rows of the keypoints, each physical point once."""
    looked_at: Bool[np.ndarray, "pair"]
    """Pairs that both methods matched."""

    @staticmethod
    def nothing(xy: tuple[Float[np.ndarray, "_ 2"], ...], keypoint: Sequence[Int[np.ndarray, "_ 2"]]) -> "Helped":
        """One method alone."""
        return Helped(
            xy=xy,
            num_first=tuple(map(len, xy)),
            keypoint=tuple(keypoint),
            looked_at=np.zeros(len(keypoint), bool),
        )

    def second_is_coarse(self, config: ClassicalConfig) -> bool:
        """Whether keypoints of the second method were used and are less exact: those of networks than those of SIFT."""
        return bool(self.looked_at.any()) and config.features.first_detector == "sift" != config.second_detector

    def methods(
        self, pairs: Int[np.ndarray, "pair 2"], poses: Sequence[RelativePose], config: ClassicalConfig
    ) -> tuple[tuple[str, ...], ...]:
        """Names of the detectors whose keypoints the poses rest on, for pairs that both matched."""
        names = []
        for (i, j), pose, both in zip(pairs.tolist(), poses, self.looked_at.tolist(), strict=True):
            second = (pose.keypoint >= (self.num_first[i], self.num_first[j])).any(axis=1)
            found = ((config.features.first_detector, ~second), (config.second_detector, second))
            names.append(tuple(name for name, of in found if name and both and of.any()))
        return tuple(names)


def _stored_xy(images: ImageSet, image: int, xy: Float[np.ndarray, "point 2"]) -> Float[np.ndarray, "point 2"]:
    """Where points of a picture that is read turned are in it as it is stored."""
    if images.quarter_turns is None or not images.quarter_turns[image]:
        return xy
    size_wh, turns = images.size_wh[[image] * len(xy)], np.full(len(xy), -images.quarter_turns[image])
    return turned_xy(xy, size_wh, turns)


def second_store(config: ClassicalConfig, first: MatchStore, progress: Progress) -> MatchStore:
    """Features and matches of the second method for the photographs of the first.

    Raises InputError if they are made by a network that cannot be had here.
    """
    of, wanted = first.features, config.second_features(first.features.images.num_images)
    detector = make_detector(wanted, config.networks, progress)
    matcher = make_matcher(config.second_matching, wanted.first_detector, config.networks, progress)
    return MatchStore(features=FeatureStore(images=of.images, detector=detector, store=of.store), matcher=matcher)


class SecondMethod:
    """The second method at work: chosen pairs are looked at in rounds, until nobody asks for more."""

    def __init__(
        self,
        first: MatchStore,
        config: ClassicalConfig,
        images: ImageSet,
        pairs: Int[np.ndarray, "pair 2"],
        xy: tuple[Float[np.ndarray, "_ 2"], ...],
        candidates: Sequence[Int[np.ndarray, "_ 2"]],
        progress: Progress,
    ) -> None:
        """`xy`: keypoints of the first method; `candidates`: its matches of every pair, before verification."""
        self.xy = list(xy)
        """Keypoints of both methods, as far as the second was asked."""
        self.candidates = list(candidates)
        """Matches of both methods, before verification."""
        self.matches = JointMatchStore(first=first, second=second_store(config, first, progress), pairs=frozenset())
        self.new_images: list[int] = []
        """Images that got keypoints of the second method in this round."""
        self._config, self._images, self._pairs, self._progress = config, images, pairs, progress
        self._num_first = tuple(map(len, xy))
        self._by_first = tuple(candidates)
        self._seen: set[int] = set()
        self._tried_turned = False
        self._looked_at = np.zeros(len(pairs), bool)

    def choose(self, verified: Sequence[Int[np.ndarray, "_ 2"]]) -> None:
        """Learn the verified matches of all pairs by the first method: how many, and how pictures are turned."""
        self.matches = replace(self.matches, second=self._turned(verified))
        workers = self._config.workers.resolve()
        similarity = image_similarity(self.matches.features, self._progress, workers)
        self._before = np.array([len(keypoint) for keypoint in verified], np.int64)
        detector = self._config.second_detector
        cost = 0.0 if detector is None else KEYPOINT_COST.get(detector, 0.0)
        self._choice = Reinforcement(self._pairs, self._before, similarity, self._config.second, cost)
        self._after = self._before.copy()

    def look(self) -> Int[np.ndarray, "row"]:
        """Let the second method match the pairs of the next round; their rows. None: nobody asks for more."""
        rows = self._choice.next_rows()
        if not len(rows) and not self._tried_turned:
            self._tried_turned = True
            rows = self._turn_unrelated()
        if not len(rows):
            return rows
        second, workers = self.matches.second, self._config.workers.resolve()
        self.new_images = sorted(set(self._pairs[rows].reshape(-1).tolist()) - self._seen)
        self._seen.update(self.new_images)
        concurrent = workers if second.features.detector.is_concurrent else 1
        images = second.features.images
        description = f"finding keypoints with {self._config.second_detector}"
        second.features.fill(np.array(self.new_images, np.int64), description, self._progress)
        found = map_stage(
            description,
            lambda k: second.features.features(self.new_images[k]).xy,
            len(self.new_images),
            self._progress,
            concurrent,
        )
        for image, xy in zip(self.new_images, found, strict=True):
            back = _stored_xy(images, image, xy)
            self.xy[image] = np.concatenate([self.xy[image], back.astype(self.xy[image].dtype)])
        for row, matches in zip(rows.tolist(), self._matched(rows), strict=True):
            i, j = self._pairs[row].tolist()
            self.candidates[row] = joined(self.candidates[row], matches, (self._num_first[i], self._num_first[j]))
        self.matches = self.matches.with_pairs(self._pairs[rows])
        self._looked_at[rows] = True
        return rows

    def learn(self, rows: Int[np.ndarray, "row"], verified: Sequence[int]) -> None:
        """Take down how many verified matches pairs have by both methods."""
        self._after[rows] = verified
        self._choice.learn(rows, np.array(verified, np.int64))

    def finish(self, keypoint: Sequence[Int[np.ndarray, "_ 2"]]) -> Helped:
        """What verification left, with points that both methods found made one."""
        stands = same_points(self.xy, self._num_first, self._radius_px(), self._pairs, keypoint)
        out = list(keypoint)
        for row in np.flatnonzero(self._looked_at).tolist():
            i, j = self._pairs[row].tolist()
            united = np.stack([stands[i][out[row][:, 0]], stands[j][out[row][:, 1]]], axis=1).astype(out[row].dtype)
            out[row] = united[once_each(united)]
        self._say()
        return Helped(
            xy=tuple(self.xy), num_first=self._num_first, keypoint=tuple(out), looked_at=self._looked_at.copy()
        )

    def _turned(self, verified: Sequence[Int[np.ndarray, "_ 2"]]) -> MatchStore:
        """The second method looking at pictures that stand alike, as far as matches of the first show how they do."""
        between = np.zeros(len(self._pairs))
        count = np.array([len(keypoint) for keypoint in verified], np.float64)
        for row in np.flatnonzero(count).tolist():
            i, j = self._pairs[row].tolist()
            between[row] = turn_between(self.xy[i][verified[row][:, 0]], self.xy[j][verified[row][:, 1]])
        second, images = self.matches.second, self._images
        turns = quarter_turns(images.num_images, self._pairs, between, count)
        return self._standing(turns) if turns.any() else second

    def _standing(self, turns: Int[np.ndarray, "image"]) -> MatchStore:
        """The second method looking at turned pictures."""
        second, images = self.matches.second, self._images
        standing = replace(images, quarter_turns=turns, size_wh=turned_size_wh(images.size_wh, turns))
        return replace(second, features=replace(second.features, images=standing))

    def _turn_unrelated(self) -> Int[np.ndarray, "row"]:
        """Turn pictures that are related to no other to where the second method finds most; the pairs to look at again.

        It was trained on upright pictures, and nothing says how these stand. Each is tried with one other.
        """
        turned, again = [], []
        unrelated = [(image, row) for image, row in self._choice.unrelated() if self._choice.pay(3, 3)]
        for image, row in unrelated:
            i, j = self._pairs[row].tolist()
            before = self.matches.second.features.images.quarter_turns
            turns = np.zeros(self._images.num_images, np.int64) if before is None else before
            found = []
            for turn in range(4):
                trial = np.where(np.arange(len(turns)) == image, (turns + turn) % 4, turns)
                found.append((self._num_verified(self._standing(trial), i, j), turn, trial))
            count, turn, trial = max(found, key=lambda entry: (entry[0], -entry[1]))
            if turn and count > CLEARLY_MORE * found[0][0]:
                self.matches = replace(self.matches, second=self._standing(trial))
                turned.append(image)
                again.append(row)
        if not turned:
            return np.zeros(0, np.int64)
        again += np.flatnonzero(self._looked_at & np.isin(self._pairs, turned).any(axis=1)).tolist()
        rows = np.unique(again)
        for image in turned:
            self.xy[image] = self.xy[image][: self._num_first[image]]
        for row in rows.tolist():
            self.candidates[row] = self._by_first[row]
        self._seen -= set(turned)
        self._progress.note(f"{len(turned)} of the photographs match others only when turned by 90, 180 or 270 degrees")
        return rows

    def _num_verified(self, second: MatchStore, i: int, j: int) -> int:
        """Matches of a pair by the second method alone that agree with one geometry."""
        images, matches = second.features.images, second.matches(i, j).keypoint
        xy_i, xy_j = (
            centred(images, image, second.features.features(image).xy[matches[:, end]])
            for end, image in enumerate((i, j))
        )
        return len(verify(xy_i, xy_j, matches, self._config.matching).keypoint)

    def _matched(self, rows: Int[np.ndarray, "row"]) -> list[FeatureMatches]:
        return self.matches.second.match_all(self._pairs[rows], self._progress, self._config.workers.resolve())

    def _radius_px(self) -> Float[np.ndarray, "image"]:
        """Original pixels within which keypoints of both methods are one point."""
        size_wh = self._images.size_wh
        working = working_size_wh(size_wh, self._config.features.max_image_size or int(size_wh.max()))
        return np.asarray(SAME_POINT_PX * size_wh.max(axis=1) / working.max(axis=1))

    def _say(self) -> None:
        looked = int(self._looked_at.sum())
        new = int(((self._before == 0) & (self._after > 0)).sum())
        more = int(((self._before > 0) & (self._after > self._before)).sum())
        self._progress.note(
            f"{self._config.second_detector}: looked at {looked} of {len(self._pairs)} pairs, {len(self._seen)} "
            f"photographs, {self._choice.spent:.3g} of a budget of {self._choice.budget:.3g}: {new} newly matched, "
            f"{more} with more matches"
        )
