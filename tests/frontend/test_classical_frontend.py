"""The classical front end as a whole, from picture files to predictions."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anchorsfm.features.config import FeatureConfig
from anchorsfm.frontend import FRONTENDS, ClassicalFrontend
from anchorsfm.frontend.classical.config import DenseConfig, WorkerConfig
from anchorsfm.frontend.classical.opening import make_grid
from anchorsfm.geometry.transforms import fit_similarity, rotation_angle_deg, transform
from anchorsfm.io.images import load_image_set
from anchorsfm.io.store import Store
from anchorsfm.io.workers import ordered_map
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.pairs import PairList, PairPrediction, PairStatus
from anchorsfm.scene.progress import SILENT, Progress
from classical_scene import Plane, View, pose_between, render, save_images

CONFIG = ClassicalFrontend(dense=DenseConfig(size=256), workers=WorkerConfig(num_workers=1))
NO_STORE = Store(None)
FOCAL = 330.0
VIEWS = (
    View(centre=(-0.4, 0.0, 0.0), rotation_deg=(0.0, 4.0, 0.0)),
    View(centre=(0.1, 0.1, 0.2), rotation_deg=(1.0, -1.0, 3.0)),
    View(centre=(0.7, -0.1, -0.1), rotation_deg=(0.0, -6.0, -2.0)),
)


def _all_pairs(num: int) -> PairList:
    return PairList(index=np.array([(i, j) for i in range(num) for j in range(i + 1, num)]).reshape(-1, 2))


def _open(images: ImageSet, config: ClassicalFrontend = CONFIG, store: Store = NO_STORE, pairs: PairList | None = None):
    return config.open(images, _all_pairs(images.num_images) if pairs is None else pairs, store, SILENT)


def _exact(config: ClassicalFrontend = CONFIG) -> ClassicalFrontend:
    """Takes given focal lengths as they are."""
    return replace(config, intrinsics=replace(config.intrinsics, recorded_focal_spread=0.0))


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> tuple[ImageSet, list[np.ndarray]]:
    pictures, depths = zip(*[render(view) for view in VIEWS], strict=True)
    folder = save_images(tmp_path_factory.mktemp("scene"), pictures)
    return load_image_set(folder, focal_px=FOCAL), list(depths)


@pytest.fixture(scope="module")
def predictions(scene) -> list[PairPrediction]:
    return list(_open(scene[0], _exact()))


def _same(a: PairPrediction, b: PairPrediction) -> bool:
    assert a.frame_i is not None and b.frame_i is not None and a.frame_j is not None and b.frame_j is not None
    return all(
        np.array_equal(p, q)
        for x, y in ((a.frame_i, b.frame_i), (a.frame_j, b.frame_j), (a.matches, b.matches))
        for p, q in zip(vars(x).values(), vars(y).values(), strict=True)
    )


def test_pairs_beyond_a_few_an_image_give_their_keypoints_only(scene, predictions):
    few = list(_open(scene[0], _exact(replace(CONFIG, dense=replace(CONFIG.dense, pairs_per_image=1)))))
    assert [p.frame_i is not None for p in few].count(True) == 2, "the pairs that hold three images together"
    for one, other in zip(few, predictions, strict=True):
        assert one.status is other.status is PairStatus.OK
        assert np.array_equal(one.keypoint_matches.xy_i, other.keypoint_matches.xy_i)
        if one.frame_i is not None:
            assert _same(one, other)
        else:
            assert one.frame_j is None and len(one.matches) == len(one.keypoint_matches)
            assert np.allclose(one.matches.xy_i, other.matches.xy_i[: len(one.matches)])


def test_front_end_is_on_offer():
    assert FRONTENDS["classical"] is ClassicalFrontend


def test_pointmaps_have_the_true_shape_and_one_scale(scene, predictions):
    images, depths = scene
    grid = make_grid(images, 256)
    factors = []
    for prediction in predictions:
        assert prediction.status is PairStatus.OK
        for image, frame in ((prediction.i, prediction.frame_i), (prediction.j, prediction.frame_j)):
            assert frame.own.shape == (*grid.size_wh[image][::-1], 3)
            height, width = frame.own_confidence.shape
            rows = ((np.arange(height) + 0.5) / grid.scale[image, 1]).astype(int)
            columns = ((np.arange(width) + 0.5) / grid.scale[image, 0]).astype(int)
            ratio = frame.own[..., 2] / depths[image][np.ix_(rows, columns)]
            trusted = frame.own_confidence > 5
            assert trusted.mean() > 0.5
            factor = np.median(ratio[trusted])
            assert (np.abs(ratio / factor - 1)[trusted] < 0.02).mean() > 0.97
            factors.append(factor)
    assert np.std(factors) / np.mean(factors) < 0.005, "all pairs have one scale"
    assert np.mean(factors) * np.median(depths[1]) == pytest.approx(1, abs=0.3)


def test_both_frames_show_the_same_points(predictions):
    for prediction in predictions:
        truth = pose_between(VIEWS[prediction.i], VIEWS[prediction.j])
        for source, target in (("own", "other"), ("other", "own")):
            in_i = getattr(prediction.frame_i, source).reshape(-1, 3).astype(float)
            in_j = getattr(prediction.frame_j, target).reshape(-1, 3).astype(float)
            scale, pose = fit_similarity(in_i, in_j)
            assert scale == pytest.approx(1, abs=1e-4)
            assert np.abs(transform(pose, in_i) - in_j).max() < 1e-3
            assert np.abs(pose[:, :3] - truth[:, :3]).max() < 0.01
            direction = pose[:, 3] / np.linalg.norm(pose[:, 3])
            assert direction @ truth[:, 3] / np.linalg.norm(truth[:, 3]) > 0.999


def test_matches_lie_on_the_same_surface_point(scene, predictions):
    images, depths = scene
    grid = make_grid(images, 256)
    for prediction in predictions:
        i, j = prediction.i, prediction.j
        pose = pose_between(VIEWS[i], VIEWS[j])
        for matches, in_original in (
            (prediction.keypoint_matches, True),
            (prediction.matches, False),
        ):
            xy_i = matches.xy_i if in_original else grid.to_image(i, matches.xy_i)
            xy_j = matches.xy_j if in_original else grid.to_image(j, matches.xy_j)
            column, row = xy_i.astype(int).T
            rays = np.column_stack([(xy_i - (180, 135)) / FOCAL, np.ones(len(xy_i))])
            point = (rays * depths[i][row, column][:, None]) @ pose[:, :3].T + pose[:, 3]
            error = np.linalg.norm(point[:, :2] / point[:, 2:] * FOCAL + (180, 135) - xy_j, axis=1)
            assert len(matches) > 100
            assert np.median(error) < 0.25
            assert (error < 2).mean() > 0.97
            assert matches.confidence.min() >= 1 and matches.confidence.max() > 10


def test_a_keypoint_has_one_coordinate_in_all_pairs(scene, predictions):
    positions = [
        xy
        for p in predictions
        for image, xy in ((p.i, p.keypoint_matches.xy_i), (p.j, p.keypoint_matches.xy_j))
        if image == 1
    ]
    a, b = ({tuple(xy) for xy in part.tolist()} for part in positions)
    assert len(a & b) > 50


def test_order_of_a_pair_does_not_matter(tmp_path, scene, predictions):
    """Images in reverse order: pair (0, 1) is the former (1, 2) with its sides exchanged."""
    images = scene[0]
    backwards = load_image_set([images.path(k) for k in (2, 1)], focal_px=FOCAL)
    (swapped,) = _open(backwards, _exact())
    forwards = predictions[2]
    assert (forwards.i, forwards.j) == (1, 2)
    ratio = swapped.frame_j.own[..., 2] / forwards.frame_i.own[..., 2]
    both = (swapped.frame_j.own_confidence > 5) & (forwards.frame_i.own_confidence > 5)
    assert both.mean() > 0.5
    factor = np.median(ratio[both])
    assert (np.abs(ratio / factor - 1)[both] < 0.01).mean() > 0.95
    assert len(swapped.keypoint_matches) == pytest.approx(len(forwards.keypoint_matches), rel=0.1)


def test_second_iteration_resumed_run_and_threads_are_bit_identical(tmp_path, scene):
    images, store = scene[0], Store(tmp_path)
    predictor = _open(images, store=store)
    first = list(predictor)
    files = sorted(tmp_path.rglob("*.safetensors"))
    for other in (
        predictor,
        _open(images, store=store),
        _open(images),
        _open(images, replace(CONFIG, workers=WorkerConfig(num_workers=3))),
    ):
        assert other.digest == predictor.digest and len(other) == 3
        assert all(_same(a, b) for a, b in zip(first, other, strict=True))
    assert sorted(tmp_path.rglob("*.safetensors")) == files, "nothing was computed twice"


def test_a_changed_dense_setting_keeps_the_sparse_results(tmp_path, scene):
    store = Store(tmp_path)
    before = _open(scene[0], store=store)
    files = set(tmp_path.rglob("*.safetensors"))
    other = _open(scene[0], replace(CONFIG, dense=replace(CONFIG.dense, plane_step_px=2.0)), store)
    assert set(tmp_path.rglob("*.safetensors")) == files
    assert other.digest != before.digest


def test_prediction_depends_on_its_own_images_only(scene, predictions):
    """Apart from the unit, which is the set's."""
    images = scene[0]
    (alone,) = _open(images, _exact(), pairs=PairList(index=np.array([[0, 2]])))
    among = predictions[1]
    assert np.array_equal(alone.matches.xy_j, among.matches.xy_j)
    assert np.array_equal(alone.frame_i.own_confidence, among.frame_i.own_confidence)
    ratio = alone.frame_i.own[..., 2] / among.frame_i.own[..., 2]
    assert ratio.std() / ratio.mean() < 1e-5


