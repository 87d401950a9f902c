"""Diagrams as SVG, from the figures in report.json. Colours and fonts come from the style sheet, by class.

What is returned goes into the page as it is: texts from outside are escaped here.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import cv2
import numpy as np

from anchorsfm.report.figures import round_up
from anchorsfm.report.pictures import colour_bar, png
from anchorsfm.scene.printable import printable

MAX_EDGES_PER_IMAGE = 5
"""Edges of the top view besides the tree: the strongest this many times the number of images."""
_FIELD_WIDTH = 520
_ARROW_CELLS = 0.9
"""Length of a long arrow (95th percentile of those with enough observations) in cells."""
_FEW = 8
"""Cells with fewer observations stay empty: their mean says little."""
_GREY, _VIOLET, _ORANGE = (150, 156, 166, 70), (168, 85, 247, 255), (234, 88, 12, 255)
_RAMP = np.array([(206, 226, 246), (132, 184, 233), (62, 132, 210), (24, 84, 178)], float)
"""Of verified matches; seen on light and on dark pages."""


def number(value: float | int | None, digits: int = 3) -> str:
    """A number for people: few digits, thousands separated, a dash for unknown."""
    if value is None:
        return "–"
    if isinstance(value, int) or (value == int(value) and abs(value) >= 1000):
        return f"{int(value):,}".replace(",", "\u202f")
    if value != 0 and not 1e-3 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}×10{_superscript(int(exponent))}"
    decimals = max(0, digits - 1 - int(np.floor(np.log10(abs(value))))) if value else 0
    text = f"{value:.{min(decimals, 6)}f}"
    return text.rstrip("0").rstrip(".") if value == int(value) else text


def duration(seconds: float | int) -> str:
    """A time for people."""
    if seconds < 100:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{seconds / 60:.1f} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def _superscript(exponent: int) -> str:
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def histogram_svg(histogram: Mapping[str, Any], label: str) -> str:
    """Bars of a histogram with its median marked."""
    width, height, left, bottom = 360, 170, 8, 24
    edges, counts = histogram["edges"], histogram["counts"]
    top = max([*counts, 1])
    across = (width - 2 * left) / max(edges[-1] - edges[0], 1e-12)

    def at(value: float | int) -> float:
        return left + (value - edges[0]) * across

    floor = height - bottom
    middle = 0.5 if edges[1] - edges[0] == 1 else 0.0  # counts: a bin is one number, which stands below its middle
    bars = [
        f'<rect class="bar" x="{at(low):.1f}" y="{floor - count / top * (floor - 14):.1f}" '
        f'width="{max(at(high) - at(low) - 1, 0.7):.1f}" height="{count / top * (floor - 14):.1f}">'
        f"<title>{number(low)}{'' if middle else f' to {number(high)}'}: {number(int(count))}</title></rect>"
        for low, high, count in zip(edges, edges[1:], counts, strict=False)
    ]
    for tick in _ticks(edges[0], edges[-1], whole=middle > 0):
        anchor = "start" if at(tick + middle) < 16 else "end" if at(tick + middle) > width - 16 else "middle"
        text = f"{tick:.6g}"
        bars.append(f'<text x="{at(tick + middle):.1f}" y="{height - 6}" text-anchor="{anchor}">{text}</text>')
    bars.append(f'<line class="axis" x1="{left}" x2="{width - left}" y1="{floor}" y2="{floor}"/>')
    median = histogram["median"]
    if median is not None and edges[0] <= median <= edges[-1]:
        x = at(median + middle)
        bars.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{floor}"/>')
    return _svg(width, height, label, bars)


def _ticks(low: float | int, high: float | int, *, whole: bool) -> list[float]:
    """Round numbers between two, about six."""
    step = round_up((high - low) / 6)
    step = max(1.0, float(np.ceil(step))) if whole else step
    first = int(np.ceil(low / step - 1e-9))
    last = int(np.floor((high - whole) / step + 1e-9))
    return [k * step for k in range(first, last + 1)]


def field_svg(field: Mapping[str, Any], label: str) -> tuple[str, dict[str, Any]]:
    """Mean residuals as arrows on cells coloured by their RMS; and what a reader needs to know about the scales."""
    columns, rows = field["columns"], field["rows"]
    width = _FIELD_WIDTH if field["width"] >= field["height"] else round(_FIELD_WIDTH * 0.62)
    cell = width / columns
    height = cell * rows
    filled = [k for k, count in enumerate(field["count"]) if count >= _FEW]
    rms = [field["rms_px"][k] for k in filled]
    top_rms = float(np.percentile(rms, 98)) if rms else 1.0
    length = [float(np.hypot(field["mean_x_px"][k], field["mean_y_px"][k])) for k in filled]
    longest = float(np.percentile(length, 95)) if length else 1.0
    scale = _ARROW_CELLS * cell / max(longest, 1e-9)
    parts, palette = [], colour_bar(cv2.COLORMAP_VIRIDIS, 33)
    for k in filled:
        x, y = k % columns * cell, k // columns * cell
        shade = palette[min(int(field["rms_px"][k] / max(top_rms, 1e-9) * 32), 32)]
        parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{cell:.1f}" height="{cell:.1f}" fill="{shade}" fill-opacity=".5">'
            f"<title>{field['count'][k]} observations, mean ({number(field['mean_x_px'][k])}, "
            f"{number(field['mean_y_px'][k])}) px, RMS {number(field['rms_px'][k])} px</title></rect>"
        )
    for k in filled:
        x, y = (k % columns + 0.5) * cell, (k // columns + 0.5) * cell
        parts.append(_arrow(x, y, field["mean_x_px"][k] * scale, field["mean_y_px"][k] * scale, 1.6 * cell))
    parts.append(f'<rect class="frame" x=".5" y=".5" width="{width - 1}" height="{height - 1:.1f}"/>')
    return _svg(width, height, label, parts), {
        "longest_px": longest,
        "enlarged": scale * field["width"] / width,
        "top_rms_px": top_rms,
        "bar": palette[::4],
    }


def _arrow(x: float, y: float, dx: float, dy: float, limit: float) -> str:
    """An arrow centred on (x, y), at most `limit` long."""
    length = float(np.hypot(dx, dy))
    if length > limit:
        dx, dy = dx * limit / length, dy * limit / length
    x1, y1, x2, y2 = x - dx / 2, y - dy / 2, x + dx / 2, y + dy / 2
    head = 0.35
    wings = [(x2 - head * dx - s * head * 0.6 * dy, y2 - head * dy + s * head * 0.6 * dx) for s in (1, -1)]
    path = f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}M{wings[0][0]:.1f} {wings[0][1]:.1f}L{x2:.1f} {y2:.1f}"
    return f'<path class="arrow" d="{path}L{wings[1][0]:.1f} {wings[1][1]:.1f}"/>'


def graph_svg(model: Mapping[str, Any], images: Sequence[Mapping[str, Any]], label: str) -> tuple[str, int]:
    """The top view of a model: cameras, edges by common points, the tree; and how many edges are drawn."""
    view, links = model["figures"]["top_view"], model["figures"]["links"]
    place, width, height = _layout(view)
    tree = {tuple(edge) for edge in links["tree"]}
    order = np.argsort(-np.array(links["shared"], int), kind="stable")[: MAX_EDGES_PER_IMAGE * len(view["image"])]
    chosen = [(links["i"][k], links["j"][k], links["shared"][k]) for k in order.tolist()]
    top = max([shared for _, _, shared in chosen], default=1)
    parts = [
        _edge(place[i], place[j], "edge", f"stroke-opacity:{0.08 + 0.5 * shared / top:.2f}")
        for i, j, shared in reversed(chosen)
        if (i, j) not in tree
    ]
    parts += [_edge(place[i], place[j], "tree", "") for i, j in links["tree"]]
    weak = {image["name"] for image in model["uncertainty"]["images"] if image["weak"]}
    radius = 5 if len(view["image"]) <= 40 else 3
    for image in view["image"]:
        name, (x, y) = images[image]["name"], place[image]
        kind = "node weak" if name in weak else "node"
        parts.append(
            f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}" data-image="{image}">'
            f"<title>{escape(printable(name))}: {number(images[image]['observations'])} points"
            f"{', weakly held' if name in weak else ''}</title></circle>"
        )
    return _svg(width, height, label, parts), len(chosen)


def _layout(view: Mapping[str, Any]) -> tuple[dict[int, tuple[float, float]], float, float]:
    """Places of the cameras on a page of limited size."""
    x, y = np.array(view["x"], float), -np.array(view["y"], float)
    extent = max(float(np.ptp(x)), float(np.ptp(y)), 1e-12)
    scale, margin = 520 / extent, 24
    width = float(np.ptp(x)) * scale + 2 * margin
    height = max(float(np.ptp(y)) * scale + 2 * margin, 120.0)
    left = max(0.0, (300 - width) / 2)
    middle = (height - float(np.ptp(y)) * scale) / 2
    places = zip((x - x.min()) * scale + margin + left, (y - y.min()) * scale + middle, strict=True)
    return dict(zip(view["image"], places, strict=True)), max(width, 300.0), height


def _edge(a: tuple[float, float], b: tuple[float, float], kind: str, style: str) -> str:
    look = f' style="{style}"' if style else ""
    return f'<line class="{kind}" x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{b[0]:.1f}" y2="{b[1]:.1f}"{look}/>'


def cost_svg(cost: Sequence[float], label: str) -> str:
    """What a solver minimised, iteration by iteration, on a logarithmic scale."""
    width, height, margin = 220, 60, 5
    values = np.log10(np.maximum(np.array(cost, float), 1e-12))
    span = max(float(np.ptp(values)), 0.02) if len(values) else 1.0
    x = margin + (width - 2 * margin) * np.arange(len(values)) / max(len(values) - 1, 1)
    y = height - margin - (height - 2 * margin) * (values - values.min(initial=0 if not len(values) else np.inf)) / span
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    dots = [f'<circle class="dot" cx="{a:.1f}" cy="{b:.1f}" r="1.8"/>' for a, b in zip(x, y, strict=True)]
    return _svg(width, height, label, [f'<polyline class="curve" points="{points}"/>', *(dots if len(x) <= 40 else [])])


def matrix_bar() -> list[str]:
    """The colours of verified matches from few to many, as CSS."""
    return [f"rgb({r:.0f} {g:.0f} {b:.0f})" for r, g, b in _RAMP]


def matrix_png(pairs: Mapping[str, Any], num_images: int) -> tuple[bytes, int]:
    """Pairs of images as a picture, one pixel each: verified matches from light to dark on a logarithmic scale, grey
    for pairs without, violet for pure rotations, orange for pairs that others contradict, nothing where a pair was not
    looked at; and the largest number."""
    picture = np.zeros((num_images, num_images, 4), np.uint8)
    i, j = np.array(pairs["i"], int), np.array(pairs["j"], int)
    status, matches = np.array(pairs["status"], int), np.array(pairs["matches"], int)
    top = int(matches.max(initial=1))
    share = np.log1p(matches) / np.log1p(max(top, 1)) * (len(_RAMP) - 1)
    low = np.clip(np.floor(share).astype(int), 0, len(_RAMP) - 2)
    shade = _RAMP[low] + (share - low)[:, None] * (_RAMP[low + 1] - _RAMP[low])
    rgba = np.concatenate([np.rint(shade), np.full((len(i), 1), 255.0)], axis=1)
    names = list(pairs["statuses"])
    for name, colour in (("unmatched", _GREY), ("pure rotation", _VIOLET), ("contradicted", _ORANGE)):
        if name in names:
            rgba[status == names.index(name)] = colour
    picture[i, j] = picture[j, i] = rgba.astype(np.uint8)
    return png(picture), top


def _svg(width: float | int, height: float | int, label: str, parts: Sequence[str]) -> str:
    """A picture that scales with the page. `parts` are safe: numbers, or texts that were escaped."""
    return f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
