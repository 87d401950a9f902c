"""Two detectors in one run: one list of keypoints, points found twice made one, and which pairs the second looks at."""

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from anchorsfm.features import methods
from anchorsfm.features.base import FeatureMatches, Features
from anchorsfm.features.config import DescriptorMatchingConfig, FeatureConfig, MatchingConfig
from anchorsfm.features.joint import joined
from anchorsfm.features.methods import make_detector
from anchorsfm.features.ratio_test import RatioTestMatcher
from anchorsfm.features.same_points import once_each, same_points
from anchorsfm.features.sift import SiftDetector
from anchorsfm.frontend.classical import ClassicalFrontend
from anchorsfm.frontend.classical.config import DenseConfig, SecondMethodConfig, WorkerConfig
from anchorsfm.io.images import load_image_set
from anchorsfm.io.pictures import load_grey
from anchorsfm.io.store import Store
from anchorsfm.pairing import make_pairs
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.progress import SILENT
from said import Said

SECOND = 3000
"""Keypoints by which the tests tell the second method's settings."""


@dataclass(frozen=True)
class Orb:
    """Another kind of detector: binary descriptors."""

    digest: str = "orb"
    is_concurrent: bool = True
    licence: None = None

    def detect(self, images: ImageSet, image: int) -> Features:
        found, descriptor = cv2.ORB_create(1500, fastThreshold=5).detectAndCompute(load_grey(images, image), None)
        xy = np.array([k.pt for k in found]).reshape(-1, 2) + 0.5
        xy, first = np.unique(xy, axis=0, return_index=True)
        return Features(
            size_wh=images.size_wh[image],
            xy=xy,
            descriptor=np.unpackbits(descriptor[first], axis=1).astype(np.float32),
            keypoint=np.arange(len(xy), dtype=np.int32),
            score=np.array([found[k].response for k in first], np.float32),
        )


@dataclass(frozen=True)
class Hamming:
    """Its matcher: mutual nearest neighbours, clearly nearer than the second."""

    digest: str = "hamming"
    is_concurrent: bool = True
    licence: None = None

    def prepare(self, features: Features) -> Features:
        return features

    def match(self, i: Features, j: Features) -> FeatureMatches:
        a, b = i.descriptor, j.descriptor
        distance = a.sum(1)[:, None] + b.sum(1)[None] - 2 * a @ b.T
        best = distance.argmin(1)
        two = np.partition(distance, 1, axis=1)
        rows = np.flatnonzero((distance.argmin(0)[best] == np.arange(len(a))) & (two[:, 0] < 0.85 * two[:, 1]))
        keypoint = np.stack([rows, best[rows]], axis=1).astype(np.int32)
        return FeatureMatches(keypoint=keypoint, score=np.ones(len(rows), np.float32))


@pytest.fixture
def orb(monkeypatch: pytest.MonkeyPatch) -> SecondMethodConfig:
    """Settings of a second method of another kind."""

    def detector(config: FeatureConfig, *_: object) -> SiftDetector | Orb:
        return Orb() if config.max_keypoints == SECOND else SiftDetector(config)

    def matcher(config: DescriptorMatchingConfig, *_: object) -> RatioTestMatcher | Hamming:
        return Hamming() if config.max_ratio == DescriptorMatchingConfig().max_ratio else RatioTestMatcher(config)

    monkeypatch.setattr(methods, "DETECTORS", {"sift": detector})
    monkeypatch.setattr(methods, "MATCHERS", {"ratio-test": matcher})
    return SecondMethodConfig(detector="sift", max_keypoints=SECOND)


FIRST = MatchingConfig(max_ratio=0.84)
"""Of the first method, for the same reason."""


def _weak_sift() -> FeatureConfig:
    """Few keypoints, so that distant pairs remain unmatched."""
    return FeatureConfig(max_keypoints=220)


def test_a_second_method_adds_matches_where_the_first_is_weak(rendered: Path, tmp_path: Path, orb) -> None:
    images, pairs = load_image_set(rendered / "images"), make_pairs(5, "complete")
    base = ClassicalFrontend(
        features=_weak_sift(), matching=FIRST, dense=DenseConfig(enabled=False), workers=WorkerConfig(num_workers=1)
    )
    alone = base.open(images, pairs, Store(tmp_path), SILENT)
    notes = Said()
    both = replace(base, second=orb).open(images, pairs, Store(tmp_path), notes)
    assert both.digest != alone.digest
    before, after = ([len(p.keypoint_matches) for p in predictor] for predictor in (alone, both))
    assert sum(after) > 1.5 * sum(before) and all(b <= a + 5 for b, a in zip(before, after, strict=True))
    named = {p.methods for p in both}
    assert ("sift", "sift") in named, "the tests' second method goes by the same name"
    assert {p.methods for p in alone} == {()}
    assert len(notes.lines) == 1 and "looked at" in notes.lines[0] and "of 10 pairs" in notes.lines[0]
    for prediction in both:
        for xy in (prediction.keypoint_matches.xy_i, prediction.keypoint_matches.xy_j):
            assert len(np.unique(xy, axis=0)) == len(xy), "every keypoint is in one match of a pair at most"


