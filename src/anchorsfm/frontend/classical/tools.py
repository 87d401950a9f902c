"""What makes the entries of pairs: verified matches, relative poses, dense depth, in this process or in a worker.

A job is everything that the entry of one pair depends on, and the key that follows from it. Coordinates of matches come
with it, some ten kilobytes; photographs are read where the work is done.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from anchorsfm.features.config import MatchingConfig
from anchorsfm.features.verification import Verified, kept_or_made, unverified
from anchorsfm.frontend.classical import cache
from anchorsfm.frontend.classical.config import TwoViewConfig
from anchorsfm.frontend.classical.focal_evidence import FocalEvidence, gather_evidence
from anchorsfm.frontend.classical.two_view import PairLens, RelativePose, relate, unrelated, verify_pair
from anchorsfm.io.recent import Recent
from anchorsfm.io.store import Store
from anchorsfm.io.workers import single_threaded_libraries
from anchorsfm.scene.executor import Tool, Work
from anchorsfm.scene.images import ImageGrid, ImageSet
from anchorsfm.scene.progress import Progress
from anchorsfm.stereo.config import SweepConfig
from anchorsfm.stereo.grid import grid_grey
from anchorsfm.stereo.pair import DensePair, DepthMap, StereoPair, dense_depth, stereo_pair
from anchorsfm.stereo.sweep import GridView

Job = TypeVar("Job")
JobIn = TypeVar("JobIn", contravariant=True)

GREY_IMAGES_KEPT = 256


@runtime_checkable
class PairTool(Tool[Sequence[JobIn]], Protocol[JobIn]):
    """Makes entries of pairs from jobs."""

    def is_done(self, job: JobIn) -> bool:
        """Whether the store has all entries of a job."""
        ...

    def set_aside(self, job: JobIn) -> None:
        """Let what says nothing stand in for the entries of a job in this run."""
        ...


def fill_pairs(
    description: str,
    tool: PairTool[Job],
    job: Callable[[int], Job],
    total: int,
    name: Callable[[int], str],
    progress: Progress,
) -> None:
    """Let the executor of the store make the entries of `total` jobs ahead; `name`: the pair of a job."""
    work = Work(
        tool=tool,
        part=lambda rows: [job(row) for row in rows],
        is_done=lambda row: tool.is_done(job(row)),
        name=name,
        set_aside=lambda row: tool.set_aside(job(row)),
    )
    tool.store.fill(description, work, total, progress)


@dataclass(frozen=True, kw_only=True)
class VerifyJob:
    """Matches of a pair that are to be verified."""

    key: str
    evidence_key: str
    xy_i: Float[np.ndarray, "match 2"]
    """Centred coordinates, without lens distortion."""
    xy_j: Float[np.ndarray, "match 2"]
    keypoint: Int[np.ndarray, "match 2"]
    lens: PairLens | None
    same_device: bool
    """Both photographs were taken with one."""


@dataclass(frozen=True, kw_only=True)
class VerifyPairs:
    """Verified matches of pairs, and what they say about focal lengths."""

    store: Store
    config: MatchingConfig

    def __call__(self, part: Sequence[VerifyJob]) -> None:
        for job in part:
            self.verified(job)

    def verified(self, job: VerifyJob) -> tuple[Verified, FocalEvidence]:
        """Those of a pair, from the store or made now."""
        verified = kept_or_made(
            self.store, job.key, lambda: verify_pair(job.xy_i, job.xy_j, job.keypoint, self.config, job.lens)
        )
        stored = self.store.load("classical-evidence", job.evidence_key)
        if stored is None:
            stored = cache.encode_evidence(self._evidence(job, verified))
            self.store.save("classical-evidence", job.evidence_key, stored)
        return verified, cache.decode_evidence(stored, verified.fundamental)

    def is_done(self, job: VerifyJob) -> bool:
        """Whether the store has both."""
        return self.store.has("verified-matches", job.key) and self.store.has("classical-evidence", job.evidence_key)

    def set_aside(self, job: VerifyJob) -> None:
        """Let the pair be unmatched in this run."""
        nothing = FocalEvidence(num_inliers=0, fundamental=np.zeros((3, 3)), homography_ratio=1.0, shared_focal=np.nan)
        self.store.stand_in("verified-matches", job.key, vars(unverified()))
        self.store.stand_in("classical-evidence", job.evidence_key, cache.encode_evidence(nothing))

    def _evidence(self, job: VerifyJob, verified: Verified) -> FocalEvidence:
        row = np.isin(job.keypoint[:, 0], verified.keypoint[:, 0])  # a keypoint is in one match at most
        stretch = job.lens.stretch if job.lens else 1.0
        return gather_evidence(
            job.xy_i[row],
            job.xy_j[row],
            verified.fundamental,
            job.same_device,
            self.config.max_epipolar_error_px * stretch,
            self.config.seed or 0,
        )


@dataclass(frozen=True, kw_only=True)
class RelateJob:
    """Verified matches of a pair whose relative pose is to be found."""

    key: str
    xy_i: Float[np.ndarray, "match 2"]
    """Centred coordinates, without lens distortion."""
    xy_j: Float[np.ndarray, "match 2"]
    keypoint: Int[np.ndarray, "match 2"]
    focal_ij: tuple[float, float]
    """In the unit of the coordinates."""
    lens: PairLens | None


@dataclass(frozen=True, kw_only=True)
class RelatePairs:
    """Relative poses of pairs."""

    store: Store
    matching: MatchingConfig
    two_view: TwoViewConfig

    def __call__(self, part: Sequence[RelateJob]) -> None:
        for job in part:
            self.pose(job)

    def pose(self, job: RelateJob) -> RelativePose:
        """That of a pair, from the store or made now."""
        stored = self.store.load("classical-poses", job.key)
        if stored is not None:
            return cache.decode_pose(stored)
        pose = relate(job.xy_i, job.xy_j, job.keypoint, job.focal_ij, self.matching, self.two_view, job.lens)
        self.store.save("classical-poses", job.key, cache.encode_pose(pose))
        return pose

    def is_done(self, job: RelateJob) -> bool:
        """Whether the store has it."""
        return self.store.has("classical-poses", job.key)

    def set_aside(self, job: RelateJob) -> None:
        """Let the pair be unmatched in this run."""
        self.store.stand_in("classical-poses", job.key, cache.encode_pose(unrelated()))


@dataclass(frozen=True, kw_only=True)
class DenseJob:
    """A pair with known relative pose whose dense depth is to be found."""

    key: str
    i: int
    j: int
    j_from_i: Float[np.ndarray, "3 4"]
    """Baseline of length 1."""
    depth: Float32[np.ndarray, "match 2"]
    """Of matches in both cameras, in baselines: says which depths to search."""


@dataclass(frozen=True, kw_only=True)
class DepthOfPairs:
    """Dense depth of both images of pairs."""

    store: Store
    images: ImageSet
    grid: ImageGrid
    focal_px: Float[np.ndarray, "image"]
    """Original pixels."""
    sweep: SweepConfig
    _greys: Recent[int, UInt8[np.ndarray, "h w"]] = field(
        default_factory=lambda: Recent(GREY_IMAGES_KEPT), init=False, repr=False, compare=False
    )

    def __call__(self, part: Sequence[DenseJob]) -> None:
        """Raises InputError if a photograph cannot be read."""
        with single_threaded_libraries():
            for job in part:
                self.dense(job, self.pair(job))

    def pair(self, job: DenseJob) -> StereoPair:
        """Both pictures on the grid. Raises InputError if a photograph cannot be read."""
        return stereo_pair(self._view(job.i), self._view(job.j), job.j_from_i)

    def dense(self, job: DenseJob, pair: StereoPair) -> DensePair:
        """Depth of a pair, from the store or made now."""
        stored = self.store.load("classical-dense", job.key)
        if stored is not None:
            return cache.decode_dense(stored)
        dense = dense_depth(pair, job.depth, self.sweep)
        self.store.save("classical-dense", job.key, cache.encode_dense(dense))
        return dense

    def is_done(self, job: DenseJob) -> bool:
        """Whether the store has it."""
        return self.store.has("classical-dense", job.key)

    def set_aside(self, job: DenseJob) -> None:
        """Let the pair have no depth in this run: confidence 1, which says nothing, at depth 1."""
        nothing = DensePair(i=self._no_depth(job.i), j=self._no_depth(job.j))
        self.store.stand_in("classical-dense", job.key, cache.encode_dense(nothing))

    def _no_depth(self, image: int) -> DepthMap:
        width, height = self.grid.size_wh[image].tolist()
        return DepthMap(
            depth_code=np.zeros((height, width), np.uint16),
            log_range=np.zeros(2),
            confidence_code=np.zeros((height, width), np.uint8),
        )

    def _view(self, image: int) -> GridView:
        focal_xy = self.focal_px[image] * self.grid.scale[image]
        grey = self._greys.get(image, lambda: grid_grey(self.images, self.grid, image))
        return GridView(grey=grey, focal_xy=(float(focal_xy[0]), float(focal_xy[1])))
