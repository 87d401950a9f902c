"""Observations of tracks refined in the photographs at full resolution (docs/method.md, Sub-pixel refinement).

Every track has a reference observation, which stays where it is and says which surface point the track means. The
others are moved so that their photographs agree with the reference around the point: affine least squares (`patches`),
from coarse to fine. The first level of the pyramids is the one where the stated uncertainty is about a pixel, the last
is the photograph itself. Where two photographs show the surface at different scales, the one that shows it larger is
looked at on a coarser level, so that windows hold the same detail.

Photographs are read one at a time: once to cut the windows of the references in it, once to align the observations in
it. Tracks are worked on in portions whose windows fit a fixed memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from anchorsfm.io.pictures import load_grey
from anchorsfm.io.recent import Recent
from anchorsfm.io.store import Store
from anchorsfm.scene.edit import select_observations
from anchorsfm.scene.executor import Work
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.progress import SILENT, Advance, Progress, WithinStage
from anchorsfm.scene.reconstruction import Reconstruction, Tracks
from anchorsfm.tracks.aligning import IMAGES_OF_TASK, KIND, Aligned, AlignJob, AlignObservations, Windows
from anchorsfm.tracks.config import SubpixelConfig
from anchorsfm.tracks.patches import cut_templates, grey_pyramid
from anchorsfm.tracks.references import best_of_track, expected_affine, rank_by_covisibility, rank_by_direction

_MAX_LEVEL = 5
_MAX_OCTAVES = 2
"""Largest difference of the levels that two photographs are compared on."""


class ObservationStatus(IntEnum):
    """What became of an observation."""

    REFERENCE = 0
    """It says which surface point the track means, and stays."""
    REFINED = 1
    LOW_SCORE = 2
    """The windows do not look alike."""
    MOVED_FAR = 3
    """Further than plausible."""
    UNCERTAIN = 4
    """Too little texture to hold the position, or no convergence."""
    OUTSIDE = 5
    """A window leaves its photograph or shows no contrast at all: nothing was compared."""


@dataclass(frozen=True, kw_only=True)
class SubpixelResult:
    """Refined tracks, and what became of every observation of the input."""

    tracks: Tracks
    kept: Bool[np.ndarray, "obs"]
    """Which observations of the input are in `tracks`, in the same order."""
    score: Float[np.ndarray, "obs"]
    """Cross-correlation with the reference: 1 for references, -1 where nothing was compared."""
    sigma_px: Float[np.ndarray, "obs"]
    """Predicted standard deviation against the reference: 0 for references, infinite where unknown."""
    status: Int[np.ndarray, "obs"]
    """`ObservationStatus`."""
    shift_px: Float[np.ndarray, "obs"]
    """How far observations moved, original pixels; NaN for those that were not refined."""

    @property
    def accepted(self) -> Bool[np.ndarray, "obs"]:
        return self.status <= ObservationStatus.REFINED


def refine_observations(
    tracks: Tracks,
    images: ImageSet,
    config: SubpixelConfig,
    *,
    uncertainty_px: Float[np.ndarray, "image"],
    model: Reconstruction | None = None,
    device: torch.device | None = None,
    store: Store | None = None,
    progress: Progress = SILENT,
) -> SubpixelResult:
    """Move observations to where their photographs show the same surface point as the track's reference.

    A reference with which fewer than half of the others agree is replaced once; the better attempt counts.

    Args:
        tracks: observations in original pixels.
        images: the photographs, read again here.
        config: windows, thresholds, memory.
        uncertainty_px: standard deviation of the observations of each image in original pixels.
        model: cameras and poses, approximately, of some or all images: windows are warped as they say. Its points are
            not used. Without it windows are at first taken to be neither scaled nor turned.
        device: where windows are aligned (default: the CPU).
        store: keeps what came of each photograph, and lets other machines align ahead.
        progress: receives a stage with a step per photograph read.

    Raises:
        InputError: a photograph can no longer be read.
    """
    if not len(tracks.obs_point):
        none = np.zeros(0)
        return SubpixelResult(
            tracks=tracks, kept=np.zeros(0, bool), score=none, sigma_px=none, status=np.zeros(0, np.int64),
            shift_px=none,
        )  # fmt: skip
    work = _Work(tracks, images, config, uncertainty_px, model, device, store or Store(None))
    rank = _rank(tracks, images, config, model)
    first = work.attempt(np.arange(tracks.num_points), best_of_track(tracks, rank), progress, "refining observations")
    doubtful = _doubtful(tracks, first)
    if len(doubtful):
        other = best_of_track(tracks, rank, place=1)
        second = work.attempt(doubtful, other, progress, "refining observations again")
        first = _better(tracks, first, second)
    return _result(tracks, first, config)


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """Alignment of all observations with one choice of references; NaN, -1, OUTSIDE where nothing was tried."""

    xy: Float[np.ndarray, "obs 2"]
    score: Float[np.ndarray, "obs"]
    sigma_px: Float[np.ndarray, "obs"]
    status: Int[np.ndarray, "obs"]

    def agreeing(self, tracks: Tracks) -> Int[np.ndarray, "point"]:
        """Number of refined observations of each track."""
        return np.bincount(
            tracks.obs_point[self.status == ObservationStatus.REFINED], minlength=tracks.num_points
        ).astype(np.int64)


def _doubtful(tracks: Tracks, attempt: _Attempt) -> Int[np.ndarray, "doubtful"]:
    """Tracks of three and more observations where less than half of the others agree with the reference."""
    others = np.bincount(tracks.obs_point) - 1
    return np.flatnonzero((others >= 2) & (2 * attempt.agreeing(tracks) < others))


def _better(tracks: Tracks, first: _Attempt, second: _Attempt) -> _Attempt:
    """Per track, the attempt with more agreeing observations."""
    switch = (second.agreeing(tracks) > first.agreeing(tracks))[tracks.obs_point]
    return _Attempt(
        xy=np.where(switch[:, None], second.xy, first.xy),
        score=np.where(switch, second.score, first.score),
        sigma_px=np.where(switch, second.sigma_px, first.sigma_px),
        status=np.where(switch, second.status, first.status),
    )


def _result(tracks: Tracks, attempt: _Attempt, config: SubpixelConfig) -> SubpixelResult:
    accepted = attempt.status <= ObservationStatus.REFINED
    moved = np.where(accepted[:, None], attempt.xy, tracks.obs_xy)
    keep = np.ones(len(accepted), bool) if config.on_failure == "keep" else accepted
    refined = Tracks(obs_point=tracks.obs_point, obs_image=tracks.obs_image, obs_xy=moved)
    count = np.bincount(tracks.obs_point[keep], minlength=tracks.num_points)
    keep = keep & (count >= 2)[tracks.obs_point]
    return SubpixelResult(
        tracks=select_observations(refined, keep)[0],
        kept=keep,
        score=attempt.score,
        sigma_px=attempt.sigma_px,
        status=attempt.status,
        shift_px=np.where(accepted, np.linalg.norm(moved - tracks.obs_xy, axis=1), np.nan),
    )


def _rank(
    tracks: Tracks, images: ImageSet, config: SubpixelConfig, model: Reconstruction | None
) -> Float[np.ndarray, "obs"]:
    """How well each observation serves as reference."""
    rank = rank_by_covisibility(tracks, images.num_images)
    if model is not None:  # the order without it remains for images that the model lacks
        rank = rank_by_direction(tracks, model) + 1e-6 * rank
    border = config.radius + 2
    to_edge = np.minimum(tracks.obs_xy, images.size_wh[tracks.obs_image] - tracks.obs_xy).min(axis=1)
    return np.where(to_edge < border, rank - 1e6, rank)


class _Work:
    """Alignment of tracks with given references."""

    def __init__(
        self,
        tracks: Tracks,
        images: ImageSet,
        config: SubpixelConfig,
        uncertainty_px: Float[np.ndarray, "image"],
        model: Reconstruction | None,
        device: torch.device | None,
        store: Store,
    ) -> None:
        self._tracks, self._images, self._config = tracks, images, config
        self._uncertainty_px, self._model, self._store = uncertainty_px, model, store
        self._aligner = AlignObservations(store=store, images=images, config=config, device=device)

    def attempt(
        self, points: Int[np.ndarray, "part"], reference: Int[np.ndarray, "point"], progress: Progress, name: str
    ) -> _Attempt:
        """Align the observations of some tracks with their references (rows of observations)."""
        tracks = self._tracks
        plan = self._plan(reference)
        num_obs = len(tracks.obs_point)
        result = _Attempt(
            xy=tracks.obs_xy.copy(),
            score=np.full(num_obs, -1.0),
            sigma_px=np.full(num_obs, np.inf),
            status=np.full(num_obs, int(ObservationStatus.OUTSIDE)),
        )
        portions = self._portions(points, reference, plan.num_levels)
        reads = [self._rows_by_image(portion, reference) for portion in portions]
        with progress.stage(name, sum(len(cut) + len(align) for cut, align in reads)) as advance:
            for portion, (cut, align) in zip(portions, reads, strict=True):
                windows = self._cut(portion, cut, plan.num_levels, advance)
                jobs = _Jobs(tracks=tracks, plan=plan, cut=windows, rows=align)
                self._align_ahead(name, jobs, progress)
                for row, image in enumerate(jobs.images):
                    found = self._aligner.aligned(jobs.of(row))
                    self._judge(align[image], plan, found, result)
                    advance(1)
        result.score[reference[points]], result.sigma_px[reference[points]] = 1.0, 0.0
        result.status[reference[points]] = ObservationStatus.REFERENCE
        return result

    def _plan(self, reference: Int[np.ndarray, "point"]) -> "_Plan":
        tracks, config = self._tracks, self._config
        if self._model is None:
            affine = np.tile(np.eye(2), (len(tracks.obs_point), 1, 1))
        else:
            long_side = self._images.size_wh[self._model.image_index].max(axis=1)
            error_px = config.model_error * long_side + 3 * self._uncertainty_px[self._model.image_index]
            affine = expected_affine(tracks, reference, self._model, error_px)
        scale = np.sqrt(np.abs(np.linalg.det(affine)))
        octaves = np.clip(np.round(np.log2(scale)), -_MAX_OCTAVES, _MAX_OCTAVES).astype(np.int64)
        of_reference = self._uncertainty_px[tracks.obs_image[reference]][tracks.obs_point]
        uncertainty = np.hypot(self._uncertainty_px[tracks.obs_image], scale * of_reference)
        obs_level, ref_level = np.maximum(octaves, 0), np.maximum(-octaves, 0)
        start = np.round(np.log2(np.maximum(uncertainty, 1e-3))).astype(np.int64) - obs_level
        start = np.clip(start, 0, _MAX_LEVEL - np.maximum(obs_level, ref_level))
        return _Plan(affine=affine, obs_level=obs_level, ref_level=ref_level, start=start, uncertainty_px=uncertainty)

    def _portions(
        self, points: Int[np.ndarray, "part"], reference: Int[np.ndarray, "point"], num_levels: int
    ) -> list[Int[np.ndarray, "portion"]]:
        """Tracks by the image of their reference, in portions whose windows fit the memory."""
        ordered = points[np.argsort(self._tracks.obs_image[reference[points]], kind="stable")]
        track_bytes = num_levels * (2 * self._config.radius + 3) ** 2
        fitting = max(1, self._config.window_memory_mib * 2**20 // track_bytes)
        return [np.sort(ordered[first : first + fitting]) for first in range(0, len(ordered), fitting)]

    def _rows_by_image(
        self, portion: Int[np.ndarray, "portion"], reference: Int[np.ndarray, "point"]
    ) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
        """Rows of the references, and of the other observations, of each image."""
        tracks = self._tracks
        chosen = np.zeros(tracks.num_points, bool)
        chosen[portion] = True
        others = chosen[tracks.obs_point]
        others[reference] = False
        return _by_image(tracks, np.sort(reference[portion])), _by_image(tracks, np.flatnonzero(others))

    def _cut(
        self, portion: Int[np.ndarray, "portion"], rows_of: dict[int, np.ndarray], num_levels: int, advance: Advance
    ) -> "_Cut":
        tracks, radius = self._tracks, self._config.radius
        side = 2 * radius + 3
        place = np.full(tracks.num_points, -1)
        place[portion] = np.arange(len(portion))
        windows = Windows(
            pixels=np.zeros((len(portion), num_levels, side, side), np.uint8),
            offset=np.zeros((len(portion), num_levels, 2)),
            inside=np.zeros((len(portion), num_levels), bool),
        )
        for image, rows in rows_of.items():
            pyramid = grey_pyramid(load_grey(self._images, image), num_levels)
            at = place[tracks.obs_point[rows]]
            for level, picture in enumerate(pyramid):
                cut = cut_templates(picture, tracks.obs_xy[rows] / 2**level, radius)
                windows.pixels[at, level], windows.offset[at, level] = cut.pixels, cut.offset
                windows.inside[at, level] = cut.inside
            advance(1)
        return _Cut(place=place, windows=windows)

    def _align_ahead(self, name: str, jobs: "_Jobs", progress: Progress) -> None:
        """Let the executor of the store align the observations of photographs."""
        keys: dict[int, str] = {}

        def is_done(row: int) -> bool:
            if row not in keys:
                keys[row] = self._aligner.key(jobs.of(row))
            return self._store.has(KIND, keys[row])

        work = Work(
            tool=self._aligner,
            part=lambda rows: [jobs.of(row) for row in rows],
            is_done=is_done,
            name=lambda row: self._images.names[jobs.images[row]],
            set_aside=lambda row: self._aligner.set_aside(jobs.of(row)),
            max_rows=IMAGES_OF_TASK,
        )
        self._store.fill(name, work, len(jobs.images), WithinStage(progress))

    def _judge(self, rows: Int[np.ndarray, "row"], plan: "_Plan", found: Aligned, result: _Attempt) -> None:
        config = self._config
        result.xy[rows], result.score[rows], result.sigma_px[rows] = found.xy, found.score, found.sigma_px
        shift = np.linalg.norm(result.xy[rows] - self._tracks.obs_xy[rows], axis=1)
        status = np.full(len(rows), int(ObservationStatus.REFINED))
        status[~found.converged | (result.sigma_px[rows] > config.max_sigma_px)] = ObservationStatus.UNCERTAIN
        status[shift > config.max_shift * plan.uncertainty_px[rows] + 1] = ObservationStatus.MOVED_FAR
        status[result.score[rows] < config.min_score] = ObservationStatus.LOW_SCORE
        status[result.score[rows] == -1] = ObservationStatus.OUTSIDE
        result.status[rows] = status


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """How each observation is compared with its reference."""

    affine: Float[np.ndarray, "obs 2 2"]
    """Expected map from the reference, original pixels."""
    obs_level: Int[np.ndarray, "obs"]
    """Level of the observation's photograph at the last step."""
    ref_level: Int[np.ndarray, "obs"]
    """Level of the reference's photograph at the last step; one of the two is 0."""
    start: Int[np.ndarray, "obs"]
    """Number of the first step: both levels are raised by it; step 0 is the last."""
    uncertainty_px: Float[np.ndarray, "obs"]
    """Of the position against the reference, original pixels of the observation."""

    @property
    def num_levels(self) -> int:
        return int((self.start + np.maximum(self.obs_level, self.ref_level)).max()) + 1