def test_estimated_focal_is_near_the_truth(scene):
    images = replace(scene[0], focal_prior_px=np.full(3, np.nan))
    predictor = _open(images)
    assert np.abs(np.log(predictor.focal_px / FOCAL)).max() < 0.05
    summaries = predictor.summaries()
    assert [(s.i, s.j) for s in summaries] == [(0, 1), (0, 2), (1, 2)]
    assert all(s.status is PairStatus.OK and s.num_matches > 100 and s.parallax_deg > 3 for s in summaries)
    assert (predictor.num_keypoints > 200).all()


def test_mixed_sizes_portrait_and_landscape(tmp_path):
    views = (
        VIEWS[0],
        View(centre=(0.1, 0.0, 0.0), size_wh=(270, 360), focal_px=330.0),
        View(centre=(0.6, 0.0, 0.1), size_wh=(500, 376), focal_px=450.0),
    )
    pictures, depths = zip(*[render(view) for view in views], strict=True)
    images = load_image_set(save_images(tmp_path, pictures), camera_mode="per-image")
    images = replace(images, focal_prior_px=np.array([330.0, 330.0, 450.0]))
    predictor = _open(images, _exact())
    assert predictor.grid.size_wh.tolist() == [[256, 192], [192, 256], [254, 191]]
    for prediction in predictor:
        frame = prediction.frame_j
        assert prediction.status is PairStatus.OK
        assert frame.own.shape[:2] == tuple(predictor.grid.size_wh[prediction.j][::-1])
        assert frame.other.shape[:2] == tuple(predictor.grid.size_wh[prediction.i][::-1])
        height, width = frame.own_confidence.shape
        truth = depths[prediction.j]
        rows = ((np.arange(height) + 0.5) * truth.shape[0] / height).astype(int)
        columns = ((np.arange(width) + 0.5) * truth.shape[1] / width).astype(int)
        trusted = frame.own_confidence > 5
        ratio = (frame.own[..., 2] / truth[np.ix_(rows, columns)])[trusted]
        assert trusted.mean() > 0.4
        assert (np.abs(ratio / np.median(ratio) - 1) < 0.02).mean() > 0.95


