"""What is looked at before a run's work, and what is said about settings once the photographs are known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anchorsfm.geometry.geodesy import geo_positions
from anchorsfm.pipeline import reconstruct
from anchorsfm.run.checks import settled
from anchorsfm.run.config import PipelineConfig
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.positions import GeoFix
from anchorsfm.scene.progress import SILENT, RecordingProgress
from anchorsfm.synthetic import SceneConfig, image_set, make_scene


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (PipelineConfig(mask=Path("none.png")), "cannot read the mask .*none.png"),
        (PipelineConfig(masks=Path("none")), "the masks .*none: no such folder"),
        (PipelineConfig(epsg=9999), "EPSG:9999"),
    ],
    ids=["mask", "masks", "epsg"],
)
def test_what_settings_name_is_looked_at_before_any_photograph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: PipelineConfig, words: str
) -> None:
    """There are no photographs here: that would be said otherwise."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words):
        reconstruct(tmp_path / "nowhere", tmp_path / "out", config)
    assert not (tmp_path / "out").exists()


def images(*, bern: bool = False, deviation: float | None = None) -> ImageSet:
    found = image_set(make_scene(SceneConfig(num_images=2, size_wh=(320, 240))))
    fix = GeoFix(latitude_deg=46.95, longitude_deg=7.44, altitude_m=500.0, sigma_m=(2.0, 2.0, 3.0))
    return replace(
        found,
        geo=geo_positions([fix, None]) if bern else None,
        focal_deviation=None if deviation is None else np.full(2, deviation),
    )


def warnings(config: PipelineConfig, of: ImageSet, *changed: str, has_video: bool = False) -> list[str]:
    said = RecordingProgress(SILENT)
    settled(config, of, changed, said, has_video=has_video)
    return said.warnings


def test_a_reference_system_of_elsewhere_is_warned_of() -> None:
    (warning,) = warnings(PipelineConfig(epsg=2193), images(bern=True))
    assert "EPSG:2193 is for New Zealand" in warning
    assert not warnings(PipelineConfig(epsg=32632), images(bern=True))
    assert not warnings(PipelineConfig(epsg=2193), images())


@pytest.mark.parametrize(
    ("name", "without", "having"),
    [
        ("epsg", images(), images(bern=True)),
        ("gps", images(), images(bern=True)),
        ("focal_deviation", images(), images(deviation=0.02)),
        ("focal_deviation", images(deviation=np.nan), images(deviation=0.02)),
    ],
)
def test_settings_of_what_photographs_do_not_record_are_named(name: str, without: ImageSet, having: ImageSet) -> None:
    (warning,) = warnings(PipelineConfig(), without, name)
    assert warning.startswith("without effect") and name in warning
    assert not warnings(PipelineConfig(), having, name)


def test_positions_that_are_not_looked_at_are_not_missed() -> None:
    assert not warnings(PipelineConfig(gps="off"), images(), "gps")


def test_settings_of_videos_are_named_without_any() -> None:
    (warning,) = warnings(PipelineConfig(), images(), "video.fps")
    assert "no video is given" in warning
    assert not warnings(PipelineConfig(), images(), "video.fps", has_video=True)
