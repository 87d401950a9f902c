"""Less exact keypoints become points of a model, but do not move cameras that exact ones hold."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from anchorsfm.scene.edit import select_observations
from anchorsfm.scene.reconstruction import Camera, Reconstruction, Tracks
from anchorsfm.tracks.adjust import adjust_model
from anchorsfm.tracks.build import KeypointMatches, build_tracks
from anchorsfm.tracks.coarse import ENOUGH, ENOUGH_REFINED, CoarseKeypoints
from anchorsfm.tracks.config import AdjustConfig, SubpixelConfig
from anchorsfm.tracks.points import triangulate_model
from anchorsfm.tracks.precision import refine_coarse, split_tracks
from anchorsfm.tracks.uncertainty import estimate_uncertainty
from matched_images import mapper_input
from point_scene import all_matches, make_lens_scene, perturb


def _scene(num_views: int, bias: float) -> tuple[Reconstruction, KeypointMatches, CoarseKeypoints]:
    """A scene of which half the points were found by a detector that errs the same way everywhere in a view."""
    camera = Camera(model="SIMPLE_PINHOLE", width=1600, height=1200, params=(1500.0, 800.0, 600.0))
    model = make_lens_scene((camera,), num_views, 900, extent=2.5, noise_px=0.2, seed=4)
    tracks = model.tracks
    coarse = tracks.obs_point % 2 == 1
    xy = tracks.obs_xy.copy()
    xy[coarse] += bias * (xy[coarse] - [800, 600]) / 500 * (tracks.obs_image[coarse] % 2 * 2 - 1)[:, None]
    model = replace(model, tracks=replace(tracks, obs_xy=xy))
    found = {k: xy[coarse & (tracks.obs_image == k)] for k in range(num_views)}
    return model, all_matches(model), CoarseKeypoints(xy=found)


def _rotation_error_deg(model: Reconstruction, truth: Reconstruction) -> float:
    relative = [m.cam_from_world[1, :, :3] @ m.cam_from_world[0, :, :3].T for m in (model, truth)]
    return float(np.degrees(np.arccos(np.clip((np.trace(relative[0] @ relative[1].T) - 1) / 2, -1, 1))))


def _first_two(truth: Reconstruction, matches: KeypointMatches) -> tuple[Reconstruction, KeypointMatches]:
    from anchorsfm.scene.edit import select_points, select_views

    two = select_views(select_points(truth, truth.tracks.obs_image < 2), np.arange(2))
    return two, matches.select((matches.image_i < 2) & (matches.image_j < 2))


def test_exact_keypoints_place_the_cameras_and_the_others_are_added() -> None:
    truth, matches, coarse = _scene(5, 1.5)
    two, mine = _first_two(truth, matches)
    tracks = build_tracks(mine, 2)
    start = perturb(two, degrees=0.3, distance=0.05, focal=1.02)
    scale = np.ones(2)
    alone_matches = mine.select(~coarse.among(mine.image_i, mine.xy_i))
    config = AdjustConfig()
    alone = adjust_model(start, build_tracks(alone_matches, 2), config, working_scale=scale, matches=alone_matches)
    mixed = adjust_model(start, tracks, config, working_scale=scale, matches=mine)
    held = adjust_model(start, tracks, config, working_scale=scale, matches=mine, coarse=coarse)
    errors = [_rotation_error_deg(result.model, two) for result in (alone, mixed, held)]
    assert np.allclose(held.model.cam_from_world, alone.model.cam_from_world)
    assert errors[2] < 0.5 * errors[1]
    assert held.added_points > 100 and len(held.model.points) == len(alone.model.points) + held.added_points
    assert np.isfinite(held.model.error_px).all()
    assert len(held.at_optimum.points) == len(alone.model.points) and alone.at_optimum is alone.model
    one, other = (estimate_uncertainty(result) for result in (alone, held))
    assert np.allclose(one.position, other.position)


def test_coarse_tracks_count_where_exact_ones_do_not_hold_views_together() -> None:
    def pairs(i: int, j: int, number: int, first: float) -> KeypointMatches:
        x = first + np.arange(number, dtype=np.float64)
        xy = np.stack([x, x], axis=1)
        return KeypointMatches(
            image_i=np.full(number, i), image_j=np.full(number, j), xy_i=xy, xy_j=xy, confidence=np.full(number, 9.0)
        )

    parts = [pairs(0, 1, ENOUGH, 0), pairs(1, 2, ENOUGH_REFINED, 1000), pairs(0, 1, 50, 2000), pairs(1, 2, 50, 3000)]
    joined = KeypointMatches(**{name: np.concatenate([vars(p)[name] for p in parts]) for name in vars(parts[0])})
    tracks = build_tracks(joined, 3)
    coarse = CoarseKeypoints(xy={k: np.concatenate([p.xy_i for p in parts[2:]]) for k in range(3)})
    split = split_tracks(tracks, coarse)
    assert split.adjusting.num_points == ENOUGH + ENOUGH_REFINED + 50, "those between 1 and 2 hold them together"
    more_exact = split_tracks(tracks, replace(coarse, others_are_refined=True))
    assert more_exact.adjusting.num_points == ENOUGH + ENOUGH_REFINED, "fewer hold them together if they are so exact"
    assert split.added.num_points == 50 and set(split.added.obs_image.tolist()) == {0, 1}
    nothing = split_tracks(tracks, CoarseKeypoints(xy={}))
    assert nothing.adjusting.num_points == tracks.num_points and nothing.added.num_points == 0
    assert split_tracks(Tracks.empty(), coarse).added.num_points == 0


def test_coarse_tracks_of_many_views_count() -> None:
    truth, matches, coarse = _scene(5, 0.0)
    split = split_tracks(build_tracks(matches, 5), coarse)
    assert not len(split.added.obs_point) or np.bincount(split.added.obs_point).max() < 3
    assert coarse.among(split.adjusting.obs_image, split.adjusting.obs_xy).any()
    assert len(truth.points)


def test_coarse_points_of_many_views_do_not_displace_exact_ones_of_two() -> None:
    camera = Camera(model="SIMPLE_PINHOLE", width=1600, height=1200, params=(1500.0, 800.0, 600.0))
    truth = make_lens_scene((camera,), 3, 3000, extent=2.0, noise_px=0.2, seed=4)
    many = truth.tracks.obs_point % 2 == 1
    tracks, _ = select_observations(truth.tracks, many | (truth.tracks.obs_image < 2))
    many = np.bincount(tracks.obs_point)[tracks.obs_point] > 2
    coarse = CoarseKeypoints.of(tracks.obs_image[many], tracks.obs_xy[many])
    limits = {"max_error_px": np.full(3, 5.0), "min_angle_deg": 1.5}
    alike = triangulate_model(truth, tracks, **limits)
    told = triangulate_model(truth, tracks, coarse=coarse, **limits)
    assert np.bincount(alike.tracks.obs_point).min() == 3, "every view has enough of these"
    assert (np.bincount(told.tracks.obs_point) == 2).sum() > 1000


def test_few_refined_tracks_hold_views_together(monkeypatch) -> None:
    """Where everything was coarse, what is exact now is refined; beside SIFT's as they are, it is not."""
    truth, matches, coarse = _scene(3, 0.0)

    def refined(tracks: Tracks, *_: object, **__: object) -> object:
        kept = tracks.obs_point < 40
        return SimpleNamespace(tracks=select_observations(tracks, kept)[0], kept=kept)

    monkeypatch.setattr("anchorsfm.tracks.precision.refine_observations", refined)
    images = mapper_input(matches, 3, truth.cameras[0], is_known=False).images
    everything = CoarseKeypoints.of(truth.tracks.obs_image, truth.tracks.obs_xy)
    for doubtful, is_refined in ((everything, True), (coarse, False)):
        config, px = SubpixelConfig(), np.full(3, 0.5)
        tracks, left = refine_coarse(truth.tracks, doubtful, images, config, uncertainty_px=px, model=truth)
        assert left.others_are_refined == is_refined and tracks.num_points == truth.tracks.num_points


