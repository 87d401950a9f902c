"""Points that the rounds of the adjustment of a large model use."""

from dataclasses import replace

import numpy as np
import pytest

from anchorsfm.colmap.bundle import Held, adjust
from anchorsfm.scene.edit import observations_per_view, select_points, with_poses
from anchorsfm.scene.reconstruction import Camera, Reconstruction
from anchorsfm.tracks import adjust as adjustment
from anchorsfm.tracks.adjust import AdjustResult, adjust_model
from anchorsfm.tracks.config import AdjustConfig
from anchorsfm.tracks.selection import CELLS, seen_by, spread_points
from point_scene import all_matches, make_lens_scene

THIN = AdjustConfig(all_points_up_to=5)
CAMERA = Camera(model="SIMPLE_RADIAL", width=1024, height=768, params=(900.0, 512.0, 384.0, 0.0))


@pytest.fixture(scope="module")
def truth() -> Reconstruction:
    """Tracks of two to six observations."""
    scene = make_lens_scene((CAMERA,), num_views=6, num_points=3000, extent=3.0, noise_px=0.2)
    return select_points(scene, np.random.default_rng(0).random(len(scene.tracks.obs_point)) < 0.7)


def cells(model: Reconstruction) -> set[tuple[int, int, int]]:
    """Cells of all pictures with an observation: image, column, row."""
    column, row = (CELLS * model.tracks.obs_xy / [CAMERA.width, CAMERA.height]).astype(int).T
    return set(zip(model.tracks.obs_image.tolist(), column.tolist(), row.tolist(), strict=True))


def test_every_cell_that_had_a_point_has_one_and_long_tracks_are_taken(truth):
    thin = spread_points(truth)
    assert cells(thin) == cells(truth)
    assert len(thin.points) < len(truth.points) / 2
    assert (observations_per_view(thin) <= 3 * CELLS**2).all()
    mean_length = [len(model.tracks.obs_point) / len(model.points) for model in (thin, truth)]
    assert mean_length[0] > 1.15 * mean_length[1]


def test_a_selection_of_a_selection_is_the_same(truth):
    once = spread_points(truth)
    twice = spread_points(once)
    assert np.array_equal(once.points, twice.points) and np.array_equal(once.tracks.obs_xy, twice.tracks.obs_xy)


def test_a_view_of_another_size_has_its_own_cells(truth):
    half = replace(CAMERA, width=CAMERA.width // 2)
    narrow = replace(truth.tracks, obs_xy=truth.tracks.obs_xy * [0.5, 1.0])
    thin = spread_points(replace(truth, cameras=(half,), tracks=narrow))
    assert len(thin.points) == len(spread_points(truth).points)


def adjusted(truth: Reconstruction, config: AdjustConfig, held: Held | None = None) -> tuple[AdjustResult, list[int]]:
    """The model from poses that are a little wrong, but for held ones, and how many points each adjustment had."""
    rng = np.random.default_rng(1)
    poses = truth.cam_from_world.copy()
    shift = 0.01 * rng.normal(size=(6, 3))
    poses[:, :, 3] += shift if held is None else np.where(held.pose[:, None], 0, shift)
    counts: list[int] = []
    original = adjustment.adjust

    def counting(model, options, held=None):
        counts.append(len(model.points))
        return original(model, options, held)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adjustment, "adjust", counting)
        result = adjust_model(
            with_poses(truth, poses),
            truth.tracks,
            config,
            working_scale=np.ones(6),
            matches=all_matches(truth),
            held=held,
        )
    return result, counts


def test_a_large_model_is_adjusted_with_a_selection_and_ends_as_with_all_points(truth):
    (whole, counts_whole), (thin, counts_thin) = (
        (result.model, counts) for result, counts in (adjusted(truth, config) for config in (AdjustConfig(), THIN))
    )
    assert min(counts_whole) > 0.75 * len(truth.points)
    assert max(counts_thin[:3]) < len(truth.points) / 2, "the rounds"
    assert counts_thin[-1] == len(thin.points) == len(whole.points), "the end"
    assert np.array_equal(thin.tracks.obs_xy, whole.tracks.obs_xy)
    assert np.abs(thin.cam_from_world - whole.cam_from_world).max() < 1e-4
    assert np.abs(np.subtract(thin.cameras[0].params, whole.cameras[0].params)).max() < 0.05


def test_points_that_only_held_views_see_wait_for_the_end_and_are_adjusted_too(truth):
    held = Held(pose=np.arange(6) < 4, camera=np.array([True]))
    result, counts = adjusted(truth, AdjustConfig(), held)
    model = result.model
    moving = int(seen_by(model, ~held.pose).sum())
    assert counts[-2:] == [moving, len(model.points) - moving] and moving < 0.97 * len(model.points)
    assert max(counts[:-2]) < 0.97 * len(truth.points), "the rounds"
    np.testing.assert_allclose(model.cam_from_world[:4], truth.cam_from_world[:4], atol=1e-12)
    together, _ = adjust(model, result.options, held)
    size = np.abs(truth.points - truth.points.mean(axis=0)).mean()
    assert np.abs(together.points - model.points).max() < 1e-4 * size
    assert np.abs(together.cam_from_world - model.cam_from_world).max() < 1e-6


def test_with_everything_held_the_points_are_adjusted_once(truth):
    held = Held(pose=np.ones(6, bool), camera=np.array([True]))
    result, counts = adjusted(truth, AdjustConfig(), held)
    assert counts == [len(result.model.points)]
    np.testing.assert_allclose(result.model.cam_from_world, truth.cam_from_world, atol=1e-12)


def test_held_views_of_a_camera_that_is_not_held_count_in_every_adjustment(truth):
    held = Held(pose=np.arange(6) < 4, camera=np.array([False]))
    result, counts = adjusted(truth, AdjustConfig(), held)
    assert len(counts) > 1 and counts[-1] == len(result.model.points), "none is left for later"
    assert abs(result.model.cameras[0].params[0] - 900) < 0.5