def test_turning_camera_identical_images_and_black_image(tmp_path):
    turned = View(rotation_deg=(1.0, 8.0, 0.0))
    pictures = [render(View())[0], render(turned)[0], render(View())[0], np.zeros((270, 360), np.uint8)]
    images = load_image_set(save_images(tmp_path, pictures), focal_px=FOCAL)
    predictor = _open(images)
    status = {(p.i, p.j): p for p in predictor}
    for pair in ((0, 1), (0, 2), (1, 2)):
        prediction = status[pair]
        assert prediction.status is PairStatus.PURE_ROTATION
        assert prediction.frame_i is None and prediction.frame_j is None and len(prediction.matches) == 0
        assert len(prediction.keypoint_matches) > 100
    for pair in ((0, 3), (1, 3), (2, 3)):
        assert status[pair].status is PairStatus.UNMATCHED
        assert status[pair].frame_i is None and len(status[pair].keypoint_matches) == 0
    identical = status[0, 2].keypoint_matches
    assert np.array_equal(identical.xy_i, identical.xy_j)


def test_different_scenes_are_unmatched(tmp_path, scene):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (270, 360)).astype(np.uint8)
    images = load_image_set(save_images(tmp_path, [render(VIEWS[0])[0], noise]))
    (prediction,) = _open(images)
    assert prediction.status is PairStatus.UNMATCHED


def test_no_pairs_and_one_image(scene):
    images = scene[0]
    predictor = _open(images, pairs=PairList(index=np.zeros((0, 2), np.int64)))
    assert len(predictor) == 0 and list(predictor) == []
    assert np.isfinite(predictor.focal_px).all()


def test_grid_scales_both_sides_alike():
    sizes = np.array([[1536, 1024], [1504, 1000], [4032, 3024], [3000, 4000], [1333, 750], [1013, 673], [300, 200]])
    images = ImageSet(
        root=Path(),
        names=tuple("abcdefg"),
        size_wh=sizes,
        camera_index=np.arange(7),
        focal_prior_px=np.full(7, np.nan),
        digests=tuple("abcdefg"),
    )
    grid = make_grid(images, 512)
    assert (grid.size_wh.max(1)[:-1] >= 497).all() and grid.size_wh.max() <= 512
    assert np.abs(grid.scale[:, 0] / grid.scale[:, 1] - 1).max() < 5e-4
    assert grid.size_wh[-1].tolist() == [300, 200], "never enlarged"
    corner = sizes[0].astype(float)[None]
    assert grid.to_grid(0, corner) == pytest.approx(grid.size_wh[:1].astype(float))


