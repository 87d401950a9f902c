"""Tracks, triangulation and adjustment on a cloud of points with known truth."""

from dataclasses import replace

import numpy as np
import pytest

from anchorsfm.colmap.bundle import Held
from anchorsfm.colmap.write import write_models
from anchorsfm.geometry.transforms import camera_centres, fit_similarity
from anchorsfm.scene.edit import without_view
from anchorsfm.scene.errors import StorageError
from anchorsfm.scene.images import ImageGrid
from anchorsfm.scene.pairs import Matches, PairPrediction, PairStatus
from anchorsfm.tracks.adjust import adjust_model
from anchorsfm.tracks.build import KeypointMatchCollector, KeypointMatches, build_tracks
from anchorsfm.tracks.config import AdjustConfig
from anchorsfm.tracks.points import drop_unseen
from anchorsfm.tracks.residuals import pixel_errors
from point_scene import make_point_scene, perturb
from unix import full_disk

SCALE = np.full(8, 1.5)


def centre_error(model, truth):
    """Largest distance of a camera from its true place after a similarity, relative to the extent of the cameras."""
    source, target = camera_centres(model.cam_from_world), camera_centres(truth.cam_from_world)[model.image_index]
    scale, pose = fit_similarity(source, target)
    distance = np.linalg.norm(scale * source @ pose[:, :3].T + pose[:, 3] - target, axis=1)
    return distance.max() / np.ptp(target, axis=0).max()


def matches_of(rows):
    """Matches from (image_i, x_i, image_j, x_j, confidence); y is zero."""
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    place = lambda x: np.stack([x, np.zeros(len(x))], axis=1).astype(float)  # noqa: E731
    return KeypointMatches(
        image_i=columns[0], image_j=columns[2], xy_i=place(columns[1]), xy_j=place(columns[3]), confidence=columns[4]
    )


def test_tracks_join_matches_over_shared_keypoints():
    tracks = build_tracks(matches_of([(0, 5, 1, 6, 9.0), (1, 6, 2, 7, 9.0), (0, 50, 2, 70, 9.0)]), 3)
    assert tracks.num_points == 2
    assert np.bincount(tracks.obs_point).tolist() == [3, 2]
    assert tracks.obs_image.tolist() == [0, 1, 2, 0, 2]
    assert tracks.obs_xy[:3, 0].tolist() == [5, 6, 7]


def test_contradicting_tracks_are_split_by_confidence():
    # image 2 would be seen at 7 and, over a weak match of images 0 and 1's point, at 8
    tracks = build_tracks(matches_of([(0, 5, 1, 6, 9.0), (1, 6, 2, 7, 9.0), (0, 5, 2, 8, 2.0)]), 3)
    assert tracks.num_points == 1
    assert tracks.obs_xy[:, 0].tolist() == [5, 6, 7]
    weak_first = build_tracks(matches_of([(0, 5, 2, 8, 9.0), (0, 5, 1, 6, 8.0), (1, 6, 2, 7, 1.0)]), 3)
    assert weak_first.obs_xy[:, 0].tolist() == [5, 6, 8]


def test_no_track_sees_an_image_twice():
    scene = make_point_scene(outliers=0.3)
    tracks = build_tracks(scene.matches, 8)
    seen = tracks.obs_point * 8 + tracks.obs_image
    assert len(np.unique(seen)) == len(seen)
    assert np.all(np.diff(tracks.obs_point) >= 0)
    assert np.bincount(tracks.obs_point).min() >= 2


def test_no_matches_give_no_tracks():
    empty = matches_of([(0, 5, 1, 6, 9.0)])
    empty = KeypointMatches(**{k: v[:0] for k, v in vars(empty).items()})
    assert build_tracks(empty, 4).num_points == 0


