"""Rigs that the settings name."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import yaml
from PIL import Image
from scipy.spatial.transform import Rotation

import anchorsfm
from anchorsfm import pipeline
from anchorsfm.colmap.models import read_stored_poses
from anchorsfm.geometry.transforms import camera_centres, compose, fit_similarity, invert, rotation_angle_deg
from anchorsfm.mapping.config import RigConfig
from anchorsfm.mapping.rigs import carried_rigs
from anchorsfm.results.model import read_models
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.folder import RunFolder
from anchorsfm.run.photographs import load_photographs
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.progress import SILENT
from anchorsfm.scene.rigs import Rigs
from anchorsfm.synthetic import SceneConfig, SyntheticScene, make_scene, render_image
from anchorsfm.synthetic.rigs import with_rig


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rig")
    rng = np.random.default_rng(0)
    for camera in ("left", "right"):
        (folder / camera).mkdir()
        for k in range(4):
            Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8)).save(folder / camera / f"{k}.png")
    Image.fromarray(rng.integers(0, 255, (40, 64, 3), np.uint8)).save(folder / "single.png")
    return folder


def load(folder: Path, output: Path, config: RigConfig) -> tuple[ImageSet, dict]:
    images, known = load_photographs(folder, PipelineConfig(rig=config), RunFolder(output), SILENT)
    return images, known.cameras


def rig_file(path: Path, **more: object) -> RigConfig:
    cameras = [{"image_prefix": "left/", "ref_sensor": True}, {"image_prefix": "right/", **more}]
    path.write_text(json.dumps([{"cameras": cameras}]))
    return RigConfig(file=str(path))


def test_photographs_get_sensors_and_frames(photographs: Path, tmp_path: Path) -> None:
    for config in (RigConfig(file="auto"), rig_file(tmp_path / "rig.json")):
        images, cameras = load(photographs, tmp_path / "out", config)
        rigs = images.rigs
        assert rigs is not None and rigs.sensor.tolist() == [0] * 4 + [1] * 4 + [-1]
        assert rigs.frame.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, -1] and images.camera_index.tolist() == [0] * 4 + [
            1
        ] * 4 + [2]
        assert rigs.is_fixed.tolist() == [True, False] and rigs.is_known.tolist() == [True, False] and not cameras


def test_cameras_are_told_by_beginnings_of_names_and_by_times(photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "begin").mkdir()
    for camera in ("left", "right"):
        (tmp_path / "times" / camera).mkdir(parents=True)
        for k in range(4):
            picture = Image.open(photographs / camera / f"{k}.png")
            picture.save(tmp_path / "begin" / f"{camera}_{k}.png")
            exif = Image.Exif()
            exif.get_ifd(0x8769)[36867] = f"2026:05:01 10:00:{10 * k + (camera == 'right'):02d}"
            picture.save(tmp_path / "times" / camera / f"{camera}{100 * len(camera) + k}.jpg", exif=exif)
    for folder in ("begin", "times"):
        images, _ = load(tmp_path / folder, tmp_path / "out", RigConfig(file="auto"))
        assert images.rigs is not None and images.rigs.sensor.tolist() == [0] * 4 + [1] * 4
        assert images.rigs.frame.tolist() == [0, 1, 2, 3] * 2


def test_what_the_file_gives_is_taken(photographs: Path, tmp_path: Path) -> None:
    given = {"cam_from_rig_rotation": [1, 0, 0, 0], "cam_from_rig_translation": [-0.2, 0, 0]}
    lens = {"camera_model_name": "SIMPLE_RADIAL", "camera_params": [60, 32, 24, 0.1]}
    config = rig_file(tmp_path / "rig.json", **given, **lens)
    images, cameras = load(photographs, tmp_path / "out", config)
    assert images.rigs is not None and images.rigs.is_known.all() and not images.rigs.is_fixed[1]
    assert cameras[1].params == (60, 32, 24, 0.1) and list(cameras) == [1]
    images, _ = load(photographs, tmp_path / "out", replace(config, refine=False))
    assert images.rigs is not None and images.rigs.is_fixed.all() and not images.rigs.has_one_centre[1]
    turned = {"cam_from_rig_rotation": [0.7, 0, 0.7, 0], "cam_from_rig_translation": [0, 0, 0]}
    images, _ = load(photographs, tmp_path / "out", rig_file(tmp_path / "rig.json", **turned))
    assert images.rigs is not None and images.rigs.has_one_centre.all() and images.rigs.one_view()[0, 4]


@pytest.mark.parametrize(
    ("cameras", "problem"),
    [
        ({"left/": {}, "middle/": {}}, "no photograph has a name that begins with 'middle/'"),
        ({"left/": {}, "right/1": {}}, "no two cameras have a photograph of the same moment"),
        ({"": {}, "left/": {}}, "image_prefix is empty"),
        ({"left/": {}, "right/": {"camera_model_name": "X", "camera_params": [1]}}, "the camera model 'X' is none of"),
        ({"left/": {}, "right/": {"camera_model_name": "PINHOLE", "camera_params": [1]}}, "has 4 parameters, not 1"),
        (
            {"left/": {}, "right/": {"camera_model_name": "PINHOLE", "camera_params": [1e9, 1e9, 0, 0]}},
            "not those of a camera for pictures of 64x48",
        ),
        ({"l": {}, "": {}}, "image_prefix is empty"),
        ({"left/0.png": {}, "right/": {}}, "no two cameras have a photograph"),
        ({"s": {}, "right/": {}}, "no two cameras have a photograph"),
    ],
)
def test_files_that_do_not_fit_the_photographs(cameras: dict, problem: str, photographs: Path, tmp_path: Path) -> None:
    entries = [
        {"image_prefix": prefix, "ref_sensor": k == 0, **more} for k, (prefix, more) in enumerate(cameras.items())
    ]
    (tmp_path / "rig.json").write_text(json.dumps([{"cameras": entries}]))
    with pytest.raises(InputError, match=problem):
        load(photographs, tmp_path / "out", RigConfig(file=str(tmp_path / "rig.json")))


def test_a_camera_takes_pictures_of_one_size(photographs: Path, tmp_path: Path) -> None:
    entries = [{"image_prefix": "left/", "ref_sensor": True}, {"image_prefix": "right/"}]
    folder = tmp_path / "photos"
    for path in photographs.rglob("*.png"):
        place = folder / path.relative_to(photographs)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    (folder / "single.png").rename(folder / "right" / "9.png")
    (tmp_path / "rig.json").write_text(json.dumps([{"cameras": entries}]))
    with pytest.raises(InputError, match=r"right/0.png is 64x48 and right/9.png 64x40"):
        load(folder, tmp_path / "out", RigConfig(file=str(tmp_path / "rig.json")))


def test_without_a_rig_in_the_names_there_is_one_line(photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no rig shows in the photographs"):
        load(photographs / "left", tmp_path / "out", RigConfig(file="auto"))


def test_a_file_is_looked_at_before_photographs_are(tmp_path: Path) -> None:
    config = PipelineConfig(rig=RigConfig(file=str(tmp_path / "none.json")))
    with pytest.raises(InputError, match=r"none.json: no such file"):
        pipeline.reconstruct(tmp_path / "no-photographs", tmp_path / "out", config)


SENSORS = np.concatenate(
    [
        np.swapaxes(Rotation.from_euler("YX", [[-25, 3], [28, -2]], degrees=True).as_matrix(), 1, 2),
        [[[0.0], [0.0], [0.0]], [[-0.35], [0.02], [0.05]]],
    ],
    axis=2,
)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SyntheticScene]:
    """Five shots of two cameras, of which one sees a blank wall in the last."""
    folder = tmp_path_factory.mktemp("rendered") / "photos"
    middle = make_scene(SceneConfig(num_images=5, size_wh=(280, 210), arc_deg=40, seed=3))
    scene = with_rig(middle, SENSORS, np.array([0.9, 0.8]) * 280)
    rng = np.random.default_rng(0)
    for k in range(10):
        path = folder / ("left", "right")[k % 2] / f"{k // 2}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        wall = np.clip(np.round(180 + rng.standard_normal((210, 280, 3))), 0, 255).astype(np.uint8)
        Image.fromarray(wall if k == 8 else render_image(scene, k)).save(path, quality=95)
    return folder, scene


CONFIG = PipelineConfig(mapper="tracks", dense=False, keep_descriptors=False, rig=RigConfig(file="auto"))


@pytest.fixture(scope="module")
def out(rendered: tuple[Path, SyntheticScene], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the first four shots."""
    output = tmp_path_factory.mktemp("rig-model") / "out"
    pipeline.reconstruct([path for path in sorted(rendered[0].rglob("*.jpg")) if path.stem != "4"], output, CONFIG)
    return output


