"""New photographs in a finished model: right poses, refusals with reasons, and what is written."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import anchorsfm
from anchorsfm.cli.main import main
from anchorsfm.cli.parsing import parse
from anchorsfm.cli.wording import in_words
from anchorsfm.colmap.models import read_reconstruction
from anchorsfm.colmap.write import write_models
from anchorsfm.evaluation.sources import read_truth
from anchorsfm.features.base import Detector
from anchorsfm.features.config import FeatureConfig
from anchorsfm.features.methods import make_detector
from anchorsfm.geometry.transforms import camera_centres, fit_similarity, rotation_angle_deg
from anchorsfm.io.owned import OwnedFolder
from anchorsfm.localisation import looks
from anchorsfm.localisation.config import LocaliseConfig
from anchorsfm.localisation.model_errors import ModelErrors
from anchorsfm.localisation.preparation import prepare
from anchorsfm.localisation.run import localise, read_localisable
from anchorsfm.results.model import read_models
from anchorsfm.scene.edit import select_points, select_views, with_tracks
from anchorsfm.scene.errors import InputError, StorageError
from anchorsfm.scene.progress import SILENT, RecordingProgress
from anchorsfm.synthetic import SceneConfig, make_scene, write_photographs
from anchorsfm.terminal import Terminal
from geotags import geotagged
from snapshot import snapshot


@pytest.fixture(scope="module")
def scene(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a model of four photographs (out), the fifth (new), and one of another scene (other)."""
    folder = tmp_path_factory.mktemp("localisation")
    names = sorted(path.name for path in (rendered / "images").iterdir())
    for k, name in enumerate(names):
        target = folder / ("new" if k == 2 else "old") / name
        target.parent.mkdir(exist_ok=True)
        shutil.copy(rendered / "images" / name, target)
    shutil.copy(rendered / "truth.json", folder)
    anchorsfm.reconstruct(folder / "old", folder / "out", mapper="tracks", dense=False)
    shutil.rmtree(folder / "old")
    shutil.rmtree(folder / "out" / "cache")
    write_photographs(make_scene(SceneConfig(num_images=2, size_wh=(480, 360), arc_deg=10.0, seed=11)), folder / "two")
    (folder / "other").mkdir()
    shutil.copy(sorted((folder / "two" / "images").iterdir())[0], folder / "other" / "elsewhere.png")
    return folder


def photograph(scene: Path) -> Path:
    return next((scene / "new").iterdir())


def errors(scene: Path, name: str, cam_from_world: np.ndarray) -> tuple[float, float]:
    """Position as a share of the distance between the outermost cameras, and rotation in degrees."""
    truth, stored = read_truth(scene / "truth.json"), read_models(scene / "out")[0]
    pose_of = dict(zip(truth.names, truth.cam_from_world, strict=True))
    own = np.array([pose_of[view] for view in stored.view_names])
    scale, pose = fit_similarity(camera_centres(stored.model.cam_from_world), camera_centres(own))
    centre = scale * (pose[:, :3] @ camera_centres(cam_from_world)) + pose[:, 3]
    size = np.ptp(camera_centres(truth.cam_from_world), axis=0).max()
    rotation = cam_from_world[:, :3] @ pose[:, :3].T @ pose_of[name][:, :3].T
    position = np.linalg.norm(centre - camera_centres(pose_of[name]))
    return float(position / size), float(rotation_angle_deg(rotation[None])[0])


