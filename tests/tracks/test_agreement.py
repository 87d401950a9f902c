"""Which matches agree with the poses of a model."""

import numpy as np
import pytest

from anchorsfm.scene.edit import select_views, without_points
from anchorsfm.scene.reconstruction import Camera
from anchorsfm.tracks import agreement as module
from anchorsfm.tracks.agreement import PairAgreement, pair_agreement
from anchorsfm.tracks.build import KeypointMatches
from point_scene import make_point_scene

CAMERA = Camera(model="SIMPLE_PINHOLE", width=1600, height=1200, params=(1000.0, 800.0, 600.0))
XY = np.random.default_rng(0).uniform([500, 200], [1100, 1000], (60, 2))


def beside(right_px: float, down_px: float = 0.0, tolerance_px: tuple[float, float] = (2.0, 2.0)) -> int:
    """How many matches agree of images 3 and 5 if points move so far; the second is taken to the right of the first."""
    xy_to = XY + np.array([right_px, down_px])
    poses = np.tile(np.eye(3, 4), (2, 1, 1))
    poses[1, 0, 3] = -1.0
    model = without_points(np.array([3, 5]), poses, (CAMERA,), np.zeros(2, np.int64))
    tolerance = np.zeros(7)
    tolerance[[3, 5]] = tolerance_px
    found = pair_agreement(model, matches(XY, xy_to, 3, 5), tolerance_px=tolerance)
    again = pair_agreement(model, matches(xy_to, XY, 5, 3), tolerance_px=tolerance)
    assert found.view.tolist() == again.view.tolist() == [[0, 1]] and found.matches.tolist() == [len(XY)]
    assert found.agreeing.tolist() == again.agreeing.tolist()
    return int(found.agreeing[0])


def matches(xy_i: np.ndarray, xy_j: np.ndarray, i: int, j: int) -> KeypointMatches:
    num = len(xy_i)
    return KeypointMatches(
        image_i=np.full(num, i), image_j=np.full(num, j), xy_i=xy_i, xy_j=xy_j, confidence=np.full(num, 10.0)
    )


def test_rays_meet_ahead_or_so_far_away_that_nothing_tells_where():
    assert beside(-100.0) == len(XY)
    assert beside(100.0) == 0, "they meet behind both cameras"
    assert beside(1.0) == len(XY), "they are parallel but for noise"


@pytest.mark.parametrize(("tolerance_px", "most_px"), [((2.0, 2.0), 2.83), ((0.0, 3.0), 3.0), ((3.0, 4.0), 5.0)])
def test_matches_may_be_off_by_the_tolerance_of_both_images(tolerance_px, most_px):
    assert beside(-100.0, most_px - 0.1, tolerance_px) == len(XY)
    assert beside(-100.0, -most_px - 0.1, tolerance_px) == 0


def test_matches_are_counted_for_the_pairs_of_the_model(monkeypatch):
    scene = make_point_scene(8, 300, outliers=0.1)
    images = [6, 1, 3]
    model = select_views(scene.model, np.isin(scene.model.image_index, images))

    def agreement() -> PairAgreement:
        return pair_agreement(model, scene.matches, tolerance_px=np.full(8, 4.0))

    found = agreement()
    of_pair = {
        (i, j): (scene.matches.image_i == i) & (scene.matches.image_j == j) for i, j in ((1, 3), (3, 6))
    }  # 1 and 6 are too far apart
    assert [tuple(model.image_index[pair]) for pair in found.view] == list(of_pair)
    right = scene.matches.confidence == 10
    for count, agreeing, mine in zip(found.matches, found.agreeing, of_pair.values(), strict=True):
        assert count == mine.sum()
        assert 0 <= agreeing - (mine & right).sum() <= 2, "chance may put a wrong one near its line"
    monkeypatch.setattr(module, "_AT_A_TIME", 50)
    again = agreement()
    assert np.array_equal(again.agreeing, found.agreeing) and np.array_equal(again.matches, found.matches)
