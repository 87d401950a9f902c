"""The output folder of a run: whose it may be, and what becomes of an earlier result."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anchorsfm.demo import run_demo
from anchorsfm.export.run import export
from anchorsfm.io.images import load_image_set
from anchorsfm.io.listing import frames_not_taken
from anchorsfm.io.owned import OwnedFolder, is_ours
from anchorsfm.pipeline import reconstruct
from anchorsfm.report.folder import make_page
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.folder import RunFolder
from anchorsfm.scene.errors import AnchorSfMError, InputError, NoReconstructionError, StorageError
from export_scene import write_export_scene
from report_scene import ring_model
from snapshot import snapshot


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A COLMAP project of a user, with everything our names could collide with."""
    root = tmp_path / "project"
    write_export_scene(root, size_wh=(80, 60))
    for name in ("sparse/my_notes.txt", "sparse/0/project.ini", "dense/fused.ply", "dense/0.ply", "alignment/0/x",
                 "database.db", "config.yaml", "report.html", "uncertainty.json", "photos/images/0000.jpg",
                 "photos/truth.json", "failed/report.json", "export/glb/model.glb", "cache/mine"):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"the user's {name}")
    return root


@pytest.mark.parametrize(
    "command",
    [
        lambda p: reconstruct(p / "images", p, PipelineConfig(dense=False)),
        lambda p: reconstruct(p, p, PipelineConfig(dense=False)),
        lambda p: run_demo(p, num_images=2),
        lambda p: make_page(p),
        lambda p: export(p, ["glb"]),
    ],
    ids=["reconstruct", "photographs as output", "demo", "report", "export"],
)
def test_the_project_of_a_user_is_not_touched(project: Path, command: Callable[[Path], object]) -> None:
    before = snapshot(project, without=())
    with pytest.raises(AnchorSfMError) as raised:
        command(project)
    assert len(str(raised.value).splitlines()) == 1
    after = snapshot(project, without=())
    assert {name: content for name, content in after.items() if ".anchorsfm" not in name} == before
    assert not is_ours(project)


def finish_run(output: Path, number: int, *, fail: bool = False) -> None:
    """A run that ends with a model of so many views, without the stages before."""
    folder = RunFolder(output)
    folder.require_ready(dense=True, database=False)
    with folder.begin({"views": number}):
        names = [f"{k}.jpg" for k in range(number)]
        folder.write_models([ring_model(number, 60)] * (number - 2), names)
        folder.write_uncertainty([])
        (folder.result / "report.json").write_text(f"report of {number}")
        (folder.result / "report.html").write_text(f"page of {number}")
        if fail:
            folder.publish_failure()
        else:
            folder.publish()


def test_a_file_of_somebody_where_descriptors_will_be_ends_a_run_before_its_work(tmp_path: Path) -> None:
    finish_run(tmp_path / "out", 3)
    theirs = tmp_path / "out" / "localisation" / "0.safetensors"
    theirs.parent.mkdir()
    theirs.write_text("mine")
    folder = RunFolder(tmp_path / "out")
    folder.require_ready(dense=False, database=False)
    with pytest.raises(StorageError, match=r"0\.safetensors"):
        folder.require_ready(dense=False, database=False, descriptors=True)


def test_a_smaller_result_leaves_nothing_of_a_larger_one_but_the_users_files(tmp_path: Path) -> None:
    finish_run(tmp_path / "out", 4)
    assert (tmp_path / "out" / "sparse" / "1" / "images.bin").exists()
    (tmp_path / "out" / "sparse" / "1" / "mine.ply").write_text("mine")
    (tmp_path / "out" / "sparse" / "my_notes.txt").write_text("mine")
    finish_run(tmp_path / "out", 3)
    finish_run(tmp_path / "fresh", 3)
    fresh = snapshot(tmp_path / "fresh")
    assert snapshot(tmp_path / "out") == fresh | {"sparse/1/mine.ply": b"mine", "sparse/my_notes.txt": b"mine"}


def test_a_run_without_a_model_lies_beside_the_earlier_result_until_the_next(tmp_path: Path) -> None:
    finish_run(tmp_path, 4)
    before = snapshot(tmp_path)
    finish_run(tmp_path, 3, fail=True)
    after = snapshot(tmp_path)
    extra = {name: after.pop(name) for name in sorted(set(after) - set(before))}
    assert after == before
    assert sorted(extra) == ["failed/config.yaml", "failed/report.html", "failed/report.json"]
    finish_run(tmp_path, 3)
    assert not (tmp_path / "failed").exists()


def test_settings_that_the_user_edited_are_kept(tmp_path: Path) -> None:
    finish_run(tmp_path, 3)
    (tmp_path / "config.yaml").write_text("edited")
    before = snapshot(tmp_path)
    with pytest.raises(StorageError, match=r"config\.yaml was changed after"):
        finish_run(tmp_path, 4)
    assert snapshot(tmp_path) == before


def test_a_file_that_is_edited_during_a_run_is_kept_and_nothing_is_published(tmp_path: Path) -> None:
    finish_run(tmp_path, 3)
    folder = RunFolder(tmp_path)
    with pytest.raises(StorageError, match="changed after"), folder.begin({}):
        (tmp_path / "report.json").write_text("edited")
        before = snapshot(tmp_path)
        folder.publish()
    assert snapshot(tmp_path) == before and not list((tmp_path / ".anchorsfm").glob("staging-*"))


def test_a_folder_with_nothing_but_a_cache_is_taken(tmp_path: Path) -> None:
    (tmp_path / "cache" / "kind").mkdir(parents=True)
    finish_run(tmp_path, 3)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "cache").symlink_to(tmp_path / "cache")
    with pytest.raises(StorageError, match="is a link"):
        finish_run(tmp_path / "linked", 3)