def test_a_left_out_photograph_is_placed_without_the_old_ones(scene: Path, tmp_path: Path) -> None:
    found = anchorsfm.localise(photograph(scene), scene / "out", tmp_path / "poses")
    name = photograph(scene).name
    image = found.placed[name]
    assert not found.refused and image.focal_source == "model"
    position, rotation = errors(scene, name, image.cam_from_world)
    assert position < 0.004 and rotation < 0.25
    assert image.num_inliers > 100 and image.num_inliers > 0.5 * image.num_matches
    assert 0 < image.position_deviation < 0.01 and 0 < image.rotation_deviation_deg < 0.2

    model = anchorsfm.load(tmp_path / "poses")
    assert list(model.poses) == [name]
    record = json.loads((tmp_path / "poses" / "poses.json").read_text())
    (entry,) = record["images"]
    assert entry["status"] == "placed" and record["num_placed"] == 1
    np.testing.assert_allclose(entry["cam_from_world"], image.cam_from_world)
    line = (tmp_path / "poses" / "poses.txt").read_text().splitlines()[1].split()
    np.testing.assert_allclose([float(x) for x in line[1:4]], entry["centre"], atol=1e-9)
    assert (tmp_path / "poses" / "names.txt").read_text().split() == [name]

    assert image.covariance is not None
    deviation = np.sqrt(np.diag(image.covariance))
    np.testing.assert_allclose(entry["covariance"], image.covariance)
    np.testing.assert_allclose(entry["position_deviation_axes"], deviation[3:])
    np.testing.assert_allclose(entry["rotation_deviation_axes_deg"], np.degrees(deviation[:3]))
    assert np.linalg.norm(entry["position_deviation_axes"]) == pytest.approx(entry["position_deviation"])
    said = (tmp_path / "poses" / "deviations.txt").read_text().splitlines()[1].split()
    assert said[0] == (tmp_path / "poses" / "poses.txt").read_text().splitlines()[1].split()[0]
    expected = [*entry["position_deviation_axes"], *entry["rotation_deviation_axes_deg"]]
    np.testing.assert_allclose([float(x) for x in said[1:]], expected, rtol=1e-5)


def test_deviations_cover_the_error_of_repeated_noise(scene: Path) -> None:
    """Poses from halves of the points differ by what their deviations say, within a factor."""
    from anchorsfm.localisation.pose import CameraGuess, PlacedView, place

    image = anchorsfm.localise(photograph(scene), scene / "out").images[0]
    points, rng = read_models(scene / "out")[0].model.points[image.point], np.random.default_rng(0)
    guess = CameraGuess.exact(image.camera, "model")
    ratios = []
    for _ in range(8):
        order = rng.permutation(len(points))
        halves = [place(image.xy_px[rows], points[rows], [guess], min_inliers=12) for rows in np.array_split(order, 2)]
        assert all(isinstance(half, PlacedView) for half in halves)
        a, b = halves
        apart = np.linalg.norm(camera_centres(a.cam_from_world) - camera_centres(b.cam_from_world))
        ratios.append(apart / np.hypot(a.position_deviation, b.position_deviation))
    assert 0.3 < np.sqrt(np.mean(np.square(ratios))) < 2.5


def test_deviations_contain_what_the_cameras_that_see_the_same_points_may_be_off(scene: Path, tmp_path: Path) -> None:
    """What errors they have together, where it is known; of results without it, what each says of itself."""
    image = anchorsfm.localise(photograph(scene), scene / "out").images[0]
    stored = read_localisable(scene / "out").stored
    assert image.has_model_errors and stored.errors is not None
    typical = np.median([pose.position for pose in stored.precision.values()])
    assert 0.5 * typical < image.position_deviation < 3 * typical
    folder = shutil.copytree(scene / "out", tmp_path / "out")
    shutil.rmtree(folder / "errors")
    before = anchorsfm.localise(photograph(scene), folder).images[0]
    model, said = stored.model, [stored.precision[name] for name in stored.view_names]
    shown = np.isin(model.tracks.obs_point, image.point)
    count = [int((shown & (model.tracks.obs_image == k)).sum()) for k in model.image_index]
    of_model = np.sqrt(np.average([pose.position**2 for pose in said], weights=count))
    assert before.has_model_errors and of_model < before.position_deviation < 3 * of_model
    turned = np.sqrt(np.average([pose.rotation_deg**2 for pose in said], weights=count))
    assert turned < before.rotation_deviation_deg < 3 * turned

    errors = ModelErrors.of(stored)
    known = replace(errors, position=np.array([np.nan, 3.0, 4.0, np.nan]), rotation_deg=np.array([1.0, 3.0, 4.0, 9.0]))
    point = model.tracks.obs_point
    pair = np.intersect1d(point[errors.view == 1], point[errors.view == 2])[:7]
    assert known.deviations(pair) == pytest.approx((np.sqrt(12.5), np.sqrt(12.5)))
    assert replace(known, position=np.full(4, np.nan)).deviations(pair) is None
    by_first = np.setdiff1d(point[errors.view == 1], point[errors.view == 2])[:14]
    mixed = np.sqrt((21 * 3.0**2 + 7 * 4.0**2) / 28)
    assert known.deviations(np.concatenate([pair, by_first])) == pytest.approx((mixed, mixed)), "by number of points"