def test_collector_maps_grid_matches_to_original_pixels_and_passes_predictions_on():
    grid = ImageGrid(size_wh=np.array([[50, 40]] * 2), scale=np.full((2, 2), 0.5), offset=np.array([[1.0, 2.0]] * 2))
    matches = Matches(xy_i=np.array([[11.0, 12.0]]), xy_j=np.array([[1.0, 2.0]]), confidence=np.array([9.0]))
    prediction = PairPrediction(
        i=0, j=1, status=PairStatus.OK, matches=matches, keypoint_matches=None, frame_i=None, frame_j=None
    )
    collector = KeypointMatchCollector(grid, detects_keypoints=False)
    assert list(collector.watch([prediction])) == [prediction]
    assert collector.finish().xy_i.tolist() == [[20.0, 20.0]]
    assert collector.finish().xy_j.tolist() == [[0.0, 0.0]]


def test_collector_takes_matches_of_keypoints_alone_where_a_front_end_detects_them():
    grid = ImageGrid(size_wh=np.array([[50, 40]] * 3), scale=np.full((3, 2), 0.5), offset=np.zeros((3, 2)))
    matches = Matches(xy_i=np.array([[11.0, 12.0]]), xy_j=np.array([[1.0, 2.0]]), confidence=np.array([9.0]))
    both = [
        PairPrediction(
            i=0, j=j, status=PairStatus.OK, matches=matches, keypoint_matches=keypoint, frame_i=None, frame_j=None
        )
        for j, keypoint in ((1, matches), (2, None))
    ]
    collector = KeypointMatchCollector(grid, detects_keypoints=True)
    assert list(collector.watch(both)) == both
    assert collector.finish().image_j.tolist() == [1]
    assert collector.finish().xy_i.tolist() == [[11.0, 12.0]]


def test_adjustment_recovers_poses_focal_and_principal_point():
    scene = make_point_scene(outliers=0.1, num_points=1500, centre=(785.0, 580.0))
    tracks = build_tracks(scene.matches, 8)
    start = perturb(scene.model, degrees=0.3, distance=0.02, focal=1.03)
    result = adjust_model(start, tracks, AdjustConfig(), working_scale=SCALE)
    assert not result.dropped and len(result.model.image_index) == 8
    focal, cx, cy, _ = result.model.cameras[0].params
    assert abs(focal / 1500 - 1) < 2e-3
    assert np.hypot(cx - 785, cy - 580) < 2.5
    assert centre_error(result.model, scene.model) < 1e-3
    assert len(result.model.points) > 1200


def test_principal_point_stays_where_few_images_share_a_camera():
    scene = make_point_scene(num_views=2, num_points=800)
    tracks = build_tracks(scene.matches, 2)
    result = adjust_model(scene.model, tracks, AdjustConfig(), working_scale=SCALE[:2])
    assert len(result.model.image_index) == 2
    assert result.model.cameras[0].params[1:3] == (800.0, 600.0)


def test_principal_point_stays_where_it_is_not_to_be_refined():
    scene = make_point_scene(num_points=300, centre=(790.0, 600.0))
    start = perturb(scene.model, degrees=0.0, distance=0.0, focal=1.0)
    config = AdjustConfig(refine_principal_point=False)
    result = adjust_model(start, build_tracks(scene.matches, 8), config, working_scale=SCALE)
    assert result.model.cameras[0].params[1:3] == (800.0, 600.0)


def test_a_view_with_a_wrong_pose_is_resected():
    scene = make_point_scene(num_points=1000)
    tracks = build_tracks(scene.matches, 8)
    poses = scene.model.cam_from_world.copy()
    poses[3, :, 3] += [2.0, -1.0, 1.5]
    start = replace(scene.model, cam_from_world=poses)
    result = adjust_model(start, tracks, AdjustConfig(), working_scale=SCALE)
    assert len(result.model.image_index) == 8
    assert centre_error(result.model, scene.model) < 1e-3


