"""Pairs of large sets: similarity, order of names, expansion."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from anchorsfm.pairing.config import Auto, parse_prefilter
from anchorsfm.pairing.expansion import ACROSS, MAX_FROM_ONE, TriedPairs, expand
from anchorsfm.pairing.graphs import near
from anchorsfm.pairing.retrieval import _Aggregated, _kernel, image_similarity
from anchorsfm.pairing.search import (
    MIN_PAIRS_OF_NETWORK,
    SelectedPairs,
    _likely,
    _scenes,
    search_pairs,
    with_fewest,
)
from anchorsfm.pairing.sequence import means_something, nearest, neighbours
from anchorsfm.scene.progress import SILENT
from described_photographs import ARC_DEG, Photograph, checker, overlap_deg

FEW = Auto(num_similar=4, max_verified=6, max_tried=12)
"""For sets so small that nearly all pairs would be tried otherwise."""


def _circle(num: int, scene: int = 0, seed: int | None = None) -> list[Photograph]:
    angles = np.arange(num) * 360 / num
    if seed is not None:
        angles = np.random.default_rng(seed).permutation(angles)
    return [Photograph(scene, float(angle)) for angle in angles]


def _search(photographs: list[Photograph], folder: Path | None = None, **options: object) -> SelectedPairs:
    looks = checker(photographs, folder)
    similarity = image_similarity(looks.features, SILENT, 1)
    settings = {"allowed": None, "for_network": False} | options
    config = settings.pop("config", FEW)
    return search_pairs(similarity, looks, config, **settings)


def _overlaps(photographs: list[Photograph]) -> np.ndarray:
    return np.array([[overlap_deg(a, b) for b in photographs] for a in photographs])


def _num_components(index: np.ndarray, num_images: int) -> int:
    graph = coo_array((np.ones(len(index)), index.T), (num_images, num_images))
    return int(connected_components(graph, directed=False)[0])


# ------------------------------------------------------------------------------------------------------ similarity


def test_photographs_are_the_more_alike_the_more_they_share() -> None:
    photographs = [*_circle(36, seed=1), Photograph(0, 0.0, is_blank=True)]
    similarity = image_similarity(checker(photographs, None).features, SILENT, 1)
    assert similarity.shape == (37, 37) and np.array_equal(similarity, similarity.T)
    assert np.allclose(np.diag(similarity)[:36], 1, atol=1e-5)
    assert not similarity[36].any(), "nothing is known of a photograph without keypoints"
    overlap = _overlaps(photographs)[:36, :36]
    off = ~np.eye(36, dtype=bool)
    own = similarity[:36, :36]
    assert own[(overlap > 20) & off].min() > 2 * own[overlap == 0].max()


def test_similarity_knows_neither_names_nor_order() -> None:
    photographs = _circle(32)
    order = np.random.default_rng(0).permutation(32)
    one = image_similarity(checker(photographs, None).features, SILENT, 1)
    other = image_similarity(checker([photographs[k] for k in order], None).features, SILENT, 1)
    assert np.allclose(one[np.ix_(order, order)], other, atol=1e-5)


def test_what_all_photographs_have_makes_none_alike() -> None:
    """A watermark: word 0 is the same in all; images 0 and 1 share a word besides."""
    direction = np.eye(4, dtype=np.float16)[[0, 1, 0, 1, 0, 2, 0, 3]]
    rows = _Aggregated(image=np.repeat(np.arange(4), 2), word=np.array([0, 1, 0, 1, 0, 2, 0, 3]), direction=direction)
    similarity = _kernel(rows, 4, 4)
    assert np.allclose(similarity, np.eye(4) + np.eye(4)[[1, 0, 2, 3]] * [[1], [1], [0], [0]], atol=1e-6)


@pytest.mark.parametrize("photographs", [[], [Photograph(0, 0.0, is_blank=True)] * 3, [Photograph(0, 10.0)]])
def test_sets_with_nothing_to_compare(photographs: list[Photograph]) -> None:
    similarity = image_similarity(checker(photographs, None).features, SILENT, 1)
    assert similarity.shape == (len(photographs),) * 2 and np.isfinite(similarity).all()


# --------------------------------------------------------------------------------------------------- order of names


def test_neighbours_count_only_where_the_order_means_something() -> None:
    position = np.arange(60)
    similarity = np.exp(-np.abs(position[:, None] - position[None]) / 5.0)
    assert means_something(similarity, position)
    pairs = neighbours(similarity, position)
    assert {tuple(pair) for pair in pairs.tolist()} == {(i, i + d) for d in (1, 2, 3) for i in range(60 - d)}
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(60)
        assert not means_something(similarity, order) and len(neighbours(similarity, order)) == 0
    assert not means_something(np.ones((60, 60)), position)
    assert not means_something(np.ones((2, 2)), np.arange(2))


# --------------------------------------------------------------------------------------------------------- expansion


@pytest.mark.parametrize("seed", [None, 3])
def test_a_circle_is_closed_whatever_the_names(seed: int | None) -> None:
    photographs = _circle(48, seed=seed)
    found = _search(photographs)
    assert found.search is not None and found.search.tried < 0.25 * 48 * 47 / 2
    overlap = _overlaps(photographs)
    i, j = found.pairs.index.T
    assert (i < j).all() and len(np.unique(found.pairs.index, axis=0)) == len(i)
    good = np.triu(overlap > ARC_DEG / 2, 1)
    assert good[i, j].sum() >= 0.95 * good.sum()
    assert (overlap[i, j] > 0).all()
    assert _num_components(found.pairs.index, 48) == 1


def test_scenes_in_one_folder_stay_apart() -> None:
    photographs = [*_circle(33, 0), *_circle(33, 1)]
    order = np.random.default_rng(5).permutation(66)
    photographs = [photographs[k] for k in order]
    found = _search(photographs)
    scene = np.array([p.scene for p in photographs])
    i, j = found.pairs.index.T
    assert (scene[i] == scene[j]).all()
    assert _num_components(found.pairs.index, 66) == 2
    assert found.search is not None and found.search.tried < 0.3 * 66 * 65 / 2
    assert found.scene is not None and found.scene.max() == 1
    assert (np.equal.outer(found.scene, found.scene) == np.equal.outer(scene, scene)).all()


def test_images_without_partners_do_not_end_it() -> None:
    photographs = [*_circle(24, seed=2), Photograph(0, 0.0, is_blank=True), Photograph(7, 0.0), Photograph(8, 0.0)]
    found = _search(photographs)
    assert _num_components(found.pairs.index[(found.pairs.index < 24).all(1)], 24) == 1
    count = np.bincount(found.pairs.index.reshape(-1), minlength=27)
    assert (count[24:] >= 5).all(), "some pairs are left for the front end, which may know better"
    alone = _search([Photograph(k, 0.0, is_blank=k % 2 == 0) for k in range(12)])
    assert alone.search is not None and alone.search.verified == 0 and len(alone.pairs.index) > 0


def test_a_network_gets_the_most_similar_where_keypoints_fail() -> None:
    photographs = [*_circle(24, seed=2), Photograph(0, 0.0, is_blank=True), Photograph(7, 0.0)]
    found = _search(photographs, for_network=True)
    count = np.bincount(found.pairs.index.reshape(-1), minlength=26)
    assert (count[24:] >= MIN_PAIRS_OF_NETWORK).all()


def test_the_same_again_and_nothing_is_looked_at_twice(tmp_path: Path, monkeypatch) -> None:
    photographs = _circle(24, seed=4)
    first = _search(photographs, tmp_path)
    monkeypatch.setattr("anchorsfm.features.ratio_test.match", None)  # nothing is computed any more
    monkeypatch.setattr("anchorsfm.pairing.search.verify", None)
    again = _search(photographs, tmp_path)
    assert np.array_equal(first.pairs.index, again.pairs.index) and first.search == again.search


def test_a_prefilter_holds() -> None:
    allowed = near(30, parse_prefilter("cyc3"))
    found = _search(_circle(30), allowed=allowed)
    apart = np.abs(found.pairs.index[:, 0] - found.pairs.index[:, 1])
    assert np.minimum(apart, 30 - apart).max() == 3 and _num_components(found.pairs.index, 30) == 1


def test_a_prefilter_holds_whatever_is_alike_and_matches() -> None:
    allowed = near(14, parse_prefilter("cyc3"))
    similarity = np.random.default_rng(0).uniform(0, 1, (14, 14))
    similarity = similarity + similarity.T
    found = expand(similarity, lambda pairs: np.full(len(pairs), 200), FEW, allowed=allowed)
    blank = checker([Photograph(0, 0.0, is_blank=True)] * 14, None)
    pairs = search_pairs(similarity, blank, FEW, allowed=allowed, for_network=True).pairs
    for index in (found.index, pairs.index):
        assert len(index) > 30 and allowed[tuple(index.T)].all()


def test_photographs_ask_for_others_where_those_most_alike_were_tried_often_enough() -> None:
    """Five are like all others and match none."""
    num, hubs = 60, 5
    place = np.arange(num + hubs) - hubs
    apart = np.abs(place[:, None] - place[None])
    is_hub = (place[:, None] < 0) | (place[None] < 0)
    similarity = np.where(is_hub, 0.9, np.exp(-apart / 10.0) / 2)
    true = ~is_hub & (apart <= 3)
    found = expand(similarity, lambda pairs: 200 * true[pairs[:, 0], pairs[:, 1]], FEW)
    matched = {tuple(pair) for pair in found.index[found.verified > 0].tolist()}
    assert matched >= {(k, k + 1) for k in range(hubs, num + hubs - 1)}


def test_the_work_is_bounded() -> None:
    """Everything is alike and everything matches; or nothing does."""
    for verdict, most in ((200, Auto.max_verified + 12), (0, 25)):
        asked = []

        def look(pairs: np.ndarray, verdict: int = verdict, asked: list[np.ndarray] = asked) -> np.ndarray:
            asked.append(pairs)
            return np.full(len(pairs), verdict)

        rng = np.random.default_rng(0)
        noise = rng.uniform(0, 1, (200, 200))
        found = expand(noise + noise.T, look, Auto())
        everything = np.concatenate(asked)
        assert len(np.unique(everything, axis=0)) == len(everything) == len(found.index)
        count = np.bincount(everything.reshape(-1), minlength=200)
        assert count.max() <= Auto.max_tried + ACROSS and count.mean() <= most


def test_components_are_joined_by_the_pair_that_similarity_ranks_low() -> None:
    """Two chains whose only common pairs are no image's most similar ones."""
    num = 40
    group = np.arange(2 * num) // num
    place = np.arange(2 * num) % num
    near_each_other = np.abs(place[:, None] - place[None])
    similarity = np.where(group[:, None] == group[None], np.exp(-near_each_other / 40.0), 0.01)
    true = (group[:, None] == group[None]) & (near_each_other < 15)
    for a, b in ((3, num + 7), (4, num + 7), (3, num + 8)):
        true[a, b] = true[b, a] = True
        similarity[a, b] = similarity[b, a] = 0.02
    found = expand(similarity, lambda pairs: 200 * true[pairs[:, 0], pairs[:, 1]], Auto())
    matched = {tuple(pair) for pair in found.index[found.verified > 0].tolist()}
    assert {(3, num + 7), (4, num + 7), (3, num + 8)} <= matched