def test_progress_counts_images_and_pairs(scene):
    class Recorder(Progress):
        def __init__(self):
            self.done = {}

        def stage(self, description, total=None):
            from contextlib import contextmanager

            @contextmanager
            def enter():
                self.done[description] = [0, total]

                def advance(count):
                    self.done[description][0] += count

                yield advance

            return enter()

    recorder = Recorder()
    CONFIG.open(scene[0], _all_pairs(3), NO_STORE, recorder)
    assert recorder.done and all(done == total for done, total in recorder.done.values())


def test_ordered_map_keeps_order_bounds_the_work_ahead_and_stops():
    started, lock = [], threading.Lock()

    def work(value):
        with lock:
            started.append(value)
        return value * value

    results = ordered_map(work, range(100), 3)
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    results.close()
    assert len(started) <= 5 + 4
    assert list(ordered_map(work, range(20), 4)) == [k * k for k in range(20)]
    with pytest.raises(ZeroDivisionError):
        list(ordered_map(lambda value: 1 // value, [1, 0], 2))


def test_real_photographs(photos, tmp_path):
    """Three photographs of Herz-Jesus: focal within 3 % of the truth, poses within half a degree."""
    folder = photos / "Herz-Jesus-P8"
    images = load_image_set([folder / "images" / f"000{k}.jpg" for k in (3, 4, 5)])
    config = replace(CONFIG, features=FeatureConfig(max_keypoints=4096))
    truth = json.loads((folder / "gt.json").read_text())
    predictor = _open(images, config)
    predictions = list(predictor)
    assert np.abs(predictor.focal_px / truth["0003.jpg"]["K"][0][0] - 1).max() < 0.03
    for prediction in predictions:
        assert prediction.status is PairStatus.OK and len(prediction.keypoint_matches) > 200
        views = [truth[Path(images.names[k]).name] for k in (prediction.i, prediction.j)]
        rotations = [np.array(v["R_cam_from_world"]) for v in views]
        expected = rotations[1] @ rotations[0].T
        translation = np.array(views[1]["t_cam_from_world"]) - expected @ np.array(views[0]["t_cam_from_world"])
        _, pose = fit_similarity(
            *[f.reshape(-1, 3).astype(float) for f in (prediction.frame_i.own, prediction.frame_j.other)]
        )
        cosine = (np.trace(pose[:, :3] @ expected.T) - 1) / 2
        assert np.degrees(np.arccos(np.clip(cosine, -1, 1))) < 0.5
        direction = pose[:, 3] @ translation / np.linalg.norm(pose[:, 3]) / np.linalg.norm(translation)
        assert np.degrees(np.arccos(np.clip(direction, -1, 1))) < 2
        assert (prediction.frame_i.own_confidence > 5).mean() > 0.3


def test_pairs_that_share_a_wall_only_take_the_pose_that_the_others_confirm(tmp_path):
    """The third photograph shows the wall and what stands before it in the other two, each something of its own."""
    quick = replace(_exact(), dense=DenseConfig(enabled=False))
    alone = replace(quick, consistency=replace(quick.consistency, enabled=False))
    left = Plane((0.0, 0.0, 1.0), 4.0, seed=2, half_xy=(1.0, 0.6))
    right = Plane((-0.6, -0.1, 1.0), 4.5, seed=3, half_xy=(1.2, 0.6))
    off_deg: dict[ClassicalFrontend, list[float]] = {quick: [], alone: []}
    for k, slant in enumerate((0.10, 0.14, 0.18, 0.22, 0.26)):
        wall = Plane((0.5, slant, 1.0), 6.0, seed=1)
        views = (
            View(centre=(-0.77, 0.1, -0.5), rotation_deg=(0.0, 4.3, 0.0), planes=(wall, left)),
            View(centre=(0.73, -0.1, 0.12), rotation_deg=(2.0, -6.7, 3.0), planes=(wall, right)),
            View(centre=(0.0, 0.2, -0.3), rotation_deg=(1.0, 1.0, 1.0), planes=(wall, left, right)),
        )
        folder = save_images(tmp_path / str(k), [render(view)[0] for view in views])
        images = load_image_set(folder, focal_px=FOCAL)
        for config, off in off_deg.items():
            for found in _open(images, config):
                assert found.status is PairStatus.OK and found.j_from_i is not None
                truth = pose_between(views[found.i], views[found.j])[:, :3]
                off.append(float(rotation_angle_deg((found.j_from_i @ truth.T)[None])[0]))
    assert max(off_deg[quick]) < 0.5
    assert max(off_deg[alone]) > 5.0, "without others one of these pairs is wrong, or this shows nothing"