def test_a_view_without_enough_observations_is_dropped_and_says_why():
    scene = make_point_scene(num_points=800)
    matches = scene.matches
    touches = (matches.image_i == 7) | (matches.image_j == 7)
    keep = ~touches | (np.cumsum(touches) <= 20)
    few = KeypointMatches(**{name: value[keep] for name, value in vars(matches).items()})
    result = adjust_model(scene.model, build_tracks(few, 8), AdjustConfig(), working_scale=SCALE)
    assert result.model.image_index.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert "observations" in result.dropped[7]


def test_known_poses_and_cameras_do_not_move():
    scene = make_point_scene(num_points=500)
    tracks = build_tracks(scene.matches, 8)
    held = Held(pose=np.arange(8) < 3, camera=np.array([True]))
    start = perturb(scene.model, degrees=0.0, distance=0.0, focal=1.0)
    result = adjust_model(start, tracks, AdjustConfig(), working_scale=SCALE, held=held)
    assert np.abs(result.model.cam_from_world[:3] - start.cam_from_world[:3]).max() < 1e-12
    assert np.abs(result.model.cam_from_world[3:] - start.cam_from_world[3:]).max() > 1e-9
    assert result.model.cameras == start.cameras


@pytest.mark.parametrize("scale", [2.0**-30, 1e-6, 1e6])
def test_triangulation_and_adjustment_do_not_depend_on_the_unit(scale):
    """With all cameras held the solver used to stop early in large units: its limit of gradients is absolute."""
    scene = make_point_scene(num_points=200, outliers=0.05)
    tracks = build_tracks(scene.matches, 8)
    results = []
    for factor in (1.0, scale):
        poses = scene.model.cam_from_world.copy()
        poses[:, :, 3] *= factor
        start = replace(scene.model, cam_from_world=poses)
        held = Held(pose=np.ones(8, bool), camera=np.ones(1, bool))
        results.append(adjust_model(start, tracks, AdjustConfig(), working_scale=SCALE, held=held).model)
    plain, other = results
    np.testing.assert_allclose(other.points / scale, plain.points, rtol=1e-5, atol=1e-5)
    assert len(other.tracks.obs_image) == len(plain.tracks.obs_image)


def test_adjustment_gives_the_same_bits_twice():
    scene = make_point_scene(outliers=0.05, num_points=600)
    tracks = build_tracks(scene.matches, 8)
    start = perturb(scene.model, degrees=0.2, distance=0.02, focal=1.02)
    first, second = (adjust_model(start, tracks, AdjustConfig(), working_scale=SCALE).model for _ in range(2))
    assert np.array_equal(first.cam_from_world, second.cam_from_world)
    assert np.array_equal(first.points, second.points)
    assert first.cameras == second.cameras


def test_written_model_reads_back(tmp_path):
    pycolmap = pytest.importorskip("pycolmap")
    scene = make_point_scene(num_points=300)
    model = adjust_model(scene.model, build_tracks(scene.matches, 8), AdjustConfig(), working_scale=SCALE).model
    model = without_view(model, 2)
    names = [f"folder/{k}.jpg" for k in range(8)]
    write_models(tmp_path / "sparse", [model, model], names)
    assert sorted(p.name for p in (tmp_path / "sparse").iterdir()) == ["0", "1"]
    assert not list(tmp_path.glob(".*"))
    back = pycolmap.Reconstruction(str(tmp_path / "sparse" / "0"))
    assert {image.name for image in back.images.values()} == {names[k] for k in range(8) if k != 2}
    image = back.find_image_with_name("folder/4.jpg")
    view = model.image_index.tolist().index(4)
    assert np.abs(image.cam_from_world().matrix() - model.cam_from_world[view]).max() < 1e-12
    assert back.compute_num_observations() == len(model.tracks.obs_point)
    with pytest.raises(StorageError, match="sparse"):
        write_models(tmp_path / "sparse", [model], names)  # never over what is there
    assert sorted(p.name for p in (tmp_path / "sparse").iterdir()) == ["0", "1"]


