"""From first poses to finished models on clouds of points: priors, images that come later, the optimum, the files."""

from dataclasses import fields, replace

import numpy as np
import pycolmap
import pytest
from scipy.spatial.transform import Rotation

from anchorsfm.colmap.bundle import BundleOptions, Held, PositionPriors, adjust
from anchorsfm.colmap.write import write_models
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.mapping.base import MapperInput
from anchorsfm.mapping.finish import ModellingSettings, Start, finish_models
from anchorsfm.scene.edit import without_view
from anchorsfm.scene.reconstruction import Camera, Reconstruction
from anchorsfm.tracks.adjust import AdjustResult, adjust_model
from anchorsfm.tracks.build import KeypointMatches, build_tracks
from anchorsfm.tracks.coarse import CoarseKeypoints
from anchorsfm.tracks.config import FEW_VIEWS, AdjustConfig, SubpixelConfig
from anchorsfm.tracks.uncertainty import estimate_uncertainty
from matched_images import mapper_input
from point_scene import PointScene, all_matches, make_lens_scene, make_point_scene, perturb

NUM = 8
SCALE = np.ones(NUM)
SETTINGS = ModellingSettings(adjust=AdjustConfig(), subpixel=None, choose_camera_model=False, from_grid=False)


@pytest.fixture(scope="module")
def scene() -> PointScene:
    return make_point_scene(num_points=400, outliers=0.02)


@pytest.fixture(scope="module")
def refined(scene) -> AdjustResult:
    return adjusted(scene, perturb(scene.model, degrees=0.2, distance=0.02, focal=1.02))


def adjusted(scene: PointScene, start: Reconstruction, held: Held | None = None) -> AdjustResult:
    tracks = build_tracks(scene.matches, NUM)
    return adjust_model(start, tracks, AdjustConfig(), working_scale=SCALE, matches=scene.matches, held=held)


def scene_size(model: Reconstruction) -> float:
    return float(np.linalg.norm(np.ptp(camera_centres(model.cam_from_world), axis=0)))


def moved(model: Reconstruction, scale: float) -> Reconstruction:
    """The model in another frame: turned, shifted and `scale` times as large."""
    turn = Rotation.from_rotvec([0.3, -0.5, 0.2]).as_matrix()
    centres = scale * camera_centres(model.cam_from_world) @ turn.T + [10.0, -20.0, 5.0]
    rotation = model.cam_from_world[:, :, :3] @ turn.T
    return replace(model, cam_from_world=np.concatenate([rotation, -(rotation @ centres[:, :, None])], axis=2))


def with_priors(model: Reconstruction, truth: Reconstruction, sigma: float, known: np.ndarray, seed: int = 0) -> Held:
    """Priors on the `known` positions: the true ones with noise of their standard deviation."""
    noise = sigma * np.random.default_rng(seed).standard_normal((len(truth.image_index), 3))
    position = np.where(known[:, None], camera_centres(truth.cam_from_world) + noise, np.nan)
    return replace(Held.nothing(model), positions=PositionPriors(position=position, sigma=sigma))


def test_the_result_is_at_the_optimum_of_its_own_adjustment(refined):
    again, report = adjust(refined.model, replace(refined.options, function_tolerance=1e-12), refined.held)
    shift = camera_centres(again.cam_from_world) - camera_centres(refined.model.cam_from_world)
    assert report.usable
    assert np.linalg.norm(shift, axis=1).max() < 1e-4 * scene_size(refined.model)


def test_a_model_survives_text(refined, tmp_path):
    names = [f"folder/{k}.jpg" for k in range(NUM)]
    write_models(tmp_path / "text", [refined.model], names, text=True)
    assert {"cameras.txt", "images.txt", "points3D.txt"} <= {p.name for p in (tmp_path / "text" / "0").iterdir()}
    back, model = pycolmap.Reconstruction(str(tmp_path / "text" / "0")), refined.model
    assert np.allclose(back.cameras[1].params, model.cameras[0].params, rtol=1e-12)
    for view, image in enumerate(model.image_index):
        entry = back.find_image_with_name(names[image])
        assert np.abs(entry.cam_from_world().matrix() - model.cam_from_world[view]).max() < 1e-10
    assert np.allclose([back.points3D[k + 1].xyz for k in range(len(model.points))], model.points, rtol=1e-10)
    for point in (0, len(model.points) - 1):
        mine = model.tracks.obs_point == point
        seen = {e.image_id - 1: back.images[e.image_id].points2D[e.point2D_idx].xy
                for e in back.points3D[point + 1].track.elements}  # fmt: skip
        assert sorted(seen) == model.tracks.obs_image[mine].tolist()
        assert np.allclose([seen[k] for k in sorted(seen)], model.tracks.obs_xy[mine], atol=1e-9)


