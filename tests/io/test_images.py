"""Finding, verifying and reading photographs."""

import hashlib
import math
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from anchorsfm.io import images as io_images
from anchorsfm.io.exif import Exif, exif_focal_px
from anchorsfm.io.images import load_grey, load_image_set, load_rgb, working_size_wh
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.progress import SILENT, RecordingProgress

EXIF_IFD = 0x8769
ORIENTATION, MAKE, MODEL, FOCAL, FOCAL_35, PIXEL_X, PIXEL_Y = 274, 271, 272, 37386, 41989, 40962, 40963
PLANE_X, PLANE_UNIT = 41486, 41488


def picture(width: int = 96, height: int = 64) -> np.ndarray:
    """A smooth picture without any symmetry: red grows to the right, green downwards, one blue corner."""
    y, x = np.mgrid[:height, :width]
    rgb = np.stack([40 + 180 * x / width, 30 + 190 * y / height, 20 + 0 * x], -1)
    rgb[: height // 4, : width // 4, 2] = 220
    return rgb.astype(np.uint8)


def save(
    path: Path, pixels: np.ndarray | Image.Image, tags: dict[int, object] | None = None, **options: object
) -> Path:
    """Write a picture with EXIF tags; tags above 0x8000 that belong to the EXIF block go there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    exif = Image.Exif()
    for tag, value in (tags or {}).items():
        if tag in (ORIENTATION, MAKE, MODEL):
            exif[tag] = value
        else:
            exif.get_ifd(EXIF_IFD)[tag] = value
    if path.suffix == ".jpg":
        options = {"quality": 95} | options
    image.save(path, exif=exif, **options)
    return path


def one(path: Path) -> ImageSet:
    return load_image_set([path])


# ------------------------------------------------------------------------------------------------------ orientation

UNDO = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}
"""What a camera held in each orientation stores of an upright picture."""


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_to_size_and_pixels(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright = picture()
    stored = np.ascontiguousarray(UNDO[orientation](upright))
    images = one(save(tmp_path / f"a{suffix}", stored, {ORIENTATION: orientation}))
    assert images.size_wh.tolist() == [[96, 64]]
    difference = np.abs(load_rgb(images, 0).astype(int) - upright)
    assert np.median(difference) <= 2 and np.percentile(difference[..., :2], 99) < 25
    small = load_rgb(images, 0, (48, 32)).astype(int)
    assert small.shape == (32, 48, 3)
    assert np.median(np.abs(small - cv2.resize(upright, (48, 32), interpolation=cv2.INTER_AREA))) <= 3


def test_invalid_orientation_is_ignored(tmp_path: Path) -> None:
    assert one(save(tmp_path / "a.jpg", picture(), {ORIENTATION: 9})).size_wh.tolist() == [[96, 64]]


# ------------------------------------------------------------------------------------------------------ focal priors


def test_focal_from_35mm_equivalent(tmp_path: Path) -> None:
    images = one(save(tmp_path / "a.jpg", picture(300, 200), {FOCAL_35: 28}))
    assert images.focal_prior_px[0] == pytest.approx(28 * 300 / 36, rel=1e-6)
    portrait = one(save(tmp_path / "b.jpg", picture(300, 200), {FOCAL_35: 28, ORIENTATION: 6}))
    assert portrait.size_wh.tolist() == [[200, 300]]
    assert portrait.focal_prior_px[0] == images.focal_prior_px[0]


def test_focal_from_35mm_equivalent_of_other_shapes() -> None:
    four_by_three, cropped = (
        exif_focal_px(Exif(focal_35mm=28.0), (400, 300)),
        exif_focal_px(Exif(focal_35mm=28.0), (400, 225)),
    )
    assert four_by_three == pytest.approx(28 * 500 / math.hypot(36, 24))
    assert cropped == pytest.approx(four_by_three)  # a 16:9 picture is a 4:3 one with strips cut off


def test_focal_from_resolution_counts_captured_pixels(tmp_path: Path) -> None:
    # 6000 pixels on 24 mm, 50 mm lens: 12500 px, a tenth of it after downscaling to 600 pixels
    tags = {FOCAL: 50.0, PLANE_X: 6000 / 2.4, PLANE_UNIT: 3, PIXEL_X: 6000, PIXEL_Y: 4000}
    assert one(save(tmp_path / "a.jpg", picture(600, 400), tags)).focal_prior_px[0] == pytest.approx(1250, rel=1e-4)


def test_focal_from_known_sensor(tmp_path: Path) -> None:
    padded = {MODEL: "FC300S\0\0\0", MAKE: "DJI\0\0", FOCAL: 3.61}
    assert one(save(tmp_path / "a.jpg", picture(400, 300), padded)).focal_prior_px[0] == pytest.approx(
        3.61 / 6.17 * 400
    )
    nikon = Exif(make="NIKON CORPORATION", model="NIKON D3200", focal_mm=40.0, focal_35mm=60.0)
    assert exif_focal_px(nikon, (1504, 1000)) == pytest.approx(40 / 23.2 * 1504)  # agrees with 60 mm within 4 %
    zoomed = Exif(make="DJI", model="FC300S", focal_mm=3.61, focal_35mm=40.0)
    assert exif_focal_px(zoomed, (400, 300)) == pytest.approx(40 * 500 / math.hypot(36, 24))


@pytest.mark.parametrize("tags", [{}, {FOCAL_35: 0}, {FOCAL: 5.0}, {FOCAL_35: 60000}, {FOCAL: 50.0, PLANE_X: 0.001}])
def test_unknown_and_absurd_focals_are_nan(tmp_path: Path, tags: dict[int, object]) -> None:
    assert np.isnan(one(save(tmp_path / "a.jpg", picture(), tags)).focal_prior_px[0])


def test_given_focal_overrides_exif(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", picture(), {FOCAL_35: 28})
    assert load_image_set([path], focal_px=123.0).focal_prior_px.tolist() == [123]
    with pytest.raises(InputError, match="positive number"):
        load_image_set([path], focal_px=-1.0)


def test_real_photographs_have_sane_focals(photos: Path) -> None:
    banana = load_image_set(photos / "banana" / "images")
    assert (banana.num_images, banana.num_cameras) == (16, 1)
    # 2601 px is what self-calibration by bundle adjustment finds
    assert banana.focal_prior_px == pytest.approx(np.full(16, 2601), rel=0.01)
    brighton = load_image_set(photos / "brighton" / "images")
    assert (brighton.num_images, brighton.num_cameras) == (18, 1)
    assert 700 < brighton.focal_prior_px[0] < 850
    collection = load_image_set(photos / "sacre-coeur" / "images")
    assert collection.num_cameras == collection.num_images == 10
    assert np.isnan(collection.focal_prior_px).all()


# ------------------------------------------------------------------------------------------------------ pixel formats


def check_grey(images: ImageSet, expected: np.ndarray, tolerance: int = 1) -> None:
    assert np.abs(load_grey(images, 0).astype(int) - expected).max() <= tolerance
    rgb = load_rgb(images, 0)
    assert rgb.dtype == np.uint8 and rgb.shape == (*expected.shape, 3)
    assert np.abs(rgb.astype(int) - expected[..., None]).max() <= tolerance


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey_uses_the_full_range(tmp_path: Path, suffix: str) -> None:
    values = np.linspace(0, 65535, 64 * 96).reshape(64, 96).astype(np.uint16)
    path = tmp_path / f"a{suffix}"
    assert cv2.imwrite(str(path), values)
    check_grey(one(path), np.round(values / 257).astype(int))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_colour(tmp_path: Path, suffix: str) -> None:
    rgb = picture().astype(np.uint16) * 257
    path = tmp_path / f"a{suffix}"
    assert cv2.imwrite(str(path), rgb[..., ::-1])
    assert np.abs(load_rgb(one(path), 0).astype(int) - picture()).max() <= 1


def test_grey_palette_and_alpha(tmp_path: Path) -> None:
    grey = picture()[..., 0]
    check_grey(one(save(tmp_path / "grey.png", grey)), grey)
    check_grey(one(save(tmp_path / "grey.jpg", grey)), grey, tolerance=4)
    alpha = np.dstack([np.repeat(grey[..., None], 3, -1), np.where(np.arange(96) < 48, 0, 255) + 0 * grey]).astype(
        np.uint8
    )
    check_grey(one(save(tmp_path / "alpha.png", alpha)), grey)  # dropped: hidden pixels keep their colour
    check_grey(one(save(tmp_path / "grey-alpha.png", Image.fromarray(alpha).convert("LA"))), grey)
    palette = Image.fromarray(np.repeat(grey[..., None] // 16 * 16, 3, -1)).quantize(16)
    expected = np.asarray(palette.convert("RGB"))[..., 0]
    check_grey(one(save(tmp_path / "palette.png", palette)), expected)
    check_grey(one(save(tmp_path / "transparent.png", palette, transparency=3)), expected)
    check_grey(one(save(tmp_path / "bits.png", Image.fromarray(grey > 128))), (grey > 128) * 255)


def test_cmyk_and_progressive_jpeg(tmp_path: Path) -> None:
    for name, pixels, options in (
        ("cmyk.jpg", Image.fromarray(picture()).convert("CMYK"), {}),
        ("progressive.jpg", Image.fromarray(picture()), {"progressive": True}),
    ):
        rgb = load_rgb(one(save(tmp_path / name, pixels, **options)), 0)
        assert np.median(np.abs(rgb.astype(int) - picture())) <= 3


def test_float_pictures_are_skipped(tmp_path: Path) -> None:
    save(tmp_path / "depth.tif", np.ones((64, 96), np.float32))
    save(tmp_path / "photo.jpg", picture())
    images = load_image_set(tmp_path)
    assert images.names == ("photo.jpg",)
    assert "unsupported kind of pixels" in images.skipped[0].reason


# --------------------------------------------------------------------------------------------------------- resizing


@pytest.mark.parametrize("width", [1001, 1007, 1024])
def test_reduced_decoding_does_not_shift_pixels(tmp_path: Path, width: int) -> None:
    """A soft bright spot must land where x * scale says, also where JPEG reduction rounds sizes up."""
    x, y = np.arange(width) + 0.5, np.arange(203)[:, None] + 0.5
    spot = 255 * np.exp(-((x - (width - 90)) ** 2 + (y - 105) ** 2) / (2 * 25**2))
    images = one(save(tmp_path / "a.jpg", np.repeat(spot[..., None], 3, 2).astype(np.uint8)))
    weights = load_grey(images, 0, (101, 20)).astype(float)
    assert (weights.sum(0) @ (np.arange(101) + 0.5)) / weights.sum() == pytest.approx(
        (width - 90) * 101 / width, abs=0.03
    )
    assert (weights.sum(1) @ (np.arange(20) + 0.5)) / weights.sum() == pytest.approx(105 * 20 / 203, abs=0.03)


def test_resampling_does_not_alias(tmp_path: Path) -> None:
    stripes = np.repeat(np.where(np.arange(400) % 2, 255, 0)[None, :], 300, 0).astype(np.uint8)
    small = load_grey(one(save(tmp_path / "a.png", stripes)), 0, (60, 45))
    assert np.abs(small[5:-5, 5:-5].astype(int) - 127).max() < 6


def test_full_size_and_enlarged(tmp_path: Path) -> None:
    images = one(save(tmp_path / "a.png", picture()))
    assert np.array_equal(load_rgb(images, 0), picture())
    assert np.array_equal(load_rgb(images, 0, images.size_wh[0]), picture())
    assert load_rgb(images, 0, (192, 128)).shape == (128, 192, 3)


def test_working_size() -> None:
    assert working_size_wh(np.array([4000, 3000]), 1024).tolist() == [1024, 768]
    assert working_size_wh(np.array([[641, 479], [300, 200], [10, 9000]]), 512).tolist() == [
        [512, 383],
        [300, 200],
        [1, 512],
    ]


# ------------------------------------------------------------------------------------------------------- bad files


def test_damaged_files_are_skipped_by_name(tmp_path: Path) -> None:
    good = save(tmp_path / "good.jpg", picture(640, 480))
    data = good.read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) * 2 // 3])
    (tmp_path / "cut slightly.jpg").write_bytes(data[:-200])
    (tmp_path / "text.jpg").write_text("not a picture at all\n" * 10)
    (tmp_path / "empty.png").write_bytes(b"")
    save(tmp_path / "dot.png", picture(4, 4))
    png = save(tmp_path / "cut.png", picture()).read_bytes()
    (tmp_path / "cut.png").write_bytes(png[: len(png) // 2])
    warned = RecordingProgress(SILENT)
    images = load_image_set(tmp_path, progress=warned)
    assert images.names == ("good.jpg",)
    assert images.digests == (hashlib.sha256(data).hexdigest(),)
    reasons = {skipped.name: skipped.reason for skipped in images.skipped}
    assert set(reasons) == {"cut.jpg", "cut slightly.jpg", "text.jpg", "empty.png", "dot.png", "cut.png"}
    assert reasons["empty.png"] == "empty file" and "truncated" in reasons["cut.jpg"]
    assert "not an image" in reasons["text.jpg"] and "too small" in reasons["dot.png"]
    assert len(warned.warnings) == 6 and all("\n" not in line for line in warned.warnings)
    assert any("cut slightly.jpg" in line for line in warned.warnings)


def test_unreadable_file_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.jpg", picture())
    save(tmp_path / "b.jpg", picture())
    read_bytes = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "a.jpg":
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    images = load_image_set(tmp_path)
    assert images.names == ("b.jpg",)
    assert images.skipped[0].reason == "permission denied"


def test_heic_without_the_extra_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(InputError, match=r"IMG_1\.HEIC: .*pip install 'anchorsfm\[heic\]'"):
        load_image_set(tmp_path)
    save(tmp_path / "a.jpg", picture())
    assert "anchorsfm[heic]" in load_image_set(tmp_path).skipped[0].reason


def test_all_unreadable(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("no")
    with pytest.raises(InputError, match=r"none of the 1 images .* a\.jpg: not an image"):
        load_image_set(tmp_path)


def test_file_lost_or_changed_after_verification(tmp_path: Path) -> None:
    images = one(save(tmp_path / "a.jpg", picture()))
    save(tmp_path / "a.jpg", picture(100, 80))
    with pytest.raises(InputError, match=r"a\.jpg.*changed"):
        load_rgb(images, 0)
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(InputError, match=r"cannot read .*a\.jpg"):
        load_rgb(images, 0)


# ---------------------------------------------------------------------------------------------------------- sources


def test_folders_are_searched_and_sorted(tmp_path: Path) -> None:
    for name in ("b.JPG", "a b/ü ñ.png", "a b/c.jpg", "z.webp", ".hidden.jpg", ".thumbs/t.jpg", "__MACOSX/x.jpg"):
        save(tmp_path / name, picture())
    (tmp_path / "notes.txt").write_text("hello")
    images = load_image_set(tmp_path)
    assert images.root == tmp_path
    assert images.names == ("a b/c.jpg", "a b/ü ñ.png", "b.JPG", "z.webp")
    assert images.skipped == () and load_rgb(images, 1).shape == (64, 96, 3)


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    save(tmp_path / "real" / "a.jpg", picture())
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "set")
    assert load_image_set(tmp_path / "set").names == ("link/a.jpg",)


def test_lists_keep_their_order(tmp_path: Path) -> None:
    files = [save(tmp_path / "x" / name, picture()) for name in ("b.jpg", "1/a c.jpg")]
    images = load_image_set(files)
    assert images.root == tmp_path / "x" and images.names == ("b.jpg", "1/a c.jpg")
    listing = tmp_path / "list.txt"
    listing.write_text(f"# chosen\nx/1/a c.jpg\n\n{files[0]}\n", encoding="utf-8")
    from_text = load_image_set(listing)
    assert from_text.root == tmp_path / "x" and from_text.names == ("1/a c.jpg", "b.jpg")


def test_errors_name_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = save(tmp_path / "photo.jpg", picture())
    (tmp_path / "empty").mkdir()
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.NEF").write_bytes(b"x")
    (tmp_path / "list.txt").write_text("photo.jpg\nmissing.jpg\n")
    (tmp_path / "blank.txt").write_text("\n")
    (tmp_path / "video.mp4").write_bytes(bytes(range(256)))
    for source, pattern in (
        (tmp_path / "nowhere", "nowhere: no such file"),
        (tmp_path / "empty", r"no images in .*empty: found nothing; supported are \.jpg"),
        (tmp_path / "raw", r"found 1 x \.nef"),
        (photo, "single image"),
        (tmp_path / "list.txt", r"list\.txt, line 2: no such file: missing\.jpg"),
        (tmp_path / "blank.txt", "lists no images"),
        (tmp_path / "video.mp4", "neither a folder nor a text file"),
        ([photo, photo], r"photo\.jpg is listed more than once"),
        ([photo, tmp_path / "x" / ".." / "photo.jpg"], "no such file"),
        ([tmp_path / "video.mp4"], "not a supported kind"),
        ([tmp_path], "is a folder"),
        ([], "empty"),
    ):
        with pytest.raises(InputError, match=pattern) as caught:
            load_image_set(source)
        assert "\n" not in str(caught.value)

    def refuse(folder: Path, *, onerror, **_: object):
        onerror(PermissionError(13, "Permission denied", str(folder)))

    monkeypatch.setattr(io_images.os, "walk", refuse)
    with pytest.raises(InputError, match=r"cannot read .*raw: Permission denied"):
        load_image_set(tmp_path / "raw")


# ---------------------------------------------------------------------------------------------------------- cameras


def test_auto_groups_by_size_and_exif(tmp_path: Path) -> None:
    zoom, wide = {MODEL: "X", FOCAL_35: 70}, {MODEL: "X", FOCAL_35: 24}
    for name, size, tags in (
        ("1.jpg", (96, 64), wide),
        ("2.jpg", (96, 64), zoom),
        ("3.jpg", (96, 64), wide),
        ("4.jpg", (64, 96), wide),
        ("5.jpg", (96, 64), {}),
        ("6.jpg", (96, 64), {}),
        ("7.jpg", (64, 96), {}),
    ):
        save(tmp_path / name, picture(*size), tags)
    assert load_image_set(tmp_path).camera_index.tolist() == [0, 1, 0, 2, 3, 3, 4]
    # a third size among those without EXIF: a collection, in which equal sizes mean nothing
    save(tmp_path / "8.jpg", picture(90, 64))
    assert load_image_set(tmp_path).camera_index.tolist() == [0, 1, 0, 2, 3, 4, 5, 6]


def test_other_camera_modes(tmp_path: Path) -> None:
    for name, focal in (("l/1.jpg", 30), ("l/2.jpg", 50), ("r/1.jpg", 0), ("r/2.jpg", 40)):
        save(tmp_path / name, picture(), {FOCAL_35: focal})
    per_folder = load_image_set(tmp_path, camera_mode="per-folder")
    assert per_folder.camera_index.tolist() == [0, 0, 1, 1] and per_folder.num_cameras == 2
    assert per_folder.focal_prior_px == pytest.approx(np.full(4, 40 * 96 / 36))  # medians, gaps filled
    assert load_image_set(tmp_path, camera_mode="single").camera_index.tolist() == [0, 0, 0, 0]
    assert load_image_set(tmp_path, camera_mode="per-image").camera_index.tolist() == [0, 1, 2, 3]
    save(tmp_path / "z.jpg", picture(64, 96))
    with pytest.raises(InputError, match=r"l/1\.jpg is 96x64 and z\.jpg 64x96"):
        load_image_set(tmp_path, camera_mode="single")
