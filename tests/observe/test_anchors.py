"""Matched pixels tied to the anchors of their blocks."""

import numpy as np
import pytest

from anchorsfm.observe.anchors import anchor_of_pixel, build_anchors, dense_depth_ratio, depth_ratio
from anchorsfm.scene.graph import CanonicalView
from golden_scene import golden_scene
from oval_scene import all_pairs, oval_scene


def view_of(relative_depth, subsample):
    blocks = tuple(-(-n // subsample) for n in relative_depth.shape)
    return CanonicalView(
        focal_px=1.0,
        anchor_depth=np.ones(blocks, relative_depth.dtype),
        relative_depth=relative_depth,
        confidence=np.ones_like(relative_depth),
    )


@pytest.mark.parametrize("case", ["anchor_int", "anchor_float", "sub4_anchor"])
def test_offsets_agree_with_recorded(golden, case):
    data = np.load(golden / "canonical_view.npz")
    subsample = 4 if case == "sub4_anchor" else 8
    view = view_of(data["sub4_b_canon2"] if subsample == 4 else data["a_angle_f32_canon2"], subsample)
    xy = data[f"{case}_xy"].astype(float)
    np.testing.assert_array_equal(anchor_of_pixel(view, xy, subsample), data[f"{case}_idx"])
    np.testing.assert_allclose(depth_ratio(view, xy, subsample), data[f"{case}_offset"], rtol=1e-6)


def test_dense_offsets_agree_with_recorded(golden):
    data = np.load(golden / "canonical_view.npz")
    ratio = dense_depth_ratio(view_of(data["a_angle_f32_canon2"], 8), 8)
    np.testing.assert_allclose(ratio.ravel(), data["anchor_dense_offset"], rtol=1e-6)


def test_anchors_of_the_recorded_scene(golden):
    data = np.load(golden / "sparse_scene_canonical.npz")
    directed = np.load(golden / "sparse_scene_inputs.npz")["directed_pairs"].tolist()
    scene = golden_scene(golden, double=False)
    anchors = build_anchors(scene)
    np.testing.assert_allclose(anchors.depth, data["core_depth"].ravel(), rtol=1e-5)
    for row, pair in enumerate(scene.graph.pair.tolist()):
        image, start, stop = data["slices"][directed.index(pair)][:3]
        recorded = slice(data["anchor_offsets"][image] + start, data["anchor_offsets"][image] + stop)
        ours = scene.graph.match_pair == row
        np.testing.assert_array_equal(anchors.anchor_i[ours] - anchors.start[image], data["anchor_idx"][recorded])
        np.testing.assert_allclose(anchors.depth_ratio_i[ours], data["anchor_off"][recorded], rtol=1e-4)


def test_depth_of_matched_pixels_is_that_of_the_pointmap():
    scene = oval_scene(3, (61, 43))
    observed = scene.observe(all_pairs(3))
    anchors = build_anchors(observed)
    assert np.diff(anchors.start).tolist() == [8 * 6] * 3
    graph = observed.graph
    depth = anchors.depth[anchors.anchor_i] * anchors.depth_ratio_i
    rows = graph.match_pair == 1
    x, y = np.floor(graph.xy_i[rows]).astype(int).T
    np.testing.assert_allclose(depth[rows], scene.pointmap(0, 0)[y, x, 2], rtol=1e-4)


def test_points_on_the_border_stay_in_the_image():
    view = view_of(np.ones((16, 24), np.float32), 8)
    xy = np.array([[24.0, 16.0], [-0.2, 3.0]])
    assert anchor_of_pixel(view, xy, 8).tolist() == [5, 0]


def test_a_view_without_prediction_is_refused():
    scene = oval_scene(3)
    with pytest.raises(ValueError, match="1 of 3 images have no canonical view"):
        build_anchors(scene.observe([(0, 1)]))
