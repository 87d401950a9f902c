"""Tracks completed and merged with good cameras."""

from dataclasses import replace

import numpy as np
import pytest

from anchorsfm.scene.edit import select_observations, with_points
from anchorsfm.scene.reconstruction import Camera, Reconstruction, Tracks
from anchorsfm.tracks.build import KeypointMatches, build_tracks
from anchorsfm.tracks.complete import complete_and_merge
from anchorsfm.tracks.points import triangulate_model
from anchorsfm.tracks.residuals import pixel_errors
from point_scene import all_matches, make_lens_scene, make_point_scene

CAMERA = Camera(model="SIMPLE_RADIAL", width=1024, height=768, params=(900.0, 512.0, 384.0, 0.0))
MAX_ERROR = np.full(6, 3.0)


@pytest.fixture(scope="module")
def truth() -> Reconstruction:
    return make_lens_scene((CAMERA,), num_views=6, num_points=300, extent=3.0, noise_px=0.2)


def complete(model: Reconstruction, matches: KeypointMatches) -> Reconstruction:
    result = complete_and_merge(model, matches, max_error_px=MAX_ERROR)
    check(result)
    return result


def check(model: Reconstruction) -> None:
    tracks = model.tracks
    seen = tracks.obs_point * 6 + tracks.obs_image
    assert len(np.unique(seen)) == len(seen), "no image sees a point twice"
    assert (np.diff(seen) > 0).all() and tracks.num_points == len(model.points)
    keypoints = np.column_stack([tracks.obs_image, tracks.obs_xy])
    assert len(np.unique(keypoints, axis=0)) == len(keypoints), "no keypoint belongs to two points"
    assert pixel_errors(model).max() < MAX_ERROR[0]


def split(model: Reconstruction) -> Reconstruction:
    """Every point twice: once with its first half of observations, once with the others."""
    tracks = model.tracks
    first = np.searchsorted(tracks.obs_point, tracks.obs_point)
    length = np.bincount(tracks.obs_point)[tracks.obs_point]
    late = (np.arange(len(first)) - first) >= length // 2
    order = np.lexsort((tracks.obs_image, 2 * tracks.obs_point + late))
    halves = Tracks(
        obs_point=(2 * tracks.obs_point + late)[order], obs_image=tracks.obs_image[order], obs_xy=tracks.obs_xy[order]
    )
    kept, old_point = select_observations(halves, np.ones(len(order), bool))
    return with_points(model, kept, np.repeat(model.points, 2, axis=0)[old_point])


def same_tracks(model: Reconstruction, other: Reconstruction) -> bool:
    return np.array_equal(model.tracks.obs_image, other.tracks.obs_image) and np.array_equal(
        model.tracks.obs_xy, other.tracks.obs_xy
    )


def in_order_of(model: Reconstruction, other: Reconstruction) -> Reconstruction:
    """The same model with its points in the order of the nearest ones of another."""
    nearest = np.linalg.norm(model.points[:, None] - other.points, axis=2).argmin(1)
    assert len(np.unique(nearest)) == len(nearest)
    place = nearest[model.tracks.obs_point]
    order = np.lexsort((model.tracks.obs_image, place))
    tracks = Tracks(obs_point=place[order], obs_image=model.tracks.obs_image[order], obs_xy=model.tracks.obs_xy[order])
    return with_points(model, tracks, model.points[np.argsort(nearest)])


def test_dropped_observations_come_back_over_their_matches(truth):
    tracks = truth.tracks
    keep = np.random.default_rng(0).random(len(tracks.obs_point)) < 0.7
    kept, old_point = select_observations(tracks, keep)
    thin = with_points(truth, kept, truth.points[old_point])
    result = complete(thin, all_matches(truth))
    assert len(result.points) == len(thin.points)
    lost = np.isin(tracks.obs_point, old_point).sum()
    assert len(result.tracks.obs_point) == lost > 1.2 * len(thin.tracks.obs_point)


def test_points_split_in_two_are_merged(truth):
    halves = split(truth)
    assert len(halves.points) > 1.3 * len(truth.points)
    result = complete(halves, all_matches(truth))
    assert len(result.points) == len(truth.points)
    assert same_tracks(in_order_of(result, truth), truth)


