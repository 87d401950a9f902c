"""Photographs that are stored turned share the camera of the others, and models refer to them as they are stored."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anchorsfm.colmap.bundle import Held
from anchorsfm.colmap.cameras import convert_camera, make_camera, project, turned_camera
from anchorsfm.geometry.quarter_turns import turned_poses, turned_size_wh, turned_xy
from anchorsfm.io.images import load_image_set
from anchorsfm.io.pictures import load_grey
from anchorsfm.mapping.base import MapperInput, Start
from anchorsfm.mapping.finish import ModellingSettings, finish_models
from anchorsfm.mapping.turned import find_turns, in_plane_turns
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.reconstruction import CAMERA_MODELS, Camera, Reconstruction
from anchorsfm.tracks.build import build_tracks
from anchorsfm.tracks.coarse import CoarseKeypoints
from anchorsfm.tracks.config import AdjustConfig
from anchorsfm.tracks.residuals import pixel_errors
from point_scene import all_matches, make_lens_scene

CENTRE = (815.0, 588.0)
TURNS = np.array([0, 1, 0, 2, 0, 3, 0, 0])


def _scene(turns: np.ndarray, cameras: tuple[Camera, ...] | None = None) -> Reconstruction:
    """True cameras that saw pictures which were then turned, by one camera unless given."""
    camera = Camera(model="SIMPLE_RADIAL", width=1600, height=1200, params=(1500.0, *CENTRE, -0.05))
    model = make_lens_scene(cameras or (camera,), len(turns), 700, extent=2.5, seed=2)
    size_wh = np.array([[model.cameras[c].width, model.cameras[c].height] for c in model.camera_index])
    tracks = model.tracks
    xy = turned_xy(tracks.obs_xy, size_wh[tracks.obs_image], turns[tracks.obs_image])
    return replace(
        model,
        cam_from_world=turned_poses(model.cam_from_world, turns),
        cameras=tuple(turned_camera(model.cameras[c], int(t)) for c, t in zip(model.camera_index, turns, strict=True)),
        camera_index=np.arange(len(turns)),
        tracks=replace(tracks, obs_xy=xy),
    )


def _given(model: Reconstruction, *, unnamed: bool = True) -> tuple[Start, MapperInput]:
    """As a run has it: cameras by size, with principal points in the middle and a rough focal length."""
    size_wh = np.array([[c.width, c.height] for c in model.cameras])
    sizes, camera_index = np.unique(size_wh, axis=0, return_inverse=True)
    camera_index = camera_index.reshape(-1)
    cameras = tuple(make_camera("SIMPLE_RADIAL", 1480.0, *wh) for wh in sizes.tolist())
    num = len(size_wh)
    images = ImageSet(
        root=Path(),
        names=tuple(f"{k}.jpg" for k in range(num)),
        size_wh=size_wh,
        camera_index=camera_index,
        focal_prior_px=np.full(num, np.nan),
        digests=("",) * num,
        is_unnamed=np.full(num, unnamed),
    )
    matches = all_matches(model)
    given = MapperInput(
        images=images,
        cameras=cameras,
        known_camera=np.zeros(len(cameras), bool),
        matches=matches,
        tracks=build_tracks(matches, num),
        working_scale=np.ones(num),
    )
    start = replace(model, cameras=cameras, camera_index=camera_index)
    return Start(model=start, held=Held.nothing(start)), given


@pytest.mark.parametrize("name", CAMERA_MODELS)
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_camera_sees_the_turned_picture(name: str, turns: int) -> None:
    rng = np.random.default_rng(turns)
    camera = convert_camera(Camera(model="RADIAL", width=1600, height=1200, params=(900.0, *CENTRE, -0.1, 0.02)), name)
    params = np.array(camera.params)
    params[4 if len(params) > 4 else len(params) :] += rng.uniform(-0.01, 0.01, max(len(params) - 4, 0))
    camera = replace(camera, params=tuple(params))
    points = np.column_stack([rng.uniform(-0.6, 0.6, (50, 2)), np.ones(50)])
    pose = turned_poses(np.eye(3, 4)[None], np.array([turns]))[0]
    seen = project(camera, points)[0]
    size_wh = np.tile([camera.width, camera.height], (50, 1))
    expected = turned_xy(seen, size_wh, np.full(50, turns))
    turned = turned_camera(camera, turns)
    assert np.allclose(project(turned, points @ pose[:, :3].T)[0], expected, atol=1e-6)
    assert [turned.width, turned.height] == turned_size_wh(size_wh[:1], np.array([turns]))[0].tolist()
    back = turned_camera(turned, -turns)
    assert (back.width, back.height) == (camera.width, camera.height) and back.params == pytest.approx(camera.params)


def test_up_is_what_most_pictures_agree_on() -> None:
    model = make_lens_scene((make_camera("SIMPLE_PINHOLE", 1500.0, 1600, 1200),), 8, 300, roll_deg=12, seed=1)
    assert not in_plane_turns(model.cam_from_world).any()
    stored = turned_poses(model.cam_from_world, TURNS)
    assert in_plane_turns(stored).tolist() == (-TURNS % 4).tolist()


def test_stored_turns_are_found_and_one_camera_is_adjusted() -> None:
    truth = _scene(TURNS)
    start, given = _given(truth)
    turns = find_turns(start, given, AdjustConfig())
    assert turns is not None and turns.turns.tolist() == (-TURNS % 4).tolist()
    settings = ModellingSettings(adjust=AdjustConfig(), subpixel=None, choose_camera_model=False, from_grid=False)
    (result,) = finish_models([start], given, settings).results
    model = result.model
    assert len(model.image_index) == 8 and np.median(pixel_errors(model)) < 0.5
    assert len(model.cameras) == 4, "one for each turn"
    for view, turn in enumerate(TURNS.tolist()):
        camera, expected = model.cameras[model.camera_index[view]], truth.cameras[view]
        assert (camera.width, camera.height) == (expected.width, expected.height)
        assert np.allclose(camera.params[1:3], expected.params[1:3], atol=2.5), turn
        assert turned_camera(camera, -turn).params == pytest.approx(model.cameras[model.camera_index[0]].params)
    assert len(result.held.camera) == 4


def test_coarse_keypoints_are_known_in_the_turned_pictures() -> None:
    start, given = _given(_scene(TURNS))
    turns = find_turns(start, given, AdjustConfig())
    assert turns is not None
    tracks = given.tracks
    mine = [np.flatnonzero(tracks.obs_image == image)[::3] for image in range(8)]
    coarse = CoarseKeypoints(xy={image: tracks.obs_xy[rows] for image, rows in enumerate(mine)})
    turned = turns.given(replace(given, coarse=coarse))
    assert turned.coarse is not None
    found = turned.coarse.among(turned.tracks.obs_image, turned.tracks.obs_xy)
    assert np.flatnonzero(found).tolist() == sorted(np.concatenate(mine).tolist())


def test_cameras_that_were_held_turned_stay_as_they_are() -> None:
    """Upside down, and upright: the principal point is where it was in the file."""
    turned = np.where(TURNS == 2, 2, 0)
    model = _scene(np.zeros(8, np.int64))
    rolled = turned_poses(model.cam_from_world, turned)
    camera = model.cameras[0]
    local = [model.points @ pose[:, :3].T + pose[:, 3] for pose in rolled]
    xy = np.stack([project(camera, points)[0] for points in local])
    tracks = model.tracks
    noise = np.random.default_rng(0).normal(0, 0.3, (len(tracks.obs_xy), 2))
    held = replace(
        model, cam_from_world=rolled, tracks=replace(tracks, obs_xy=xy[tracks.obs_image, tracks.obs_point] + noise)
    )
    assert in_plane_turns(rolled).any()
    start, given = _given(held)
    assert find_turns(start, given, AdjustConfig()) is None


def test_another_camera_is_not_taken_for_a_turned_one() -> None:
    one = Camera(model="SIMPLE_RADIAL", width=1600, height=1200, params=(1500.0, *CENTRE, -0.05))
    other = replace(one, params=(1430.0, 780.0, 610.0, 0.02))
    start, given = _given(_scene(np.array([0, 1, 0, 1, 0, 1, 0, 1]), (one, other)))
    assert find_turns(start, given, AdjustConfig()) is None


def test_only_pictures_that_nothing_says_about_are_turned() -> None:
    start, given = _given(_scene(TURNS), unnamed=False)
    assert find_turns(start, given, AdjustConfig()) is None
    start, given = _given(_scene(TURNS))
    apart = replace(given.images, camera_index=np.arange(8))
    cameras = tuple(given.cameras[c] for c in given.images.camera_index)
    alone = replace(given, images=apart, cameras=cameras, known_camera=np.zeros(8, bool))
    own = replace(start.model, cameras=cameras, camera_index=np.arange(8))
    assert find_turns(Start(model=own, held=Held.nothing(own)), alone, AdjustConfig()) is None, "of many cameras"


def test_pictures_are_read_turned(rendered: Path) -> None:
    images = load_image_set(rendered / "images")
    turns = np.array([0, 1, 2, 3, 1])
    turned = replace(images, quarter_turns=turns, size_wh=turned_size_wh(images.size_wh, turns))
    for image in range(4):
        assert np.array_equal(load_grey(turned, image), np.rot90(load_grey(images, image), turns[image]))
    assert load_grey(turned, 1, (60, 80)).shape == (80, 60)
