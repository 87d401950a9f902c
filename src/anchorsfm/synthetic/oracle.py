"""Pairwise predictions of a synthetic scene: exact, or with adjustable errors of the kinds real front ends make.

`SyntheticFrontend` has the shape of a front end, so a whole run can be tested without looking at any picture.

Errors of a pointmap: log-depth gets a smooth field plus white noise; all points are scaled together, anew for each pair
and direction; x and y are divided by the focal error of the image, so that the pointmap implies a wrong focal length;
the points of the other image are misplaced by a small rotation. Errors of matches: Gaussian noise, and a share of
matches that end anywhere.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial.transform import Rotation

from anchorsfm.geometry.pixels import pixel_centres
from anchorsfm.geometry.transforms import compose, invert, transform
from anchorsfm.io.store import Store, digest
from anchorsfm.scene.images import ImageGrid, ImageSet
from anchorsfm.scene.pairs import Matches, PairList, PairPrediction, PairStatus, Pointmaps
from anchorsfm.scene.progress import Progress
from anchorsfm.synthetic.scenes import SyntheticScene, cast_pixels, project, rays
from anchorsfm.synthetic.solids import cast

_CELL_PX = 8
_VISIBLE = 1e-3
"""Relative depth difference up to which a point counts as seen."""
_SURE, _DOUBTFUL, _LOW = 14.0, 4.0, 4.0
"""Mean confidence minus one of right and wrong matches; greatest confidence in pairs of low confidence."""


@dataclass(frozen=True, kw_only=True)
class OracleNoise:
    """Standard deviations unless said otherwise; all 0 makes exact predictions."""

    depth_smooth: float = 0.02
    """Relative depth error that varies slowly over the grid, anew for each pointmap."""
    depth_smooth_cell_px: int = 32
    """Over how many grid pixels."""
    depth_white: float = 0.0
    """Relative depth error of single pixels."""
    scale: float = 0.05
    """Log-scale error of a pair's pointmaps, uniform within this."""
    focal: float = 0.02
    """Log focal length error of an image."""
    rotation_deg: float = 0.2
    """Misplacement of the other image's points, per axis."""
    match_px: float = 0.5
    """Error of matches per axis, grid pixels."""
    outlier_share: float = 0.05
    """Share of matches that are wrong."""
    low_confidence_share: float = 0.0
    """Share of pairs whose confidences all stay below 5."""
    keypoint_px: float = 0.3
    """Error of keypoints per axis, original pixels, the same in all pairs."""

    @staticmethod
    def none() -> "OracleNoise":
        return OracleNoise(
            depth_smooth=0.0,
            depth_white=0.0,
            scale=0.0,
            focal=0.0,
            rotation_deg=0.0,
            match_px=0.0,
            outlier_share=0.0,
            keypoint_px=0.0,
        )


@dataclass(frozen=True, kw_only=True)
class SyntheticFrontend:
    """A front end that knows the scene."""

    scene: SyntheticScene
    noise: OracleNoise = field(default_factory=OracleNoise)
    grid_long_side: int = 160
    """Grid pixels along the longer side; sides are multiples of 8, the rest is cropped."""
    halved: tuple[int, ...] = ()
    """Images whose grid has half as many pixels a side, as of pictures that were made smaller."""
    min_matches: int = 30
    """Pairs with fewer are unmatched."""
    misplaced: tuple[tuple[int, int, int], ...] = ()
    """Wrong pairs (i, j, k): everything about i and j is predicted as if the camera of j stood where that of k does, as
    where another part of the scene looks like the one that k sees."""
    num_keypoints: int = 100
    """Scene points sampled per image for `keypoint_matches`; 0 gives none."""
    seed: int = 0

    def open(self, images: ImageSet, pairs: PairList, store: Store, progress: Progress) -> "SyntheticPredictor":
        """Predictions of the given pairs; `images` must be those of the scene, nothing is stored.

        Raises ValueError for scenes with a lens: predictions are those of pinhole cameras.
        """
        if self.scene.config.lens is not None:
            raise ValueError("a synthetic front end predicts for pinhole cameras; make the scene without a lens")
        assert images.num_images == self.scene.num_images
        assert (images.size_wh == self.scene.config.size_wh).all()
        return SyntheticPredictor(self, pairs)


