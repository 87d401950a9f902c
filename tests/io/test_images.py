"""Finding, verifying and reading photographs."""

import hashlib
import itertools
import math
import os
import struct
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, features

from anchorsfm.colmap.sensors import sensor_width_mm
from anchorsfm.io import decoding, listing
from anchorsfm.io import images as io_images
from anchorsfm.io.exif import Exif, exif_focal_px
from anchorsfm.io.images import load_image_set, with_cameras_of_scenes
from anchorsfm.io.pictures import load_grey, load_rgb, photo_bytes, working_size_wh
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.printable import printable
from anchorsfm.scene.progress import SILENT, RecordingProgress
from unix import unix_only

EXIF_IFD = 0x8769
ORIENTATION, MAKE, MODEL, FOCAL, FOCAL_35, PIXEL_X, PIXEL_Y = 274, 271, 272, 37386, 41989, 40962, 40963
DIGITAL_ZOOM = 41988
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
    """DJI's names are those of camera modules: small sensors of theirs are known as surely as large ones of others."""
    padded = save(tmp_path / "a.jpg", picture(400, 300), {MODEL: "FC300S\0\0\0", MAKE: "DJI\0\0", FOCAL: 3.61})
    found = load_image_set([padded], sensor_widths=lambda make, model: 6.2 if (make, model) == ("DJI", "FC300S") else 0)
    assert found.focal_prior_px[0] == pytest.approx(3.61 / 6.2 * 400)
    drone = Exif(make="DJI", model="FC300S", focal_mm=3.61, focal_35mm=20.0)
    assert exif_focal_px(drone, (400, 300), 6.2) == pytest.approx(3.61 / 6.2 * 400)
    phone = replace(drone, make="Maker")
    assert exif_focal_px(phone, (400, 300), 6.2) == pytest.approx(20 * 500 / math.hypot(36, 24))
    zoomed = replace(drone, focal_35mm=40.0)
    assert exif_focal_px(zoomed, (400, 300), 6.2) == pytest.approx(40 * 500 / math.hypot(36, 24))


def test_focal_from_a_table_of_cameras() -> None:
    large = Exif(make="Maker", model="Large", focal_mm=40.0, focal_35mm=60.0)
    assert exif_focal_px(large, (1500, 1000), 23.2) == pytest.approx(40 / 23.2 * 1500)
    phone = replace(large, focal_mm=4.0, focal_35mm=26.0)  # rougher than what the phone says, but better than nothing
    assert exif_focal_px(phone, (1500, 1000), 5.76) == exif_focal_px(phone, (1500, 1000))
    silent = replace(phone, focal_35mm=math.nan)
    assert exif_focal_px(silent, (1500, 1000), 5.76) == pytest.approx(4 / 5.76 * 1500)


def test_a_copy_whose_captured_size_a_program_rewrote() -> None:
    """Canon EOS 60D, 5184 pixels on 22.3 mm: a copy of 718 pixels says that it was taken so."""
    copy = Exif(make="Canon", model="Canon EOS 60D", focal_mm=19.0, captured_wh=(718, 480), pixels_per_mm=5184 / 22.3)
    assert exif_focal_px(copy, (718, 480), 22.3) == pytest.approx(19 / 22.3 * 718)
    assert math.isnan(exif_focal_px(copy, (718, 480)))  # in no table: but no EOS camera has a sensor of 3 mm
    half = replace(copy, captured_wh=(3300, 2200))  # a copy, or a part of the sensor that the camera chose
    assert math.isnan(exif_focal_px(half, (3300, 2200), 22.3))
    whole = replace(copy, captured_wh=(5184, 3456))
    assert exif_focal_px(whole, (718, 480), 22.3) == pytest.approx(19 / 22.3 * 718)
    assert exif_focal_px(whole, (718, 480)) == pytest.approx(19 / 22.3 * 718)
    other = replace(copy, make="Maker", model="Small", focal_mm=4.0)  # nothing says that it has more
    assert exif_focal_px(other, (718, 480)) == pytest.approx(4 * 5184 / 22.3)
    equivalent = replace(copy, focal_35mm=30.0)
    assert exif_focal_px(equivalent, (718, 480)) == pytest.approx(30 * math.hypot(718, 480) / math.hypot(36, 24))


