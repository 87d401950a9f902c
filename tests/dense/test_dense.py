"""Dense depth maps and clouds: parts on exact input, the whole on rendered photographs with known depth."""

import hashlib
import json
import shutil
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pycolmap
import pytest
import trimesh
import tyro
from PIL import Image
from scipy.spatial import cKDTree

from anchorsfm.align.config import AlignConfig
from anchorsfm.cli.reconstruct import Reconstruct
from anchorsfm.colmap.meshing import poisson_mesh
from anchorsfm.dense.cells import CellMerger
from anchorsfm.dense.config import CloudConfig
from anchorsfm.dense.consistency import Witness, compare
from anchorsfm.dense.maps import DepthMaps
from anchorsfm.dense.neighbours import choose_neighbours
from anchorsfm.dense.pinhole import grid_colours, make_pinhole, to_pinhole
from anchorsfm.dense.polish import Photo, Polished, polish
from anchorsfm.dense.specks import without_specks
from anchorsfm.dense.surface import fit_planes, normals, on_surface
from anchorsfm.dense.views import DenseView, dense_view
from anchorsfm.frontend.classical import ClassicalFrontend
from anchorsfm.frontend.classical.config import DenseConfig
from anchorsfm.geometry.transforms import camera_centres, fit_similarity, invert
from anchorsfm.io.store import Store
from anchorsfm.pipeline import reconstruct
from anchorsfm.run.config import PipelineConfig
from anchorsfm.scene.alignment import AlignmentResult, SolverStatus, StageHistory
from anchorsfm.scene.errors import InputError, StorageError
from anchorsfm.scene.images import ImageGrid, ImageSet
from anchorsfm.scene.progress import Progress
from anchorsfm.scene.reconstruction import Camera, Reconstruction, Tracks
from anchorsfm.stereo.sweep import GridView
from anchorsfm.synthetic import SceneConfig, make_scene, render_depth, render_image
from anchorsfm.synthetic.scenes import cast_pixels, project
from cluster_tools import SetsAside
from golden_scene import golden_scene

NOTHING = np.zeros(0)
SKIPPED = StageHistory(loss=NOTHING, fallback_loss=NOTHING, total=NOTHING, status=SolverStatus.SKIPPED, method="none")


def recorded_result(data, views):
    return AlignmentResult(
        image_index=np.arange(6),
        cam_from_world=invert(data["cam2w"][:, :3].astype(float)),
        focal_px=data["K"][:, 0, 0].astype(float),
        base_focal_px=np.array([view.focal_px for view in views]),
        principal_point_px=data["K"][:, :2, 2].astype(float),
        anchor_start=np.arange(7) * 192,
        anchor_depth=data["anchor_depthmaps"].ravel().astype(float),
        points=np.zeros((0, 3)),
        point_view=np.zeros(0, np.int64),
        point_xy=np.zeros((0, 2)),
        point_confidence=NOTHING,
        coarse=SKIPPED,
        fine=SKIPPED,
        pose_known=np.zeros(6, bool),
    )


def test_depth_of_an_alignment_agrees_with_recorded(golden):
    data = np.load(golden / "sparse_scene_dense.npz")
    views = golden_scene(golden, double=False).views
    result = recorded_result(data, views)
    for k, canonical in enumerate(views):
        view = dense_view(result, k, canonical)
        np.testing.assert_allclose(view.depth[::4, ::4], data["depthmaps"][k], rtol=2e-4)
        np.testing.assert_allclose(view.points(0.0)[::4, ::4], data["pts3d"][k], atol=5e-4)
        np.testing.assert_allclose(view.confidence[::4, ::4], data["conf"][k], rtol=1e-5)


# ------------------------------------------------------------------------------- matching and checking of exact views


@pytest.fixture(scope="module")
def exact():
    """Four small photographs of a scene, and their true inverse depth."""
    scene = make_scene(SceneConfig(num_images=4, size_wh=(240, 180), arc_deg=24.0, seed=5))
    photos, truth = [], []
    for image in range(4):
        rgb = render_image(scene, image)
        grey = np.asarray(Image.fromarray(rgb).convert("L"))
        focal, centre = float(scene.focal_px[image]), tuple(scene.principal_point_px.tolist())
        view = GridView(grey=grey, focal_xy=(focal, focal), principal_point=centre)
        photos.append(Photo(rgb=rgb, grid_view=view, cam_from_world=scene.cam_from_world[image]))
        truth.append((1 / render_depth(scene, image)).astype(np.float32))
    return photos, truth


