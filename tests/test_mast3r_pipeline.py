"""The whole pipeline on a network front end: an exact one made from a scene, and a tiny random one."""

import numpy as np
import pytest
from descriptor_scene import ExactNetwork

from anchorsfm import pipeline
from anchorsfm.evaluation import evaluate_poses, read_poses
from anchorsfm.pipeline import PipelineConfig, reconstruct
from anchorsfm.synthetic import SceneConfig, make_scene, write_photographs


def test_exact_pointmaps_and_descriptors_become_an_exact_model(tmp_path, monkeypatch):
    scene = make_scene(SceneConfig(num_images=5, size_wh=(640, 480), arc_deg=50.0, seed=3))
    truth = read_poses(write_photographs(scene, tmp_path / "photos"))
    monkeypatch.setattr(pipeline, "_frontend", lambda _config: ExactNetwork(scene, shrink=2))
    settings = PipelineConfig(dense=False)
    result = reconstruct(tmp_path / "photos" / "images", tmp_path / "out", settings)
    assert result.report.num_registered == 5
    assert evaluate_poses(read_poses(tmp_path / "out"), truth).auc[0] >= 0.95
    assert evaluate_poses(read_poses(tmp_path / "out" / "alignment"), truth).auc[0] >= 0.85
    pairs = list((tmp_path / "out" / "cache" / "graph-pairs").glob("*"))
    assert len(pairs) == 10
    whole_prediction = 2 * 320 * 240 * (3 + 1 + 3 + 1 + 24 + 1) * 4  # points, confidences, descriptors of two images
    assert max(path.stat().st_size for path in pairs) < whole_prediction / 50
    again = reconstruct(tmp_path / "photos" / "images", tmp_path / "out", settings)
    assert np.array_equal(again.models[0].cam_from_world, result.models[0].cam_from_world)
