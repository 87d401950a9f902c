"""Finished models and runs read back: what belongs to which, and where photographs are looked for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import anchorsfm
from anchorsfm.colmap.write import write_model, write_models
from anchorsfm.io.layout import Layout
from anchorsfm.results.errors import write_errors
from anchorsfm.results.model import read_models
from anchorsfm.results.run import run_of
from anchorsfm.scene.errors import InputError
from anchorsfm.tracks.error_modes import ErrorModes
from viewer_scene import coloured_model, names_of, write_output


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """OUT with one model, its alignment, and an undistorted copy in OUT/export."""
    model = coloured_model()
    folder = write_output(tmp_path / "out", [model])
    write_models(folder / "alignment", [model], names_of(model))
    copy = folder / "export" / "undistorted"
    write_models(copy / "sparse", [model], names_of(model))
    (copy / "images").mkdir()
    (copy / "images" / names_of(model)[0]).write_bytes(b"")
    return folder


def test_everything_belongs_to_a_model_of_the_run(output: Path) -> None:
    for folder in (output, output / "sparse", output / "sparse" / "0"):
        (stored,) = read_models(folder)
        assert stored.is_result and stored.cloud_file == output / "dense" / "0.ply"
        assert len(stored.read_cloud().xyz) == len(stored.model.points)
        assert stored.precision["photo 0.jpg"].weak and stored.image_root == output.parent / "photographs"


def test_what_errors_cameras_have_together_is_theirs_by_name(output: Path) -> None:
    (stored,) = read_models(output)
    assert stored.errors is None, "results of earlier versions say nothing"
    rng, count = np.random.default_rng(0), len(stored.names)
    params = rng.standard_normal((2, sum(len(camera.params) for camera in stored.model.cameras)))
    rotation, position = rng.standard_normal((2, 2, count, 3))
    path, order = Layout(output).errors(0), rng.permutation(count)
    modes = ErrorModes(rotation=rotation[:, order], position=position[:, order], params=params)
    write_errors(path, modes, [stored.view_names[k] for k in order])
    found = read_models(output)[0].errors
    assert found is not None
    np.testing.assert_allclose(found.poses, np.concatenate([rotation, position], axis=2), rtol=1e-6)
    np.testing.assert_allclose(found.params, params, rtol=1e-6)
    assert read_models(output / "alignment")[0].errors is None

    write_errors(path, modes, [f"{name}x" for name in stored.view_names])
    assert read_models(output)[0].errors is None, "of another model"
    write_errors(path, replace(modes, params=params[:, :1]), [stored.view_names[k] for k in order])
    assert read_models(output)[0].errors is None, "of other cameras"


def test_neither_cloud_nor_precision_belong_to_an_alignment_in_another_frame(output: Path) -> None:
    (stored,) = read_models(output / "alignment")
    assert not stored.is_result and stored.cloud_file is None and stored.precision == {}
    assert stored.run.root == output and stored.image_root == output.parent / "photographs"
    assert anchorsfm.load(output / "alignment").dense_cloud is None


def test_a_copy_in_an_output_folder_has_photographs_of_its_own(output: Path) -> None:
    copy = output / "export" / "undistorted"
    (stored,) = read_models(copy)
    assert stored.image_root == copy / "images" and not stored.precision
    assert run_of(output / "export" / "colmap-text").root == output


def test_photographs_beside_the_model_serve_if_those_on_record_are_gone(output: Path) -> None:
    beside = output / "images"
    beside.mkdir()
    assert read_models(output)[0].image_root == output.parent / "photographs"
    (output.parent / "photographs").rename(output.parent / "elsewhere")
    assert read_models(output)[0].image_root == output.parent / "photographs", "nothing better is known"
    (beside / "photo 3.jpg").write_bytes(b"")
    assert read_models(output)[0].image_root == beside


def test_a_report_that_cannot_be_read_is_an_error_where_it_is_needed(output: Path) -> None:
    (output / "report.json").write_text("{")
    (stored,) = read_models(output)
    assert stored.precision["photo 0.jpg"].weak, "uncertainty.json is whole"
    for part in ("report", "recorded_image_root"):
        with pytest.raises(InputError, match=r"report\.json"):
            getattr(stored.run, part)
    with pytest.raises(InputError, match=r"report\.json"):
        _ = stored.image_root
    loaded = anchorsfm.load(output)
    assert loaded.photographs is None and "report.json" in loaded.warnings[0] and loaded.dense_cloud is not None


def test_models_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    model = coloured_model(num_points=20)
    for name in ("10", "2", "0", "other"):
        write_model(tmp_path / "sparse" / name, model, names_of(model))
    stored = read_models(tmp_path)
    assert [entry.title for entry in stored] == ["0", "2", "10", "other"]
    assert [(entry.number, entry.recorded_number) for entry in stored] == [(0, 0), (1, 2), (2, 10), (3, 3)]