def test_matching_corrects_depth_and_fills_in_what_was_unknown(exact):
    photos, truth = exact
    rng = np.random.default_rng(0)
    wrong = truth[1] * (1 + 0.01 * rng.standard_normal(truth[1].shape)).astype(np.float32)
    weight = np.ones_like(wrong)
    weight[60:80, 40:70] = 0
    wrong[60:80, 40:70] = 0
    found = polish(photos[1], [photos[0], photos[2], photos[3]], wrong, weight)
    good = found.correlation > 0.6
    error = np.abs(found.inverse_depth / truth[1] - 1)
    assert good.mean() > 0.65
    assert (error[good] < 0.01).mean() > 0.83 and np.median(error[good]) < 0.0025
    hole = good[60:80, 40:70]
    assert hole.mean() > 0.8 and np.median(error[60:80, 40:70][hole]) < 0.01


def witness(photo, inverse_depth, correlation=1.0):
    matched = Polished(inverse_depth=inverse_depth, correlation=np.full_like(inverse_depth, correlation))
    return Witness(photo=photo, polished=matched)


def test_views_agree_on_true_depth_and_contradict_what_floats(exact):
    photos, truth = exact
    config = CloudConfig()
    others = [witness(photos[k], truth[k]) for k in (0, 2, 3)]
    agreement = compare(witness(photos[1], truth[1]), others, config)
    assert (agreement.agreeing >= 2).mean() > 0.6
    assert (agreement.contradicting > 0).mean() < 0.03
    floating = truth[1] * np.float32(1.3)
    agreement = compare(witness(photos[1], floating), others, config)
    assert (agreement.agreeing >= 1).mean() < 0.05
    assert (agreement.contradicting >= 2).mean() > 0.5
    behind = truth[1] / np.float32(1.3)
    assert (compare(witness(photos[1], behind), others, config).contradicting >= 2).mean() < 0.1
    untrusted = [witness(photos[k], truth[k], correlation=0.0) for k in (0, 2, 3)]
    assert not compare(witness(photos[1], truth[1]), untrusted, config).agreeing.any()


def test_agreeing_views_are_averaged_along_the_ray(exact):
    photos, truth = exact
    off = [t * np.float32(1 + s) for t, s in zip(truth, (0.004, -0.004, 0.004, 0.004), strict=True)]
    agreement = compare(witness(photos[1], off[1]), [witness(photos[k], off[k]) for k in (0, 2, 3)], CloudConfig())
    full = agreement.agreeing == 3
    assert full.mean() > 0.3
    assert np.median(agreement.inverse_depth[full] / truth[1][full] - 1) == pytest.approx(0.002, abs=4e-4)


# ------------------------------------------------------------------------------------------------ planes and outlines


def test_planes_give_exact_normals():
    height, width, focal, centre = 40, 60, 50.0, np.array([31.0, 18.0])
    x, y = np.meshgrid((np.arange(width) + 0.5 - centre[0]) / focal, (np.arange(height) + 0.5 - centre[1]) / focal)
    normal = np.array([0.2, -0.5, -0.9])
    normal /= np.linalg.norm(normal)
    inverse = (-(normal[0] * x + normal[1] * y + normal[2]) / 3.0).astype(np.float32)
    grey = np.full((height, width, 3), 128, np.uint8)
    planes = fit_planes(inverse, np.ones((height, width), bool), grey)
    found = normals(planes, focal, centre)
    np.testing.assert_allclose(planes.value, inverse, rtol=1e-4)
    inner = found[4:-4, 4:-4].reshape(-1, 3)
    assert np.degrees(np.arccos(np.clip(inner @ normal, -1, 1))).max() < 1.0


