"""Scene graphs of front ends that cannot keep their predictions: interrupted anywhere, continued to the same bits."""

import shutil
from dataclasses import fields, replace

import numpy as np
import pytest

from anchorsfm.io.store import Store
from anchorsfm.observe.checkpoint import observe
from anchorsfm.observe.config import GraphConfig
from anchorsfm.observe.graph import build_scene_graph
from anchorsfm.pairing import make_pairs
from anchorsfm.scene.errors import StorageError
from anchorsfm.scene.pairs import PairStatus
from anchorsfm.scene.progress import SILENT, RecordingProgress
from anchorsfm.synthetic import SceneConfig, SyntheticFrontend, image_set, make_scene
from cache_damage import DAMAGE


class Killed(Exception):
    pass


class Forgetful:
    """Predictions of a synthetic scene that are never kept; counts how often each is asked for."""

    keeps_predictions = False
    digest = "forgetful"
    detects_keypoints, focal_px, licence = True, None, None

    def __init__(self):
        scene = make_scene(SceneConfig(num_images=4, size_wh=(320, 240), seed=5))
        self.pairs = make_pairs(4, "complete")
        self.inner = SyntheticFrontend(scene=scene, grid_long_side=80).open(
            image_set(scene), self.pairs, Store(None), SILENT
        )
        self.grid = self.inner.grid
        self.asked = []

    def __len__(self):
        return len(self.pairs)

    def __iter__(self):
        return self.predictions(range(len(self)))

    def predictions(self, rows):
        for row in rows:
            self.asked.append(row)
            prediction = self.inner.predict(row)
            if row == 2:  # one pair has nothing to say
                prediction = replace(prediction, status=PairStatus.UNMATCHED, frame_i=None, frame_j=None)
            if row == 4:  # and one is doubtful
                weak = replace(prediction.matches, confidence=np.full(len(prediction.matches), 2.0, np.float32))
                prediction = replace(prediction, matches=weak)
            yield prediction


class DyingStore(Store):
    """Fails at the n-th write, as a killed process would."""

    def __init__(self, root, writes):
        super().__init__(root)
        self.left = writes

    def save(self, kind, key, arrays):
        if self.left == 0:
            raise Killed
        self.left -= 1
        super().save(kind, key, arrays)


def scene_of(predictor, store):
    return observe(4, predictor, predictor.pairs, GraphConfig(), store, lambda stream: stream)


def assert_same(a, b):
    for field in fields(type(a.graph)):
        left, right = getattr(a.graph, field.name), getattr(b.graph, field.name)
        if field.name == "fallback":
            assert all(np.array_equal(getattr(left, f.name), getattr(right, f.name)) for f in fields(type(left)))
        else:
            assert np.array_equal(left, right), field.name
    for left, right in zip(a.views, b.views, strict=True):
        assert left.focal_px == right.focal_px
        assert np.array_equal(left.relative_depth, right.relative_depth)
        assert np.array_equal(left.confidence, right.confidence)


@pytest.fixture(scope="module")
def undisturbed():
    predictor = Forgetful()
    return build_scene_graph(4, iter(predictor), predictor.grid, GraphConfig(), predictor.pairs)


def test_without_a_store_nothing_is_kept(undisturbed):
    assert_same(scene_of(Forgetful(), Store(None)), undisturbed)


def test_a_second_run_asks_for_nothing(undisturbed, tmp_path):
    assert_same(scene_of(Forgetful(), Store(tmp_path)), undisturbed)
    second = Forgetful()
    assert_same(scene_of(second, Store(tmp_path)), undisturbed)
    assert second.asked == []


@pytest.mark.parametrize("writes", range(16))
def test_a_run_killed_at_any_write_continues_to_the_same_bits(undisturbed, tmp_path, writes):
    first = Forgetful()
    with pytest.raises(Killed):
        scene_of(first, DyingStore(tmp_path, writes))
    second = Forgetful()
    assert_same(scene_of(second, Store(tmp_path)), undisturbed)
    # at most the pair that was being written is asked for twice
    assert len(first.asked) + len(second.asked) <= 7
    assert len(list((tmp_path / "graph-sums").glob("*"))) <= 5  # one set of sums per image, and one left by the kill


@pytest.mark.parametrize("way", ["cut", "flip_last_number", "swap", "not_a_number", "folder"])
@pytest.mark.parametrize("kind", ["graph-pairs", "graph-pairs-unusable", "graph-sums"])
def test_a_damaged_entry_is_made_again(undisturbed, tmp_path, kind, way):
    scene_of(Forgetful(), Store(tmp_path))
    paths = sorted((tmp_path / kind).glob("*"))
    others = sorted((tmp_path / "graph-pairs").glob("*"))
    for path in paths[:2]:
        DAMAGE[way](path, others[-1] if others[-1] != path else others[0])
    second, progress = Forgetful(), RecordingProgress(SILENT)
    assert_same(scene_of(second, Store(tmp_path, progress)), undisturbed)
    assert 1 <= len(second.asked) <= 5
    assert sum("is damaged" in line for line in progress.warnings) == len(paths[:2])
    third = Forgetful()
    assert_same(scene_of(third, Store(tmp_path)), undisturbed)
    assert third.asked == []


def test_sums_that_vanish_during_a_run_end_it(tmp_path):
    scene_of(Forgetful(), Store(tmp_path))

    def watch(stream):
        shutil.rmtree(tmp_path / "graph-sums")
        return stream

    predictor = Forgetful()
    with pytest.raises(StorageError, match="run the same command again"):
        observe(4, predictor, predictor.pairs, GraphConfig(), Store(tmp_path), watch)


def test_what_is_kept_per_pair_is_small(tmp_path):
    predictor = Forgetful()
    scene_of(predictor, Store(tmp_path))
    full = 2 * 80 * 60 * 4 * 4 * 2  # both images in both frames, points and confidence in float32
    assert max(path.stat().st_size for path in (tmp_path / "graph-pairs").glob("*")) < full / 4
    assert len(list((tmp_path / "graph-sums").glob("*"))) == 4


def test_which_keypoints_are_coarse_is_kept(tmp_path):
    class Coarse(Forgetful):
        def predictions(self, rows):
            for prediction in super().predictions(rows):
                matches = prediction.matches
                coarse = np.arange(2 * len(matches)).reshape(-1, 2) % 3 == 0
                yield replace(prediction, keypoint_matches=replace(matches, is_coarse=coarse))

    seen = []
    for _ in range(2):
        predictor, passed = Coarse(), []

        def watch(stream, passed=passed):
            for prediction in stream:
                passed.append(prediction.keypoint_matches)
                yield prediction

        observe(4, predictor, predictor.pairs, GraphConfig(), Store(tmp_path), watch, SILENT)
        seen.append(passed)
    assert not predictor.asked
    for first, again in zip(*seen, strict=True):
        assert again.is_coarse.dtype == bool
        np.testing.assert_array_equal(first.is_coarse, again.is_coarse)
