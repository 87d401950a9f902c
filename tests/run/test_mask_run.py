"""A whole run on photographs with a thing in front that moves with the camera, and masks that hide it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anchorsfm.evaluation import evaluate_poses, poses_of, read_poses
from anchorsfm.export.run import export
from anchorsfm.frontend.classical import ClassicalFrontend
from anchorsfm.frontend.classical.config import DenseConfig
from anchorsfm.pipeline import RunResult, reconstruct
from anchorsfm.run.config import PipelineConfig
from anchorsfm.scene.masks import uses

WH = np.array([480, 360])
SIDE = 208
"""A quarter of a photograph."""


@pytest.fixture(scope="module")
def photographs(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """images/ with the thing, masks/ that are black where it is, at half the size."""
    folder = tmp_path_factory.mktemp("masked")
    rng = np.random.default_rng(0)
    thing = np.kron(rng.integers(0, 255, (SIDE // 8, SIDE // 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    for sub in ("images", "masks"):
        (folder / sub).mkdir()
    for k, path in enumerate(sorted((rendered / "images").iterdir())):
        pixels = np.array(Image.open(path))
        mask = np.full((WH[1], WH[0]), 255, np.uint8)
        at = slice(76, 76 + SIDE), slice(100 + 8 * k, 100 + 8 * k + SIDE)
        pixels[at], mask[at] = thing, 0
        Image.fromarray(pixels).save(folder / "images" / path.name, quality=95)
        Image.fromarray(mask[::2, ::2]).save(folder / "masks" / f"{path.name}.png")
    return folder


@pytest.fixture(scope="module")
def run(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunResult, Path]:
    out = tmp_path_factory.mktemp("out")
    classical = ClassicalFrontend(dense=DenseConfig(size=256))
    config = PipelineConfig(masks=photographs / "masks", mapper="tracks", classical=classical)
    return reconstruct(photographs / "images", out, config), out


def test_poses_are_those_of_the_scene(run, rendered: Path) -> None:
    result, _ = run
    estimate = poses_of(result.models[0], result.images)
    found = evaluate_poses(estimate, read_poses(rendered / "truth.json"))
    assert found.num_registered == 5 and found.auc[0] > 0.8


def test_nothing_comes_from_masked_pixels(run) -> None:
    result, _ = run
    (model,) = result.models
    for image in range(5):
        mask = result.images.mask_pixels(image)
        xy = model.tracks.obs_xy[model.tracks.obs_image == image]
        assert len(xy) > 50 and uses(mask, xy, WH).all()
    (maps,) = result.depth_maps
    for clean in maps:
        mask = result.images.mask_pixels(clean.image)
        kept = clean.view.confidence > 0
        rows, columns = np.nonzero(kept)
        pinhole_wh = np.array(kept.shape[::-1])
        at = np.stack([columns, rows], axis=1) + 0.5
        inner = uses(_shrunk(mask), at, pinhole_wh)  # the pinhole picture is not exactly the photograph
        assert kept.mean() > 0.2 and inner.all()


def _shrunk(mask: np.ndarray) -> np.ndarray:
    """A mask that hides a little less."""
    hidden = ~mask
    for axis in (0, 1):
        for step in (-3, 3):
            hidden = hidden & np.roll(hidden, step, axis)
    return ~hidden


def test_exports_take_the_masks_along(run, photographs: Path) -> None:
    _, out = run
    (target,) = export(out, ["transforms"])
    frames = json.loads((target / "transforms.json").read_text())["frames"]
    for frame in frames:
        mask = np.asarray(Image.open(target / frame["mask_path"]))
        assert mask.shape == (WH[1], WH[0]) and 0.2 < (mask == 0).mean() < 0.3
