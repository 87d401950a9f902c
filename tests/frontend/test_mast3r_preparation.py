"""Photographs as the network sees them, and the way back to original pixels."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anchorsfm.frontend.mast3r.preparation import (
    image_grid,
    load_prepared,
    plan_images,
    plan_preparation,
    to_network_input,
)
from anchorsfm.io.images import load_image_set
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.images import ImageSet


@pytest.fixture(scope="module")
def golden_images(golden: Path) -> ImageSet:
    return load_image_set(golden / "load_images", camera_mode="per-image")


@pytest.fixture(scope="module")
def golden_results(golden: Path) -> dict:
    return json.loads((golden / "load_images.json").read_text())


def prepared_by_key(images: ImageSet, key: str) -> np.ndarray:
    size, square_ok, name = re.match(r"size=(\d+) square_ok=(\w+) (\S+)", key).groups()
    index = images.names.index(name)
    size_wh = (int(images.size_wh[index, 0]), int(images.size_wh[index, 1]))
    plan = plan_preparation(size_wh, int(size), square_ok=square_ok == "True")
    return load_prepared(images, index, plan)


def test_golden_pixels_are_equal(golden: Path, golden_images: ImageSet) -> None:
    with np.load(golden / "load_images.npz") as file:
        assert len(file.files) >= 16
        for key in file.files:
            pixels = prepared_by_key(golden_images, key)
            pixels = pixels[::16, ::16] if "[::16,::16]" in key else pixels
            np.testing.assert_array_equal(pixels, file[key], err_msg=key)


def test_golden_tensors(golden_images: ImageSet, golden_results: dict) -> None:
    """Shapes, corner pixels and statistics of every file at 224, 256 and 512 with and without square images."""
    keys = [key for key in golden_results if key.startswith("size=")]
    assert len(keys) >= 60
    for key in keys:
        expected, pixels = golden_results[key], prepared_by_key(golden_images, key)
        assert [*pixels.shape[:2]] == expected["true_shape"][0], key
        corners = [pixels[y, x].tolist() for y in (0, -1) for x in (0, -1)]
        assert corners == expected["corner_pixels_u8"], key
        tensor = to_network_input(pixels)
        assert [1, *tensor.shape] == expected["tensor_shape"]
        assert tensor.double().mean().item() == pytest.approx(expected["mean"], abs=2e-7), key
        assert tensor.double().std().item() == pytest.approx(expected["std"], rel=1e-6), key


def test_golden_sizes(golden_results: dict) -> None:
    keys = [key for key in golden_results if key.startswith("sizes_only")]
    assert keys
    for key in keys:
        size, width, height = map(int, re.fullmatch(r"sizes_only size=(\d+) (\d+)x(\d+)", key).groups())
        expected_hw = tuple(golden_results[key]["true_shape"][0])
        if 0 in expected_hw:
            with pytest.raises(InputError, match=rf"thin\.jpg is {width}x{height} pixels: too long and thin"):
                plan_preparation((width, height), size, name="thin.jpg")
        else:
            assert plan_preparation((width, height), size).grid_wh == expected_hw[::-1], key


def test_golden_folder_order(golden_images: ImageSet, golden_results: dict) -> None:
    shapes = [plan.grid_wh[::-1] for plan in plan_images(golden_images, 512)]
    assert shapes == [tuple(entry[2][0]) for entry in golden_results["folder order size=512"]]


def test_network_input_is_exact() -> None:
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    expected = ((pixels.astype(np.float32) / np.float32(255)) - np.float32(0.5)) / np.float32(0.5)
    np.testing.assert_array_equal(to_network_input(pixels).numpy(), expected.transpose(2, 0, 1))


@pytest.mark.parametrize("image_size", [64, 224, 512])
@pytest.mark.parametrize("size_wh", [(700, 500), (500, 701), (1000, 1000), (150, 100), (999, 333)])
def test_grid_map_points_at_the_same_place(size_wh: tuple[int, int], image_size: int) -> None:
    """A picture of its own coordinates: what a prepared pixel shows is where the map says it comes from."""
    plan = plan_preparation(size_wh, image_size)
    grid = image_grid((plan,))
    pixels = np.stack(np.meshgrid(*(np.arange(0.2, plan.grid_wh[k]) for k in (0, 1))), axis=-1).reshape(-1, 2)
    np.testing.assert_allclose(grid.to_grid(0, grid.to_image(0, pixels)), pixels, atol=1e-9)
    centres = np.stack(np.meshgrid(*(np.arange(plan.grid_wh[k]) + 0.5 for k in (0, 1))), axis=-1)
    expected = grid.to_image(0, centres.reshape(-1, 2)).reshape(centres.shape)
    inner = (slice(4, -4), slice(4, -4))  # at the border of the picture the filters are cut off
    for axis, length in enumerate(size_wh):
        grey_per_pixel = 250 / length
        ramp = ((np.arange(length) + 0.5) * grey_per_pixel).round().astype(np.uint8)
        picture = np.broadcast_to(ramp if axis == 0 else ramp[:, None], size_wh[::-1])
        shown = plan.apply(Image.fromarray(np.dstack([picture] * 3)))[..., 0] / grey_per_pixel
        error = (shown - expected[..., axis])[inner]
        assert abs(error.mean()) < 0.1
        assert np.abs(error).max() < 2.1 / grey_per_pixel


def test_extreme_aspect_ratio_names_the_image(tmp_path: Path) -> None:
    Image.new("RGB", (640, 480)).save(tmp_path / "good.png")
    Image.new("RGB", (4000, 100)).save(tmp_path / "strip.png")
    images = load_image_set(tmp_path)
    with pytest.raises(InputError, match=r"strip\.png is 4000x100 pixels.*32:1"):
        plan_images(images, 512)


def test_no_images_make_an_empty_grid() -> None:
    assert image_grid(()).size_wh.shape == (0, 2)
