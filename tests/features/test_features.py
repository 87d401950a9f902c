"""SIFT, the ratio test, and the store that any detector and matcher are put behind."""

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from anchorsfm.features import methods
from anchorsfm.features import ratio_test as matching
from anchorsfm.features.base import FeatureMatches, Features
from anchorsfm.features.config import DescriptorMatchingConfig, FeatureConfig
from anchorsfm.features.methods import make_detector, make_matcher
from anchorsfm.features.sift import detect
from anchorsfm.features.store import FeatureStore, MatchStore, neighbouring
from anchorsfm.frontend.classical import ClassicalFrontend
from anchorsfm.frontend.classical.config import DenseConfig, WorkerConfig
from anchorsfm.io.images import load_image_set
from anchorsfm.io.pictures import load_rgb
from anchorsfm.io.recent import Recent
from anchorsfm.io.store import Store
from anchorsfm.pairing import make_pairs
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.masks import ImageMask
from anchorsfm.scene.progress import SILENT
from classical_scene import View, render


def test_keypoints_are_in_colmap_pixels_and_follow_the_size():
    y, x = np.mgrid[:120, :160]
    blob = np.clip(40 + 150 * np.exp(-((x - 70) ** 2 + (y - 50) ** 2) / 50), 0, 255).astype(np.uint8)
    for factor in (1, 3):
        features = detect(blob, np.array([160, 120]) * factor, FeatureConfig())
        distance = np.linalg.norm(features.xy - np.array([70.5, 50.5]) * factor, axis=1)
        assert distance.min() < 0.1 * factor


def test_positions_are_unique_and_the_number_is_limited():
    grey, _ = render(View())
    everything, few = (detect(grey, np.array([360, 270]), FeatureConfig(max_keypoints=n)) for n in (10000, 150))
    assert len(np.unique(everything.xy, axis=0)) == len(everything.xy)
    assert len(everything.descriptor) > len(everything.xy), "some keypoints have two orientations"
    assert np.array_equal(np.unique(everything.keypoint), np.arange(len(everything.xy)))
    assert len(few.descriptor) == 150


def test_black_image_has_no_features():
    features = detect(np.zeros((90, 120), np.uint8), np.array([120, 90]), FeatureConfig())
    assert features.xy.shape == (0, 2)
    index = matching.build_index(features)
    assert matching.match(index, index, 0.8).keypoint.shape == (0, 2)


def _random_features(rng, descriptors):
    return Features(
        size_wh=np.array([100, 100]),
        score=np.ones(len(descriptors), np.float32),
        xy=rng.uniform(0, 100, (len(descriptors), 2)).astype(np.float32),
        descriptor=descriptors,
        keypoint=np.arange(len(descriptors), dtype=np.int32),
    )


def _descriptors(rng, num):
    raw = rng.exponential(size=(num, 128)) ** 2
    return np.clip(512 * np.sqrt(raw / raw.sum(1, keepdims=True)), 0, 255).astype(np.uint8)


def _brute_force(a, b, ratio):
    distance = np.linalg.norm(a[:, None].astype(float) - b[None].astype(float), axis=2)
    order = np.sort(distance, axis=1)
    best = distance.argmin(1)
    mutual = distance.argmin(0)[best] == np.arange(len(a))
    rows = np.flatnonzero(mutual & (order[:, 0] < ratio * order[:, 1]))
    return {(int(r), int(best[r])) for r in rows}


