"""Canonical views and focal lengths against recorded outputs of the original, and where ours differs on purpose."""

import json

import numpy as np
import pytest

from anchorsfm.observe.canonical import CanonicalAccumulator, anchor_pixels, at_anchors, estimate_focal, spread
from anchorsfm.observe.config import DepthMode

MODES = {"angle": DepthMode.AVERAGE_ANGLE, "reldepth": DepthMode.AVERAGE_RELATIVE_DEPTH}
TYPES = {"f32": (np.float32, 2e-5), "f64": (np.float64, 1e-12)}


def accumulate(pointmaps, confidences, **keywords):
    size = pointmaps.shape[2], pointmaps.shape[1]
    sums = CanonicalAccumulator(size, **keywords)
    for pointmap, confidence in zip(pointmaps, confidences, strict=True):
        sums.add(pointmap, confidence)
    return sums


@pytest.mark.parametrize("case", ["a", "b"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", TYPES)
def test_canonical_view_agrees_with_recorded(golden, case, mode, dtype):
    data = np.load(golden / "canonical_view.npz")
    kind, tolerance = TYPES[dtype]
    sums = accumulate(data[f"{case}_ptmaps"], data[f"{case}_confs"], mode=MODES[mode], dtype=kind)
    view = sums.finish(0.0)
    assert view.relative_depth.dtype == kind
    np.testing.assert_allclose(sums.pointmap, data[f"{case}_{dtype}_canon"], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(view.confidence, data[f"{case}_{dtype}_conf"], rtol=tolerance)
    expected = data[f"{case}_{mode}_{dtype}_canon2"]
    np.testing.assert_allclose(view.relative_depth, expected, rtol=tolerance, atol=tolerance)


def test_other_block_size_agrees_with_recorded(golden):
    data = np.load(golden / "canonical_view.npz")
    view = accumulate(data["b_ptmaps"], data["b_confs"], subsample=4).finish(0.0)
    np.testing.assert_allclose(view.relative_depth, data["sub4_b_canon2"], rtol=2e-5, atol=2e-5)


CASES = ["exact", "noisy", "outliers", "mild_outliers", "noclip", "clip_min", "clip_max", "batch"]


@pytest.mark.parametrize("case", CASES)
def test_focal_agrees_with_recorded(golden, case):
    data = np.load(golden / "estimate_focal.npz")
    bounds = json.loads(str(data[f"{case}_kw"]))
    # the original's bounds are multiples of the focal length of a view of 60 degrees
    in_sides = 1 / (2 * np.tan(np.radians(30)))
    focal_range = bounds.get("min_focal", 0.0) * in_sides, bounds.get("max_focal", np.inf) * in_sides
    centres = np.broadcast_to(data[f"{case}_pp"], (len(data[f"{case}_pts3d"]), 2)).astype(float)
    for points, centre, expected in zip(data[f"{case}_pts3d"], centres, data[f"{case}_focal_f64"], strict=True):
        focal = estimate_focal(points, centre, pixel_centre=0.0, focal_range=focal_range, drop_impossible=False)
        assert focal == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("case", ["outliers", "noclip"])
def test_points_of_almost_zero_depth_do_not_collapse_the_focal(golden, case):
    """The original's estimate falls to zero here, and the clip hides it."""
    data = np.load(golden / "estimate_focal.npz")
    truth = float(data["true_focal_exact"])
    assert data[f"{case}_focal_f64"][0] < 0.5 * truth
    focal = estimate_focal(data[f"{case}_pts3d"][0], pixel_centre=0.0)
    assert focal == pytest.approx(truth, rel=0.05)


def ramp(size_wh, focal, pixel_centre):
    width, height = size_wh
    x, y = np.meshgrid(np.arange(width) + pixel_centre, np.arange(height) + pixel_centre)
    z = 2 + 0.01 * x + 0.02 * y
    return np.stack([(x - width / 2) / focal * z, (y - height / 2) / focal * z, z], -1).astype(np.float32)


@pytest.mark.parametrize("pixel_centre", [0.0, 0.5])
def test_focal_of_exact_points_in_both_pixel_conventions(pixel_centre):
    points = ramp((64, 48), 70.0, pixel_centre)
    assert estimate_focal(points, pixel_centre=pixel_centre) == pytest.approx(70.0, rel=1e-6)


@pytest.mark.parametrize("focal", [0.25, 4.0, 10.0])
def test_focal_of_short_and_long_lenses(focal):
    """The estimate used to be clipped to 0.43 .. 3.03 x the longer side."""
    assert estimate_focal(ramp((64, 48), focal * 64, 0.5)) == pytest.approx(focal * 64, rel=1e-5)
    assert estimate_focal(ramp((64, 48), focal * 64, 0.5), focal_range=(1.0, 3.0)) in (64, 192)


@pytest.mark.parametrize("scale", [1e-9, 1e-6, 1e6])
@pytest.mark.parametrize("mode", MODES.values())
def test_relief_does_not_depend_on_the_unit(mode, scale):
    points = ramp((32, 24), 40.0, 0.5)
    views = [
        accumulate((s * points)[None].astype(np.float32), np.full((1, 24, 32), 5.0, np.float32), mode=mode).finish()
        for s in (1.0, scale)
    ]
    np.testing.assert_allclose(views[1].relative_depth, views[0].relative_depth, rtol=1e-5)
    assert views[1].focal_px == pytest.approx(views[0].focal_px, rel=1e-5)


def test_focal_of_nothing_is_plausible():
    assert 20 < estimate_focal(np.zeros((48, 64, 3))) < 200


def test_size_that_is_no_multiple_of_the_block():
    size = (21, 18)
    points = ramp(size, 25.0, 0.5)
    view = accumulate(points[None], np.full((1, 18, 21), 3.0, np.float32)).finish()
    assert view.anchor_depth.shape == (3, 3)
    pixels = anchor_pixels(size, 8)
    assert pixels.tolist()[2] == [20, 4] and pixels.tolist()[8] == [20, 17]  # the last blocks are cut: clamped
    np.testing.assert_allclose(view.relative_depth[pixels[:, 1], pixels[:, 0]], 1.0)
    recovered = spread(at_anchors(points[..., 2], 8), size, 8) * view.relative_depth
    np.testing.assert_allclose(recovered, points[..., 2], rtol=1e-5)


def test_scaled_predictions_are_fused_by_angle():
    """The relief relative to the anchor does not depend on the scales of the predictions."""
    points = ramp((32, 24), 40.0, 0.5)
    both = accumulate(np.stack([points, 3 * points]), np.full((2, 24, 32), 5.0, np.float32)).finish()
    single = accumulate(points[None], np.full((1, 24, 32), 5.0, np.float32)).finish()
    np.testing.assert_allclose(both.relative_depth, single.relative_depth, atol=1e-5)
    np.testing.assert_allclose(both.anchor_depth, 2 * single.anchor_depth, rtol=1e-5)
