"""Two models become one: with common photographs or only overlapping views; refusals in numbers."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import anchorsfm
from anchorsfm import pipeline
from anchorsfm.cli.main import main
from anchorsfm.evaluation.sources import read_truth
from anchorsfm.features.sift import SiftDetector
from anchorsfm.geometry.transforms import camera_centres, fit_similarity
from anchorsfm.results.model import read_models
from anchorsfm.run.folder import RunFolder
from anchorsfm.scene.errors import InputError, NoReconstructionError
from anchorsfm.synthetic import SceneConfig, make_scene, write_photographs
from snapshot import snapshot


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with seven photographs (photos) and models of the first four (a), the last four (b), the last three (c)
    and of another scene (d)."""
    folder = tmp_path_factory.mktemp("merge")
    write_photographs(make_scene(SceneConfig(num_images=7, size_wh=(400, 300), arc_deg=55.0, seed=3)), folder)
    write_photographs(make_scene(SceneConfig(num_images=3, size_wh=(400, 300), arc_deg=20.0, seed=11)), folder / "d4")
    (folder / "images").rename(folder / "photos")
    files = sorted((folder / "photos").iterdir())
    parts = {"a": files[:4], "b": files[3:], "c": files[4:], "d": sorted((folder / "d4" / "images").iterdir())}
    for name, part in parts.items():
        if name == "c":
            shutil.copytree(folder / "b" / "cache", folder / "c" / "cache", copy_function=os.link)
        anchorsfm.reconstruct(part, folder / name, mapper="tracks", dense=False)
    return folder


def misfit(runs: Path, output: Path) -> float:
    """Largest distance of a camera from the truth, as a share of the distance of the outermost ones."""
    truth, stored = read_truth(runs / "truth.json"), read_models(output)[0]
    pose_of = dict(zip(truth.names, truth.cam_from_world, strict=True))
    known = camera_centres(np.array([pose_of[Path(name).name] for name in stored.view_names]))
    found = camera_centres(stored.model.cam_from_world)
    scale, pose = fit_similarity(found, known)
    return float(np.abs(scale * found @ pose[:, :3].T + pose[:, 3] - known).max() / np.ptp(known, axis=0).max())


def test_models_with_a_common_photograph_become_one_in_the_frame_of_the_first(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: snapshot(runs / name, without=()) for name in ("a", "b")}
    monkeypatch.setattr(SiftDetector, "detect", lambda *_: pytest.fail("a photograph was looked at again"))
    main(["merge", str(runs / "a"), str(runs / "b"), "--output", str(tmp_path / "both"), "--no-dense", "--quiet"])
    assert {name: snapshot(runs / name, without=()) for name in ("a", "b")} == before

    (stored,) = read_models(tmp_path / "both")
    assert len(stored.names) == 7 and misfit(runs, tmp_path / "both") < 0.01
    report = json.loads((tmp_path / "both" / "report.json").read_text())
    (merge,) = report["extensions"]
    assert merge["command"] == "merge" and merge["added"] == 3
    first = read_models(runs / "a")[0]
    pose_of = dict(zip(stored.view_names, stored.model.cam_from_world, strict=True))
    moved = [np.abs(pose_of[n] - p).max() for n, p in zip(first.view_names, first.model.cam_from_world, strict=True)]
    assert max(moved) < 0.1


def test_models_whose_views_overlap_become_one_and_an_interrupted_merge_continues(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "both"
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_report", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pipeline.merge(runs / "a", runs / "c", output, dense=False)
    assert not snapshot(output)
    model = anchorsfm.merge(runs / "a", runs / "c", output, dense=False)
    assert len(model.poses) == 7 and not model.others and misfit(runs, output) < 0.01


def test_models_of_other_places_are_refused_in_numbers(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(NoReconstructionError, match=r"they have 0 images in common and .* points that both saw"):
        anchorsfm.merge(runs / "a", runs / "d", tmp_path / "both", dense=False)
    assert not snapshot(tmp_path / "both")


def test_what_cannot_be_merged_is_said_before_any_work(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is both read and written"):
        anchorsfm.merge(runs / "a", runs / "b", runs / "b")
    with pytest.raises(InputError, match="no such folder"):
        anchorsfm.merge(runs / "a", tmp_path / "nothing", tmp_path / "both")
    shutil.copytree(runs / "b", tmp_path / "b")
    config = tmp_path / "b" / "config.yaml"
    config.write_text(config.read_text().replace("focal_px: null", "focal_px: 400.0", 1))
    with pytest.raises(InputError, match=r"was made with focal_px None, .* with 400\.0"):
        anchorsfm.merge(runs / "a", tmp_path / "b", tmp_path / "both")
    assert not (tmp_path / "both").exists()