def test_refined_observations_choose_a_lens_where_as_many_others_do_not() -> None:
    camera = Camera(model="SIMPLE_RADIAL", width=1600, height=1200, params=(1500.0, 800.0, 600.0, 0.0))
    truth = make_lens_scene((camera,), 3, 80, extent=2.5, noise_px=0.05, seed=4)
    assert 100 < len(truth.tracks.obs_point) < 300
    chosen = [
        adjust_model(
            perturb(truth, degrees=0.2, distance=0.02, focal=1.02),
            truth.tracks,
            AdjustConfig(),
            working_scale=np.ones(3),
            coarse=coarse,
            choose_camera_model=True,
        )
        .model.cameras[0]
        .model
        for coarse in (None, CoarseKeypoints(xy={}), CoarseKeypoints(xy={}, others_are_refined=True))
    ]
    assert chosen == ["SIMPLE_RADIAL", "SIMPLE_RADIAL", "SIMPLE_PINHOLE"]


def test_points_of_two_views_that_cameras_do_not_need_are_added_afterwards() -> None:
    """As SIFT alone leaves them out: they cost an adjustment much and tell it little."""
    camera = Camera(model="SIMPLE_PINHOLE", width=1600, height=1200, params=(1500.0, 800.0, 600.0))
    truth = make_lens_scene((camera,), 3, 1000, extent=2.0, noise_px=0.2, seed=4)
    tracks, _ = select_observations(truth.tracks, (truth.tracks.obs_point % 3 > 0) | (truth.tracks.obs_image < 2))
    length = np.bincount(tracks.obs_point)
    some = (tracks.obs_point % 50 == 0) & (length == 3)[tracks.obs_point]
    coarse = CoarseKeypoints.of(tracks.obs_image[some], tracks.obs_xy[some])
    result = adjust_model(truth, tracks, AdjustConfig(), working_scale=np.ones(3), coarse=coarse)
    assert np.bincount(result.at_optimum.tracks.obs_point).min() == 3
    assert result.added_points == pytest.approx((length == 2).sum(), rel=0.05)
    refined = replace(coarse, others_are_refined=True)
    result = adjust_model(truth, tracks, AdjustConfig(), working_scale=np.ones(3), coarse=refined)
    assert np.bincount(result.at_optimum.tracks.obs_point).min() == 2 and not result.added_points