def require_right(output: Path, scene: SyntheticScene, shots: int) -> None:
    """All photographs in one model with one rig, as the truth has them."""
    (stored,) = read_models(output)
    model = stored.model
    assert len(model.image_index) == 2 * shots and model.rigs is not None
    rows = [2 * int(Path(name).stem) + (Path(name).parent.name == "right") for name in stored.view_names]
    truth = scene.cam_from_world[rows]
    turned, wanted = (compose(poses[1:], invert(poses[:1])) for poses in (model.cam_from_world, truth))
    assert rotation_angle_deg(turned[:, :, :3] @ np.swapaxes(wanted[:, :, :3], 1, 2)).max() < 0.5
    scale, _ = fit_similarity(camera_centres(model.cam_from_world), camera_centres(truth))
    found = compose(model.rigs.sensor_from_rig[1], invert(model.rigs.sensor_from_rig[0]))
    given = compose(SENSORS[1], invert(SENSORS[0]))
    assert rotation_angle_deg((found[:, :3] @ given[:, :3].T)[None])[0] < 0.3
    assert np.linalg.norm(scale * camera_centres(found) - camera_centres(given)) < 0.02
    files = pycolmap.Reconstruction(str(stored.folder))
    assert files.num_rigs() == 1 and files.num_frames() == shots and files.num_reg_images() == 2 * shots