@pytest.mark.parametrize("tags", [{}, {FOCAL_35: 0}, {FOCAL: 5.0}, {FOCAL_35: 60000}, {FOCAL: 50.0, PLANE_X: 0.001}])
def test_unknown_and_absurd_focals_are_nan(tmp_path: Path, tags: dict[int, object]) -> None:
    assert np.isnan(one(save(tmp_path / "a.jpg", picture(), tags)).focal_prior_px[0])


def test_capture_times_are_read_with_fractions(tmp_path: Path) -> None:
    taken, fraction = 36867, 37521
    for wider, (name, tags) in enumerate(
        (
            ("a.jpg", {taken: "2024:05:17 10:30:01", fraction: "25"}),
            ("b.jpg", {taken: "2024:05:17 10:30:00"}),
            ("c.jpg", {taken: "0000:00:00 00:00:00", fraction: "x"}),
        )
    ):
        save(tmp_path / name, picture(96 + wider), tags)
    times = load_image_set(tmp_path).taken_s
    assert times[0] - times[1] == pytest.approx(1.25, abs=1e-3) and np.isnan(times[2])


def test_given_focal_overrides_exif(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", picture(), {FOCAL_35: 28})
    assert load_image_set([path], focal_px=123.0).focal_prior_px.tolist() == [123]
    with pytest.raises(InputError, match="positive number"):
        load_image_set([path], focal_px=-1.0)


def test_real_photographs_have_sane_focals(photos: Path) -> None:
    banana = load_image_set(photos / "banana" / "images", sensor_widths=sensor_width_mm)
    assert (banana.num_images, banana.num_cameras) == (16, 1)
    # 2601 px is what self-calibration by bundle adjustment finds
    assert banana.focal_prior_px == pytest.approx(np.full(16, 2601), rel=0.01)
    brighton = load_image_set(photos / "brighton" / "images", sensor_widths=sensor_width_mm)
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


def test_tiff_files_of_unusual_pixels_are_not_called_damaged(tmp_path: Path) -> None:
    entries = {256: (4, 64), 257: (4, 64), 258: (3, 32), 259: (3, 1), 262: (3, 2), 273: (4, 4096), 277: (3, 3),
               278: (4, 64), 279: (4, 64 * 64 * 12), 339: (3, 3)}  # fmt: skip
    directory = b"".join(struct.pack("<HHIHxx" if kind == 3 else "<HHII", tag, kind, 1, value)
                         for tag, (kind, value) in entries.items())  # fmt: skip
    header = b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4)
    (tmp_path / "float.tif").write_bytes(header.ljust(4096, b"\0") + bytes(64 * 64 * 12))
    (tmp_path / "cut.tif").write_bytes(header[:40])
    save(tmp_path / "photo.jpg", picture())
    reasons = {skipped.name: skipped.reason for skipped in load_image_set(tmp_path).skipped}
    assert reasons["float.tif"] == "unsupported kind of pixels (32-bit float)"
    assert "unsupported kind" not in reasons["cut.tif"]


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
    read = io_images.read_regular

    def refuse(path: Path) -> bytes:
        if path.name == "a.jpg":
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(io_images, "read_regular", refuse)
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


@pytest.mark.parametrize("load", [load_rgb, load_grey, photo_bytes])
def test_another_picture_of_the_same_size_is_never_taken_for_the_verified_one(tmp_path: Path, load) -> None:
    path = save(tmp_path / "a.png", picture())
    images, state = one(path), path.stat()
    load(images, 0)
    save(path, picture()[:, ::-1])
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(InputError, match=r"a\.png has changed since"):
        load(images, 0)


@unix_only
def test_only_regular_files_of_bounded_size_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "good.jpg", picture())
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, target in (("zero.jpg", "/dev/zero"), ("loop.jpg", "loop.jpg"), ("lost.png", "nowhere")):
        (tmp_path / name).symlink_to(target)
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(2**40)
    (tmp_path / "secret.jpg").write_bytes((tmp_path / "good.jpg").read_bytes())
    open_file = os.open

    def refuse(path: Path, *flags: int) -> int:  # the tests may run as root, who may read everything
        if Path(path).name == "secret.jpg":
            raise PermissionError(13, "Permission denied")
        return open_file(path, *flags)

    monkeypatch.setattr("anchorsfm.io.files.os.open", refuse)
    images = load_image_set(tmp_path)
    assert images.names == ("good.jpg",)
    assert {image.name: image.reason for image in images.skipped} == {
        "pipe.jpg": "a named pipe, not a file",
        "zero.jpg": "a device, not a file",
        "loop.jpg": "too many levels of symbolic links",
        "lost.png": "no such file or directory",
        "huge.jpg": "larger than 2048 MiB",
        "secret.jpg": "permission denied",
    }
    with pytest.raises(InputError, match="not a regular file"):
        load_image_set([tmp_path / "pipe.jpg"])


