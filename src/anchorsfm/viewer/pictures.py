"""Photographs with what a model says about them drawn in."""

import numpy as np
from jaxtyping import Float, UInt8

from anchorsfm.viewer.colours import scale_colours
from anchorsfm.viewer.photographs import Photograph

MAX_LINES = 120
"""Matches drawn between two photographs; more hide each other."""
_SUBPIXEL_BITS = 4
_GAP = 6


def draw_observations(
    photograph: Photograph,
    xy: Float[np.ndarray, "seen 2"],
    residual: Float[np.ndarray, "seen 2"],
    magnify: float,
) -> UInt8[np.ndarray, "h w 3"]:
    """Circles at the observations, coloured by error, with lines towards the projections, `magnify` times as long.

    `xy` and `residual` are in the model's pixels; observations whose residual is NaN are crossed out in red.
    """
    import cv2

    canvas = photograph.rgb.copy()
    size = _mark_size(canvas)
    error = np.linalg.norm(residual, axis=1)
    colours = scale_colours(error, "").rgb.tolist()
    start = xy * photograph.scale - 0.5  # OpenCV: (0, 0) is the centre of the first pixel
    end = start + np.nan_to_num(residual) * photograph.scale * magnify
    for k in np.argsort(np.nan_to_num(error, nan=np.inf), kind="stable"):
        if not np.isfinite(error[k]):
            cv2.drawMarker(canvas, _whole(start[k]), (255, 0, 0), cv2.MARKER_TILTED_CROSS, 4 * size)
            continue
        if magnify:
            cv2.line(canvas, _fixed(start[k]), _fixed(end[k]), colours[k], size, cv2.LINE_AA, _SUBPIXEL_BITS)
        radius = int(1.5 * size * 2**_SUBPIXEL_BITS)
        cv2.circle(canvas, _fixed(start[k]), radius, colours[k], size, cv2.LINE_AA, _SUBPIXEL_BITS)
    return canvas


def draw_matches(
    left: Photograph, right: Photograph, xy_left: Float[np.ndarray, "shared 2"], xy_right: Float[np.ndarray, "shared 2"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Two photographs side by side, of equal height, with lines between the places of the points they share.

    At most MAX_LINES lines, spread evenly over the matches from the top of the left photograph to its bottom, in the
    colours of that order.
    """
    import cv2

    height = min(len(left.rgb), len(right.rgb))
    a, b = _to_height(left.rgb, height), _to_height(right.rgb, height)
    canvas = np.full((height, a.shape[1] + _GAP + b.shape[1], 3), 255, np.uint8)
    canvas[:, : a.shape[1]], canvas[:, a.shape[1] + _GAP :] = a, b
    size = _mark_size(canvas)
    start = xy_left * left.scale * (height / len(left.rgb)) - 0.5
    end = xy_right * right.scale * (height / len(right.rgb)) - 0.5 + (a.shape[1] + _GAP, 0)
    order = np.argsort(start[:, 1], kind="stable")
    chosen = order[np.unique(np.linspace(0, len(order) - 1, min(MAX_LINES, len(order))).astype(int))]
    colours = scale_colours(np.arange(len(chosen), dtype=float), "").rgb.tolist()
    for k, colour in zip(chosen, colours, strict=True):
        cv2.line(canvas, _fixed(start[k]), _fixed(end[k]), colour, 1, cv2.LINE_AA, _SUBPIXEL_BITS)
        for place in (start[k], end[k]):
            cv2.circle(canvas, _fixed(place), size * 2**_SUBPIXEL_BITS, colour, -1, cv2.LINE_AA, _SUBPIXEL_BITS)
    return canvas


def _to_height(rgb: UInt8[np.ndarray, "h w 3"], height: int) -> UInt8[np.ndarray, "h2 w2 3"]:
    import cv2

    width = max(1, round(rgb.shape[1] * height / len(rgb)))
    return rgb if len(rgb) == height else np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA))


def _mark_size(canvas: UInt8[np.ndarray, "h w 3"]) -> int:
    return max(1, round(max(canvas.shape[:2]) / 700))


def _fixed(xy: Float[np.ndarray, "2"]) -> tuple[int, int]:
    """Fixed-point coordinates as OpenCV wants them, within its range."""
    x, y = np.clip(np.round(xy * 2**_SUBPIXEL_BITS), -(2**20), 2**20).astype(int)
    return int(x), int(y)


def _whole(xy: Float[np.ndarray, "2"]) -> tuple[int, int]:
    x, y = np.clip(np.round(xy), -(2**20), 2**20).astype(int)
    return int(x), int(y)
