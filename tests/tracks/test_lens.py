"""The camera model of every lens from point clouds seen through known ones; conversions between camera models."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from anchorsfm.colmap.bundle import BundleOptions, Held, adjust
from anchorsfm.colmap.cameras import (
    convert_camera,
    describe_params,
    distortion_px,
    field_of_view_deg,
    focal_length_px,
    has_absurd_params,
    make_camera,
    normalised_from_pixels,
    normalised_per_pixel,
    principal_point_px,
    project,
    with_principal_point,
)
from anchorsfm.scene.reconstruction import CAMERA_MODELS, Camera, Reconstruction
from anchorsfm.tracks.lens import LensResult, choose_lenses
from anchorsfm.tracks.residuals import pixel_errors
from point_scene import make_lens_scene

WIDTH, HEIGHT = 1024, 768
OPTIONS = BundleOptions(loss_scale_px=0.5, function_tolerance=1e-4)


def lens(model: str, *params: float) -> Camera:
    return Camera(model=model, width=WIDTH, height=HEIGHT, params=params)


PINHOLE = lens("SIMPLE_PINHOLE", 900.0, 512.0, 384.0)
RADIAL = lens("RADIAL", 800.0, 512.0, 384.0, -0.18, 0.06)
TANGENTIAL = lens("OPENCV", 800.0, 815.0, 512.0, 384.0, -0.12, 0.03, 0.004, -0.005)
FISHEYE = lens("OPENCV_FISHEYE", 420.0, 420.0, 512.0, 384.0, -0.03, 0.012, -0.008, 0.001)
LENSES = (PINHOLE, RADIAL, TANGENTIAL, FISHEYE)


def chosen(truth: Reconstruction, *, held: Held | None = None, free_centre: bool = False) -> LensResult:
    """Choose from where the rounds before would be: SIMPLE_RADIAL cameras adjusted to the observations."""
    held = held or Held.nothing(truth)
    cameras = tuple(
        camera if fixed else convert_camera(camera, "SIMPLE_RADIAL")
        for camera, fixed in zip(truth.cameras, held.camera, strict=True)
    )
    start, _ = adjust(replace(truth, cameras=cameras), OPTIONS, held)
    return choose_lenses(start, OPTIONS, held, free_centre=np.full(len(cameras), free_centre))


def median_error(model: Reconstruction) -> float:
    tight = replace(OPTIONS, function_tolerance=1e-8)
    return float(np.median(pixel_errors(adjust(model, tight)[0])))


@pytest.mark.parametrize("outliers", [0.0, 0.04])
def test_a_pinhole_gets_no_distortion(outliers):
    result = chosen(make_lens_scene((PINHOLE,), outliers=outliers))
    assert [choice.camera_model for choice in result.choices] == ["SIMPLE_PINHOLE"]
    (camera,) = result.model.cameras
    assert camera.model == "SIMPLE_PINHOLE" and abs(camera.params[0] / 900 - 1) < 3e-3


def test_a_pinhole_with_its_principal_point_off_the_centre_gets_no_distortion():
    off = with_principal_point(PINHOLE, np.array([490.0, 400.0]))
    truth = make_lens_scene((off,), roll_deg=60.0)
    result = chosen(truth, free_centre=True)
    assert result.choices[0].camera_model == "SIMPLE_PINHOLE"
    assert np.abs(principal_point_px(result.model.cameras[0]) - [490, 400]).max() < 2


def test_clear_radial_distortion_is_found():
    result = chosen(make_lens_scene((RADIAL,)))
    trials = {trial.camera_model: trial for trial in result.choices[0].trials}
    best = trials[result.choices[0].camera_model]
    assert best.median_error_px < 1.02 * trials["RADIAL"].median_error_px
    assert best.score < 0.9 * trials["SIMPLE_RADIAL"].score < trials["SIMPLE_PINHOLE"].score
    assert "FISHEYE" not in best.camera_model


def test_tangential_distortion_is_found():
    result = chosen(make_lens_scene((TANGENTIAL,)))
    assert result.choices[0].camera_model == "OPENCV"
    assert np.allclose(result.model.cameras[0].params[4:], TANGENTIAL.params[4:], atol=4e-3)


def test_a_fisheye_gets_a_model_that_follows_it():
    truth = make_lens_scene((FISHEYE,), num_points=1200, extent=9.0)
    result = chosen(truth)
    assert "FISHEYE" in result.choices[0].camera_model
    assert median_error(result.model) < 1.05 * median_error(truth)


def test_each_camera_decides_for_itself_and_held_ones_stay():
    truth = make_lens_scene((PINHOLE, TANGENTIAL, RADIAL), num_views=12)
    held = replace(Held.nothing(truth), camera=np.array([False, False, True]))
    result = chosen(truth, held=held)
    assert [choice.camera_model for choice in result.choices] == ["SIMPLE_PINHOLE", "OPENCV", "RADIAL"]
    assert result.model.cameras[2] == RADIAL
    assert not result.choices[2].trials and len(result.choices[0].trials) >= 3


@pytest.mark.parametrize("num_views", [3, 4, 6])
def test_few_views_have_square_pixels(num_views: int) -> None:
    """What a second focal length explains of few views is noise, or a lens that more of them show."""
    (choice,) = chosen(make_lens_scene((TANGENTIAL,), num_views=num_views, num_points=900)).choices
    assert (choice.camera_model == "OPENCV") == (num_views > 4)
    assert any("OPENCV" in trial.camera_model for trial in choice.trials) == (num_views > 4)


def test_few_observations_keep_the_simplest_distortion():
    truth = make_lens_scene((TANGENTIAL,), num_views=4, num_points=140)
    assert len(truth.tracks.obs_point) < 300
    result = chosen(truth)
    assert result.choices[0].camera_model == "SIMPLE_RADIAL" == result.model.cameras[0].model
    assert not result.choices[0].trials


@pytest.mark.parametrize(
    ("source", "model", "largest_px"),
    [
        (PINHOLE, "FULL_OPENCV", 1e-3),
        (PINHOLE, "OPENCV_FISHEYE", 0.05),
        (RADIAL, "OPENCV", 1e-3),
        (RADIAL, "FULL_OPENCV", 1e-2),
        (RADIAL, "THIN_PRISM_FISHEYE", 0.5),
        (lens("SIMPLE_RADIAL", 800.0, 500.0, 390.0, -0.1), "RADIAL", 1e-3),
        (FISHEYE, "THIN_PRISM_FISHEYE", 1e-3),
        (lens("SIMPLE_RADIAL_FISHEYE", 420.0, 512.0, 384.0, -0.02), "OPENCV_FISHEYE", 1e-3),
    ],
)
def test_a_richer_model_looks_the_same(source, model, largest_px):
    """A camera becomes one of a model that contains it, or comes very near, all over the image."""
    other = convert_camera(source, model)
    assert other.model == model and (other.width, other.height) == (WIDTH, HEIGHT)
    assert np.allclose(principal_point_px(other), principal_point_px(source))
    xy = pixels()
    plane = normalised_from_pixels(source, xy)
    near = np.linalg.norm(np.nan_to_num(plane, nan=np.inf), axis=1) < 3.5
    assert near.sum() > 0.6 * len(xy)
    again, valid = project(other, np.concatenate([plane[near], np.ones((near.sum(), 1))], axis=1))
    assert valid.all() and np.abs(again - xy[near]).max() < largest_px


def test_a_poorer_model_is_the_nearest_of_its_kind():
    poorer = convert_camera(RADIAL, "SIMPLE_RADIAL")
    miss = lambda camera: (distance_px(RADIAL, camera) ** 2).sum()  # noqa: E731
    for k, step in ((0, 1.0), (3, 1e-3)):
        for sign in (-1, 1):
            params = np.array(poorer.params)
            params[k] += sign * step
            assert miss(replace(poorer, params=tuple(params.tolist()))) > miss(poorer)
    assert convert_camera(RADIAL, "RADIAL") is RADIAL


def pixels(steps: int = 17) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(2, WIDTH - 2, steps), np.linspace(2, HEIGHT - 2, steps))
    return np.stack([x.ravel(), y.ravel()], axis=1)


def distance_px(source: Camera, other: Camera) -> np.ndarray:
    """How far apart two cameras see the same rays, on the pixels that conversion looks at."""
    x, y = np.meshgrid((np.arange(24) + 0.5) / 24 * WIDTH, (np.arange(24) + 0.5) / 24 * HEIGHT)
    xy = np.stack([x.ravel(), y.ravel()], axis=1)
    rays = np.concatenate([normalised_from_pixels(source, xy), np.ones((len(xy), 1))], axis=1)
    return np.linalg.norm(project(other, rays)[0] - xy, axis=1)


@pytest.mark.parametrize("model", CAMERA_MODELS)
def test_a_new_camera_has_no_distortion_of_its_own(model):
    camera = make_camera(model, 800.0, WIDTH, HEIGHT, np.array([500.0, 390.0]))
    assert principal_point_px(camera).tolist() == [500, 390] and focal_length_px(camera) == 800
    if "FISHEYE" not in model:
        assert distortion_px(camera).max() < 1e-6


def test_distortion_is_that_of_the_polynomial():
    camera = lens("SIMPLE_RADIAL", 800.0, 512.0, 384.0, 0.1)
    found = distortion_px(camera, 64)
    corner = normalised_from_pixels(camera, np.array([[WIDTH / 128, HEIGHT / 128]]))[0]
    radius = np.linalg.norm(corner)
    assert found.max() == pytest.approx(800 * 0.1 * radius**3, rel=1e-6)
    assert found.min() < 1e-3 * found.max()


def test_size_of_a_pixel_of_a_pinhole_is_one_over_the_focal_length():
    assert np.allclose(normalised_per_pixel(PINHOLE, pixels()), 1 / 900)
    assert np.allclose(normalised_per_pixel(lens("PINHOLE", 900.0, 900.0, 512.0, 384.0), pixels()), 1 / 900)
    assert len(normalised_per_pixel(RADIAL, np.zeros((0, 2)))) == 0


@pytest.mark.parametrize("camera", [RADIAL, TANGENTIAL])
def test_size_of_a_pixel_agrees_with_derivatives_of_the_projection(camera):
    """The area that a pixel covers is one over the determinant of d(pixel) / d(plane)."""
    xy, step = pixels(), 1e-5
    plane = normalised_from_pixels(camera, xy)
    along = []
    for offset in np.eye(2) * step:
        ends = [
            project(camera, np.concatenate([plane + s * offset, np.ones((len(xy), 1))], axis=1))[0] for s in (1, -1)
        ]
        along.append((ends[0] - ends[1]) / (2 * step))
    area = np.abs(along[0][:, 0] * along[1][:, 1] - along[0][:, 1] * along[1][:, 0])
    assert np.allclose(normalised_per_pixel(camera, xy), 1 / np.sqrt(area), rtol=1e-5)


def test_size_of_a_pixel_of_an_equidistant_fisheye():
    """r = f theta and R = tan theta give sqrt(dR/dr * R/r) = sqrt(tan theta / (theta cos^2 theta)) / f."""
    camera = lens("SIMPLE_RADIAL_FISHEYE", 420.0, 512.0, 384.0, 0.0)
    xy = pixels(16)
    theta = np.linalg.norm(xy - [512, 384], axis=1) / 420
    inside = theta < 1.4
    truth = np.sqrt(np.tan(theta) / theta) / np.cos(theta) / 420
    assert inside.mean() > 0.8
    assert np.allclose(normalised_per_pixel(camera, xy)[inside], truth[inside], rtol=2e-3)


@pytest.mark.parametrize("camera", [FISHEYE, lens("SIMPLE_RADIAL_FISHEYE", 420.0, 512.0, 384.0, -0.02)])
def test_fisheye_pixels_whose_ray_does_not_meet_the_plane_are_nan(camera):
    xy = np.array([[512.0, 384.0], [200.0, 150.0], [60.0, 45.0], [2.0, 1.5], [-400.0, 384.0]])
    plane = normalised_from_pixels(camera, xy)
    assert np.isfinite(plane).all(1).tolist() == [True, True, True, False, False]


def test_field_of_view():
    half_diagonal = np.hypot(512, 384)
    assert field_of_view_deg(PINHOLE) == pytest.approx(2 * np.degrees(np.arctan(half_diagonal / 900)))
    fisheye = lens("SIMPLE_RADIAL_FISHEYE", 480.0, 512.0, 384.0, 0.0)
    assert field_of_view_deg(fisheye) == pytest.approx(2 * np.degrees(half_diagonal / 480))
    # a corner beyond the half space has no ray on the plane z = 1: the focal length has to do
    beyond = replace(fisheye, params=(300.0, 512.0, 384.0, 0.0))
    assert field_of_view_deg(beyond) == pytest.approx(2 * np.degrees(np.arctan(half_diagonal / 300)))


@pytest.mark.parametrize(
    ("camera", "absurd"),
    [
        *((camera, False) for camera in LENSES),
        (lens("SIMPLE_PINHOLE", 90.0, 512.0, 384.0), True),
        (lens("SIMPLE_PINHOLE", 15000.0, 512.0, 384.0), False),
        (lens("SIMPLE_PINHOLE", 30000.0, 512.0, 384.0), True),
        (lens("SIMPLE_RADIAL", 10000.0, 512.0, 384.0, -5.0), False),
        (lens("SIMPLE_RADIAL", 10000.0, 512.0, 384.0, -50.0), True),
        (lens("SIMPLE_RADIAL", 800.0, 512.0, 384.0, -1.2), True),
        (lens("SIMPLE_PINHOLE", 800.0, -5.0, 384.0), True),
        (lens("FULL_OPENCV", 800.0, 800.0, 512.0, 384.0, 2.0, 0.1, 0.0, 0.0, 0.0, 2.1, 0.1, 0.0), False),
        (lens("FULL_OPENCV", 800.0, 800.0, 512.0, 384.0, 20.0, 0.1, 0.0, 0.0, 0.0, 2.1, 0.1, 0.0), True),
    ],
)
def test_absurd_parameters_are_recognised(camera, absurd):
    assert has_absurd_params(camera) == absurd


def test_parameters_are_said_in_words():
    assert describe_params(lens("OPENCV", 568.0, 568.0, 512.0, -5.0, 0.1, -1.32, 0.0, 0.0)) == (
        "focal length 568 px, principal point 512, -5 px, distortion -1.3 of a picture of 1024x768 px"
    )
    assert ", distortion 0 of" in describe_params(lens("SIMPLE_PINHOLE", 90.0, 512.0, 384.0))


def test_points_behind_a_camera_are_not_seen():
    turn = Rotation.from_euler("y", 180, degrees=True).as_matrix()
    points = np.array([[0.1, 0.2, 2.0], [0.0, 0.0, 5.0]])
    for camera in LENSES:
        assert project(camera, points)[1].all()
        assert not project(camera, points @ turn.T)[1].any()
