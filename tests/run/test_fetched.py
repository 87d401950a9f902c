"""A run of photographs and masks at a URL is one of the same files here; other machines read them from there."""

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from anchorsfm.io.layout import FETCHED
from anchorsfm.io.pictures import load_rgb
from anchorsfm.pipeline import reconstruct
from anchorsfm.run.config import PipelineConfig


def test_photographs_and_masks_at_a_url(rendered: Path, tmp_path: Path) -> None:
    photographs, masks, output = (tmp_path / name for name in ("photographs", "masks", "out"))
    files = sorted((rendered / "images").iterdir())[:3]
    mask = np.full((48, 64), 255, np.uint8)
    mask[:, :4] = 0
    for folder in (photographs / "walk", masks / "walk"):
        folder.mkdir(parents=True)
    for file in files:
        shutil.copy(file, photographs / "walk")
        Image.fromarray(mask).save(masks / "walk" / f"{file.name}.png")
    config = PipelineConfig(
        max_image_size=320, mapper="tracks", dense=False, bundle_adjustment=False, masks=Path(f"file://{masks}")
    )
    result = reconstruct(Path(f"file://{photographs}"), output, config)
    assert result.images.names == tuple(f"walk/{file.name}" for file in files), "the names below the URL"
    assert result.images.masks is not None and all(result.images.masks)
    assert result.images.root.parent == output / FETCHED
    assert result.models and (output / "report.json").exists()
    elsewhere = pickle.loads(pickle.dumps(result.images))
    picture = load_rgb(elsewhere, 0)
    shutil.rmtree(output / FETCHED)
    assert np.array_equal(load_rgb(elsewhere, 0), picture), "read from the URL"
    again = reconstruct(
        [Path(f"file://{photographs}/walk/{file.name}") for file in files], output, replace(config, masks=None)
    )
    assert again.images.digests == result.images.digests
