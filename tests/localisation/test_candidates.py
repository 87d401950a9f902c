"""Which images of a model a photograph is compared with, and which poses are believed."""

from dataclasses import replace

import numpy as np
import pytest

from anchorsfm.colmap.cameras import make_camera, project
from anchorsfm.features.base import Features
from anchorsfm.features.ratio_test import RatioTestMatcher
from anchorsfm.geometry.transforms import camera_centres, rotation_angle_deg
from anchorsfm.localisation.candidates import PointFinder
from anchorsfm.localisation.index import VERSION, IndexSettings, ModelIndex
from anchorsfm.localisation.pose import CameraGuess, PlacedView, camera_guesses, place
from anchorsfm.localisation.run import place_among
from anchorsfm.scene.reconstruction import Camera

SETTINGS = IndexSettings(
    version=VERSION, max_image_size=1024, max_keypoints=12288, contrast_threshold=0.005, max_ratio=0.85
)
CAMERA = make_camera("SIMPLE_RADIAL", 800.0, 1000, 750)
BARREL = Camera(model="SIMPLE_RADIAL", width=1000, height=750, params=(800.0, 500.0, 375.0, -0.1))
GUESS = CameraGuess.exact(CAMERA, "model")
POSE = np.column_stack([np.eye(3), [0.1, -0.2, 0.3]])


def descriptors(rng: np.random.Generator, count: int) -> np.ndarray:
    root = np.sqrt(rng.dirichlet(np.full(128, 0.3), count))
    return np.round(512 * root).clip(0, 255).astype(np.uint8)


def features(descriptor: np.ndarray) -> Features:
    count = len(descriptor)
    return Features(
        size_wh=np.array([1000, 750]),
        xy=np.arange(2.0 * count).reshape(-1, 2),
        descriptor=descriptor,
        keypoint=np.arange(count),
        score=np.ones(count, np.float32),
    )


@pytest.mark.parametrize("views", [30, 250], ids=["few images", "a short list of many"])
def test_the_images_that_look_most_alike_are_found_and_their_points_matched(views: int) -> None:
    rng, each = np.random.default_rng(0), 60
    index = ModelIndex(
        settings=SETTINGS,
        num_points=views * each,
        descriptor=descriptors(rng, views * each),
        point=np.arange(views * each, dtype=np.int32),
        start=np.arange(views + 1) * each,
    )
    shown = index.descriptor[index.rows(17)]
    noisy = np.clip(shown + rng.normal(0, 6, shown.shape), 0, 255).round().astype(np.uint8)
    photograph = features(np.concatenate([descriptors(rng, 200), noisy]))
    finder = PointFinder(index=index, max_candidates=3)
    candidates = finder.candidates(photograph)
    assert len(candidates) == 3 and 17 in candidates
    found = finder.all(photograph)
    right = found.point - 17 * each == found.xy[:, 0] / 2 - 200
    assert right.sum() > 50 and right.mean() > 0.8
    nothing = features(descriptors(rng, 0))
    assert len(finder.all(nothing).point) == 0 and not list(finder.first(nothing, 1))


