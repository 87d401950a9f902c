"""Two things that look alike before walls that do not, as clouds of points: matches join all photographs of both."""

import numpy as np

from anchorsfm.scene.reconstruction import Camera
from anchorsfm.tracks.build import KeypointMatches
from point_scene import look_at, project_pinhole

CAMERA = Camera(model="SIMPLE_RADIAL", width=1600, height=1200, params=(1500.0, 800.0, 600.0, 0.0))


def twin_matches(views: int = 5, *, noise_px: float = 0.3, seed: int = 0) -> tuple[KeypointMatches, np.ndarray]:
    """Matches of 2 x `views` images, those of the first thing before those of the second, and true poses.

    Poses are those against the thing that each image shows.
    """
    rng = np.random.default_rng(seed)
    thing = rng.uniform([-0.9, -0.9, -0.25], [0.9, 0.9, 0.25], (250, 3))
    walls = [rng.uniform([-4, -2.5, 0.9], [4, 2.5, 1.1], (1000, 3)) for _ in range(2)]
    walls = [wall[(np.abs(wall[:, :2]) > 1.6).any(axis=1)] for wall in walls]
    angles = np.deg2rad(np.linspace(-25, 25, views))
    poses = np.stack(
        [look_at(np.array([7 * np.sin(a), rng.uniform(-0.5, 0.5), -7 * np.cos(a)]), rng.normal(0, 0.2, 3))
         for _ in range(2) for a in angles]
    )  # fmt: skip
    seen = []  # per image: names of the points, and where
    for image, pose in enumerate(poses):
        side = image // views
        points = np.concatenate([thing, walls[side]])
        name = np.concatenate([np.arange(len(thing)), 10_000 * (1 + side) + np.arange(len(walls[side]))])
        xy = project_pinhole(CAMERA, pose, points)
        xy = xy + noise_px * rng.standard_normal(xy.shape)
        found = ((xy >= 0) & (xy < [1600, 1200])).all(axis=1) & (rng.random(len(xy)) < 0.8)
        seen.append((name[found], xy[found]))
    rows = []
    for i in range(len(poses)):
        for j in range(i + 1, len(poses)):
            _, a, b = np.intersect1d(seen[i][0], seen[j][0], return_indices=True)
            rows.append((np.full(len(a), i), np.full(len(a), j), seen[i][1][a], seen[j][1][b]))
    image_i, image_j, xy_i, xy_j = (np.concatenate(part) for part in zip(*rows, strict=True))
    matches = KeypointMatches(
        image_i=image_i, image_j=image_j, xy_i=xy_i, xy_j=xy_j, confidence=np.full(len(image_i), 10.0)
    )
    return matches, poses