@unix_only
def test_a_name_that_is_not_utf8_is_skipped_by_name(tmp_path: Path) -> None:
    save(tmp_path / "ü\u202f1.jpg", picture())
    odd = os.fsencode(tmp_path) + b"/caf\xe9\x1b[31m.jpg"
    Path(os.fsdecode(odd)).write_bytes((tmp_path / "ü\u202f1.jpg").read_bytes())
    images = load_image_set(tmp_path)
    assert images.names == ("ü\u202f1.jpg",)
    (skipped,) = images.skipped
    assert skipped.name == r"caf\xe9\x1b[31m.jpg" and "not UTF-8" in skipped.reason


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain.jpg", "plain.jpg"),
        ("Bildschirmfoto 9.41\u202fUhr ü 写真.png", "Bildschirmfoto 9.41\u202fUhr ü 写真.png"),
        ("a\x1b]0;title\x07\nb\tc\x9b2J\x7f", r"a\x1b]0;title\x07\nb\tc\x9b2J\x7f"),
        ("\u202egpj.exe\u2028\U000e0041\udcff", r"\u202egpj.exe\u2028\U000e0041\xff"),
    ],
)
def test_what_is_shown_cannot_control_a_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


# ------------------------------------------------------------------------------------------------------- odd EXIF


def exif_block(values: dict[int, tuple[int, int, bytes]]) -> bytes:
    """A little-endian EXIF block from (type, count, data) by tag; as `save` sorts tags."""

    def directory(entries: list[tuple[int, int, int, bytes]], start: int) -> bytes:
        body, extra = struct.pack("<H", len(entries)), b""
        behind = start + 2 + 12 * len(entries) + 4
        for tag, kind, count, data in sorted(entries):
            if len(data) > 4:
                body += struct.pack("<HHII", tag, kind, count, behind + len(extra))
                extra += data
            else:
                body += struct.pack("<HHI", tag, kind, count) + data.ljust(4, b"\0")
        return body + bytes(4) + extra

    general = [(tag, *value) for tag, value in values.items() if tag in (ORIENTATION, MAKE, MODEL)]
    details = [(tag, *value) for tag, value in values.items() if tag not in (ORIENTATION, MAKE, MODEL)]
    pointer = (EXIF_IFD, 4, 1, bytes(4))
    second = 8 + len(directory([*general, pointer], 8))
    first = directory([*general, (EXIF_IFD, 4, 1, struct.pack("<I", second))], 8)
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + first + directory(details, second)


ODD_VALUES = {
    "text": (2, 8, b"wide 24\0"),
    "bytes": (7, 6, b"\xff\x00\x1b[2J"),
    "zero": (3, 1, bytes(2)),
    "zero / zero": (5, 1, bytes(8)),
    "one / zero": (5, 1, struct.pack("<II", 1, 0)),
    "tiny": (5, 1, struct.pack("<II", 1, 2**32 - 1)),
    "half": (5, 1, struct.pack("<II", 1, 2)),
    "huge": (5, 1, struct.pack("<II", 2**32 - 1, 1)),
    "negative": (10, 1, struct.pack("<ii", -35, 1)),
    "nan": (12, 1, struct.pack("<d", math.nan)),
    "1e300": (12, 1, struct.pack("<d", 1e300)),
    "5e-324": (12, 1, struct.pack("<d", 5e-324)),
    "many": (3, 3, struct.pack("<HHH", 24, 35, 50)),
    "none": (5, 0, b""),
    "unknown type": (99, 1, b"\1\2\3\4"),
    "beyond the end": (5, 2**31, struct.pack("<I", 2**31)),
}
TAGS = (ORIENTATION, MAKE, MODEL, FOCAL, FOCAL_35, PIXEL_X, PIXEL_Y, PLANE_X, PLANE_UNIT)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_an_odd_tag_costs_that_tag_only(tmp_path: Path) -> None:
    good = {
        MAKE: (2, 6, b"Maker\0"),
        FOCAL: (5, 1, struct.pack("<II", 24, 1)),
        FOCAL_35: (3, 1, struct.pack("<H", 36)),
        PIXEL_X: (4, 1, struct.pack("<I", 96)),
        PIXEL_Y: (4, 1, struct.pack("<I", 64)),
        PLANE_X: (5, 1, struct.pack("<II", 100, 1)),
        PLANE_UNIT: (3, 1, struct.pack("<H", 2)),
    }
    for tag, (name, odd) in itertools.product(TAGS, ODD_VALUES.items()):
        path = tmp_path / f"{tag} {name.replace('/', 'by')}.jpg"
        Image.fromarray(picture()).save(path, exif=exif_block(good | {tag: odd}))
    images = load_image_set(tmp_path, camera_mode="per-image")
    assert not images.skipped and images.num_images == len(TAGS) * len(ODD_VALUES)
    by_35mm = 36 * 96 / 36
    for name, focal in zip(images.names, images.focal_prior_px, strict=True):
        assert not focal <= 0
        if not name.startswith(f"{FOCAL_35} "):
            assert focal == pytest.approx(by_35mm), name
    for image in range(images.num_images):
        assert load_grey(images, image).shape == (64, 96)