def test_what_was_interrupted_goes_on_with_the_same_bits(rendered: Path, tmp_path: Path, orb, monkeypatch) -> None:
    images, pairs = load_image_set(rendered / "images"), make_pairs(5, "complete")
    config = ClassicalFrontend(
        features=_weak_sift(),
        matching=FIRST,
        second=orb,
        dense=DenseConfig(enabled=False),
        workers=WorkerConfig(num_workers=1),
    )
    whole = [p.keypoint_matches for p in config.open(images, pairs, Store(tmp_path / "a"), SILENT)]
    match, count = Hamming.match, [0]

    def killed(self: Hamming, i: Features, j: Features) -> FeatureMatches:
        count[0] += 1
        if count[0] == 3:
            raise KeyboardInterrupt
        return match(self, i, j)

    monkeypatch.setattr(Hamming, "match", killed)
    with pytest.raises(KeyboardInterrupt):
        config.open(images, pairs, Store(tmp_path / "b"), SILENT)
    asked = count[0]
    again = [p.keypoint_matches for p in config.open(images, pairs, Store(tmp_path / "b"), SILENT)]
    for one, other in zip(whole, again, strict=True):
        assert np.array_equal(one.xy_i, other.xy_i) and np.array_equal(one.xy_j, other.xy_j)
        assert np.array_equal(one.confidence, other.confidence)
    monkeypatch.setattr(Hamming, "match", match)
    assert count[0] > asked, "the interrupted pair and those after it were matched"
    count[0] = -100
    monkeypatch.setattr(Hamming, "match", killed)
    third = [p.keypoint_matches for p in config.open(images, pairs, Store(tmp_path / "b"), SILENT)]
    assert count[0] == -100 and np.array_equal(third[0].xy_i, whole[0].xy_i)


def test_without_a_second_method_nothing_changes(rendered: Path, orb) -> None:
    images, pairs = load_image_set(rendered / "images"), make_pairs(5, "swin-1-noncyclic")
    base = ClassicalFrontend(matching=FIRST, dense=DenseConfig(enabled=False), workers=WorkerConfig(num_workers=1))
    none = replace(base, second=replace(orb, pairs_per_image=0))
    alone, asked = (list(config.open(images, pairs, Store(None), SILENT)) for config in (base, none))
    for one, other in zip(alone, asked, strict=True):
        assert np.array_equal(one.keypoint_matches.xy_i, other.keypoint_matches.xy_i)


def test_points_that_both_methods_found_are_one() -> None:
    first = np.array([[10.0, 10], [50, 50], [90, 90]])
    second = np.array([[10.4, 10.3], [50.6, 49.8], [70, 20], [89.5, 90.2]])
    xy = [np.concatenate([first, second]), np.concatenate([first + 5, second + 5.2]), np.concatenate([first, second])]
    pairs = np.array([[0, 1], [1, 2]])
    by_both = np.array([[0, 0], [1, 1], [3, 3], [4, 4], [5, 5]])
    by_second = np.array([[3, 3], [6, 6]])
    stands = same_points(xy, [3, 3, 3], np.ones(3), pairs, [by_both, by_second])
    assert stands[0].tolist() == [0, 1, 2, 0, 1, 5, 6], "two were verified by both methods; the last one by none"
    assert stands[1].tolist() == [0, 1, 2, 0, 1, 5, 6]
    assert stands[2].tolist() == list(range(7)), "no pair says so"
    narrow = same_points(xy, [3, 3, 3], np.full(3, 0.1), pairs, [by_both, by_second])
    assert narrow[0].tolist() == list(range(7))


def test_both_ends_must_agree_to_be_one_point() -> None:
    first, second = np.array([[10.0, 10]]), np.array([[10.4, 10]])
    elsewhere = [np.concatenate([first, second]), np.concatenate([first, second + 3])]
    pairs, matches = np.array([[0, 1]]), [np.array([[0, 0], [1, 1]])]
    assert same_points(elsewhere, [1, 1], np.ones(2), pairs, matches)[0].tolist() == [0, 1]


def test_joined_matches_are_rows_of_joined_keypoints() -> None:
    found = FeatureMatches(keypoint=np.array([[0, 1], [2, 0]], np.int32), score=np.ones(2, np.float32))
    both = joined(np.array([[4, 4]], np.int32), found, (10, 20))
    assert both.tolist() == [[4, 4], [10, 21], [12, 20]] and both.dtype == np.int32
    assert once_each(np.array([[0, 0], [0, 1], [1, 1], [2, 1]])).tolist() == [True, False, True, False]