def test_a_rig_is_found(out: Path, rendered: tuple[Path, SyntheticScene]) -> None:
    require_right(out, rendered[1], 4)


def test_shots_join_a_rig_that_stays_to_the_bit_and_models_of_it_become_one(
    out: Path, rendered: tuple[Path, SyntheticScene], tmp_path: Path
) -> None:
    """Also a photograph that shows nothing: the other camera says where it was taken."""
    folder, scene = rendered
    output = shutil.copytree(out, tmp_path / "out")
    anchorsfm.extend(output, folder)
    require_right(output, scene, 5)
    before, after = (read_stored_poses(place / "sparse" / "0") for place in (out, output))
    assert len(before) == 8
    for name, pose in before.items():
        np.testing.assert_array_equal(after[name].cam_from_world, pose.cam_from_world)
        np.testing.assert_array_equal(after[name].rig_from_world, pose.rig_from_world)
        assert (after[name].sensor_from_rig is None) == (pose.sensor_from_rig is None) == name.startswith("left/")
        if pose.sensor_from_rig is not None:
            np.testing.assert_array_equal(after[name].sensor_from_rig, pose.sensor_from_rig)

    anchorsfm.merge(out, output, tmp_path / "both")
    require_right(tmp_path / "both", scene, 5)


def test_photographs_of_other_rigs_are_refused_before_any_work(
    out: Path, rendered: tuple[Path, SyntheticScene], tmp_path: Path
) -> None:
    """Shots whose names would change those of the others, and models of rigs that were said otherwise."""
    folder, before = rendered[0], (out / "report.json").read_bytes()
    shutil.copytree(folder / "left", tmp_path / "elsewhere" / "left")
    with pytest.raises(InputError, match=r"lies outside .*, and rig.file of .* goes by these"):
        anchorsfm.extend(out, [tmp_path / "elsewhere"])
    output = shutil.copytree(out, tmp_path / "out")
    config = yaml.safe_load((output / "config.yaml").read_text())
    config["rig"]["file"] = str(tmp_path / "rig.json")
    (output / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(InputError, match=r"was made with rig.file auto, .* with .*rig.json"):
        anchorsfm.merge(out, output, tmp_path / "both")
    assert (out / "report.json").read_bytes() == before


def test_a_finished_rig_is_carried_over_if_it_is_the_same() -> None:
    """Its cameras in another order, one that the model does not hold, and one whose pose is given."""
    given = np.stack([np.eye(3, 4), np.eye(3, 4), np.eye(3, 4), np.full((3, 4), np.nan)])
    given[1:3, 0, 3] = -1.0, -3.0
    rigs = Rigs(
        sensor=np.array([0, 1, 0, 1, 2, 3, -1]),
        frame=np.array([0, 0, 1, 1, 1, 1, -1]),
        rig=np.zeros(4, np.int64),
        sensor_from_rig=given,
        is_fixed=np.array([True, False, False, False]),
    )
    turned = np.concatenate([Rotation.from_rotvec([0, 0.3, 0]).as_matrix(), [[-2.0], [0.1], [0.0]]], axis=1)
    stored = Rigs(
        sensor=np.array([1, 0, 1, 0]),
        frame=np.array([5, 5, 9, 9]),
        rig=np.full(2, 7),
        sensor_from_rig=np.stack([np.eye(3, 4), turned]),
        is_fixed=np.array([True, False]),
    )
    found = carried_rigs(rigs, stored, np.arange(4))
    assert found is not None
    np.testing.assert_array_equal(found.sensor_from_rig[:2], [turned, np.eye(3, 4)])
    between = compose(given[2], invert(given[1]))
    near = compose(found.sensor_from_rig[2], invert(np.stack([turned, np.eye(3, 4)])))
    assert np.allclose(near[0], compose(given[2], invert(given[0]))) or np.allclose(near[1], between)
    assert np.isnan(found.sensor_from_rig[3]).all() and found.is_fixed.tolist() == [True, True, False, False]
    np.testing.assert_array_equal(found.frame, rigs.frame)
    assert carried_rigs(rigs, None, np.arange(4)) is rigs
    for image, problem in (([0, 1, 3, 2], "other cameras"), ([0, 3, 2, 1], "other moments"), ([0, 1, 2, 6], "cameras")):
        with pytest.raises(ValueError, match=problem):
            carried_rigs(rigs, stored, np.array(image))
    with pytest.raises(ValueError, match="no rigs"):
        carried_rigs(None, stored, np.arange(4))