@pytest.mark.parametrize("size_wh", [(384, 288), (480, 360)])
def test_focal_lengths_that_nothing_tells_are_estimated(scene: Path, tmp_path: Path, size_wh: tuple[int, int]) -> None:
    """Another picture size has another camera; where the size is the same, the user may still say what it is."""
    name, given = photograph(scene).name, size_wh == (480, 360)
    with Image.open(photograph(scene)) as picture:
        picture.resize(size_wh, Image.Resampling.LANCZOS).save(tmp_path / name)
    focal = read_models(scene / "out")[0].model.cameras[0].params[0]
    found = anchorsfm.localise(tmp_path / name, scene / "out", focal_px=focal if given else None)
    image = found.placed[name]
    position, rotation = errors(scene, name, image.cam_from_world)
    assert image.focal_source == ("given" if given else "estimated") and position < 0.02 and rotation < 0.3
    assert (image.focal_deviation_px == 0) == given
    assert image.camera.params[0] == pytest.approx(focal * size_wh[0] / 480, rel=0.02)


def test_the_focal_length_of_another_camera_is_what_it_recorded(scene: Path, tmp_path: Path) -> None:
    focal = 0.8 * read_models(scene / "out")[0].model.cameras[0].params[0]
    with Image.open(photograph(scene)) as picture:
        pixels = np.asarray(picture.convert("RGB").resize((384, 288), Image.Resampling.LANCZOS))
    geotagged(pixels, tmp_path / "a.jpg", None, focal_px=1.01 * focal)
    image = anchorsfm.localise(tmp_path / "a.jpg", scene / "out").placed["a.jpg"]
    assert image.focal_source == "EXIF" and 0 < image.focal_deviation_px < 0.02 * focal
    assert image.camera.params[0] == pytest.approx(focal, rel=0.01)


