"""Cameras of photographs, once it is known which of them show the same scene."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anchorsfm import pipeline
from anchorsfm.io.images import load_image_set
from anchorsfm.mapping.config import KnownConfig
from anchorsfm.pairing import make_pairs
from anchorsfm.pairing.search import SelectedPairs
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.folder import RunFolder
from anchorsfm.run.photographs import load_photographs, told_apart
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.progress import SILENT, RecordingProgress
from video_files import panned

SCENE = np.array([0] * 6 + [1] * 6 + [2] * 2)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Two scenes of one size each and two other pictures: a folder of so many sizes has a camera for each picture."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for number, width in enumerate([96] * 6 + [80] * 6 + [70, 72]):
        pixels = np.random.default_rng(number).integers(0, 255, (64, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return folder


def test_photographs_share_cameras_in_scenes_unless_it_is_said_otherwise(mixed: Path) -> None:
    images = load_image_set(mixed)
    assert images.num_cameras == 14
    shared = told_apart(images, SCENE, PipelineConfig())
    assert shared.camera_index.tolist() == [0] * 6 + [1] * 6 + [2, 3] and shared.names == images.names
    assert told_apart(images, None, PipelineConfig()) is images
    assert told_apart(images, SCENE, PipelineConfig(camera_mode="per-image")) is images
    assert told_apart(images, SCENE, PipelineConfig(known=KnownConfig(model=mixed))) is images


def test_the_front_end_of_a_run_gets_the_cameras_of_the_scenes(
    mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[ImageSet] = []

    class Stopped(Exception):
        pass

    class Frontend:
        def open(self, images: ImageSet, *_others: object) -> Iterator[None]:
            got.append(images)
            raise Stopped

    selected = SelectedPairs(pairs=make_pairs(14, "complete"), scene=SCENE)
    monkeypatch.setattr(pipeline, "make_run_pairs", lambda *_: selected)
    with pytest.raises(Stopped):
        pipeline.reconstruct(mixed, tmp_path / "out", PipelineConfig(), frontend=Frontend())
    assert got[0].num_cameras == 4


def test_equal_views_are_used_once_unless_photographs_are_spoken_of_one_by_one(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, offset in enumerate((0, 0, 30)):
        view = next(panned([offset], size_wh=(320, 240)))
        noise = np.random.default_rng(number).normal(0, 2, view.shape)
        Image.fromarray(np.clip(view + noise, 0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    said = RecordingProgress(SILENT)
    images, _ = load_photographs(folder, PipelineConfig(), RunFolder(tmp_path / "out"), said)
    assert images.names == ("0.png", "2.png")
    assert said.warnings == ["skipped 1.png: the same view as 0.png"]
    listed = PipelineConfig(scene_graph=f"pairs:{tmp_path / 'pairs.txt'}")
    images, _ = load_photographs(folder, listed, RunFolder(tmp_path / "out"), said)
    assert images.num_images == 3
