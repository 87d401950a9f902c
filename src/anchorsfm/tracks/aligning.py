"""What aligns the observations of one photograph with their references, in this process or in a worker.

The windows of the references come with the observations, some kilobyte each: the photograph itself is read where the
work is done, and nothing else is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8

from anchorsfm.io.pictures import load_grey
from anchorsfm.io.store import Store, digest
from anchorsfm.io.workers import single_threaded_libraries
from anchorsfm.scene.images import ImageSet
from anchorsfm.tracks.config import SubpixelConfig
from anchorsfm.tracks.patches import StepLimits, Templates, Warps, align_patches, grey_pyramid

KIND = "refined-observations"
"""Of the entries of the store."""
IMAGES_OF_TASK = 4
"""Most that are sent at a time: their windows wait in memory until the task is done."""
_VERSION = 1
"""Raise when the same windows come out elsewhere: stored observations are then refined anew."""
_MIN_COARSE_SCORE = 0.7
"""What a coarse level finds below this correlation is not where the next one starts: its wide window spans an edge."""


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Windows of the references of some observations, on all levels of their pyramids."""

    pixels: UInt8[np.ndarray, "row level side side"]
    offset: Float[np.ndarray, "row level 2"]
    inside: Bool[np.ndarray, "row level"]

    def of(self, rows: Int[np.ndarray, "n"], level: Int[np.ndarray, "n"]) -> Templates:
        """Those of some rows, each on a level of its own."""
        return Templates(
            pixels=self.pixels[rows, level], offset=self.offset[rows, level], inside=self.inside[rows, level]
        )

    def select(self, rows: Int[np.ndarray, "n"]) -> "Windows":
        """Those of some rows, on all levels."""
        return Windows(pixels=self.pixels[rows], offset=self.offset[rows], inside=self.inside[rows])


@dataclass(frozen=True, kw_only=True)
class AlignJob:
    """The observations of a photograph that are to be aligned, rows of all arrays."""

    image: int
    xy: Float[np.ndarray, "row 2"]
    """Where they are expected, original pixels."""
    affine: Float[np.ndarray, "row 2 2"]
    """Expected map from the reference, original pixels."""
    obs_level: Int[np.ndarray, "row"]
    """Level of the photograph at the last step."""
    ref_level: Int[np.ndarray, "row"]
    """Level of the reference's photograph at the last step."""
    start: Int[np.ndarray, "row"]
    """Number of the first step."""
    windows: Windows

    @property
    def num_levels(self) -> int:
        """Of the photograph's pyramid."""
        return self.windows.pixels.shape[1]


@dataclass(frozen=True, kw_only=True)
class Aligned:
    """Where the observations of a job are found; score -1, deviation infinite where nothing could be compared."""

    xy: Float[np.ndarray, "row 2"]
    score: Float[np.ndarray, "row"]
    sigma_px: Float[np.ndarray, "row"]
    converged: Bool[np.ndarray, "row"]

    @staticmethod
    def nothing(job: AlignJob) -> "Aligned":
        """Before anything is compared."""
        count = len(job.xy)
        return Aligned(
            xy=job.xy.copy(),
            score=np.full(count, -1.0),
            sigma_px=np.full(count, np.inf),
            converged=np.zeros(count, bool),
        )


@dataclass(frozen=True, kw_only=True)
class AlignObservations:
    """Aligns observations, photograph by photograph."""

    store: Store
    images: ImageSet
    config: SubpixelConfig
    device: torch.device | None = None

    def __call__(self, part: Sequence[AlignJob]) -> None:
        """Raises InputError if a photograph cannot be read."""
        with single_threaded_libraries():
            for job in part:
                self.aligned(job)

    def key(self, job: AlignJob) -> str:
        """Identifies what a job comes to."""
        photograph = self.images.digests[job.image]
        turns = 0 if self.images.quarter_turns is None else int(self.images.quarter_turns[job.image]) % 4
        config = (self.config.radius, self.config.max_iterations, self.config.batch_size)
        key = digest(
            "refined observations", _VERSION, photograph, turns, config, str(self.device), {**vars(job), "image": None}
        )
        return self.store.current(KIND, key)

    def aligned(self, job: AlignJob) -> Aligned:
        """From the store, or made now. Raises InputError if the photograph cannot be read."""
        key = self.key(job) if self.store.keeps else ""
        stored = self.store.load(KIND, key) if self.store.keeps else None
        if stored is not None:
            return Aligned(**stored)
        found = self._align(job)
        self.store.save(KIND, key, vars(found))
        return found

    def set_aside(self, job: AlignJob) -> None:
        """Let nothing be found in a photograph in this run."""
        self.store.stand_in(KIND, self.key(job), vars(Aligned.nothing(job)))

    def _align(self, job: AlignJob) -> Aligned:
        """From coarse to fine."""
        config = self.config
        pyramid = grey_pyramid(load_grey(self.images, job.image), job.num_levels)
        found, affine = Aligned.nothing(job), job.affine.copy()
        for step in range(int(job.start.max()), -1, -1):
            limits = StepLimits(max_iterations=config.max_iterations, step_px=0.05 if step else 0.01)
            for level in np.unique(job.obs_level):
                if level + step >= len(pyramid):
                    continue
                here = np.flatnonzero((job.obs_level == level) & (job.start >= step))
                ref_level = job.ref_level[here] + step
                to_obs, to_ref = 0.5 ** (level + step), 0.5**ref_level
                moved = align_patches(
                    job.windows.of(here, ref_level),
                    pyramid[level + step],
                    Warps(centre=found.xy[here] * to_obs, affine=affine[here] * (to_obs / to_ref)[:, None, None]),
                    limits,
                    batch_size=config.batch_size,
                    device=self.device,
                )
                good = (moved.score >= _MIN_COARSE_SCORE) | (step == 0)
                found.xy[here[good]] = moved.warps.centre[good] / to_obs
                affine[here[good]] = (moved.warps.affine * (to_ref / to_obs)[:, None, None])[good]
                if step == 0:
                    found.converged[here] = moved.converged
                    found.score[here] = moved.score
                    found.sigma_px[here] = moved.sigma_px / to_obs
        return found
