"""A finished run read from its output folder, for one that goes on from it."""

import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from anchorsfm.geometry.similarity import Similarity
from anchorsfm.io.json_files import read_json
from anchorsfm.io.layout import VIEWS_RECORD, Layout
from anchorsfm.io.owned import complete_publication
from anchorsfm.panorama.record import PanoramaViews, read_record
from anchorsfm.results.model import StoredModel, read_models
from anchorsfm.results.record import Extension, UpReport
from anchorsfm.results.run import StoredRun
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.settings import SURROUNDINGS, read_config
from anchorsfm.scene.errors import InputError
from anchorsfm.video.record import VideoFrames


@dataclass(frozen=True, kw_only=True)
class EarthFrame:
    """The frame of the recorded positions, as georeference.json has it."""

    origin: tuple[float, float, float]
    """Latitude, longitude, altitude."""
    is_ellipsoidal: bool
    """The altitude is above the ellipsoid; above sea level otherwise."""
    enu_from_model: dict[int, Similarity]
    """The way to it from each model that has a place in it, by number: of models in it, none at all."""
    by_control: frozenset[int]
    """Models that ground control points brought into it."""

    @property
    def by_positions(self) -> frozenset[int]:
        """Models that recorded positions brought into it."""
        return frozenset(self.enu_from_model) - self.by_control


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """An output folder."""

    folder: Path
    config: PipelineConfig
    root: Path
    """Folder that the names of the photographs are relative to."""
    names: tuple[str, ...]
    """Of the photographs that the run looked at."""
    models: tuple[StoredModel, ...]
    """Numbered as they are in its report."""
    pairs: Int[np.ndarray, "pair 2"]
    """That it looked at: rows of `names`."""
    is_metric: tuple[bool, ...]
    """Whether the unit of each model is the metre."""
    up: tuple[UpReport | None, ...]
    """Why z is up in each model, if it is."""
    earth: EarthFrame | None
    """The frame of the recorded positions, if a model has a place in it."""
    transforms: dict[str, Any] | None
    """The content of transform.json: `models` that were brought into other frames, with the `steps` of each."""
    videos: tuple[VideoFrames, ...]
    panoramas: tuple[PanoramaViews, ...]
    """Those that photographs are views of, which lie in its folder."""
    extensions: tuple[Extension, ...]

    @property
    def is_cropped(self) -> bool:
        """Whether points of a model were removed since it was made."""
        models = [] if self.transforms is None else self.transforms["models"]
        steps = (step for entry in models for step in entry["steps"])
        return any(step.get("crop_box") or step.get("crop_radius") for step in steps)

    @property
    def photographs(self) -> tuple[Path, ...]:
        return tuple(self.root / name for name in self.names)


def read_run(folder: Path) -> FinishedRun:
    """A finished run from its output folder.

    Raises InputError if a file of it is missing or cannot be used, or its photographs are no longer where they were.
    """
    if not folder.is_dir():
        problem = "not a folder" if folder.exists() else "no such folder"
        raise InputError(f"{folder}: {problem}; give an output folder of anchorsfm reconstruct")
    complete_publication(folder)
    run = StoredRun(folder)
    models = read_models(folder) if run.has_report else []
    if not models or not all(entry.is_result for entry in models):
        raise InputError(f"{folder} is no output folder of anchorsfm reconstruct: give one")
    report = run.report
    used = [image for image in report["images"] if image["size_wh"] is not None]
    names = tuple(image["name"] for image in used)
    root = Path(report["image_root"])
    missing = [name for name in names if not (root / name).is_file()]
    if missing:
        raise InputError(
            f"{root / missing[0]}, a photograph of {folder}, is not there (of {len(missing)} of {len(names)}): put the "
            "photographs back where they were"
        )
    if len(report["models"]) != len(models):
        raise InputError(f"{folder} has {len(models)} models, its report names {len(report['models'])}: run the same "
                         "anchorsfm reconstruct again")  # fmt: skip
    config, listed = read_config(run.layout.config, without=SURROUNDINGS), report["pair_list"]
    earth = _earth(run.layout)
    if earth is not None and earth.by_positions and config.gps in ("off", "check"):
        config = replace(config, gps="align")  # a later transform has brought the model into their frame
    panoramas = _panoramas(run.layout, {os.path.realpath(root / name) for name in names})
    if panoramas and (config.masks is not None or config.mask is not None):
        raise InputError(
            f"{folder} has models of panoramas with masks, which no run can go on from: run anchorsfm reconstruct on "
            "all photographs"
        )
    return FinishedRun(
        folder=folder,
        config=config,
        root=root,
        names=names,
        models=tuple(models),
        pairs=np.array([listed["i"], listed["j"]], np.int64).reshape(2, -1).T,
        is_metric=tuple(entry.is_metric for entry in models),
        up=tuple(None if entry["up"] is None else UpReport(**entry["up"]) for entry in report["models"]),
        earth=earth,
        transforms=_transforms(run.layout),
        videos=tuple(VideoFrames.of(entry) for entry in report["videos"]),
        panoramas=panoramas,
        extensions=tuple(Extension.of(entry) for entry in report["extensions"]),
    )


def _panoramas(layout: Layout, photographs: Collection[str]) -> tuple[PanoramaViews, ...]:
    """The panoramas that some photographs are views of."""
    views = {path for path in photographs if Path(path).is_relative_to(os.path.realpath(layout.views))}
    found = tuple(
        one
        for one in read_record(layout.views)
        if not views.isdisjoint(os.path.realpath(layout.views / name) for name in one.names)
    )
    known = {os.path.realpath(layout.views / name) for one in found for name in one.names}
    if not views <= known:
        raise InputError(
            f"{layout.views / VIEWS_RECORD} does not say what {min(views - known)} is a view of: run the same "
            "anchorsfm reconstruct again"
        )
    return found


def _transforms(layout: Layout) -> dict[str, Any] | None:
    if not layout.transform.is_file():
        return None
    try:
        document = read_json(layout.transform)
        models = [
            {**entry, "number": int(entry["number"]), "steps": [dict(step) for step in entry["steps"]]}
            for entry in document["models"]
        ]
        return {**document, "models": models}
    except (TypeError, KeyError, ValueError):
        raise InputError(f"{layout.transform} is damaged: run the same anchorsfm reconstruct again") from None


def _earth(layout: Layout) -> EarthFrame | None:
    if not layout.georeference.is_file():
        return None
    try:
        document = read_json(layout.georeference)
        origin, models = document["origin"], document["models"]
        latitude, longitude, altitude = (float(origin[key]) for key in ("latitude_deg", "longitude_deg", "altitude_m"))
        enu_from_model = {
            int(entry["number"]): Similarity.of_matrix(np.array(entry.get("enu_from_model", np.eye(4)), np.float64))
            for entry in models
        }
        if not all(way.scale > 0 and np.isfinite(way.pose).all() for way in enu_from_model.values()):
            raise ValueError("no similarity")
        return EarthFrame(
            origin=(latitude, longitude, altitude),
            is_ellipsoidal=origin["altitude_above"] == "ellipsoid",
            enu_from_model=enu_from_model,
            by_control=frozenset(int(entry["number"]) for entry in models if entry["mode"] == "control"),
        )
    except (TypeError, KeyError, ValueError, IndexError, np.linalg.LinAlgError):
        raise InputError(f"{layout.georeference} is damaged: run the same anchorsfm reconstruct again") from None
