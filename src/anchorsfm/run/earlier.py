"""Finished runs that another one goes on from: their settings, photographs, pairs and models (docs/method.md, Earlier
models).

A run is read from its output folder (`finished`). Once the photographs of the new run are known, `Earlier.among`
finds those of the earlier ones in it, and everything else by index in the ImageSet.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from anchorsfm.colmap.models import read_stored_poses
from anchorsfm.frontend.base import Frontend, PairPredictor
from anchorsfm.geometry.geodesy import about_origin
from anchorsfm.geometry.links import connected_groups
from anchorsfm.geometry.similarity import Similarity
from anchorsfm.io.decoding import photo_digest
from anchorsfm.io.images import unusable
from anchorsfm.io.layout import Layout
from anchorsfm.io.listing import photograph_files
from anchorsfm.io.store import Store, to_json
from anchorsfm.mapping.base import Mapped, MapperInput, MapperSettings
from anchorsfm.mapping.config import KnownConfig, MapperName
from anchorsfm.mapping.continued import EarlierModel, map_continued, with_earlier_cameras
from anchorsfm.mapping.rigs import carried_rigs
from anchorsfm.results.model import StoredModel
from anchorsfm.results.record import Extension, UpReport
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.finished import FinishedRun
from anchorsfm.run.front_end_cameras import front_end_cameras, keep_given, kept_cameras
from anchorsfm.run.predictions import EarlierPairs
from anchorsfm.scene.edit import with_image_index, with_rigs
from anchorsfm.scene.errors import InputError, NothingNewError
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.pairs import PairList
from anchorsfm.scene.poses import StoredPose
from anchorsfm.scene.positions import GeoPositions
from anchorsfm.scene.progress import SILENT, Progress
from anchorsfm.scene.rigs import Rigs
from anchorsfm.tracks.adjust import AdjustResult
from anchorsfm.video.record import VideoFrames

_MAPPER: MapperName = "tracks"
_OF_PHOTOGRAPHS = ("focal_px", "focal_deviation", "masks", "mask", "rig.file", "rig.refine")
"""Settings that say something about all photographs of a run."""

_NAMED = 3
"""Files that a message names."""


def _true_path(path: Path) -> Path:
    """A file by the path of its folder without links, as reports name folders."""
    return Path(os.path.realpath(path.parent)) / path.name


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """What a run goes on from."""

    runs: tuple[FinishedRun, ...]
    keeps: bool
    """Poses and intrinsics of the models stay as they are."""
    joins_runs: bool = False
    """The models of the runs are to become one."""
    photographs: tuple[Path, ...]
    """Those of the runs, each once, and then those that are new."""
    num_settled: int
    """How many are those of the runs."""
    extensions: tuple[Extension, ...]
    """Of the runs, and this one, for its report."""
    copies: Mapping[str, str] = field(default_factory=dict)
    """True paths of photographs of the runs that this one has copies of, and of the copies."""

    @property
    def root(self) -> Path:
        """That names are relative to, where all photographs lie below it."""
        return self.runs[0].root

    @property
    def frames(self) -> tuple[Path, ...]:
        """Frames of videos in the output folder of the first run that are photographs, or panoramas that views were cut
        from."""
        folder = Layout(Path(os.path.realpath(self.runs[0].folder))).frames
        if self.runs[0].panoramas:
            return tuple(path for path in sorted(folder.rglob("*")) if path.is_file())
        return tuple(path for path in self.runs[0].photographs if path.is_relative_to(folder))

    @property
    def videos(self) -> tuple[VideoFrames, ...]:
        return tuple(video for run in self.runs for video in run.videos)

    def in_frame(self, images: ImageSet, progress: Progress = SILENT) -> ImageSet:
        """With recorded positions in the frame of the first run that has one; control points may have made it."""
        earth = next((run.earth for run in self.runs if run.earth is not None), None)
        if earth is None:
            return images
        if images.geo is not None:
            geo, problem = about_origin(images.geo, earth.origin, is_ellipsoidal=earth.is_ellipsoidal)
            if problem is not None:
                progress.warn(problem)
            return replace(images, geo=geo)
        nothing = GeoPositions.unrecorded(images.num_images, earth.origin, is_ellipsoidal=earth.is_ellipsoidal)
        return replace(images, geo=nothing)

    def among(self, images: ImageSet) -> "Continued":
        """The earlier photographs, pairs and models in an ImageSet.

        Raises InputError if a photograph has changed since, or the rigs of a model are others now.
        """
        row = {str(images.path(k)): k for k in range(images.num_images)}
        copied = {os.path.realpath(path): k for path, k in row.items()} if self.copies else {}
        row |= {old: copied[new] for old, new in self.copies.items() if new in copied}
        of_content = {digest: k for k, digest in enumerate(images.digests)}
        index = [
            np.array([_index_of(path, row, of_content) for path in run.photographs], np.int64) for run in self.runs
        ]
        found = Continued(earlier=self, images=images, index=tuple(index))
        _ = found.models  # what is wrong with them is said now
        return found


def extending(run: FinishedRun, sources: Sequence[Path], progress: Progress, *, keeps: bool) -> Earlier:
    """A run that goes on from one with more photographs (folders, lists and files), those that can be read.

    Raises NothingNewError if none of them is new, InputError if none can be read, or names that the settings speak of
    would change.
    """
    known = set(map(_true_path, run.photographs))
    found = list(dict.fromkeys(map(_true_path, photograph_files(sources))))
    new = [path for path in found if path not in known]
    problems = unusable(new)
    if len(problems) == len(found):
        raise InputError(f"none of the new photographs can be used: {_named(problems)}")
    for path, reason in problems.items():
        progress.warn(f"skipped {path}: {reason}")
    new = [path for path in new if path not in problems]
    if not new:
        others = f", and of the others none can be used: {_named(problems)}" if problems else ": name others"
        usable = len(found) - len(problems)
        every = "all " if not problems else ""
        raise NothingNewError(f"{every}{usable} photographs are those of {run.folder} already{others}")
    _require_names_stay(run, new)
    extension = Extension(
        command="extend", sources=tuple(str(path.absolute()) for path in sources), added=len(new), kept_poses=keeps
    )
    return Earlier(
        runs=(run,),
        keeps=keeps,
        photographs=(*run.photographs, *new),
        num_settled=len(run.photographs),
        extensions=(*run.extensions, extension),
    )


def _named(problems: Mapping[Path, str]) -> str:
    """The first of some files that cannot be used, each with the reason."""
    named = "; ".join(f"{path}: {reason}" for path, reason in list(problems.items())[:_NAMED])
    return named if len(problems) <= _NAMED else f"{named}; and {len(problems) - _NAMED} more"


def merging(runs: tuple[FinishedRun, FinishedRun]) -> Earlier:
    """A run that joins the models of two. Raises InputError if their settings cannot be those of one run."""
    for name in _OF_PHOTOGRAPHS:
        first, second = (attrgetter(name)(run.config) for run in runs)
        if first != second:
            raise InputError(
                f"{runs[0].folder} was made with {name} {first}, {runs[1].folder} with {second}: runs with other "
                "settings of their photographs cannot be merged"
            )
    outside = next((run for run in runs if run.config.masks is not None and run.root != runs[0].root), None)
    if outside is not None:
        raise InputError(f"masks go by the names of photographs, which would change: {outside.root} is not "
                         f"{runs[0].root}")  # fmt: skip
    photographs = tuple(dict.fromkeys(_true_path(path) for run in runs for path in run.photographs))
    extension = Extension(
        command="merge",
        sources=tuple(str(run.folder.absolute()) for run in runs),
        added=len(photographs) - len(runs[0].photographs),
        kept_poses=False,
    )
    return Earlier(
        runs=runs,
        keeps=False,
        joins_runs=True,
        photographs=photographs,
        num_settled=len(photographs),
        extensions=(*runs[0].extensions, *runs[1].extensions, extension),
    )


def settings_of_all(runs: Sequence[FinishedRun]) -> PipelineConfig:
    """Those of the first run, without what it says of its photographs one by one."""
    config = runs[0].config
    named = config.scene_graph.startswith("pairs:")
    scene_graph = "auto" if named else config.scene_graph
    return replace(config, scene_graph=scene_graph, similarity=None, known=KnownConfig())


def _require_names_stay(run: FinishedRun, new: Sequence[Path]) -> None:
    """Names are relative to a folder that holds all photographs: what the settings say of them by name must hold."""
    config = run.config
    named = {
        "masks": config.masks is not None,
        "known.model": config.known.model is not None,
        "scene_graph": config.scene_graph.startswith("pairs:"),
        "rig.file": config.rig.file is not None,
    }
    outside = [path for path in new if not path.is_relative_to(run.root)]
    for name in (name for name, is_set in named.items() if is_set and outside):
        raise InputError(
            f"{outside[0]} lies outside {run.root}, so that the names of all photographs would change, and {name} of "
            f"{run.folder} goes by these: put the new photographs below {run.root}"
        )


def _index_of(path: Path, row: dict[str, int], of_content: dict[str, int]) -> int:
    """Of a photograph, or of another file with the same content; -1: there is none."""
    found = row.get(str(path))
    if found is None:
        try:
            found = of_content.get(photo_digest(path.read_bytes()))
        except OSError:
            found = None
    return -1 if found is None else found


@dataclass(frozen=True, kw_only=True)
class KeptFrame:
    """Of a model with poses that stay."""

    cam_from_world: Float[np.ndarray, "view 3 4"]
    """Its poses, those that stay as they were."""
    is_metric: bool
    """Its unit is the metre."""
    enu_from_model: Similarity | None
    """The way to the frame of the recorded positions; None: it has no place in it."""
    by_control: bool
    """Ground control points brought it into that frame."""
    up: UpReport | None
    """Why z is up in it, if it is."""


@dataclass(frozen=True, kw_only=True)
class Continued:
    """Earlier runs by index in the ImageSet of one that goes on from them."""

    earlier: Earlier
    images: ImageSet
    index: tuple[Int[np.ndarray, "_"], ...]
    """Of the photographs of each run; -1: not in the set."""

    @cached_property
    def members(self) -> Bool[np.ndarray, "run image"]:
        """The photographs of each run."""
        out = np.zeros((len(self.index), self.images.num_images), bool)
        for run, index in enumerate(self.index):
            out[run, index[index >= 0]] = True
        return out

    @cached_property
    def models(self) -> tuple[EarlierModel, ...]:
        """All models, the largest first.

        Raises InputError if the photographs of a model are no longer among those that can be used.
        """
        found = []
        for number, (run, index) in enumerate(zip(self.earlier.runs, self.index, strict=True)):
            row = dict(zip(run.names, index.tolist(), strict=True))
            for place, stored in enumerate(run.models):
                rows = np.array([row.get(name, -1) for name in stored.view_names], np.int64)
                if (rows < 0).any():
                    name = stored.view_names[int(np.argmin(rows))]
                    raise InputError(f"{run.root / name}, a photograph of {stored.folder}, cannot be used any more")
                model = with_image_index(with_rigs(stored.model, None), rows)
                rigs = self._rigs_of(stored, rows)
                found.append(EarlierModel(model=model, keeps=self.keeps, run=number, number=place, rigs=rigs))
        return tuple(sorted(found, key=lambda entry: -len(entry.model.image_index)))

    def _rigs_of(self, stored: StoredModel, rows: Int[np.ndarray, "view"]) -> Rigs | None:
        try:
            return carried_rigs(self.images.rigs, stored.model.rigs, rows)
        except ValueError as error:
            raise InputError(
                f"with all photographs the rigs are not those of {stored.folder} ({error}): put the new ones beside "
                "the others, each by the camera that took it, under names like theirs"
            ) from error

    @cached_property
    def looked_at(self) -> EarlierPairs:
        """The pairs of the earlier runs, and which may be looked at now."""
        together = self.members.T.astype(np.float32) @ self.members.astype(np.float32) > 0
        allowed = ~together
        i, j = self._pairs.T
        allowed[i, j] = allowed[j, i] = True
        return EarlierPairs(pairs=self._pairs, allowed=allowed)

    @cached_property
    def _pairs(self) -> Int[np.ndarray, "pair 2"]:
        found = [np.zeros((0, 2), np.int64)]
        for run, index in zip(self.earlier.runs, self.index, strict=True):
            pairs = index[run.pairs]
            found.append(np.sort(pairs[(pairs >= 0).all(axis=1)], axis=1))
        pairs = np.unique(np.concatenate(found), axis=0)
        return pairs[pairs[:, 0] != pairs[:, 1]].reshape(-1, 2)

    def settings(self, config: PipelineConfig) -> PipelineConfig:
        # poses are those of the models, and new ones are found from tracks alone
        known = replace(config.known, use_poses=False, position_sigma=None, rotation_sigma_deg=None)
        return replace(config, mapper=_MAPPER, known=known)

    @property
    def keeps(self) -> bool:
        return self.earlier.keeps

    def frame_of(self, result: AdjustResult) -> KeptFrame | None:
        """Of a finished model that has the frame of an earlier one; None of others."""
        model, kept = result.model, result.held.pose
        wanted = model.image_index[kept] if kept.any() else model.image_index
        found = [entry for entry in self.models if np.isin(wanted, entry.model.image_index).any()]
        if not found:
            return None
        source = min(found, key=lambda entry: (entry.run, -len(entry.model.image_index)))
        poses = model.cam_from_world.copy()
        _, here, there = np.intersect1d(model.image_index, source.model.image_index, return_indices=True)
        here, there = here[kept[here]], there[kept[here]]
        poses[here] = source.model.cam_from_world[there]
        run = self.earlier.runs[source.run]
        earth = run.earth
        return KeptFrame(
            cam_from_world=poses,
            is_metric=run.is_metric[source.number],
            enu_from_model=None if earth is None else earth.enu_from_model.get(source.number),
            by_control=earth is not None and source.number in earth.by_control,
            up=run.up[source.number],
        )

    def transform_record(self, results: Sequence[AdjustResult]) -> str | None:
        """transform.json, where the models that it speaks of are still in these frames and have their numbers; points
        that a crop removed are made anew."""
        record = self.earlier.runs[0].transforms
        if not self.keeps or record is None:
            return None
        of_number = {entry.number: entry.model.image_index for entry in self.models}
        for number in (entry["number"] for entry in record["models"]):
            if number >= len(results) or number not in of_number:
                return None
            model, kept = results[number].model, results[number].held.pose
            if not np.isin(of_number[number], model.image_index[kept]).all():
                return None
        whole: dict[str, Any] = {"crop_box": [], "crop_radius": None}
        models = [{**entry, "steps": [step | whole for step in entry["steps"]]} for entry in record["models"]]
        return to_json({**record, "models": models})

    def stored_poses(self, results: Sequence[AdjustResult]) -> dict[int, StoredPose]:
        """Poses of finished models that stay, by image, with the bits they have on the disk."""
        kept = {int(image) for result in results for image in result.model.image_index[result.held.pose]}
        found: dict[int, StoredPose] = {}
        for run, index in zip(self.earlier.runs, self.index, strict=True):
            row = dict(zip(run.names, index.tolist(), strict=True))
            for stored in run.models if kept else ():
                found |= {row[name]: pose for name, pose in read_stored_poses(stored.folder).items()}
        return {image: pose for image, pose in found.items() if image in kept}

    def described(self, images: ImageSet, frontend: Frontend, store: Store, progress: Progress) -> ImageSet:
        """The photographs with cameras shared as in the models and, where these stay, with the focal lengths and
        distortions that the front end found then: what it made of the pairs is found in the cache again."""
        shared = self._with_cameras(images)
        if not self.keeps:
            return shared
        focal_px, deviation = images.focal_prior_px.copy(), images.focal_deviation
        distortion = (
            np.full((images.num_images, 2), np.nan) if images.distortion_prior is None else images.distortion_prior
        ).copy()
        exact = np.zeros(images.num_images, bool)
        for index in self.index:
            rows = np.sort(index[index >= 0])
            found = self._opened(shared, rows, frontend, store, progress)
            if found is None:
                continue
            for row in np.unique(shared.camera_index[rows]).tolist():
                first = int(np.flatnonzero(shared.camera_index[rows] == row)[0])
                mine = shared.camera_index == row
                focal_px[mine], distortion[mine], exact[mine] = found[0][first], found[1][first], True
        if deviation is not None:
            deviation = np.where(exact, np.nan, deviation)
        return replace(
            shared,
            focal_prior_px=focal_px,
            focal_deviation=deviation,
            distortion_prior=distortion,
            focal_is_exact=exact,
        )

    def _opened(
        self, images: ImageSet, rows: Int[np.ndarray, "row"], frontend: Frontend, store: Store, progress: Progress
    ) -> tuple[Float[np.ndarray, "row"], Float[np.ndarray, "row 2"]] | None:
        """Focal lengths and distortions of the photographs of a run, from the pairs that it looked at."""
        inside = np.isin(self._pairs, rows).all(axis=1)
        pairs = PairList(index=np.searchsorted(rows, self._pairs[inside]))
        mine = images.select(rows)
        kept = kept_cameras(frontend, mine, pairs, store)
        return front_end_cameras(frontend.open(mine, pairs, store, progress), mine) if kept is None else kept

    def _with_cameras(self, images: ImageSet) -> ImageSet:
        """Photographs of one camera of a model share one; others join it where they would share it anyway."""
        group = images.camera_index.astype(np.int64)
        links = [np.zeros((0, 2), np.int64)]
        for entry in self.models:
            for camera in range(len(entry.model.cameras)):
                mine = np.unique(group[entry.model.image_index[entry.model.camera_index == camera]])
                links.append(np.stack([mine[:-1], mine[1:]], axis=1))
        union = connected_groups(images.num_cameras, np.concatenate(links))[group]
        rank = np.zeros(images.num_images, np.int64)
        for entry in self.models:
            model = entry.model
            count = np.bincount(model.camera_index, minlength=len(model.cameras))
            for number in np.unique(union[model.image_index]).tolist():
                views = np.flatnonzero(union[model.image_index] == number)
                cameras = np.unique(model.camera_index[views])
                place = {c: k for k, c in enumerate(cameras[np.argsort(-count[cameras], kind="stable")].tolist())}
                rank[model.image_index[views]] = [place[c] for c in model.camera_index[views].tolist()]
        keys = list(zip(union.tolist(), rank.tolist(), strict=True))
        number_of: dict[tuple[int, int], int] = {}
        return replace(images, camera_index=np.array([number_of.setdefault(key, len(number_of)) for key in keys]))

    def keep_cameras(
        self, predictor: PairPredictor, frontend: Frontend, images: ImageSet, pairs: PairList, store: Store
    ) -> None:
        """Keep what the front end went by for runs that go on from this one: it cannot be found again from its pairs,
        as it was given."""
        if self.keeps:
            keep_given(predictor, frontend, images, pairs, store)

    def mapped(
        self, given: MapperInput, config: PipelineConfig, settings: MapperSettings, progress: Progress
    ) -> tuple[MapperInput, Mapped]:
        given = with_earlier_cameras(given, self.models)
        found = map_continued(self.models, self.members, given, settings, progress, joins_runs=self.earlier.joins_runs)
        return given, found
