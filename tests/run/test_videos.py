"""Videos among what a run is given."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from anchorsfm.cli.main import main
from anchorsfm.io.images import load_image_set
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.folder import RunFolder
from anchorsfm.run.videos import with_frames
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.progress import SILENT
from anchorsfm.synthetic import SceneConfig, make_scene, render_image, write_photographs
from anchorsfm.video.config import VideoConfig
from said import Said
from stopped_run import images_of_run
from video_files import panned, write_video

CONFIG = PipelineConfig(video=VideoConfig(step=0.2))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "walk.mp4", panned(np.linspace(0, 480, 61)))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "photos"
    write_photographs(make_scene(SceneConfig(num_images=2, size_wh=(96, 64))), folder)
    return folder / "images"


def test_a_video_becomes_photographs(video: Path, tmp_path: Path) -> None:
    images = images_of_run(video, tmp_path / "out", CONFIG)
    assert images.root == tmp_path / "out" / "frames" / "walk" and images.num_cameras == 1
    assert images.num_images == pytest.approx(11, abs=1) and list(images.names) == sorted(images.names)
    before = {path: path.stat().st_mtime_ns for path in images.root.iterdir()}
    again = images_of_run(video, tmp_path / "out", CONFIG)
    assert again.digests == images.digests
    assert {path: path.stat().st_mtime_ns for path in images.root.iterdir()} == before


def test_the_output_may_be_named_from_the_working_folder(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert images_of_run(video, Path("out"), CONFIG).num_images == pytest.approx(11, abs=1)
    folder = RunFolder(Path("out"))
    with_frames(video, CONFIG, folder, SILENT)
    with folder.begin(CONFIG):
        folder.publish()
    assert len(list(Path("out/frames/walk").iterdir())) == pytest.approx(11, abs=1)


def test_videos_and_photographs_together(video: Path, photographs: Path, tmp_path: Path) -> None:
    other = write_video(tmp_path / "turn.mkv", panned(np.linspace(0, 200, 31)))
    images = images_of_run([video, photographs, other], tmp_path / "out", CONFIG)
    folders = [images.path(k).parent.name for k in range(images.num_images)]
    assert set(folders) == {"images", "walk", "turn"} and folders[:2] == ["images", "images"]
    cameras = {name: {int(images.camera_index[k]) for k, f in enumerate(folders) if f == name} for name in set(folders)}
    assert all(len(camera) == 1 for camera in cameras.values()) and len(set.union(*cameras.values())) == 3


def test_photographs_alone_are_left_as_they_are(photographs: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "out")
    for source in (photographs, [photographs / "0000.jpg", photographs / "0001.jpg"]):
        assert with_frames(source, CONFIG, folder, SILENT) == (source, ())
    assert not (tmp_path / "out").exists()


def test_what_is_passed_over_in_a_folder_is_one_warning(photographs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photographs, folder)
    (folder / "walk.mp4").touch()
    said = Said()
    source, _ = with_frames(folder, PipelineConfig(), RunFolder(tmp_path / "out", said), said)
    assert source == folder and len(said.warnings) == 1
    assert said.warnings[0].startswith(f"not taken from {folder}: 1 x .mp4; name videos themselves")


def test_several_folders_and_lists(photographs: Path, tmp_path: Path) -> None:
    listed = tmp_path / "more.txt"
    listed.write_text(str(photographs / "0001.jpg"))
    single = photographs / "0000.jpg"
    assert load_image_set([single, listed]).names == ("0000.jpg", "0001.jpg")
    assert load_image_set([photographs]).num_images == 2
    with pytest.raises(InputError, match=r"0000\.jpg is listed more than once"):
        load_image_set([photographs, single])


def test_frames_of_a_former_choice_go_with_its_result(video: Path, tmp_path: Path) -> None:
    """Until a run has a result the former one keeps its photographs."""
    output = tmp_path / "out"

    def run(config: PipelineConfig, *, publishes: bool) -> set[str]:
        folder = RunFolder(output)
        _, (chosen,) = with_frames(video, config, folder, SILENT)
        with folder.begin(config):
            if publishes:
                folder.publish()
        return set(chosen.names)

    first = run(CONFIG, publishes=True)
    (output / "frames" / "walk" / "mine.txt").write_text("mine")
    second = run(PipelineConfig(video=VideoConfig(step=0.11)), publishes=False)
    there = {path.name for path in (output / "frames" / "walk").glob("*.jpg")}
    assert there == first | second and second - first and first - second
    assert run(PipelineConfig(video=VideoConfig(step=0.11)), publishes=True) == second
    assert {path.name for path in (output / "frames" / "walk").glob("*.jpg")} == second
    folder = RunFolder(output)  # a run of photographs
    with folder.begin(CONFIG):
        folder.publish()
    assert [path.name for path in (output / "frames").rglob("*") if path.is_file()] == ["mine.txt"]


def test_a_rendered_walk_is_reconstructed(tmp_path: Path) -> None:
    scene = make_scene(SceneConfig(num_images=4, size_wh=(320, 240)))
    held = (render_image(scene, k) for k in range(4) for _ in range(8))
    path = write_video(tmp_path / "clip.mp4", held)
    command = ["reconstruct", str(path), "-o", str(tmp_path / "out"), "--no-dense", "--mapper", "tracks", "--quiet"]
    main([*command, "--video.step", "0.03"])
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    (chosen,) = report["videos"]
    assert chosen["decoded"] == 32 and len(report["images"]) == len(chosen["names"]) == 4
    assert report["models"][0]["registered"] == len(report["images"])
    assert "clip.mp4" in (tmp_path / "out" / "report.html").read_text()


def failing(capsys, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str:
    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr("anchorsfm.process.leave", leave)
    with pytest.raises(SystemExit, match="2"):
        main([str(argument) for argument in arguments])
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_what_is_no_video_is_one_line(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad.mp4").write_bytes(bytes(range(256)) * 9)
    for command in ("reconstruct", "frames"):
        line = failing(capsys, monkeypatch, command, tmp_path / "bad.mp4", "-o", tmp_path / "out")
        assert "bad.mp4: not a video that FFmpeg reads" in line
    assert not (tmp_path / "out").exists()
    line = failing(capsys, monkeypatch, "frames", tmp_path / "bad.mp4", "-o", tmp_path / "out", "--frames", 1)
    assert "--frames 1: must be" in line or "--video.frames 1: must be" in line


def test_frames_are_not_put_among_results(video: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path / "out")
    with folder.begin(CONFIG):
        folder.publish()
    assert "holds results of another command" in failing(capsys, monkeypatch, "frames", video, "-o", tmp_path / "out")


def test_frames_by_themselves(video: Path, tmp_path: Path, capsys) -> None:
    main(["frames", str(video), "--output", str(tmp_path / "frames"), "--frames", "4", "--quiet"])
    assert "walk.mp4: 4 of 61 frames in 2.0 s" in capsys.readouterr().out
    images = images_of_run(tmp_path / "frames", tmp_path / "out", CONFIG)
    assert images.num_images == 4 and images.num_cameras == 1
