"""What there is to look at: the models of a folder, and what lies beside them: dense clouds, precision, photographs."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from anchorsfm.colmap.models import find_models, read_reconstruction
from anchorsfm.io.json_files import checked, read_json
from anchorsfm.io.layout import SPARSE, Layout
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.residuals import residual_vectors


@dataclass(frozen=True, kw_only=True)
class PosePrecision:
    """What the run says about how exact one pose is."""

    position_share: float | None
    """Standard deviation as a share of the scene size."""
    position_m: float | None
    """In metres, where the scale is known."""
    rotation_deg: float | None
    weak: bool


@dataclass(frozen=True, kw_only=True)
class ViewedModel:
    """One model with everything known about it. `model.image_index` is 0 .. view-1: rows of `names`."""

    number: int
    title: str
    """Its folder's name."""
    model: Reconstruction
    names: tuple[str, ...]
    precision: dict[str, PosePrecision]
    """By image name; empty if unknown."""
    dense: Path | None = None
    """The dense cloud in the model's frame."""

    @cached_property
    def residual(self) -> Float[np.ndarray, "obs 2"]:
        """From every observation to the projection of its point; NaN behind the camera."""
        return residual_vectors(self.model)

    @cached_property
    def error_px(self) -> Float[np.ndarray, "obs"]:
        """Length of `residual`."""
        return np.asarray(np.linalg.norm(self.residual, axis=1))

    @cached_property
    def track_length(self) -> Int[np.ndarray, "point"]:
        """Images that see each point."""
        return np.bincount(self.model.tracks.obs_point, minlength=len(self.model.points))

    @cached_property
    def point_error_px(self) -> Float[np.ndarray, "point"]:
        """Mean reprojection error of each point over the images in front of which it lies; NaN if there is none."""
        return _mean_per(self.model.tracks.obs_point, self.error_px, len(self.model.points))

    @cached_property
    def view_error_px(self) -> Float[np.ndarray, "view"]:
        """Mean reprojection error of each image; NaN if it sees nothing."""
        return _mean_per(self.model.tracks.obs_image, self.error_px, len(self.names))

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


@dataclass(frozen=True, kw_only=True)
class ViewedFolder:
    """Everything that a folder shows."""

    models: tuple[ViewedModel, ...]
    photo_root: Path | None
    """Folder that image names are relative to; None: no photographs."""
    notes: tuple[str, ...]
    """What is missing, in words for the user."""


def read_folder(folder: Path, images: Path | None = None) -> ViewedFolder:
    """Read an output folder, or any folder with COLMAP models, for looking at.

    `images`: folder of the photographs; None: what report.json says.

    Raises InputError if there is no readable model or `images` has none of its photographs.
    """
    paths = find_models(folder)
    root = _output_folder(paths[0])
    notes: list[str] = []
    report = _read_part(Layout(root).report, _StoredReport, notes) if root else None
    details = _read_part(Layout(root).uncertainty, tuple[_StoredUncertainty, ...], notes) if root else None
    if details is None and report is not None:
        details = [entry["uncertainty"] for entry in report["models"]]
    models = []
    for number, path in enumerate(paths):
        stored = read_reconstruction(path)
        row = int(path.name) if path.name.isdigit() else number
        entries = details or []
        dense = Layout(root).cloud(path.name) if root else None
        models.append(
            ViewedModel(
                number=number,
                title=path.name,
                model=stored.model,
                names=stored.names,
                precision=_precision(entries[row]) if row < len(entries) else {},
                dense=dense if dense is not None and dense.is_file() else None,
            )
        )
    if not any(model.names for model in models):
        raise InputError(f"the model in {paths[0]} has no registered images: there is nothing to look at")
    photo_root = _photo_root(images, report, root, [name for model in models for name in model.names], notes)
    return ViewedFolder(models=tuple(models), photo_root=photo_root, notes=tuple(notes))


def _output_folder(model: Path) -> Path | None:
    """OUT of a model OUT/sparse/0 or OUT/sparse."""
    for candidate in (model.resolve(), model.resolve().parent):
        if candidate.name == SPARSE:
            return candidate.parent
    return None


@dataclass(frozen=True, kw_only=True)
class _StoredPose:
    name: str
    position_share: float | None
    position_m: float | None = None
    rotation_deg: float | None = None
    weak: bool = False


@dataclass(frozen=True, kw_only=True)
class _StoredUncertainty:
    images: tuple[_StoredPose, ...]


@dataclass(frozen=True, kw_only=True)
class _StoredModel:
    uncertainty: _StoredUncertainty


@dataclass(frozen=True, kw_only=True)
class _StoredReport:
    """What the viewer takes from report.json."""

    image_root: str | None = None
    models: tuple[_StoredModel, ...] = ()


def _read_part(path: Path, kind: Any, notes: list[str]) -> Any:
    """What the viewer takes from a JSON file; None, with a note, where it cannot be used."""
    if not path.exists():
        return None
    try:
        return checked(read_json(path), kind)
    except InputError as error:
        notes.append(f"{error}; it is left out")
    except ValueError as error:
        notes.append(f"{path} is left out: {error}")
    return None


def _precision(entry: dict[str, Any]) -> dict[str, PosePrecision]:
    """Of the images of one model, from its part of uncertainty.json."""
    return {
        image["name"]: PosePrecision(
            position_share=_float(image["position_share"]),
            position_m=_float(image["position_m"]),
            rotation_deg=_float(image["rotation_deg"]),
            weak=image["weak"],
        )
        for image in entry["images"]
    }


def _float(value: float | int | None) -> float | None:
    return None if value is None else float(value)


def _photo_root(images: Path | None, report: Any, root: Path | None, names: list[str], notes: list[str]) -> Path | None:
    if images is not None:
        if not images.is_dir():
            raise InputError(f"--images {images}: {'not a folder' if images.exists() else 'no such folder'}")
        if not any((images / name).is_file() for name in names):
            raise InputError(f"--images {images} has none of the photographs of the model, for example {names[0]}")
        return images
    stored = None if report is None else report["image_root"]
    candidates = [Path(stored)] if stored is not None else []
    if root is not None:
        candidates.append(root / "images")
    for candidate in candidates:
        if any((candidate / name).is_file() for name in names):
            return candidate
    moved = f"are no longer in {stored}" if stored is not None else "were not found"
    notes.append(f"the photographs {moved}: give their folder with --images to see them")
    return None


def _mean_per(group: Int[np.ndarray, "obs"], values: Float[np.ndarray, "obs"], count: int) -> np.ndarray:
    known = np.isfinite(values)
    total = np.bincount(group[known], values[known], minlength=count)
    number = np.bincount(group[known], minlength=count)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)
