"""What is set aside because it kills workers says nothing in a run, and another does not take that for the truth."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from anchorsfm.frontend.classical import ClassicalFrontend
from anchorsfm.frontend.classical.config import DenseConfig
from anchorsfm.frontend.run_settings import RunSettings
from anchorsfm.io.images import load_image_set
from anchorsfm.io.store import Store
from anchorsfm.pairing import make_pairs
from anchorsfm.scene.pairs import PairPrediction, PairStatus
from anchorsfm.scene.progress import SILENT
from cluster_tools import SetsAside

FRONTEND = ClassicalFrontend(dense=DenseConfig(size=128)).for_run(RunSettings(max_image_size=320))


Whole = tuple[Store, str, list[PairPrediction]]
"""A run in which nothing is set aside: its store, the predictor's digest, its predictions."""


def _predictions(rendered: Path, store: Store) -> tuple[str, list[PairPrediction]]:
    images = load_image_set(rendered / "images").select([0, 1, 2])
    predictor = FRONTEND.open(images, make_pairs(3, "complete"), store, SILENT)
    return predictor.digest, list(predictor)


@pytest.fixture(scope="module")
def whole(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    store = Store(tmp_path_factory.mktemp("whole"))
    return store, *_predictions(rendered, store)


@pytest.fixture
def store(whole: Whole, tmp_path: Path) -> Store:
    """With the same entries, so that only what depends on those that are set aside is made."""
    root = whole[0].root
    assert root is not None
    return Store(shutil.copytree(root, tmp_path / "cache"))


@pytest.mark.parametrize(
    "stage", ["finding keypoints", "matching pairs", "verifying pairs", "estimating relative poses"]
)
def test_nothing_is_known_of_it(stage: str, rendered: Path, store: Store, whole: Whole) -> None:
    store.executor = executor = SetsAside(stage)
    digest, found = _predictions(rendered, store)
    lost = [p.status is PairStatus.UNMATCHED for p in found]
    names = load_image_set(rendered / "images").names
    touched = [executor.name in (names[p.i], names[p.j], f"{names[p.i]} - {names[p.j]}") for p in found]
    assert sum(touched) == (2 if stage == "finding keypoints" else 1)
    assert all(p.status is PairStatus.OK for p in whole[2])
    assert lost == touched
    assert digest != whole[1], "what is made of the predictions is not taken for that of all"
    again = _predictions(rendered, Store(store.root))
    assert again[0] == whole[1]
    for ours, theirs in zip(again[1], whole[2], strict=True):
        assert ours.status is theirs.status
        assert np.array_equal(ours.matches.xy_i, theirs.matches.xy_i)


def test_a_pair_without_its_depth_keeps_its_pose(rendered: Path, store: Store, whole: Whole) -> None:
    store.executor = SetsAside("dense depth of pairs")
    digest, found = _predictions(rendered, store)
    assert digest != whole[1], "what is made of the predictions is not taken for that of all"
    (row,) = [row for row, p in enumerate(found) if p.frame_i is not None and not (p.frame_i.own_confidence > 1).any()]
    assert found[row].status is PairStatus.OK
    assert np.array_equal(found[row].j_from_i, whole[2][row].j_from_i)
    assert whole[2][row].frame_i is not None and (whole[2][row].frame_i.own_confidence > 1).any()
