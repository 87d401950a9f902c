"""The same file twice counts once; mirrored copies are found, symmetric pictures are not taken for them."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anchorsfm.io.images import load_image_set
from anchorsfm.io.repeats import mirrored_copies, without_repeated_files
from anchorsfm.scene.images import ImageSet


def picture(seed: int) -> np.ndarray:
    """Smooth blobs, unlike their mirror image."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((160, 120), Image.Resampling.BICUBIC))


@pytest.fixture
def photographs(tmp_path: Path) -> ImageSet:
    """a, b; b as c again; a mirrored, and upside down; one that is its own mirror image, twice."""
    a, b = picture(0), picture(1)
    symmetric = np.concatenate([a[:, :80], a[:, :80][:, ::-1]], axis=1)
    pictures = {"a": a, "b": b, "m-a": a[:, ::-1], "n-b": b[::-1], "s": symmetric, "t": symmetric}
    for k, (name, pixels) in enumerate(pictures.items()):
        Image.fromarray(pixels).save(tmp_path / f"{name}.jpg", quality=80 + 2 * k)
    shutil.copy(tmp_path / "b.jpg", tmp_path / "c.jpg")
    return load_image_set(tmp_path)


def test_the_same_file_is_used_once_and_named(photographs):
    once = without_repeated_files(replace(photographs, taken_s=np.arange(7.0)))
    assert once.names == ("a.jpg", "b.jpg", "m-a.jpg", "n-b.jpg", "s.jpg", "t.jpg")
    assert [(s.name, s.reason) for s in once.skipped] == [("c.jpg", "the same file as b.jpg")]
    assert len(once.size_wh) == len(once.camera_index) == len(once.digests) == len(once.focal_prior_px) == 6
    assert once.taken_s.tolist() == [0, 1, 3, 4, 5, 6]
    assert without_repeated_files(once) is once


def test_mirrored_copies_are_found(photographs):
    once = without_repeated_files(photographs)
    assert [(once.names[i], once.names[j]) for i, j in mirrored_copies(once)] == [
        ("a.jpg", "m-a.jpg"),
        ("b.jpg", "n-b.jpg"),
    ]