def test_a_loop_is_closed_although_every_image_has_enough_neighbours() -> None:
    """A video comes back to where it began: there it is less like its beginning than like what is just before."""
    num = 200
    place = np.arange(num)
    apart = np.abs(place[:, None] - place[None])
    back = (num - apart) < 20
    rng = np.random.default_rng(0)
    similarity = np.exp(-apart / 20.0) + np.where(back, 0.2, 0) + 0.01 * rng.uniform(0, 1, (num, num))
    true = (apart < 25) | back
    found = expand(similarity, lambda pairs: 150 * true[pairs[:, 0], pairs[:, 1]], Auto())
    i, j = found.index[found.verified > 0].T
    closing = back[i, j]
    assert closing.sum() >= 10
    ends = np.bincount(np.concatenate([i[closing], j[closing]]))
    assert (ends > 0).sum() >= 10, "not all of one image"
    assert len(found.index) < 25 * num


def test_a_pair_that_no_third_photograph_confirms_gets_more_around_it() -> None:
    """Two groups in which all have enough, and one pair between them; two more are there, but little alike."""
    group = np.arange(20) // 10
    inside = group[:, None] == group[None]
    true, similarity = inside.copy(), np.where(inside, 1.0, 0.01)
    for a, b in ((0, 10), (0, 11), (0, 12)):
        true[a, b] = true[b, a] = True
        similarity[a, b] = similarity[b, a] = 0.02
    found = expand(
        similarity,
        lambda pairs: 200 * true[pairs[:, 0], pairs[:, 1]],
        Auto(num_similar=9, max_verified=9, max_tried=30),
        neighbours=np.array([[0, 10]]),
    )
    between = group[found.index[:, 0]] != group[found.index[:, 1]]
    matched = {tuple(pair) for pair in found.index[between & (found.verified > 0)].tolist()}
    assert matched == {(0, 10), (0, 11), (0, 12)}
    assert between.sum() <= 1 + 2 * MAX_FROM_ONE + ACROSS, "what is confirmed asks for no more"


