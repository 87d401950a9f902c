"""The whole pipeline on a network front end: an exact one made from a scene, and a tiny random one."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from anchorsfm import pipeline
from anchorsfm.evaluation import evaluate_poses, read_poses
from anchorsfm.pipeline import reconstruct
from anchorsfm.run.config import PipelineConfig
from anchorsfm.synthetic import SceneConfig, make_scene, write_photographs
from descriptor_scene import ExactNetwork
from tiny_network import MAST3R, write_weights


def test_exact_pointmaps_and_descriptors_become_an_exact_model(tmp_path, monkeypatch):
    scene = make_scene(SceneConfig(num_images=5, size_wh=(640, 480), arc_deg=50.0, seed=3))
    truth = read_poses(write_photographs(scene, tmp_path / "photos"))
    monkeypatch.setattr(pipeline, "chosen_frontend", lambda _config: ExactNetwork(scene, shrink=2))
    settings = PipelineConfig(dense=False)
    result = reconstruct(tmp_path / "photos" / "images", tmp_path / "out", settings)
    assert result.report.num_registered == 5
    assert evaluate_poses(read_poses(tmp_path / "out"), truth).auc[0] >= 0.95
    assert evaluate_poses(read_poses(tmp_path / "out" / "alignment"), truth).auc[0] >= 0.85
    pairs = list((tmp_path / "out" / "cache" / "graph-pairs").glob("*"))
    assert len(pairs) == 10
    published = 12.6e6 * (320 * 240) / (512 * 384)  # what the original implementation keeps of a pair of this size
    assert max(path.stat().st_size for path in pairs) < published / 50
    again = reconstruct(tmp_path / "photos" / "images", tmp_path / "out", settings)
    assert np.array_equal(again.models[0].cam_from_world, result.models[0].cam_from_world)


@pytest.fixture(scope="module")
def command(rendered, tmp_path_factory):
    """`reconstruct` with a tiny random network: the model is meaningless, the way there is not."""
    weights = write_weights(tmp_path_factory.mktemp("weights") / "tiny", MAST3R)
    arguments = [sys.executable, "-m", "anchorsfm", "reconstruct", str(rendered / "images"), "--frontend", "mast3r"]
    options = ["--weights", weights, "--quiet", "--align.niter1", "20", "--align.niter2", "20"]
    options += ["--sparsify.max-error", "1000", "--sparsify.min-confidence", "0"]  # its matches agree on nothing
    environment = {**os.environ, "ANCHORSFM_CACHE": str(tmp_path_factory.mktemp("user")), "OMP_NUM_THREADS": "1"}

    def run(output, *more, start=subprocess.run, **how):
        return start([*arguments, *options, "--output", str(output), *more], env=environment, **how)

    return run


def test_a_random_network_runs_to_a_report_and_continues_after_a_kill(command, tmp_path):
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    first = command(tmp_path / "whole", capture_output=True, text=True)
    assert first.returncode in (0, 2) and "Traceback" not in first.stderr
    place = tmp_path / "whole" / ("failed" if first.returncode else ".")  # random weights need not give a model
    report = json.loads((place / "report.json").read_text())
    assert len(report["images"]) == 5 and sum(report["pairs"].values()) == 10
    assert sum(alignment["images"] for alignment in report["alignments"]) == 5
    assert report["weights"]["weights"].endswith("model.safetensors")
    assert not list((tmp_path / "whole" / "cache").glob("mast3r-tokens/*"))
    killed = tmp_path / "killed"
    with command(killed, start=subprocess.Popen, **quiet) as process:
        deadline = time.monotonic() + 120
        while len(list((killed / "cache" / "graph-pairs").glob("*.safetensors"))) < 3 and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.kill()
    command(killed, **quiet)
    whole, again = (sorted((out / "cache" / "alignment").iterdir()) for out in (tmp_path / "whole", killed))
    assert [path.name for path in whole] == [path.name for path in again] != []
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(whole, again, strict=True))


def test_a_device_that_is_not_there_is_one_clear_line(command, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    result = command(tmp_path / "out", "--device", "cuda", capture_output=True, text=True)
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1 and "cuda" in result.stderr.lower()


def test_weights_without_the_network_front_end_are_refused(command, tmp_path):
    result = command(tmp_path / "out", "--frontend", "classical", capture_output=True, text=True)
    assert result.returncode == 2 and "--frontend mast3r" in result.stderr
