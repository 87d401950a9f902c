"""Kinematic trees."""

import json
from dataclasses import replace

import numpy as np
import pytest

from anchorsfm.observe.anchors import build_anchors
from anchorsfm.observe.config import KINEMATIC_MODES
from anchorsfm.observe.tree import build_tree, tree_of_scores
from anchorsfm.scene.errors import InputError
from oval_scene import all_pairs, oval_scene

SPLIT = ("n12_disconnected", "n6_isolated_last", "n6_isolated_first")


def recorded(golden):
    for name, case in json.loads((golden / "kinematic_tree.json").read_text()).items():
        scores = np.array(case["scores"], float)
        blocks = (np.array(case["imsizes_wh"]) // case["subsample"]).prod(axis=1)
        for mode, result in case["results"].items():
            yield name, mode, scores, blocks, result


def edges_of(tree):
    return [[int(tree.parent[child]), int(child)] for child in tree.order[1:]]


def test_trees_agree_with_recorded(golden):
    count = 0
    for name, mode, scores, blocks, result in recorded(golden):
        if mode == "mst" and name in SPLIT:
            continue  # the original returns a forest
        tree = tree_of_scores(scores, blocks, mode, allow_unmatched_edges=True)
        assert (tree.root, edges_of(tree)) == (result["root"], result["edges"]), (name, mode)
        count += 1
    assert count == 62


def test_by_default_every_edge_has_a_match(golden):
    differing = 0
    for name, mode, scores, blocks, result in recorded(golden):
        if name in SPLIT:
            continue
        tree = tree_of_scores(scores, blocks, mode)
        assert all(scores[edge[0], edge[1]] > 0 for edge in edges_of(tree))
        assert sorted(tree.order.tolist()) == list(range(len(scores)))
        assert all(tree.order.tolist().index(p) < tree.order.tolist().index(c) for p, c in edges_of(tree))
        bad = [edge for edge in result["edges"] if scores[tuple(edge)] == 0]
        differing += bool(bad)
        if not bad:
            assert edges_of(tree) == result["edges"], (name, mode)
    assert differing >= 8


def test_unmatched_representatives_are_replaced_by_the_best_pair():
    # 0-1 and 2-3 match strongly; their representatives do not match, but 1-2 and 0-2 do, 1-2 better
    scores = np.zeros((4, 4))
    for i, j, score in ((0, 1, 90), (2, 3, 100), (1, 2, 30), (0, 2, 10)):
        scores[i, j] = scores[j, i] = score
    tree = tree_of_scores(scores, np.full(4, 100), "hclust-single")
    undirected = {tuple(sorted(edge)) for edge in edges_of(tree)}
    assert (1, 2) in undirected or (0, 2) in undirected
    assert undirected >= {(0, 1), (2, 3)}


@pytest.mark.parametrize("mode", KINEMATIC_MODES)
def test_poses_are_not_chained_along_pairs_that_others_do_not_confirm(mode):
    observed = oval_scene(5).observe(all_pairs(5))
    best = np.argsort(-observed.graph.score)[:4]  # they would be edges
    doubted = replace(observed.graph, confirmed=~np.isin(np.arange(10), best))
    assert len(np.unique(doubted.pair[doubted.confirmed])) == 5
    anchors = build_anchors(observed)
    edges = {tuple(sorted(edge)) for edge in edges_of(build_tree(doubted, anchors, mode))}
    assert len(edges) == 4 and not edges & {tuple(pair) for pair in doubted.pair[best].tolist()}


@pytest.mark.parametrize("mode", KINEMATIC_MODES)
def test_pieces_are_refused(mode):
    scores = np.zeros((4, 4))
    scores[0, 1] = scores[1, 0] = scores[2, 3] = scores[3, 2] = 50
    with pytest.raises(ValueError, match="several pieces"):
        tree_of_scores(scores, np.full(4, 100), mode)


@pytest.mark.parametrize("mode", KINEMATIC_MODES)
def test_one_and_two_images(mode):
    assert tree_of_scores(np.zeros((1, 1)), np.array([12]), mode).parent.tolist() == [-1]
    tree = tree_of_scores(np.array([[0.0, 5.0], [5.0, 0.0]]), np.array([12, 12]), mode)
    assert sorted(tree.parent.tolist()) in ([-1, 0], [-1, 1])


def test_unknown_mode_names_the_choices():
    with pytest.raises(InputError, match="hclust-ward"):
        tree_of_scores(np.zeros((2, 2)), np.array([1, 1]), "ward")


@pytest.mark.parametrize("seed", range(5))
def test_random_connected_graphs_give_matched_trees(seed):
    rng = np.random.default_rng(seed)
    n = 30
    scores = np.zeros((n, n))
    for k in range(1, n):
        for other in {int(rng.integers(k)), int(rng.integers(k))}:
            scores[k, other] = scores[other, k] = rng.integers(1, 500)
    for mode in KINEMATIC_MODES:
        tree = tree_of_scores(scores, np.full(n, 100), mode)
        assert all(scores[edge[0], edge[1]] > 0 for edge in edges_of(tree))
        assert (np.sort(tree.parent)[1:] >= 0).all() and tree.parent[tree.root] == -1