def test_times_propose_pairs_as_names_do() -> None:
    """Photographs of a walk by two people, named at random; of two of them the time is not known."""
    rng = np.random.default_rng(0)
    place = rng.permutation(60)
    similarity = np.exp(-np.abs(place[:, None] - place[None]) / 5.0)
    taken_s = 100.0 + 7.0 * place
    taken_s[[4, 9]] = np.nan
    images = checker(_circle(60), None).features.images
    assert len(_likely(images, similarity)) == 0
    known = [k for k in np.argsort(place).tolist() if k not in (4, 9)]
    expected = {frozenset((known[k], known[k + d])) for d in (1, 2, 3) for k in range(58 - d)}
    assert {frozenset(pair) for pair in _likely(replace(images, taken_s=taken_s), similarity).tolist()} == expected


def test_frames_of_a_video_are_in_order_beside_photographs_that_are_not() -> None:
    """Without times: those of their folder are enough, by their names."""
    rng = np.random.default_rng(1)
    place = np.concatenate([rng.permutation(60), 100 + np.arange(20)])
    similarity = np.exp(-np.abs(place[:, None] - place[None]) / 5.0)
    names = tuple(f"photos/{k:02}.jpg" if k < 60 else f"walk/walk_{k / 3:09.3f}.jpg" for k in range(80))
    images = replace(checker(_circle(80), None).features.images, names=names)
    frames = {(k, k + d) for d in (1, 2, 3) for k in range(60, 80 - d)}
    assert {tuple(pair) for pair in _likely(images, similarity).tolist()} == frames
    together = replace(images, names=tuple(name.replace("/", "_") for name in names))
    assert len(_likely(together, similarity)) == 0