def test_the_second_method_sees_pictures_that_stand_alike(rendered: Path, tmp_path: Path, orb, monkeypatch) -> None:
    """As trained detectors need it; keypoints are those of the pictures as they are stored."""
    turns = np.array([0, 1, 0, 2, 0])
    for image, turn in enumerate(turns.tolist()):
        with Image.open(rendered / "images" / f"{image:04d}.jpg") as picture:
            turned = Image.fromarray(np.rot90(np.asarray(picture), turn))
        turned.save(tmp_path / f"{image}.png")
    read: dict[int, np.ndarray] = {}
    detect = Orb.detect

    def watched(self: Orb, images: ImageSet, image: int) -> Features:
        read[image] = load_grey(images, image)
        return detect(self, images, image)

    monkeypatch.setattr(Orb, "detect", watched)
    config = ClassicalFrontend(
        features=FeatureConfig(max_keypoints=500),
        matching=FIRST,
        second=replace(orb, pairs_per_image=9, budget=9),
        dense=DenseConfig(enabled=False),
        workers=WorkerConfig(num_workers=1),
    )
    images = load_image_set(tmp_path)
    predictions = list(config.open(images, make_pairs(5, "complete"), Store(None), SILENT))
    assert {grey.shape for grey in read.values()} == {(360, 480)} and len(read) == 5
    by_second = [p for p in predictions if p.methods]
    assert len(by_second) >= 4
    for p in by_second:
        for image, xy in ((p.i, p.keypoint_matches.xy_i), (p.j, p.keypoint_matches.xy_j)):
            assert (xy >= 0).all() and (xy <= images.size_wh[image]).all()


def test_auto_is_sift_with_aliked_for_weak_pairs() -> None:
    config = ClassicalFrontend(features=FeatureConfig(detector="auto"))
    assert config.features.first_detector == "sift" and config.second_detector == "aliked"
    few, many = config.second_features(3), config.second_features(6)
    assert few.detector == "aliked" and few.max_learned_keypoints == 2 * many.max_learned_keypoints == 4096
    assert config.has_second_method and config.uses_networks
    assert make_detector(config.features).digest == make_detector(FeatureConfig()).digest
    other = replace(config, second=SecondMethodConfig(detector="xfeat"))
    assert other.second_detector == "xfeat"
    alone = ClassicalFrontend()
    assert alone.second_detector is None and not alone.has_second_method and not alone.uses_networks
    with pytest.raises(InputError, match="cannot match keypoints of aliked"):
        ClassicalFrontend(features=FeatureConfig(detector="auto"), second=SecondMethodConfig(matcher="ratio-test"))


def test_a_photograph_that_nothing_relates_is_tried_turned(rendered: Path, tmp_path: Path, orb, monkeypatch) -> None:
    """By a second method that needs upright pictures."""
    for image in range(5):
        with Image.open(rendered / "images" / f"{image:04d}.jpg") as picture:
            turned = Image.fromarray(np.rot90(np.asarray(picture), 1 if image == 2 else 0))
        turned.save(tmp_path / f"{image}.png")

    def upright(self: Orb, images: ImageSet, image: int) -> Features:
        grey = load_grey(images, image)
        size_wh = np.array(grey.shape[::-1])
        xy = cv2.goodFeaturesToTrack(grey, 800, 0.01, 5).reshape(-1, 2)
        xy = np.unique(xy[(xy > 9).all(1) & (xy < size_wh - 10).all(1)], axis=0)
        patch = np.stack(
            [cv2.resize(cv2.getRectSubPix(grey, (17, 17), tuple(p)), (8, 8)).reshape(-1) for p in xy.tolist()]
        )
        signs = (patch > np.median(patch, axis=1, keepdims=True)).astype(np.float32)
        rows = np.arange(len(xy), dtype=np.int32)
        return Features(
            size_wh=images.size_wh[image],
            xy=xy + 0.5,
            descriptor=signs,
            keypoint=rows,
            score=np.ones(len(xy), np.float32),
        )

    first = SiftDetector.detect

    def blind(self: SiftDetector, images: ImageSet, image: int) -> Features:
        features = first(self, images, image)
        none = np.zeros(0, np.int32)
        if image != 2:
            return features
        return replace(
            features, xy=features.xy[:0], descriptor=features.descriptor[:0], keypoint=none, score=features.score[:0]
        )

    monkeypatch.setattr(SiftDetector, "detect", blind)
    monkeypatch.setattr(Orb, "detect", upright)
    config = ClassicalFrontend(
        features=FeatureConfig(max_keypoints=500),
        matching=FIRST,
        second=replace(orb, pairs_per_image=2),
        dense=DenseConfig(enabled=False),
        workers=WorkerConfig(num_workers=1),
    )
    images, notes = load_image_set(tmp_path), Said()
    predictions = list(config.open(images, make_pairs(5, "complete"), Store(None), notes))
    related = [p for p in predictions if 2 in (p.i, p.j) and len(p.keypoint_matches) > 60]
    assert len(related) >= 2
    assert any("1 of the photographs match others only when turned" in line for line in notes.lines)
    for p in related:
        xy = p.keypoint_matches.xy_i if p.i == 2 else p.keypoint_matches.xy_j
        assert (xy < images.size_wh[2]).all()