def test_tracks_that_wrong_matches_split_are_whole_again():
    """Wrong matches of the highest confidence make tracks contradict themselves; the true rest comes back."""
    scene = make_point_scene(num_views=6, num_points=250, noise_px=0.2)
    matches = scene.matches
    wrong = np.random.default_rng(1).permutation(len(matches.image_i))[:200]
    order = np.argsort(np.random.default_rng(2).random(200))
    same_pair = matches.image_j[wrong] == matches.image_j[wrong[order]]
    bad = KeypointMatches(
        image_i=matches.image_i[wrong][same_pair],
        image_j=matches.image_j[wrong][same_pair],
        xy_i=matches.xy_i[wrong][same_pair],
        xy_j=matches.xy_j[wrong[order]][same_pair],
        confidence=np.full(int(same_pair.sum()), 50.0),
    )
    mixed = KeypointMatches(**{n: np.concatenate([vars(matches)[n], vars(bad)[n]]) for n in vars(matches)})

    def model_of(given: KeypointMatches) -> Reconstruction:
        return triangulate_model(scene.model, build_tracks(given, 6), max_error_px=MAX_ERROR, min_angle_deg=1.5)

    clean, broken = model_of(matches), model_of(mixed)
    result = complete(broken, mixed)
    lost = len(clean.tracks.obs_point) - len(broken.tracks.obs_point)
    assert lost > 20
    assert len(clean.tracks.obs_point) - len(result.tracks.obs_point) < 0.2 * lost


def test_points_that_one_image_sees_both_of_are_not_merged(truth):
    """Two points with a match between them, and a wrong one, in images that see both."""
    tracks = truth.tracks
    both = np.intersect1d(tracks.obs_image[tracks.obs_point == 0], tracks.obs_image[tracks.obs_point == 1])
    assert len(both) >= 2
    a = np.flatnonzero((tracks.obs_point == 0) & (tracks.obs_image == both[0]))
    b = np.flatnonzero((tracks.obs_point == 1) & (tracks.obs_image == both[1]))
    result = complete(truth, single_match(tracks, a, b))
    assert same_tracks(result, truth) and np.array_equal(result.points, truth.points)


def test_points_far_apart_are_not_merged_by_a_wrong_match(truth):
    """Point 0 in the first half of its images and another in images that do not see point 0."""
    halves = split(truth)
    tracks = halves.tracks
    images = [set(tracks.obs_image[tracks.obs_point == k].tolist()) for k in range(len(halves.points))]
    other = next(k for k in range(2, len(images)) if images[0].isdisjoint(images[k]))
    assert np.linalg.norm(halves.points[0] - halves.points[other]) > 0.3
    a, b = np.flatnonzero(tracks.obs_point == 0)[:1], np.flatnonzero(tracks.obs_point == other)[:1]
    result = complete(halves, single_match(tracks, a, b))
    assert same_tracks(result, halves)


def single_match(tracks: Tracks, a: np.ndarray, b: np.ndarray) -> KeypointMatches:
    return KeypointMatches(
        image_i=tracks.obs_image[a],
        image_j=tracks.obs_image[b],
        xy_i=tracks.obs_xy[a],
        xy_j=tracks.obs_xy[b],
        confidence=np.array([9.0]),
    )


def test_a_keypoint_that_the_point_does_not_project_onto_is_not_added(truth):
    tracks = truth.tracks
    thin, old_point = select_observations(
        tracks, ~((tracks.obs_point == 0) & (tracks.obs_image == tracks.obs_image[0]))
    )
    model = with_points(truth, thin, truth.points[old_point])
    match = single_match(tracks, np.array([1]), np.array([0]))
    near = complete(model, replace(match, xy_j=match.xy_j + 1.0))
    far = complete(model, replace(match, xy_j=match.xy_j + 20.0))
    assert len(near.tracks.obs_point) == len(thin.obs_point) + 1
    assert len(far.tracks.obs_point) == len(thin.obs_point)


def test_matches_of_images_outside_the_model_and_empty_models_are_fine(truth):
    empty = with_points(truth, Tracks.empty(), np.zeros((0, 3)))
    assert complete_and_merge(empty, all_matches(truth), max_error_px=MAX_ERROR) is empty
    elsewhere = replace(all_matches(truth), image_i=np.full(len(all_matches(truth).image_i), 17))
    assert same_tracks(complete(truth, elsewhere), truth)