@pytest.mark.parametrize("num", [300, 5000])
def test_matches_equal_brute_force(num):
    rng = np.random.default_rng(0)
    a = _descriptors(rng, num)
    noisy = a[rng.permutation(num)[: num * 3 // 4]].astype(int) + rng.integers(-12, 13, (num * 3 // 4, 128))
    b = np.concatenate([np.clip(noisy, 0, 255).astype(np.uint8), _descriptors(rng, num // 4)])
    i, j = (matching.build_index(_random_features(rng, d)) for d in (a, b))
    found = {tuple(row) for row in matching.match(i, j, 0.85).keypoint.tolist()}
    halves = [np.rint(d / 2) for d in (a, b)]  # halves are rounded to even numbers
    expected = _brute_force(*halves, 0.85) if num < 1000 else None
    if expected is not None:
        assert found == expected
    else:
        assert len(i.cells) > 1, "the inverted file is exercised"
        assert len(found) > 0.97 * len(noisy)
    swapped = {(q, p) for p, q in matching.match(j, i, 0.85).keypoint.tolist()}
    assert len(found & swapped) > 0.97 * len(found)


def test_matches_do_not_depend_on_how_the_processor_multiplies(monkeypatch):
    rng = np.random.default_rng(3)
    a = _descriptors(rng, 5000)
    b = np.clip(a[::-1].astype(int) + rng.integers(-30, 31, a.shape), 0, 255).astype(np.uint8)
    i, j = (matching.build_index(_random_features(rng, d)) for d in (a, b))
    found = []
    for kind in (torch.int32, torch.float32):
        if kind == torch.int32 and not hasattr(torch, "_int_mm"):
            continue
        monkeypatch.setattr(matching, "_PRODUCT", kind)
        found.append(matching.match(i, j, 0.85))
    assert len(found[0].keypoint) > 1000
    for other in found[1:]:
        assert np.array_equal(other.keypoint, found[0].keypoint) and np.array_equal(other.score, found[0].score)


def test_a_keypoint_with_two_descriptors_is_matched_once():
    rng = np.random.default_rng(1)
    d = _descriptors(rng, 40)
    a = replace(_random_features(rng, d), xy=np.zeros((20, 2), np.float32), keypoint=np.arange(40, dtype=np.int32) // 2)
    b = _random_features(rng, d)  # both descriptors of a keypoint have a partner of their own
    found = matching.match(matching.build_index(a), matching.build_index(b), 0.85).keypoint
    assert len(found) == 20 and len(np.unique(found[:, 0])) == 20


def test_scores_say_how_sure_detector_and_matcher_are():
    grey, _ = render(View())
    features = detect(grey, np.array([360, 270]), FeatureConfig())
    assert (np.diff(features.score) <= 0).all() and features.score[-1] > 0, "the largest structures first"
    rng = np.random.default_rng(2)
    d = _descriptors(rng, 300)
    noisy = np.maximum(d[:150] + rng.normal(0, 20, (150, 128)), 0)
    noisy = np.clip(noisy * 512 / np.linalg.norm(noisy, axis=1, keepdims=True), 0, 255).astype(np.uint8)
    exact = matching.match(*(matching.build_index(_random_features(rng, d)) for _ in range(2)), 0.85)
    doubtful = matching.match(*(matching.build_index(_random_features(rng, x)) for x in (d, noisy)), 0.85)
    assert exact.score.mean() > 0.7 > 0.6 > doubtful.score.mean() and doubtful.score.min() >= 0.149


# --- the store, and methods of other kinds ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Corners:
    """A detector as learned ones are: reads colours, floating descriptors of another width, a score per keypoint."""

    digest: str = "corners"
    is_concurrent: bool = False
    licence: None = None

    def detect(self, images: ImageSet, image: int) -> Features:
        grey = cv2.cvtColor(load_rgb(images, image), cv2.COLOR_RGB2GRAY)
        xy = cv2.goodFeaturesToTrack(grey, 1500, 0.001, 4)[:, 0]
        patch = np.stack([cv2.getRectSubPix(grey, (15, 15), (float(x), float(y))) for x, y in xy])
        small = np.stack([cv2.resize(p, (8, 8), interpolation=cv2.INTER_AREA) for p in patch]).reshape(-1, 64)
        centred = small - small.mean(axis=1, keepdims=True, dtype=np.float32)
        order = np.lexsort((xy[:, 1], xy[:, 0]))
        return Features(
            size_wh=images.size_wh[image],
            xy=(xy + 0.5)[order],
            descriptor=(centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6))[order],
            keypoint=np.arange(len(xy), dtype=np.int32),
            score=np.linspace(1, 0, len(xy), dtype=np.float32)[order],
        )


@dataclass(frozen=True)
class NearestNearby:
    """A matcher as learned ones are: looks at positions relative to the size of the photographs too."""

    digest: str = "nearest nearby"
    is_concurrent: bool = False
    licence: None = None

    def prepare(self, features: Features) -> Features:
        return replace(features, xy=features.xy / features.size_wh.max())

    def match(self, i: Features, j: Features) -> FeatureMatches:
        near = np.linalg.norm(i.xy[:, None] - j.xy[None], axis=2) < 0.3
        cosine = np.where(near, i.descriptor @ j.descriptor.T, -1)
        best = cosine.argmax(axis=1)
        rows = np.flatnonzero((cosine.argmax(axis=0)[best] == np.arange(len(best))) & (cosine.max(axis=1) > 0.8))
        keypoint = np.stack([rows, best[rows]], axis=1).astype(np.int32)
        return FeatureMatches(keypoint=keypoint, score=cosine[rows, best[rows]].astype(np.float32))


def test_methods_of_another_kind_are_a_line_in_a_table(rendered: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(methods, "DETECTORS", {"sift": lambda *_: Corners()})
    monkeypatch.setattr(methods, "MATCHERS", {"ratio-test": lambda *_: NearestNearby()})
    images = load_image_set(rendered / "images")
    frontend = ClassicalFrontend(dense=DenseConfig(enabled=False), workers=WorkerConfig(num_workers=1))
    opened = [frontend.open(images, make_pairs(5, "swin-1-noncyclic"), Store(tmp_path), SILENT) for _ in range(2)]
    first, again = ([len(p.keypoint_matches) for p in predictor] for predictor in opened)
    assert min(first) >= 30 and first == again
    assert opened[0].digest == opened[1].digest
    monkeypatch.undo()
    assert frontend.open(images, make_pairs(5, "swin-1-noncyclic"), Store(None), SILENT).digest != opened[0].digest


def test_features_are_found_again_without_pairs_or_front_end(rendered: Path, tmp_path: Path, monkeypatch) -> None:
    images, config = load_image_set(rendered / "images"), FeatureConfig(max_image_size=320)
    features = FeatureStore(images=images, detector=make_detector(config), store=Store(tmp_path))
    found = features.each(lambda f: f, "finding keypoints", SILENT, 2)
    assert [f.size_wh.tolist() for f in found] == images.size_wh.tolist()
    matches = MatchStore(features=features, matcher=make_matcher(DescriptorMatchingConfig()))
    pairs = np.array([[0, 1], [0, 4], [2, 3]])
    matched = matches.match_all(pairs, SILENT, 2)
    assert [len(m.keypoint) == len(m.score) for m in matched] == [True] * 3 and len(matched[0].keypoint) > 30
    monkeypatch.setattr("anchorsfm.features.sift.detect", None)  # nothing is computed any more
    monkeypatch.setattr("anchorsfm.features.ratio_test.match", None)
    features = FeatureStore(images=images, detector=make_detector(config), store=Store(tmp_path))
    matches = MatchStore(features=features, matcher=make_matcher(DescriptorMatchingConfig()))
    for kept, made in zip(features.each(lambda f: f, "finding keypoints", SILENT, 1), found, strict=True):
        assert all(np.array_equal(value, vars(made)[name]) for name, value in vars(kept).items())
    renamed = replace(images, names=tuple(f"x/{name}" for name in images.names))
    assert replace(features, images=renamed).key(3) == features.key(3)
    kept = matches.match_all(pairs, SILENT, 1)
    assert all(np.array_equal(a.keypoint, b.keypoint) for a, b in zip(kept, matched, strict=True))


def test_keys_follow_what_a_method_depends_on():
    base = FeatureConfig()
    assert make_detector(base).digest == make_detector(FeatureConfig(detector="sift")).digest
    others = [replace(base, max_keypoints=99), replace(base, contrast_threshold=0.01), replace(base, max_image_size=99)]
    assert len({make_detector(c).digest for c in (base, *others)}) == 4
    ratios = {make_matcher(DescriptorMatchingConfig(max_ratio=ratio)).digest for ratio in (0.7, 0.8)}
    assert len(ratios) == 2


def test_the_ratio_test_refuses_descriptors_of_another_kind():
    rng = np.random.default_rng(0)
    features = _random_features(rng, rng.normal(size=(5, 64)).astype(np.float32))
    with pytest.raises(InputError, match=r"compares SIFT.s descriptors"):
        make_matcher(DescriptorMatchingConfig()).prepare(features)


def test_few_photographs_in_memory_are_enough_whatever_the_names():
    """Pairs of a closed walk with shuffled names: each photograph is needed for a while, and then no more."""
    rng = np.random.default_rng(0)
    name = rng.permutation(300)
    walk = np.array([(i, (i + apart) % 300) for i in range(300) for apart in range(1, 9)])
    pairs = np.unique(np.sort(name[walk], axis=1), axis=0)
    order = neighbouring(pairs, 310)
    assert np.array_equal(np.sort(order), np.arange(len(pairs)))
    recent, missed = Recent(64), []
    for image in pairs[order].reshape(-1).tolist():
        recent.get(image, lambda image=image: missed.append(image))
    assert len(missed) <= 330
    assert neighbouring(np.zeros((0, 2), np.int64), 3).shape == (0,)


def test_masked_pixels_have_no_keypoints_and_keys_of_their_own(rendered: Path, tmp_path: Path) -> None:
    images = load_image_set(rendered / "images")
    width, height = images.size_wh[0].tolist()
    use = np.broadcast_to(np.arange(width) < width // 3, (height, width))
    hidden = replace(images, masks=(ImageMask.of(use), *[None] * (images.num_images - 1)))
    detector = make_detector(FeatureConfig(max_keypoints=500))
    whole, part = (FeatureStore(images=k, detector=detector, store=Store(tmp_path)) for k in (images, hidden))
    before, after = whole.features(0), part.features(0)
    assert 0 < len(after.xy) < len(before.xy) and after.xy[:, 0].max() < width // 3
    assert len(after.descriptor) == len(after.keypoint) == len(after.score)
    kept = np.flatnonzero(before.xy[:, 0] < width // 3)
    assert np.array_equal(before.xy[kept], after.xy)
    rows = np.isin(before.keypoint, kept)
    assert np.array_equal(before.descriptor[rows], after.descriptor)
    assert np.array_equal(before.xy[before.keypoint[rows]], after.xy[after.keypoint])
    assert whole.key(0) != part.key(0) and whole.key(1) == part.key(1)
