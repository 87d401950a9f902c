"""From sparse two-view geometry and dense depth to the predictions the alignment takes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from anchorsfm.frontend.classical.config import DenseConfig
from anchorsfm.frontend.classical.tools import DenseJob, DepthOfPairs, fill_pairs
from anchorsfm.frontend.classical.two_view import RelativePose
from anchorsfm.geometry.pixels import plane_coordinates
from anchorsfm.geometry.transforms import invert, transform
from anchorsfm.io.store import Store, digest
from anchorsfm.io.weights.licence import LicenceRecord
from anchorsfm.io.workers import ordered_map
from anchorsfm.scene.images import ImageGrid, ImageSet
from anchorsfm.scene.pairs import Matches, PairPrediction, PairStatus, Pointmaps
from anchorsfm.scene.progress import Progress
from anchorsfm.stereo.confidence import left_right_error_px
from anchorsfm.stereo.config import SweepConfig
from anchorsfm.stereo.pair import DensePair, DepthMap, StereoPair
from anchorsfm.stereo.sweep import Epipolar, GridView, warp

MAX_DENSE_MATCH_ERROR_PX = 0.5
"""Dense correspondences must come back to where they started within this."""
MIN_DEPTHS = 10
"""Fewer matches on the grids do not show which depths to search."""


@dataclass(frozen=True, kw_only=True)
class SetGeometry:
    """The set-wide part: everything the prediction of a pair needs besides its pixels."""

    xy: tuple[Float[np.ndarray, "_ 2"], ...]
    """Keypoints of every image in original pixels."""
    focal_px: Float[np.ndarray, "image"]
    """Original pixels."""
    poses: tuple[RelativePose, ...]
    """One per pair."""
    has_depth: Bool[np.ndarray, "pair"]
    """Pairs that get dense depth; only such whose relative pose is known have any."""
    match_confidence: tuple[Float32[np.ndarray, "_"], ...]
    """Of the matches of every pair."""
    baseline: Float[np.ndarray, "pair"]
    """Length of the baseline of every pair in the unit of its group."""
    methods: tuple[tuple[str, ...], ...]
    """Detectors whose keypoints are matched, of every pair that several looked at; else none are named."""
    num_exact: tuple[int, ...] | None
    """How many keypoints of each image, the first ones, are of the more exact of two detectors; None: there is one."""

    def is_coarse(self, i: int, j: int, keypoint: Int[np.ndarray, "match 2"]) -> Bool[np.ndarray, "match 2"] | None:
        """Whether each end of matches is a keypoint of the less exact detector."""
        return None if self.num_exact is None else keypoint >= (self.num_exact[i], self.num_exact[j])


@dataclass(frozen=True, kw_only=True)
class PairSummary:
    """One row of the report."""

    i: int
    j: int
    status: PairStatus
    num_matches: int
    """Verified keypoint matches."""
    parallax_deg: float
    """Median angle at which the rays of a match meet."""


class ClassicalPredictor:
    """Predictions of the classical front end, made or read from the cache as they are asked for."""

    keeps_predictions = True
    detects_keypoints = True

    def __init__(
        self,
        *,
        images: ImageSet,
        pairs: Int[np.ndarray, "pair 2"],
        geometry: SetGeometry,
        grid: ImageGrid,
        config: DenseConfig,
        store: Store,
        digest: str,
        num_workers: int,
        licence: LicenceRecord | None = None,
    ) -> None:
        self.licence = licence
        self.grid = grid
        self.focal_px = geometry.focal_px
        """Original pixels, at the centre of the image."""
        self.num_keypoints = np.array([len(xy) for xy in geometry.xy], np.int64)
        self.num_with_depth = int(geometry.has_depth.sum())
        self._digest = digest
        self._images = images
        self._pairs = pairs
        self._geometry = geometry
        self._config = config
        self._depth = DepthOfPairs(
            store=store,
            images=images,
            grid=grid,
            focal_px=geometry.focal_px,
            sweep=SweepConfig(**{field.name: getattr(config, field.name) for field in fields(SweepConfig)}),
        )
        self._num_workers = num_workers

    @property
    def digest(self) -> str:
        """Of all inputs, and of what is set aside in this run, as another one is not to take that for the truth."""
        stand_ins = self._depth.store.stand_ins
        return digest("stand-ins", stand_ins, self._digest) if stand_ins else self._digest

    def __len__(self) -> int:
        return len(self._pairs)

    def __iter__(self) -> Iterator[PairPrediction]:
        return self.predictions(range(len(self)))

    def predictions(self, rows: Sequence[int]) -> Iterator[PairPrediction]:
        """Predictions of some rows of the pair list, in order, several made side by side."""
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)  # the pool keeps every core busy already
        try:
            yield from ordered_map(self.predict, rows, self._num_workers)
        finally:
            cv2.setNumThreads(threads)

    def summaries(self) -> tuple[PairSummary, ...]:
        """One row per pair, in order."""
        return tuple(
            PairSummary(i=i, j=j, status=pose.status, num_matches=len(pose.keypoint), parallax_deg=pose.parallax_deg)
            for (i, j), pose in zip(self._pairs.tolist(), self._geometry.poses, strict=True)
        )

    def fill(self, progress: Progress) -> None:
        """Let the executor of the store compute dense depth ahead."""
        rows = [row for row in np.flatnonzero(self._geometry.has_depth).tolist() if self._is_dense(row)]
        names = [" - ".join(self._images.names[image] for image in self._pairs[row]) for row in rows]
        fill_pairs(
            "dense depth of pairs",
            self._depth,
            lambda row: self._job(rows[row]),
            len(rows),
            names.__getitem__,
            progress,
        )

    def predict(self, pair: int) -> PairPrediction:
        """The prediction of one row of the pair list."""
        i, j = self._pairs[pair].tolist()
        pose = self._geometry.poses[pair]
        keypoint_matches = Matches(
            xy_i=self._geometry.xy[i][pose.keypoint[:, 0]].astype(np.float64),
            xy_j=self._geometry.xy[j][pose.keypoint[:, 1]].astype(np.float64),
            confidence=self._geometry.match_confidence[pair],
            is_coarse=self._geometry.is_coarse(i, j, pose.keypoint),
        )
        sparse = Matches.empty()
        if pose.status is PairStatus.OK and self._config.enabled:
            on_grid = self._on_grid(i, keypoint_matches.xy_i) & self._on_grid(j, keypoint_matches.xy_j)
            sparse = Matches(
                xy_i=self.grid.to_grid(i, keypoint_matches.xy_i[on_grid]),
                xy_j=self.grid.to_grid(j, keypoint_matches.xy_j[on_grid]),
                confidence=keypoint_matches.confidence[on_grid],
            )
        if not self._is_dense(pair):
            return PairPrediction(
                i=i,
                j=j,
                status=pose.status,
                matches=sparse,
                keypoint_matches=keypoint_matches,
                frame_i=None,
                frame_j=None,
                j_from_i=pose.j_from_i[:, :3],
                methods=self._geometry.methods[pair],
            )
        job = self._job(pair)
        geometry = self._depth.pair(job)
        dense = self._depth.dense(job, geometry)
        baseline = float(self._geometry.baseline[pair])
        frame_i, frame_j = _pointmaps(geometry, dense, pose.j_from_i, baseline)
        return PairPrediction(
            i=i,
            j=j,
            status=pose.status,
            matches=_join(sparse, *dense_matches(geometry, dense, self._config)),
            keypoint_matches=keypoint_matches,
            frame_i=frame_i,
            frame_j=frame_j,
            j_from_i=pose.j_from_i[:, :3],
            methods=self._geometry.methods[pair],
        )

    def _is_dense(self, pair: int) -> bool:
        return self._geometry.poses[pair].status is PairStatus.OK and bool(self._geometry.has_depth[pair])

    def _on_grid(self, image: int, xy: Float[np.ndarray, "match 2"]) -> Bool[np.ndarray, "match"]:
        """Which keypoints the grid shows: all of them, unless it is an undistorted crop."""
        if not self.grid.is_distorted(image):
            return np.ones(len(xy), bool)
        on_grid = self.grid.to_grid(image, xy)
        return np.asarray(((on_grid >= 0) & (on_grid < self.grid.size_wh[image])).all(axis=1))

    def _job(self, pair: int) -> DenseJob:
        i, j = self._pairs[pair].tolist()
        pose = self._geometry.poses[pair]
        xy = self._geometry.xy
        on_grid = self._on_grid(i, xy[i][pose.keypoint[:, 0]].astype(np.float64))
        on_grid &= self._on_grid(j, xy[j][pose.keypoint[:, 1]].astype(np.float64))
        depth = pose.depth[on_grid] if on_grid.sum() >= MIN_DEPTHS else pose.depth
        key = digest(
            "dense",
            [self._images.contents[i], self._images.contents[j]],
            [self.focal_px[i], self.focal_px[j]],
            [self.grid.size_wh[i], self.grid.size_wh[j]],
            [self.grid.scale[i], self.grid.scale[j]],
            [_coefficient(self.grid, i), _coefficient(self.grid, j)],
            pose.j_from_i,
            depth,
            self._depth.sweep,
        )
        return DenseJob(key=key, i=i, j=j, j_from_i=pose.j_from_i, depth=depth)


def _coefficient(grid: ImageGrid, image: int) -> Float[np.ndarray, "2"]:
    return np.zeros(2) if grid.distortion is None else grid.distortion.coefficient[image]


def unproject(depth: Float32[np.ndarray, "h w"], view: GridView) -> Float32[np.ndarray, "h w 3"]:
    """Points of all pixel centres in the frame of their camera."""
    height, width = depth.shape
    k = view.intrinsics
    x, y = (c.astype(np.float32) for c in plane_coordinates((width, height), (k[0, 0], k[1, 1]), k[:2, 2]))
    return np.stack([x * depth, y * depth, depth], axis=-1)


def _pointmaps(
    geometry: StereoPair, dense: DensePair, j_from_i: Float[np.ndarray, "3 4"], baseline: float
) -> tuple[Pointmaps, Pointmaps]:
    """Pointmaps of both images in the frames of i and of j."""
    points_i = unproject(dense.i.depth * np.float32(baseline), geometry.view_i)
    points_j = unproject(dense.j.depth * np.float32(baseline), geometry.view_j)
    scaled = j_from_i.copy()
    scaled[:, 3] *= baseline
    to_j, to_i = scaled.astype(np.float32), invert(scaled).astype(np.float32)
    confidence_i, confidence_j = dense.i.confidence, dense.j.confidence
    frame_i = Pointmaps(
        own=points_i, own_confidence=confidence_i, other=transform(to_i, points_j), other_confidence=confidence_j
    )
    frame_j = Pointmaps(
        own=points_j, own_confidence=confidence_j, other=transform(to_j, points_i), other_confidence=confidence_i
    )
    return frame_i, frame_j


def dense_matches(geometry: StereoPair, dense: DensePair, config: DenseConfig) -> list[Matches]:
    """Correspondences every few pixels of either image that pass the left-right check closely, in grid pixels."""
    stride = config.match_stride
    if stride <= 0:
        return []
    weight = np.float32(config.match_weight)
    here, there, confidence = _follow(dense.i, geometry.to_j, dense.j, geometry.to_i, stride)
    from_i = Matches(xy_i=here, xy_j=there, confidence=1 + weight * (confidence - 1))
    here, there, confidence = _follow(dense.j, geometry.to_i, dense.i, geometry.to_j, stride)
    return [from_i, Matches(xy_i=there, xy_j=here, confidence=1 + weight * (confidence - 1))]


def _follow(
    depth: DepthMap, geometry: Epipolar, other: DepthMap, back: Epipolar, stride: int
) -> tuple[Float[np.ndarray, "match 2"], Float[np.ndarray, "match 2"], Float32[np.ndarray, "match"]]:
    """Grid pixels of one image, where they lie in the other, and their confidences."""
    inverse_depth, confidence = 1 / depth.depth, depth.confidence
    there = warp(inverse_depth, geometry)
    error = left_right_error_px(inverse_depth, geometry, 1 / other.depth, back)
    good = (error < MAX_DENSE_MATCH_ERROR_PX) & (confidence > 1)
    on_grid = np.zeros_like(good)
    on_grid[stride // 2 :: stride, stride // 2 :: stride] = True
    v, u = np.nonzero(good & on_grid)
    here = np.stack([u + 0.5, v + 0.5], axis=1)
    return here, np.stack([there.x[v, u], there.y[v, u]], axis=1).astype(np.float64), confidence[v, u]


def _join(*parts: Matches) -> Matches:
    return Matches(
        xy_i=np.concatenate([part.xy_i for part in parts]),
        xy_j=np.concatenate([part.xy_j for part in parts]),
        confidence=np.concatenate([part.confidence for part in parts]).astype(np.float32),
    )
