"""Damaged entries of the cache are named, set aside and made anew: the result has the bits of an undisturbed run."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from anchorsfm.align.config import AlignConfig
from anchorsfm.frontend.classical import ClassicalFrontend
from anchorsfm.frontend.classical.config import DenseConfig
from anchorsfm.io.store import Store
from anchorsfm.pipeline import reconstruct
from anchorsfm.run.config import PipelineConfig
from anchorsfm.scene.progress import SILENT, RecordingProgress
from anchorsfm.synthetic import SceneConfig, make_scene, write_photographs
from cache_damage import DAMAGE

CONFIG = PipelineConfig(
    classical=ClassicalFrontend(dense=DenseConfig(size=120)), align=AlignConfig(niter1=60, niter2=60)
)
KINDS = {
    "alignment",
    "feature-matches",
    "verified-matches",
    "classical-dense",
    "features",
    "classical-lenses",
    "classical-evidence",
    "classical-poses",
    "dense-depth",
    "refined-observations",
}
OF_EXTENSIONS = {"dense-depth-of-view", "front-end-cameras-found"}
"""Written by every run, read when a model is extended."""
RESULTS = ("sparse/0/cameras.bin", "sparse/0/images.bin", "sparse/0/points3D.bin", "dense/0.ply")


@pytest.fixture
def entry(tmp_path: Path) -> tuple[Store, RecordingProgress, Path, Path]:
    progress = RecordingProgress(SILENT)
    store = Store(tmp_path, progress)
    for key in ("a", "b"):
        store.save("kind", key, {"x": np.full((3, 2), ord(key), np.float64), "y": np.arange(5, dtype=np.uint8)})
    return store, progress, tmp_path / "kind" / "a.safetensors", tmp_path / "kind" / "b.safetensors"


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_entry_counts_as_missing_and_is_set_aside(entry, tmp_path, damage):
    store, progress, path, other = entry
    damage(path, other)
    assert store.load("kind", "a") is None
    (warning,) = progress.warnings
    assert str(path) in warning and "damaged" in warning and "made anew" in warning
    (aside,) = (tmp_path / "damaged").iterdir()
    assert str(aside) in warning
    store.save("kind", "a", {"x": np.zeros(1)})
    assert store.load("kind", "a")["x"].shape == (1,)
    assert store.load("kind", "b")["x"][0, 0] == ord("b") and len(progress.warnings) == 1


def test_a_folder_in_the_place_of_a_new_entry_is_moved_not_removed(entry, tmp_path):
    store, progress, _, _ = entry
    (tmp_path / "kind" / "c.safetensors").mkdir()
    (tmp_path / "kind" / "c.safetensors" / "mine.txt").write_text("the user's")
    store.save("kind", "c", {"x": np.zeros(1)})
    assert store.load("kind", "c") is not None and len(progress.warnings) == 1
    assert [p.read_text() for p in (tmp_path / "damaged").rglob("mine.txt")] == ["the user's"]


def test_only_so_many_damaged_entries_are_kept(entry, tmp_path):
    store, progress, path, _ = entry
    for _ in range(40):
        path.write_bytes(b"junk")
        assert store.load("kind", "a") is None
    assert len(progress.warnings) == 40 and len(list((tmp_path / "damaged").iterdir())) == 32


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    write_photographs(make_scene(SceneConfig(num_images=3, size_wh=(320, 240), arc_deg=24.0, seed=3)), folder)
    return folder / "images"


@pytest.fixture(scope="module")
def undisturbed(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    assert reconstruct(photographs, output, CONFIG).report.num_registered == 3
    return output


def entries(output: Path) -> dict[str, list[Path]]:
    return {folder.name: sorted(folder.iterdir()) for folder in (output / "cache").iterdir()}


@pytest.mark.parametrize("turn", range(0, len(DAMAGE), 7))  # each costs seconds; all of them were run once
def test_a_run_with_a_damaged_cache_makes_the_same_model(undisturbed, photographs, tmp_path, turn):
    """Every entry of every kind is damaged, each in the next way; over all turns each kind suffers each damage."""
    output = tmp_path / "out"
    shutil.copytree(undisturbed / "cache", output / "cache")
    kept = entries(output)
    assert set(kept) == KINDS | OF_EXTENSIONS
    ways = list(DAMAGE.values())
    for kind in KINDS:
        paths = kept[kind]
        others = [paths[-1], *paths[:-1]] if len(paths) > 1 else [kept["classical-lenses"][0]]
        for k, (path, other) in enumerate(zip(paths, others, strict=True)):
            if kind != "classical-lenses" or ways[turn] is not DAMAGE["swap"]:
                ways[(turn + k) % len(ways)](path, other)
    progress = RecordingProgress(SILENT)
    reconstruct(photographs, output, CONFIG, progress)
    for name in RESULTS:
        assert (output / name).read_bytes() == (undisturbed / name).read_bytes(), name
    assert sum("is damaged" in line for line in progress.warnings) >= len(KINDS) - 1
