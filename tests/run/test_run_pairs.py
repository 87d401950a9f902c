"""The pairs of a run: named by a scene graph, or found by looking, for the classical front end and for others."""

from pathlib import Path

import numpy as np
import pytest

from anchorsfm.features.config import FeatureConfig
from anchorsfm.frontend.classical import ClassicalFrontend
from anchorsfm.frontend.classical.config import DenseConfig
from anchorsfm.io.images import load_image_set
from anchorsfm.io.store import Store
from anchorsfm.pairing.config import Auto
from anchorsfm.pipeline import reconstruct
from anchorsfm.report import summary_lines
from anchorsfm.run import predictions
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.predictions import chosen_frontend, make_run_pairs
from anchorsfm.scene.progress import SILENT


class _Network:
    """A front end that matches what keypoints do not; it is not asked here."""

    def open(self, *_arguments: object) -> None:
        raise AssertionError


@pytest.fixture
def large(monkeypatch) -> None:
    """Sets of more than three images are large."""
    monkeypatch.setattr(predictions, "parse_scene_graph", lambda _text: Auto(max_complete=3, num_similar=2))


def test_small_sets_are_complete_and_nothing_is_computed(rendered: Path, tmp_path: Path) -> None:
    images, config = load_image_set(rendered / "images"), PipelineConfig()
    found = make_run_pairs(config, images, chosen_frontend(config), Store(tmp_path), SILENT)
    assert len(found.pairs) == 10 and found.search is None and not list(tmp_path.iterdir())


def test_retrieval_finds_out_how_alike_photographs_are(rendered: Path, tmp_path: Path) -> None:
    images, config = load_image_set(rendered / "images"), PipelineConfig(scene_graph="retrieval-2-3")
    found = make_run_pairs(config, images, chosen_frontend(config), Store(tmp_path), SILENT)
    assert 5 <= len(found.pairs) < 10
    given = tmp_path / "similarity.npy"
    np.save(given, np.eye(5) + 0.5 * np.eye(5, k=1) + 0.5 * np.eye(5, k=-1))
    config = PipelineConfig(scene_graph="retrieval-0-2", similarity=given)
    assert make_run_pairs(config, images, chosen_frontend(config), Store(None), SILENT).pairs.index.tolist() == [
        [0, 1],
        [1, 2],
        [2, 3],
        [3, 4],
    ]


def test_a_run_of_a_large_set_says_how_pairs_were_found(large, rendered: Path, tmp_path: Path) -> None:
    frontend = ClassicalFrontend(dense=DenseConfig(enabled=False), features=FeatureConfig(max_keypoints=2000))
    config = PipelineConfig(mapper="tracks", dense=False, classical=frontend, bundle_adjustment=False)
    result = reconstruct(rendered / "images", tmp_path / "out", config)
    search = result.report.pair_search
    assert search is not None and 4 <= search.verified <= search.tried <= 10
    assert sum(result.report.pairs.values()) == search.verified and result.report.num_registered == 5
    assert f"  pairs: {search.tried} of 10 tried" in "\n".join(summary_lines(result.report))
    # the front end found matches and verified matches of the search
    for kind in ("feature-matches", "verified-matches"):
        assert len(list((tmp_path / "out" / "cache" / kind).iterdir())) == search.tried


def test_a_network_gets_pairs_from_fewer_keypoints(large, rendered: Path, tmp_path: Path) -> None:
    images, config = load_image_set(rendered / "images"), PipelineConfig()
    found = make_run_pairs(config, images, _Network(), Store(tmp_path), SILENT)
    assert found.search is not None and len(found.pairs) == 10, "all, as each image has fewer than it may have"
    settings = predictions.pair_checker(config, images, _Network(), Store(None), SILENT).features.detector
    assert (
        settings.digest
        != predictions.pair_checker(
            config, images, chosen_frontend(config), Store(None), SILENT
        ).features.detector.digest
    )
