"""Models read back from disk, with everything that belongs to them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from anchorsfm.colmap.models import find_models, read_reconstruction
from anchorsfm.geometry.upright import up_direction
from anchorsfm.io.ply import PointCloud, read_ply
from anchorsfm.results.errors import read_errors
from anchorsfm.results.record import PoseDeviation
from anchorsfm.results.run import StoredRun, run_of
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.error_modes import ErrorModes
from anchorsfm.tracks.residuals import residual_vectors


@dataclass(frozen=True, kw_only=True)
class StoredModel:
    """A model from disk, ours or of another program. What lies beside it is read when it is asked for."""

    folder: Path
    """Where its COLMAP files lie."""
    model: Reconstruction
    """`model.image_index` is 0 .. view-1: rows of `names`. Observations of no point are left out."""
    names: tuple[str, ...]
    """Of the registered images."""
    number: int = 0
    """Its place among the models of its folder."""
    run: StoredRun | None = None
    """The output folder it lies in."""

    @property
    def title(self) -> str:
        """Its folder's name."""
        return self.folder.name

    @property
    def view_names(self) -> list[str]:
        """Name of the image of every view."""
        return [self.names[image] for image in self.model.image_index.tolist()]

    @cached_property
    def is_result(self) -> bool:
        """Whether it is what the run came to, which dense cloud and precision belong to, not an alignment or a copy."""
        if self.run is None:
            return False
        folder, models = self.folder.resolve(), self.run.layout.models.resolve()
        return models in (folder, folder.parent)

    @property
    def recorded_number(self) -> int:
        """Its number in the record of the run, and in the names of files that belong to it."""
        return int(self.title) if self.title.isdecimal() else self.number

    @cached_property
    def up(self) -> Float[np.ndarray, "3"]:
        """Unit vector that points up: z if the run says that the model is level, else what the cameras say."""
        if self.is_level:
            return np.array([0.0, 0.0, 1.0])
        return up_direction(self.model.cam_from_world, self.model.points)

    @cached_property
    def is_level(self) -> bool:
        """Whether the record of the run says that z is up; not if it cannot be read."""
        if self.run is None or not self.is_result or not self.run.has_report:
            return False
        try:
            ups = self.run.ups
        except InputError:
            return False
        return self.recorded_number < len(ups) and ups[self.recorded_number]

    @cached_property
    def precision(self) -> Mapping[str, PoseDeviation]:
        """How far the poses may be off, by image name; empty if unknown, or if the file that says it cannot be read."""
        if self.run is None or not self.is_result:
            return {}
        try:
            entries = self.run.precision
        except InputError:
            return {}
        return entries[self.recorded_number] if self.recorded_number < len(entries) else {}

    @cached_property
    def errors(self) -> ErrorModes | None:
        """What errors the cameras may have together; None if unknown, or if the file that says it cannot be read."""
        if self.run is None or not self.is_result:
            return None
        try:
            return read_errors(self.run.layout.errors(self.title), self.view_names, self.model)
        except InputError:
            return None

    @cached_property
    def is_metric(self) -> bool:
        """Whether the run says how far its poses may be off in metres: they are its unit."""
        return any(pose.position_m is not None for pose in self.precision.values())

    @property
    def cloud_file(self) -> Path | None:
        """The file of its dense cloud; None if there is none."""
        path = self.run.layout.cloud(self.title) if self.run is not None and self.is_result else None
        return path if path is not None and path.is_file() else None

    def read_cloud(self) -> PointCloud | None:
        """Its dense cloud in its own frame; None if there is none.

        Raises InputError if the file is damaged.
        """
        return None if self.cloud_file is None else read_ply(self.cloud_file)

    @cached_property
    def image_root(self) -> Path | None:
        """Folder that the names are relative to, as far as can be told; the photographs may have moved.

        It is the one that report.json names; `images` beside `sparse`, as undistorted copies lie, if no photograph is
        there or nothing is recorded. Raises InputError if report.json cannot be read.
        """
        if self.run is None:
            return None
        recorded, beside = self.run.recorded_image_root, self.run.root / "images"
        candidates = [folder for folder in (recorded, beside if beside.is_dir() else None) if folder is not None]
        return next((folder for folder in candidates if self.has_photographs_in(folder)), next(iter(candidates), None))

    def has_photographs_in(self, folder: Path) -> bool:
        """Whether any of the photographs lies in a folder."""
        return any((folder / name).is_file() for name in self.names)

    @cached_property
    def residual(self) -> Float[np.ndarray, "obs 2"]:
        """From every observation to the projection of its point; NaN behind the camera."""
        return residual_vectors(self.model)

    @cached_property
    def residual_px(self) -> Float[np.ndarray, "obs"]:
        """Length of `residual`."""
        return np.asarray(np.linalg.norm(self.residual, axis=1))

    @cached_property
    def track_length(self) -> Int[np.ndarray, "point"]:
        """Images that see each point."""
        return np.bincount(self.model.tracks.obs_point, minlength=len(self.model.points))

    @cached_property
    def point_error_px(self) -> Float[np.ndarray, "point"]:
        """Mean reprojection error of each point over the images in front of which it lies; NaN if there is none."""
        return _mean_per(self.model.tracks.obs_point, self.residual_px, len(self.model.points))

    @cached_property
    def view_error_px(self) -> Float[np.ndarray, "view"]:
        """Mean reprojection error of each image; NaN if it sees nothing."""
        return _mean_per(self.model.tracks.obs_image, self.residual_px, len(self.names))

    @cached_property
    def points_seen(self) -> Int[np.ndarray, "view"]:
        """Points that each image sees."""
        return np.bincount(self.model.tracks.obs_image, minlength=len(self.names))

    @cached_property
    def _by_view(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self.model.tracks.obs_image, kind="stable")
        return order, np.concatenate([[0], np.cumsum(self.points_seen)])

    def observations(self, view: int) -> Int[np.ndarray, "seen"]:
        """Rows of the tracks that belong to an image, by point."""
        order, start = self._by_view
        return order[start[view] : start[view + 1]]


def read_models(folder: Path) -> list[StoredModel]:
    """All models that a folder stands for: an output folder, its `sparse`, a model, or a folder of models.

    Raises InputError if there is none, or a file is damaged; StorageError if an interrupted publication in the folder
    cannot be completed.
    """
    paths = find_models(folder)
    run = run_of(paths[0])
    return [read_stored_model(path, number=number, run=run) for number, path in enumerate(paths)]


def read_stored_model(folder: Path, *, number: int = 0, run: StoredRun | None = None) -> StoredModel:
    """The model whose files lie in `folder`; the rest is what the fields say.

    Raises InputError if a file is missing or damaged.
    """
    model, names = read_reconstruction(folder)
    return StoredModel(folder=folder, model=model, names=names, number=number, run=run)


def _mean_per(group: Int[np.ndarray, "obs"], values: Float[np.ndarray, "obs"], count: int) -> np.ndarray:
    known = np.isfinite(values)
    total = np.bincount(group[known], values[known], minlength=count)
    number = np.bincount(group[known], minlength=count)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)
