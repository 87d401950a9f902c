"""Known poses bring matches that descriptors alone do not show."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from anchorsfm.features.base import Features
from anchorsfm.features.store import FeatureStore
from anchorsfm.io.store import Store
from anchorsfm.mapping.along_lines import CONFIDENCE, with_matches_along_lines
from anchorsfm.mapping.base import MapperInput
from anchorsfm.mapping.config import KnownConfig
from anchorsfm.mapping.known import KnownCameras
from anchorsfm.mapping.with_poses import along_epipolar_lines
from anchorsfm.scene.images import ImageSet
from matched_images import mapper_input
from point_scene import make_point_scene, project_pinhole

SCENE = make_point_scene(num_views=4, num_points=1500)
CAMERA = SCENE.model.cameras[0]
PAIRS = np.array([[0, 1], [1, 2], [0, 2], [2, 3]])
POINTS = np.random.default_rng(5).uniform([-2, -1.5, -2], [2, 1.5, 2], (1500, 3))
LOOKS = np.abs(np.random.default_rng(6).standard_normal((300, 128)))[np.arange(1500) % 300]
"""Five points each look alike."""


class Detector:
    """Keypoints of the points, in the order of the points."""

    digest, is_concurrent, licence = "points", True, None

    def __init__(self, cameras: np.ndarray) -> None:
        self.cameras = cameras

    def detect(self, images: ImageSet, image: int) -> Features:
        rng = np.random.default_rng(image)
        seen = np.abs(LOOKS + 0.03 * rng.standard_normal(LOOKS.shape))
        xy = project_pinhole(CAMERA, self.cameras[image], POINTS) + 0.3 * rng.standard_normal((len(POINTS), 2))
        return Features(
            size_wh=images.size_wh[image],
            xy=xy.astype(np.float32),
            descriptor=np.round(seen / np.linalg.norm(seen, axis=1)[:, None] * 256).clip(0, 255).astype(np.uint8),
            keypoint=np.arange(len(POINTS), dtype=np.int32),
            score=np.ones(len(POINTS), np.float32),
        )


def given_with(poses: np.ndarray) -> tuple[MapperInput, FeatureStore]:
    """Photographs of the points from the true poses, known as `poses`; the first hundred points of each pair match."""
    known = KnownCameras(
        config=KnownConfig(),
        poses=dict(enumerate(poses)),
        cameras={0: CAMERA},
        camera_index=SCENE.model.camera_index,
    )
    given = mapper_input(SCENE.matches.select(np.zeros(0, np.int64)), 4, CAMERA, is_known=True)
    images = replace(given.images, digests=tuple("abcd"))
    store = FeatureStore(images=images, detector=Detector(SCENE.model.cam_from_world), store=Store(None))
    xy = [store.features(k).xy.astype(np.float64)[:100] for k in range(4)]
    matches = replace(
        given.matches,
        image_i=np.repeat(PAIRS[:, 1], 100),  # in the other order than the pairs: either may come first
        image_j=np.repeat(PAIRS[:, 0], 100),
        xy_i=np.concatenate([xy[j] for _, j in PAIRS]),
        xy_j=np.concatenate([xy[i] for i, _ in PAIRS]),
        confidence=np.full(400, 10.0),
    )
    return replace(given, images=images, matches=matches, known=known), store


def test_matches_along_the_lines_make_more_and_longer_tracks() -> None:
    given, store = given_with(SCENE.model.cam_from_world)
    near = along_epipolar_lines(given)
    found = with_matches_along_lines(near, PAIRS, store, 0.85, 2)
    added = found.matches.select(np.arange(len(near.matches.confidence), len(found.matches.confidence)))
    assert (added.confidence == CONFIDENCE).all() and len(added.confidence) > 4 * 700
    keypoints = [
        {tuple(xy): row for row, xy in enumerate(store.features(k).xy.astype(float).tolist())} for k in range(4)
    ]
    ends = [
        [keypoints[image][tuple(xy)] for image, xy in zip(images.tolist(), places.tolist(), strict=True)]
        for images, places in ((added.image_i, added.xy_i), (added.image_j, added.xy_j))
    ]
    assert np.mean(np.equal(*ends)) > 0.97 and min(ends[0]) >= 100
    assert found.tracks.num_points > 5 * near.tracks.num_points
    assert found.free is given.matches  # evidence on the poses


def test_wrong_poses_find_nothing() -> None:
    given, store = given_with(SCENE.model.cam_from_world[[2, 3, 0, 1]])
    found = with_matches_along_lines(replace(given, free=given.matches), PAIRS, store, 0.85, 1)
    assert len(found.matches.confidence) <= len(given.matches.confidence) + 4


def test_pairs_without_a_baseline_or_a_pose_are_passed_over() -> None:
    poses = SCENE.model.cam_from_world.copy()
    poses[1] = poses[0]
    given, store = given_with(poses)
    given.known.poses.pop(2)  # type: ignore[union-attr]
    found = with_matches_along_lines(given, np.array([[0, 1], [1, 2], [0, 2], [2, 3]]), store, 0.85, 1)
    assert len(found.matches.confidence) == len(given.matches.confidence)
    assert Path("/no/such/folder") == given.images.root
