"""The walk along a street: what overlaps, and that it comes back to where it began."""

import numpy as np
import pytest

from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.scene.errors import InputError
from anchorsfm.synthetic import GroundConfig, SceneConfig, SyntheticScene, WalkConfig, make_scene
from anchorsfm.synthetic import solids as solids_module
from anchorsfm.synthetic.scenes import cast_pixels, project, rays


@pytest.fixture(scope="module")
def walk() -> SyntheticScene:
    return make_scene(SceneConfig(num_images=120, size_wh=(64, 48), walk=WalkConfig(), seed=3))


def _overlap(scene: SyntheticScene, i: int, j: int) -> float:
    """Share of what image i sees that image j sees too, uncovered."""
    width, height = scene.config.size_wh
    x, y = np.meshgrid(np.arange(2, width, 6) + 0.5, np.arange(2, height, 6) + 0.5)
    xy = np.stack([x.ravel(), y.ravel()], axis=1)
    origin, direction = rays(scene, i, xy)
    points = origin + cast_pixels(scene, i, xy).distance[:, None] * direction
    seen_xy, depth = project(scene, j, points)
    inside = (depth > 0) & (seen_xy > 0).all(1) & (seen_xy < [width, height]).all(1)
    covered = np.full(len(xy), True)
    covered[inside] = cast_pixels(scene, j, seen_xy[inside]).distance < 0.98 * depth[inside]
    return float((inside & ~covered).mean())


def test_only_neighbours_overlap_and_the_last_is_a_neighbour_of_the_first(walk: SyntheticScene):
    for first in (0, 40, 119):
        near = _overlap(walk, first, (first + 1) % 120)
        far = _overlap(walk, first, (first + 60) % 120)
        assert near > 0.4 and far < 0.02


def test_steps_are_those_asked_for(walk: SyntheticScene):
    centres = camera_centres(walk.cam_from_world)
    steps = np.linalg.norm(centres - np.roll(centres, 1, axis=0), axis=1)
    assert 0.4 < np.median(steps) < 0.6 and steps.max() < 1.2


def test_nobody_stands_inside_a_house(walk: SyntheticScene):
    for centre in camera_centres(walk.cam_from_world):
        offset = np.abs(centre - walk.solids.box_centre)
        assert (np.linalg.norm(offset[:, [0, 2]], axis=1) > walk.solids.box_half[:, 2]).all()


def test_solids_out_of_view_are_left_out_without_a_change(walk: SyntheticScene, monkeypatch: pytest.MonkeyPatch):
    xy = np.random.default_rng(0).uniform(0, 48, (500, 2))
    left_out = cast_pixels(walk, 7, xy)
    monkeypatch.setattr(solids_module, "_in_view", lambda *_: lambda *_: True)
    every = cast_pixels(walk, 7, xy)
    np.testing.assert_array_equal(left_out.distance, every.distance)
    np.testing.assert_array_equal(left_out.solid, every.solid)


def test_a_ground_is_not_walked_on():
    with pytest.raises(InputError, match="walk"):
        SceneConfig(ground=GroundConfig(), walk=WalkConfig())
