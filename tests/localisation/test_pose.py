"""Poses of photographs whose camera is not the model's: what is open of the camera is adjusted, and the deviations say
how far the pose may be off for it."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from anchorsfm.colmap.cameras import project, with_focal_length
from anchorsfm.geometry.transforms import camera_centres, transform
from anchorsfm.localisation.pose import CameraGuess, PlacedView, camera_guesses, place
from anchorsfm.scene.reconstruction import Camera
from point_scene import look_at

WIDTH, HEIGHT = 1200, 900
TRUE = Camera(model="SIMPLE_RADIAL", width=WIDTH, height=HEIGHT, params=(1100.0, 611.0, 441.0, 0.06))
MODELS = Camera(model="SIMPLE_RADIAL", width=800, height=600, params=(700.0, 400.0, 300.0, 0.0))
NOTHING = {"focal_px": None, "recorded_px": np.nan, "recorded_deviation": np.nan}


def guesses(**given: float | None) -> list[CameraGuess]:
    return camera_guesses((WIDTH, HEIGHT), [MODELS], **(NOTHING | given))


def photographed(seed: int, num_points: int, depth: float = 2.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keypoints with .6 px of noise, their points, and the true pose."""
    rng = np.random.default_rng(seed)
    points = rng.uniform([-2.5, -2, -depth], [2.5, 2, depth], (num_points, 3))
    pose = look_at(np.array([rng.uniform(-2, 2), rng.uniform(-1, 1), -6.0]), rng.normal(0, 0.2, 3))
    xy, visible = project(TRUE, transform(pose, points))
    inside = visible & ((xy > 0) & (xy < [WIDTH, HEIGHT])).all(axis=1)
    return xy[inside] + rng.normal(0, 0.6, (int(inside.sum()), 2)), points[inside], pose


def errors(view: PlacedView, pose: np.ndarray) -> tuple[float, float]:
    apart = np.linalg.norm(camera_centres(view.cam_from_world) - camera_centres(pose))
    turn = Rotation.from_matrix(view.cam_from_world[:, :3] @ pose[:, :3].T)
    return float(apart), float(np.degrees(turn.magnitude()))


@pytest.mark.parametrize(
    "given",
    [{}, {"recorded_px": 1115.0, "recorded_deviation": 0.02}, {"focal_px": 1100.0}],
    ids=["nothing", "EXIF", "focal"],
)
def test_the_lens_of_another_camera_is_found_and_deviations_say_what_it_leaves_open(given: dict[str, float]) -> None:
    ratios, found = [], []
    for seed in range(12):
        xy, points, pose = photographed(seed, 500)
        view = place(xy, points, guesses(**given), min_inliers=12)
        assert isinstance(view, PlacedView)
        position, rotation = errors(view, pose)
        ratios.append((position / view.position_deviation, rotation / view.rotation_deviation_deg))
        found.append(view.camera.params)
    assert (np.sqrt(np.mean(np.square(ratios), axis=0)) > 0.4).all()
    assert (np.sqrt(np.mean(np.square(ratios), axis=0)) < 1.7).all()
    np.testing.assert_allclose(np.median(found, axis=0), TRUE.params, rtol=0.01, atol=0.01)


def test_few_points_leave_the_lens_near_what_is_usual_and_the_deviations_large() -> None:
    """A wall that is seen from the front hardly shows focal length and principal point."""
    ratios, larger = [], []
    for seed in range(12):
        xy, points, pose = photographed(seed, 60, depth=0.05)
        view = place(xy, points, guesses(recorded_px=1100.0, recorded_deviation=0.02), min_inliers=12)
        assert isinstance(view, PlacedView)
        assert np.abs(np.array(view.camera.params[1:3]) - (WIDTH / 2, HEIGHT / 2)).max() < 30
        assert view.camera.params[0] == pytest.approx(1100, rel=0.05)
        position, rotation = errors(view, pose)
        ratios.append((position / view.position_deviation, rotation / view.rotation_deviation_deg))
        known = place(xy, points, camera_guesses((WIDTH, HEIGHT), [TRUE], **NOTHING), min_inliers=12)
        assert isinstance(known, PlacedView)
        larger.append(view.rotation_deviation_deg / known.rotation_deviation_deg)
    assert np.median(larger) > 2
    assert (np.sqrt(np.mean(np.square(ratios), axis=0)) < 1.7).all()


def test_the_models_own_camera_is_kept() -> None:
    xy, points, _ = photographed(0, 300)
    (own, *_) = camera_guesses((WIDTH, HEIGHT), [TRUE], **NOTHING)
    view = place(xy, points, [own], min_inliers=12)
    assert isinstance(view, PlacedView)
    assert view.camera == TRUE and view.focal_deviation_px == 0 and not view.open_deviations.any()
    (said,) = camera_guesses((WIDTH, HEIGHT), [TRUE], **(NOTHING | {"focal_px": 1110.0}))
    view = place(xy, points, [said], min_inliers=12)
    assert isinstance(view, PlacedView) and view.camera.params == (1110.0, *TRUE.params[1:])


@pytest.mark.parametrize("zoom", [1.03, 0.9, 1.4])
def test_a_picture_of_the_models_size_that_was_zoomed_gets_a_focal_length_of_its_own(zoom: float) -> None:
    """The pose makes up for most of it, so that more than half of the points agree with the model's camera too."""
    models = with_focal_length(TRUE, TRUE.params[0] / zoom)
    ratios = []
    for seed in range(12):
        xy, points, pose = photographed(seed, 500)
        view = place(xy, points, camera_guesses((WIDTH, HEIGHT), [models], **NOTHING), min_inliers=12)
        assert isinstance(view, PlacedView) and view.focal_source == "estimated"
        assert view.camera.params[0] == pytest.approx(TRUE.params[0], rel=0.01) and view.focal_deviation_px > 0
        position, rotation = errors(view, pose)
        ratios.append((position / view.position_deviation, rotation / view.rotation_deviation_deg))
    assert (np.sqrt(np.mean(np.square(ratios), axis=0)) < 1.7).all()


@pytest.mark.parametrize(("zoom", "num_points", "depth"), [(1.0, 500, 2.0), (1.003, 500, 2.0), (1.03, 60, 0.05)])
def test_the_models_camera_is_kept_where_nothing_says_that_it_is_another(
    zoom: float, num_points: int, depth: float
) -> None:
    """The same lens, one that was focused otherwise, and a wall that is seen from the front."""
    models = with_focal_length(TRUE, TRUE.params[0] / zoom)
    for seed in range(12):
        xy, points, _ = photographed(seed, num_points, depth)
        view = place(xy, points, camera_guesses((WIDTH, HEIGHT), [models], **NOTHING), min_inliers=12)
        assert isinstance(view, PlacedView) and view.camera == models and view.focal_source == "model"


def test_a_focal_length_that_the_user_gives_is_kept_even_if_the_points_say_otherwise() -> None:
    xy, points, _ = photographed(0, 500)
    given = camera_guesses((WIDTH, HEIGHT), [TRUE], **(NOTHING | {"focal_px": 1.04 * TRUE.params[0]}))
    view = place(xy, points, given, min_inliers=12)
    assert isinstance(view, PlacedView) and view.focal_source == "given" and view.focal_deviation_px == 0
    assert view.camera.params[0] == pytest.approx(1.04 * TRUE.params[0])
