"""Views that are cut from panoramas show what a pinhole camera there would."""

import numpy as np
import pytest

from anchorsfm.geometry.transforms import compose
from anchorsfm.panorama.projection import ViewDirection, cut, directions, focal_px, natural_side_px, pixels_of
from anchorsfm.synthetic import SceneConfig, make_scene, render_image
from anchorsfm.synthetic.rigs import render_panorama, with_rig

FORWARD, RIGHT, UP = np.eye(3)[2], np.eye(3)[0], -np.eye(3)[1]


def test_directions_are_where_the_convention_says() -> None:
    found = pixels_of(np.stack([FORWARD, RIGHT, UP, -UP, FORWARD - RIGHT]), (400, 200))
    assert np.allclose(found[[0, 1, 4]], [[200, 100], [300, 100], [150, 100]], atol=1e-3)
    assert np.allclose(found[[2, 3], 1], [0, 200], atol=1e-3)


def test_views_look_where_their_names_say() -> None:
    axis = {view.name: view.view_from_rig[2, :3] for view in directions("sphere")}
    assert np.allclose(axis["000"], FORWARD) and np.allclose(axis["060"] @ FORWARD, 0.5) and axis["060"] @ RIGHT > 0
    assert axis["045+50"] @ UP == pytest.approx(np.sin(np.deg2rad(50))) == -(axis["090-50"] @ UP)
    assert len(directions("level")) == 6 and len(axis) == 14
    assert np.array_equal(directions("level")[0].view_from_rig, np.eye(3, 4))


def test_a_sphere_of_views_leaves_no_gap() -> None:
    rays = np.random.default_rng(0).standard_normal((4000, 3))
    seen = np.zeros(len(rays), bool)
    for view in directions("sphere"):
        x, y, z = view.view_from_rig[:, :3] @ rays.T
        seen |= (z > 0) & (np.abs(x) < z) & (np.abs(y) < z)
    assert seen.all()


@pytest.mark.parametrize("view", [ViewDirection(0), ViewDirection(180), ViewDirection(135, 50)])
def test_a_view_is_the_photograph_of_a_pinhole_camera(view: ViewDirection) -> None:
    scene = make_scene(SceneConfig(num_images=1, size_wh=(96, 96)))
    (cut_view,) = cut(render_panorama(scene, 0, 300, noise=0.0), (view,), 96)
    camera = with_rig(scene, view.view_from_rig[None], np.array([focal_px(96)]))
    truth = render_image(camera, 0, noise=0.0).astype(float)
    assert np.allclose(camera.cam_from_world[0], compose(view.view_from_rig, scene.cam_from_world[0]))
    difference = np.abs(cut_view.astype(float) - truth).mean()
    for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):  # it fits best as it is
        assert difference < 0.8 * np.abs(np.roll(cut_view, step, axis).astype(float) - truth).mean()


def test_views_are_as_sharp_as_the_panorama() -> None:
    assert natural_side_px(6000) == pytest.approx(6000 / np.pi, abs=2)
    fine = np.tile((np.arange(6000) % 2 * 255).astype(np.uint8)[None, :, None], (3000, 1, 3))
    (small,) = cut(fine, (ViewDirection(0),), 200)
    assert small.std() < 20  # a panorama that is much finer is averaged, not sampled


def test_masks_are_cut_without_blending() -> None:
    mask = np.ones((100, 200), np.uint8)
    mask[80:] = 0
    for view in cut(mask, directions("sphere"), 64, blends=False):
        assert view.shape == (64, 64) and set(np.unique(view)) <= {0, 1}
    assert not next(iter(cut(mask, (ViewDirection(0, -50),), 64, blends=False)))[50:, 20:40].any()