@pytest.mark.parametrize("sky_is_masked", [False, True])
def test_a_fringe_of_sky_with_the_depth_of_the_roof_is_removed(sky_is_masked):
    """A dark roof below a bright sky: three rows of sky have the roof's depth, the rest of the sky none."""
    rng = np.random.default_rng(1)
    height, width, edge, fringe = 80, 120, 40, 3
    rgb = np.full((height, width, 3), 230, np.uint8)
    rgb[edge:] = np.clip(90 + 15 * rng.standard_normal((height - edge, width, 1)), 0, 255)
    valid = np.zeros((height, width), bool)
    valid[edge - fringe :] = True
    inverse = np.full((height, width), 0.25, np.float32)
    kept = on_surface(inverse, fit_planes(inverse, valid, rgb), valid, rgb, ~valid if sky_is_masked else None)
    assert kept[:edge].mean() < 0.01
    assert kept[edge:].mean() > 0.97


def test_a_mask_that_ends_on_a_wall_takes_nothing_beside_it_along():
    """A quarter of the wall is unknown."""
    rng = np.random.default_rng(1)
    rgb = np.clip(120 + 3 * rng.standard_normal((80, 120, 1)), 0, 255).astype(np.uint8).repeat(3, axis=2)
    masked = np.zeros((80, 120), bool)
    masked[:40] = True
    valid = ~masked & (rng.uniform(size=masked.shape) > 0.25)
    inverse = np.full((80, 120), 0.25, np.float32)
    planes = fit_planes(inverse, valid, rgb)
    assert on_surface(inverse, planes, valid, rgb, masked)[valid].mean() > 0.97
    assert on_surface(inverse, planes, valid, rgb)[40:42][valid[40:42]].mean() < 0.5


def test_a_thin_pole_in_front_of_nothing_is_kept():
    rgb = np.full((60, 60, 3), 230, np.uint8)
    rgb[:, 28:32] = 60
    valid = np.zeros((60, 60), bool)
    valid[:, 28:32] = True
    inverse = np.full((60, 60), 0.5, np.float32)
    assert on_surface(inverse, fit_planes(inverse, valid, rgb), valid, rgb)[:, 28:32].all()


# -------------------------------------------------------------------------------------------------- merging and specks


def plane_points(spacing, left=0.0, z=0.0, extent=1.0):
    steps = np.arange(0, extent, spacing) + 1e-4
    x, y = np.meshgrid(left + steps, steps)
    return np.stack([x.ravel(), y.ravel(), np.full(x.size, z)], axis=1)


def add(merger, xyz, size, grey=100, normal=(0, 0, -1), confidence=3.0):
    count = len(xyz)
    merger.add(
        xyz,
        np.tile(np.array(normal, float), (count, 1)),
        np.full((count, 3), grey, np.uint8),
        np.full(count, confidence),
        np.full(count, size),
    )


def test_points_of_a_cell_become_their_weighted_mean():
    merger = CellMerger(np.zeros(3), 1000)
    add(merger, np.array([[0.2, 0.2, 0.2]]), 1.0, grey=50, confidence=3.0)
    add(merger, np.array([[0.6, 0.2, 0.2], [-0.4, 0.2, 0.2]]), 1.0, grey=250, normal=(0, -1, 0), confidence=1.0)
    cloud = merger.finish()
    order = np.argsort(cloud.xyz[:, 0])
    np.testing.assert_allclose(cloud.xyz[order], [[-0.4, 0.2, 0.2], [0.3, 0.2, 0.2]], atol=1e-6)
    assert cloud.rgb[order, 0].tolist() == [250, 100]
    assert cloud.confidence[order].tolist() == [1.0, 2.0]
    np.testing.assert_allclose(cloud.normal[order[1]], np.array([0, -1, -3]) / np.sqrt(10), atol=1e-6)


def test_coarse_points_give_way_to_finer_ones_of_the_same_place():
    merger = CellMerger(np.array([5.0, 5, 5]), 100_000)
    add(merger, plane_points(1 / 64, extent=0.5), 1 / 64, grey=10)
    add(merger, plane_points(1 / 16), 1 / 16, grey=200)
    cloud = merger.finish()
    coarse = cloud.cell > 1 / 32
    assert coarse.sum() == 16 * 16 - 8 * 8 and (~coarse).sum() == 32 * 32
    assert cloud.xyz[coarse].max(axis=1).min() > 0.5 - 1 / 16


def test_clouds_that_would_be_too_large_get_coarser_not_patchy():
    merger = CellMerger(np.zeros(3), 400)
    add(merger, plane_points(1 / 32), 1 / 32)
    cloud = merger.finish()
    assert len(cloud.xyz) == 256 and cloud.cell[0] == 1 / 16
    np.testing.assert_allclose(np.sort(cloud.xyz[:, 0])[::16], np.arange(16) / 16 + 1 / 64 + 1e-4, atol=1e-6)
    assert np.ptp(cloud.xyz, axis=0)[:2] == pytest.approx([15 / 16] * 2)