@pytest.mark.parametrize(
    "case", ("plain", "many points", "few points", "much that disagrees", "more that disagrees", "another lens")
)
def test_all_candidates_are_compared_only_where_the_first_leave_something_open(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten views of the same points, by the descriptors of each with noise of its own."""
    rng = np.random.default_rng(0)
    num_points = {"few points": 200, "more that disagrees": 1000, "many points": 1200}.get(case, 500)
    right = {"much that disagrees": 170, "more that disagrees": 400}.get(case, num_points)
    xy, points = matches(rng, right, 0)
    wrong = num_points - len(xy)
    xy = np.concatenate([xy, rng.uniform(0, (1000, 750), (wrong, 2))])
    points = np.concatenate([points, rng.uniform((-2, -1.5, 4), (2, 1.5, 8), (wrong, 3))])
    shown = descriptors(rng, num_points)
    index = ten_views(rng, shown)
    compared = count_comparisons(monkeypatch)
    cameras = [] if case == "another lens" else [CAMERA]
    guesses = camera_guesses((1000, 750), cameras, focal_px=None, recorded_px=780.0, recorded_deviation=0.02)
    finder = PointFinder(index=index, max_candidates=8)
    photograph = replace(features(shown), xy=xy)
    first = () if case == "another lens" else finder.first(photograph, 300)
    found, view = place_among(first, lambda: finder.all(photograph), points, guesses, min_inliers=25)
    assert isinstance(view, PlacedView) and np.abs(view.cam_from_world - POSE).max() < 0.02
    assert view.inlier.sum() > 0.9 * (num_points - wrong) and (found.xy == xy[found.point]).all(1).mean() > 0.95
    assert len(compared) == {"many points": 2, "plain": 6, "another lens": 8}.get(case, 6 + 8)


def test_a_photograph_that_is_zoomed_is_compared_with_everything_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its focal length is open, and the more points there are the better they determine it: the two likest images give
    more than enough for a pose, and more of the likest would not be all."""
    rng, compared = np.random.default_rng(0), count_comparisons(monkeypatch)
    xy, points = matches(rng, 1200, 0, camera=make_camera("SIMPLE_RADIAL", 1.04 * 800, 1000, 750))
    shown = descriptors(rng, 1200)
    finder = PointFinder(index=ten_views(rng, shown), max_candidates=8)
    photograph = replace(features(shown), xy=xy)
    guesses = camera_guesses((1000, 750), [CAMERA], focal_px=None, recorded_px=np.nan, recorded_deviation=np.nan)
    first = finder.first(photograph, 300)
    _, view = place_among(first, lambda: finder.all(photograph), points, guesses, min_inliers=25)
    assert isinstance(view, PlacedView) and view.focal_source == "estimated" and view.inlier.mean() > 0.9
    assert view.camera.params[0] == pytest.approx(1.04 * 800, rel=0.005)
    assert len(compared) == 2 + 8


def ten_views(rng: np.random.Generator, shown: np.ndarray) -> ModelIndex:
    """A model whose images all show the same points, by descriptors with noise of their own."""
    views, num_points = 10, len(shown)
    return ModelIndex(
        settings=SETTINGS,
        num_points=num_points,
        descriptor=np.clip(shown + rng.normal(0, 5, (views, *shown.shape)), 0, 255).astype(np.uint8).reshape(-1, 128),
        point=np.tile(np.arange(num_points, dtype=np.int32), views),
        start=np.arange(views + 1) * num_points,
    )


def count_comparisons(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by one with each image that a photograph is compared with."""
    compared, match = [], RatioTestMatcher.match
    monkeypatch.setattr(RatioTestMatcher, "match", lambda *given: compared.append(1) or match(*given))
    return compared


def matches(
    rng: np.random.Generator, right: int, wrong: int, spot: bool = False, camera: Camera = CAMERA
) -> tuple[np.ndarray, np.ndarray]:
    points = rng.uniform((-2, -1.5, 4), (2, 1.5, 8), (right + wrong, 3))
    if spot:
        points = points * 0.02 + (0, 0, 5)
    xy, _ = project(camera, points + POSE[:, 3])
    xy = xy + rng.normal(0, 0.5, xy.shape)
    xy[right:] = rng.uniform(0, (1000, 750), (wrong, 2))
    return xy, points


def test_poses_that_agree_by_chance_are_refused() -> None:
    for seed in range(10):
        found = place(*matches(np.random.default_rng(seed), 0, 300), [GUESS], min_inliers=25)
        assert isinstance(found, str) and "as by chance" in found
    found = place(*matches(np.random.default_rng(1), 10, 0), [GUESS], min_inliers=25)
    assert isinstance(found, str) and "only 10 of its keypoints" in found
    found = place(*matches(np.random.default_rng(2), 100, 0, spot=True), [GUESS], min_inliers=25)
    assert isinstance(found, str) and "one spot" in found


def test_the_pose_and_an_unknown_focal_length_come_from_the_points() -> None:
    """Of a focal length between those that are tried."""
    guesses = camera_guesses((1000, 750), [], focal_px=None, recorded_px=np.nan, recorded_deviation=np.nan)
    camera = make_camera("SIMPLE_RADIAL", 870.0, 1000, 750)
    assert min(abs(guess.camera.params[0] - 870) for guess in guesses) > 60
    found = place(*matches(np.random.default_rng(3), 300, 300, camera=camera), guesses, min_inliers=25)
    assert isinstance(found, PlacedView) and found.focal_source == "estimated"
    assert abs(found.camera.params[0] - 870) < 4 * found.focal_deviation_px < 40
    assert np.abs(found.cam_from_world - POSE).max() < 0.03 and found.inlier[:300].mean() > 0.95


def test_recorded_focal_lengths_decide_which_cameras_are_tried() -> None:
    """A camera of the model with the same picture size counts unless EXIF says that the lens was another."""

    def sources(recorded: float, size_wh: tuple[int, int] = (1000, 750)) -> list[str]:
        found = camera_guesses(size_wh, [CAMERA], focal_px=None, recorded_px=recorded, recorded_deviation=0.02)
        return [guess.source for guess in found if guess.source != "estimated"]

    assert sources(np.nan) == ["model"] and sources(810.0) == ["model", "EXIF"] and sources(1600.0) == ["EXIF"]
    assert sources(np.nan, (750, 1000)) == []
    given = camera_guesses((640, 480), [CAMERA], focal_px=500.0, recorded_px=900.0, recorded_deviation=0.02)
    assert [guess.source for guess in given] == ["given"] and given[0].camera.params[0] == 500
    same = camera_guesses((1000, 750), [BARREL], focal_px=815.0, recorded_px=np.nan, recorded_deviation=np.nan)
    assert same[0].camera.params == (815.0, *BARREL.params[1:]), "the lens of the model's camera"
    other = camera_guesses((1000, 750), [BARREL], focal_px=500.0, recorded_px=np.nan, recorded_deviation=np.nan)
    assert other[0].camera.params[0] == 500 and other[0].camera.params[-1] == 0


def test_deviations_are_those_of_the_errors() -> None:
    """Root mean square of errors over deviations, of many photographs with noise of their own."""
    shares = []
    for seed in range(20):
        found = place(*matches(np.random.default_rng(seed), 120, 30), [GUESS], min_inliers=25)
        assert isinstance(found, PlacedView)
        centre = camera_centres(found.cam_from_world) - camera_centres(POSE)
        turn_deg = rotation_angle_deg(found.cam_from_world[None, :, :3] @ POSE[:, :3].T)[0]
        shares.append((np.linalg.norm(centre) / found.position_deviation, turn_deg / found.rotation_deviation_deg))
    assert np.sqrt(np.mean(np.square(shares), axis=0)) == pytest.approx([1, 1], rel=0.25)


@pytest.mark.parametrize(("focal_px", "source"), [(815.0, "model"), (1100.0, "EXIF")])
def test_a_camera_that_is_less_likely_must_explain_clearly_more(focal_px: float, source: str) -> None:
    """The model's camera is kept where EXIF's fits a little better, not where it fits much better."""
    camera = make_camera("SIMPLE_RADIAL", focal_px, 1000, 750)
    exif = CameraGuess.usual((1000, 750), focal_px, "EXIF", 0.02)
    found = place(*matches(np.random.default_rng(0), 300, 0, camera=camera), [GUESS, exif], min_inliers=25)
    assert isinstance(found, PlacedView) and found.focal_source == source


def test_a_recorded_focal_length_counts_where_points_say_little() -> None:
    """A wall that is seen from straight ahead tells the focal length and the distance together only."""
    xy, points = matches(np.random.default_rng(0), 300, 0)
    points[:, 2] = 6
    xy, _ = project(CAMERA, points + POSE[:, 3])
    xy = xy + np.random.default_rng(1).normal(0, 0.5, xy.shape)
    exif = CameraGuess.usual((1000, 750), 850.0, "EXIF", 0.02)
    found = place(xy, points, [exif], min_inliers=25)
    assert isinstance(found, PlacedView) and found.inlier.mean() > 0.95
    assert abs(found.camera.params[0] - 850) < 17 and found.focal_deviation_px == pytest.approx(17, rel=0.3)
