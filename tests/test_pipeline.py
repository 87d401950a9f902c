"""Photographs in, COLMAP model out, on rendered photographs with known cameras."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image

from anchorsfm.align.config import AlignConfig
from anchorsfm.evaluation import evaluate_poses, poses_of, read_poses
from anchorsfm.features.verification import verify
from anchorsfm.frontend.classical import ClassicalFrontend
from anchorsfm.frontend.classical.config import DenseConfig
from anchorsfm.geometry.similarity import between_poses
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.mapping.config import KnownConfig
from anchorsfm.pipeline import RunResult, reconstruct
from anchorsfm.results.model import read_models
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.predictions import chosen_frontend
from anchorsfm.scene.errors import InputError, NoReconstructionError
from anchorsfm.scene.progress import SILENT, RecordingProgress

DENSE_POINT = [("xyz", "<f4", 3), ("normal", "<f4", 3), ("rgb", "u1", 3), ("confidence", "<f4")]
"""A vertex of dense/0.ply."""


@pytest.fixture(scope="module")
def run(rendered: Path, tmp_path_factory) -> tuple[RunResult, Path]:
    output = tmp_path_factory.mktemp("run") / "out"
    return reconstruct(rendered / "images", output), output


def other_photographs(folder: Path, count: int, **options) -> None:
    """Photographs of another scene, as other0.jpg ..."""
    from anchorsfm.synthetic import SceneConfig, make_scene, render_image

    scene = make_scene(SceneConfig(num_images=count, size_wh=(480, 360), **options))
    for k in range(count):
        Image.fromarray(render_image(scene, k)).save(folder / f"other{k}.jpg", quality=95)


def test_all_images_are_registered_where_they_were(run, rendered):
    result, output = run
    final = evaluate_poses(read_poses(output), read_poses(rendered / "truth.json"))
    assert final.num_registered == 5
    assert final.auc[0] > 0.95
    assert final.focal_error < 0.01
    in_memory = evaluate_poses(poses_of(result.models[0], result.images), read_poses(rendered / "truth.json"))
    assert np.allclose(in_memory.auc, final.auc)


def test_the_model_is_level(run, rendered):
    """Its z axis points up in the rendered room, where y points down, and the record says why."""
    result, output = run
    truth = read_poses(rendered / "truth.json")
    way = between_poses(truth.cam_from_world, result.models[0].cam_from_world)
    assert np.degrees(np.arccos(way.rotation[2] @ [0, -1, 0])) < 7  # the stated deviation is 3 degrees
    (model,) = json.loads((output / "report.json").read_text())["models"]
    assert model["up"]["source"] == "cameras" and 0 < model["up"]["deviation_deg"] < 10
    assert model["figures"]["top_view"]["up"] == [0, 0, 1]
    looks = result.models[0].cam_from_world[:, 2, :3].mean(axis=0)
    assert looks[1] > 0.8 and abs(looks[0]) < 0.01
    assert read_models(output)[0].is_level


def test_the_alignment_alone_is_good_and_written(run, rendered):
    _, output = run
    alignment = evaluate_poses(read_poses(output / "alignment"), read_poses(rendered / "truth.json"))
    assert alignment.num_registered == 5
    assert alignment.auc[2] > 0.85


def test_the_model_is_what_colmap_reads(run):
    _, output = run
    model = pycolmap.Reconstruction(str(output / "sparse" / "0"))
    assert sorted(image.name for image in model.images.values()) == [f"{k:04d}.jpg" for k in range(5)]
    assert model.num_points3D() > 300
    assert model.compute_mean_track_length() > 2.5
    assert model.compute_mean_reprojection_error() < 1.0
    assert np.ptp([point.color for point in model.points3D.values()], axis=0).min() > 60
    camera = model.cameras[1]
    assert (camera.width, camera.height) == (480, 360)
    recorded = {point: entry.error for point, entry in model.points3D.items()}
    model.update_point_3d_errors()
    assert np.allclose([model.points3D[k].error for k in recorded], list(recorded.values()), atol=0.02)


def test_the_dense_cloud_lies_on_the_surfaces(run, rendered):
    result, output = run
    header, body = (output / "dense" / "0.ply").read_bytes().split(b"end_header\n", 1)
    cloud = np.frombuffer(body, dtype=DENSE_POINT)
    assert len(cloud) == int(header.split(b"element vertex ")[1].split()[0]) > 20_000
    from scipy.spatial import cKDTree

    sparse = result.models[0].points
    distance, _ = cKDTree(cloud["xyz"]).query(sparse)
    assert np.median(distance) < 0.01 * np.linalg.norm(np.ptp(sparse, axis=0))


def test_report_and_settings_are_written(run):
    result, output = run
    report = json.loads((output / "report.json").read_text())
    assert [image["model"] for image in report["images"]] == [0] * 5
    assert report["models"][0]["points"] == len(result.models[0].points)
    assert report["pairs"] == {"ok": 10}
    assert {stage["stage"] for stage in report["stages"]} >= {
        "images",
        "dense depth",
        "tracks",
        "alignment",
        "adjustment",
    }
    assert "max_image_size: 1024" in (output / "config.yaml").read_text()
    assert len(report["pair_list"]["i"]) == 10 and min(report["pair_list"]["matches"]) >= 30
    (model,) = report["models"]
    assert len(model["figures"]["links"]["tree"]) == 4 and "alignment" in model["figures"]["links"]["tree_of"]
    assert [image["known"] > 0.3 for image in report["depth"]["images"]] == [True] * 5
    assert report["changed"] == [] and report["config"]["max_image_size"] == 1024
    page = (output / "report.html").read_text()
    assert "5 of 5 images registered" in page and page.count("data:image/jpeg") == 15


def test_a_second_run_gives_the_same_bytes(run, rendered, tmp_path):
    _, output = run
    reconstruct(rendered / "images", tmp_path / "cold")
    shutil.copytree(output, tmp_path / "warm")
    reconstruct(rendered / "images", tmp_path / "warm")
    for name in ("cameras.bin", "images.bin", "points3D.bin"):
        wanted = (output / "sparse" / "0" / name).read_bytes()
        assert (tmp_path / "cold" / "sparse" / "0" / name).read_bytes() == wanted
        assert (tmp_path / "warm" / "sparse" / "0" / name).read_bytes() == wanted
    wanted = json.loads((output / "report.json").read_text())
    for again in ("cold", "warm"):
        assert json.loads((tmp_path / again / "report.json").read_text()) | {"stages": wanted["stages"]} == wanted


def test_bad_files_and_strangers_among_good_photographs(rendered, tmp_path):
    folder = tmp_path / "photos" / "day one"
    shutil.copytree(rendered / "images", folder)
    (folder / "broken.jpg").write_bytes((rendered / "images" / "0001.jpg").read_bytes()[:9000])
    (folder / "text.jpg").write_text("not a picture")
    other_photographs(folder, 1, seed=11)
    warnings = RecordingProgress(SILENT)
    result = reconstruct(tmp_path / "photos", tmp_path / "out", PipelineConfig(dense=False), warnings)
    by_name = {image.name: image for image in result.report.images}
    assert result.report.num_registered == 5
    assert by_name["day one/0002.jpg"].model == 0
    assert "truncated" in by_name["day one/broken.jpg"].reason
    assert by_name["day one/text.jpg"].model is None
    assert "overlap" in by_name["day one/other0.jpg"].reason
    assert any("broken.jpg" in line for line in warnings.warnings)
    assert not (tmp_path / "out" / "dense").exists()


def test_two_scenes_give_two_models_the_larger_first(rendered, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(rendered / "images", folder)
    other_photographs(folder, 3, seed=11, arc_deg=25.0)
    result = reconstruct(folder, tmp_path / "out", PipelineConfig(dense=False))
    assert [len(model.image_index) for model in result.models] == [5, 3]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "8 of 8 images registered in 2 models" in page and not result.report.warnings
    second = pycolmap.Reconstruction(str(tmp_path / "out" / "sparse" / "1"))
    assert {image.name[:5] for image in second.images.values()} == {"other"}


def test_known_poses_and_intrinsics_are_kept(run, rendered, tmp_path):
    result, output = run
    known = KnownConfig(model=output / "sparse" / "0")
    fixed = reconstruct(rendered / "images", tmp_path / "out", PipelineConfig(dense=False, known=known))
    assert fixed.models[0].cameras == result.models[0].cameras and fixed.report.models[0].up is None
    assert np.abs(fixed.models[0].cam_from_world - result.models[0].cam_from_world).max() < 1e-9
    assert len(fixed.models[0].points) > 0.8 * len(result.models[0].points)


def test_rotation_without_translation_is_recognised(tmp_path):
    from anchorsfm.synthetic import SceneConfig, make_scene, render_image

    scene = make_scene(SceneConfig(num_images=1, size_wh=(960, 480), seed=3))
    wide = render_image(scene, 0)
    (tmp_path / "photos").mkdir()
    focal = scene.focal_px[0]
    y, x = np.mgrid[:360, :480] + 0.5
    for k, angle in enumerate(np.deg2rad([-6, 0, 6])):  # views of one plane-less panorama: the same centre
        ray = np.stack([(x - 240) / focal, (y - 180) / focal, np.ones_like(x)], axis=-1)
        turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        ray = ray @ turn.T
        import cv2

        u, v = (ray[..., 0] / ray[..., 2] * focal + 480, ray[..., 1] / ray[..., 2] * focal + 240)
        view = cv2.remap(wide, np.float32(u - 0.5), np.float32(v - 0.5), cv2.INTER_CUBIC)
        Image.fromarray(view).save(tmp_path / "photos" / f"{k}.png")
    with pytest.raises(NoReconstructionError, match="rotation"):
        reconstruct(tmp_path / "photos", tmp_path / "out", PipelineConfig(focal_px=float(focal)))


def test_inputs_that_cannot_work_say_why(tmp_path, rendered):
    single = tmp_path / "single"
    single.mkdir()
    shutil.copy(rendered / "images" / "0000.jpg", single)
    with pytest.raises(InputError, match="at least two"):
        reconstruct(single, tmp_path / "out")
    other_photographs(single, 1, seed=11)
    with pytest.raises(NoReconstructionError, match=r"overlap.*failed/report\.html"):
        reconstruct(single, tmp_path / "out")
    assert not (tmp_path / "out" / "sparse").exists()
    page = (tmp_path / "out" / "failed" / "report.html").read_text()
    assert "0 of 2 images registered" in page and "No model could be made" in page


def quick(**settings) -> PipelineConfig:
    """Settings that make a run short; what the tests below look at does not depend on them."""
    classical = ClassicalFrontend(dense=DenseConfig(size=200))
    return PipelineConfig(classical=classical, align=AlignConfig(niter1=60, niter2=60), **settings)


@pytest.fixture(scope="module")
def tracks_run(rendered, tmp_path_factory) -> tuple[RunResult, Path]:
    """A dense run whose poses come from the tracks; its cache serves the other short runs."""
    output = tmp_path_factory.mktemp("tracks") / "out"
    return reconstruct(rendered / "images", output, quick(mapper="tracks", keep_database=True)), output


def continued(tracks_run: tuple[RunResult, Path], tmp_path: Path) -> Path:
    """A fresh output folder with the features and matches of `tracks_run`."""
    shutil.copytree(tracks_run[1] / "cache", tmp_path / "out" / "cache")
    return tmp_path / "out"


def stages(output: Path) -> set[str]:
    return {stage["stage"] for stage in json.loads((output / "report.json").read_text())["stages"]}


def test_poses_from_tracks_make_a_model_and_a_dense_cloud(tracks_run, rendered):
    result, output = tracks_run
    found = evaluate_poses(read_poses(output), read_poses(rendered / "truth.json"))
    assert found.num_registered == 5 and found.auc[0] > 0.95
    assert not result.alignments and not (output / "alignment").exists()
    assert "mapper tracks" in stages(output) and "alignment" not in stages(output)
    from scipy.spatial import cKDTree

    body = (output / "dense" / "0.ply").read_bytes().split(b"end_header\n", 1)[1]
    cloud = np.frombuffer(body, dtype=DENSE_POINT)
    sparse = result.models[0].points
    distance, _ = cKDTree(cloud["xyz"]).query(sparse)
    assert len(cloud) > 5_000 and np.median(distance) < 0.02 * np.linalg.norm(np.ptp(sparse, axis=0))


@pytest.mark.parametrize("mapper", ["incremental", "global"])
def test_the_mappers_of_colmap_make_a_model(tracks_run, rendered, tmp_path, mapper):
    output = continued(tracks_run, tmp_path)
    result = reconstruct(rendered / "images", output, quick(mapper=mapper, dense=False))
    found = evaluate_poses(read_poses(output), read_poses(rendered / "truth.json"))
    assert found.num_registered == 5 and found.auc[0] > 0.9
    assert f"mapper {mapper}" in stages(output)
    assert not (output / "database.db").exists() and not (output / "dense").exists()
    assert len(result.report.models) == 1


def test_the_database_is_kept_for_colmap(tracks_run):
    _, output = tracks_run
    with pycolmap.Database.open(output / "database.db") as database:
        assert database.num_images() == 5 and database.num_cameras() == 1
        assert database.num_keypoints() > 1000 and database.num_inlier_matches() > 1000
        assert {image.name for image in database.read_all_images()} == {f"{k:04d}.jpg" for k in range(5)}


def test_deviations_are_written_and_are_those_of_the_report(tracks_run):
    result, output = tracks_run
    written = json.loads((output / "uncertainty.json").read_text())
    report = json.loads((output / "report.json").read_text())
    assert written == [model["uncertainty"] for model in report["models"]]
    (model,) = written
    assert [image["name"] for image in model["images"]] == [f"{k:04d}.jpg" for k in range(5)]
    assert all(0 < image["position_share"] < 0.01 and not image["weak"] for image in model["images"])
    assert all(image["position_m"] is None for image in model["images"])
    assert len(model["camera_params"]) == len(result.models[0].cameras)
    assert len(model["camera_params"][0]) == len(result.models[0].cameras[0].params)


def test_a_given_camera_model_is_kept(tracks_run, rendered, tmp_path):
    output = continued(tracks_run, tmp_path)
    config = quick(mapper="tracks", dense=False, camera_model="OPENCV", refine_keypoints="off", keep_cache=False)
    result = reconstruct(rendered / "images", output, config)
    assert not (output / "cache").exists() and (output / "sparse" / "0").exists()
    assert [camera.model for camera in result.models[0].cameras] == ["OPENCV"]
    assert result.report.models[0].lenses == ()
    assert evaluate_poses(read_poses(output), read_poses(rendered / "truth.json")).auc[0] > 0.9


def in_another_frame(source: Path, target: Path) -> np.ndarray:
    """Write a model turned, shifted and ten times as large; the centres of its cameras by name order."""
    model = pycolmap.Reconstruction(str(source))
    turn = pycolmap.Rotation3d(np.array([0.1, 0.7, -0.2, 0.68]))
    model.transform(pycolmap.Sim3d(10.0, turn, np.array([100.0, -50.0, 30.0])))
    target.mkdir()
    model.write_binary(str(target))
    images = sorted(model.images.values(), key=lambda image: image.name)
    return np.array([image.projection_center() for image in images])


def test_known_positions_give_the_model_their_frame_and_scale(tracks_run, rendered, tmp_path):
    output = continued(tracks_run, tmp_path)
    centres = in_another_frame(tracks_run[1] / "sparse" / "0", tmp_path / "known")
    known = KnownConfig(model=tmp_path / "known", freeze_poses=False, freeze_intrinsics=False, position_sigma=0.02)
    result = reconstruct(rendered / "images", output, quick(known=known, dense=False))
    (model,) = result.models
    size = np.linalg.norm(np.ptp(centres, axis=0))
    assert size > 5 and len(model.image_index) == 5
    assert np.linalg.norm(camera_centres(model.cam_from_world) - centres, axis=1).max() < 0.003 * size
    images = result.report.models[0].uncertainty.images
    assert all(0 < image.position_m < 0.1 for image in images)


def test_known_poses_and_a_mapper_that_finds_its_own_are_refused(run, rendered, tmp_path):
    known = KnownConfig(model=run[1] / "sparse" / "0")
    with pytest.raises(InputError, match=r"--mapper tracks.*--known\.no-use-poses"):
        reconstruct(rendered / "images", tmp_path / "out", PipelineConfig(mapper="tracks", known=known))
    assert not (tmp_path / "out").exists()


def test_known_intrinsics_alone_serve_every_mapper(tracks_run, rendered, tmp_path):
    known = KnownConfig(model=tracks_run[1] / "sparse" / "0", use_poses=False)
    output = continued(tracks_run, tmp_path)
    result = reconstruct(rendered / "images", output, quick(mapper="incremental", dense=False, known=known))
    assert result.models[0].cameras == tracks_run[0].models[0].cameras
    assert result.report.models[0].uncertainty.camera_params == (None,)


def test_known_intrinsics_follow_their_photographs_where_cameras_are_told_apart(
    tracks_run, rendered, tmp_path, monkeypatch
):
    def apart(images, scene, config):
        return replace(images, camera_index=np.arange(images.num_images))

    monkeypatch.setattr("anchorsfm.pipeline.told_apart", apart)
    known = KnownConfig(model=tracks_run[1] / "sparse" / "0", use_poses=False)
    output = continued(tracks_run, tmp_path)
    result = reconstruct(rendered / "images", output, quick(mapper="tracks", dense=False, known=known))
    (model,) = result.models
    assert model.cameras == tracks_run[0].models[0].cameras * len(model.image_index)


def test_the_seed_reaches_the_robust_estimators():
    """Which random samples the verification of a pair draws is part of what its cache entry depends on."""
    matching = [chosen_frontend(PipelineConfig(seed=seed)).matching for seed in (0, 3)]
    assert [m.seed for m in matching] == [0, 3]
    rng = np.random.default_rng(0)
    xy_i = rng.uniform(-500, 500, (60, 2))
    xy_j = xy_i + np.stack([rng.uniform(5, 60, 60), rng.normal(0, 3.0, 60)], axis=1)  # too noisy to have one answer
    rows = np.stack([np.arange(60)] * 2, axis=1).astype(np.int32)
    found = [verify(xy_i, xy_j, rows, replace(m, min_inliers=8)) for m in matching]
    assert not np.array_equal(found[0].fundamental, found[1].fundamental)


def test_wide_views_of_which_the_ends_share_nothing_keep_one_scale(photos: Path, tmp_path: Path) -> None:
    truth = read_poses(photos / "fountain-P11" / "gt.json")
    chosen = ["0000.jpg", "0005.jpg", "0010.jpg"]
    files = [photos / "fountain-P11" / "images" / name for name in chosen]
    result = reconstruct(files, tmp_path, PipelineConfig(dense=False))
    pairs = result.report.pairs
    assert pairs["ok"] == 2, "only the middle one overlaps with both others"
    places = camera_centres(poses_of(result.models[0], result.images).cam_from_world)
    true_places = camera_centres(truth.cam_from_world[[truth.names.index(name) for name in chosen]])

    def ratio(centres: np.ndarray) -> float:
        return float(np.linalg.norm(centres[1] - centres[0]) / np.linalg.norm(centres[2] - centres[1]))

    assert ratio(places) == pytest.approx(ratio(true_places), rel=0.05)
