"""Matches along known epipolar lines, on keypoints with known partners."""

import numpy as np
import pytest
import torch

from anchorsfm.features.base import Features
from anchorsfm.features.config import DescriptorMatchingConfig
from anchorsfm.features.guided import MAX_CHANCE, LineView, _mutual, largest_distance, line_view, match_along_lines
from anchorsfm.features.ratio_test import RatioTestMatcher
from anchorsfm.geometry.transforms import compose, cross_matrix, invert
from point_scene import look_at

POSES = np.stack([look_at(np.array([x, 0.3 * x, -6.0]), np.zeros(3)) for x in (-1.0, 1.5)])
J_FROM_I = compose(POSES[1], invert(POSES[0]))
BAND = 0.002
"""Two pixels where the focal length is a thousand."""
NOTHING = np.zeros((0, 2), np.int64)


def unit(rng: np.random.Generator, count: int) -> np.ndarray:
    values = np.abs(rng.standard_normal((count, 128)))
    return values / np.linalg.norm(values, axis=1)[:, None]


def features(descriptor: np.ndarray) -> Features:
    count = len(descriptor)
    as_bytes = np.clip(np.round(descriptor / np.linalg.norm(descriptor, axis=1)[:, None] * 256), 0, 255)
    return Features(
        size_wh=np.array([1000, 1000]),
        xy=np.arange(2 * count, dtype=np.float32).reshape(-1, 2),
        descriptor=as_bytes.astype(np.uint8),
        keypoint=np.arange(count, dtype=np.int32),
        score=np.ones(count, np.float32),
    )


