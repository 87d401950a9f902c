"""Cameras inside an ellipsoid: exact pointmaps and correspondences of a tiny scene with known truth."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from anchorsfm.geometry.transforms import invert
from anchorsfm.observe.config import GraphConfig
from anchorsfm.observe.graph import ObservedScene, build_scene_graph
from anchorsfm.scene.images import ImageGrid
from anchorsfm.scene.pairs import Matches, PairPrediction, PairStatus, Pointmaps

RADII = np.array([3.0, 2.4, 4.0])


@dataclass(frozen=True, kw_only=True)
class OvalScene:
    size_wh: tuple[int, int]
    world_from_cam: np.ndarray
    focal_px: np.ndarray
    scale: np.ndarray
    """Scale of each image's own predictions: units of the front end per unit of the world."""
    confidence: float = 10.0
    depth_noise: float = 0.0
    focal_error: float = 0.0

    @property
    def num_views(self) -> int:
        return len(self.focal_px)

    @property
    def cam_from_world(self) -> np.ndarray:
        return invert(self.world_from_cam)

    @property
    def grid(self) -> ImageGrid:
        n = self.num_views
        return ImageGrid(size_wh=np.tile(self.size_wh, (n, 1)), scale=np.ones((n, 2)), offset=np.zeros((n, 2)))

    def points(self, view: int, xy: np.ndarray) -> np.ndarray:
        """World points of pixels."""
        pose = self.world_from_cam[view]
        local = np.concatenate(
            [(xy - np.array(self.size_wh) / 2) / self.focal_px[view], np.ones((*xy.shape[:-1], 1))], -1
        )
        ray, start = (local @ pose[:, :3].T) / RADII, pose[:, 3] / RADII
        a, b, c = (ray**2).sum(-1), (ray * start).sum(-1), (start**2).sum() - 1
        depth = (-b + np.sqrt(b**2 - a * c)) / a
        return depth[..., None] * (local @ pose[:, :3].T) + pose[:, 3]

    def pixels(self) -> np.ndarray:
        width, height = self.size_wh
        return np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), -1)

    def pointmap(self, view: int, frame: int) -> np.ndarray:
        """Prediction of one image in the frame of another, at the latter's scale."""
        points = self.points(view, self.pixels())
        if self.depth_noise:
            rng = np.random.default_rng([view, frame])
            centre = self.world_from_cam[view][:, 3]
            points = centre + (points - centre) * np.exp(self.depth_noise * rng.normal(size=(*points.shape[:2], 1)))
        pose = self.cam_from_world[frame]
        local = (points @ pose[:, :3].T + pose[:, 3]) * self.scale[frame]
        if view == frame:
            local[..., :2] /= np.exp(self.focal_error * np.sin(7.0 * view))
        return local.astype(np.float32)

    def matches(self, i: int, j: int, *, step: int = 2, confidence: float | None = None) -> Matches:
        xy_i = self.pixels()[::step, ::step].reshape(-1, 2)
        pose = self.cam_from_world[j]
        local = self.points(i, xy_i) @ pose[:, :3].T + pose[:, 3]
        xy_j = local[:, :2] / local[:, 2:] * self.focal_px[j] + np.array(self.size_wh) / 2
        inside = (local[:, 2] > 0) & (xy_j > 0).all(1) & (xy_j < self.size_wh).all(1)
        weight = np.full(int(inside.sum()), self.confidence if confidence is None else confidence, np.float32)
        return Matches(xy_i=xy_i[inside], xy_j=xy_j[inside], confidence=weight)

    def prediction(self, i: int, j: int, *, confidence: float | None = None, empty: bool = False) -> PairPrediction:
        def frame(own: int, other: int) -> Pointmaps:
            known = np.full(self.size_wh[::-1], 5.0, np.float32)
            return Pointmaps(
                own=self.pointmap(own, own),
                own_confidence=known,
                other=self.pointmap(other, own),
                other_confidence=known,
            )

        matches = Matches.empty() if empty else self.matches(i, j, confidence=confidence)
        return PairPrediction(
            i=i,
            j=j,
            status=PairStatus.OK,
            matches=matches,
            keypoint_matches=None,
            frame_i=frame(i, j),
            frame_j=frame(j, i),
        )

    def observe(self, pairs, *, doubtful=(), empty=(), config: GraphConfig | None = None) -> ObservedScene:
        stream = (
            self.prediction(i, j, confidence=2.0 if (i, j) in doubtful else None, empty=(i, j) in empty)
            for i, j in pairs
        )
        return build_scene_graph(self.num_views, stream, self.grid, config)


def all_pairs(num_views: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(num_views) for j in range(i + 1, num_views)]


def oval_scene(
    num_views: int = 4, size_wh: tuple[int, int] = (64, 48), *, same_focal: bool = False, **keywords
) -> OvalScene:
    """Cameras stand around the middle and look roughly along z."""
    rng = np.random.default_rng(3)
    turn = Rotation.from_euler("xyz", rng.uniform([-6, -12, -8], [6, 12, 8], (num_views, 3)), degrees=True)
    centre = rng.uniform([-1.2, -0.6, -0.8], [1.2, 0.6, 0.2], (num_views, 3))
    focal = np.full(num_views, 60.0) if same_focal else 60 * rng.uniform(0.95, 1.05, num_views)
    return OvalScene(
        size_wh=size_wh,
        world_from_cam=np.concatenate([turn.as_matrix(), centre[:, :, None]], axis=2),
        focal_px=focal,
        scale=np.ones(num_views),
        **keywords,
    )