@pytest.mark.parametrize("known", [np.arange(NUM) >= 0, np.arange(NUM) % 2 == 0], ids=["all", "every second"])
def test_position_priors_set_frame_and_scale(scene, known):
    """The start is eight percent too small and a little off; the photographs alone could not tell."""
    truth = moved(scene.model, 3.0)
    start = perturb(scene.model, degrees=0.2, distance=0.02, focal=1.0)
    start = moved(start, 3.0 * 0.92)
    held = with_priors(start, truth, 0.01, known)
    result = adjusted(scene, start, held)
    assert len(result.model.image_index) == NUM and result.held.positions is not None
    error = np.linalg.norm(camera_centres(result.model.cam_from_world) - camera_centres(truth.cam_from_world), axis=1)
    assert error.max() < 0.05
    claimed = estimate_uncertainty(result)
    assert claimed.metric and error.max() < 3 * claimed.position.max() < 0.2


def test_strong_priors_weigh_more_than_weak_ones(scene):
    """One prior is wrong by 0.2: the view follows it as far as its deviation says."""
    shifts = []
    for sigma in (1e-4, 1.0):
        held = with_priors(scene.model, scene.model, 0.0, np.ones(NUM, bool))
        position = held.positions.position.copy()
        position[4, 1] += 0.2
        priors = PositionPriors(position=position, sigma=sigma)
        result = adjusted(scene, scene.model, replace(held, positions=priors))
        centre = camera_centres(result.model.cam_from_world)
        shifts.append(abs(centre[4, 1] - camera_centres(scene.model.cam_from_world)[4, 1]))
    # the whole model turns and shifts with the mean of the priors, so a weak one has some effect too
    assert shifts[0] > 0.19 and shifts[1] < 0.06


def test_a_start_far_from_the_priors_comes_to_them(scene):
    """Another frame and unit, and much further away than the priors' standard deviation."""
    held = with_priors(scene.model, scene.model, 0.01, np.ones(NUM, bool))
    result = adjusted(scene, moved(scene.model, 5.0), held)
    error = camera_centres(result.model.cam_from_world) - camera_centres(scene.model.cam_from_world)
    assert len(result.model.image_index) == NUM and np.abs(error).max() < 0.03


def given(scene: PointScene) -> MapperInput:
    return mapper_input(scene.matches, NUM, scene.model.cameras[0], is_known=False)


def without(model: Reconstruction, *images: int) -> Reconstruction:
    for image in images:
        model = without_view(model, model.image_index.tolist().index(image))
    return model


def test_images_that_the_first_poses_leave_out_are_registered_afterwards(scene):
    model = without(scene.model, 2, 7)
    (result,) = finish_models([Start(model=model, held=Held.nothing(model))], given(scene), SETTINGS).results
    assert result.model.image_index.tolist() == list(range(NUM))
    size = scene_size(scene.model)
    ours, true = (camera_centres(m.cam_from_world) for m in (result.model, scene.model))
    distances = [np.linalg.norm(c[:, None] - c, axis=2) for c in (ours, true)]
    scale = distances[1].sum() / distances[0].sum()
    assert np.abs(scale * distances[0] - distances[1]).max() < 2e-3 * size


def test_why_an_image_was_dropped_is_not_forgotten_when_others_come_later(scene):
    """Image 2 has too few matches; image 7 is left out by the first poses and registered afterwards."""
    matches = scene.matches
    poor = (matches.image_i == 2) | (matches.image_j == 2)
    keep = ~poor | (np.cumsum(poor) <= 25)
    few = KeypointMatches(**{f.name: getattr(matches, f.name)[keep] for f in fields(matches)})
    material = replace(given(scene), matches=few, tracks=build_tracks(few, NUM))
    model = without(scene.model, 7)
    (result,) = finish_models([Start(model=model, held=Held.nothing(model))], material, SETTINGS).results
    assert result.model.image_index.tolist() == [k for k in range(NUM) if k != 2]
    assert "observations of triangulated points" in result.dropped[2]


def test_later_images_leave_held_poses_as_they_are(scene):
    model = without(scene.model, 5)
    held = replace(Held.nothing(model), pose=np.isin(model.image_index, [0, 6]))
    (result,) = finish_models([Start(model=model, held=held)], given(scene), SETTINGS).results
    assert result.model.image_index.tolist() == list(range(NUM))
    assert np.flatnonzero(result.held.pose).tolist() == [0, 6]
    assert np.abs((result.model.cam_from_world - scene.model.cam_from_world)[[0, 6]]).max() < 1e-9


def test_later_images_leave_position_priors_in_force(scene):
    model = without(scene.model, 5)
    target = moved(model, 2.0)
    priors = PositionPriors(position=camera_centres(target.cam_from_world), sigma=0.01)
    start = Start(model=target, held=replace(Held.nothing(target), positions=priors))
    (result,) = finish_models([start], given(scene), SETTINGS).results
    assert result.model.image_index.tolist() == list(range(NUM))
    assert np.isnan(result.held.positions.position).any(1).tolist() == [k == 5 for k in range(NUM)]
    error = camera_centres(result.model.cam_from_world) - camera_centres(moved(scene.model, 2.0).cam_from_world)
    assert np.abs(error).max() < 0.03


