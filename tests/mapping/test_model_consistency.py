"""Finished models against the evidence that they did not use."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from anchorsfm.colmap.bundle import Held
from anchorsfm.geometry.transforms import compose, rotation_angle_deg
from anchorsfm.io.images import load_image_set
from anchorsfm.mapping.base import MapperInput, Start
from anchorsfm.mapping.consistency import examine, make_consistent
from anchorsfm.mapping.evidence import group_views
from anchorsfm.mapping.finish import ModellingSettings, finish_models, make_all_consistent
from anchorsfm.mapping.incremental import FromScratchConfig, map_tracks
from anchorsfm.scene.edit import select_points, select_views, with_poses, without_points, without_view
from anchorsfm.scene.progress import SILENT
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.synthetic import SceneConfig, SyntheticScene, make_scene
from anchorsfm.synthetic.scenes import cast_pixels, project, rays
from anchorsfm.tracks.build import KeypointMatches, build_tracks
from anchorsfm.tracks.config import AdjustConfig, SubpixelConfig
from matched_images import mapper_input
from point_scene import make_point_scene
from twin_points import CAMERA, twin_matches

SETTINGS = ModellingSettings(adjust=AdjustConfig(), subpixel=None, choose_camera_model=False, from_grid=False)


def starts(given: MapperInput) -> list[Start]:
    """Models of the incremental mapper."""
    mapped = map_tracks(
        given.tracks,
        given.cameras,
        given.images.camera_index,
        FromScratchConfig(),
        working_scale=given.working_scale,
        known_camera=given.known_camera,
    )
    return [Start(model=model, held=Held.nothing(model)) for model in mapped.models]


def scene_matches(scene: SyntheticScene, *, noise_px: float = 0.5, seed: int = 0) -> KeypointMatches:
    """Matches of surface points of rendered photographs, as rough as those of a network."""
    rng = np.random.default_rng(seed)
    width, height = scene.config.size_wh
    world = []
    for image in range(scene.num_images):
        xy = rng.uniform([10, 10], [width - 10, height - 10], (300, 2))
        origin, direction = rays(scene, image, xy)
        world.append(origin + cast_pixels(scene, image, xy).distance[:, None] * direction)
    points, rows, seen = np.concatenate(world), [], []
    for image in range(scene.num_images):
        xy, depth = project(scene, image, points)
        visible = (depth > 0) & ((xy > 8) & (xy < np.array([width, height]) - 8)).all(axis=1)
        visible[visible] = np.abs(cast_pixels(scene, image, xy[visible]).distance / depth[visible] - 1) < 0.01
        seen.append((visible, xy + noise_px * rng.standard_normal(xy.shape)))
    for i in range(scene.num_images):
        for j in range(i + 1, scene.num_images):
            both = np.flatnonzero(seen[i][0] & seen[j][0])
            rows.append((np.full(len(both), i), np.full(len(both), j), seen[i][1][both], seen[j][1][both]))
    image_i, image_j, xy_i, xy_j = (np.concatenate(part) for part in zip(*rows, strict=True))
    return KeypointMatches(
        image_i=image_i, image_j=image_j, xy_i=xy_i, xy_j=xy_j, confidence=np.full(len(image_i), 10.0)
    )


def rotation_errors_deg(model: Reconstruction, truth: np.ndarray) -> np.ndarray:
    i, j = np.triu_indices(len(model.image_index), 1)
    ours, true = model.cam_from_world[:, :, :3], truth[model.image_index][:, :, :3]
    relative = [r[j] @ r[i].transpose(0, 2, 1) for r in (ours, true)]
    return rotation_angle_deg(relative[0] @ relative[1].transpose(0, 2, 1))


@pytest.fixture(scope="module")
def good():
    """A point scene, its input and its finished model."""
    scene = make_point_scene(8, 500, outliers=0.02)
    given = mapper_input(scene.matches, 8, CAMERA, is_known=True)
    finished = finish_models(starts(given), given, SETTINGS)
    assert not finished.changes and len(finished.results) == 1
    return scene, given, finished.results[0]


@pytest.fixture(scope="module")
def twins():
    """Two things that look alike: true poses, the input, and the one model that a mapper makes of them."""
    matches, truth = twin_matches()
    given = mapper_input(matches, 10, CAMERA, is_known=True)
    made = starts(given)
    assert [len(start.model.image_index) for start in made] == [10]  # otherwise there is nothing to take apart
    return truth, given, made


def test_a_good_model_is_one_group_and_stays(good):
    _, given, result = good
    evidence = examine(result.model, given, SETTINGS.adjust)
    strong = evidence.matches >= 30
    assert strong.sum() > 15 and (evidence.agreeing[strong] > 0.9 * evidence.matches[strong]).all()
    assert not evidence.contradicted.any() and (evidence.looks >= 0).all() and (evidence.looks > 0).any()
    results, _, after, changes = make_all_consistent([result], given, SETTINGS, SILENT)
    assert results[0] is result and after is given and not changes


@pytest.mark.parametrize("observes", [False, True])
def test_an_image_in_the_wrong_place_is_placed_anew(good, observes):
    scene, given, result = good
    model = result.model
    poses = model.cam_from_world.copy()
    turn = Rotation.from_rotvec([0.0, np.radians(50), 0.0]).as_matrix()
    poses[3] = np.concatenate([poses[3][:, :3] @ turn, poses[3][:, 3:]], axis=1)
    bad = with_poses(model, poses)
    if not observes:
        bad = select_points(bad, bad.tracks.obs_image != 3)
    evidence = examine(bad, given, SETTINGS.adjust)
    assert set(evidence.view[evidence.contradicted].ravel().tolist()) == {0, 1, 2, 3, 4, 5, 6}
    results, _, _, changes = make_all_consistent([replace(result, model=bad)], given, SETTINGS, SILENT)
    assert [len(r.model.image_index) for r in results] == [8]
    assert rotation_errors_deg(results[0].model, scene.model.cam_from_world).max() < 0.3
    assert [change.images for change in changes] == [(3,)] and "placed anew" in changes[0].what


def test_an_image_that_is_contradicted_again_where_it_was_placed_is_left_out(good):
    _, given, result = good
    poses = result.model.cam_from_world.copy()
    turn = Rotation.from_rotvec([0.0, np.radians(50), 0.0]).as_matrix()
    poses[3] = np.concatenate([poses[3][:, :3] @ turn, poses[3][:, 3:]], axis=1)
    bad = replace(result, model=with_poses(result.model, poses))
    asked: list[list[int]] = []

    def adjust(part, of, _given):
        return replace(of, model=part)

    def grow(core, images, _given):
        asked.append(images.tolist())
        return core

    verdict = make_consistent(bad, given, SETTINGS.adjust, adjust, grow, placed_before={3})
    assert asked == [[]] and 3 in verdict.reasons and not verdict.placed_anew
    assert [r.model.image_index.tolist() for r in verdict.results] == [[0, 1, 2, 4, 5, 6, 7]]


def test_a_group_in_the_wrong_place_is_placed_anew(good):
    scene, given, result = good
    poses = result.model.cam_from_world.copy()
    turn = np.column_stack([Rotation.from_rotvec([0.0, np.radians(131), 0.0]).as_matrix(), [3.0, 0.0, 1.0]])
    poses[5:] = compose(poses[5:], np.broadcast_to(turn, (3, 3, 4)))
    results, _, _, changes = make_all_consistent(
        [replace(result, model=with_poses(result.model, poses))], given, SETTINGS, SILENT
    )
    assert [len(r.model.image_index) for r in results] == [8]
    assert rotation_errors_deg(results[0].model, scene.model.cam_from_world).max() < 0.3
    assert [change.images for change in changes] == [(5, 6, 7)]


def test_given_poses_are_not_doubted(good):
    _, given, result = good
    poses = result.model.cam_from_world.copy()
    poses[3, :, 3] += 3.0
    held = replace(result.held, pose=np.arange(8) == 3)
    bad = replace(result, model=with_poses(result.model, poses), held=held)
    results, _, _, _ = make_all_consistent([bad], given, SETTINGS, SILENT)
    assert results[0] is bad


def test_things_that_look_alike_become_two_models(twins):
    truth, given, made = twins
    finished = finish_models(made, given, SETTINGS)
    models = [result.model for result in finished.results]
    assert sorted(model.image_index.tolist() for model in models) == [list(range(5)), list(range(5, 10))]
    for model in models:
        assert rotation_errors_deg(model, truth).max() < 0.3
    assert len(finished.changes) == 1 and "only looks like" in finished.changes[0].what
    for evidence in finished.evidence:
        assert not evidence.contradicted.any() and (evidence.looks >= 0).all()


def test_what_looks_alike_contradicts_it_pair_by_pair(twins):
    _, given, made = twins
    evidence = examine(made[0].model, given, SETTINGS.adjust)
    across = (evidence.view[:, 0] < 5) & (evidence.view[:, 1] >= 5)
    assert (evidence.agreeing > 0.9 * evidence.matches)[across].all()  # the poses alone show nothing
    decided = evidence.looks != 0
    assert decided[across].sum() > 12 and (evidence.looks[across] <= 0).all()
    assert decided[~across].sum() > 8 and (evidence.looks[~across] >= 0).all()


def test_groups_are_those_of_the_largest_weight():
    pairs = np.array([(0, 1), (1, 2), (0, 2), (3, 4), (2, 3), (1, 4), (5, 6)])
    weight = np.array([1.0, 1.0, 1.0, 1.0, 0.5, -0.8, -1.0])
    assert group_views(7, pairs, weight).tolist() == [0, 0, 0, 1, 1, 2, 3]
    weight[4] = 0.9  # now the bridge is stronger than what contradicts it
    assert group_views(7, pairs, weight).tolist() == [0, 0, 0, 0, 0, 1, 2]
    assert group_views(3, pairs[:0], weight[:0]).tolist() == [0, 1, 2]


@pytest.mark.parametrize("views", [0, 1, 2])
def test_next_to_nothing_can_be_examined(good, views):
    _, given, result = good
    model = select_views(result.model, np.arange(views))
    model = select_points(model, np.isin(model.tracks.obs_image, model.image_index))
    few = replace(result, model=model, held=Held.nothing(model))
    results, evidence, _, changes = make_all_consistent([few], given, SETTINGS, SILENT)
    assert results[0] is few and not changes
    assert len(evidence[0].view) == (1 if views == 2 else 0)


def test_images_are_tried_at_the_end_also_where_observations_were_refined(rendered):
    """Observations are moved in the photographs; the image that is left out has only those of the matches."""
    scene = make_scene(SceneConfig(num_images=5, size_wh=(480, 360), arc_deg=50.0, seed=3))
    matches = scene_matches(scene)
    images = load_image_set(rendered / "images")
    given = MapperInput(
        images=images,
        cameras=(scene.camera(0),),
        known_camera=np.array([True]),
        matches=matches,
        tracks=build_tracks(matches, 5),
        working_scale=np.ones(5),
    )
    truth = without_points(np.arange(5), scene.cam_from_world, given.cameras, np.zeros(5, np.int64))
    start = without_view(truth, 4)
    settings = replace(SETTINGS, subpixel=SubpixelConfig(), from_grid=True)
    finished = finish_models([Start(model=start, held=Held.nothing(start))], given, settings)
    model = finished.results[0].model
    assert model.image_index.tolist() == [0, 1, 2, 3, 4] and not finished.changes
    assert rotation_errors_deg(model, scene.cam_from_world).max() < 0.2
    own = matches.xy_j[(matches.image_j == 4)]
    seen = model.tracks.obs_xy[model.tracks.obs_image == 4]
    assert len(seen) > 50 and np.isin(seen[:, 0], own[:, 0]).mean() < 0.5  # they were refined too
