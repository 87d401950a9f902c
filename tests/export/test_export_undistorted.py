"""Undistorted copies: geometry, pixels, masks, names, interrupted runs."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import anchorsfm.export.undistorted as undistorted_module
from anchorsfm.colmap.cameras import normalised_from_pixels, project
from anchorsfm.colmap.undistort import has_blank_pixels, plan_undistortion, source_map
from anchorsfm.colmap.write import write_models
from anchorsfm.export.config import ExportConfig
from anchorsfm.export.run import export
from anchorsfm.scene.errors import InputError, StorageError
from anchorsfm.scene.progress import Progress, RecordingProgress
from anchorsfm.scene.reconstruction import Camera
from anchorsfm.scene.undistortion import UndistortConfig
from anchorsfm.synthetic import LensConfig, render_image
from dataset_readers import View, read_graphdeco, read_gsplat, read_nerfstudio_colmap
from export_scene import BARREL, FISHEYE, PINCUSHION, ExportScene, undistorted_by_opencv, write_export_scene
from snapshot import snapshot

WIDE = Camera(model="OPENCV_FISHEYE", width=800, height=600, params=(300.0, 300.0, 405.0, 296.0, 0.0, 0.0, 0.0, 0.0))
"""153 degrees wide, 191 degrees from corner to corner."""
FOLDED = Camera(model="SIMPLE_RADIAL", width=800, height=600, params=(600.0, 400.0, 300.0, -0.35))
"""Its polynomial turns back near the corners of the undistorted picture."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> ExportScene:
    return write_export_scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def undistorted(scene: ExportScene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("undistorted")
    config = ExportConfig(images=scene.folder / "images")
    assert export(scene.folder, ["undistorted"], output, config) == [output / "undistorted"]
    return output / "undistorted"


def errors_px(scene: ExportScene, views: list[View]) -> np.ndarray:
    """Distance between points projected into the copies and undistorted observations, each computed independently."""
    found = []
    tracks = scene.model.tracks
    for view, entry in enumerate(views):
        rows = tracks.obs_image == view
        camera = scene.model.cameras[scene.model.camera_index[view]]
        plane = undistorted_by_opencv(camera, tracks.obs_xy[rows])
        expected = np.column_stack([plane, np.ones(len(plane))]) @ entry.intrinsics.T
        points = scene.model.points[tracks.obs_point[rows]]
        found.append(np.linalg.norm(entry.project(points) - expected[:, :2], axis=1))
    return np.concatenate(found)


def place_in_photograph(camera: Camera, view: View, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pixels of the photograph that pixels of the undistorted picture come from."""
    rays = np.column_stack([x, y, np.ones(len(x))]) @ np.linalg.inv(view.intrinsics).T
    return project(camera, rays)[0]


def test_points_project_where_their_observations_were_undistorted_to(scene: ExportScene, undistorted: Path) -> None:
    views, points = read_graphdeco(undistorted)
    assert len(views) == 3 and len(points) == len(scene.model.points)
    for readers_views in (views, read_gsplat(undistorted)[0], read_nerfstudio_colmap(undistorted, masks=False)):
        assert [view.picture.is_file() for view in readers_views] == [True] * 3
        assert errors_px(scene, readers_views).max() < 0.01
    np.testing.assert_allclose(np.sort(points, axis=0), np.sort(scene.model.points, axis=0), atol=1e-12)


def test_the_written_observations_are_those_of_the_undistorted_pictures(scene: ExportScene, undistorted: Path) -> None:
    import pycolmap

    model = pycolmap.Reconstruction(str(undistorted / "sparse" / "0"))
    assert model.compute_num_observations() == len(scene.model.tracks.obs_point)
    model.update_point_3d_errors()
    assert max(point.error for point in model.points3D.values()) < 1e-3


@pytest.mark.parametrize("lens", [BARREL, PINCUSHION, FISHEYE])
def test_pixels_are_those_of_a_photograph_without_distortion(tmp_path: Path, lens: LensConfig) -> None:
    scene = write_export_scene(tmp_path, ("a.png",), (lens,), size_wh=(320, 240))
    export(tmp_path, ["undistorted"], tmp_path / "out", ExportConfig(images=tmp_path / "images"))
    (view,), _ = read_graphdeco(tmp_path / "out" / "undistorted")
    assert not (tmp_path / "out" / "undistorted" / "masks").exists(), "every pixel has a source"
    copy = np.asarray(Image.open(view.picture), float)

    def picture_of_a_pinhole(shift_px: float) -> np.ndarray:
        config = replace(scene.scenes[0].config, size_wh=view.size_wh, lens=None)
        centre = np.array(view.size_wh) / 2 + shift_px
        return render_image(replace(scene.scenes[0], config=config, principal_point_px=centre), 0, noise=0.0).astype(
            float
        )

    def difference(shift_px: float) -> float:
        inner = (slice(4, -4), slice(4, -4))
        return float(np.sqrt(np.square(copy - picture_of_a_pinhole(shift_px))[inner].mean()))

    assert difference(0.0) < 4.0
    assert difference(0.0) < 0.6 * difference(0.25), "not even a quarter of a pixel off"


@pytest.mark.parametrize("camera", [WIDE, FOLDED])
@pytest.mark.parametrize("blank_pixels", [0.0, 1.0])
@pytest.mark.parametrize("centre", [True, False])
def test_extreme_lenses_have_reasonable_pictures_and_exact_masks(
    camera: Camera, blank_pixels: float, centre: bool
) -> None:
    config = UndistortConfig(blank_pixels=blank_pixels, centre_principal_point=centre)
    plan = plan_undistortion(camera, config)
    fx, fy, cx, cy = plan.target.params
    width, height = plan.target.width, plan.target.height
    assert max(cx, width - cx) / fx <= np.tan(np.radians(60)) + 1e-9 and max(width, height) < 4 * camera.width
    if centre:
        assert (cx, cy) == (width / 2, height / 2)
    maps = source_map(plan)
    valid = np.ones((height, width), bool) if maps.valid is None else maps.valid
    assert has_blank_pixels(plan) == (maps.valid is not None)
    assert blank_pixels > 0 or valid.all()
    rows, columns = np.nonzero(valid)
    places = np.column_stack([maps.x[valid], maps.y[valid]]).astype(float) + 0.5
    pixels = np.column_stack([columns, rows]) + 0.5
    rays = np.column_stack([(pixels - [cx, cy]) / [fx, fy], np.ones(len(pixels))])
    np.testing.assert_allclose(places, project(camera, rays)[0], atol=0.02)
    back = normalised_from_pixels(camera, places) * [fx, fy] + [cx, cy]
    np.testing.assert_allclose(back, pixels, atol=2)  # rays beyond a fold would be hundreds of pixels away


@pytest.mark.parametrize("lens", [None, LensConfig(camera_model="RADIAL", params=(0.0, 0.0))])
def test_a_photograph_without_distortion_and_offset_is_copied_as_it_is(tmp_path: Path, lens: LensConfig | None) -> None:
    scene = write_export_scene(tmp_path, ("a.jpg", "b.jpg"), (lens,), offset_px=(0.0, 0.0))
    export(tmp_path, ["undistorted"], tmp_path / "out", ExportConfig(images=tmp_path / "images"))
    for name in scene.names:
        copy = tmp_path / "out" / "undistorted" / "images" / name
        assert copy.read_bytes() == (tmp_path / "images" / name).read_bytes()


def test_the_principal_point_can_stay_and_pictures_can_be_smaller(scene: ExportScene, tmp_path: Path) -> None:
    keep = UndistortConfig(centre_principal_point=False, max_side=120)
    export(scene.folder, ["undistorted"], tmp_path, ExportConfig(images=scene.folder / "images", undistort=keep))
    views, _ = read_gsplat(tmp_path / "undistorted")
    assert errors_px(scene, views).max() < 0.01
    for view in views:
        assert max(view.size_wh) == 120 and Image.open(view.picture).size == view.size_wh
        assert abs(view.intrinsics[0, 2] - view.size_wh[0] / 2) > 1


def test_masks_are_undistorted_with_their_pictures(scene: ExportScene, tmp_path: Path) -> None:
    """The right half of the photograph is ignored; the second mask is named without the extension of the image."""
    for view, name in enumerate(scene.names):
        mask = np.full((180, 240), 255, np.uint8)
        mask[:, 120:] = 0
        path = tmp_path / "masks" / (f"{name}.png" if view != 1 else name)
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(mask).save(path)
    photographs = scene.folder / "images"
    export(scene.folder, ["undistorted"], tmp_path / "a", ExportConfig(images=photographs, masks=tmp_path / "masks"))
    inverted = ExportConfig(images=photographs, masks=tmp_path / "masks", invert_masks=True)
    export(scene.folder, ["undistorted"], tmp_path / "b", inverted)
    others = read_nerfstudio_colmap(tmp_path / "b" / "undistorted", masks=True)
    for number, view in enumerate(read_nerfstudio_colmap(tmp_path / "a" / "undistorted", masks=True)):
        mask = np.asarray(Image.open(view.mask))
        assert mask.shape == view.size_wh[::-1] and set(np.unique(mask)) == {0, 255}
        rows, columns = np.indices(mask.shape)
        plane = (np.column_stack([columns.ravel(), rows.ravel()]) + 0.5 - view.intrinsics[:2, 2]) / view.intrinsics[
            0, 0
        ]
        from anchorsfm.colmap.cameras import project

        camera = scene.model.cameras[scene.model.camera_index[number]]
        place, _ = project(camera, np.column_stack([plane, np.ones(len(plane))]))
        clear = np.abs(place[:, 0] - 120) > 1
        np.testing.assert_array_equal((mask.ravel() > 0)[clear], (place[:, 0] < 120)[clear])
        np.testing.assert_array_equal(np.asarray(Image.open(others[number].mask)), 255 - mask)


def test_pixels_without_a_source_are_black_and_masked(scene: ExportScene, tmp_path: Path) -> None:
    config = ExportConfig(images=scene.folder / "images", undistort=UndistortConfig(blank_pixels=1.0))
    export(scene.folder, ["undistorted"], tmp_path, config)
    view = read_nerfstudio_colmap(tmp_path / "undistorted", masks=True)[1]
    mask, picture = np.asarray(Image.open(view.mask)), np.asarray(Image.open(view.picture))
    rows, columns = np.indices(mask.shape)
    place = place_in_photograph(scene.model.cameras[1], view, columns.ravel() + 0.5, rows.ravel() + 0.5)
    outside = np.maximum(-place, place - [240, 180]).max(axis=1)
    assert (mask.ravel() > 0)[outside < -0.01].all() and not (mask.ravel() > 0)[outside > 1].any()
    assert 0.7 < (mask > 0).mean() < 0.999
    assert not picture[mask == 0].any() and (picture[mask > 0].max(axis=-1) > 0).mean() > 0.99


def test_photographs_with_an_orientation_tag_become_upright(tmp_path: Path) -> None:
    scene = write_export_scene(tmp_path, ("a.jpg", "b.jpg"), (None,), offset_px=(0.0, 0.0))
    upright = np.asarray(Image.open(tmp_path / "images" / "a.jpg"), float)
    tags = Image.Exif()
    tags[274] = 6  # shown after a quarter turn clockwise
    turned = Image.open(tmp_path / "images" / "a.jpg").transpose(Image.Transpose.ROTATE_90)
    turned.save(tmp_path / "images" / "a.jpg", exif=tags, quality=98)
    config = ExportConfig(images=tmp_path / "images")
    for folder in export(tmp_path, ["undistorted", "transforms"], tmp_path / "out", config):
        copy = Image.open(folder / "images" / "a.jpg")
        assert copy.getexif().get(274, 1) == 1 and copy.size == scene.scenes[0].config.size_wh
        assert np.abs(np.asarray(copy, float) - upright).mean() < 3


def test_names_that_would_collide_stay_apart(tmp_path: Path) -> None:
    names = ("a/b.png", "a/x.v1.png", "a/x.v2.png", "a_b.png", "b/B.png", "b/b.png", "über straße.png")
    write_export_scene(tmp_path, names, (None,), size_wh=(80, 60))
    config = ExportConfig(images=tmp_path / "images")
    export(tmp_path, ["undistorted"], tmp_path / "out", config)
    views, _ = read_graphdeco(tmp_path / "out" / "undistorted")
    assert len({view.picture.name.split(".")[0].lower() for view in views}) == len(names)
    assert views[3].picture.name == "a_b.png" and views[0].picture.name == "a_b-2.png"
    record = json.loads((tmp_path / "out" / "undistorted" / "photographs.json").read_text())
    listed = {entry["photograph"]: entry["image"] for entry in record}
    assert [listed[name] for name in names] == [f"images/{view.picture.name}" for view in views]
    for view, name in zip(views, names, strict=True):
        assert np.asarray(Image.open(view.picture)).std() > 0 and " " not in view.picture.name
        different = np.asarray(Image.open(tmp_path / "images" / name), float)
        h, w = np.asarray(Image.open(view.picture)).shape[:2]
        assert different.shape[0] >= h and different.shape[1] >= w


class Interrupted(Exception):
    pass


def test_an_interrupted_export_continues(scene: ExportScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ExportConfig(images=scene.folder / "images")
    made: list[str] = []
    original = undistorted_module._Workshop.make

    def counting(self, copy):
        if len(made) == 2:
            raise Interrupted
        made.append(copy.photograph)
        return original(self, copy)

    monkeypatch.setattr("anchorsfm.export.copies._MAX_THREADS", 1)
    monkeypatch.setattr(undistorted_module._Workshop, "make", counting)
    with pytest.raises(Interrupted):
        export(scene.folder, ["undistorted"], tmp_path, config)
    target = tmp_path / "undistorted"
    assert not (target / "images").exists() and not (target / "sparse").exists()
    begun = target / ".anchorsfm" / "staging-resumed" / "files" / "images"
    first = {path.name: path.stat().st_mtime_ns for path in begun.iterdir()}
    assert len(first) == 2
    monkeypatch.setattr(undistorted_module._Workshop, "make", original)
    export(scene.folder, ["undistorted"], tmp_path, config)
    assert {name: (target / "images" / name).stat().st_mtime_ns for name in first} == first
    assert len(read_gsplat(target)[0]) == 3
    export(scene.folder, ["undistorted"], tmp_path, config)
    assert {name: (target / "images" / name).stat().st_mtime_ns for name in first} == first, "finished ones stay"
    everything = {path: path.stat().st_mtime_ns for path in (target / "images").iterdir()}
    export(scene.folder, ["undistorted"], tmp_path, replace(config, undistort=UndistortConfig(max_side=100)))
    assert all(path.stat().st_mtime_ns != time for path, time in everything.items()), "other settings, other pictures"


def test_nothing_of_someone_else_is_touched(scene: ExportScene, tmp_path: Path) -> None:
    """Not a data set that happens to lie where the export would go, and not the photographs themselves."""
    for name in ("undistorted", "transforms"):
        shutil.copytree(scene.folder, tmp_path / name)
        with pytest.raises(InputError, match="not exported by anchorsfm"):
            export(scene.folder, [name], tmp_path)
    export(scene.folder, ["undistorted"], tmp_path / "own")
    with pytest.raises(InputError, match="where their copies would go"):
        export(tmp_path / "own" / "undistorted", ["undistorted"], tmp_path / "own")
    for folder in (tmp_path / "undistorted", tmp_path / "transforms", tmp_path / "own" / "undistorted"):
        assert len(list((folder / "images").iterdir())) == 3 and (folder / "sparse" / "0" / "images.bin").is_file()


@pytest.mark.parametrize("name", ["../../precious.png", "/precious.png", "a/../../../precious.png", "..", "\0", ""])
def test_a_hostile_record_removes_nothing(scene: ExportScene, tmp_path: Path, name: str) -> None:
    (tmp_path / "precious.png").write_text("precious")
    target = tmp_path / "out" / "undistorted"
    target.mkdir(parents=True)
    record = [{"image": name, "mask": None, "photograph": "x", "key": "of another export"}]
    (target / "photographs.json").write_text(json.dumps(record))
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match=r"photographs\.json names a file outside"):
        export(scene.folder, ["undistorted"], tmp_path / "out", ExportConfig(images=scene.folder / "images"))
    assert snapshot(tmp_path) == before


def test_a_record_of_somebody_else_removes_nothing(scene: ExportScene, tmp_path: Path) -> None:
    """Even with names that stay in the folder: only what our own manifest lists is removed."""
    target = tmp_path / "undistorted"
    (target / "images").mkdir(parents=True)
    (target / "images" / "mine.png").write_text("precious")
    record = [{"image": "images/mine.png", "mask": None, "photograph": "x", "key": "of another export"}]
    (target / "photographs.json").write_text(json.dumps(record))
    before = snapshot(tmp_path)
    with pytest.raises(StorageError, match="was not written by this program"):
        export(scene.folder, ["undistorted"], tmp_path, ExportConfig(images=scene.folder / "images"))
    assert snapshot(tmp_path) == before


def test_what_a_trainer_adds_stays_and_what_it_changes_is_not_replaced(scene: ExportScene, tmp_path: Path) -> None:
    config = ExportConfig(images=scene.folder / "images")
    target = export(scene.folder, ["undistorted"], tmp_path, config)[0]
    (target / "sparse" / "0" / "points3D.ply").write_text("the trainer's")
    export(scene.folder, ["undistorted"], tmp_path, replace(config, undistort=UndistortConfig(max_side=100)))
    assert (target / "sparse" / "0" / "points3D.ply").read_text() == "the trainer's"
    (target / "sparse" / "0" / "cameras.bin").write_text("changed")
    before = snapshot(tmp_path)
    with pytest.raises(StorageError, match=r"cameras\.bin was changed after this program wrote it"):
        export(scene.folder, ["undistorted"], tmp_path, config)
    assert snapshot(tmp_path) == before


def test_missing_damaged_and_wrong_photographs_are_named(scene: ExportScene, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(scene.folder / "images", images)
    config = ExportConfig(images=images)
    (images / "0001.png").unlink()
    with pytest.raises(InputError, match=r"1 of 3 photographs are not in .*: 0001\.png; .*--images"):
        export(scene.folder, ["undistorted"], tmp_path / "out", config)
    (images / "0001.png").write_text("no picture")
    with pytest.raises(InputError, match=r"0001\.png"):
        export(scene.folder, ["undistorted"], tmp_path / "out", config)
    Image.new("RGB", (180, 240)).save(images / "0001.png")
    with pytest.raises(InputError, match=r"0001\.png is 180x240 pixels, but its camera .* 240x180"):
        export(scene.folder, ["undistorted"], tmp_path / "out", config)
    with pytest.raises(InputError, match="--images"):
        shutil.copytree(scene.folder / "sparse", tmp_path / "lone")
        export(tmp_path / "lone", ["undistorted"], tmp_path / "out")
    with pytest.raises(InputError, match=r"3 of 3 masks .*0000\.png\.png"):
        (tmp_path / "masks").mkdir()
        shutil.copy(scene.folder / "images" / "0001.png", images)
        export(scene.folder, ["undistorted"], tmp_path / "out", replace(config, masks=tmp_path / "masks"))
    assert not list((tmp_path / "out").rglob("*.bin")) and not list((tmp_path / "out").rglob("*.png"))


def test_cameras_that_cannot_be_undistorted_are_named(tmp_path: Path) -> None:
    scene = write_export_scene(tmp_path, ("a.png",), (None,), offset_px=(118.0, 0.0))
    config = ExportConfig(images=tmp_path / "images")
    with pytest.raises(InputError, match=r"camera of a\.png .*--undistort\.no-centre-principal-point"):
        export(tmp_path, ["undistorted"], tmp_path / "out", config)
    panorama = replace(
        scene.model, cameras=(Camera(model="EQUIRECTANGULAR", width=240, height=180, params=(240.0, 180.0)),)
    )
    shutil.rmtree(tmp_path / "sparse")
    write_models(tmp_path / "sparse", [panorama], scene.names)
    with pytest.raises(InputError, match=r"EQUIRECTANGULAR camera of a\.png .*no pinhole"):
        export(tmp_path, ["undistorted"], tmp_path / "out", config)


def test_cutting_much_is_said(tmp_path: Path) -> None:
    write_export_scene(tmp_path, ("a.png",), (None,), size_wh=(120, 90), offset_px=(20.0, 0.0))
    progress = RecordingProgress(Progress())
    export(tmp_path, ["undistorted"], tmp_path / "out", ExportConfig(images=tmp_path / "images"), progress=progress)
    assert any("33 % of a.png" in warning for warning in progress.warnings)
