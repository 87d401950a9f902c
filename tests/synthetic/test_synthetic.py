"""Known scenes: pictures agree with geometry, and predictions have the errors they were asked to have."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image

from anchorsfm.evaluation import evaluate_poses, read_poses
from anchorsfm.frontend.base import Frontend, PairPredictor
from anchorsfm.geometry.pixels import pixel_centres
from anchorsfm.geometry.transforms import camera_centres, compose, invert, transform
from anchorsfm.io.images import load_image_set
from anchorsfm.io.pictures import load_rgb
from anchorsfm.io.store import Store
from anchorsfm.pairing import make_pairs
from anchorsfm.scene.pairs import PairStatus
from anchorsfm.scene.progress import SILENT
from anchorsfm.synthetic import (
    OracleNoise,
    SceneConfig,
    SyntheticFrontend,
    SyntheticScene,
    image_set,
    make_scene,
    render_depth,
    render_image,
    write_photographs,
)
from anchorsfm.synthetic.oracle import SyntheticPredictor
from anchorsfm.synthetic.scenes import cast_pixels, project, rays
from anchorsfm.synthetic.solids import Solids, cast

SMALL = SceneConfig(num_images=4, size_wh=(320, 240), arc_deg=30.0)


@pytest.fixture(scope="module")
def scene() -> SyntheticScene:
    return make_scene(SMALL)


def world_points(scene: SyntheticScene, image: int, xy: np.ndarray) -> np.ndarray:
    origin, direction = rays(scene, image, xy)
    return origin + cast(scene.solids, origin, direction).distance[:, None] * direction


# ----------------------------------------------------------------------------------------------------------- geometry


def test_hits_against_formulas() -> None:
    solids = Solids(
        room_half=np.array([5.0, 2.0, 6.0]),
        box_centre=np.array([[0.0, 0.0, 3.0]]),
        box_half=np.array([[1.0, 1.0, 1.0]]),
        box_yaw_rad=np.array([np.pi / 4]),
        sphere_centre=np.array([[3.0, 0.0, 0.0]]),
        sphere_radius=np.array([0.5]),
    )
    direction = np.array([[0, 0, 1], [0, 0, -2], [1, 0, 0], [0, 1, 0], [0.1, 0, 1], [-1, 0, 0.0]])
    hits = cast(solids, np.zeros(3), direction)
    # the turned box shows an edge at distance 3 - sqrt 2; beside it, the face x + z = 3 - sqrt 2 ... slopes away
    edge = 3 - np.sqrt(2)
    assert hits.distance == pytest.approx([edge, 3, 2.5, 2, edge / 0.9, 5], rel=1e-6)
    assert hits.solid.tolist() == [1, 0, 2, 0, 1, 0]
    assert hits.normal[[1, 2, 3, 5]] == pytest.approx(np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0], [1, 0, 0]]))
    assert hits.normal[4] == pytest.approx(np.array([1, 0, -1]) / np.sqrt(2))


def test_depth_reprojects_between_views(scene: SyntheticScene) -> None:
    xy = pixel_centres(SMALL.size_wh)[::4, ::4].reshape(-1, 2)
    seen = []
    for a, b in ((0, 1), (3, 1), (0, 3)):
        points = world_points(scene, a, xy)
        back, depth = project(scene, a, points)
        assert back == pytest.approx(xy, abs=1e-9) and (depth > 0.2).all()
        xy_b, depth_b = project(scene, b, points)
        inside = (depth_b > 0) & (xy_b > 0).all(1) & (xy_b < SMALL.size_wh).all(1)
        surface = cast_pixels(scene, b, xy_b[inside]).distance
        assert (surface <= depth_b[inside] * (1 + 1e-9)).all()  # nothing is seen through a surface
        seen.append((np.abs(surface / depth_b[inside] - 1) < 1e-6).sum() / len(xy))
    assert seen[0] > 0.6 and seen[2] > 0.3


def test_single_precision_agrees(scene: SyntheticScene) -> None:
    xy = pixel_centres(SMALL.size_wh).reshape(-1, 2)
    exact, single = cast_pixels(scene, 0, xy), cast_pixels(scene, 0, xy.astype(np.float32))
    assert single.distance.dtype == np.float32
    same = exact.solid == single.solid
    assert same.mean() > 0.999
    assert_allclose(single.distance[same], exact.distance[same], rtol=1e-4)
    assert_allclose(render_depth(scene, 0).ravel(), exact.distance, rtol=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_cameras_stand_clear_and_look_inwards(seed: int) -> None:
    loop = make_scene(SceneConfig(num_images=12, arc_deg=360.0, size_wh=(64, 48), seed=seed))
    for image in range(12):
        assert render_depth(loop, image).min() > 0.15
    centres = camera_centres(loop.cam_from_world)
    assert (loop.cam_from_world[:, 2, :3] * -centres).sum(1).min() > 2  # the middle lies ahead
    gaps = np.linalg.norm(centres - np.roll(centres, 1, axis=0), axis=1)
    assert gaps.min() > 0.8 and gaps.max() < 2.4
    rotations = loop.cam_from_world[:, :, :3]
    assert rotations @ rotations.swapaxes(1, 2) == pytest.approx(np.tile(np.eye(3), (12, 1, 1)), abs=1e-12)


def test_options() -> None:
    config = SceneConfig(
        num_images=5, size_wh=(400, 600), focal=1.1, focal_spread=0.2, principal_point_offset_px=(7.0, -3.0)
    )
    varied = make_scene(config)
    assert len(set(varied.focal_px)) == 5 and (np.abs(np.log(varied.focal_px / 660)) <= np.log(1.2)).all()
    assert varied.principal_point_px.tolist() == [207, 297]
    assert varied.intrinsics(2)[:2, 2].tolist() == [207, 297]
    assert image_set(varied).num_cameras == 5 and image_set(make_scene(SMALL)).num_cameras == 1
    assert len(set(make_scene(SMALL).focal_px)) == 1
    again, other = make_scene(SMALL), make_scene(SceneConfig(num_images=4, size_wh=(320, 240), arc_deg=30.0, seed=1))
    assert np.array_equal(make_scene(SMALL).cam_from_world, again.cam_from_world)
    assert not np.allclose(again.solids.box_centre, other.solids.box_centre)


# ----------------------------------------------------------------------------------------------------------- pictures


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[SyntheticScene, Path]:
    """Two neighbours of an eight-image arc, at full size."""
    scene = make_scene(SceneConfig(num_images=2, arc_deg=10.0))
    return scene, write_photographs(scene, tmp_path_factory.mktemp("photographs"), exif_focal=True)


def test_photographs_agree_with_each_other(written: tuple[SyntheticScene, Path]) -> None:
    scene, truth = written
    images = load_image_set(truth.parent / "images")
    a, b = (cv2.GaussianBlur(load_rgb(images, k).astype(np.float32), (0, 0), 1.5) for k in (0, 1))
    xy = pixel_centres(scene.config.size_wh)[20:-20:5, 20:-20:5].reshape(-1, 2)
    points = world_points(scene, 0, xy)
    xy_b, depth = project(scene, 1, points)
    inside = (xy_b > 2).all(1) & (xy_b < np.array(scene.config.size_wh) - 2).all(1)
    surface = cast_pixels(scene, 1, xy_b[inside]).distance
    inside[inside] = np.abs(surface / depth[inside] - 1) < 1e-3
    assert inside.mean() > 0.5

    def differences(shift: float) -> np.ndarray:
        sample = (xy_b[inside] + shift - 0.5).astype(np.float32)[None]
        found = cv2.remap(b, sample[..., 0], sample[..., 1], cv2.INTER_LINEAR)[0]
        here = a[tuple((xy[inside] - 0.5).astype(int).T[::-1])]
        return np.abs(found - here).mean(1)

    aligned = np.median(differences(0))
    assert aligned < 5  # of 255; textures have a standard deviation of about 30
    assert np.median(differences(6)) > 2.5 * aligned
    # the minimum is at no shift: pixel conventions of pictures and geometry are the same
    assert aligned < min(np.median(differences(1.0)), np.median(differences(-1.0)))


def test_pictures_are_rich_in_distinctive_features(written: tuple[SyntheticScene, Path]) -> None:
    scene, truth = written
    sift = cv2.SIFT_create()
    found = [sift.detectAndCompute(cv2.imread(str(truth.parent / "images" / n), 0), None) for n in scene.names]
    assert all(len(keypoints) > 1500 for keypoints, _ in found)
    nearest = cv2.BFMatcher().knnMatch(found[0][1], found[1][1], k=2)
    good = [best for best, second in nearest if best.distance < 0.8 * second.distance]
    xy_a = np.array([found[0][0][match.queryIdx].pt for match in good]) + 0.5
    xy_b = np.array([found[1][0][match.trainIdx].pt for match in good]) + 0.5
    error = np.linalg.norm(project(scene, 1, world_points(scene, 0, xy_a))[0] - xy_b, axis=1)
    assert (error < 2).sum() > 400 and (error < 2).mean() > 0.9
    assert np.median(error) < 0.3


def test_edges_are_antialiased() -> None:
    """Along outlines a picture looks like one rendered at three times the size and averaged; single rays would not."""
    small, large = make_scene(SMALL), make_scene(SceneConfig(num_images=4, size_wh=(960, 720), arc_deg=30.0))
    averaged = cv2.resize(render_image(large, 0, noise=0.0), (320, 240), interpolation=cv2.INTER_AREA).astype(float)
    difference = np.abs(render_image(small, 0, noise=0.0) - averaged).mean(-1)
    outline = cv2.dilate(
        (np.abs(cv2.Laplacian(render_depth(small, 0), cv2.CV_64F)) > 0.3).astype(np.uint8), np.ones((2, 2))
    )
    assert 0.01 < outline.mean() < 0.2
    assert np.median(difference) < 9
    assert difference[outline > 0].mean() < 9 and np.percentile(difference[outline > 0], 95) < 24


def test_written_files(written: tuple[SyntheticScene, Path]) -> None:
    scene, path = written
    images = load_image_set(path.parent / "images")
    assert images.names == scene.names == ("0000.jpg", "0001.jpg")
    assert images.size_wh.tolist() == [[800, 600]] * 2 and images.num_cameras == 1
    assert images.focal_prior_px == pytest.approx(scene.focal_px, rel=1e-4)
    with Image.open(images.path(0)) as image:
        assert image.format == "JPEG"
    entry = json.loads(path.read_text())["0001.jpg"]
    assert np.array(entry["K"]) == pytest.approx(scene.intrinsics(1)) and entry["width"] == 800
    truth = read_poses(path)
    assert truth.cam_from_world == pytest.approx(scene.cam_from_world) and truth.focal_px == pytest.approx(
        scene.focal_px
    )
    assert evaluate_poses(truth, truth).auc[0] > 0.99


def test_exif_is_optional_and_rendering_repeatable(tmp_path: Path) -> None:
    tiny = make_scene(SceneConfig(num_images=1, size_wh=(64, 48)))
    write_photographs(tiny, tmp_path / "a")
    write_photographs(tiny, tmp_path / "b")
    images = load_image_set(tmp_path / "a" / "images")
    assert np.isnan(images.focal_prior_px).all()
    assert images.digests == load_image_set(tmp_path / "b" / "images").digests


# -------------------------------------------------------------------------------------------------------- predictions


def predictor(scene: SyntheticScene, noise: OracleNoise, graph: str = "complete", **options: int) -> SyntheticPredictor:
    images = image_set(scene)
    frontend = SyntheticFrontend(scene=scene, noise=noise, **options)
    return frontend.open(images, make_pairs(images.num_images, graph), Store(None), SILENT)


def test_has_the_shape_of_a_front_end(scene: SyntheticScene) -> None:
    frontend: Frontend = SyntheticFrontend(scene=scene)
    pairs = make_pairs(4, "swin-1-noncyclic")
    opened: PairPredictor = frontend.open(image_set(scene), pairs, Store(None), SILENT)
    first, second = list(opened), list(opened)
    assert len(opened) == len(first) == 3 and [[p.i, p.j] for p in first] == pairs.index.tolist()
    for one, two in zip(first, second, strict=True):
        assert np.array_equal(one.matches.xy_j, two.matches.xy_j) and one.frame_i and two.frame_i
        assert np.array_equal(one.frame_i.other, two.frame_i.other)
    other = SyntheticFrontend(scene=scene, seed=1).open(image_set(scene), pairs, Store(None), SILENT)
    assert other.digest != opened.digest


def test_exact_predictions(scene: SyntheticScene) -> None:
    exact = predictor(scene, OracleNoise.none())
    grid, poses = exact.grid, scene.cam_from_world
    assert grid.size_wh[0].tolist() == [160, 120] and grid.offset[0].tolist() == [0, 0]
    for prediction in exact:
        i, j = prediction.i, prediction.j
        assert prediction.status is PairStatus.OK and prediction.frame_i and prediction.frame_j
        for frame, own in ((prediction.frame_i, i), (prediction.frame_j, j)):
            # projecting a pixel's point gives the pixel: COLMAP pixels, true depth
            world = transform(invert(poses[own]), frame.own.astype(float)).reshape(-1, 3)
            xy = grid.to_grid(own, project(scene, own, world)[0])
            assert_allclose(xy, pixel_centres((160, 120)).reshape(-1, 2), atol=1e-3)
            depth = cast_pixels(scene, own, grid.to_image(own, xy)).distance
            assert_allclose(frame.own[..., 2].ravel(), depth, rtol=1e-3, atol=1e-3)
        own_from_other = compose(poses[i], invert(poses[j]))
        expected = transform(own_from_other, prediction.frame_j.own.astype(float))
        assert_allclose(prediction.frame_i.other, expected, atol=1e-5)
        assert (prediction.frame_i.own_confidence >= 1).all()
        matches = prediction.matches
        points = world_points(scene, i, grid.to_image(i, matches.xy_i))
        assert grid.to_grid(j, project(scene, j, points)[0]) == pytest.approx(matches.xy_j, abs=0.1)
        assert len(matches) > 100 and matches.confidence.max() > 10


def test_grid_of_odd_sizes_is_cropped_centrally() -> None:
    odd = make_scene(SceneConfig(num_images=2, size_wh=(333, 250), arc_deg=8.0))
    exact = predictor(odd, OracleNoise.none(), grid_long_side=128)
    assert exact.grid.size_wh[0].tolist() == [128, 96]
    assert exact.grid.to_grid(0, np.array([[333 / 2, 125.0]])) == pytest.approx(np.array([[64.0, 48.0]]))
    (prediction,) = exact
    points = world_points(odd, 0, exact.grid.to_image(0, prediction.matches.xy_i))
    assert exact.grid.to_grid(1, project(odd, 1, points)[0]) == pytest.approx(prediction.matches.xy_j, abs=0.1)


def test_depth_scale_and_focal_noise(scene: SyntheticScene) -> None:
    clean = predictor(scene, OracleNoise.none())
    smooth_only = {"depth_smooth": 0.03, "scale": 0.0, "focal": 0.0, "rotation_deg": 0.0, "depth_white": 0.0}
    errors = []
    for noisy, exact in zip(predictor(scene, OracleNoise(**smooth_only)), clean, strict=True):
        assert noisy.frame_i and noisy.frame_j and exact.frame_i and exact.frame_j
        errors.append(np.log(noisy.frame_i.own[..., 2] / exact.frame_i.own[..., 2]))
        errors.append(np.log(noisy.frame_j.own[..., 2] / exact.frame_j.own[..., 2]))
    error = np.array(errors)
    assert error.std() == pytest.approx(0.03, rel=0.25)
    assert np.abs(np.diff(error, axis=2)).mean() < 0.1 * error.std()  # smooth
    assert np.abs(np.corrcoef(error[0].ravel(), error[1].ravel())[0, 1]) < 0.6  # new for each pointmap

    white = predictor(scene, OracleNoise(**{**smooth_only, "depth_smooth": 0.0, "depth_white": 0.01}))
    frames = [(n.frame_i, e.frame_i) for n, e in zip(white, clean, strict=True)]
    errors = [np.log(n.own[..., 2] / e.own[..., 2]) for n, e in frames if n and e]
    assert np.std(errors) == pytest.approx(0.01, rel=0.05)

    scaled = predictor(scene, OracleNoise(**{**smooth_only, "depth_smooth": 0.0, "scale": 0.2}))
    factors = []
    for noisy, exact in zip(scaled, clean, strict=True):
        assert noisy.frame_i and exact.frame_i
        ratio = noisy.frame_i.other / exact.frame_i.other
        factors.append(float(np.median(ratio)))
        assert_allclose(noisy.frame_i.own, factors[-1] * exact.frame_i.own, rtol=1e-4, atol=1e-4)
    assert np.ptp(factors) > 0.05 and np.abs(np.log(factors)).max() <= 0.2001

    focal = predictor(scene, OracleNoise(**{**smooth_only, "depth_smooth": 0.0, "focal": 0.1}))
    first = focal.predict(0)
    assert first.frame_i
    xy, own = pixel_centres((160, 120)) - [80, 60], first.frame_i.own
    plane = own[..., :2] / own[..., 2:]
    fitted = (plane * xy).sum() / (plane**2).sum()
    assert fitted == pytest.approx(focal.implied_focal_grid_px[0], rel=1e-4)
    assert np.abs(focal.implied_focal_grid_px / focal.focal_grid_px - 1).max() > 0.02


def test_match_noise_and_outliers() -> None:
    pair = make_scene(SceneConfig(num_images=2, size_wh=(640, 480), arc_deg=8.0))
    noisy = predictor(pair, OracleNoise(match_px=0.7, outlier_share=0.2), grid_long_side=512)
    matches = noisy.predict(0).matches
    points = world_points(pair, 0, noisy.grid.to_image(0, matches.xy_i))
    error = noisy.grid.to_grid(1, project(pair, 1, points)[0]) - matches.xy_j
    wrong = np.linalg.norm(error, axis=1) > 5
    assert len(matches) > 2000 and wrong.mean() == pytest.approx(0.2, abs=0.04)
    # half of the matches were made from the other side, where noise in j moves the point seen in i a little too
    assert error[~wrong].std() == pytest.approx(0.7, rel=0.1)
    assert np.median(matches.confidence[wrong]) < 0.6 * np.median(matches.confidence[~wrong])
    assert (
        (matches.xy_j >= 0).all() and (matches.xy_j < noisy.grid.size_wh[1]).all() and (matches.confidence >= 1).all()
    )


def test_pairs_of_low_confidence(scene: SyntheticScene) -> None:
    best = [p.matches.confidence.max() for p in predictor(scene, OracleNoise(low_confidence_share=0.5))]
    low = np.array(best) < 5
    assert low.sum() == 3 and (np.array(best)[~low] > 10).all()


def test_views_that_share_nothing_are_unmatched() -> None:
    loop = make_scene(SceneConfig(num_images=12, arc_deg=360.0, size_wh=(320, 240)))
    status = {(p.i, p.j): p for p in predictor(loop, OracleNoise(), grid_long_side=80)}
    assert status[0, 1].status is PairStatus.OK
    unmatched = [p for p in status.values() if p.status is PairStatus.UNMATCHED]
    assert unmatched and all(p.frame_i is None and len(p.matches) == 0 for p in unmatched)


def test_keypoints_are_the_same_in_all_pairs(scene: SyntheticScene) -> None:
    opened = predictor(scene, OracleNoise(keypoint_px=0.5))
    tracks: dict[tuple[int, float, float], set[tuple[int, float, float]]] = {}
    for prediction in opened:
        found = prediction.keypoint_matches
        assert found is not None and len(found) > 100
        points = world_points(scene, prediction.i, found.xy_i)
        error = project(scene, prediction.j, points)[0] - found.xy_j
        assert 0.3 < np.median(np.abs(error)) / (0.6745 * 0.5) < 2.5
        for a, b in zip(found.xy_i.tolist(), found.xy_j.tolist(), strict=True):
            tracks.setdefault((prediction.i, *a), set()).add((prediction.j, *b))
    in_three = [ends for (image, _, _), ends in tracks.items() if image == 0 and len(ends) == 3]
    assert len(in_three) > 30
    for ends in in_three:  # seen in 0, 1, 2 and 3: the pair (1, 2) joins the very same pixels
        (one,), (two,) = [e for e in ends if e[0] == 1], [e for e in ends if e[0] == 2]
        assert two in tracks[one]
    without = SyntheticFrontend(scene=scene, num_keypoints=0).open(
        image_set(scene), make_pairs(4, "complete"), Store(None), SILENT
    )
    assert without.predict(0).keypoint_matches is None
