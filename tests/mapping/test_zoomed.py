"""Photographs of one size that were zoomed differently, with nothing that says so."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anchorsfm.colmap.bundle import Held
from anchorsfm.colmap.cameras import make_camera
from anchorsfm.geometry.transforms import camera_centres, fit_similarity
from anchorsfm.mapping.base import MapperInput, Start, known_held
from anchorsfm.mapping.config import KnownConfig
from anchorsfm.mapping.finish import FinishedModels, ModellingSettings, finish_models
from anchorsfm.mapping.known import KnownCameras
from anchorsfm.mapping.zoomed import Zoomed, _settled
from anchorsfm.scene.edit import select_points, select_views, with_tracks
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.reconstruction import Camera, Reconstruction
from anchorsfm.tracks.build import build_tracks
from anchorsfm.tracks.config import AdjustConfig
from point_scene import all_matches, make_lens_scene

FOCAL_PX = 1500.0
SETTINGS = ModellingSettings(adjust=AdjustConfig(), subpixel=None, choose_camera_model=False, from_grid=False)


def scene(zooms: list[float], num_points: int = 600, seed: int = 3) -> Reconstruction:
    """True cameras, one a view."""
    cameras = [
        Camera(model="SIMPLE_RADIAL", width=1600, height=1200, params=(zoom * FOCAL_PX, 800.0, 600.0, -0.03))
        for zoom in zooms
    ]
    return make_lens_scene(tuple(cameras), len(zooms), num_points, extent=2.5, arc_deg=60.0, seed=seed)


def mapper_input(truth: Reconstruction, *, unnamed: bool = True) -> MapperInput:
    """As a run has it: one camera for pictures of one size."""
    num, camera = len(truth.image_index), make_camera("SIMPLE_RADIAL", 1480.0, 1600, 1200)
    images = ImageSet(
        root=Path(),
        names=tuple(f"{k}.jpg" for k in range(num)),
        size_wh=np.tile([1600, 1200], (num, 1)),
        camera_index=np.zeros(num, np.int64),
        focal_prior_px=np.full(num, np.nan),
        digests=("",) * num,
        may_be_zoomed=np.full(num, unnamed),
    )
    matches = all_matches(truth)
    return MapperInput(
        images=images,
        cameras=(camera,),
        known_camera=np.zeros(1, bool),
        matches=matches,
        tracks=build_tracks(matches, num),
        working_scale=np.ones(num),
    )


def finished(truth: Reconstruction, *, unnamed: bool = True, **given_settings: float) -> FinishedModels:
    given = mapper_input(truth, unnamed=unnamed)
    start = replace(truth, cameras=given.cameras, camera_index=given.images.camera_index)
    return finish_models([Start(model=start, held=Held.nothing(start))], given, replace(SETTINGS, **given_settings))


def worst_error(model: Reconstruction, truth: Reconstruction) -> float:
    """Largest error of a position, over the extent of all."""
    theirs = camera_centres(truth.cam_from_world[model.image_index])
    scale, pose = fit_similarity(camera_centres(model.cam_from_world), theirs)
    ours = scale * camera_centres(model.cam_from_world) @ pose[:, :3].T + pose[:, 3]
    return float(np.linalg.norm(ours - theirs, axis=1).max() / np.linalg.norm(np.ptp(theirs, axis=0)))


@pytest.mark.parametrize(
    "zooms",
    [
        [1, 1, 1.15, 1, 1, 1, 0.8, 1, 1.15],
        [1, 1.3, 1, 1.3, 1, 1.3, 1, 1.3],
        [1, 1, 1, 1.04, 1, 1, 1],
    ],
    ids=["two groups", "half of all", "one by 4 %"],
)
def test_zoomed_photographs_get_cameras_of_their_own(zooms: list[float]) -> None:
    truth = scene(zooms)
    found = finished(truth)
    (model,) = (result.model for result in found.results)
    assert len(model.image_index) == len(zooms) and len(model.cameras) == len(set(zooms))
    for view, zoom in enumerate(zooms):
        assert model.cameras[model.camera_index[view]].params[0] == pytest.approx(zoom * FOCAL_PX, rel=0.01)
    assert worst_error(model, truth) < 0.003
    named = {image for change in found.changes for image in change.images if "camera of their own" in change.what}
    assert {view for view, zoom in enumerate(zooms) if zoom != 1} <= named
    assert len(found.results[0].held.camera) == len(model.cameras)


@pytest.mark.parametrize("zooms", [[1.0] * 8, [1, 1, 1.012, 1, 0.996, 1, 1, 1]], ids=["one lens", "focused"])
def test_photographs_of_one_lens_share_a_camera(zooms: list[float]) -> None:
    found = finished(scene(zooms))
    assert len(found.results[0].model.cameras) == 1 and not found.changes


@pytest.mark.parametrize("given", [{"unnamed": False}, {"focal_px": FOCAL_PX}], ids=str)
def test_cameras_that_are_named_or_given_are_left_alone(given: dict[str, float]) -> None:
    found = finished(scene([1, 1, 1.1, 1, 1, 1, 1]), **given)
    assert all(len(result.model.cameras) <= 1 for result in found.results)
    assert not any("camera of their own" in change.what for change in found.changes)


def extended(model: Reconstruction, kept: list[int]) -> FinishedModels:
    """A model of which some poses stay and all cameras, finished as one that goes on."""
    given, row = mapper_input(model), model.camera_index
    given = replace(
        given,
        images=replace(given.images, camera_index=row),
        cameras=model.cameras,
        known_camera=np.ones(len(model.cameras), bool),
        known=KnownCameras(config=KnownConfig(), poses={}, cameras={}, camera_index=row),
    )
    held = replace(known_held(model, given), pose=np.isin(model.image_index, kept))
    return finish_models([Start(model=model, held=held)], given, replace(SETTINGS, goes_on=True))


@pytest.mark.parametrize("of_model", [[1.0] * 5, [1, 1, 1.2, 1, 1.2]], ids=["not in it", "known to it"])
def test_zoomed_photographs_that_are_added_to_a_model(of_model: list[float]) -> None:
    """They share its camera with their focal length, if it has one; everything that it knows stays."""
    zooms = [*of_model, 1, 1.2, 1, 1.2]
    truth, known = scene(zooms), list(dict.fromkeys(of_model))
    cameras = tuple(truth.cameras[zooms.index(zoom)] for zoom in known)
    begun = replace(truth, cameras=cameras, camera_index=np.array([*map(known.index, of_model), 0, 0, 0, 0]))
    found = extended(begun, kept=list(range(5)))
    (model,) = (result.model for result in found.results)
    assert len(model.image_index) == 9 and len(model.cameras) == 2
    assert np.allclose(model.cam_from_world[:5], truth.cam_from_world[:5], atol=1e-12)
    assert model.cameras[0] == truth.cameras[0] and (len(known) == 1 or model.cameras[1] == cameras[1])
    assert model.cameras[1].params[0] == pytest.approx(1.2 * FOCAL_PX, rel=0.005)
    assert model.camera_index.tolist() == [0 if zoom == 1 else 1 for zoom in zooms]
    assert [change.images for change in found.changes] == [(6, 8)]
    assert worst_error(model, truth) < 0.003


def test_poses_that_stay_are_not_asked() -> None:
    truth = scene([1, 1, 1.1, 1, 1, 1, 1])
    bent = finished(truth, unnamed=False).results[0].model
    assert len(bent.image_index) == 7 and worst_error(bent, truth) > 0.02
    bent = replace(bent, tracks=truth.tracks, points=truth.points, rgb=truth.rgb, error_px=truth.error_px)
    assert not extended(bent, kept=list(range(7))).changes
    assert [change.images for change in extended(bent, kept=[0, 1, 3, 4, 5, 6]).changes] == [(2,)]


@pytest.mark.parametrize(
    ("zooms", "seed"),
    [([1, 1, 1.2, 1, 1, 1, 1], 3), ([1, 1, 1.1, 1, 1, 1.1, 1, 1], 3), ([1, 1, 1, 0.85, 1, 0.85, 0.85, 1], 27559)],
    ids=["one", "two, of which all others look zoomed", "three that hide each other"],
)
def test_zooms_are_told_from_those_of_neighbours_that_they_bend(zooms: list[float], seed: int) -> None:
    """Where no point is seen by more than three views, which follow each other."""
    truth = short_tracks(scene(zooms, num_points=1500, seed=seed), seed=0)
    found = finished(truth)
    model, zoomed = found.results[0].model, [view for view, zoom in enumerate(zooms) if zoom != 1]
    assert len(model.image_index) == len(zooms) and worst_error(model, truth) < 0.003
    assert sorted(image for change in found.changes for image in change.images) == zoomed


def short_tracks(model: Reconstruction, seed: int) -> Reconstruction:
    """Each point where three views see it, that follow each other."""
    first = np.random.default_rng(seed).integers(0, len(model.image_index) - 2, len(model.points))
    after = model.tracks.obs_image - first[model.tracks.obs_point]
    return select_points(model, (after >= 0) & (after < 3))


def test_cameras_of_their_own_must_fit_clearly_better() -> None:
    """Of two photographs: with more observations, or with smaller errors of the same ones."""
    truth = scene([1, 1, 1.2, 1, 1.2, 1])
    blurred = np.random.default_rng(0).normal(0, 2, truth.tracks.obs_xy.shape)
    worse = with_tracks(truth, replace(truth.tracks, obs_xy=truth.tracks.obs_xy + blurred))
    own = np.isin(truth.tracks.obs_image, (2, 4))
    doubled = replace(truth.tracks, obs_xy=truth.tracks.obs_xy + 2 * blurred)
    very_bad = with_tracks(truth, doubled)
    fewer = select_points(truth, ~own | (np.arange(len(own)) % 4 > 0))
    zoomed = Zoomed(model=truth, given=mapper_input(truth), groups=((2, 4),), rest=((0, 1, 3, 5),), fits={})
    assert zoomed.confirmed(worse, truth) == zoomed.confirmed(fewer, truth) == ((2, 4),)
    assert not zoomed.confirmed(truth, truth)
    assert not zoomed.confirmed(truth, worse) and not zoomed.confirmed(truth, fewer)
    less_of_worse = select_points(worse, ~own | (np.arange(len(own)) % 4 > 0))
    assert not zoomed.confirmed(less_of_worse, very_bad), "more, but bad ones"
    assert not replace(zoomed, groups=((0,),)).confirmed(worse, truth), "the same focal length"
    assert not zoomed.confirmed(worse, select_views(truth, np.arange(1, 6))), "a photograph is lost"
    of_two = replace(zoomed, groups=((0, 1), (2, 4)), rest=((), ()))
    assert of_two.confirmed(replace(fewer, cameras=worse.cameras[:1] * 6), truth) == ((2, 4),), "only one of two"


@pytest.mark.parametrize(
    ("zooms", "num_cameras"),
    [([1 + 0.03 * k for k in range(9)], 9), ([1, 1, 1, 1, 1.05, 1.1, 1.15, 1.2, 1.2, 1.2], 5)],
    ids=["all the time", "for a while"],
)
def test_views_of_a_slow_zoom_have_a_camera_each(zooms: list[float], num_cameras: int) -> None:
    """Those with one focal length share theirs."""
    truth = scene(zooms)
    found = finished(truth)
    model = found.results[0].model
    assert len(model.image_index) == len(zooms) and len(model.cameras) == num_cameras
    focal_px = [model.cameras[camera].params[0] for camera in model.camera_index]
    np.testing.assert_allclose(focal_px, FOCAL_PX * np.array(zooms), rtol=0.005)
    assert worst_error(model, truth) < 0.001
    by_and_by = [change.images for change in found.changes if "by and by" in change.what]
    assert by_and_by == ([tuple(range(9))] if num_cameras == 9 else [])


def test_doubtful_focal_lengths_are_the_nearest_sure_one() -> None:
    """If that is near enough; views that were not asked are sure."""
    log_px, deviation = np.array([0.0, 0.4, 0.3, 0.05, 0.9]), np.array([0.0, 0.001, 0.1, 0.1, 0.1])
    asked = np.array([False, True, True, True, True])
    np.testing.assert_array_equal(_settled(log_px, deviation, asked), [0, 0.4, 0.4, 0, 0.9])
    np.testing.assert_array_equal(_settled(log_px, deviation, ~asked), log_px)
    everything = np.ones(5, bool)
    np.testing.assert_array_equal(_settled(log_px, np.full(5, 0.1), everything), log_px)