def image_set(scene: SyntheticScene, root: Path = Path("synthetic")) -> ImageSet:
    """The scene's images as a set, without looking at files."""
    count = scene.num_images
    shared = scene.config.focal_spread == 0
    return ImageSet(
        root=root,
        names=scene.names,
        size_wh=np.tile(np.array(scene.config.size_wh, np.int64), (count, 1)),
        camera_index=np.zeros(count, np.int64) if shared else np.arange(count),
        focal_prior_px=np.full(count, np.nan),
        digests=tuple(digest("synthetic image", scene.config, image) for image in range(count)),
    )


def make_grid(scene: SyntheticScene, long_side: int, halved: tuple[int, ...] = ()) -> ImageGrid:
    """Uniformly scaled and cropped centrally to multiples of 8."""
    size_wh = np.array(scene.config.size_wh)
    scale = np.full((scene.num_images, 1), long_side / size_wh.max())
    scale[list(halved)] /= 2
    grid_wh = np.maximum((size_wh * scale + 1e-6) // _CELL_PX, 1).astype(np.int64) * _CELL_PX
    return ImageGrid(
        size_wh=grid_wh,
        scale=np.tile(scale, (1, 2)),
        offset=(grid_wh - scale * size_wh) / 2,
    )


class SyntheticPredictor:
    """Makes the predictions of a `SyntheticFrontend` one by one, each a function of the configuration and the pair."""

    keeps_predictions = True  # making one again is as quick as reading it
    focal_px = None
    licence = None

    def __init__(self, frontend: SyntheticFrontend, pairs: PairList) -> None:
        self.grid = make_grid(frontend.scene, frontend.grid_long_side, frontend.halved)
        self.digest = digest("synthetic predictions", frontend, pairs)
        self.detects_keypoints = frontend.num_keypoints > 0
        self._frontend, self._pairs = frontend, pairs
        scene = frontend.scene
        self._pixels = [self.grid.to_image(k, self._centres(k)) for k in range(scene.num_images)]
        self._depth = [cast_pixels(scene, k, self._pixels[k]).distance for k in range(scene.num_images)]
        rng = np.random.default_rng([frontend.seed, 0])
        self._focal_error = np.exp(frontend.noise.focal * rng.standard_normal(scene.num_images))
        self._low = rng.permutation(len(pairs)) < round(frontend.noise.low_confidence_share * len(pairs))
        self._keypoints = _keypoints(frontend)
        self._stand_in = {(i, j): k for i, j, k in frontend.misplaced}

    def __len__(self) -> int:
        return len(self._pairs)

    def __iter__(self) -> Iterator[PairPrediction]:
        return self.predictions(range(len(self._pairs)))

    def predictions(self, rows: Sequence[int]) -> Iterator[PairPrediction]:
        """Predictions of some rows of the pair list, in order."""
        return (self.predict(pair) for pair in rows)

    @property
    def focal_grid_px(self) -> Float[np.ndarray, "image"]:
        """True focal lengths in grid pixels."""
        return self._frontend.scene.focal_px * self.grid.scale[:, 0]

    @property
    def implied_focal_grid_px(self) -> Float[np.ndarray, "image"]:
        """Focal lengths that fit the noisy pointmaps."""
        return self.focal_grid_px * self._focal_error

    def predict(self, pair: int) -> PairPrediction:
        """The prediction of a row of the pair list."""
        i, j = (int(image) for image in self._pairs.index[pair])
        rng = np.random.default_rng([self._frontend.seed, 1, i, j])
        place = self._stand_in.get((i, j), j)
        """The image whose camera pose j is taken to have."""
        matches = self._matches(rng, i, place, bool(self._low[pair]))
        if len(matches) < self._frontend.min_matches:
            return PairPrediction(
                i=i, j=j, status=PairStatus.UNMATCHED, matches=Matches.empty(), keypoint_matches=None,
                frame_i=None, frame_j=None,
            )  # fmt: skip
        return PairPrediction(
            i=i,
            j=j,
            status=PairStatus.OK,
            matches=matches,
            keypoint_matches=self._keypoint_matches(i, place),
            frame_i=self._pointmaps(rng, (i, i), (j, place), bool(self._low[pair])),
            frame_j=self._pointmaps(rng, (j, place), (i, i), bool(self._low[pair])),
        )

    def _centres(self, image: int) -> Float[np.ndarray, "pixel 2"]:
        return pixel_centres(self.grid.size_wh[image]).reshape(-1, 2)

    def _pointmaps(
        self, rng: np.random.Generator, own_at: tuple[int, int], other_at: tuple[int, int], low: bool
    ) -> Pointmaps:
        """Pointmaps of both images in the frame of the first; for each the image and that with its camera pose."""
        scene, noise = self._frontend.scene, self._frontend.noise
        (own, own_place), (other, other_place) = own_at, other_at
        scale = np.exp(rng.uniform(-noise.scale, noise.scale))
        own_points, own_confidence = self._noisy_points(rng, own, low)
        other_points, other_confidence = self._noisy_points(rng, other, low)
        own_from_other = compose(scene.cam_from_world[own_place], invert(scene.cam_from_world[other_place]))
        turn = Rotation.from_rotvec(np.radians(noise.rotation_deg) * rng.standard_normal(3)).as_matrix()
        own_from_other = np.concatenate([own_from_other[:, :3] @ turn, own_from_other[:, 3:]], axis=1)
        return Pointmaps(
            own=(scale * own_points).astype(np.float32),
            own_confidence=own_confidence,
            other=(scale * transform(own_from_other, other_points)).astype(np.float32),
            other_confidence=other_confidence,
        )

    def _noisy_points(
        self, rng: np.random.Generator, image: int, low: bool
    ) -> tuple[Float[np.ndarray, "h w 3"], Float[np.ndarray, "h w"]]:
        """Points of all grid pixels in the image's own frame, and their confidence: less where the error is large."""
        scene, noise = self._frontend.scene, self._frontend.noise
        width, height = (int(side) for side in self.grid.size_wh[image])
        error = noise.depth_smooth * _smooth_field(rng, height, width, noise.depth_smooth_cell_px)
        error = error + noise.depth_white * rng.standard_normal((height, width))
        plane = (self._pixels[image] - scene.principal_point_px) / scene.focal_px[image] / self._focal_error[image]
        directions = np.concatenate([plane, np.ones_like(plane[:, :1])], axis=1).reshape(height, width, 3)
        points = directions * (self._depth[image].reshape(height, width) * np.exp(error))[..., None]
        usual = max(float(np.hypot(noise.depth_smooth, noise.depth_white)), 1e-6)
        confidence = 1 + _SURE * np.exp(-np.abs(error) / (2 * usual)) * np.exp(0.1 * rng.standard_normal(error.shape))
        return points, (np.minimum(confidence, _LOW) if low else confidence).astype(np.float32)

    def _matches(self, rng: np.random.Generator, i: int, j: int, low: bool) -> Matches:
        """Matches from a grid of every 8th pixel of either image, in grid pixels."""
        forward_i, forward_j = self._find(i, j)
        backward_j, backward_i = self._find(j, i)
        xy_i, xy_j = np.concatenate([forward_i, backward_i]), np.concatenate([forward_j, backward_j])
        noise = self._frontend.noise
        wrong = rng.uniform(size=len(xy_i)) < noise.outlier_share
        found = np.where(
            wrong[:, None],
            rng.uniform(size=xy_j.shape) * self.grid.size_wh[j],
            xy_j + noise.match_px * rng.standard_normal(xy_j.shape),
        )
        confidence = 1 + np.where(wrong, _DOUBTFUL, _SURE) * np.exp(0.4 * rng.standard_normal(len(xy_i)))
        keep = _inside(found, self.grid.size_wh[j])
        confidence = np.minimum(confidence, _LOW) if low else confidence
        return Matches(xy_i=xy_i[keep], xy_j=found[keep], confidence=confidence[keep].astype(np.float32))

    def _find(self, source: int, target: int) -> tuple[Float[np.ndarray, "match 2"], Float[np.ndarray, "match 2"]]:
        """Exact matches of every 8th pixel centre of `source` that `target` sees, in grid pixels."""
        scene = self._frontend.scene
        width, height = (int(side) for side in self.grid.size_wh[source])
        chosen = np.zeros((height, width), bool)
        chosen[_CELL_PX // 2 :: _CELL_PX, _CELL_PX // 2 :: _CELL_PX] = True
        rows = np.flatnonzero(chosen.ravel())
        origin, direction = rays(scene, source, self._pixels[source][rows])
        xy, visible = _see(scene, target, origin + self._depth[source][rows, None] * direction)
        xy_grid = self.grid.to_grid(target, xy)
        visible &= _inside(xy_grid, self.grid.size_wh[target])
        return self._centres(source)[rows][visible], xy_grid[visible]

    def _keypoint_matches(self, i: int, j: int) -> Matches | None:
        if not self._frontend.num_keypoints:
            return None
        xy, seen = self._keypoints
        both = seen[i] & seen[j]
        return Matches(xy_i=xy[i, both], xy_j=xy[j, both], confidence=np.full(int(both.sum()), 1 + _SURE, np.float32))


def _keypoints(frontend: SyntheticFrontend) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (image, point, 2) and visibility (image, point) of scene points sampled in all images."""
    scene, rng = frontend.scene, np.random.default_rng([frontend.seed, 2])
    size_wh = np.array(scene.config.size_wh)
    points = []
    for image in range(scene.num_images):
        origin, direction = rays(scene, image, rng.uniform(size=(frontend.num_keypoints, 2)) * size_wh)
        points.append(origin + cast(scene.solids, origin, direction).distance[:, None] * direction)
    views = [_see(scene, image, np.concatenate(points)) for image in range(scene.num_images)]
    xy = np.stack([xy for xy, _ in views])
    xy = xy + frontend.noise.keypoint_px * rng.standard_normal(xy.shape)
    return xy, np.stack([visible for _, visible in views]) & _inside(xy, size_wh)


def _see(scene: SyntheticScene, image: int, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of points in an image, and whether it sees them: in the picture and nothing in front."""
    xy, depth = project(scene, image, points)
    visible = (depth > 1e-3) & _inside(xy, np.array(scene.config.size_wh))
    hits = cast_pixels(scene, image, xy[visible])
    visible[visible] = np.abs(hits.distance / depth[visible] - 1) < _VISIBLE
    return xy, visible


def _inside(xy: Float[np.ndarray, "*batch 2"], size_wh: Int[np.ndarray, "2"]) -> Bool[np.ndarray, "*batch"]:
    return np.all((xy >= 0) & (xy < size_wh), axis=-1)


def _smooth_field(rng: np.random.Generator, height: int, width: int, cell_px: int) -> Float[np.ndarray, "h w"]:
    """A random field of unit standard deviation (over many fields) that varies over about `cell_px` pixels."""
    rows, columns = -(-height // cell_px) + 4, -(-width // cell_px) + 4
    wide = cv2.resize(rng.standard_normal((rows, columns)), None, fx=cell_px, fy=cell_px, interpolation=cv2.INTER_CUBIC)
    top, left = rng.integers(2 * cell_px, 3 * cell_px, 2)
    # Cubic interpolation averages neighbours: divide by the root of the mean sum of its squared weights, per axis.
    return wide[top : top + height, left : left + width] / _cubic_gain(cell_px)


def _cubic_gain(cell_px: int) -> float:
    impulse = np.zeros((1, 9))
    impulse[0, 4] = 1
    response = cv2.resize(impulse, (9 * cell_px, 1), interpolation=cv2.INTER_CUBIC)
    return float((response**2).sum() / cell_px)
