"""Rigs that the settings name."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from anchorsfm import pipeline
from anchorsfm.geometry.transforms import camera_centres, compose, fit_similarity, invert, rotation_angle_deg
from anchorsfm.mapping.config import RigConfig
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.folder import RunFolder
from anchorsfm.run.photographs import load_photographs
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.progress import SILENT
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
    """Five shots of two cameras, of which one sees a blank wall once."""
    folder = tmp_path_factory.mktemp("rendered") / "photos"
    middle = make_scene(SceneConfig(num_images=5, size_wh=(280, 210), arc_deg=40, seed=3))
    scene = with_rig(middle, SENSORS, np.array([0.9, 0.8]) * 280)
    rng = np.random.default_rng(0)
    for k in range(10):
        path = folder / ("left", "right")[k % 2] / f"{k // 2}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        wall = np.clip(np.round(180 + rng.standard_normal((210, 280, 3))), 0, 255).astype(np.uint8)
        Image.fromarray(wall if k == 5 else render_image(scene, k)).save(path, quality=95)
    return folder, scene


def test_a_rig_is_found_and_places_photographs_of_nothing(
    rendered: tuple[Path, SyntheticScene], tmp_path: Path
) -> None:
    folder, scene = rendered
    config = PipelineConfig(mapper="tracks", dense=False, keep_descriptors=False, rig=RigConfig(file="auto"))
    result = pipeline.reconstruct(folder, tmp_path / "out", config)
    (model,) = result.models
    assert len(model.image_index) == 10 and model.rigs is not None
    truth = scene.cam_from_world[np.argsort(np.arange(10) % 2, kind="stable")]
    turned, wanted = (compose(poses[1:], invert(poses[:1])) for poses in (model.cam_from_world, truth))
    assert rotation_angle_deg(turned[:, :, :3] @ np.swapaxes(wanted[:, :, :3], 1, 2)).max() < 0.5
    scale, _ = fit_similarity(camera_centres(model.cam_from_world), camera_centres(truth))
    found = compose(model.rigs.sensor_from_rig[1], invert(model.rigs.sensor_from_rig[0]))
    given = compose(SENSORS[1], invert(SENSORS[0]))
    assert rotation_angle_deg((found[:, :3] @ given[:, :3].T)[None])[0] < 0.3
    assert np.linalg.norm(scale * camera_centres(found) - camera_centres(given)) < 0.02
    stored = pycolmap.Reconstruction(str(tmp_path / "out" / "sparse" / "0"))
    assert stored.num_rigs() == 1 and stored.num_frames() == 5 and stored.num_reg_images() == 10
