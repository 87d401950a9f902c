"""COLMAP databases: what is written can be read by COLMAP's own classes, and a file is complete or not there."""

import numpy as np
import pycolmap
import pytest

from anchorsfm.colmap.database import (
    GeometryKind,
    TwoViewGeometry,
    estimate_geometries,
    number_keypoints,
    write_database,
)
from anchorsfm.geometry.transforms import compose, invert, rotation_angle_deg
from anchorsfm.scene.errors import StorageError
from anchorsfm.scene.reconstruction import Camera
from point_scene import make_point_scene
from unix import full_disk

CAMERA = Camera(model="SIMPLE_RADIAL", width=1600, height=1200, params=(1500.0, 800.0, 600.0, 0.0))
OTHER = Camera(model="OPENCV", width=1600, height=1200, params=(1450.0, 1460.0, 790.0, 610.0, 0.1, 0.0, 0.0, 0.0))


def scene_matches(num_images: int = 4, num_points: int = 200, num_in_set: int = 5, **options):
    scene = make_point_scene(num_images, num_points, **options)
    m = scene.matches
    return scene, number_keypoints(num_in_set, m.image_i, m.image_j, m.xy_i, m.xy_j)


def write(path, matches, geometries=None):
    geometries = geometries or [
        TwoViewGeometry(kind=GeometryKind.UNCALIBRATED, inlier=np.ones(len(matches.of_pair(k)), bool))
        for k in range(len(matches.pair))
    ]
    num_images = len(matches.keypoints)
    names, camera_index = [f"Ordner ä/{k}.jpg" for k in range(num_images)], np.arange(num_images) % 2
    has_prior = np.array([True, False])
    write_database(path, names, (CAMERA, OTHER), camera_index, matches, geometries, has_focal_prior=has_prior)


def test_keypoints_are_numbered_by_image_and_coordinates():
    # the third match repeats the first with the images in the other order; the keypoint (5, 1) of image 0 is shared
    matches = number_keypoints(
        4,
        np.array([0, 0, 2, 0]),
        np.array([2, 2, 0, 1]),
        np.array([[5.0, 1.0], [4.0, 9.0], [6.0, 2.0], [5.0, 1.0]]),
        np.array([[6.0, 2.0], [7.0, 3.0], [5.0, 1.0], [0.5, 0.25]]),
    )
    assert [xy.tolist() for xy in matches.keypoints] == [
        [[4.0, 9.0], [5.0, 1.0]],
        [[0.5, 0.25]],
        [[6.0, 2.0], [7.0, 3.0]],
        [],
    ]
    assert matches.pair.tolist() == [[0, 1], [0, 2]]
    assert matches.of_pair(0).tolist() == [[1, 0]]
    assert matches.of_pair(1).tolist() == [[0, 1], [1, 0]]


def test_no_matches_are_numbered_too(tmp_path):
    none, nowhere = np.zeros(0, np.int64), np.zeros((0, 2))
    matches = number_keypoints(3, none, none, nowhere, nowhere)
    assert [len(xy) for xy in matches.keypoints] == [0, 0, 0]
    assert len(matches.pair) == 0 and matches.start.tolist() == [0]
    write(tmp_path / "database.db", matches)
    database = pycolmap.Database.open(tmp_path / "database.db")
    assert (database.num_images(), database.num_matches()) == (3, 0)
    database.close()


