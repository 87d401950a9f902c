"""How far photographs move the principal point from the image centre."""

from dataclasses import replace

import numpy as np
import pytest

from anchorsfm.colmap.bundle import BundleOptions, Held, adjust
from anchorsfm.colmap.cameras import principal_point_px, with_principal_point
from anchorsfm.scene.reconstruction import Camera, Reconstruction
from anchorsfm.tracks.adjust import adjust_model
from anchorsfm.tracks.config import AdjustConfig
from anchorsfm.tracks.principal_point import PrincipalPoints, settle_principal_points
from point_scene import make_lens_scene

OPTIONS = BundleOptions(loss_scale_px=0.5)
CENTRE, OFF = np.array([512.0, 384.0]), np.array([500.0, 396.0])
CAMERA = Camera(model="SIMPLE_RADIAL", width=1024, height=768, params=(900.0, *OFF.tolist(), -0.05))


def start(scene: Reconstruction) -> Reconstruction:
    """Adjusted with the principal point of all cameras in the middle."""
    cameras = tuple(with_principal_point(camera, CENTRE) for camera in scene.cameras)
    return adjust(replace(scene, cameras=cameras), OPTIONS)[0]


def settle(model: Reconstruction, *, held: Held | None = None, prior: float = 0.0075) -> PrincipalPoints:
    eligible = np.ones(len(model.cameras), bool)
    expected = np.tile(CENTRE, (len(model.cameras), 1))
    return settle_principal_points(
        model, OPTIONS, held or Held.nothing(model), eligible=eligible, expected_px=expected, prior=prior
    )


def test_many_turning_views_determine_it():
    model = start(make_lens_scene((CAMERA,), num_views=12, roll_deg=90.0))
    settled = settle(model)
    assert settled.determined.tolist() == [True]
    assert np.abs(principal_point_px(settled.model.cameras[0]) - OFF).max() < 1
    assert settled.model.cameras[0].params[0] == pytest.approx(900, rel=2e-3)


def test_little_information_leaves_it_near_the_centre():
    """Three upright views of few points: a free estimate is mostly noise, and the prior makes it better."""
    settled_error, free_error = [], []
    for seed in range(6):
        camera = with_principal_point(CAMERA, CENTRE + np.array([3.0, -3.0]))
        scene = make_lens_scene((camera,), num_views=3, num_points=250, noise_px=0.8, arc_deg=30.0, seed=seed)
        model = start(scene)
        free, report = adjust(model, replace(OPTIONS, refine_principal_point=True))
        assert report.usable
        truth = principal_point_px(camera)
        settled = settle(model)
        assert not settled.determined.any()
        moved = [principal_point_px(m.cameras[0]) for m in (settled.model, free)]
        assert np.linalg.norm(moved[0] - CENTRE) < 3 * 0.0075 * 1024
        settled_error.append(np.linalg.norm(moved[0] - truth))
        free_error.append(np.linalg.norm(moved[1] - truth))
    assert np.mean(settled_error) < 0.7 * np.mean(free_error)


def test_a_strong_belief_in_the_centre_keeps_it_there():
    model = start(make_lens_scene((CAMERA,), num_views=12, num_points=600, roll_deg=90.0))
    settled = settle(model, prior=1e-7)
    assert np.abs(principal_point_px(settled.model.cameras[0]) - CENTRE).max() < 0.05
    assert not settled.determined.any()


def test_a_given_principal_point_is_where_it_is_expected():
    """Intrinsics that are given but not held: what is expected is their principal point, not the image centre."""
    scene = make_lens_scene((CAMERA,), num_views=3, num_points=300, noise_px=0.5, arc_deg=30.0)
    believed = adjust_model(
        scene, scene.tracks, AdjustConfig(principal_point_prior=1e-7), working_scale=np.ones(len(scene.image_index))
    )
    assert np.abs(principal_point_px(believed.model.cameras[0]) - OFF).max() < 0.05


def test_the_more_the_prior_allows_the_further_it_moves():
    model = start(make_lens_scene((CAMERA,), num_views=4, num_points=400, noise_px=1.0))
    moved = [
        np.linalg.norm(principal_point_px(settle(model, prior=prior).model.cameras[0]) - CENTRE)
        for prior in (1e-4, 1e-3, 1e-1)
    ]
    assert moved == sorted(moved) and moved[0] < 0.5 * moved[2]


def test_held_and_other_cameras_stay():
    centred = with_principal_point(CAMERA, CENTRE)
    scene = make_lens_scene((centred, CAMERA, centred), num_views=12, num_points=1000, roll_deg=90.0)
    held = replace(Held.nothing(scene), camera=np.array([True, False, False]))
    model = start(scene)
    eligible = np.array([True, True, False])
    settled = settle_principal_points(
        model, OPTIONS, held, eligible=eligible, expected_px=np.tile(CENTRE, (3, 1)), prior=0.0075
    )
    points = [principal_point_px(camera) for camera in settled.model.cameras]
    assert settled.model.cameras[0] == model.cameras[0]
    assert np.abs(points[1] - OFF).max() < 3
    assert (points[2] == CENTRE).all()
    assert settled.determined.tolist()[::2] == [False, False]


def test_nothing_eligible_changes_nothing():
    model = start(make_lens_scene((CAMERA,), num_views=3, num_points=200))
    nothing, nobody = Held.nothing(model), np.zeros(1, bool)
    settled = settle_principal_points(model, OPTIONS, nothing, eligible=nobody, expected_px=CENTRE[None], prior=0.0075)
    assert settled.model is model and not settled.determined.any()
