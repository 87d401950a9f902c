"""Cameras of a front end that are kept for runs that go on from one."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from anchorsfm.frontend.base import PairPredictor
from anchorsfm.frontend.classical.frontend import ClassicalFrontend
from anchorsfm.io.store import Store
from anchorsfm.run.front_end_cameras import keep_found, kept_cameras
from anchorsfm.scene.images import Distortion, ImageSet
from anchorsfm.scene.pairs import PairList

IMAGES = ImageSet(
    root=Path("photos"),
    names=("a.jpg", "b.jpg", "c.jpg"),
    size_wh=np.array([[400, 300]] * 3),
    camera_index=np.array([0, 1, 0]),
    focal_prior_px=np.array([np.nan, 500.0, np.nan]),
    digests=("3", "1", "2"),
)
FOCAL_PX = np.array([410.0, 500.0, 420.0])
PAIRS = PairList(index=np.array([[0, 1], [1, 2]]))


class Known(PairPredictor):
    """A front end of known focal lengths."""

    focal_px = FOCAL_PX
    digest = "known"


def test_they_are_found_in_any_order_and_not_once_anything_they_follow_from_has_changed(tmp_path: Path) -> None:
    store, frontend, coefficient = Store(tmp_path), ClassicalFrontend(), np.arange(6.0).reshape(3, 2)
    grid = SimpleNamespace(distortion=Distortion(image_wh=IMAGES.size_wh, coefficient=coefficient))
    predictor = Known()
    predictor.grid = grid
    assert kept_cameras(frontend, IMAGES, PAIRS, store) is None
    keep_found(predictor, frontend, IMAGES, PAIRS, store)
    focal_px, distortion = kept_cameras(frontend, IMAGES, PAIRS, store)
    np.testing.assert_array_equal(focal_px, FOCAL_PX)
    np.testing.assert_array_equal(distortion, coefficient)

    order = [2, 0, 1]
    other = replace(IMAGES.select(order), camera_index=np.array([0, 0, 1]))
    pairs = PairList(index=np.array([[0, 2], [2, 1]]))
    focal_px, distortion = kept_cameras(frontend, other, pairs, store)
    np.testing.assert_array_equal(focal_px, FOCAL_PX[order])
    np.testing.assert_array_equal(distortion, coefficient[order])

    for changed in (
        replace(IMAGES, focal_prior_px=np.array([np.nan, 501.0, np.nan])),
        replace(IMAGES, camera_index=np.array([0, 1, 2])),
        replace(IMAGES, digests=("3", "1", "4")),
        replace(IMAGES, distortion_prior=np.full((3, 2), 0.1)),
        replace(IMAGES, focal_is_exact=np.array([True, False, False])),
    ):
        assert kept_cameras(frontend, changed, PAIRS, store) is None
    assert kept_cameras(frontend, IMAGES, PairList(index=PAIRS.index[:1]), store) is None
