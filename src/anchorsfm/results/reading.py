"""The one reader of report.json and uncertainty.json: what it returns has every key of `record` with a usable value."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anchorsfm.io.json_files import checked, read_json
from anchorsfm.io.layout import Layout
from anchorsfm.results.record import SCHEMA_VERSION, PoseDeviation, RunReport, UncertaintyReport, UpReport
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.pairs import PairStatus

_LARGEST_SIDE = 10**6
_ENTRY = re.compile(r"[0-9a-f]{32}")
"""Keys of the cache."""


def read_report(path: Path) -> dict[str, Any]:
    """A report.json of this version.

    Raises InputError if it is missing, damaged, of another version, or a key is missing or cannot be used.
    """
    if not path.exists():
        raise InputError(f"no {path}: give the --output folder of `anchorsfm reconstruct`")
    content = read_json(path)
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{path} has schema_version {str(version)[:40]}, this program reads {SCHEMA_VERSION}: "
            "run `anchorsfm reconstruct` again, it continues from the cache"
        )
    try:
        report: dict[str, Any] = checked(content, RunReport)
        _check(report)
    except ValueError as error:
        raise InputError(
            f"{path} cannot be used: {error}; run `anchorsfm reconstruct` again, it continues from the cache"
        ) from error
    return report


@dataclass(frozen=True, kw_only=True)
class _RecordedRoot:
    """Where the photographs were, as every version of report.json says it."""

    image_root: str | None = None


@dataclass(frozen=True, kw_only=True)
class _RecordedModel:
    uncertainty: UncertaintyReport


@dataclass(frozen=True, kw_only=True)
class _RecordedModels:
    models: tuple[_RecordedModel, ...] = ()


def read_image_root(report: Path) -> Path | None:
    """Folder of the photographs in a report.json of any version; None if it names none.

    Raises InputError if it cannot be read.
    """
    root = _read_part(report, _RecordedRoot)["image_root"]
    return None if root is None else Path(root)


@dataclass(frozen=True, kw_only=True)
class _RecordedUp:
    up: UpReport | None = None


@dataclass(frozen=True, kw_only=True)
class _RecordedUps:
    models: tuple[_RecordedUp, ...] = ()


def read_ups(report: Path) -> tuple[bool, ...]:
    """Whether z is up in each model of a report.json of any version.

    Raises InputError if it cannot be read.
    """
    return tuple(model["up"] is not None for model in _read_part(report, _RecordedUps)["models"])


def read_uncertainties(layout: Layout) -> list[list[PoseDeviation]]:
    """Deviations of the poses of every model: those of uncertainty.json, else of report.json; [] if there is neither.

    Raises InputError if the file cannot be used.
    """
    if layout.uncertainty.exists():
        entries = _read_part(layout.uncertainty, tuple[UncertaintyReport, ...])
    elif layout.report.exists():
        entries = [model["uncertainty"] for model in _read_part(layout.report, _RecordedModels)["models"]]
    else:
        entries = []
    return [[_deviation(image) for image in entry["images"]] for entry in entries]


def _deviation(image: Mapping[str, Any]) -> PoseDeviation:
    return PoseDeviation(
        name=image["name"],
        position=_float(image["position"]),
        position_share=_float(image["position_share"]),
        position_m=_float(image["position_m"]),
        rotation_deg=_float(image["rotation_deg"]),
        weak=image["weak"],
        position_axes=None if image["position_axes"] is None else tuple(image["position_axes"]),
    )


def _float(value: float | int | None) -> float | None:
    return None if value is None else float(value)


def _read_part(path: Path, kind: Any) -> Any:
    try:
        return checked(read_json(path), kind)
    except ValueError as error:
        raise InputError(f"{path} cannot be used: {error}") from error


def _check(report: Mapping[str, Any]) -> None:
    """Raise ValueError where values of the right type contradict each other."""
    images, models = report["images"], report["models"]
    for k, image in enumerate(images):
        where = f"images[{k}]"
        if image["model"] is not None:
            _require_rows([image["model"]], len(models), f"{where}.model")
        if image["size_wh"] is not None and not all(1 <= side <= _LARGEST_SIDE for side in image["size_wh"]):
            raise ValueError(f"{where}.size_wh is no size of an image")
        _require_counts([image["observations"]], f"{where}.observations")
    for k, model in enumerate(models):
        _check_model(model, len(images), f"models[{k}]")
        if model["number"] != k:
            raise ValueError(f"models[{k}].number is {model['number']}")
    _check_pairs(report["pair_list"], sum(image["size_wh"] is not None for image in images))
    _require_counts(report["pairs"].values(), "pairs")
    if report["depth"] is not None:
        _check_depth(report["depth"], len(images), len(models))
    for k, stage in enumerate(report["stages"]):
        if min(stage["wall_s"], stage["cpu_s"], stage["peak_memory_mib"]) < 0:
            raise ValueError(f"stages[{k}] has a negative time or size")


def _check_model(model: Mapping[str, Any], num_images: int, where: str) -> None:
    figures, cameras = model["figures"], len(model["cameras"])
    _require_counts([model[key] for key in ("registered", "points", "observations")], where)
    if len(model["uncertainty"]["camera_params"]) != cameras:
        raise ValueError(f"{where}.uncertainty.camera_params has not one entry for each of the {cameras} cameras")
    for name in ("track_length", "reprojection_error_px", "triangulation_angle_deg"):
        histogram, at = figures[name], f"{where}.figures.{name}"
        edges = histogram["edges"]
        if len(edges) < 2 or len(histogram["counts"]) != len(edges) - 1 or sorted(set(edges)) != edges:
            raise ValueError(f"{at}.edges do not rise, or do not belong to its counts")
        _require_counts([*histogram["counts"], histogram["above"]], at)
    for k, field in enumerate(figures["residuals"]):
        _check_field(field, cameras, f"{where}.figures.residuals[{k}]")
    view, links = figures["top_view"], figures["links"]
    _require_rows(view["image"], num_images, f"{where}.figures.top_view.image")
    if not view["image"] or len({len(view[key]) for key in ("image", "x", "y", "height")}) > 1:
        raise ValueError(f"{where}.figures.top_view has no images, or columns of different lengths")
    shown = set(view["image"])
    if len({len(links[key]) for key in ("i", "j", "shared")}) > 1:
        raise ValueError(f"{where}.figures.links has columns of different lengths")
    ends = [*links["i"], *links["j"], *(end for edge in links["tree"] for end in edge)]
    if not shown.issuperset(ends):
        raise ValueError(f"{where}.figures.links has an image that is not in its top view")
    _require_counts([*links["shared"], links["total"]], f"{where}.figures.links")


def _check_field(field: Mapping[str, Any], cameras: int, where: str) -> None:
    _require_rows([field["camera"]], cameras, f"{where}.camera")
    if not all(1 <= field[key] <= _LARGEST_SIDE for key in ("width", "height", "columns", "rows")):
        raise ValueError(f"{where} has no size")
    cells = [field[key] for key in ("count", "mean_x_px", "mean_y_px", "rms_px")]
    if any(len(values) != field["columns"] * field["rows"] for values in cells):
        raise ValueError(f"{where} has not one value for each of its cells")
    _require_counts(field["count"], where)
    if any(count > 0 and None in values for count, *values in zip(*cells, strict=True)):
        raise ValueError(f"{where} has a cell with observations and no residual")


def _check_pairs(pairs: Mapping[str, Any], num_usable: int) -> None:
    columns = ("i", "j", "status", "matches")
    if len({len(pairs[key]) for key in columns}) > 1:
        raise ValueError("pair_list has columns of different lengths")
    if not {PairStatus.UNMATCHED.value, PairStatus.PURE_ROTATION.value} <= set(pairs["statuses"]):
        raise ValueError("pair_list.statuses lacks some")
    for key in ("i", "j"):
        _require_rows(pairs[key], num_usable, f"pair_list.{key}")
    _require_rows(pairs["status"], len(pairs["statuses"]), "pair_list.status")
    _require_counts(pairs["matches"], "pair_list.matches")


def _check_depth(depth: Mapping[str, Any], num_images: int, num_models: int) -> None:
    if not _ENTRY.fullmatch(depth["entry"]):
        raise ValueError("depth.entry is no entry of a cache")
    if len(depth["limits"]) > num_models:
        raise ValueError("depth.limits are more than there are models")
    _require_rows([entry["image"] for entry in depth["images"]], num_images, "depth.images")
    _require_rows([entry["model"] for entry in depth["images"]], len(depth["limits"]), "depth.images")


def _require_rows(rows: Sequence[int], count: int, where: str) -> None:
    if not all(0 <= row < count for row in rows):
        raise ValueError(f"{where} names a row that is not there")


def _require_counts(counts: Any, where: str) -> None:
    if any(count < 0 for count in counts):
        raise ValueError(f"{where} has a negative number")