def pair_of(
    count: int, *, repeats: int, clutter: int, noise: float = 0.02, seed: int = 0
) -> tuple[tuple[Features, Features], tuple[LineView, LineView]]:
    """Points of which `repeats` look alike, then keypoints without a partner; row k of i and of j are one point."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-1.5, 1.5, (count, 3))
    looks = np.repeat(unit(rng, count // repeats), repeats, axis=0)[rng.permutation(count)]
    views, found = [], []
    for pose in POSES:
        local = points @ pose[:, :3].T + pose[:, 3]
        plane = local[:, :2] / local[:, 2:] + 0.0002 * rng.standard_normal((count, 2))
        plane = np.concatenate([plane, rng.uniform(-0.4, 0.4, (clutter, 2))])
        seen = np.abs(looks + noise * rng.standard_normal(looks.shape))
        found.append(features(np.concatenate([seen, unit(rng, clutter)])))
        views.append(line_view(found[-1], plane, BAND))
    return (found[0], found[1]), (views[0], views[1])


def test_what_repeats_is_told_apart_by_the_lines() -> None:
    (mine, theirs), (i, j) = pair_of(1500, repeats=5, clutter=500)
    matcher = RatioTestMatcher(DescriptorMatchingConfig())
    assert len(matcher.match(matcher.prepare(mine), matcher.prepare(theirs)).keypoint) < 30
    found = match_along_lines(i, j, J_FROM_I, 0.85, NOTHING)
    right = found.keypoint[:, 0] == found.keypoint[:, 1]
    assert len(right) > 1100 and right.mean() > 0.97
    assert len(np.unique(found.keypoint[:, 0])) == len(np.unique(found.keypoint[:, 1])) == len(right)


def test_what_matches_already_is_left_alone() -> None:
    _, (i, j) = pair_of(1000, repeats=5, clutter=0)
    taken = np.tile(np.arange(600), (2, 1)).T
    found = match_along_lines(i, j, J_FROM_I, 0.85, taken)
    assert found.keypoint.min() >= 600 and len(found.distance) > 250


@pytest.mark.parametrize("kind", ["clutter", "pose"])
def test_chance_is_not_believed(kind: str) -> None:
    """Keypoints that have no partners, or that are looked for along the wrong lines, give next to nothing."""
    _, (i, j) = pair_of(1000, repeats=1, clutter=1500) if kind == "pose" else pair_of(0, repeats=1, clutter=2500)
    pose = compose(J_FROM_I, compose(look_at(np.array([0.2, 0.1, 0]), np.array([0.4, 0.8, 2])), np.eye(3, 4)))
    pose = J_FROM_I if kind == "clutter" else pose
    assert len(_mutual(i, j, pose, 0.95).distance) > 20
    assert len(match_along_lines(i, j, pose, 0.95, NOTHING).distance) <= 2


def test_the_search_is_the_plain_one_in_less_time() -> None:
    """All descriptors against all, of those in the band and in front; forwards too, with the epipole in sight."""
    for seed, pose in enumerate((J_FROM_I, np.column_stack([np.eye(3), [0.05, 0.02, -1.0]]))):
        _, (i, j) = pair_of(300, repeats=3, clutter=300, seed=seed)
        essential = cross_matrix(pose[:, 3]) @ pose[:, :3]
        line_j, line_i = i.ray @ essential.T, j.ray @ essential
        residual = np.abs(line_j @ j.ray.T)
        near = residual <= BAND * np.minimum(
            np.linalg.norm(line_j[:, :2], axis=1)[:, None], np.linalg.norm(line_i[:, :2], axis=1)
        )
        base = invert(pose)[:, 3] / np.linalg.norm(pose[:, 3])
        a, b = (ray / np.linalg.norm(ray, axis=1)[:, None] for ray in (i.ray, j.ray @ pose[:, :3]))
        ahead = np.arccos(b @ base)[None] + 2 * BAND > np.arccos(a @ base)[:, None]
        across = [rays - np.outer(rays @ base, base) for rays in (a, b)]
        near &= ahead & (across[0] @ across[1].T > 0)
        cosine = torch.where(torch.from_numpy(near), i.unit @ j.unit.T, -2.0)
        best, second = cosine.topk(2, dim=1).values.T
        chosen = cosine.argmax(1)
        good = (cosine.argmax(0)[chosen] == torch.arange(len(best))) & (best > -2)
        good &= 2 - 2 * best < 0.85**2 * (2 - 2 * second)
        rows = torch.nonzero(good)[:, 0].numpy()
        found = _mutual(i, j, pose, 0.85)
        assert len(rows) > 50 and found.keypoint.tolist() == np.stack([rows, chosen.numpy()[rows]], axis=1).tolist()


def test_points_behind_the_cameras_are_no_matches() -> None:
    """Rays that meet behind both cameras: on the right lines, at the wrong end."""
    rng = np.random.default_rng(3)
    points = rng.uniform([-1, -1, -12], [1, 1, -9], (400, 3))  # the cameras stand at z = -6 and look the other way
    looks, views = unit(rng, 400), []
    for pose in POSES:
        local = points @ pose[:, :3].T + pose[:, 3]
        assert (local[:, 2] < 0).all()
        views.append(line_view(features(looks), local[:, :2] / local[:, 2:], BAND))
    found = _mutual(views[0], views[1], J_FROM_I, 0.85)
    assert (found.keypoint[:, 0] == found.keypoint[:, 1]).sum() < 5


def test_the_share_of_chance_is_bounded() -> None:
    assert largest_distance(np.arange(100) / 100, np.array([0.5])) == pytest.approx(0.99)
    assert largest_distance(np.arange(100) / 100, np.arange(50, 100) / 100) == pytest.approx(0.5)
    assert largest_distance(np.arange(10) / 10, np.zeros(0)) < 0  # too few to tell
    assert MAX_CHANCE == 0.05


def test_photographs_without_keypoints_match_nothing() -> None:
    _, (i, _) = pair_of(100, repeats=1, clutter=0)
    _, (empty, _) = pair_of(0, repeats=1, clutter=0)
    for a, b in ((i, empty), (empty, i), (empty, empty)):
        assert not len(match_along_lines(a, b, J_FROM_I, 0.85, NOTHING).distance)