def test_scenes_are_told_apart_by_pairs_with_many_matches_only() -> None:
    index = np.array([[0, 1], [1, 2], [2, 3], [3, 4], [0, 4]])
    tried = TriedPairs(index=index, verified=np.array([300, 100, 99, 150, 0]), rounds=1)
    scene = _scenes(tried, 6)
    assert scene[0] == scene[1] == scene[2] and scene[3] == scene[4] and len(np.unique(scene)) == 3


def test_of_the_pairs_that_failed_the_most_similar_are_kept() -> None:
    photographs = [Photograph(k, 0.0) for k in range(8)]
    similarity = np.random.default_rng(0).uniform(0.1, 1, (8, 8))
    similarity = similarity + similarity.T
    found = search_pairs(similarity, checker(photographs, None), FEW, allowed=None, for_network=False)
    kept = np.zeros((8, 8), bool)
    kept[tuple(found.pairs.index.T)] = True
    i, j = np.triu_indices(8, 1)
    ranked = kept[i, j][np.argsort(-similarity[i, j])]
    assert found.search is not None and found.search.tried == 28 > kept.sum()
    assert ranked[:8].all() and not ranked[-2:].any()


def test_others_are_added_only_where_pairs_are_few() -> None:
    pairs, others = np.array([[0, 1], [0, 2], [1, 2]]), np.array([[0, 1], [2, 3], [0, 3], [1, 2]])
    assert with_fewest(pairs, others, 2).tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [2, 3]]
    assert with_fewest(pairs, others, 1).tolist() == [[0, 1], [0, 2], [1, 2], [2, 3]]
    assert with_fewest(pairs[:2], np.array([[0, 3], [1, 3], [2, 3]]), 1).tolist() == [[0, 1], [0, 2], [0, 3]]
    assert with_fewest(np.zeros((0, 2), np.int64), np.zeros((0, 2), np.int64), 3).shape == (0, 2)


def test_the_nearest_are_proposed_where_they_are_alike() -> None:
    rng = np.random.default_rng(0)
    position = rng.uniform(0, 100, (40, 3)) * [1, 1, 0]
    distance = np.linalg.norm(position[:, None] - position, axis=2)
    position[5] = np.nan
    pairs = nearest(-distance, position)
    assert len(pairs) == 39 * 6 and 5 not in pairs
    assert {tuple(sorted(pair)) for pair in pairs.tolist()} <= {
        (min(i, int(j)), max(i, int(j))) for i in range(40) for j in np.argsort(distance[i])[1:8]
    }
    assert not len(nearest(rng.random((40, 40)), position))
    same = np.zeros((40, 3))
    assert not (nearest(-distance, same)[:, :1] == nearest(-distance, same)[:, 1:]).any()
    assert not len(nearest(-distance[:2, :2], position[:2]))
