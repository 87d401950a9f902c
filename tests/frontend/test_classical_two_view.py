"""Sparse part of the classical front end: two-view geometry, focal lengths, scales."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from anchorsfm.features.config import MatchingConfig
from anchorsfm.features.verification import verify
from anchorsfm.frontend.classical import focal
from anchorsfm.frontend.classical.config import IntrinsicsConfig, TwoViewConfig
from anchorsfm.frontend.classical.focal_evidence import FocalEvidence, gather_evidence
from anchorsfm.frontend.classical.rays import bearing, parallax_deg, triangulate_depths
from anchorsfm.frontend.classical.scale import synchronise
from anchorsfm.frontend.classical.two_view import RelativePose, relate
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.pairs import PairStatus
from classical_scene import project_random

MATCHING, TWO_VIEW = MatchingConfig(), TwoViewConfig()


def _pose(rotation_deg, translation):
    rotation = Rotation.from_rotvec(rotation_deg, degrees=True).as_matrix()
    return np.column_stack([rotation, np.array(translation, float)])


def _angle_deg(rotation, expected):
    return np.degrees(Rotation.from_matrix(rotation @ expected.T).magnitude())


def _rows(num):
    return np.stack([np.arange(num), np.arange(num)], axis=1).astype(np.int32)


def _relate(xy_i, xy_j, focal_ij):
    return relate(xy_i, xy_j, _rows(len(xy_i)), focal_ij, MATCHING, TWO_VIEW)


def _images(size_wh, camera_index, prior):
    num = len(size_wh)
    return ImageSet(
        root=Path(),
        names=tuple(f"{k}.jpg" for k in range(num)),
        size_wh=np.array(size_wh),
        camera_index=np.array(camera_index),
        focal_prior_px=np.array(prior, float),
        digests=tuple(str(k) for k in range(num)),
    )


# -------------------------------------------------------------------------------------------------- two-view geometry


def test_triangulated_depths_are_exact_without_noise():
    rng = np.random.default_rng(0)
    pose = _pose((1, 10, 2), (1.0, 0.1, 0.2))
    xy_i, xy_j, depth = project_random(rng, pose, (900.0, 1100.0), 50, noise_px=0)
    found = triangulate_depths(bearing(xy_i, 900.0), bearing(xy_j, 1100.0), pose)
    assert found == pytest.approx(depth, rel=1e-9)
    parallel = bearing(np.zeros((1, 2)), 1.0)
    assert triangulate_depths(parallel, parallel, _pose((0, 0, 0), (1, 0, 0))).tolist() == [[0, 0]]


def test_parallax_of_a_rotation_is_zero():
    xy_i, xy_j, _ = project_random(np.random.default_rng(0), _pose((1, 10, 2), (0, 0, 0)), (900.0, 900.0), 50, 0)
    rotation = _pose((1, 10, 2), (0, 0, 0))[:, :3]
    assert parallax_deg(bearing(xy_i, 900.0), bearing(xy_j, 900.0), rotation).max() < 1e-6


def test_verification_drops_outliers_and_repeats_itself():
    rng = np.random.default_rng(0)
    xy_i, xy_j, _ = project_random(rng, _pose((0, 8, 0), (1, 0, 0.1)), (900.0, 900.0), 400)
    xy_j[:120] = rng.uniform(-1, 1, (120, 2)) * (500, 380)
    first, second = (verify(xy_i, xy_j, _rows(400), MATCHING) for _ in range(2))
    kept = first.keypoint[:, 0]
    assert (kept >= 120).sum() > 265 and (kept < 120).sum() < 8
    assert np.array_equal(first.keypoint, second.keypoint) and np.array_equal(first.fundamental, second.fundamental)
    line = np.column_stack([xy_i, np.ones(400)]) @ first.fundamental.T
    distance = np.abs((line[:, :2] * xy_j).sum(1) + line[:, 2]) / np.linalg.norm(line[:, :2], axis=1)
    assert np.median(distance[120:]) < 0.5


@pytest.mark.parametrize("num", [0, 20, 500])
def test_chance_matches_are_no_pair(num):
    rng = np.random.default_rng(0)
    xy_i, xy_j = (rng.uniform(-1, 1, (num, 2)) * (500, 380) for _ in range(2))
    assert len(verify(xy_i, xy_j, _rows(num), MATCHING).keypoint) == 0


def test_pose_of_a_pair_with_depth():
    pose = _pose((1, 10, -3), (0.8, -0.1, 0.3))
    xy_i, xy_j, depth = project_random(np.random.default_rng(0), pose, (900.0, 1200.0), 300)
    found = _relate(xy_i, xy_j, (900.0, 1200.0))
    length = np.linalg.norm(pose[:, 3])
    assert found.status is PairStatus.OK
    assert _angle_deg(found.j_from_i[:, :3], pose[:, :3]) < 0.1
    assert found.j_from_i[:, 3] == pytest.approx(pose[:, 3] / length, abs=0.01)
    assert np.median(np.abs(found.depth * length / depth[found.keypoint[:, 0]] - 1)) < 0.01
    assert 4 < found.parallax_deg < 15
    assert np.median(found.error_px) < 0.5


@pytest.mark.parametrize("rotation_deg", [(0, 0, 0), (0.5, 12, 1), (0, 0, 40)])
@pytest.mark.parametrize("focal_error", [1.0, 1.06])
def test_pure_rotation_is_recognised(rotation_deg, focal_error):
    pose = _pose(rotation_deg, (0, 0, 0))
    xy_i, xy_j, _ = project_random(np.random.default_rng(0), pose, (900.0, 900.0), 300)
    found = _relate(xy_i, xy_j, (900.0 * focal_error,) * 2)
    assert found.status is PairStatus.PURE_ROTATION
    assert len(found.keypoint) > 280
    assert _angle_deg(found.j_from_i[:, :3], pose[:, :3]) < 0.2 + 20 * (focal_error - 1)
    assert np.isnan(found.depth).all() and (found.j_from_i[:, 3] == 0).all()


def test_a_plane_seen_from_two_places_is_no_rotation():
    rng = np.random.default_rng(0)
    pose = _pose((0, 8, 0), (1.0, 0, 0.1))
    xy_i = rng.uniform(-1, 1, (300, 2)) * (500, 380)
    rays = np.column_stack([xy_i / 900.0, np.ones(300)])
    points = rays * (6.0 / (rays @ [0.2, 0.1, 1.0]))[:, None]
    in_j = points @ pose[:, :3].T + pose[:, 3]
    xy_j = in_j[:, :2] / in_j[:, 2:] * 900 + 0.3 * rng.standard_normal((300, 2))
    assert _relate(xy_i, xy_j, (900.0, 900.0)).status is PairStatus.OK


# ------------------------------------------------------------------------------------------------------ focal lengths


def _ring(num, rng, distance=6.0):
    """Cameras on an arc that look at the middle, as cam_from_world."""
    poses = []
    for angle in np.linspace(-25, 25, num):
        rotation = Rotation.from_rotvec([rng.uniform(-6, 6), angle, rng.uniform(-6, 6)], degrees=True).as_matrix()
        poses.append(np.column_stack([rotation, [rng.uniform(-0.3, 0.3), rng.uniform(-0.3, 0.3), distance]]))
    return poses


def _evidence(focals, device, rng, noise_px=0.3):
    poses = _ring(len(focals), rng, distance=6.0 * max(np.median(focals) / 1000, 1))
    world = rng.uniform(-1.5, 1.5, (250, 3))
    seen = []
    for pose, f in zip(poses, focals, strict=True):
        point = world @ pose[:, :3].T + pose[:, 3]
        seen.append(point[:, :2] / point[:, 2:] * f + noise_px * rng.standard_normal((250, 2)))
    pairs = np.array([(i, j) for i in range(len(focals)) for j in range(i + 1, len(focals))])
    evidence = []
    for i, j in pairs:
        verified = verify(seen[i], seen[j], _rows(250), MATCHING)
        rows = verified.keypoint[:, 0]
        same = device[i] == device[j]
        evidence.append(gather_evidence(seen[i][rows], seen[j][rows], verified.fundamental, same, 1.5))
    return pairs, evidence


def test_focal_of_a_shared_camera():
    rng = np.random.default_rng(0)
    images = _images([(2048, 1536)] * 6, [0] * 6, [np.nan] * 6)
    pairs, evidence = _evidence([950.0] * 6, [0] * 6, rng)
    found = focal.estimate_focals_px(images, pairs, evidence, IntrinsicsConfig())
    assert len(set(found)) == 1
    assert found[0] == pytest.approx(1900, rel=0.02)


def test_focal_of_a_long_lens():
    """More than four times the long side used to be taken for an error."""
    rng = np.random.default_rng(0)
    images = _images([(1024, 768)] * 6, [0] * 6, [np.nan] * 6)
    pairs, evidence = _evidence([6000.0] * 6, [0] * 6, rng, noise_px=0.05)
    found = focal.estimate_focals_px(images, pairs, evidence, IntrinsicsConfig())
    assert found[0] == pytest.approx(6000, rel=0.15)


def test_single_unusual_focals_are_errors():
    def evidence(shared):
        return FocalEvidence(num_inliers=200, fundamental=np.eye(3), homography_ratio=0.3, shared_focal=shared)

    images = _images([(1024, 768)] * 5, [0] * 5, [np.nan] * 5)
    pairs = np.array([(0, 1), (1, 2), (2, 3), (3, 4), (0, 4)])
    usual = [evidence(f) for f in (950.0, 1000.0, 1050.0)]
    found = focal.estimate_focals_px(images, pairs, [*usual, evidence(9000.0), evidence(np.nan)], IntrinsicsConfig())
    plain = focal.estimate_focals_px(images, pairs, [*usual, evidence(np.nan), evidence(np.nan)], IntrinsicsConfig())
    assert (found == plain).all()


def test_focals_of_different_cameras():
    rng = np.random.default_rng(0)
    true = np.array([700.0, 900.0, 1100.0, 1500.0, 800.0, 1300.0, 1000.0])
    images = _images([(1024, 768)] * 7, range(7), [np.nan] * 7)
    pairs, evidence = _evidence(true, range(7), rng)
    found = focal.estimate_focals_px(images, pairs, evidence, IntrinsicsConfig())
    assert np.abs(np.log(found / true)).max() < 0.06


def test_one_known_focal_is_kept_and_helps_the_others():
    rng = np.random.default_rng(0)
    true = np.array([700.0, 900.0, 1100.0])
    images = _images([(1024, 768)] * 3, range(3), [700.0, np.nan, np.nan])
    pairs, evidence = _evidence(true, range(3), rng)
    found = focal.estimate_focals_px(images, pairs, evidence, IntrinsicsConfig())
    assert found[0] == pytest.approx(700, rel=1e-9)
    assert np.abs(np.log(found / true)).max() < 0.1


@pytest.mark.parametrize(("recorded", "low", "high"), [(990.0, 940, 985), (2000.0, 930, 970)])
def test_recorded_focal_is_checked_against_the_pairs(recorded, low, high):
    rng = np.random.default_rng(0)
    images = _images([(1024, 768)] * 6, [0] * 6, [recorded] * 6)
    pairs, evidence = _evidence([950.0] * 6, [0] * 6, rng)
    assert low < focal.estimate_focals_px(images, pairs, evidence, IntrinsicsConfig())[0] < high
    exact = IntrinsicsConfig(recorded_focal_spread=0.0)
    assert focal.estimate_focals_px(images, pairs, evidence, exact)[0] == pytest.approx(recorded, rel=1e-6)


def test_without_usable_pairs_the_focal_is_the_record_or_the_typical_one():
    rng = np.random.default_rng(0)
    images = _images([(1000, 750), (600, 800)], [0, 1], [1234.0, np.nan])
    xy_i, xy_j, _ = project_random(rng, _pose((0, 10, 0), (0, 0, 0)), (900.0, 900.0), 200)
    verified = verify(xy_i, xy_j, _rows(200), MATCHING)
    rows = verified.keypoint[:, 0]
    degenerate = gather_evidence(xy_i[rows], xy_j[rows], verified.fundamental, False, 1.5)
    assert degenerate.is_degenerate
    found = focal.estimate_focals_px(images, np.array([[0, 1]]), [degenerate], IntrinsicsConfig())
    assert found == pytest.approx([1234.0, 1.1 * 800])
    none = focal.estimate_focals_px(images, np.zeros((0, 2), np.int64), [], IntrinsicsConfig())
    assert none == pytest.approx(found)


def test_portrait_and_landscape_of_one_device_share_the_focal():
    nan = np.nan
    upright = [(800, 600), (600, 800), (800, 600), (600, 800)]
    assert focal.devices(_images(upright, [0, 1, 0, 1], [nan] * 4)).tolist() == [0, 0, 0, 0]
    assert focal.devices(_images(upright, [0, 1, 0, 1], [700.0] * 4)).tolist() == [0, 0, 0, 0]
    assert focal.devices(_images(upright, [0, 1, 0, 1], [700, 900, 700, 900])).tolist() == [0, 1, 0, 1]
    assert focal.devices(_images(upright, [0, 1, 2, 3], [nan] * 4)).tolist() == [0, 1, 2, 3]
    assert focal.devices(_images(upright[:1] * 4, [0, 0, 1, 1], [nan] * 4)).tolist() == [0, 0, 1, 1], "told apart"
    assert focal.devices(_images(upright, [0, 1, 2, 1], [nan] * 4)).tolist() == [0, 1, 2, 1]
    mixed = [(800, 600), (600, 800), (1024, 768)]
    assert focal.devices(_images(mixed, [0, 1, 2], [nan] * 3)).tolist() == [0, 1, 2]


# -------------------------------------------------------------------------------------------------------------- scales


def _scaled_poses(pairs, num_points, scale, rng, depth_of):
    poses = []
    for (i, j), s in zip(pairs, scale, strict=True):
        rows = np.sort(rng.permutation(num_points)[:60])
        depth = np.stack([depth_of[i, rows], depth_of[j, rows]], axis=1) / s
        poses.append(
            RelativePose(
                status=PairStatus.OK,
                keypoint=np.stack([rows, rows], axis=1).astype(np.int32),
                j_from_i=np.eye(3, 4),
                depth=(depth * np.exp(0.01 * rng.standard_normal(depth.shape))).astype(np.float32),
                error_px=np.zeros(60, np.float32),
                parallax_deg=5.0,
            )
        )
    return poses


def test_scales_are_recovered_with_a_wrong_pair_among_them():
    rng = np.random.default_rng(0)
    pairs = np.array([(i, j) for i in range(6) for j in range(i + 1, 6)])
    true = np.exp(rng.normal(0, 0.7, len(pairs)))
    depth_of = rng.uniform(3, 9, (6, 100))
    poses = _scaled_poses(pairs, 100, true, rng, depth_of)
    wrong = poses[4].depth * np.float32([1.0, 3.0])  # scales the two images of this pair differently
    poses[4] = replace(poses[4], depth=wrong)
    found = synchronise(pairs, poses)
    ratio = np.delete(found / true, 4)
    assert ratio.std() / ratio.mean() < 0.01
    depths = np.concatenate([p.depth.ravel() * s for p, s in zip(poses, found, strict=True)])
    assert np.median(depths) == pytest.approx(1, abs=0.1)


def test_groups_of_pairs_have_their_own_unit():
    rng = np.random.default_rng(0)
    pairs = np.array([(0, 1), (1, 2), (3, 4), (5, 6)])
    true = np.array([1.0, 2.0, 5.0, 1.0])
    poses = _scaled_poses(pairs, 100, true, rng, rng.uniform(3, 9, (7, 100)))
    poses[3] = replace(
        poses[3],
        status=PairStatus.UNMATCHED,
        keypoint=np.zeros((0, 2), np.int32),
        depth=np.zeros((0, 2), np.float32),
        error_px=np.zeros(0, np.float32),
    )
    found = synchronise(pairs, poses)
    assert found[1] / found[0] == pytest.approx(2, rel=0.02)
    assert np.median(poses[2].depth * found[2]) == pytest.approx(1, rel=0.01)
    assert found[3] == 1
    assert synchronise(np.zeros((0, 2), np.int64), []).shape == (0,)