def photograph(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (60, 80, 3), np.uint8)).save(path)


def test_our_results_are_no_photographs(tmp_path: Path) -> None:
    """An output folder among the photographs, an export beside them, and a link to either."""
    photos = tmp_path / "photos"
    for k in range(2):
        photograph(photos / f"{k}.png", k)
    for place in (photos / "out", photos / "mine" / "undistorted", tmp_path / "elsewhere"):
        OwnedFolder(place).claim()
        photograph(place / "images" / "copy.png")
    (photos / "link").symlink_to(tmp_path / "elsewhere")
    assert load_image_set(photos).names == ("0.png", "1.png")
    with pytest.raises(InputError, match="results of this program"):
        load_image_set(photos / "out")
    assert load_image_set(photos / "out" / "images").names == ("copy.png",), "whoever names them means them"


def test_frames_that_we_wrote_are_taken_where_they_are_named(tmp_path: Path) -> None:
    """Those in the folder of the photographs displace none of them."""
    photos = tmp_path / "photos"
    photograph(photos / "0.png")
    frames = photos / "frames"
    OwnedFolder(frames).claim()
    (frames / "frames.json").write_text("{}")
    photograph(frames / "walk" / "walk_00000.000.png")
    assert load_image_set(photos).names == ("0.png",)
    said = frames_not_taken([photos])
    assert said == f"not taken: frames of videos in {frames}; to use them, name that folder too"
    assert load_image_set(frames).names == ("walk/walk_00000.000.png",) and frames_not_taken([frames]) is None
    (tmp_path / "link").symlink_to(frames)
    for both in ([photos, frames], [photos, tmp_path / "link"], [photos, frames / "walk"]):
        assert load_image_set(both).num_images == 2 and frames_not_taken(both) is None
    (photos / "0.png").unlink()
    with pytest.raises(InputError, match=f"no images in {photos} but frames of videos in {frames}: name that folder"):
        load_image_set(photos)


def test_photographs_in_the_output_folder_are_refused(tmp_path: Path) -> None:
    OwnedFolder(tmp_path / "out").claim()
    for k in range(2):
        photograph(tmp_path / "out" / "images" / f"{k}.png", k)
    (tmp_path / "list.txt").write_text("out/images/0.png\nout/images/1.png\n")
    (tmp_path / "link").symlink_to(tmp_path / "out" / "images")
    files = [tmp_path / "out" / "images" / f"{k}.png" for k in range(2)]
    for source in (tmp_path / "out", tmp_path / "out" / "images", tmp_path / "list.txt", tmp_path / "link", files):
        with pytest.raises(InputError, match="lies in the output folder"):
            reconstruct(source, tmp_path / "out")


def no_photographs(folder: Path, what: str) -> Path | list[Path]:
    """Something that nothing can be made from."""
    folder.mkdir()
    (folder / "notes.txt").write_text("no picture")
    match what:
        case "not there":
            return folder / "missing"
        case "a file that is not there":
            return [folder / "missing.jpg"]
        case "a folder without images":
            return folder
        case "a list of nothing":
            (folder / "list.txt").write_text("# nothing\n")
            return folder / "list.txt"
        case "damaged images":
            (folder / "a.jpg").write_bytes(b"no picture")
            return folder
        case "one":
            photograph(folder / "0.png")
            return folder
    raise AssertionError(what)


WHAT = [
    "not there",
    "a file that is not there",
    "a folder without images",
    "a list of nothing",
    "damaged images",
    "one",
]


@pytest.mark.parametrize("what", WHAT)
def test_a_wrong_path_of_photographs_leaves_nothing_behind(tmp_path: Path, what: str) -> None:
    source = no_photographs(tmp_path / "photos", what)
    before = snapshot(tmp_path, without=())
    with pytest.raises(InputError):
        reconstruct(source, tmp_path / "new" / "out", PipelineConfig(dense=False))
    assert snapshot(tmp_path, without=()) == before and not (tmp_path / "new").exists()


def test_an_output_that_cannot_be_written_is_known_before_photographs_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file is not a folder; choose another --output"):
        reconstruct(tmp_path / "missing", tmp_path / "file" / "out")
    (tmp_path / "locked").mkdir()
    monkeypatch.setattr("os.access", lambda *_: False)  # whoever runs the tests may be allowed everything
    with pytest.raises(StorageError, match=r"locked is not writable; choose another --output"):
        reconstruct(tmp_path / "missing", tmp_path / "locked" / "out")


def test_an_output_among_the_photographs_gives_the_same_twice(tmp_path: Path) -> None:
    for k in range(2):
        photograph(tmp_path / f"{k}.png", k)
    for _ in range(2):
        with pytest.raises(NoReconstructionError, match=r"the 2 images .*out/failed/report\.html"):
            reconstruct(tmp_path, tmp_path / "out", PipelineConfig(dense=False))


def test_a_demo_replaces_its_own_photographs_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped(Exception):
        pass

    def stop(*_):
        raise Stopped

    def write_one(scene, folder, progress):
        photograph(folder / "images" / "0000.jpg", scene.config.seed)
        (folder / "truth.json").write_text("{}")

    monkeypatch.setattr("anchorsfm.demo.write_photographs", write_one)
    monkeypatch.setattr("anchorsfm.demo.reconstruct", stop)
    for seed in (0, 1):
        with pytest.raises(Stopped):
            run_demo(tmp_path, num_images=2, seed=seed)
    (tmp_path / "photos" / "images" / "0000.jpg").write_text("mine")
    with pytest.raises(StorageError, match=r"0000\.jpg was changed"):
        run_demo(tmp_path, num_images=2)
    assert (tmp_path / "photos" / "images" / "0000.jpg").read_text() == "mine"
