"""Sky is found where it is, and not in walls, floors and pictures of nothing."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anchorsfm.masking.sky import find_sky
from anchorsfm.run.config import PipelineConfig
from stopped_run import images_of_run

W, H = 512, 384
RNG_SEED = 0


def noise(sigma: float) -> np.ndarray:
    return np.random.default_rng(RNG_SEED).normal(0, sigma, (H, W, 1))


def street(skyline: np.ndarray) -> np.ndarray:
    """Textured below the row of every column where the skyline is."""
    rng = np.random.default_rng(1)
    bricks = np.kron(rng.uniform(60, 190, (H // 4, W // 8, 1)) * [1.0, 0.95, 0.85], np.ones((4, 8, 1)))
    below = np.arange(H)[:, None] >= skyline
    return np.where(below[..., None], bricks, np.nan)


def over(front: np.ndarray, back: np.ndarray, grain: float) -> np.ndarray:
    pixels = np.where(np.isnan(front), back, front) + noise(grain)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def clear_sky() -> np.ndarray:
    """Blue, paler towards the horizon, with a white cloud that has a sharp border."""
    t = np.linspace(0, 1, H)[:, None, None]
    blue = (1 - t) * [70.0, 120, 200] + t * [190.0, 210, 235] + np.zeros((H, W, 3))
    y, x = np.mgrid[:H, :W]
    blue[(x - 360) ** 2 / 4 + (y - 100) ** 2 < 30**2] = [245, 245, 248]
    return blue


def skyline() -> np.ndarray:
    """Houses, and a tower six pixels wide."""
    rows = np.repeat([240, 200, 264, 216], W // 4)
    rows[160:166] = 50
    return rows


def agreement(found: np.ndarray, skyline: np.ndarray) -> float:
    """Intersection of found and true sky over their union."""
    true = np.arange(H)[:, None] < skyline
    return float((found & true).sum() / (found | true).sum())


@pytest.mark.parametrize(
    "sky",
    [clear_sky(), np.full((H, W, 3), [205.0, 207, 210]), np.full((H, W, 3), [255.0, 255, 255])],
    ids=["clear", "overcast", "overexposed"],
)
def test_sky_above_a_street(sky: np.ndarray) -> None:
    found = find_sky(over(street(skyline()), sky, grain=0.5))
    assert agreement(found, skyline()) > 0.98


def test_walls_with_a_grain_are_no_sky() -> None:
    plaster = np.full((H, W, 3), [205.0, 207, 210])
    assert not find_sky(over(street(skyline()), plaster, grain=2.5)).any()


def test_a_small_part_of_the_upper_border_is_left_alone() -> None:
    rows = np.zeros(W, np.int64)
    rows[:40] = rows[-40:] = 320  # two smooth strips beside something that fills the picture
    assert not find_sky(over(street(rows), clear_sky(), grain=0.5)).any()


def test_a_picture_of_nothing_else_is_left_alone() -> None:
    assert not find_sky(over(street(np.full(W, H)), clear_sky(), grain=0.5)).any()


def test_smooth_things_below_are_no_sky() -> None:
    wall = street(skyline())
    wall[280:370, 30:240] = [210, 212, 215]
    assert agreement(find_sky(over(wall, clear_sky(), grain=0.5)), skyline()) > 0.98


def test_the_colour_of_bricks_and_leaves_is_none_of_sky() -> None:
    for colour in ([150.0, 40, 30], [40.0, 140, 40], [20.0, 20, 25]):
        assert not find_sky(over(street(skyline()), np.full((H, W, 3), colour), grain=0.5)).any()


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 40, 3), (40, 1, 3), (2, 3, 3), (7, 5, 3)])
def test_tiny_pictures(shape: tuple[int, ...]) -> None:
    assert not find_sky(np.full(shape, 200, np.uint8)).any()


def _at_512(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        picture.thumbnail((512, 512), Image.Resampling.LANCZOS)
        return np.asarray(picture.convert("RGB"))


def test_photographs_with_clouds(photos: Path) -> None:
    """Checked by eye: clouds of three kinds, and boxes of sky and of what is none (columns, rows as shares)."""
    for name, sky, other in (
        ("32809961_8274055477.jpg", (0.6, 0.9, 0.02, 0.3), (0.1, 0.4, 0.5, 0.9)),
        ("17295357_9106075285.jpg", (0.7, 0.95, 0.05, 0.5), (0.35, 0.6, 0.5, 0.7)),
        ("71295362_4051449754.jpg", (0.93, 0.99, 0.5, 0.65), (0.4, 0.6, 0.35, 0.7)),
    ):
        found = find_sky(_at_512(photos / "sacre-coeur" / "images" / name))
        height, width = found.shape
        inside, outside = (
            found[int(y0 * height) : int(y1 * height), int(x0 * width) : int(x1 * width)].mean()
            for x0, x1, y0, y1 in (sky, other)
        )
        assert inside > 0.99 and outside < 0.01, name


def test_photographs_without_sky(photos: Path) -> None:
    """Plastered walls, wet asphalt from above, a carpet."""
    for name in (
        "fountain-P11/images/0000.jpg",
        "fountain-P11/images/0002.jpg",
        "brighton/images/DJI_0033.jpg",
        "banana/images/DSC_0423.jpg",
    ):
        assert not find_sky(_at_512(photos / name)).any(), name


def test_a_run_masks_sky_where_it_is_asked_to(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(2)
    Image.fromarray(over(street(skyline()), clear_sky(), grain=0.5)).save(tmp_path / "in" / "a.png")
    Image.fromarray(over(street(np.zeros(W)), clear_sky(), grain=0.5)).save(tmp_path / "in" / "b.png")
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.repeat(rng.integers(0, 2, (1, 8), np.uint8) * 255, 6, axis=0)).save(tmp_path / "masks" / "b.png")
    both = PipelineConfig(sky_masks=True, masks=tmp_path / "masks")
    first, second = images_of_run(tmp_path / "in", tmp_path / "out", both).masks
    assert agreement(~first.pixels(), skyline()) > 0.98 and second.size_wh == (8, 6)
    assert images_of_run(tmp_path / "in", tmp_path / "out", PipelineConfig()).masks is None
