"""Streaming predictions into the scene graph."""

from dataclasses import replace

import numpy as np
import pytest

from anchorsfm.observe.canonical import anchor_pixels
from anchorsfm.observe.config import GraphConfig
from anchorsfm.observe.graph import build_scene_graph, score_matrix, select_component
from anchorsfm.scene.pairs import Matches, PairList, PairStatus
from oval_scene import all_pairs, oval_scene


def know_nothing(prediction):
    def blank(maps):
        return replace(
            maps, own_confidence=np.ones_like(maps.own_confidence), other_confidence=np.ones_like(maps.other_confidence)
        )

    return replace(prediction, frame_i=blank(prediction.frame_i), frame_j=blank(prediction.frame_j))


def test_matches_and_scores_are_kept_flat():
    scene = oval_scene(3)
    observed = scene.observe(all_pairs(3))
    graph = observed.graph
    counts = [len(scene.matches(i, j)) for i, j in all_pairs(3)]
    assert graph.pair.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert graph.score.tolist() == counts
    assert np.bincount(graph.match_pair).tolist() == counts
    np.testing.assert_allclose(graph.xy_j[graph.match_pair == 1], scene.matches(0, 2).xy_j, rtol=1e-6)
    assert graph.is_matching.tolist() == [1, 1, 1] and len(graph.fallback.image) == 0
    assert score_matrix(graph)[2, 0] == counts[1]
    for view, focal in zip(observed.views, scene.focal_px, strict=True):
        assert view.focal_px == pytest.approx(focal, rel=1e-5)


def test_matches_of_a_pair_without_depth_tie_images_that_others_show():
    scene = oval_scene(4)

    def without_depth(i: int, j: int):
        return replace(scene.prediction(i, j), frame_i=None, frame_j=None)

    predictions = [scene.prediction(0, 1), without_depth(0, 2), scene.prediction(1, 2), without_depth(2, 3)]
    graph = build_scene_graph(4, predictions, scene.grid).graph
    assert graph.pair.tolist() == [[0, 1], [0, 2], [1, 2]], "nothing shows depth of the last image"
    np.testing.assert_allclose(graph.xy_j[graph.match_pair == 1], scene.matches(0, 2).xy_j, rtol=1e-6)
    assert len(graph.fallback.image) == 0 and graph.component.tolist() == [0, 0, 0, -1]
    matches = scene.matches(0, 2)
    doubtful = replace(without_depth(0, 2), matches=replace(matches, confidence=np.full(len(matches), 3.0)))
    graph = build_scene_graph(4, [predictions[0], doubtful, predictions[2]], scene.grid).graph
    assert graph.pair.tolist() == [[0, 1], [1, 2]]


def test_order_of_the_stream_does_not_matter_for_the_graph():
    scene = oval_scene(3)
    forward, backward = scene.observe(all_pairs(3)), scene.observe(all_pairs(3)[::-1])
    assert np.array_equal(forward.graph.xy_i, backward.graph.xy_i)
    assert np.array_equal(forward.graph.pair, backward.graph.pair)


def test_announced_pairs_free_sums_and_change_nothing():
    scene = oval_scene(3)
    pairs = PairList(index=np.array(all_pairs(3)))
    stream = (scene.prediction(i, j) for i, j in all_pairs(3))
    early = build_scene_graph(3, stream, scene.grid, pairs=pairs)
    late = scene.observe(all_pairs(3))
    for a, b in zip(early.views, late.views, strict=True):
        assert np.array_equal(a.relative_depth, b.relative_depth) and a.focal_px == b.focal_px


def test_pairs_that_know_nothing_contribute_nothing():
    scene = oval_scene(4)
    predictions = [
        scene.prediction(0, 1),
        know_nothing(scene.prediction(0, 2)),
        replace(
            scene.prediction(1, 2), status=PairStatus.UNMATCHED, matches=Matches.empty(), frame_i=None, frame_j=None
        ),
        replace(scene.prediction(1, 3), status=PairStatus.PURE_ROTATION, frame_i=None, frame_j=None),
    ]
    observed = build_scene_graph(4, predictions, scene.grid)
    assert observed.graph.pair.tolist() == [[0, 1]]
    assert observed.graph.component.tolist() == [0, 0, -1, -1]
    assert [view is None for view in observed.views] == [False, False, True, True]


def test_no_pairs_at_all():
    scene = oval_scene(2)
    observed = build_scene_graph(2, [], scene.grid)
    assert observed.graph.component.tolist() == [-1, -1] and observed.views == (None, None)


def test_fallback_samples_predictions_at_anchors():
    scene = oval_scene(3)
    observed = scene.observe(all_pairs(3), doubtful=[(0, 2)], empty=[(1, 2)])
    assert observed.graph.is_matching.tolist() == [1, 0, 0]
    targets = observed.graph.fallback
    sides = {(int(a), int(b)) for a, b in zip(targets.image, targets.frame, strict=True)}
    assert sides == {(0, 2), (2, 0), (1, 2), (2, 1)}
    rows = (targets.image == 0) & (targets.frame == 2)
    x, y = anchor_pixels(scene.size_wh, 8).T
    np.testing.assert_array_equal(targets.xyz[rows], scene.pointmap(0, 2)[y, x])
    corner = scene.observe(all_pairs(3), doubtful=[(0, 2)], config=GraphConfig(corner_targets=True)).graph.fallback
    rows = (corner.image == 0) & (corner.frame == 2)
    np.testing.assert_array_equal(corner.xyz[rows], scene.pointmap(0, 2)[::8, ::8].reshape(-1, 3))


def test_components_by_size_then_first_image():
    scene = oval_scene(7)
    observed = scene.observe([(0, 5), (1, 2), (2, 3)])
    assert observed.graph.component.tolist() == [1, 0, 0, 0, -1, 1, -1]
    part = select_component(observed, 1)
    assert part.image_index.tolist() == [0, 5]
    assert part.graph.pair.tolist() == [[0, 1]] and part.graph.num_images == 2
    np.testing.assert_array_equal(part.graph.xy_i, observed.graph.xy_i[observed.graph.match_pair == 0])
    big = select_component(observed, 0)
    assert big.image_index.tolist() == [1, 2, 3] and big.graph.pair.tolist() == [[0, 1], [1, 2]]
    assert set(big.graph.match_pair.tolist()) == {0, 1}
    with pytest.raises(ValueError, match="no component 2"):
        select_component(observed, 2)


def test_fallback_of_another_component_is_dropped():
    scene = oval_scene(4)
    observed = scene.observe([(0, 1), (0, 2), (2, 3)], empty=[(0, 2)], doubtful=[(2, 3)])
    assert observed.graph.component.tolist() == [0, 0, 1, 1]
    assert len(select_component(observed, 0).graph.fallback.image) == 0
    fallback = select_component(observed, 1).graph.fallback
    assert set(fallback.image.tolist()) == {0, 1} and len(fallback.image) == 2 * 48
