"""What a run begins with: nothing but photographs, or models of earlier runs (`earlier`). The stages ask it."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from anchorsfm.frontend.base import Frontend, PairPredictor, RunFrontend
from anchorsfm.io.store import Store
from anchorsfm.mapping.base import Mapped, MapperInput, MapperSettings
from anchorsfm.mapping.mappers import MAPPERS
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.earlier import KeptFrame
from anchorsfm.run.front_end_cameras import keep_found
from anchorsfm.run.predictions import EarlierPairs
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.pairs import PairList
from anchorsfm.scene.poses import StoredPose
from anchorsfm.scene.progress import Progress
from anchorsfm.tracks.adjust import AdjustResult


@runtime_checkable
class Beginning(Protocol):
    """Asked at the stages where it makes a difference; `FromPhotographs` says what each answer is without one."""

    @property
    def looked_at(self) -> EarlierPairs | None:
        """Pairs that were looked at, and which may be now; None: all may be."""
        ...

    @property
    def keeps(self) -> bool:
        """Whether poses and intrinsics of models stay."""
        ...

    def settings(self, config: PipelineConfig) -> PipelineConfig:
        """What the stages go by, of what is recorded."""
        ...

    def described(self, images: ImageSet, frontend: Frontend, store: Store, progress: Progress) -> ImageSet:
        """The photographs with what is known of their cameras."""
        ...

    def keep_cameras(
        self, predictor: PairPredictor, frontend: Frontend, images: ImageSet, pairs: PairList, store: Store
    ) -> None:
        """Keep what the front end went by, for runs that go on from this one."""
        ...

    def mapped(
        self, given: MapperInput, config: PipelineConfig, settings: MapperSettings, progress: Progress
    ) -> tuple[MapperInput, Mapped]:
        """First poses, and what they are adjusted with."""
        ...

    def frame_of(self, result: AdjustResult) -> KeptFrame | None:
        """Of a finished model that has the frame of an earlier one; None of others."""
        ...

    def stored_poses(self, results: Sequence[AdjustResult]) -> dict[int, StoredPose]:
        """Poses of finished models that stay, by image, with the bits they have on the disk."""
        ...

    def transform_record(self, results: Sequence[AdjustResult]) -> str | None:
        """The content of transform.json, of models that are in the frames it speaks of; None: there is none."""
        ...


class FromPhotographs:
    """A run that knows nothing but its photographs."""

    looked_at = None
    keeps = False

    def settings(self, config: PipelineConfig) -> PipelineConfig:
        return config

    def described(self, images: ImageSet, frontend: Frontend, store: Store, progress: Progress) -> ImageSet:
        return images

    def keep_cameras(
        self, predictor: PairPredictor, frontend: Frontend, images: ImageSet, pairs: PairList, store: Store
    ) -> None:
        if isinstance(frontend, RunFrontend):  # runs with one's own are not gone on from
            keep_found(predictor, frontend, images, pairs, store)

    def mapped(
        self, given: MapperInput, config: PipelineConfig, settings: MapperSettings, progress: Progress
    ) -> tuple[MapperInput, Mapped]:
        return given, MAPPERS[config.mapper](given, settings, progress)

    def frame_of(self, result: AdjustResult) -> KeptFrame | None:
        return None

    def stored_poses(self, results: Sequence[AdjustResult]) -> dict[int, StoredPose]:
        return {}

    def transform_record(self, results: Sequence[AdjustResult]) -> str | None:
        return None