def test_a_model_that_does_not_fit_on_the_disk_is_an_error_and_the_old_one_stays(tmp_path):
    scene = make_point_scene(num_points=300)
    model = adjust_model(scene.model, build_tracks(scene.matches, 8), AdjustConfig(), working_scale=SCALE).model
    names = [f"{k}.jpg" for k in range(8)]
    write_models(tmp_path / "sparse", [without_view(model, 0)], names)
    before = (tmp_path / "sparse" / "0" / "images.bin").read_bytes()
    # COLMAP's writer is cut short without an error
    with full_disk(5_000), pytest.raises(StorageError, match="disk is full"):
        write_models(tmp_path / "sparse", [model], names)
    assert (tmp_path / "sparse" / "0" / "images.bin").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["sparse"]


def test_points_that_end_behind_a_camera_are_left_out_and_counted(monkeypatch):
    from anchorsfm.scene.progress import SILENT, RecordingProgress
    from anchorsfm.tracks import adjust as module

    scene, recorded = make_point_scene(), RecordingProgress(SILENT)
    tracks = build_tracks(scene.matches, 8)
    honest = module.adjust

    def through_the_camera(model, options, held):
        """The last adjustment moves two points through the first camera."""
        model, summary = honest(model, options, held)
        if options.function_tolerance == module.TIGHT:
            points, pose = model.points.copy(), model.cam_from_world[0]
            seen = model.tracks.obs_point[model.tracks.obs_image == model.image_index[0]][:2]
            points[seen] = (np.array([0.0, 0.0, -1.0]) - pose[:, 3]) @ pose[:, :3]
            model = replace(model, points=points)
        return model, summary

    plain = adjust_model(scene.model, tracks, AdjustConfig(), working_scale=SCALE)
    monkeypatch.setattr(module, "adjust", through_the_camera)
    result = adjust_model(scene.model, tracks, AdjustConfig(), working_scale=SCALE, progress=recorded)
    assert plain.lost_points == 0 and np.isfinite(pixel_errors(result.model)).all()
    assert len(plain.model.tracks.obs_point) > len(result.model.tracks.obs_point)
    assert bool(recorded.warnings) == (result.lost_points > 0)


def test_an_adjustment_that_is_not_finite_is_an_error(monkeypatch):
    from anchorsfm.scene.errors import NoReconstructionError
    from anchorsfm.tracks import adjust as module

    scene, honest = make_point_scene(), module.adjust

    def broken(model, options, held):
        model, summary = honest(model, options, held)
        last = options.function_tolerance == module.TIGHT
        return (replace(model, cam_from_world=model.cam_from_world * np.nan) if last else model), summary

    monkeypatch.setattr(module, "adjust", broken)
    with pytest.raises(NoReconstructionError, match="bundle adjustment"):
        adjust_model(scene.model, build_tracks(scene.matches, 8), AdjustConfig(), working_scale=SCALE)


def test_observations_that_do_not_project_are_dropped():
    scene = make_point_scene(num_views=3)
    tracks = build_tracks(scene.matches, 3)
    model = adjust_model(scene.model, tracks, AdjustConfig(), working_scale=SCALE[:3]).model
    pose = model.cam_from_world[0]
    row = int(model.tracks.obs_point[model.tracks.obs_image == 0][0])
    points = model.points.copy()
    points[row] = (np.array([0.0, 0.0, -1.0]) - pose[:, 3]) @ pose[:, :3]
    behind = replace(model, points=points)
    kept, lost = drop_unseen(behind)
    seen_by_others = (np.isfinite(pixel_errors(behind)) & (model.tracks.obs_point == row)).sum()
    assert lost == (seen_by_others < 2) and np.isfinite(pixel_errors(kept)).all()
    unchanged, none = drop_unseen(model)
    assert unchanged is model and none == 0