def test_no_points_no_cloud():
    assert len(without_specks(CellMerger(np.zeros(3), 10).finish()).xyz) == 0


def test_specks_are_dropped_and_surfaces_of_any_cell_size_stay():
    merger = CellMerger(np.zeros(3), 100_000)
    add(merger, plane_points(1 / 64), 1 / 64)
    add(merger, plane_points(1 / 16, 1.0, 0.0, 2.0), 1 / 16)  # goes on where the first one ends
    add(merger, plane_points(1 / 64, 0.5, 0.5, 0.05), 1 / 64, grey=255)
    add(merger, np.array([[-3.0, -3, 1]]), 1 / 16, grey=255)
    merged = merger.finish()
    cloud = without_specks(merged)
    assert (merged.rgb == 255).any() and not (cloud.rgb == 255).any()
    assert len(cloud.xyz) == (merged.rgb[:, 0] != 255).sum()


# ---------------------------------------------------------------------------------------------- neighbours and pictures


def model_on_a_line(positions, seen):
    """Cameras that look along z; `seen[k]` are the rows of the points that view k observes."""
    poses = np.stack([np.column_stack([np.eye(3), [-x, 0, 0]]) for x in positions])
    points = np.random.default_rng(0).uniform([-1, -1, 4], [1, 1, 6], (60, 3))
    obs = sorted((point, view) for view, rows in enumerate(seen) for point in rows)
    return Reconstruction(
        image_index=np.arange(len(positions)) * 2,
        cam_from_world=poses,
        cameras=(Camera(model="SIMPLE_PINHOLE", width=100, height=100, params=(100.0, 50.0, 50.0)),),
        camera_index=np.zeros(len(positions), np.int64),
        points=points,
        rgb=np.zeros((60, 3), np.uint8),
        error_px=np.zeros(60),
        tracks=Tracks(
            obs_point=np.array([point for point, _ in obs]),
            obs_image=np.array([2 * view for _, view in obs]),
            obs_xy=np.zeros((len(obs), 2)),
        ),
    )


def test_neighbours_share_points_and_stand_apart():
    everything = range(60)
    model = model_on_a_line([0.0, 0.001, 0.5, 1.0, 9.0], [everything] * 4 + [range(5)])
    neighbours = choose_neighbours(model, 2)
    assert neighbours[0].tolist() == [2, 3] or neighbours[0].tolist() == [3, 2]  # not the one at the same place
    assert len(neighbours[4]) == 0  # too few points in common
    assert all(k not in row for k, row in enumerate(neighbours))
    assert len(camera_centres(model.cam_from_world)) == 5


@pytest.fixture
def photographs(tmp_path):
    """Red grows with x and green with y; twice the size of the grid and shifted by a grid pixel."""
    x, y = np.meshgrid(np.arange(132), np.arange(100))
    for name in ("a.png", "b.png"):
        Image.fromarray(np.stack([x, 2 * y, 0 * x], -1).astype(np.uint8)).save(tmp_path / name)
    images = ImageSet(
        root=tmp_path,
        names=("a.png", "b.png"),
        size_wh=np.tile([132, 100], (2, 1)),
        camera_index=np.arange(2),
        focal_prior_px=np.full(2, np.nan),
        digests=tuple(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("a.png", "b.png")),
    )
    grid = ImageGrid(size_wh=np.tile([64, 48], (2, 1)), scale=np.full((2, 2), 0.5), offset=np.full((2, 2), -1.0))
    return images, grid


def test_colours_are_taken_at_the_right_pixels(photographs):
    images, grid = photographs
    colours = grid_colours(images, grid, 0).astype(float)
    x = grid.to_image(0, np.stack([np.arange(64) + 0.5, np.zeros(64)], 1))[:, 0] - 0.5
    np.testing.assert_allclose(colours[10, :, 0], x, atol=1.0)
    assert colours[:, 5, 1].tolist() == pytest.approx((4 * np.arange(48) + 2 * 2.5).tolist(), abs=2.0)
    images.path(1).unlink()
    with pytest.raises(InputError, match=r"b\.png"):
        grid_colours(images, grid, 1)


