"""One self-contained HTML page from report.json, the models and small pictures: no file beside it, no network.

Numbers, tables and diagrams are plain HTML and SVG, so that the page can be read, printed and searched without
scripts; these add the 3D view, sorting and filtering, enlarged photographs and the matches of a pair. Everything that
comes from outside is escaped by the template, and nothing in it controls how the page is read.
"""

import base64
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import cv2
import jinja2

from anchorsfm.report import diagrams
from anchorsfm.report.pictures import MANY_VIEWS, colour_bar
from anchorsfm.report.shared_points import embedded_matches
from anchorsfm.report.space import MAX_POINTS, ColouredPoints, describe_space
from anchorsfm.results.model import StoredModel
from anchorsfm.scene.printable import printable
from anchorsfm.video.record import VideoFrames

MAX_FIELDS = 12
"""Residual fields that are drawn for a model: those of the cameras with the most observations."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """Everything the page is made of."""

    report: Mapping[str, Any]
    """The content of report.json."""
    models: Sequence[StoredModel]
    """Those of the report that could be read; their names are in it."""
    dense: Sequence[ColouredPoints | None]
    """Of every entry of `models`."""
    thumbnails: Sequence[bytes | None]
    """JPEG of every image of the report."""
    depth_pictures: Mapping[str, bytes]
    """JPEGs by `<image>-depth` and `<image>-confidence`."""


def render(page: Page) -> str:
    """The page as text."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_harmless,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(_asset),
    )
    environment.filters.update(
        number=diagrams.number,
        duration=diagrams.duration,
        percent=_percent,
        picture=_data_uri,
        dotted=_dotted,
        chosen_frames=_chosen_frames,
    )
    report = page.report
    usable = sum(image["size_wh"] is not None for image in report["images"])
    cards, rows = list(_cards(page)), [rows_in_report(report, entry) for entry in page.models]
    matrix, most_matches = diagrams.matrix_png(report["pair_list"], usable)
    return environment.get_template("report.html.j2").render(
        report=report,
        usable=usable,
        registered=sum(image["model"] is not None for image in report["images"]),
        cards=cards,
        choices=_choices(cards),
        aspect=_common_aspect(report),
        num_weak=sum(card["status"] == "weak" for card in cards),
        spaces=_spaces(page, rows),
        style=_asset("report.css"),
        scripts=[_asset("view3d.js"), _asset("report.js")],
        matrix=base64.b64encode(matrix).decode(),
        most_matches=most_matches,
        matrix_bar=diagrams.matrix_bar(),
        lookup=_lookup(report),
        matches=embedded_matches([entry.model for entry in page.models], rows),
        models=[_model_figures(report, model) for model in report["models"]],
        depth=_depth_cards(page),
        stages=_stages(report),
        many_views=MANY_VIEWS,
        depth_bar=colour_bar(cv2.COLORMAP_TURBO)[::-1],
        confidence_bar=colour_bar(cv2.COLORMAP_VIRIDIS),
        cost_svg=diagrams.cost_svg,
        max_fields=MAX_FIELDS,
    )


def rows_in_report(report: Mapping[str, Any], entry: StoredModel) -> list[int]:
    """Row of `images` in the report of each view; KeyError of a name that is not among the usable ones."""
    row = {image["name"]: k for k, image in enumerate(report["images"]) if image["size_wh"] is not None}
    return [row[name] for name in entry.view_names]


def _asset(name: str) -> str:
    return (files("anchorsfm.report") / "assets" / name).read_text(encoding="utf-8")


def _harmless(value: Any) -> Any:
    """What the template puts out: texts from outside without control characters and changes of direction."""
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _cards(page: Page) -> Iterator[dict[str, Any]]:
    """What the contact sheet shows of every image."""
    poses = {
        pose["name"]: pose | {"unit": "m" if pose["position_m"] is not None else "units"}
        for model in page.report["models"]
        for pose in model["uncertainty"]["images"]
    }
    for row, image in enumerate(page.report["images"]):
        pose = poses.get(image["name"]) if image["model"] is not None else None
        weak = bool(pose and pose["weak"])
        status = (
            "skipped" if image["size_wh"] is None else "out" if image["model"] is None else "weak" if weak else "in"
        )
        yield {**image, "row": row, "pose": pose, "status": status, "picture": page.thumbnails[row]}


