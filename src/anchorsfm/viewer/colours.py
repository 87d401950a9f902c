"""Numbers as colours with a scale that says what they mean."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

_NUM_STOPS = 9
_MODEL_COLOURS = np.array(
    [[66, 133, 244], [244, 160, 0], [52, 168, 83], [219, 68, 85], [171, 113, 214], [0, 172, 193], [255, 112, 67],
     [158, 157, 36]], np.uint8,
)  # fmt: skip
_UNKNOWN = np.array([128, 128, 128], np.uint8)


@dataclass(frozen=True, kw_only=True)
class Legend:
    """A colour scale from low to high."""

    title: str
    low: float
    high: float
    stops: UInt8[np.ndarray, "stop 3"]
    """Colours at equal steps from low to high."""
    logarithmic: bool = False


@dataclass(frozen=True, kw_only=True)
class Colouring:
    """One colour for each thing, and what the colours mean."""

    rgb: UInt8[np.ndarray, "thing 3"]
    legend: Legend | None = None


def scale_colours(values: Float[np.ndarray, "thing"], title: str, *, logarithmic: bool = False) -> Colouring:
    """Colours from blue (low) over green and yellow to red (high); grey for what is not finite.

    The scale spans the middle 96 % of the values, and values beyond it have the colour of its end.
    """
    known = values[np.isfinite(values) & ((values > 0) | (not logarithmic))]
    low, high = (float(v) for v in np.quantile(known, [0.02, 0.98])) if len(known) else (1.0, 2.0)
    if high <= low:
        low, high = (low / 2, low * 2) if logarithmic else (low - 0.5, high + 0.5)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.log(values / low) / np.log(high / low) if logarithmic else (values - low) / (high - low)
    rgb = _ramp(np.nan_to_num(share, nan=0.0, posinf=1.0, neginf=0.0))
    rgb[~np.isfinite(values)] = _UNKNOWN
    stops = _ramp(np.linspace(0, 1, _NUM_STOPS))
    return Colouring(rgb=rgb, legend=Legend(title=title, low=low, high=high, stops=stops, logarithmic=logarithmic))


def model_colours(number: Int[np.ndarray, "thing"]) -> UInt8[np.ndarray, "thing 3"]:
    """A colour of its own for each model, repeating after eight."""
    return _MODEL_COLOURS[number % len(_MODEL_COLOURS)]


def _ramp(share: Float[np.ndarray, "thing"]) -> UInt8[np.ndarray, "thing 3"]:
    import cv2

    level = np.clip(np.round(255 * share), 0, 255).astype(np.uint8)
    if not len(level):
        return np.zeros((0, 3), np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(level[:, None], cv2.COLORMAP_TURBO)[:, 0, ::-1])


def legend_html(legend: Legend) -> str:
    """The scale as a strip with numbers below it."""
    stops = ", ".join(f"rgb({r},{g},{b})" for r, g, b in legend.stops.tolist())
    middle = (legend.low * legend.high) ** 0.5 if legend.logarithmic else (legend.low + legend.high) / 2
    numbers = "".join(f"<span>{format_number(value)}</span>" for value in (legend.low, middle, legend.high))
    return (
        '<div style="padding:0 0.8em 0.5em 0.8em;font-size:0.8em">'
        f"<div>{legend.title}</div>"
        f'<div style="height:0.9em;border-radius:3px;background:linear-gradient(to right, {stops})"></div>'
        f'<div style="display:flex;justify-content:space-between">{numbers}</div></div>'
    )


def format_number(value: float) -> str:
    """Three significant digits, no exponent for usual sizes."""
    if value == 0 or not 1e-3 <= abs(value) < 1e5:
        return f"{value:.2e}" if value else "0"
    text = f"{value:.{max(0, 2 - int(np.floor(np.log10(abs(value)))))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