def test_depth_of_a_distorted_camera_moves_to_the_pinhole_picture():
    """Depth that grows with the column of the photograph, seen through a lens that squeezes the border."""
    grid = ImageGrid(size_wh=np.array([[80, 60]]), scale=np.full((1, 2), 0.5), offset=np.zeros((1, 2)))
    straight = Camera(model="SIMPLE_RADIAL", width=160, height=120, params=(100.0, 80.0, 60.0, 0.0))
    bent = Camera(model="SIMPLE_RADIAL", width=160, height=120, params=(100.0, 80.0, 60.0, -0.2))
    centre = np.array([40.0, 30.0])
    assert make_pinhole(0, straight, 50.0, centre, grid).is_grid
    pinhole = make_pinhole(0, bent, 50.0, centre, grid)
    assert not pinhole.is_grid
    depth = np.tile(1 / (0.2 + np.arange(80) / 400), (60, 1)).astype(np.float32)
    view = DenseView(
        depth=depth,
        confidence=np.ones_like(depth),
        cam_from_world=np.eye(4)[:3],
        focal_px=50.0,
        principal_point_px=centre,
    )
    moved = to_pinhole(view, pinhole, grid)
    u = (np.array([10.5, 40.5, 65.5]) - 40) / 50
    v = 0.5 / 50
    seen_at = 40 + 50 * u * (1 - 0.2 * (u**2 + v**2)) - 0.5
    np.testing.assert_allclose(1 / moved.depth[30, [10, 40, 65]], 0.2 + seen_at / 400, rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"min_views": 0}, "min_views = 0"),
        ({"resolution": 0.0}, "resolution = 0.0"),
        ({"max_depth_error": -1.0}, "max_depth_error = -1.0"),
        ({"min_correlation": 1.0}, "min_correlation = 1.0"),
    ],
)
def test_senseless_settings_are_named(settings, words):
    with pytest.raises(InputError, match=words):
        CloudConfig(**settings)


# ------------------------------------------------------------------------------------------------------ the whole thing


SETTINGS = CloudConfig(depth_maps=True, mesh="poisson")


def settings(**changes) -> PipelineConfig:
    dense = replace(DenseConfig(), size=200)
    quick = AlignConfig(niter1=60, niter2=60)
    return PipelineConfig(**{"classical": ClassicalFrontend(dense=dense), "align": quick, "cloud": SETTINGS, **changes})


@pytest.fixture(scope="module")
def run(rendered, tmp_path_factory):
    output = tmp_path_factory.mktemp("dense") / "out"
    return reconstruct(rendered / "images", output, settings()), output


def truth_frame(xyz, model, scene):
    scale, pose = fit_similarity(camera_centres(model.cam_from_world), camera_centres(scene.cam_from_world))
    return scale * (xyz @ pose[:, :3].T) + pose[:, 3]


def read_cloud(path):
    header, body = path.read_bytes().split(b"end_header\n", 1)
    kinds = [("xyz", "<f4", 3), ("normal", "<f4", 3), ("rgb", "u1", 3), ("confidence", "<f4")]
    cloud = np.frombuffer(body, dtype=kinds)
    assert len(cloud) == int(header.split(b"element vertex ")[1].split()[0])
    return cloud


def test_the_cloud_lies_on_the_surfaces_and_covers_them(run):
    result, output = run
    scene = make_scene(SceneConfig(num_images=5, size_wh=(480, 360), arc_deg=50.0, seed=3))
    cloud = read_cloud(output / "dense" / "0.ply")
    model = result.models[0]
    xyz = truth_frame(cloud["xyz"].astype(float), model, scene)
    error = np.full(len(xyz), np.inf)
    for image in range(5):
        xy, depth = project(scene, image, xyz)
        rows = np.flatnonzero((depth > 0.1) & (xy >= 0).all(axis=1) & (xy < (480, 360)).all(axis=1))
        error[rows] = np.minimum(error[rows], np.abs(depth[rows] / cast_pixels(scene, image, xy[rows]).distance - 1))
    assert (error < 0.01).mean() > 0.9  # at 200 pixels; 0.99 at 512
    assert len(cloud) > 10_000
    assert cloud["rgb"].std(axis=0).min() > 20
    assert (cloud["confidence"] > 1).mean() > 0.9