def test_a_photograph_that_can_no_longer_be_read_is_refused_and_the_others_are_placed(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keypoints are found as those of the model were, the clear ones first."""
    shutil.copy(photograph(scene), tmp_path / "b.png")
    with Image.open(photograph(scene)) as picture:
        picture.transpose(Image.Transpose.ROTATE_180).save(tmp_path / "a.png")

    def detector_of(config: FeatureConfig) -> Detector:
        of_model = read_localisable(scene / "out").index.settings.features
        assert config.contrast_threshold >= of_model.contrast_threshold
        assert replace(config, contrast_threshold=of_model.contrast_threshold) == of_model
        (tmp_path / "a.png").unlink(missing_ok=True)  # all files have been looked at by now
        return make_detector(config)

    monkeypatch.setattr(looks, "make_detector", detector_of)
    found = anchorsfm.localise([tmp_path / "a.png", tmp_path / "b.png"], scene / "out")
    assert list(found.placed) == ["b.png"] and "no such file" in found.refused["a.png"]


def test_frames_of_videos_that_are_not_taken_are_named(scene: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (photos / "frames").mkdir(parents=True)
    shutil.copy(photograph(scene), photos)
    OwnedFolder(photos / "frames").claim()
    (photos / "frames" / "frames.json").write_text("{}")
    progress = RecordingProgress(SILENT)
    model = read_localisable(scene / "out")
    found = localise(photos, model, LocaliseConfig(), progress)
    assert len(found.images) == 1
    assert any(f"frames of videos in {photos / 'frames'}" in line for line in progress.warnings)


def test_the_largest_model_counts(scene: Path, tmp_path: Path) -> None:
    """Of two the first, where both are as large."""
    copy = tmp_path / "out"
    shutil.copytree(scene / "out", copy)
    shutil.copytree(copy / "sparse" / "0", copy / "sparse" / "1")
    assert read_localisable(copy).stored.number == 0
    stored = read_models(scene / "out")[0]
    part = select_points(stored.model, stored.model.tracks.obs_image < stored.model.image_index[3])
    shutil.rmtree(copy / "sparse")
    write_models(copy / "sparse", [select_views(part, np.arange(3)), stored.model], stored.names)
    shutil.move(copy / "localisation" / "0.safetensors", copy / "localisation" / "1.safetensors")
    assert read_localisable(copy).stored.number == 1
    with pytest.raises(InputError, match="comes without the descriptors"):
        read_localisable(copy / "sparse" / "0")


def test_another_scene_and_a_corrupt_file_are_named(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(scene / "other", photos)
    shutil.copy(photograph(scene), photos)
    (photos / "broken.jpg").write_bytes(photograph(scene).read_bytes()[:300])
    main(["localise", str(photos), "--model", str(scene / "out"), "-o", str(tmp_path / "poses"), "--quiet"])
    shown = capsys.readouterr().out
    assert "placed 1 of 3 photographs" in shown
    assert "not placed: elsewhere.png" in shown and "not placed: broken.jpg" in shown
    record = json.loads((tmp_path / "poses" / "poses.json").read_text())
    reasons = {entry["name"]: entry.get("reason") for entry in record["images"]}
    assert reasons[photograph(scene).name] is None and all(reasons[n] for n in ("elsewhere.png", "broken.jpg"))
    assert list(anchorsfm.load(tmp_path / "poses").poses) == [photograph(scene).name]


def test_without_any_place_the_record_alone_is_written(scene: Path, tmp_path: Path) -> None:
    anchorsfm.localise(photograph(scene), scene / "out", tmp_path / "poses")
    found = anchorsfm.localise(scene / "other", scene / "out", tmp_path / "poses")
    assert set(found.refused) == {"elsewhere.png"} and not found.placed
    assert [path.name for path in (tmp_path / "poses").iterdir() if path.name != ".anchorsfm"] == ["poses.json"]


def test_results_of_others_are_not_replaced(scene: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "poses.json").write_text("mine")
    model = tmp_path / "model"
    shutil.copytree(scene / "out", model)
    for folder in (foreign, model):
        before = snapshot(folder, without=())
        with pytest.raises(StorageError, match=r"choose (another|a new folder)"):
            anchorsfm.localise(photograph(scene), scene / "out", folder)
        assert snapshot(folder, without=()) == before


def test_a_run_does_not_replace_what_was_localised(scene: Path, tmp_path: Path) -> None:
    anchorsfm.localise(photograph(scene), scene / "out", tmp_path / "placed")
    before = snapshot(tmp_path / "placed", without=())
    with pytest.raises(StorageError, match="holds results of another command"):
        anchorsfm.reconstruct(scene / "two" / "images", tmp_path / "placed", mapper="tracks", dense=False)
    assert snapshot(tmp_path / "placed", without=()) == before


def test_models_that_cannot_be_used_are_named(scene: Path, tmp_path: Path) -> None:
    photo = photograph(scene)
    with pytest.raises(InputError, match="no such folder"):
        anchorsfm.localise(photo, tmp_path / "nowhere")
    with pytest.raises(InputError, match="no COLMAP model"):
        anchorsfm.localise(photo, scene / "new")
    copy = tmp_path / "out"
    shutil.copytree(scene / "out", copy)
    index = copy / "localisation" / "0.safetensors"
    content = index.read_bytes()
    for damaged in (content[: len(content) // 2], content[:-1] + bytes([content[-1] ^ 1]), b"", b"text"):
        index.write_bytes(damaged)
        with pytest.raises(
            InputError, match=r"0\.safetensors is damaged: move it away, then make it anew with anchors"
        ):
            anchorsfm.localise(photo, copy)
    index.unlink()
    with pytest.raises(InputError, match="comes without the descriptors of its points: find them with anchorsfm index"):
        anchorsfm.localise(photo, copy)
    with pytest.raises(InputError, match=r"none\.jpg"):
        anchorsfm.localise(tmp_path / "none.jpg", scene / "out")


@pytest.mark.parametrize("is_output", [True, False])
def test_what_is_said_of_damaged_descriptors_helps(
    scene: Path, rendered: Path, tmp_path: Path, is_output: bool
) -> None:
    """Of those in an output folder, and beside another model: the file moved away, the command that is named works."""
    if is_output:
        folder = tmp_path / "out"
        shutil.copytree(scene / "out", folder)
    else:
        folder = tmp_path / "project"
        shutil.copytree(scene / "out" / "sparse" / "0", folder)
        prepare(folder, rendered / "images")
    (index,) = folder.rglob("*localisation/*.safetensors")
    index.write_bytes(index.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError) as raised:
        anchorsfm.localise(photograph(scene), folder)
    (_, command) = str(raised.value).split("is damaged: move it away, then make it anew with anchorsfm ")
    words = command.removesuffix(", where DIR has its photographs").replace("DIR", str(rendered / "images")).split()
    command = parse(words[0], [*words[1:], "--quiet"])
    with pytest.raises(StorageError, match=r"nothing was replaced; move it away$"):
        command.run(Terminal())
    index.rename(tmp_path / "away")
    command.run(Terminal())
    assert anchorsfm.localise(photograph(scene), folder).placed


def test_what_is_wrong_with_a_command_is_one_line(scene: Path, tmp_path: Path) -> None:
    model = ["--model", str(scene / "out"), "-o", str(tmp_path / "poses")]
    for words, message in (
        ([], "name the photographs"),
        ([str(photograph(scene)), "--min-inliers", "3"], "--min-inliers 3: must be from 12"),
        ([str(scene / "truth.json")], "not a supported kind of image"),
    ):
        with pytest.raises(InputError) as raised:
            parse("localise", [*words, *model]).run(Terminal())
        assert message in in_words(raised.value) and "\n" not in in_words(raised.value)
    assert not (tmp_path / "poses").exists()


def test_an_index_of_another_model_is_refused(scene: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    from anchorsfm.localisation.index import read_index, write_index

    copy = tmp_path / "out"
    shutil.copytree(scene / "out", copy)
    path = copy / "localisation" / "0.safetensors"
    index = read_index(path)
    assert index is not None
    others = (
        replace(index, num_points=index.num_points + 1),
        replace(index, start=np.append(index.start, index.start[-1])),
    )
    for other in others:
        write_index(path, other)
        with pytest.raises(InputError, match="belongs to another model"):
            read_localisable(copy)


def test_descriptors_are_not_kept_where_nobody_wants_them(tmp_path: Path, rendered: Path) -> None:
    from anchorsfm.frontend.classical import ClassicalFrontend
    from anchorsfm.io.images import load_image_set
    from anchorsfm.run.config import PipelineConfig
    from anchorsfm.run.folder import RunFolder
    from anchorsfm.run.localisation import keep_descriptors
    from anchorsfm.run.modelling import Finished
    from anchorsfm.scene.progress import SILENT
    from report_scene import ring_model

    images, folder = load_image_set(rendered / "images"), RunFolder(tmp_path / "out")
    finished = Finished(models=(ring_model(3),))
    learned = ClassicalFrontend(features=FeatureConfig(detector="aliked"))
    for config, wanted in (
        (PipelineConfig(), True),
        (PipelineConfig(keep_descriptors=False), False),
        (PipelineConfig(frontend="mast3r"), False),
        (PipelineConfig(classical=learned), False),
    ):
        with folder.begin(config):
            keep_descriptors(finished, images, config, folder, SILENT)
            assert (folder.result / "localisation" / "0.safetensors").is_file() == wanted


def test_any_model_with_its_photographs_is_made_ready(scene: Path, rendered: Path, tmp_path: Path) -> None:
    """Beside a model of somebody else, whose files stay as they are; not where another file lies."""
    project = tmp_path / "project"
    shutil.copytree(scene / "out" / "sparse", project / "sparse")
    before = snapshot(project)
    with pytest.raises(InputError, match="comes without the descriptors"):
        anchorsfm.localise(photograph(scene), project)
    main(["index", str(project / "sparse" / "0"), "--images", str(rendered / "images"), "--quiet"])
    after = snapshot(project)
    assert set(after) - set(before) == {"localisation/0.safetensors"} and before.items() <= after.items()
    found = anchorsfm.localise(photograph(scene), project).placed[photograph(scene).name]
    own = anchorsfm.localise(photograph(scene), scene / "out").placed[photograph(scene).name]
    np.testing.assert_allclose(found.cam_from_world, own.cam_from_world, atol=1e-3)

    (project / "localisation" / "0.safetensors").write_text("mine")
    with pytest.raises(StorageError, match="was changed after this program wrote it"):
        prepare(project, rendered / "images")


def test_models_of_other_keypoints_are_refused(scene: Path, rendered: Path, tmp_path: Path) -> None:
    model, names = read_reconstruction(scene / "out" / "sparse" / "0")
    rng = np.random.default_rng(0)
    xy = rng.uniform([0, 0], [480, 360], model.tracks.obs_xy.shape)
    write_models(tmp_path / "sparse", [with_tracks(model, replace(model.tracks, obs_xy=xy))], names)
    with pytest.raises(InputError, match="are near SIFT keypoints"):
        prepare(tmp_path, rendered / "images", max_image_size=240)
    with pytest.raises(InputError, match="4 of 4 photographs are not in"):
        prepare(tmp_path, tmp_path)
    assert not (tmp_path / "localisation").exists()
