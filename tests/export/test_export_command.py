"""Exports from the command line, in processes of their own."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from anchorsfm.export.config import ExportConfig, ExportFormat
from anchorsfm.export.run import export
from anchorsfm.io.owned import OwnedFolder
from anchorsfm.io.store import to_json
from anchorsfm.scene.errors import AnchorSfMError, InputError, StorageError
from command import QUICK, anchorsfm, assert_one_clear_line
from dataset_readers import read_graphdeco, read_transforms
from export_scene import ExportScene, write_export_scene
from unix import full_disk


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> ExportScene:
    """What a finished run leaves behind, as far as exports read it."""
    scene = write_export_scene(tmp_path_factory.mktemp("command"))
    (scene.folder / "report.json").write_text(to_json({"image_root": scene.folder / "images"}))
    return scene


def test_export_writes_every_format_beside_the_model(finished: ExportScene) -> None:
    result = anchorsfm("export", finished.folder, "--to", "undistorted", "transforms", "glb", "ply", "--quiet")
    assert result.returncode == 0, result.stderr
    assert f"glb: {finished.folder / 'export' / 'glb'}" in result.stdout
    assert len(read_graphdeco(finished.folder / "export" / "undistorted")[0]) == 3
    assert len(read_transforms(finished.folder / "export" / "transforms")[1]) == 3
    from_model = anchorsfm("export", finished.folder / "sparse" / "0", "--to", "tum", "database")
    assert from_model.returncode == 0 and (finished.folder / "export" / "database" / "database.db").is_file()
    assert not list(finished.folder.rglob(".anchorsfm-*"))


def test_a_users_faults_are_one_line(finished: ExportScene, tmp_path: Path) -> None:
    model, out = finished.folder, ("-o", tmp_path / "out")
    assert_one_clear_line(anchorsfm("export", tmp_path / "nowhere", "--to", "ply", *out), "nowhere")
    moved = tmp_path / "moved"
    shutil.copytree(model / "sparse", moved / "sparse")
    (moved / "report.json").write_text(json.dumps({"image_root": str(tmp_path / "gone")}))
    gone = anchorsfm("export", moved, "--to", "undistorted", *out)
    assert_one_clear_line(gone, "3 of 3 photographs", str(tmp_path / "gone"), "--images")
    unknown = anchorsfm("export", model, "--to", "obj", *out)
    assert unknown.returncode == 2 and "Traceback" not in unknown.stderr


def test_faults_name_the_file_or_option(finished: ExportScene, tmp_path: Path) -> None:
    model = finished.folder
    (tmp_path / "file").write_text("")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "report.json").write_text("{")
    shutil.copytree(model / "sparse", tmp_path / "broken" / "sparse")
    for words, folder, output, config in (
        (str(tmp_path), tmp_path / "empty", tmp_path / "out", ExportConfig()),
        ("file", model, tmp_path / "file", ExportConfig()),
        ("--images .*none", model, tmp_path, ExportConfig(images=tmp_path / "none")),
        ("--masks .*none", model, tmp_path, ExportConfig(masks=tmp_path / "none")),
        ("report.json.*--images", tmp_path / "broken", tmp_path, ExportConfig()),
    ):
        with pytest.raises(AnchorSfMError, match=words):
            export(folder, ["undistorted"], output, config)
    with pytest.raises(InputError, match="--to"):
        export(model, [], tmp_path)


def test_a_full_disk_is_said_and_the_export_continues(
    finished: ExportScene, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    kinds: tuple[ExportFormat, ...] = ("undistorted", "colmap-binary", "database", "glb", "transforms")
    for kind in kinds:
        with full_disk(8_000), pytest.raises(StorageError, match=str(tmp_path / kind)):
            export(finished.folder, [kind], tmp_path)
    assert capfd.readouterr().err == "", "nothing but our own message"
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".bin", ".db", ".glb")]
    assert not (tmp_path / "transforms" / "transforms.json").exists()
    for picture in tmp_path.rglob("*.png"):
        Image.open(picture).load()  # those that found room are complete
    export(finished.folder, kinds, tmp_path)
    assert len(read_graphdeco(tmp_path / "undistorted")[0]) == 3


def test_reconstruct_exports_and_keeps_the_model_when_that_fails(rendered: Path, tmp_path: Path) -> None:
    images, output = tmp_path / "photos", tmp_path / "out"
    images.mkdir()
    for name in ("0001.jpg", "0002.jpg", "0003.jpg"):
        shutil.copy(rendered / "images" / name, images)
    OwnedFolder(output).claim()
    (output / "export").mkdir()
    (output / "export" / "glb").write_text("in the way")
    arguments = ("reconstruct", images, "-o", output, "--no-dense", "--quiet", *QUICK, "--export", "undistorted", "glb")
    failed = anchorsfm(*arguments)
    assert_one_clear_line(failed, str(output / "export" / "glb"))
    assert "registered" in failed.stdout and (output / "sparse" / "0" / "images.bin").is_file()
    assert len(read_graphdeco(output / "export" / "undistorted")[0]) == 3
