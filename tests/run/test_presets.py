"""Presets: settings by a word."""

from pathlib import Path

import pytest

from anchorsfm.api.run import reconstruct
from anchorsfm.cli.parsing import parse
from anchorsfm.cli.reconstruct import Reconstruct
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.presets import PRESETS
from anchorsfm.run.settings import changed_settings
from anchorsfm.scene.errors import InputError


def command(*options: str) -> Reconstruct:
    parsed = parse("reconstruct", ["photos", "-o", "out", *options])
    assert isinstance(parsed, Reconstruct)
    return parsed


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_where_the_options_start_from(name: str):
    expected = PRESETS[name]
    assert command("--preset", name).configured() == expected.settings
    assert command(f"--preset={name}").export == expected.export
    assert changed_settings(expected.settings, PipelineConfig())


def test_options_that_are_given_win():
    given = command("--preset", "fast", "--max-image-size", "1200", "--dense", "--export", "ply")
    settings = given.configured()
    assert (settings.max_image_size, settings.dense, settings.mapper) == (1200, True, "tracks")
    assert given.export == ("ply",)


def test_a_preset_beside_a_record_is_refused(tmp_path: Path):
    (tmp_path / "config.yaml").write_text("max_image_size: 900")
    with pytest.raises(InputError, match=r"--config and --preset"):
        command("--preset", "fast", "--config", str(tmp_path / "config.yaml")).configured()
    with pytest.raises(InputError, match="config and preset"):
        reconstruct(tmp_path, tmp_path / "out", PipelineConfig(), preset="fast")


def test_a_misspelt_preset_is_one_line(tmp_path: Path):
    with pytest.raises(InputError, match="did you mean fast"):
        command("--preset", "fats")
    with pytest.raises(InputError, match="did you mean 'fast'"):
        reconstruct(tmp_path, tmp_path / "out", preset="fats")