def test_normals_point_to_the_cameras_and_stand_on_the_surfaces(run):
    result, output = run
    scene = make_scene(SceneConfig(num_images=5, size_wh=(480, 360), arc_deg=50.0, seed=3))
    cloud, model = read_cloud(output / "dense" / "0.ply"), result.models[0]
    centres = camera_centres(model.cam_from_world)
    assert np.linalg.norm(cloud["normal"], axis=1) == pytest.approx(1.0, abs=1e-4)
    to_middle = centres.mean(axis=0) - cloud["xyz"]
    assert ((to_middle * cloud["normal"]).sum(axis=1) > 0).mean() > 0.97
    xyz = truth_frame(cloud["xyz"].astype(float), model, scene)
    _, pose = fit_similarity(camera_centres(model.cam_from_world), camera_centres(scene.cam_from_world))
    xy, depth = project(scene, 2, xyz)
    inside = np.flatnonzero((depth > 0.1) & (xy >= 0).all(axis=1) & (xy < (480, 360)).all(axis=1))
    hits = cast_pixels(scene, 2, xy[inside])
    seen = np.abs(depth[inside] / hits.distance - 1) < 0.005
    cosine = ((cloud["normal"][inside] @ pose[:, :3].T) * hits.normal).sum(axis=1)[seen]
    assert np.degrees(np.arccos(np.clip(np.median(cosine), -1, 1))) < 12


def test_depth_maps_are_what_their_cameras_say(run):
    result, output = run
    cameras = json.loads((output / "dense" / "depth" / "cameras.json").read_text())
    assert sorted(cameras) == [f"{k:04d}.jpg" for k in range(5)]
    scene = make_scene(SceneConfig(num_images=5, size_wh=(480, 360), arc_deg=50.0, seed=3))
    scale, _ = fit_similarity(camera_centres(result.models[0].cam_from_world), camera_centres(scene.cam_from_world))
    for image, (name, camera) in enumerate(sorted(cameras.items())):
        depth = np.load(output / "dense" / "depth" / f"{name}.depth.npy", allow_pickle=False)
        confidence = np.load(output / "dense" / "depth" / f"{name}.confidence.npy", allow_pickle=False)
        assert depth.dtype == confidence.dtype == np.float32
        assert depth.shape == confidence.shape == (camera["height"], camera["width"])
        known = depth > 0
        assert np.array_equal(known, confidence > 0) and known.mean() > 0.3
        y, x = np.nonzero(known)
        zoom = 480 / camera["width"]
        true = cast_pixels(scene, image, np.stack([(x + 0.5) * zoom, (y + 0.5) * zoom], axis=1)).distance
        assert np.median(np.abs(scale * depth[known] / true - 1)) < 0.004
        assert camera["focal_px"] * zoom == pytest.approx(scene.focal_px[image], rel=0.01)
        assert np.array(camera["cam_from_world"]).shape == (3, 4) and camera["model"] == 0


def test_the_mesh_is_near_the_cloud(run):
    _, output = run
    mesh = trimesh.load(output / "dense" / "0-mesh.ply", process=False)
    cloud = read_cloud(output / "dense" / "0.ply")["xyz"]
    assert len(mesh.faces) > 1000
    distance, _ = cKDTree(cloud).query(mesh.vertices)
    assert np.median(distance) < 0.01 * np.linalg.norm(np.ptp(cloud, axis=0))
    assert not list((output / "dense").glob(".*"))


def test_each_view_can_be_looked_at_once_and_again(run):
    result, _ = run
    (maps,) = result.depth_maps
    assert len(maps) == 5
    first, again = list(maps), list(maps)
    assert [clean.image for clean in first] == list(range(5))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.view.depth, b.view.depth)
        np.testing.assert_array_equal(a.view.confidence, b.view.confidence)
        assert a.rgb.shape == (*a.view.depth.shape, 3)


class Stages(Progress):
    """Stages and their steps."""

    def __init__(self):
        self.steps = {}

    @contextmanager
    def stage(self, description, total=None):
        self.steps[description] = [total, 0]

        def advance(count):
            self.steps[description][1] += count

        yield advance


