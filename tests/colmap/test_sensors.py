"""Widths of sensors from COLMAP's own table."""

import math
from pathlib import Path

import pytest
from PIL import Image

from anchorsfm.colmap.sensors import sensor_width_mm
from anchorsfm.run.config import PipelineConfig
from stopped_run import images_of_run


@pytest.mark.parametrize(
    ("make", "model", "width_mm"),
    [
        ("NIKON CORPORATION", "NIKON D90", 23.6),
        ("Canon", "Canon EOS 5D Mark III", 36.0),
        ("NIKON CORPORATION", "NIKON D3200", 23.2),
        ("NIKON CORPORATION", "NIKON D4", 36.0),
        ("DJI", "FC220", 6.17),
        ("DJI", "FC300S", 6.17),
        ("Canon", "Canon PowerShot S5 IS", 5.75),
    ],
)
def test_known_cameras(make: str, model: str, width_mm: float) -> None:
    assert sensor_width_mm(make, model) == pytest.approx(width_mm, abs=0.05)


@pytest.mark.parametrize(
    ("make", "model"),
    [
        ("", ""),
        ("", "ILCE-6000"),
        ("DJI", ""),
        ("Nobody", "None 1"),
        ("DJI", "FC"),
        ("Canon", "é\n\0"),
        ("x" * 70_000, "y" * 70_000),
    ],
)
def test_others_have_none(make: str, model: str) -> None:
    assert math.isnan(sensor_width_mm(make, model))


def test_a_run_knows_the_focal_length_of_a_camera_of_the_table(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for k, name in enumerate("ab"):
        exif = Image.Exif()
        exif[271], exif[272] = "Canon", "Canon PowerShot S5 IS"
        exif.get_ifd(0x8769)[37386] = 6.0
        Image.effect_noise((64, 48), 50 + k).save(tmp_path / "in" / f"{name}.jpg", exif=exif)
    images = images_of_run(tmp_path / "in", tmp_path / "out", PipelineConfig())
    assert images.focal_prior_px == pytest.approx(6.0 * 64 / sensor_width_mm("Canon", "Canon PowerShot S5 IS"))
