"""Matches of a synthetic scene as a network gives them: right, but only to the nearest pixel of a coarse grid."""

import hashlib
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np

from anchorsfm.colmap.cameras import make_camera
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.reconstruction import Reconstruction, Tracks
from anchorsfm.synthetic.oracle import image_set
from anchorsfm.synthetic.scenes import SyntheticScene, cast_pixels, project, rays
from anchorsfm.tracks.build import KeypointMatches

SAME_SURFACE = 1e-3
"""Relative depth difference up to which a point counts as seen."""


def photographs(scene: SyntheticScene, folder: Path) -> ImageSet:
    """The scene's image set, with photographs in `folder`."""
    return with_digests(image_set(scene, root=folder))


def with_digests(images: ImageSet) -> ImageSet:
    """The set with the digests of the files as they are now."""
    digests = tuple(hashlib.sha256(images.path(k).read_bytes()).hexdigest() for k in range(images.num_images))
    return replace(images, digests=digests)


def surface_points(scene: SyntheticScene, image: int, xy: np.ndarray) -> np.ndarray:
    origin, direction = rays(scene, image, xy)
    return origin + cast_pixels(scene, image, xy).distance[:, None] * direction


def see(scene: SyntheticScene, image: int, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exact pixels, and whether the photograph shows the points."""
    xy, depth = project(scene, image, points)
    visible = (depth > 1e-3) & (xy >= 0).all(1) & (xy < np.array(scene.config.size_wh)).all(1)
    visible[visible] = np.abs(cast_pixels(scene, image, xy[visible]).distance / depth[visible] - 1) < SAME_SURFACE
    return xy, visible


def to_grid(xy: np.ndarray, pixel_px: float) -> np.ndarray:
    """Centre of the grid pixel around each point, in original pixels."""
    return (np.floor(xy / pixel_px) + 0.5) * pixel_px


def coarse_matches(
    scene: SyntheticScene,
    *,
    pixel_px: float,
    points_per_image: int,
    outliers: float = 0.05,
    max_offset: int = 4,
    seed: int = 0,
) -> KeypointMatches:
    """True matches of points sampled in every image, rounded to a grid; a share of them end anywhere.

    `max_offset`: images further apart in the sequence are not matched.
    """
    rng = np.random.default_rng(seed)
    size_wh = np.array(scene.config.size_wh)
    points = np.concatenate(
        [
            surface_points(scene, image, rng.uniform(size=(points_per_image, 2)) * size_wh)
            for image in range(scene.num_images)
        ]
    )
    seen = [see(scene, image, points) for image in range(scene.num_images)]
    parts = []
    for i, j in combinations(range(scene.num_images), 2):
        both = np.flatnonzero(seen[i][1] & seen[j][1])
        if j - i > max_offset or not len(both):
            continue
        wrong = rng.random(len(both)) < outliers
        end = np.where(wrong[:, None], rng.uniform(size=(len(both), 2)) * size_wh, seen[j][0][both])
        confidence = np.where(wrong, 5.0, 15.0) * np.exp(0.4 * rng.standard_normal(len(both)))
        parts.append((np.full(len(both), i), np.full(len(both), j), to_grid(seen[i][0][both], pixel_px),
                      to_grid(end, pixel_px), confidence))  # fmt: skip
    image_i, image_j, xy_i, xy_j, confidence = (np.concatenate(part) for part in zip(*parts, strict=True))
    return KeypointMatches(image_i=image_i, image_j=image_j, xy_i=xy_i, xy_j=xy_j, confidence=confidence)


def dense_matches(
    scene: SyntheticScene, *, pixel_px: float, outliers: float = 0.05, max_offset: int = 4, seed: int = 0
) -> KeypointMatches:
    """Matches from about every 8th grid pixel of either image of a pair to the other grid, anew for each pair."""
    rng = np.random.default_rng(seed)
    grid_wh = np.array(scene.config.size_wh) // pixel_px
    x, y = np.meshgrid(np.arange(2, grid_wh[0], 8) + 0.5, np.arange(2, grid_wh[1], 8) + 0.5)
    parts = []
    for i, j in combinations(range(scene.num_images), 2):
        for source, target in ((i, j), (j, i)) if j - i <= max_offset else ():
            start = np.stack([x.ravel(), y.ravel()], axis=1) + rng.integers(-1, 2, (x.size, 2))
            end, visible = see(scene, target, surface_points(scene, source, start * pixel_px))
            end = np.floor(end / pixel_px + 0.3 * rng.standard_normal(end.shape)) + 0.5
            wrong = rng.random(len(end)) < outliers
            end[wrong] = np.floor(rng.uniform(size=(wrong.sum(), 2)) * grid_wh) + 0.5
            confidence = np.where(wrong, 5.0, 15.0) * np.exp(0.3 * rng.standard_normal(len(end)))
            ends = {source: start[visible] * pixel_px, target: end[visible] * pixel_px}
            parts.append((np.full(visible.sum(), i), np.full(visible.sum(), j), ends[i], ends[j], confidence[visible]))
    image_i, image_j, xy_i, xy_j, confidence = (np.concatenate(part) for part in zip(*parts, strict=True))
    return KeypointMatches(image_i=image_i, image_j=image_j, xy_i=xy_i, xy_j=xy_j, confidence=confidence)


def errors_against_reference(
    scene: SyntheticScene, tracks: Tracks, reference: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each observation from where its photograph shows the point that the reference observation shows.

    `reference` (point,) are rows of observations. Also whether that point is visible at all: where not, the distance
    means nothing.
    """
    points = np.zeros((tracks.num_points, 3))
    for image in np.unique(tracks.obs_image[reference]):
        here = np.flatnonzero(tracks.obs_image[reference] == image)
        points[here] = surface_points(scene, int(image), tracks.obs_xy[reference[here]])
    error, visible = np.zeros(len(tracks.obs_point)), np.zeros(len(tracks.obs_point), bool)
    for image in np.unique(tracks.obs_image):
        rows = np.flatnonzero(tracks.obs_image == image)
        xy, visible[rows] = see(scene, int(image), points[tracks.obs_point[rows]])
        error[rows] = np.linalg.norm(xy - tracks.obs_xy[rows], axis=1)
    return error, visible


def true_model(scene: SyntheticScene, camera_model: str = "SIMPLE_RADIAL") -> Reconstruction:
    """True cameras and poses, no points."""
    width, height = scene.config.size_wh
    return Reconstruction(
        image_index=np.arange(scene.num_images),
        cam_from_world=scene.cam_from_world,
        cameras=(make_camera(camera_model, float(scene.focal_px[0]), width, height, scene.principal_point_px),),
        camera_index=np.zeros(scene.num_images, np.int64),
        points=np.zeros((0, 3)),
        rgb=np.zeros((0, 3), np.uint8),
        error_px=np.zeros(0),
        tracks=Tracks.empty(),
    )
