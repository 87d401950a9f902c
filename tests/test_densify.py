"""Dense depth, cleaning and clouds."""

import numpy as np
import pytest
from PIL import Image

from anchorsfm.align import AlignConfig, align_scene
from anchorsfm.densify import (
    DenseCloud,
    DenseView,
    clean_confidence,
    dense_cloud,
    dense_views,
    grid_colours,
    point_colours,
    voxel_cloud,
)
from anchorsfm.geometry.transforms import invert
from anchorsfm.scene.alignment import AlignmentResult, SolverStatus, StageHistory
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.images import ImageGrid, ImageSet
from golden_scene import golden_scene
from oval_scene import all_pairs, oval_scene

NOTHING = np.zeros(0)
SKIPPED = StageHistory(loss=NOTHING, fallback_loss=NOTHING, total=NOTHING, status=SolverStatus.SKIPPED, method="none")


def recorded_result(data):
    return AlignmentResult(
        image=np.arange(6),
        cam_from_world=invert(data["cam2w"][:, :3].astype(float)),
        focal_px=data["K"][:, 0, 0].astype(float),
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


def test_dense_scene_agrees_with_recorded(golden):
    data = np.load(golden / "sparse_scene_dense.npz")
    views = dense_views(recorded_result(data), golden_scene(golden, double=False).views)
    cleaned = clean_confidence(views, pixel_centre=0.0)
    for k, view in enumerate(views):
        np.testing.assert_allclose(view.depth[::4, ::4], data["depthmaps"][k], rtol=2e-4)
        np.testing.assert_allclose(view.points(0.0)[::4, ::4], data["pts3d"][k], atol=5e-4)
        np.testing.assert_allclose(view.confidence[::4, ::4], data["conf"][k], rtol=1e-5)
        np.testing.assert_allclose(cleaned[k][::4, ::4], data["conf_clean"][k], rtol=1e-5)
    assert all((view.confidence > 0).all() for view in views)  # inputs are left alone


def plane(depth, confidence, z=0.0):
    pose = np.concatenate([np.eye(3), [[0.0], [0.0], [-z]]], axis=1)
    return DenseView(
        depth=np.full((8, 8), depth, np.float32),
        confidence=np.full((8, 8), confidence, np.float32),
        cam_from_world=pose,
        focal_px=8.0,
        principal_point_px=np.array([4.0, 4.0]),
    )


def test_a_point_that_others_see_through_loses_its_confidence():
    floating, wall = plane(1.0, 2.0), plane(2.0, 3.0)
    first, second = clean_confidence([floating, wall])
    assert (first == 0).all() and (second == 3).all()
    assert (clean_confidence([plane(1.0, 4.0), wall])[0] == 4).all()  # the more confident one is believed
    assert (clean_confidence([plane(2.0, 2.0), wall])[0] == 2).all()  # on the surface
    assert (clean_confidence([floating, wall], neighbours=[np.zeros(0, int), np.zeros(0, int)])[0] == 2).all()


@pytest.fixture
def photographs(tmp_path):
    """Red grows with x and green with y; twice the size of the grid and shifted by a grid pixel."""
    x, y = np.meshgrid(np.arange(132), np.arange(100))
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(np.stack([x, 2 * y, 0 * x], -1).astype(np.uint8)).save(tmp_path / name)
    images = ImageSet(
        root=tmp_path,
        names=("a.png", "b.png", "c.png"),
        size_wh=np.tile([132, 100], (3, 1)),
        camera_index=np.arange(3),
        focal_prior_px=np.full(3, np.nan),
        digests=("1", "2", "3"),
    )
    grid = ImageGrid(size_wh=np.tile([64, 48], (3, 1)), scale=np.full((3, 2), 0.5), offset=np.full((3, 2), -1.0))
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


def test_cloud_of_an_aligned_scene(photographs):
    images, grid = photographs
    scene = oval_scene(3)
    observed = scene.observe(all_pairs(3))
    (result,) = align_scene(observed, AlignConfig(niter1=100, niter2=0))
    cloud = dense_cloud(result, observed, images, grid)
    assert 2000 < len(cloud.xyz) <= 3 * 64 * 48 and cloud.rgb.shape == cloud.xyz.shape
    few = dense_cloud(result, observed, images, grid, max_points=500)
    assert len(few.xyz) == 500
    colours = point_colours(result, images, grid)
    assert colours.shape == result.points.shape
    expected = grid.to_image(0, result.point_xy.astype(float))[:, 0]
    assert np.abs(colours[:, 0] - expected).max() < 3


def test_one_point_per_voxel_the_most_confident():
    xyz = np.array([[0.1, 0.1, 0.1], [0.2, 0.3, 0.1], [1.5, 0.1, 0.1], [-0.1, 0.1, 0.1]], np.float32)
    cloud = DenseCloud(xyz=xyz, rgb=np.arange(12, dtype=np.uint8).reshape(4, 3), confidence=np.array([1.0, 3, 2, 1]))
    thinned = voxel_cloud([cloud, cloud], 1.0)
    assert sorted(thinned.confidence.tolist()) == [1, 2, 3]
    assert voxel_cloud([cloud], 1.0, max_points=1).confidence.tolist() == [3]
    assert len(voxel_cloud([], 1.0).xyz) == 0