def test_exif_with_zero_captured_size_falls_back_to_the_present_size(tmp_path: Path) -> None:
    block = {FOCAL: (5, 1, struct.pack("<II", 24, 1)), PLANE_X: (5, 1, struct.pack("<II", 127, 1))}
    block |= {PIXEL_X: ODD_VALUES["half"], PIXEL_Y: ODD_VALUES["half"]}
    Image.fromarray(picture()).save(tmp_path / "a.jpg", exif=exif_block(block))
    assert one(tmp_path / "a.jpg").focal_prior_px == pytest.approx([24 * 127 / 25.4])


def test_directories_that_contain_themselves_end(tmp_path: Path) -> None:
    block = bytearray(exif_block({MODEL: (2, 2, b"M\0")}))
    struct.pack_into("<I", block, block.index(struct.pack("<HHI", EXIF_IFD, 4, 1)) + 8, 8)
    Image.fromarray(picture()).save(tmp_path / "a.jpg", exif=bytes(block))
    assert not one(tmp_path / "a.jpg").skipped


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


def test_files_that_show_something_and_are_not_taken_are_counted(tmp_path: Path) -> None:
    names = ("a.jpg", "a.NEF", "b.heic", "b.mov", "c.nef", "x/d.NEF", "e.mp4", "f.mp4", "g.jxl", "notes.txt", ".h.nef")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    said = listing.not_taken([tmp_path, tmp_path / "f.mp4"])
    assert said is not None and "\n" not in said
    assert said.startswith(f"not taken from {tmp_path}: 2 x .nef, 1 x .")
    assert "1 x .mp4" in said and "1 x .jxl" in said and ".mov" not in said and ".txt" not in said
    assert "develop them" in said and "name videos themselves" in said and "save other pictures as JPEG" in said
    assert listing.not_taken([tmp_path / "a.jpg"]) is None
    assert listing.not_taken([tmp_path / "x"]) is None  # nothing is taken, which is an error elsewhere


def test_errors_name_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = save(tmp_path / "photo.jpg", picture())
    (tmp_path / "empty").mkdir()
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.NEF").write_bytes(b"x")
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.MOV").write_bytes(b"x")
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
        ([tmp_path / "raw"], r"no images in .*raw: found 1 x \.nef"),
        (tmp_path / "clips", r"found 1 x \.mov; .* name videos themselves"),
        (tmp_path / "raw", r"raw files are not read: develop them"),
        (tmp_path / "raw" / "a.NEF", r"a\.NEF: raw files are not read"),
        ([photo, tmp_path / "raw" / "a.NEF"], r"a\.NEF: raw files are not read"),
        ([], "empty"),
    ):
        with pytest.raises(InputError, match=pattern) as caught:
            load_image_set(source)
        assert "\n" not in str(caught.value)

    def refuse(folder: Path, *, onerror, **_: object):
        onerror(PermissionError(13, "Permission denied", str(folder)))

    monkeypatch.setattr(listing.os, "walk", refuse)
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


