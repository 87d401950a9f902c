"""Masks from files and transparency: which pixels of photographs count, and what is wrong with a mask in one line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from anchorsfm.io.images import load_image_set
from anchorsfm.io.masks import mask_png, with_masks
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.masks import ImageMask, uses
from damage import Damage, not_files
from said import Said

WH = (64, 48)


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a.jpg", "b.jpg", "sub/c.jpg"):
        Image.fromarray(rng.integers(0, 255, (WH[1], WH[0], 3), np.uint8)).save(tmp_path / "in" / name)
    return load_image_set(tmp_path / "in")


def write(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((np.asarray(pixels) * 255).astype(np.uint8)).save(path)
    return path


def left_half(size_wh=WH) -> np.ndarray:
    return np.broadcast_to(np.arange(size_wh[0]) < size_wh[0] // 2, size_wh[::-1])


def test_both_names_and_any_size(images: ImageSet, tmp_path: Path) -> None:
    write(tmp_path / "masks" / "a.jpg.png", left_half())
    write(tmp_path / "masks" / "sub" / "c.png", left_half((32, 24)))
    lines = Said()
    masked = with_masks(images, tmp_path / "masks", None, alpha=True, progress=lines)
    assert masked.masks[1] is None and masked.mask_pixels(1) is None
    for image in (0, 2):
        assert uses(masked.mask_pixels(image), np.array([[31.9, 5.0], [32.1, 5.0]]), np.array(WH)).tolist() == [
            True,
            False,
        ]
    assert masked.contents[1] == images.digests[1] and masked.digests == images.digests
    assert masked.contents[0] != images.digests[0]
    assert len(set(masked.contents)) == 3
    assert "1 of 3 photographs have no mask" in lines.notes[0] and not lines.warnings


def test_one_for_all_and_one_for_each_add_up(images: ImageSet, tmp_path: Path) -> None:
    single = write(tmp_path / "all.png", np.arange(24)[:, None] * np.ones(32) >= 12)
    write(tmp_path / "masks" / "a.png", left_half())
    masked = with_masks(images, tmp_path / "masks", single, alpha=True)
    assert [float(masked.mask_pixels(k).mean()) for k in range(3)] == [0.25, 0.5, 0.5]


def test_the_finer_of_two_masks_loses_nothing(images: ImageSet, tmp_path: Path) -> None:
    single = write(tmp_path / "all.png", np.ones((24, 32)) * (np.arange(32) < 31))
    fine = np.ones((48, 64), bool)
    fine[7, 5] = False
    write(tmp_path / "masks" / "a.png", fine)
    use = with_masks(images, tmp_path / "masks", single, alpha=True).mask_pixels(0)
    assert (use == fine & (np.arange(64) < 62)).all()


def test_only_black_is_ignored(images: ImageSet, tmp_path: Path) -> None:
    """Masks of classes have small numbers."""
    labels = np.zeros((48, 64), np.uint8)
    labels[:, 20:], labels[:, 40:] = 1, 3
    Image.fromarray(labels).save(tmp_path / "all.png")
    masked = with_masks(images, None, tmp_path / "all.png", alpha=True)
    assert (masked.mask_pixels(0) == (labels > 0)).all()


def test_the_full_name_goes_before_the_one_without_extension(images: ImageSet, tmp_path: Path) -> None:
    write(tmp_path / "masks" / "a.jpg.png", left_half())
    write(tmp_path / "masks" / "a.png", ~left_half())
    assert (with_masks(images, tmp_path / "masks", None, alpha=True).mask_pixels(0) == left_half()).all()


def test_a_mask_that_hides_nothing_changes_nothing(images: ImageSet, tmp_path: Path) -> None:
    assert with_masks(images, None, write(tmp_path / "all.png", np.ones((48, 64))), alpha=True) is images


def test_transparency_is_a_mask(tmp_path: Path) -> None:
    rgba = np.random.default_rng(0).integers(0, 255, (48, 64, 4), np.uint8)
    rgba[..., 3] = np.where(left_half(), 255, 90)
    (tmp_path / "in").mkdir()
    names = ["a.png", "b.webp"] + ["d.avif"] * features.check("avif")
    for name in names:
        Image.fromarray(rgba).save(tmp_path / "in" / name, lossless=True, quality=100)
    rgba[..., 3] = 255
    Image.fromarray(rgba).save(tmp_path / "in" / "c.png")
    images, lines = load_image_set(tmp_path / "in"), Said()
    masked = with_masks(images, None, None, alpha=True, progress=lines)
    for image, name in enumerate(images.names):
        pixels = masked.mask_pixels(image)
        assert pixels is None if name == "c.png" else (pixels == left_half()).all()
    assert lines.notes == [f"{len(names)} photographs have transparent pixels, which are ignored"]
    assert with_masks(images, None, None, alpha=False) is images


def test_transparency_of_every_kind(tmp_path: Path) -> None:
    """Half opaque pixels, one colour of a palette, and pictures that are stored turned."""
    rgba = np.random.default_rng(0).integers(1, 255, (48, 64, 4), np.uint8)
    rgba[..., 3] = np.where(left_half(), 128, 127)
    Image.fromarray(rgba).save(tmp_path / "half.png")
    palette = Image.fromarray(rgba[..., :3]).quantize(16)
    palette.save(tmp_path / "palette.png", transparency=3)
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(rgba).save(tmp_path / "turned.png", exif=exif)
    masked = with_masks(load_image_set(tmp_path), None, None, alpha=True)
    found = dict(zip(masked.names, (masked.mask_pixels(k) for k in range(3)), strict=True))
    assert (found["half.png"] == left_half()).all()
    assert (found["palette.png"] == (np.asarray(palette) != 3)).all()
    assert (found["turned.png"] == np.rot90(left_half(), -1)).all()


def test_what_is_left_empty_is_named(images: ImageSet, tmp_path: Path) -> None:
    write(tmp_path / "masks" / "b.png", np.zeros((48, 64)))
    lines = Said()
    masked = with_masks(images, tmp_path / "masks", None, alpha=True, progress=lines)
    assert masked.names == ("a.jpg", "sub/c.jpg") and masked.skipped[-1].name == "b.jpg"
    assert lines.warnings == ["skipped b.jpg: its mask leaves nothing of it"]
    with pytest.raises(InputError, match=r"nothing is left of any photograph; a\.jpg: its mask leaves"):
        with_masks(images, None, write(tmp_path / "all.png", np.zeros((48, 64))), alpha=True)


def test_transparent_photographs_are_named_as_such(tmp_path: Path) -> None:
    rgba = np.random.default_rng(0).integers(0, 255, (48, 64, 4), np.uint8)
    rgba[..., 3] = 0
    (tmp_path / "in").mkdir()
    Image.fromarray(rgba).save(tmp_path / "in" / "a.png")
    with pytest.raises(InputError, match=r"a\.png: it is transparent throughout .*alpha masks"):
        with_masks(load_image_set(tmp_path / "in"), None, None, alpha=True)
    Image.fromarray(rgba[..., :3]).save(tmp_path / "in" / "b.png")
    masked = with_masks(load_image_set(tmp_path / "in"), None, None, alpha=True)
    assert masked.names == ("b.png",) and masked.skipped[-1].reason == "it is transparent throughout"


@pytest.mark.parametrize("names", ["masks/a.png masks/sub/c.png", "a.jpg.png sub/c.png"], ids=["below", "beside"])
def test_masks_among_the_photographs_are_no_photographs(images: ImageSet, tmp_path: Path, names: str) -> None:
    for name in names.split():
        write(images.root / name, left_half())
    folder = images.root / "masks" if "masks" in names else images.root
    found = load_image_set(images.root, masks=folder)
    assert found.names == images.names
    masked = with_masks(found, folder, None, alpha=True)
    assert [mask is None for mask in masked.masks] == [False, True, False]


def test_a_photograph_is_no_mask_of_itself(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        write(tmp_path / "in" / name, np.random.default_rng(ord(name[0])).random((48, 64)) > 0.5)
    images = load_image_set(tmp_path / "in", masks=tmp_path / "in")
    with pytest.raises(InputError, match=r"no mask for any of the photographs: a\.png would have a\.png\.png"):
        with_masks(images, tmp_path / "in", None, alpha=True)


@pytest.mark.parametrize("damage", list(not_files()), ids=lambda damage: damage.name)
def test_what_has_the_name_of_a_mask_and_is_none_is_named(images: ImageSet, tmp_path: Path, damage: Damage) -> None:
    write(tmp_path / "masks" / "a.png", left_half())
    damage.apply(tmp_path / "masks" / "b.png")
    with pytest.raises(InputError, match=r"cannot read the mask .*b\.png: a .*, not a file"):
        with_masks(images, tmp_path / "masks", None, alpha=True)


@pytest.mark.parametrize(
    ("size_wh", "fits"), [((64, 48), True), ((21, 16), True), ((640, 480), True), ((48, 64), False), ((64, 64), False)]
)
def test_the_aspect_must_fit(images: ImageSet, tmp_path: Path, size_wh, fits: bool) -> None:
    single = write(tmp_path / "all.png", left_half(size_wh))
    if fits:
        with_masks(images, None, single, alpha=True)
        return
    words = rf"all\.png is {size_wh[0]}x{size_wh[1]} pixels, a\.jpg upright is 64x48"
    with pytest.raises(InputError, match=words):
        with_masks(images, None, single, alpha=True)


def test_masks_that_are_none_end_with_one_line(images: ImageSet, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    (tmp_path / "empty").mkdir()
    for folder, single, words in (
        (None, tmp_path / "bad.png", "cannot read the mask .*bad.png.*; replace or remove it"),
        (None, tmp_path / "none.png", "cannot read the mask .*none.png: no such file"),
        (tmp_path / "none", None, "no such folder"),
        (tmp_path / "bad.png", None, "not a folder"),
        (tmp_path / "empty", None, "no mask for any of the photographs: a.jpg would have a.jpg.png"),
    ):
        with pytest.raises(InputError, match=words) as error:
            with_masks(images, folder, single, alpha=True)
        assert "\n" not in str(error.value)


def test_masks_turn_with_their_photographs() -> None:
    use = np.random.default_rng(0).random((7, 5)) < 0.5
    mask = ImageMask.of(use)
    for turns in range(4):
        turned = np.array(Image.fromarray(use.astype(np.uint8)).rotate(90 * turns, expand=True)).astype(bool)
        assert (mask.pixels(turns) == turned).all()


def test_a_mask_as_a_picture(tmp_path: Path) -> None:
    (tmp_path / "m.png").write_bytes(mask_png(ImageMask.of(left_half((32, 24))), WH))
    assert (np.asarray(Image.open(tmp_path / "m.png")) == 255 * left_half()).all()