def _choices(cards: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, int]]:
    """Kinds of images to choose from, with their numbers."""
    count = Counter(card["status"] for card in cards)
    return [
        ("in", "registered", count["in"] + count["weak"]),
        ("weak", "weakly held", count["weak"]),
        ("out", "not registered", count["out"]),
        ("skipped", "skipped files", count["skipped"]),
    ]


def _common_aspect(report: Mapping[str, Any]) -> float:
    """Width over height of the frames of the contact sheet: that of the photographs if most of them share one."""
    aspects = [round(image["size_wh"][0] / image["size_wh"][1], 2) for image in report["images"] if image["size_wh"]]
    aspect, count = Counter(aspects).most_common(1)[0] if aspects else (1.33, 0)
    return max(aspect, 0.6) if 2 * count > len(aspects) else 1.33


def _spaces(page: Page, rows: Sequence[list[int]]) -> list[dict[str, Any]]:
    """The 3D data of all models, which share the number of points that are embedded."""
    total = max(sum(len(entry.model.points) for entry in page.models), 1)
    total_dense = max(sum(len(cloud.xyz) for cloud in page.dense if cloud is not None), 1)
    spaces = []
    for entry, dense, images in zip(page.models, page.dense, rows, strict=True):
        share = max(len(entry.model.points) / total, 0 if dense is None else len(dense.xyz) / total_dense)
        max_points = max(int(MAX_POINTS * share), 1)
        space = describe_space(entry.model, dense, images=images, max_points=max_points, up=entry.up)
        spaces.append(space | {"number": entry.number})
    return spaces


def _lookup(report: Mapping[str, Any]) -> dict[str, Any]:
    """What the scripts need to know about images and pairs."""
    weak = {p["name"] for model in report["models"] for p in model["uncertainty"]["images"] if p["weak"]}
    return {
        "images": [
            {"name": printable(i["name"]), "wh": i["size_wh"], "model": i["model"], "points": i["observations"],
             "error": i["mean_error_px"], "weak": i["name"] in weak}
            for i in report["images"]
        ],
        "pairs": report["pair_list"],
    }  # fmt: skip


def _model_figures(report: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    """Diagrams of one model."""
    figures, number = model["figures"], model["number"]
    names = (
        ("track_length", "Track length", "images that see a point"),
        ("reprojection_error_px", "Reprojection error", "pixels, every observation"),
        ("triangulation_angle_deg", "Triangulation angle", "degrees, widest of each point"),
    )
    graph, drawn = diagrams.graph_svg(model, report["images"], f"Cameras of model {number} from above")
    busiest = sorted(figures["residuals"], key=lambda field: -sum(field["count"]))[:MAX_FIELDS]
    fields = [
        (field, *diagrams.field_svg(field, f"Mean residuals of camera {field['camera']} of model {number}"))
        for field in busiest
        if sum(field["count"])
    ]
    return {
        "report": model,
        "histograms": [
            {"title": title, "unit": unit, **figures[key], "svg": diagrams.histogram_svg(figures[key], title)}
            for key, title, unit in names
        ],
        "graph": graph,
        "edges_drawn": drawn,
        "fields": fields,
    }


def _depth_cards(page: Page) -> list[dict[str, Any]]:
    """Depth maps with their pictures; none if the pictures are no longer in the cache."""
    depth = page.report["depth"]
    if depth is None:
        return []
    return [
        {
            **entry,
            "name": page.report["images"][entry["image"]]["name"],
            "picture": page.depth_pictures[f"{entry['image']}-depth"],
            "confidence": page.depth_pictures[f"{entry['image']}-confidence"],
        }
        for entry in depth["images"]
        if f"{entry['image']}-depth" in page.depth_pictures
    ]


def _stages(report: Mapping[str, Any]) -> dict[str, Any]:
    """Timings with the figures that their bars are drawn in proportion to."""
    rows = report["stages"]
    return {
        "rows": rows,
        "longest": max([1e-9, *(max(row["wall_s"], row["cpu_s"]) for row in rows)]),
        "largest": max([1e-9, *(row["peak_memory_mib"] for row in rows)]),
        "wall": sum(row["wall_s"] for row in rows),
        "cpu": sum(row["cpu_s"] for row in rows),
    }


def _chosen_frames(video: Mapping[str, Any]) -> str:
    return VideoFrames.of(video).summary()


def _percent(share: float | int | None) -> str:
    return "–" if share is None else f"{diagrams.number(100 * share)} %"


def _data_uri(content: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()


def _dotted(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings as a flat list of dotted names."""
    rows: list[tuple[str, Any]] = []
    for key, value in config.items():
        rows += _dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return rows
