"""Panoramas among what a run is given."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from anchorsfm import pipeline
from anchorsfm.colmap.models import read_stored_poses
from anchorsfm.geometry.transforms import camera_centres, compose, invert, rotation_angle_deg
from anchorsfm.io.pictures import load_rgb
from anchorsfm.mapping.config import KnownConfig
from anchorsfm.panorama.config import PanoramaConfig
from anchorsfm.panorama.record import read_record
from anchorsfm.panorama.views import gather_views
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.folder import RunFolder
from anchorsfm.run.panoramas import with_views
from anchorsfm.scene.errors import InputError, StorageError
from anchorsfm.synthetic import SceneConfig, SyntheticScene, make_scene, render_image
from anchorsfm.synthetic.rigs import render_panorama
from geotags import geotag
from said import Said
from stopped_run import images_of_run

CONFIG = PipelineConfig(mapper="tracks", dense=False, keep_descriptors=False)


@pytest.fixture(scope="module")
def scene() -> SyntheticScene:
    """Three places, from which panoramas are turned by different angles."""
    scene = make_scene(SceneConfig(num_images=3, size_wh=(256, 128), arc_deg=27, seed=1))
    turn = Rotation.from_rotvec([[0.02, a, 0.03] for a in (0.0, 0.8, 2.0)]).as_matrix()
    rotation = turn @ scene.cam_from_world[:, :, :3]
    shift = -rotation @ camera_centres(scene.cam_from_world)[:, :, None]
    return replace(scene, cam_from_world=np.concatenate([rotation, shift], axis=2))


@pytest.fixture(scope="module")
def panoramas(scene: SyntheticScene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("panoramas") / "photos"
    folder.mkdir()
    for k in range(3):
        exif = geotag((46.0 + 1e-5 * k, 7.0, 500.0))
        Image.fromarray(render_panorama(scene, k, 640)).save(folder / f"P{k}.jpg", quality=95, exif=exif)
    return folder


def test_panoramas_become_a_rig_of_views(panoramas: Path, tmp_path: Path) -> None:
    images = images_of_run(panoramas, tmp_path / "out", CONFIG)
    assert images.num_images == 18 and images.num_cameras == 6 and images.root == tmp_path / "out/views/204px"
    assert images.names[:5] == ("000/P0.jpg", "000/P1.jpg", "000/P2.jpg", "060/P0.jpg", "060/P1.jpg")
    rigs = images.rigs
    assert rigs is not None and rigs.has_one_centre.all() and rigs.views_of_panoramas.all()
    assert rigs.frame.tolist() == [0, 1, 2] * 6 and rigs.one_view().sum() == 3 * 36
    assert images.prior_is_known is not None and images.prior_is_known.all()
    assert np.allclose(images.focal_prior_px, 102)
    assert images.geo is not None and np.allclose(images.geo.lat_lon_alt[[1, 4], 0], 46.00001)
    before = {path: path.stat().st_mtime_ns for path in images.root.rglob("*.jpg")}
    again = images_of_run(panoramas, tmp_path / "out", CONFIG)
    assert again.digests == images.digests
    assert {path: path.stat().st_mtime_ns for path in images.root.rglob("*.jpg")} == before
    config = tmp_path / "out" / "views" / "rig_config.json"
    (rig,) = pycolmap.read_rig_config(config)
    assert len(rig.cameras) == 6 and rig.cameras[0].ref_sensor and rig.cameras[1].image_prefix == "204px/060/"
    pose = rig.cameras[1].cam_from_rig.matrix()
    assert np.allclose(pose, rigs.sensor_from_rig[1])


def test_views_that_were_changed_or_lost_are_cut_again(panoramas: Path, tmp_path: Path) -> None:
    one = [panoramas / "P0.jpg"]
    images = images_of_run(one, tmp_path / "out", CONFIG)
    (images.path(3)).unlink()
    assert images_of_run(one, tmp_path / "out", CONFIG).digests == images.digests
    (tmp_path / "out/views/panoramas.json").write_text("{}")
    with pytest.raises(StorageError, match="was changed"):
        images_of_run(one, tmp_path / "out", CONFIG)


def test_another_picture_of_the_same_name_gets_its_own_views(panoramas: Path, tmp_path: Path) -> None:
    """After a run without it, too, that was interrupted and left the views of the first one."""
    one, two = (panoramas / f"P{k}.jpg" for k in range(2))
    source = tmp_path / "photos"
    source.mkdir()
    shutil.copy(one, source / "P.jpg")
    small = replace(CONFIG, panorama=PanoramaConfig(size=64))
    before = images_of_run(source, tmp_path / "out", small)
    images_of_run([two], tmp_path / "out", small)
    Image.fromarray(np.asarray(Image.open(two))[::-1]).save(source / "P.jpg")
    after = images_of_run(source, tmp_path / "out", small)
    assert after.num_images == 6 and not set(after.digests) & set(before.digests)


def test_other_settings_cut_other_views(panoramas: Path, tmp_path: Path) -> None:
    sphere = replace(CONFIG, panorama=PanoramaConfig(views="sphere", size=64))
    images = images_of_run([panoramas / "P0.jpg"], tmp_path / "out", sphere)
    assert images.num_images == 14 and (images.size_wh == 64).all()
    off = images_of_run(panoramas, tmp_path / "out", replace(CONFIG, panorama=PanoramaConfig(use="off")))
    assert off.num_images == 3 and off.rigs is None


def test_panoramas_and_photographs_together(panoramas: Path, scene: SyntheticScene, tmp_path: Path) -> None:
    Image.fromarray(render_image(scene, 0)).save(tmp_path / "wide.png")
    images = images_of_run([tmp_path / "wide.png", panoramas], tmp_path / "out", CONFIG)
    assert images.num_images == 19 and images.num_cameras == 7 and images.rigs is not None
    assert images.rigs.sensor[0] == -1 and (images.rigs.sensor[1:] >= 0).all()


def test_a_damaged_panorama_costs_itself_only(panoramas: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "photos"
    shutil.copytree(panoramas, damaged)
    whole = (damaged / "P1.jpg").read_bytes()
    (damaged / "P1.jpg").write_bytes(whole[: len(whole) // 2])
    said = Said()
    folder = RunFolder(tmp_path / "out", said)
    _, cut = with_views(damaged, replace(CONFIG, panorama=PanoramaConfig(use="all")), folder, said)
    assert cut is not None and [views.panorama for views in cut.views] == ["P0.jpg", "P2.jpg"]
    assert [line for line in said.warnings if "P1.jpg" in line and line.startswith("skipped")] == said.warnings
    assert {views.panorama for views in read_record(tmp_path / "out/views")} == {"P0.jpg", "P2.jpg"}
    for name in ("P0.jpg", "P2.jpg"):
        (damaged / name).unlink()
    with pytest.raises(InputError, match="none of the 1 panoramas"):
        with_views(damaged, replace(CONFIG, panorama=PanoramaConfig(use="all")), RunFolder(tmp_path / "o", said), said)


def test_masks_of_panoramas_are_cut_too(panoramas: Path, tmp_path: Path) -> None:
    mask = np.full((64, 128), 255, np.uint8)
    mask[40:] = 0
    Image.fromarray(mask).save(tmp_path / "tripod.png")
    (tmp_path / "masks").mkdir()
    mask[:, 64:] = 0
    Image.fromarray(mask).save(tmp_path / "masks" / "P1.jpg.png")
    both = replace(CONFIG, mask=tmp_path / "tripod.png", masks=tmp_path / "masks")
    images = images_of_run(panoramas, tmp_path / "out", both)
    (front, right) = (images.mask_pixels(images.names.index(name)) for name in ("000/P0.jpg", "060/P0.jpg"))
    assert front is not None and right is not None
    assert front[: len(front) // 2].all() and not front[-4:].any() and right[: len(right) // 2].all()
    assert any(skipped.name == "060/P1.jpg" for skipped in images.skipped)
    narrow = replace(CONFIG, mask=tmp_path / "narrow.png")
    Image.fromarray(mask[:, :80]).save(tmp_path / "narrow.png")
    with pytest.raises(InputError, match=r"narrow.png is 80x64 pixels, P0.jpg upright is 640x320"):
        images_of_run(panoramas, tmp_path / "out", narrow)


def test_transparent_pixels_of_panoramas_mask_their_views(panoramas: Path, tmp_path: Path) -> None:
    """In the run that cuts them and in those that go on with the views; those of opaque panoramas are JPEG files."""
    source = tmp_path / "photos"
    source.mkdir()
    for k in range(2):
        rgb = np.asarray(Image.open(panoramas / f"P{k}.jpg"))
        opaque = np.full(rgb.shape[:2], 255, np.uint8)
        if k == 0:
            opaque[200:] = 127
            opaque[:, 610:] = opaque[:, :30] = 0  # behind
        exif = Image.open(panoramas / f"P{k}.jpg").getexif()
        Image.fromarray(np.dstack([rgb, opaque])).save(source / f"P{k}.png", exif=exif)
    images = images_of_run(source, tmp_path / "out", CONFIG)
    assert images.names[:3] == ("000/P0.png", "000/P1.jpg", "060/P0.png")
    front, back = (images.mask_pixels(images.names.index(f"{name}/P0.png")) for name in ("000", "180"))
    assert front is not None and front[:140].all() and not front[170:].any()
    assert back is not None and not back[:, 90:114].any() and back[:120, :60].all() and back[:120, -60:].all()
    assert all(images.mask_pixels(images.names.index(f"{name}/P1.jpg")) is None for name in ("000", "180"))
    assert images.geo is not None and np.isfinite(images.geo.lat_lon_alt).all()
    plain = images_of_run(panoramas, tmp_path / "plain", CONFIG)
    cut, same = (load_rgb(of, of.names.index(f"000/P0.{kind}")) for of, kind in ((images, "png"), (plain, "jpg")))
    assert np.abs(cut[:140].astype(int) - same[:140]).mean() < 3, "with the colours that the panorama has"
    off = images_of_run(source, tmp_path / "out", replace(CONFIG, alpha_masks=False))
    assert off.masks is None and off.digests == images.digests
    both = RunFolder(tmp_path / "both").views
    found, _ = gather_views([(tmp_path / "out/views", one) for one in read_record(tmp_path / "out/views")], both)
    assert {Path(one.names[0]).name for one in found} == {"P0.png", "P1.jpg"}
    assert "A" in Image.open(tmp_path / "both/views" / found[0].names[0]).getbands()


def test_panoramas_are_reconstructed_with_one_pose_each_and_others_join_them(
    panoramas: Path, scene: SyntheticScene, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    pipeline.reconstruct(sorted(panoramas.iterdir())[:2], output, CONFIG)
    before = read_stored_poses(output / "sparse" / "0")
    assert len(before) == 12
    result = pipeline.extend(output, [panoramas])
    (model,) = result.models
    assert len(model.image_index) == 18 and model.rigs is not None
    stored = pycolmap.Reconstruction(str(output / "sparse" / "0"))
    assert stored.num_rigs() == 1 and stored.num_frames() == 3 and stored.num_reg_images() == 18
    after = read_stored_poses(output / "sparse" / "0")
    for name, pose in before.items():
        np.testing.assert_array_equal(after[name].cam_from_world, pose.cam_from_world)
        np.testing.assert_array_equal(after[name].rig_from_world, pose.rig_from_world)
    assert len(read_record(output / "views")) == 3
    assert sorted(path.name for path in (output / "views").iterdir()) == [
        "204px",
        "panoramas.json",
        "rig_config.json",
    ]
    first = {
        result.images.names[image][4:6]: k
        for k, image in enumerate(model.image_index)
        if "000/" in result.images.names[image]
    }
    found = model.cam_from_world[[first[f"P{k}"] for k in range(3)]]
    turned, truth = (compose(poses[1:], invert(poses[:1])) for poses in (found, scene.cam_from_world))
    assert rotation_angle_deg(turned[:, :, :3] @ np.swapaxes(truth[:, :, :3], 1, 2)).max() < 0.3
    ours, theirs = (camera_centres(poses) - camera_centres(poses[:1]) for poses in (found, scene.cam_from_world))
    ours, theirs = (np.linalg.norm(places[1:], axis=1) for places in (ours, theirs))
    assert np.ptp(ours / theirs) < 0.03 * (ours / theirs).mean()
    known = KnownConfig(model=output)
    with pytest.raises(InputError, match="known poses and rigs"):
        images_of_run(panoramas, tmp_path / "again", replace(CONFIG, known=known, mapper="align"))
    with pytest.raises(InputError, match=r"all 18 photographs are those of .* already"):
        pipeline.extend(output, [panoramas])
    settings = (output / "config.yaml").read_text()
    (output / "config.yaml").write_text(settings.replace("mask: null", "mask: tripod.png"))
    with pytest.raises(InputError, match="panoramas with masks, which no run can go on from"):
        pipeline.extend(output, [panoramas])
    (output / "config.yaml").write_text(settings)
    (output / "views" / "panoramas.json").write_text("{}")
    with pytest.raises(InputError, match=r"panoramas.json does not say what .* is a view of"):
        pipeline.extend(output, [panoramas])


def test_views_of_several_folders_are_gathered(panoramas: Path, tmp_path: Path) -> None:
    """Other pictures of the same name get names of their own, equal ones are there once."""
    (tmp_path / "photos").mkdir()
    shutil.copy(panoramas / "P1.jpg", tmp_path / "photos" / "P0.jpg")
    shutil.copy(panoramas / "P2.jpg", tmp_path / "photos" / "P1.jpg")
    for folder, photos in (("a", [panoramas / "P0.jpg", panoramas / "P1.jpg"]), ("b", tmp_path / "photos")):
        images_of_run(photos, tmp_path / folder, CONFIG)
    records = [(views, one) for views in (tmp_path / "a/views", tmp_path / "b/views") for one in read_record(views)]
    assert len(records) == 4
    found, copies = gather_views(records, RunFolder(tmp_path / "both").views)
    assert found == read_record(tmp_path / "both" / "views") and len(found) == 3 and len(copies) == 24
    assert len({name for one in found for name in one.names}) == 18
    for old, new in copies.items():
        assert new.is_relative_to(tmp_path / "both" / "views")
        assert old.is_relative_to(tmp_path / "b") or new.read_bytes() == old.read_bytes()
