"""The same file twice counts once; mirrored copies are found, symmetric pictures are not taken for them."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anchorsfm.io import repeats
from anchorsfm.io.images import load_image_set
from anchorsfm.io.repeats import mirrored_copies, small_pictures, without_repeated_files, without_repeated_views
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.masks import ImageMask
from video_files import panned, texture


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


def shot(offset: float = 0.0, gain: float = 1.0, thing: bool = False, seed: int = 0) -> np.ndarray:
    """A view of a wall with texture, moved by `offset` pixels of 640."""
    picture = next(panned([offset + 5], size_wh=(640, 420)))
    if thing:
        picture = picture.copy()
        picture[180:260, 280:360] = texture(80, 80, seed=9)
    noise = np.random.default_rng(seed).normal(0, 2, picture.shape)
    return np.clip(gain * picture + noise, 0, 255).astype(np.uint8)


def test_views_that_are_the_same_are_used_once(tmp_path: Path) -> None:
    """A bracket of exposures and a copy saved anew; not a step aside, nor a thing that was turned."""
    pictures = {
        "a-dark": shot(gain=0.4, seed=1), "b-middle": shot(seed=2), "c-bright": shot(gain=1.3, seed=3),
        "d-aside": shot(4, seed=4), "e-further": shot(4.1, seed=5), "f-turned": shot(thing=True, seed=6),
        "g-other": texture(640, 420, seed=3), "h-plain": np.full((420, 640, 3), 90, np.uint8),
        "i-plain": np.full((420, 640, 3), 91, np.uint8),
    }  # fmt: skip
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    images = load_image_set(tmp_path)
    once = without_repeated_views(images)
    gone = {s.name: s.reason for s in once.skipped}
    assert set(gone) == {"a-dark.png", "e-further.png"} | ({"c-bright.png", "b-middle.png"} & set(gone))
    assert len({"b-middle.png", "c-bright.png"} & set(gone)) == 1
    assert gone["e-further.png"] == "the same view as d-aside.png"
    assert without_repeated_views(once) is once


def test_what_is_not_clearly_the_same_or_better_changes_nothing(tmp_path: Path) -> None:
    """A little more contrast is no reason to prefer a copy; other sizes and bare walls with few marks stay."""
    marks = np.full((420, 640, 3), 90, np.uint8)
    for k in range(8):
        marks[50 + 40 * k :, 60 + 60 * k :][:20, :20] = 200
    first = Image.fromarray(shot(seed=1))
    first.save(tmp_path / "a.png")
    Image.fromarray(shot(gain=1.04, seed=2)).save(tmp_path / "b.png")
    first.resize((320, 210)).save(tmp_path / "c.png")
    Image.fromarray(marks).save(tmp_path / "d.png")
    Image.fromarray(marks + np.uint8(1)).save(tmp_path / "e.png")
    once = without_repeated_views(load_image_set(tmp_path))
    assert once.names == ("a.png", "c.png", "d.png", "e.png")


def test_small_steps_do_not_add_up(tmp_path: Path) -> None:
    for k in range(9):
        Image.fromarray(shot(0.3 * k, seed=k)).save(tmp_path / f"{k}.png")
    kept = without_repeated_views(load_image_set(tmp_path)).names
    assert 3 <= len(kept) <= 6 and kept[0] == "0.png"


def test_what_masks_hide_says_nothing_about_a_view(tmp_path: Path) -> None:
    """On a turntable only the thing turns, and the masks leave nothing else."""
    turned = shot(seed=1)
    turned[180:260, 280:360] = texture(80, 80, seed=9)
    small = turned.copy()
    small[200:230, 300:330] = texture(30, 30, seed=10)
    for name, pixels in {"a": turned, "b": small}.items():
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    images = load_image_set(tmp_path)
    assert len(without_repeated_views(images).names) == 1, "most of both is the same"
    use = np.zeros((210, 320), bool)
    use[90:130, 140:180] = True
    masked = replace(images, masks=(ImageMask.of(use), ImageMask.of(use)))
    assert len(without_repeated_views(masked).names) == 2


def test_repeats_are_found_in_large_sets_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for k in range(600):
        pixels = np.asarray(Image.fromarray(rng.integers(0, 255, (24, 32), np.uint8)).resize((256, 192)))
        Image.fromarray(pixels).save(tmp_path / f"{k:03}.jpg", quality=92)
        if k == 5:
            Image.fromarray(pixels).save(tmp_path / "700.jpg", quality=80)
            Image.fromarray(pixels[:, ::-1]).save(tmp_path / "701.jpg", quality=80)
    images = load_image_set(tmp_path)
    small = small_pictures(images)
    once = without_repeated_views(images, small=small)
    assert [(s.name, s.reason) for s in once.skipped] == [("700.jpg", "the same view as 005.jpg")]
    assert [(once.names[i], once.names[j]) for i, j in mirrored_copies(once, small)] == [("005.jpg", "701.jpg")]


def test_of_many_views_that_look_alike_the_likest_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of two photographs at a time give what all together do."""
    for k in range(8):
        Image.fromarray(shot(0.8 * (k % 6), seed=k)).save(tmp_path / f"{k}.png")
    images = load_image_set(tmp_path)
    compared: list[int] = []
    is_same = repeats._is_same_view
    monkeypatch.setattr(repeats, "_is_same_view", lambda *given: compared.append(1) or is_same(*given))
    expected = without_repeated_views(images).names
    assert expected == ("0.png", "1.png", "2.png", "3.png", "4.png", "5.png")
    all_of_them = len(compared)
    compared.clear()
    for name, value in {"_ALL_UP_TO": 4, "_MOST_ALIKE": 1, "_AT_ONCE": 2, "_IN_MEMORY": 1}.items():
        monkeypatch.setattr(repeats, name, value)
    assert without_repeated_views(images).names == expected and 2 <= len(compared) < all_of_them
    assert mirrored_copies(images) == []