@dataclass(frozen=True, kw_only=True)
class _Cut:
    """Windows of the references of a portion of the tracks."""

    place: Int[np.ndarray, "point"]
    """Row of the windows by track, -1 for tracks of other portions."""
    windows: Windows


@dataclass(frozen=True, kw_only=True)
class _Jobs:
    """The observations of a portion of the tracks, photograph by photograph."""

    tracks: Tracks
    plan: _Plan
    cut: _Cut
    rows: Mapping[int, Int[np.ndarray, "_"]]
    """Observations by photograph."""
    _recent: Recent[int, AlignJob] = field(default_factory=lambda: Recent(1), init=False, repr=False, compare=False)

    @property
    def images(self) -> list[int]:
        """Photographs, in order."""
        return list(self.rows)

    def of(self, number: int) -> AlignJob:
        """The job of a photograph, by its place among them."""
        return self._recent.get(number, lambda: self._make(self.images[number]))

    def _make(self, image: int) -> AlignJob:
        rows = self.rows[image]
        return AlignJob(
            image=image,
            xy=self.tracks.obs_xy[rows],
            affine=self.plan.affine[rows],
            obs_level=self.plan.obs_level[rows],
            ref_level=self.plan.ref_level[rows],
            start=self.plan.start[rows],
            windows=self.cut.windows.select(self.cut.place[self.tracks.obs_point[rows]]),
        )


def _by_image(tracks: Tracks, rows: Int[np.ndarray, "row"]) -> dict[int, np.ndarray]:
    image = tracks.obs_image[rows]
    return {int(k): rows[image == k] for k in np.unique(image)}