def test_matching_continues_where_it_was_to_the_same_depth(run, tmp_path):
    result, output = run
    shutil.copytree(output / "cache" / "dense-depth", tmp_path / "dense-depth")
    stored = sorted((tmp_path / "dense-depth").iterdir())
    assert len(stored) == 5
    whole = [path.read_bytes() for path in stored]
    stored[0].unlink()
    stored[3].write_bytes(whole[3][:500])
    before = {path.name: path.stat().st_mtime_ns for path in stored[1:]}
    (made,) = result.depth_maps
    progress = Stages()
    maps = DepthMaps(made.depths, result.models[0], made.scene, made.images, made.grid, made.config, Store(tmp_path))
    maps.match(progress)
    assert progress.steps == {"matching depth": [5, 5]}
    assert [path.read_bytes() for path in stored] == whole
    changed = [path.name for path in stored[1:] if path.stat().st_mtime_ns != before[path.name]]
    assert changed == [stored[3].name]
    np.testing.assert_array_equal(maps.clean(2).view.depth, made.clean(2).view.depth)
    unstored = DepthMaps(made.depths, result.models[0], made.scene, made.images, made.grid, made.config, Store(None))
    np.testing.assert_array_equal(unstored.clean(0).view.depth, made.clean(0).view.depth)


def test_of_a_view_that_kills_workers_no_depth_is_known_in_this_run(run, tmp_path):
    result, output = run
    shutil.copytree(output / "cache" / "dense-depth", tmp_path / "dense-depth")
    (made,) = result.depth_maps
    store = Store(tmp_path)
    store.executor = executor = SetsAside("matching depth")
    maps = DepthMaps(made.depths, result.models[0], made.scene, made.images, made.grid, made.config, store)
    maps.match()
    known = {made.images.names[clean.image]: bool((clean.view.confidence > 0).any()) for clean in maps}
    assert known == {name: name != executor.name for name in made.images.names}
    assert len(list((tmp_path / "dense-depth-of-view").iterdir())) == 4, "nobody takes it for how it was matched"


def test_large_sets_get_a_cloud_only_if_it_is_asked_for(run, rendered, tmp_path, monkeypatch):
    _, output = run
    shutil.copytree(output, tmp_path / "out")
    monkeypatch.setattr("anchorsfm.run.checks.MAX_IMAGES_BY_DEFAULT", 4)
    result = reconstruct(rendered / "images", tmp_path / "out", settings())
    assert any("add --dense" in warning for warning in result.report.warnings)
    assert result.depth_maps == () and not (tmp_path / "out" / "dense").exists()


def test_flags_of_the_command_line():
    def parsed(*flags) -> PipelineConfig:
        return tyro.cli(Reconstruct, args=["photos", "-o", "out", *flags]).configured()

    assert parsed().dense is None
    assert parsed("--dense").dense is True
    assert parsed("--no-dense").dense is False
    chosen = parsed("--cloud.mesh", "poisson", "--cloud.depth-maps", "--cloud.min-views", "3").cloud
    assert chosen == CloudConfig(mesh="poisson", depth_maps=True, min_views=3)
    with pytest.raises(InputError, match="--dense and --no-dense"):
        parsed("--dense", "--no-dense")


def test_meshing_that_is_not_in_the_build_is_named_before_any_work(rendered, tmp_path):
    if hasattr(pycolmap, "sparse_delaunay_meshing"):
        pytest.skip("this build has it")
    with pytest.raises(InputError, match=r"--cloud\.mesh delaunay .* use --cloud\.mesh poisson"):
        reconstruct(rendered / "images", tmp_path / "out", settings(cloud=CloudConfig(mesh="delaunay")))
    assert not (tmp_path / "out").exists()


def test_a_mesh_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "cloud.ply").write_text("not a cloud")
    with pytest.raises(StorageError, match=r"mesh\.ply"):
        poisson_mesh(tmp_path / "cloud.ply", tmp_path / "mesh.ply", 100)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cloud.ply"]


def test_two_photographs_make_a_cloud(run, rendered, tmp_path):
    photos = [rendered / "images" / name for name in ("0001.jpg", "0002.jpg")]
    result = reconstruct(photos, tmp_path / "out", settings(cloud=CloudConfig()))
    assert len(result.depth_maps[0]) == 2
    assert len(read_cloud(tmp_path / "out" / "dense" / "0.ply")) > 3000
    assert sorted(path.name for path in (tmp_path / "out" / "dense").iterdir()) == ["0.ply", "pictures.safetensors"]