def test_colmap_reads_what_was_written(tmp_path):
    _, matches = scene_matches()
    inlier = [np.arange(len(matches.of_pair(k))) % 3 > 0 for k in range(len(matches.pair))]
    geometries = [
        TwoViewGeometry(kind=GeometryKind.PLANAR_OR_PANORAMIC, inlier=i, homography=np.eye(3)) for i in inlier
    ]
    geometries[0] = TwoViewGeometry(kind=GeometryKind.UNRELATED, inlier=np.zeros(len(inlier[0]), bool))
    write(tmp_path / "deep" / "database.db", matches, geometries)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["database.db"]
    database = pycolmap.Database.open(tmp_path / "deep" / "database.db")
    assert (database.num_cameras(), database.num_rigs(), database.num_images(), database.num_frames()) == (2, 2, 5, 5)
    images = {image.image_id: image for image in database.read_all_images()}
    assert {k: image.name for k, image in images.items()} == {k + 1: f"Ordner ä/{k}.jpg" for k in range(5)}
    assert [images[k + 1].camera_id for k in range(5)] == [1, 2, 1, 2, 1]
    assert [images[k + 1].frame_id for k in range(5)] == [1, 2, 3, 4, 5]
    for frame in database.read_all_frames():
        assert [data.id for data in frame.image_ids] == [frame.frame_id]
        assert database.read_rig(frame.rig_id).is_ref_sensor(images[frame.frame_id].data_id.sensor_id)
    for camera_id, camera, prior in ((1, CAMERA, True), (2, OTHER, False)):
        entry = database.read_camera(camera_id)
        assert entry.model.name == camera.model and tuple(entry.params) == camera.params
        assert entry.has_prior_focal_length is prior
    for k, xy in enumerate(matches.keypoints):
        assert np.array_equal(database.read_keypoints(k + 1)[:, :2], xy.astype(np.float32))
    for k, (i, j) in enumerate(matches.pair.tolist()):
        assert np.array_equal(database.read_matches(i + 1, j + 1), matches.of_pair(k))
        found = database.read_two_view_geometry(i + 1, j + 1)
        assert np.array_equal(np.asarray(found.inlier_matches).reshape(-1, 2), matches.of_pair(k)[geometries[k].inlier])
        assert pycolmap.TwoViewGeometryConfiguration(found.config).name == (
            "DEGENERATE" if k == 0 else "PLANAR_OR_PANORAMIC"
        )
    database.close()


def test_colmap_verifies_and_maps_from_the_file(tmp_path):
    _, matches = scene_matches(num_in_set=4)
    path = tmp_path / "database.db"
    write(path, matches)
    options = pycolmap.IncrementalPipelineOptions()
    options.extract_colors, options.min_model_size, options.num_threads, options.random_seed = False, 2, 1, 0
    level, pycolmap.logging.minloglevel = pycolmap.logging.minloglevel, 3
    try:
        models = pycolmap.incremental_mapping(path, tmp_path, tmp_path / "models", options)
    finally:
        pycolmap.logging.minloglevel = level
    assert len(models) == 1 and models[0].num_reg_images() == 4
    assert (tmp_path / "models" / "0" / "images.bin").is_file()


def test_estimated_geometries_find_wrong_matches_and_the_pose():
    scene, matches = scene_matches(num_in_set=4, num_points=300, outliers=0.2)
    one, options = np.zeros(4, np.int64), {"max_error_px": np.full(4, 4.0), "seed": 3}
    known = estimate_geometries((CAMERA,), one, matches, has_focal_prior=np.array([True]), **options)
    again = estimate_geometries((CAMERA,), one, matches, has_focal_prior=np.array([True]), **options)
    free = estimate_geometries((CAMERA,), one, matches, has_focal_prior=np.array([False]), **options)
    pose = scene.model.cam_from_world
    for k, (i, j) in enumerate(matches.pair.tolist()):
        assert known[k].kind is GeometryKind.CALIBRATED and free[k].kind is GeometryKind.UNCALIBRATED
        assert 0.7 < known[k].inlier.mean() < 0.9
        relative = compose(pose[j], invert(pose[i]))
        assert rotation_angle_deg((known[k].j_from_i[:, :3] @ relative[:, :3].T)[None])[0] < 0.5
        assert 5 < known[k].angle_deg < 90
        assert np.array_equal(known[k].inlier, again[k].inlier)
        assert np.array_equal(known[k].j_from_i, again[k].j_from_i)


def test_pairs_without_agreement_are_unrelated():
    rng = np.random.default_rng(0)
    count = 60
    xy_i, xy_j = rng.uniform([0, 0], [1600, 1200], (2, count, 2))
    matches = number_keypoints(2, np.zeros(count, np.int64), np.ones(count, np.int64), xy_i, xy_j)
    both = np.array([True, True])
    (geometry,) = estimate_geometries(
        (CAMERA, OTHER), np.arange(2), matches, has_focal_prior=both, max_error_px=np.full(2, 1.0)
    )
    assert geometry.kind is GeometryKind.UNRELATED
    assert not geometry.inlier.any()


@pytest.mark.parametrize("limit", [0, 20_000, 120_000])
def test_a_database_that_does_not_fit_on_the_disk_is_an_error_and_the_old_one_stays(tmp_path, limit):
    _, matches = scene_matches(6, 600, num_in_set=6)
    _, few = scene_matches(num_points=60)
    path = tmp_path / "database.db"
    write(path, few)
    before = path.read_bytes()
    with full_disk(limit), pytest.raises(StorageError, match=r"database\.db could not be written") as caught:
        write(path, matches)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["database.db"]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    _, matches = scene_matches(num_points=60)
    with pytest.raises(StorageError, match="file"):
        write(tmp_path / "file" / "database.db", matches)