def test_digitally_zoomed_pictures_have_a_camera_and_a_focal_length_of_their_own(tmp_path: Path) -> None:
    """Of makers that multiply the equivalent by the zoom, and of others; 0 and 1 are none."""
    nikon = {MODEL: "NIKON D700", FOCAL: 35.0, FOCAL_35: 35}  # 36 mm wide
    phone = {MODEL: "Phone", FOCAL: 5.0, FOCAL_35: 26}
    for name, tags in (
        ("1.jpg", nikon),
        ("2.jpg", nikon | {DIGITAL_ZOOM: 0.0}),
        ("3.jpg", nikon | {DIGITAL_ZOOM: 1.0}),
        ("4.jpg", nikon | {DIGITAL_ZOOM: 2.0}),
        ("5.jpg", nikon | {DIGITAL_ZOOM: 2.0, FOCAL_35: 70}),
        ("6.jpg", phone),
        ("7.jpg", phone | {DIGITAL_ZOOM: 1.5}),
        ("8.jpg", phone | {DIGITAL_ZOOM: 1.5, FOCAL_35: 39}),
        ("9.jpg", nikon | {DIGITAL_ZOOM: 2.0, PLANE_X: 4000.0, PIXEL_X: 96, PIXEL_Y: 64}),
    ):
        save(tmp_path / name, picture(96, 64), tags)
    images = load_image_set(tmp_path, sensor_widths=lambda make, model: {"NIKON D700": 36.0}.get(model, np.nan))
    assert images.camera_index.tolist() == [0, 0, 0, 1, 2, 3, 4, 5, 1]
    expected = [35, 35, 35, 70, 70, 26, np.nan, np.nan, 70]  # of the phone nobody knows which it is
    assert images.focal_prior_px == pytest.approx(np.array(expected) * 96 / 36, rel=0.01, nan_ok=True)
    of_phones = load_image_set(tmp_path, sensor_widths=lambda make, model: 7.0 if model == "Phone" else 36.0)
    expected[6:8] = [39, 39]  # 5 mm before 7 mm is 26 before 36
    assert of_phones.focal_prior_px == pytest.approx(np.array(expected) * 96 / 36, rel=0.01)


def test_scenes_of_a_mixed_folder_have_cameras_as_if_each_were_a_folder(tmp_path: Path) -> None:
    sizes = [(96, 64), (80, 60)] * 6 + [(90 + k, 64) for k in range(6)] + [(96, 64)] * 2
    for number, size in enumerate(sizes):
        save(tmp_path / f"{number:02d}.jpg", picture(*size))
    save(tmp_path / "exif.jpg", picture(96, 64), {FOCAL_35: 30})
    images = load_image_set(tmp_path)
    assert images.num_cameras == 21
    scene = np.array([*[0, 1] * 6, *[2] * 6, 3, 3, 0])  # two places, a collection, a pair, EXIF
    cameras = with_cameras_of_scenes(images, scene).camera_index
    assert cameras[:12].tolist() == [0, 1] * 6
    assert len(np.unique(cameras)) == 2 + 6 + 2 + 1
    # what is the same in all scenes says nothing more than the folder did
    assert with_cameras_of_scenes(images, np.zeros(21, np.int64)).num_cameras == 21


def test_what_records_no_focal_length_may_be_zoomed(tmp_path: Path) -> None:
    for name, tags in (("1.jpg", {}), ("2.jpg", {MODEL: "X"}), ("3.jpg", {MODEL: "X", FOCAL_35: 24})):
        save(tmp_path / name, picture(), tags)
    images = load_image_set(tmp_path)
    assert images.may_be_zoomed is not None and images.may_be_zoomed.tolist() == [True, True, False]
    assert images.is_unnamed is not None and images.is_unnamed.tolist() == [True, False, False]
    single = load_image_set(tmp_path, camera_mode="single")
    assert single.may_be_zoomed is not None and not single.may_be_zoomed.any()


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


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.avif", quality=95)
    images = load_image_set(tmp_path)
    assert images.names == ("a.avif",) and images.size_wh.tolist() == [[96, 64]]
    assert np.abs(load_rgb(images, 0).astype(int) - picture()).mean() < 12
    monkeypatch.setattr(decoding.features, "check", lambda _: False)
    with pytest.raises(InputError, match=r"a\.avif: AVIF pictures need Pillow 11\.3"):
        load_image_set(tmp_path)
