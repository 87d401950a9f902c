"""Models of earlier runs as the start of another one (docs/method.md, Earlier models).

Each grows by the images that its points show the poses of, the largest first. Of images that fit nowhere models of
their own are made. Models that have come to share enough are joined.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from anchorsfm.mapping.base import Mapped, MapperInput, MapperSettings, Start, known_held
from anchorsfm.mapping.consistency import examine, is_consistent
from anchorsfm.mapping.incremental import FromScratchConfig, grow_model, map_tracks, settle_model, triangulated_model
from anchorsfm.mapping.joining import Relation, join_models, relate_models
from anchorsfm.scene.edit import select_observations, select_views, with_cameras_of_views, with_rigs
from anchorsfm.scene.errors import NoReconstructionError
from anchorsfm.scene.progress import Progress
from anchorsfm.scene.reconstruction import Reconstruction, Tracks
from anchorsfm.scene.rigs import Rigs
from anchorsfm.tracks.config import AdjustConfig


@dataclass(frozen=True, kw_only=True)
class EarlierModel:
    """A finished model whose images are among those of this run."""

    model: Reconstruction
    """By index in the ImageSet; its points are not used."""
    keeps: bool
    """Its poses and intrinsics stay as they are."""
    run: int
    """Which of the earlier runs made it ..."""
    number: int
    """... and its number there."""
    rigs: Rigs | None = None
    """The rigs of all images with the poses that cameras have in them in this model; None: there are no rigs."""


@dataclass(frozen=True, kw_only=True)
class _Part:
    model: Reconstruction
    kept: Bool[np.ndarray, "image"]
    """Images whose poses stay."""
    runs: frozenset[int]
    rigs: Rigs | None = None
    """With the poses of cameras that stay; views are placed one by one until all parts are complete."""


def with_earlier_cameras(given: MapperInput, earlier: Sequence[EarlierModel]) -> MapperInput:
    """What mappers get, with the intrinsics of earlier models, which stay where the models do."""
    cameras, known = list(given.cameras), given.known_camera.copy()
    for entry in reversed(earlier):  # the first, largest, has the last word
        rows = given.images.camera_index[entry.model.image_index]
        for row, camera in zip(rows.tolist(), entry.model.camera_index.tolist(), strict=True):
            cameras[row] = entry.model.cameras[camera]
            known[row] |= entry.keeps
    return replace(given, cameras=tuple(cameras), known_camera=known)


def map_continued(
    earlier: Sequence[EarlierModel],
    members: Bool[np.ndarray, "run image"],
    given: MapperInput,
    settings: MapperSettings,
    progress: Progress,
    *,
    joins_runs: bool,
) -> Mapped:
    """Earlier models with what could be added to them, and models of what could not; the largest first.

    What joins is in the frame of the largest model of the first run that takes part.

    Args:
        earlier: models; those of one run have no common image.
        members: the photographs of each earlier run.
        given: of `with_earlier_cameras`.
        settings: of mappers.
        progress: receives stages and notes.
        joins_runs: models of different runs are to be one.

    Raises:
        NoReconstructionError: `joins_runs`, and no models of different runs can be joined; it gives the numbers.
    """
    config = FromScratchConfig(num_threads=settings.num_threads)
    parts = [_part(entry, given.images.num_images) for entry in earlier]
    joiner = _Joiner(given=given, members=members, config=config, progress=progress, relations=[])
    parts = joiner.join(parts)
    if joins_runs and all(len(part.runs) == 1 for part in parts):
        raise NoReconstructionError(f"the models cannot be joined: {joiner.weakness()}")
    reasons: dict[int, str] = {}
    with progress.stage("growing models", len(parts)) as advance:
        for row, part in enumerate(parts):
            grown, refused = grow_model(part.model, given, _missing(parts, given), config, kept_pose=part.kept)
            parts[row] = replace(part, model=grown)
            reasons |= refused
            advance(1)
    made, more_reasons = _of_the_rest(_missing(parts, given), given, config, progress)
    if len(parts) + len(made) > 1:
        parts = joiner.join([*parts, *made])
    placed = {int(image) for part in parts for image in part.model.image_index}
    return Mapped(
        starts=tuple(_start(part, given) for part in _by_size(parts)),
        reasons={image: reason for image, reason in (more_reasons | reasons).items() if image not in placed},
    )


def _part(entry: EarlierModel, num_images: int) -> _Part:
    kept = np.zeros(num_images, bool)
    kept[entry.model.image_index] = entry.keeps
    return _Part(model=with_rigs(entry.model, None), kept=kept, runs=frozenset([entry.run]), rigs=entry.rigs)


def _by_size(parts: Sequence[_Part]) -> list[_Part]:
    return sorted(parts, key=lambda part: -len(part.model.image_index))


def _by_claim(parts: Sequence[_Part]) -> list[_Part]:
    """Those whose frame stays first: of the first run, the largest of them; those that are new last."""
    return sorted(_by_size(parts), key=lambda part: min(part.runs, default=sys.maxsize))


def _missing(parts: Sequence[_Part], given: MapperInput) -> Int[np.ndarray, "missing"]:
    """Images that no part holds."""
    held = [part.model.image_index for part in parts]
    return np.setdiff1d(np.arange(given.images.num_images), np.concatenate([np.zeros(0, np.int64), *held]))


def _start(part: _Part, given: MapperInput) -> Start:
    """Where nothing stays, poses of cameras in their rigs are found anew."""
    held = replace(known_held(part.model, given), pose=part.kept[part.model.image_index])
    return Start(model=with_rigs(part.model, part.rigs) if held.pose.any() else part.model, held=held)


def _of_the_rest(
    images: Int[np.ndarray, "missing"], given: MapperInput, config: FromScratchConfig, progress: Progress
) -> tuple[list[_Part], dict[int, str]]:
    """Models of images that fit nowhere, and why there is none of the others."""
    if not len(images):
        return [], {}
    tracks, _ = select_observations(given.tracks, np.isin(given.tracks.obs_image, images))
    made = map_tracks(
        tracks,
        given.cameras,
        given.images.camera_index,
        config,
        working_scale=given.working_scale,
        known_camera=given.known_camera,
        progress=progress,
    )
    nothing = np.zeros(given.images.num_images, bool)
    reasons = {image: made.unregistered[image] for image in images.tolist() if image in made.unregistered}
    return [_Part(model=model, kept=nothing, runs=frozenset()) for model in made.models], reasons


@dataclass(frozen=True, kw_only=True)
class _Joiner:
    """Joins parts that share enough."""

    given: MapperInput
    members: Bool[np.ndarray, "run image"]
    config: FromScratchConfig
    progress: Progress
    relations: list[Relation]
    """Of parts that were not joined."""

    def join(self, parts: Sequence[_Part]) -> list[_Part]:
        """The parts, each with what joins it, in its frame. Images of several stay in the first of them."""
        left, done = _by_claim(parts), []
        if len(left) > 1:
            left = [replace(part, model=triangulated_model(part.model, self.given, self.config)) for part in left]
        while left:
            part, row = left.pop(0), 0
            while row < len(left):
                whole = self._joined(part, left[row])
                if whole is None:
                    row += 1
                else:
                    del left[row]
                    part, row = whole, 0  # what did not fit before may fit the larger one
            done.append(part)
        return _disjoint(done)

    def weakness(self) -> str:
        """Why parts were not joined, in the numbers of those that came closest."""
        best = max(self.relations, key=lambda relation: relation.num_agreeing, default=None)
        return "there are no two of them" if best is None else best.weakness()

    def _joined(self, first: _Part, second: _Part) -> _Part | None:
        """Both as one; None if they share too little, or what they share contradicts itself."""
        given = self.given
        tracks = self._tracks(first, second)
        relation = relate_models(first.model, second.model, tracks, _final_px(given, self.config))
        if not relation.is_strong:
            self.relations.append(relation)
            return None
        model = join_models(
            first.model, second.model, relation, cameras=given.cameras, camera_index=given.images.camera_index
        )
        settled = settle_model(model, given, self.config, kept_pose=first.kept)
        if not is_consistent(settled, examine(settled, given, AdjustConfig())):
            self.relations.append(replace(relation, is_contradicted=True))
            return None
        self.progress.note(
            f"models of {len(first.model.image_index)} and {len(second.model.image_index)} images are one: "
            f"{relation.num_agreeing} of {relation.num_tracks} common points agree"
        )
        return _Part(model=settled, kept=first.kept, runs=first.runs | second.runs, rigs=first.rigs)

    def _tracks(self, first: _Part, second: _Part) -> Tracks:
        """Those that may join two parts: what one run knew and did not join them by is no evidence."""
        tracks = self.given.tracks
        known = [self.members[run] for run in first.runs & second.runs]
        if not known:
            return tracks
        news = np.zeros(tracks.num_points, bool)
        news[tracks.obs_point[~np.any(known, axis=0)[tracks.obs_image]]] = True
        return select_observations(tracks, news[tracks.obs_point])[0]


def _disjoint(parts: Sequence[_Part]) -> list[_Part]:
    """Every image in the first part that holds it alone; parts of fewer than two images go."""
    seen: set[int] = set()
    out = []
    for part in parts:
        keep = ~np.isin(part.model.image_index, list(seen))
        if keep.sum() >= 2:
            model = part.model if keep.all() else with_cameras_of_views(select_views(part.model, keep))
            out.append(replace(part, model=model))
            seen |= set(model.image_index.tolist())
    return out


def _final_px(given: MapperInput, config: FromScratchConfig) -> Float[np.ndarray, "image"]:
    long_side_px = given.images.size_wh.max(axis=1)
    return np.minimum(config.final_error_px * given.working_scale, config.second_error * long_side_px)
