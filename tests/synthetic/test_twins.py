"""Two groups of solids that look exactly alike, with surroundings that do not."""

from dataclasses import replace

import numpy as np
import pytest

from anchorsfm.scene.errors import InputError
from anchorsfm.synthetic import SceneConfig, TwinsConfig, WalkConfig, make_scene, render_image
from anchorsfm.synthetic.scenes import cast_pixels
from anchorsfm.synthetic.twins import twin_of_image

SIZE = (96, 72)


def test_the_same_view_of_both_twins_differs_in_the_surroundings_only():
    scene = make_scene(SceneConfig(num_images=2, size_wh=SIZE, radius_m=2.3, twins=TwinsConfig(), jitter=0.0, seed=1))
    step = np.array([scene.config.twins.distance_m, 0.0, 0.0])
    poses = scene.cam_from_world.copy()
    poses[1] = poses[0]
    poses[1, :, 3] -= poses[0, :, :3] @ step
    scene = replace(scene, cam_from_world=poses, light=np.array([0.0, -50.0, -30.0]))  # light from far away
    xy = np.stack(np.meshgrid(np.arange(SIZE[0]) + 0.5, np.arange(SIZE[1]) + 0.5), axis=-1).reshape(-1, 2)
    hits = [cast_pixels(scene, image, xy) for image in (0, 1)]
    pictures = [render_image(scene, image, noise=0.0).reshape(-1, 3).astype(float) for image in (0, 1)]
    twin = np.isin(hits[0].solid, (1, 2, 3)) & (hits[1].solid == hits[0].solid + 3)
    other = (hits[0].solid == 0) & (hits[1].solid == 0)
    difference = np.abs(pictures[0] - pictures[1]).mean(axis=1)
    assert twin.sum() > 300 and other.sum() > 300
    assert np.median(difference[twin]) < 1.5 and np.median(difference[other]) > 8


def test_a_wall_lets_no_photograph_show_both():
    for divided in (True, False):
        config = TwinsConfig(is_divided=divided, distance_m=3.0, seen_together=0.5)
        scene = make_scene(SceneConfig(num_images=8, size_wh=SIZE, radius_m=2.3, arc_deg=120.0, twins=config, seed=2))
        assert twin_of_image(config, 8) == [0, 0, 1, 1, -1, -1, -1, -1]
        xy = np.stack(np.meshgrid(np.arange(0.5, SIZE[0], 3), np.arange(0.5, SIZE[1], 3)), axis=-1).reshape(-1, 2)
        shown = [np.unique(cast_pixels(scene, image, xy).solid) for image in range(4)]
        both = [np.isin((1, 2, 3), solids).any() and np.isin((4, 5, 6), solids).any() for solids in shown]
        assert not (divided and any(both))


def test_a_scene_is_one_kind():
    with pytest.raises(InputError, match="twins"):
        SceneConfig(twins=TwinsConfig(), walk=WalkConfig())