def test_the_largest_model_comes_first_and_takes_no_images_of_others(scene):
    large, small = without(scene.model, 0, 1, 2), without(scene.model, 3, 4, 5, 6, 7)
    starts = [Start(model=m, held=Held.nothing(m)) for m in (small, large)]
    results = finish_models(starts, given(scene), SETTINGS).results
    assert [result.model.image_index.tolist() for result in results] == [[3, 4, 5, 6, 7], [0, 1, 2]]


@pytest.mark.parametrize("choose", [False, True])
def test_a_given_focal_length_is_kept(scene, choose):
    """To the bit, whatever the observations say, and whichever camera model is chosen."""
    start = perturb(scene.model, degrees=0.2, distance=0.02, focal=1.1)
    settings = replace(SETTINGS, focal_px=1480.0, choose_camera_model=choose)
    (result,) = finish_models([Start(model=start, held=Held.nothing(start))], given(scene), settings).results
    assert {camera.params[0] for camera in result.model.cameras} == {1480.0}
    assert not result.options.refine_focal
    params = estimate_uncertainty(result).camera_params[0]
    assert params is None or params[0] == 0


def test_steps_that_cannot_be_computed_are_counted_and_not_printed(capfd):
    """All cameras in one place see one point, far away: the solver has a line for every step.

    Which steps fail is a matter of rounding, which differs between processors: several scenes.
    """
    camera = Camera(model="SIMPLE_RADIAL", width=1024, height=768, params=(900.0, 512.0, 384.0, 0.0))
    failed = []
    for seed in range(5):
        model = make_lens_scene(
            (camera,), num_views=4, num_points=200, noise_px=0.5, extent=3.5, roll_deg=30.0, seed=seed
        )
        assert adjust(model, BundleOptions(loss_scale_px=1.0))[1].failed_steps == 0
        poses = np.repeat(model.cam_from_world[:1], 4, axis=0)
        tracks = replace(model.tracks, obs_xy=np.repeat(model.tracks.obs_xy[:1], len(model.tracks.obs_xy), axis=0))
        for points in (model.points, 1e6 * model.points):
            bad = replace(model, cam_from_world=poses, tracks=tracks, points=points)
            failed.append(adjust(bad, BundleOptions(loss_scale_px=1.0))[1].failed_steps)
    assert sum(failed) > 0
    assert "Linear solver failure" not in capfd.readouterr().err


def test_coarse_observations_are_refined_before_cameras_are_adjusted(scene, monkeypatch):
    asked = []

    def refined(tracks, coarse, *rest, **more):
        asked.append(tracks.num_points)
        return replace(tracks, obs_xy=tracks.obs_xy + 0.25), CoarseKeypoints(xy={})

    monkeypatch.setattr("anchorsfm.mapping.finish.refine_coarse", refined)
    whole = given(scene)
    first = whole.tracks.obs_point < 50
    mixed = replace(whole, coarse=CoarseKeypoints.of(whole.tracks.obs_image[first], whole.tracks.obs_xy[first]))
    start = perturb(scene.model, degrees=0.2, distance=0.02, focal=1.02)
    starts = [Start(model=start, held=Held.nothing(start))]
    settings = replace(SETTINGS, coarse_subpixel=SubpixelConfig())
    for case, wanted in ((whole, settings), (mixed, SETTINGS)):
        finish_models(starts, case, wanted)
    assert not asked
    (result,) = finish_models(starts, mixed, settings).results
    assert asked == [whole.tracks.num_points]
    moved_xy = set(map(tuple, (whole.tracks.obs_xy + 0.25).tolist()))
    assert sum(tuple(xy) in moved_xy for xy in result.model.tracks.obs_xy.tolist()) > 1000


@pytest.mark.parametrize(("num_views", "all_refined"), [(3, True), (FEW_VIEWS, True), (FEW_VIEWS + 1, False)])
def test_all_observations_of_few_views_are_refined(monkeypatch, num_views, all_refined):
    asked = []

    def refined(tracks, coarse, *rest, **more):
        asked.append(bool(coarse.among(tracks.obs_image, tracks.obs_xy).all()))
        return tracks, CoarseKeypoints(xy={})

    monkeypatch.setattr("anchorsfm.mapping.finish.refine_coarse", refined)
    camera = Camera(model="SIMPLE_RADIAL", width=1600, height=1200, params=(1500.0, 800.0, 600.0, -0.05))
    scene = make_lens_scene((camera,), num_views, 400, noise_px=0.2, roll_deg=30.0)
    start = [Start(model=perturb(scene, degrees=0.2, distance=0.02, focal=1.02), held=Held.nothing(scene))]
    for settings, wanted in (
        (SETTINGS, []),
        (replace(SETTINGS, coarse_subpixel=SubpixelConfig()), [True] * all_refined),
    ):
        finish_models(start, mapper_input(all_matches(scene), num_views, camera, is_known=False), settings)
        assert asked == wanted
