"""Strong lens distortion: the model, its estimation from matches, synthetic lenses, and the classical front end."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from anchorsfm.colmap.cameras import normalised_from_pixels
from anchorsfm.colmap.cameras import project as project_camera
from anchorsfm.evaluation import evaluate_poses, poses_of, read_poses
from anchorsfm.frontend.classical import ClassicalFrontend, lens
from anchorsfm.frontend.classical.config import DenseConfig, IntrinsicsConfig, WorkerConfig
from anchorsfm.geometry.transforms import compose, fit_similarity, invert
from anchorsfm.io.images import load_image_set
from anchorsfm.io.store import Store
from anchorsfm.mapping.config import KnownConfig
from anchorsfm.mapping.known import KnownCameras
from anchorsfm.mapping.start_cameras import start_camera, start_cameras
from anchorsfm.pipeline import reconstruct
from anchorsfm.run.config import PipelineConfig
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.images import Distortion, ImageGrid, ImageSet
from anchorsfm.scene.pairs import PairList, PairStatus
from anchorsfm.scene.progress import SILENT
from anchorsfm.scene.reconstruction import Camera
from anchorsfm.stereo.grid import grid_grey, make_grid, undistorted_rgb
from anchorsfm.synthetic import (
    LensConfig,
    SceneConfig,
    SyntheticFrontend,
    image_set,
    make_scene,
    render_depth,
    write_photographs,
)
from anchorsfm.synthetic.scenes import cast_pixels, project, rays

SIZE_WH = np.array([640, 480])
FISHEYE = LensConfig(camera_model="OPENCV_FISHEYE", params=(0.02, -0.005, 0.001, 0.0))
CONFIG = IntrinsicsConfig()
COEFFICIENTS = [(-0.6, -0.09), (-0.25, 0.0), (-0.25, -0.2), (0.2, 0.0), (0.3, -0.1), (0.0, 0.0)]


def one_image(coefficient: tuple[float, float], size_wh: np.ndarray = SIZE_WH) -> Distortion:
    return Distortion(image_wh=size_wh[None], coefficient=np.array([coefficient]))


def images_of(size_wh: np.ndarray) -> ImageSet:
    count = len(size_wh)
    return ImageSet(
        root=Path(),
        names=tuple(map(str, range(count))),
        size_wh=size_wh,
        camera_index=np.arange(count),
        focal_prior_px=np.full(count, np.nan),
        digests=tuple(map(str, range(count))),
    )


def over_the_image(size_wh: np.ndarray = SIZE_WH) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(0, size_wh[0], 15), np.linspace(0, size_wh[1], 11))
    return np.stack([x.ravel(), y.ravel()], axis=1)


@pytest.mark.parametrize("coefficient", COEFFICIENTS)
def test_distortion_is_inverted_all_over_the_image(coefficient):
    distortion, xy = one_image(coefficient), over_the_image()
    straight = distortion.undistort(0, xy)
    assert distortion.distort(0, straight) == pytest.approx(xy, abs=1e-6)
    centre = SIZE_WH[None] / 2
    assert distortion.undistort(0, centre) == pytest.approx(centre)
    further = np.linalg.norm(straight - centre, axis=1) - np.linalg.norm(xy - centre, axis=1)
    assert (np.sign(coefficient[0] + coefficient[1]) * further <= 1e-9).all(), "barrel distortion moves points inwards"


def test_points_that_no_pixel_shows_stay_outside():
    distortion = one_image((0.3, 0.0))
    beyond = distortion.distort(0, np.array([[10_000.0, 240.0], [320.0, -10_000.0]]))
    assert np.isfinite(beyond).all()
    assert beyond[0, 0] > 640 and beyond[1, 1] < 0


def test_gradients_are_carried_into_the_photograph_by_the_chain_rule():
    rng = np.random.default_rng(0)
    raw, coefficient, half = rng.uniform(-350, 350, (20, 2)), np.array([-0.5, -0.1]), 640.0
    gradient = rng.standard_normal((20, 2))
    found = lens.undistort(raw, coefficient, half).to_raw(gradient)
    step = 1e-4
    for axis in range(2):
        shift = step * np.eye(2)[axis]
        ahead, behind = (lens.undistort(raw + s * shift, coefficient, half).xy for s in (1, -1))
        numeric = ((ahead - behind) / (2 * step) * gradient).sum(1)
        assert found[:, axis] == pytest.approx(numeric, rel=1e-6, abs=1e-8)
    area = [
        np.linalg.det(np.stack([p.to_raw(np.tile(e, (1, 1)))[0] for e in np.eye(2)]))
        for p in (lens.undistort(raw[k : k + 1], coefficient, half) for k in range(20))
    ]
    assert lens.undistort(raw, coefficient, half).stretch == pytest.approx(np.sqrt(area))


def synthetic_matches(
    rng: np.random.Generator,
    coefficient: tuple[float, float],
    *,
    noise_px: float = 0.3,
    translation: float = 0.6,
    outliers: float = 0.2,
) -> lens.LensMatches:
    """Matches of random points through two cameras with the same lens, in centred coordinates of 4:3 photographs."""
    size_wh, focal = np.array([1024, 768]), 600.0
    distortion = one_image(coefficient, size_wh)
    points = rng.uniform([-6, -5, 3], [6, 5, 9], (3000, 3))
    turn = Rotation.from_rotvec(rng.uniform(-0.15, 0.15, 3)).as_matrix()
    moved = points @ turn.T + translation * rng.uniform(-1, 1, 3)
    ends = []
    for in_camera in (points, moved):
        straight = in_camera[:, :2] / in_camera[:, 2:] * focal + size_wh / 2
        ends.append(distortion.distort(0, straight))
    seen = np.logical_and.reduce([((xy > 0) & (xy < size_wh)).all(1) for xy in ends]) & (moved[:, 2] > 0.5)
    xy_i, xy_j = (xy[seen] + noise_px * rng.standard_normal((int(seen.sum()), 2)) - size_wh / 2 for xy in ends)
    wrong = rng.uniform(size=len(xy_j)) < outliers
    xy_j[wrong] = rng.uniform(-0.5, 0.5, (int(wrong.sum()), 2)) * size_wh
    return lens.LensMatches(xy_i=xy_i, xy_j=xy_j)


@pytest.mark.parametrize("coefficient", [(-0.6, -0.09), (-0.25, 0.0), (-0.1, 0.0), (0.15, 0.0)])
def test_distortion_is_found_from_matches(coefficient):
    rng = np.random.default_rng(1)
    pairs = [synthetic_matches(rng, coefficient) for _ in range(4)]
    found = lens.estimate_distortion(pairs, lens.half_diagonal(np.array([1024, 768])), CONFIG)
    square = np.linspace(0, 1, 20) ** 2
    truth, guess = (k[0] * square + k[1] * square**2 for k in (coefficient, found))
    assert np.abs(truth - guess).max() < 0.04


@pytest.mark.parametrize("options", [{}, {"noise_px": 1.0}, {"translation": 0.0}, {"outliers": 0.7}])
def test_undistorted_photographs_stay_exactly_undistorted(options):
    rng = np.random.default_rng(2)
    pairs = [synthetic_matches(rng, (0.0, 0.0), **options) for _ in range(4)]
    assert (lens.estimate_distortion(pairs, 640.0, CONFIG) == 0).all()
    rng = np.random.default_rng(3)
    chance = [lens.LensMatches(xy_i=rng.uniform(-400, 400, (200, 2)), xy_j=rng.uniform(-400, 400, (200, 2)))] * 3
    assert (lens.estimate_distortion(chance, 640.0, CONFIG) == 0).all(), "no geometry at all"


def test_slight_distortion_is_left_to_the_adjustment():
    rng = np.random.default_rng(4)
    pairs = [synthetic_matches(rng, (-0.005, 0.0)) for _ in range(4)]
    assert (lens.estimate_distortion(pairs, 640.0, CONFIG) == 0).all()


def test_pairs_of_a_search_have_many_matches_but_not_only_the_most():
    num = np.arange(40) * 50
    chosen = lens.choose_pairs(np.zeros((40, 2), np.int64), num)
    assert len(chosen) == lens.NUM_PAIRS and num[chosen].min() >= 900 and num[chosen].max() == num.max()
    assert np.ptp(num[chosen]) > 800
    assert len(lens.choose_pairs(np.zeros((2, 2), np.int64), np.array([99, 20]))) == 0
    assert lens.choose_pairs(np.zeros((2, 2), np.int64), np.array([99, 120])).tolist() == [1]


@pytest.mark.parametrize("coefficient", COEFFICIENTS[:-1])
def test_the_undistorted_grid_lies_within_the_photograph(coefficient):
    sizes = np.array([[1000, 750], [750, 1000], [1920, 1080], [300, 200]])
    images = images_of(sizes)
    distortion = Distortion(image_wh=sizes, coefficient=np.tile(coefficient, (4, 1)))
    focal_px = 0.45 * sizes.max(axis=1)
    grid = make_grid(images, 512, distortion, focal_px)
    for image in range(4):
        size_wh = grid.size_wh[image]
        border = over_the_image(size_wh)
        xy = grid.to_image(image, border)
        assert (xy >= -1e-6).all() and (xy <= sizes[image] + 1e-6).all()
        assert grid.to_grid(image, xy) == pytest.approx(border, abs=1e-4)
        assert grid.scale[image, 0] == grid.scale[image, 1] <= 1
        assert 0.5 * min(512, sizes[image].max()) < size_wh.max() <= 512
        half_field = np.degrees(np.arctan(size_wh / 2 / (focal_px[image] * grid.scale[image])))
        assert half_field.max() < 48.01
        assert grid.to_image(image, size_wh[None] / 2) == pytest.approx(sizes[image][None] / 2)


def test_images_without_distortion_keep_their_grid():
    sizes = np.array([[1000, 750], [1536, 1024]])
    plain = make_grid(images_of(sizes), 512)
    none = make_grid(images_of(sizes), 512, Distortion(image_wh=sizes, coefficient=np.zeros((2, 2))), np.ones(2))
    one = Distortion(image_wh=sizes, coefficient=np.array([[0, 0], [-0.3, 0]], float))
    mixed = make_grid(images_of(sizes), 512, one, np.full(2, 900.0))
    xy = over_the_image(sizes[0])
    for grid in (none, mixed):
        assert np.array_equal(grid.size_wh[0], plain.size_wh[0])
        assert np.array_equal(grid.to_grid(0, xy), plain.to_grid(0, xy))
        assert np.array_equal(grid.to_image(0, xy), plain.to_image(0, xy))
    assert mixed.is_distorted(1) and not mixed.is_distorted(0)


@pytest.mark.parametrize(
    ("model", "coefficient"),
    [
        ("SIMPLE_RADIAL", (-0.1, 0.0)),
        ("RADIAL", (-0.2, 0.0)),
        ("OPENCV", (-0.25, 0.0)),
        ("FULL_OPENCV", (-0.25, -0.2)),
        ("OPENCV_FISHEYE", (-0.6, -0.09)),
        ("SIMPLE_RADIAL_FISHEYE", (-0.6, -0.09)),
        ("RADIAL_FISHEYE", (0.1, 0.0)),
        ("THIN_PRISM_FISHEYE", (-0.6, -0.09)),
    ],
)
def test_distortion_becomes_parameters_of_the_camera_model(model, coefficient):
    images, focal = images_of(SIZE_WH[None]), 300.0
    distortion = one_image(coefficient)
    grid = make_grid(images, 512, distortion, np.array([focal]))
    camera = start_camera(model, focal, grid, images, 0)
    assert (camera.model, camera.width, camera.height) == (model, 640, 480)
    xy = over_the_image()
    straight = (distortion.undistort(0, xy) - SIZE_WH / 2) / focal
    near = np.linalg.norm(straight, axis=1) < np.tan(np.radians(65))
    assert near.mean() > 0.6
    found, visible = project_camera(camera, np.concatenate([straight, np.ones((len(xy), 1))], axis=1)[near])
    assert visible.all()
    error_px, moved_px = (np.linalg.norm(x - xy[near], axis=1) for x in (found, straight[near] * focal + SIZE_WH / 2))
    assert error_px.max() < 12, "at worst, in the corners"
    assert np.sqrt((error_px**2).mean()) < 0.1 * np.sqrt((moved_px**2).mean())
    back = normalised_from_pixels(camera, found)
    assert back == pytest.approx(straight[near], abs=1e-3), "the model is one to one over the image"


def test_pinhole_models_and_undistorted_grids_get_no_parameters():
    images, distortion = images_of(SIZE_WH[None]), one_image((-0.3, 0.0))
    bent, flat = make_grid(images, 512, distortion, np.array([300.0])), make_grid(images, 512)
    assert start_camera("PINHOLE", 300.0, bent, images, 0).params == (300.0, 300.0, 320.0, 240.0)
    assert start_camera("OPENCV", 300.0, flat, images, 0).params == (300.0, 300.0, 320.0, 240.0, 0, 0, 0, 0)
    (camera,) = start_cameras(images, np.array([300.0]), "SIMPLE_RADIAL", known={}, grid=bent)
    assert camera.params[3] != 0


@pytest.mark.parametrize(
    ("coefficient", "focal", "model"),
    [
        ((0.0, 0.0), 500.0, "SIMPLE_RADIAL"),
        ((-0.03, 0.0), 500.0, "SIMPLE_RADIAL"),
        ((-0.35, 0.0), 400.0, "RADIAL"),
        ((-0.6, -0.09), 288.0, "OPENCV_FISHEYE"),
    ],
)
def test_automatic_start_takes_the_simplest_model_that_fits(coefficient, focal, model):
    images = images_of(SIZE_WH[None])
    grid = make_grid(images, 512, one_image(coefficient), np.array([focal]))
    assert start_camera("auto", focal, grid, images, 0).model == model


# ------------------------------------------------------------------------------------------- synthetic lenses


@pytest.mark.parametrize(
    ("focal", "config"),
    [
        (0.44, LensConfig(camera_model="OPENCV_FISHEYE", params=(0.0, 0.0, 0.0, 0.0))),
        (0.45, FISHEYE),
        (0.75, LensConfig(camera_model="OPENCV", params=(-0.28, 0.08, 0.001, -0.0008))),
        (0.7, LensConfig(camera_model="FULL_OPENCV", params=(-0.3, 0.1, 0.0005, 0.0003, -0.01, 0.05, 0.02, 0.0))),
        (0.5, LensConfig(camera_model="SIMPLE_RADIAL_FISHEYE", params=(0.01,))),
    ],
    ids=["wide", "fisheye", "opencv", "rational", "simple"],
)
def test_rays_of_a_lens_lead_back_to_their_pixels_up_to_the_corners(focal, config):
    scene = make_scene(SceneConfig(num_images=2, size_wh=(320, 240), focal=focal, lens=config))
    xy = over_the_image(np.array([320, 240])) * 0.998 + 0.3
    origin, direction = rays(scene, 1, xy)
    forward = scene.cam_from_world[1, 2, :3]
    assert direction @ forward == pytest.approx(np.ones(len(xy)))
    found, depth = project(scene, 1, origin + 2.5 * direction)
    assert found == pytest.approx(xy, abs=1e-3)
    assert depth == pytest.approx(np.full(len(xy), 2.5))
    wide = np.degrees(np.arccos(1 / np.linalg.norm(direction, axis=1))).max()
    assert wide > {0.44: 78, 0.45: 75}.get(focal, 35)


def test_a_fisheye_shows_what_a_pinhole_shows():
    """The same place, 127 degrees wide: pixels of the middle see the surfaces the pinhole sees there."""
    base = SceneConfig(num_images=1, size_wh=(320, 240), focal=0.45)
    pinhole, fisheye = make_scene(base), make_scene(replace(base, lens=FISHEYE))
    xy = over_the_image(np.array([320, 240]))
    origin, direction = rays(pinhole, 0, xy)
    hits = cast_pixels(pinhole, 0, xy)
    bent, _ = project(fisheye, 0, origin + hits.distance[:, None] * direction)
    assert np.isfinite(bent).all(), "the fisheye sees all the pinhole sees"
    seen = cast_pixels(fisheye, 0, bent)
    assert (seen.solid == hits.solid).mean() > 0.98
    assert np.median(np.abs(seen.distance / hits.distance - 1)) < 1e-6
    assert np.isfinite(render_depth(fisheye, 0)).all()
    behind, _ = project(fisheye, 0, origin - direction[:3])
    assert np.isnan(behind).all()


def test_lens_parameters_are_checked_and_the_oracle_stays_pinhole():
    with pytest.raises(InputError, match=r"LensConfig\.params = \(0\.1,\): OPENCV has 4 distortion parameters"):
        LensConfig(camera_model="OPENCV", params=(0.1,))
    fisheye = make_scene(SceneConfig(num_images=2, lens=FISHEYE))
    pairs = PairList(index=np.array([[0, 1]]))
    with pytest.raises(ValueError, match="pinhole"):
        SyntheticFrontend(scene=fisheye).open(image_set(fisheye), pairs, Store(None), SILENT)


# --------------------------------------------------------------------------------------------------- front end


@pytest.fixture(scope="module")
def fisheye(tmp_path_factory):
    """Four fisheye photographs, 127 degrees wide."""
    scene = make_scene(SceneConfig(num_images=4, size_wh=(480, 360), arc_deg=24.0, focal=0.45, lens=FISHEYE, seed=2))
    folder = tmp_path_factory.mktemp("fisheye")
    write_photographs(scene, folder)
    images = load_image_set(folder / "images", focal_px=0.45 * 480)
    return scene, images, folder


def _frontend(*, estimate: bool) -> ClassicalFrontend:
    return ClassicalFrontend(
        dense=DenseConfig(size=256),
        workers=WorkerConfig(num_workers=1),
        intrinsics=IntrinsicsConfig(recorded_focal_spread=0.0, estimate_distortion=estimate),
    )


def test_truth_tells_the_lens(fisheye):
    scene, _, folder = fisheye
    entry = json.loads((folder / "truth.json").read_text())["0000.jpg"]
    assert entry["camera"] == {"model": "OPENCV_FISHEYE", "params": [216, 216, 240, 180, 0.02, -0.005, 0.001, 0]}
    assert entry["K"][0][0] == scene.focal_px[0]


def test_front_end_on_fisheye_photographs(fisheye, tmp_path):
    scene, images, _ = fisheye
    pairs = PairList(index=np.array([(0, 1), (0, 3), (1, 2), (2, 3)]))
    store = Store(tmp_path)
    predictor = _frontend(estimate=True).open(images, pairs, store, SILENT)
    grid = predictor.grid
    assert grid.distortion is not None and (grid.distortion.coefficient[:, 0] < -0.4).all()
    _check_grid_against_lens(scene, grid)
    predictions = list(predictor)
    for prediction in predictions:
        assert prediction.status is PairStatus.OK
        _check_depth(scene, grid, prediction)
        truth = compose(scene.cam_from_world[prediction.j], invert(scene.cam_from_world[prediction.i]))
        in_i, in_j = (x.reshape(-1, 3).astype(float) for x in (prediction.frame_i.own, prediction.frame_j.other))
        _, pose = fit_similarity(in_i, in_j)
        assert np.degrees(np.arccos((np.trace(pose[:, :3] @ truth[:, :3].T) - 1) / 2)) < 0.6
        on_grid = prediction.matches
        for image, xy in ((prediction.i, on_grid.xy_i), (prediction.j, on_grid.xy_j)):
            assert (xy >= 0).all() and (xy <= grid.size_wh[image]).all()
    far = np.concatenate([p.keypoint_matches.xy_i for p in predictions])
    assert (np.linalg.norm(far - (240, 180), axis=1) > 230).sum() > 5, "tracks use the border outside the grid too"
    again = _frontend(estimate=True).open(images, pairs, store, SILENT)
    assert again.digest == predictor.digest
    assert np.array_equal(next(iter(again)).frame_i.own, predictions[0].frame_i.own)
    without = _frontend(estimate=False).open(images, pairs, store, SILENT)
    assert without.digest != predictor.digest and without.grid.distortion is None
    found, lost = (sum(s.num_matches for s in p.summaries()) for p in (predictor, without))
    assert found > 1.5 * lost, "without undistortion most matches fail the epipolar check"


def test_a_known_lens_needs_no_estimate(fisheye, tmp_path):
    """The distortion of a given camera reaches the grid; images without a known camera are estimated or left."""
    scene, images, _ = fisheye
    known = KnownCameras(
        config=KnownConfig(), poses={}, cameras={0: scene.camera(0)}, camera_index=images.camera_index
    )  # fmt: skip
    informed = known.with_priors(images)
    assert informed.focal_prior_px[0] == pytest.approx(0.45 * 480)
    distortion = Distortion(image_wh=images.size_wh, coefficient=informed.distortion_prior)
    pixels = over_the_image(images.size_wh[0])
    rays = normalised_from_pixels(scene.camera(0), pixels)
    near = np.linalg.norm(rays, axis=1) < np.tan(np.radians(50))
    miss = distortion.undistort(0, pixels)[near] - (240, 180) - 216 * rays[near]
    assert np.abs(miss).max() < 2
    pairs, store = PairList(index=np.array([(0, 1), (1, 2), (2, 3)])), Store(tmp_path)
    predictor = _frontend(estimate=False).open(informed, pairs, store, SILENT)
    assert np.array_equal(predictor.grid.distortion.coefficient, informed.distortion_prior)
    unknown = replace(images, distortion_prior=np.full((4, 2), np.nan))
    left = _frontend(estimate=False).open(unknown, pairs, store, SILENT)
    assert left.grid.distortion is None and left.digest != predictor.digest


def test_a_known_camera_that_hardly_distorts_counts_as_a_pinhole(fisheye):
    _, images, _ = fisheye
    camera = Camera(model="SIMPLE_RADIAL", width=480, height=360, params=(450.0, 240.0, 180.0, -0.01))
    known = KnownCameras(config=KnownConfig(), poses={}, cameras={0: camera}, camera_index=images.camera_index)
    assert (known.with_priors(images).distortion_prior == 0).all()


def _check_grid_against_lens(scene, grid: ImageGrid) -> None:
    """Grid pixels see, up to a common scale, where a pinhole would."""
    centres = over_the_image(grid.size_wh[0])
    plane = normalised_from_pixels(scene.camera(0), grid.to_image(0, centres))
    offset = (centres - grid.size_wh[0] / 2) / grid.scale[0]
    focal = (offset * plane).sum() / (plane**2).sum()
    assert focal == pytest.approx(0.45 * 480, rel=0.03)
    assert np.linalg.norm(offset - focal * plane, axis=1).max() < 0.02 * 480


def _check_depth(scene, grid: ImageGrid, prediction) -> None:
    image, frame = prediction.i, prediction.frame_i
    height, width = frame.own_confidence.shape
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    truth = cast_pixels(scene, image, grid.to_image(image, np.stack([u.ravel(), v.ravel()], 1))).distance
    trusted = frame.own_confidence.ravel() > 5
    assert trusted.mean() > 0.35
    ratio = (frame.own[..., 2].ravel() / truth)[trusted]
    assert (np.abs(ratio / np.median(ratio) - 1) < 0.04).mean() > 0.9


def test_the_whole_run_on_fisheye_photographs(fisheye, tmp_path):
    _, _, folder = fisheye
    config = PipelineConfig(
        camera_model="OPENCV_FISHEYE", dense=False, scene_graph="complete", classical=_frontend(estimate=True)
    )
    result = reconstruct(folder / "images", tmp_path, config)
    alignment, final = (
        evaluate_poses(poses, read_poses(folder / "truth.json"))
        for poses in (read_poses(tmp_path / "alignment"), poses_of(result.models[0], result.images))
    )
    assert alignment.num_registered == final.num_registered == 4
    assert alignment.auc[2] > 0.85
    assert final.auc[0] > 0.9
    camera = result.models[0].cameras[0]
    assert camera.model == "OPENCV_FISHEYE" and camera.params[0] == pytest.approx(0.45 * 480, rel=0.01)
    assert result.models[0].error_px.mean() < 0.5


def test_pictures_on_the_undistorted_grid(fisheye):
    """The photograph of a fisheye, undistorted with the right coefficients, is that of a pinhole."""
    scene, images, _ = fisheye
    distortion = Distortion(image_wh=images.size_wh, coefficient=np.tile([-0.599, -0.093], (4, 1)))
    grid = make_grid(images, 320, distortion, np.full(4, 0.45 * 480))
    grey, rgb = grid_grey(images, grid, 0), undistorted_rgb(images, grid, 0)
    width, height = grid.size_wh[0].tolist()
    assert grey.shape == (height, width) and rgb.shape == (height, width, 3)
    focal = 0.45 * 480 * grid.scale[0, 0] / width
    pinhole = replace(scene.config, size_wh=(width, height), focal=focal * width / max(width, height), lens=None)
    from anchorsfm.synthetic import render_image

    expected = render_image(make_scene(pinhole), 0).astype(float)
    difference = np.abs(rgb.astype(float) - expected)[8:-8, 8:-8]
    assert np.median(difference) < 8
    assert np.corrcoef(rgb[8:-8, 8:-8].ravel(), expected[8:-8, 8:-8].ravel())[0, 1] > 0.9
