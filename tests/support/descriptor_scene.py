"""A front end made of a synthetic scene's exact pointmaps and descriptors: a network that is never wrong.

Descriptors are a smooth function of the 3D point a pixel shows, so nearest descriptors are nearest points; matching,
streaming and everything after it are the real code.
"""

import numpy as np
import torch

from anchorsfm.frontend.mast3r.matching import descriptor_pass, extract_correspondences
from anchorsfm.geometry.transforms import compose, invert, transform
from anchorsfm.scene.images import ImageGrid
from anchorsfm.scene.pairs import PairPrediction, PairStatus, Pointmaps
from anchorsfm.synthetic import render_depth


class ExactNetwork:
    """A frontend whose `open` needs no weights."""

    def __init__(self, scene, shrink):
        self.scene, self.shrink = scene, shrink

    def open(self, images, pairs, store, progress):
        return ExactPredictor(self.scene, self.shrink, pairs.index)


class ExactPredictor:
    keeps_predictions = False
    digest = "exact network"
    detects_keypoints, focal_px, licence = False, None, None

    def __init__(self, scene, shrink, pairs):
        self.scene, self.pairs = scene, pairs
        count, size_wh = scene.num_images, np.array(scene.config.size_wh)
        scale = 1 / shrink
        self.grid = ImageGrid(
            size_wh=np.tile(size_wh // shrink, (count, 1)),
            scale=np.full((count, 2), scale),
            offset=np.zeros((count, 2)),
        )
        self.points = [self._points(image, shrink) for image in range(count)]
        rng = np.random.default_rng(0)
        self.frequencies, self.phases = rng.normal(0, 2.0, (3, 24)), rng.uniform(0, 2 * np.pi, 24)
        self.asked = 0

    def _points(self, image, shrink):
        """Points that grid pixels show, in the frame of the camera (depth at the nearest original pixel)."""
        half = shrink // 2
        depth = render_depth(self.scene, image)[half::shrink, half::shrink]
        height, width = depth.shape
        focal, centre = self.scene.focal_px[image], self.scene.principal_point_px
        x = (np.arange(width) * shrink + half + 0.5 - centre[0]) / focal
        y = (np.arange(height) * shrink + half + 0.5 - centre[1]) / focal
        return np.stack([x[None, :] * depth, y[:, None] * depth, depth], axis=-1).astype(np.float32)

    def __len__(self):
        return len(self.pairs)

    def __iter__(self):
        return self.predictions(range(len(self)))

    def _descriptors(self, image):
        world = transform(invert(self.scene.cam_from_world[image]), self.points[image].astype(np.float64))
        features = np.cos(world @ self.frequencies + self.phases)
        features /= np.linalg.norm(features, axis=-1, keepdims=True)
        return torch.from_numpy(features.astype(np.float32))

    def predictions(self, rows):
        for row in rows:
            self.asked += 1
            i, j = self.pairs[row].tolist()
            certain = {k: torch.full(self.points[k].shape[:2], 12.0) for k in (i, j)}
            one = descriptor_pass(self._descriptors(i), self._descriptors(j), certain[i], certain[j])
            matches = extract_correspondences([one]).to_matches(*self.grid.size_wh[[i, j], 0].tolist())
            yield PairPrediction(
                i=i,
                j=j,
                status=PairStatus.OK,
                matches=matches,
                keypoint_matches=None,
                frame_i=self._frame(i, j, certain),
                frame_j=self._frame(j, i, certain),
            )

    def _frame(self, own, other, certain):
        own_from_other = compose(self.scene.cam_from_world[own], invert(self.scene.cam_from_world[other]))
        return Pointmaps(
            own=self.points[own],
            own_confidence=certain[own].numpy(),
            other=transform(own_from_other, self.points[other].astype(np.float64)).astype(np.float32),
            other_confidence=certain[other].numpy(),
        )
