"""Verbs that edit a model."""

from dataclasses import replace

import numpy as np
import pycolmap
import pytest

from anchorsfm.colmap.bundle import with_plausible_cameras
from anchorsfm.colmap.write import write_models
from anchorsfm.mapping import incremental
from anchorsfm.mapping.incremental import FromScratchConfig, map_tracks
from anchorsfm.scene.edit import (
    scaled,
    view_of_image,
    with_cameras,
    with_cameras_of_views,
    with_images_numbered,
    without_view,
)
from anchorsfm.scene.reconstruction import Camera
from anchorsfm.tracks.adjust import adjust_model
from anchorsfm.tracks.build import build_tracks
from anchorsfm.tracks.config import AdjustConfig
from anchorsfm.tracks.points import triangulate_model
from anchorsfm.tracks.residuals import pixel_errors
from point_scene import make_point_scene

CAMERA = Camera(model="SIMPLE_RADIAL", width=1600, height=1200, params=(1500.0, 800.0, 600.0, 0.0))
ABSURD = replace(CAMERA, params=(1500.0, 800.0, 600.0, 5.0))


def gone_wrong(model):
    """An adjustment that moved everything and ended with an absurd first camera."""
    return replace(model, cameras=(ABSURD, *model.cameras[1:]), cam_from_world=model.cam_from_world + 0.25)


def test_an_absurd_camera_is_undone_together_with_the_poses_of_its_views():
    before = replace(make_point_scene(4, 50).model, cameras=(CAMERA, CAMERA), camera_index=np.array([0, 1, 0, 1]))
    after = with_plausible_cameras(gone_wrong(before), before)
    assert after.cameras == (CAMERA, CAMERA)
    assert np.array_equal(after.cam_from_world[::2], before.cam_from_world[::2])
    assert np.array_equal(after.cam_from_world[1::2], before.cam_from_world[1::2] + 0.25)


def test_a_growing_model_keeps_no_pose_of_an_absurd_camera(monkeypatch):
    """The mapper from tracks and the adjustment undo a failed adjustment in the same way."""
    scene = make_point_scene(4, 300)
    monkeypatch.setattr(incremental, "adjust", lambda model, options, held: (gone_wrong(model), None))
    setting = incremental._Setting(
        tracks=build_tracks(scene.matches, 4), cameras=(CAMERA,), camera_index=np.zeros(4, np.int64),
        known_camera=np.zeros(1, bool), working_scale=np.ones(4), config=FromScratchConfig(),
    )  # fmt: skip
    made = incremental._adjusted(setting, scene.model, np.full(4, 8.0), tolerance=1e-4)
    assert len(made.points) and made.cameras == scene.model.cameras
    assert np.array_equal(made.cam_from_world, scene.model.cam_from_world)


def test_cameras_of_no_view_go():
    model = replace(make_point_scene(3, 50).model, cameras=(ABSURD, CAMERA, ABSURD), camera_index=np.array([1, 1, 1]))
    left = with_cameras_of_views(model)
    assert left.cameras == (CAMERA,) and left.camera_index.tolist() == [0, 0, 0]


def mean_errors(model):
    each = pixel_errors(model)
    return np.array([each[model.tracks.obs_point == point].mean() for point in range(len(model.points))])


@pytest.mark.parametrize("way", ["map", "adjust"])
def test_models_know_the_errors_of_their_points(way):
    scene = make_point_scene(5, 200, noise_px=0.5)
    tracks, index = build_tracks(scene.matches, 5), np.zeros(5, np.int64)
    if way == "map":
        (model,) = map_tracks(tracks, (CAMERA,), index, FromScratchConfig(), working_scale=np.ones(5)).models
    else:
        model = adjust_model(scene.model, tracks, AdjustConfig(), working_scale=np.ones(5)).model
    assert model.error_px.min() > 0
    np.testing.assert_allclose(model.error_px, mean_errors(model), rtol=1e-12)


def test_a_written_model_has_errors_whoever_made_it(tmp_path):
    scene = make_point_scene(5, 200, noise_px=0.5)
    made = triangulate_model(
        scene.model, build_tracks(scene.matches, 5), max_error_px=np.full(5, 8.0), min_angle_deg=1.0
    )
    assert np.isnan(made.error_px).all(), "cheap while a model is being made"
    write_models(tmp_path / "sparse", [made], [f"{k}.jpg" for k in range(5)])
    back = pycolmap.Reconstruction(str(tmp_path / "sparse" / "0"))
    found = np.array([back.points3D[point + 1].error for point in range(len(made.points))])
    np.testing.assert_allclose(found, mean_errors(made), rtol=1e-6)


def test_verbs_keep_together_what_belongs_together():
    """Views go with their observations, points with their colours; what an edit does not name stays."""
    model = make_point_scene(4, 50).model
    fewer = without_view(model, 1)
    assert fewer.image_index.tolist() == np.delete(model.image_index, 1).tolist()
    assert not np.isin(fewer.tracks.obs_image, model.image_index[1]).any()
    assert len(fewer.points) == len(fewer.rgb) == len(fewer.error_px) == fewer.tracks.num_points
    back = with_images_numbered(fewer)
    assert back.image_index.tolist() == [0, 1, 2]
    assert np.array_equal(view_of_image(fewer)[fewer.tracks.obs_image], back.tracks.obs_image)
    twice = scaled(model, 2.0)
    assert np.allclose(pixel_errors(twice), pixel_errors(model), atol=1e-9)
    assert np.array_equal(twice.points, 2 * model.points)
    with pytest.raises(ValueError, match="2 cameras for a model of 1"):
        with_cameras(model, [CAMERA, CAMERA])
