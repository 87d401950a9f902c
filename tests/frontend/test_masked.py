"""Predictions without what masks hide."""

from dataclasses import replace

import numpy as np

from anchorsfm.frontend.masked import masked
from anchorsfm.io.store import Store
from anchorsfm.pairing import make_pairs
from anchorsfm.pairing.config import Complete
from anchorsfm.scene.masks import ImageMask, uses
from anchorsfm.scene.pairs import PairStatus
from anchorsfm.scene.progress import SILENT
from anchorsfm.synthetic import SceneConfig, SyntheticFrontend, image_set, make_scene

SCENE = make_scene(SceneConfig(num_images=3, size_wh=(320, 240)))


def predictors(use: np.ndarray):
    images = image_set(SCENE)
    pairs = make_pairs(3, Complete(), names=images.names, seed=0)
    inner = SyntheticFrontend(scene=SCENE).open(images, pairs, Store(None), SILENT)
    hidden = replace(images, masks=(ImageMask.of(use), None, None))
    assert masked(inner, images) is inner
    return inner, masked(inner, hidden)


def test_nothing_is_known_of_masked_pixels() -> None:
    use = np.broadcast_to(np.arange(320) < 100, (240, 320))
    inner, outer = predictors(use)
    assert outer.digest != inner.digest and len(outer) == len(inner)
    seen = 0
    for before, after in zip(inner, outer, strict=True):
        if 0 not in (before.i, before.j):
            assert np.array_equal(after.matches.xy_i, before.matches.xy_i)
            assert np.array_equal(after.frame_i.own_confidence, before.frame_i.own_confidence)
            continue
        for matches in (after.matches, after.keypoint_matches):
            if matches is not None:
                xy = matches.xy_i if matches is after.keypoint_matches else outer.grid.to_image(0, matches.xy_i)
                assert uses(use, xy, np.array([320, 240])).all()
        assert 0 < len(after.matches) < len(before.matches)
        if after.frame_i is not None:
            seen += 1
            width = after.frame_i.own_confidence.shape[1]
            assert (after.frame_i.own_confidence[:, width // 2 :] == 1).all()
            assert (after.frame_j.other_confidence[:, width // 2 :] == 1).all()
            assert np.array_equal(after.frame_i.other_confidence, before.frame_i.other_confidence)
            assert np.array_equal(
                after.frame_i.own_confidence[:, : width // 4], before.frame_i.own_confidence[:, : width // 4]
            )
    assert seen
    again = next(iter(outer.predictions([0])))
    assert np.array_equal(again.matches.xy_i, next(iter(outer)).matches.xy_i)


def test_a_pair_of_which_nothing_is_left_is_unmatched() -> None:
    use = np.zeros((240, 320), bool)
    use[0, 0] = True
    _, outer = predictors(use)
    assert [p.status for p in outer if 0 in (p.i, p.j)] == [PairStatus.UNMATCHED] * 2
