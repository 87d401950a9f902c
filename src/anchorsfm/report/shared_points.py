"""Matches of pairs of images for the page: places of points that both see, few enough to embed.

What a front end matched is not kept, so these are the matches that became part of a model.
"""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from anchorsfm.report.figures import shared_points
from anchorsfm.scene.edit import view_of_image
from anchorsfm.scene.reconstruction import Reconstruction

MAX_PER_PAIR, MIN_PER_PAIR = 40, 12
"""Points of a pair that are embedded: fewer where there are many pairs."""
BUDGET = 1_000_000
"""Bytes that the points of all pairs take at most; pairs that share the fewest points go without."""
_BYTES_PER_POINT = 8
_STEPS = 65535


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """Two views of a model that see common points."""

    model: int
    views: tuple[int, int]
    shared: int


def embedded_matches(models: Sequence[Reconstruction], rows: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Common points of pairs, as columns: rows `i` < `j` of the images, `shared` points, `count` that are embedded.

    `xy` holds all of these points, pair after pair, as 16-bit numbers: x and y in image i, x and y in image j, from 0
    to 65535 across the picture. `rows`: of the views of each model.
    """
    pairs = sorted((pair for k, model in enumerate(models) for pair in _pairs(k, model)), key=lambda pair: -pair.shared)
    most = int(np.clip(BUDGET // (_BYTES_PER_POINT * max(len(pairs), 1)), MIN_PER_PAIR, MAX_PER_PAIR))
    pairs = pairs[: BUDGET // (_BYTES_PER_POINT * most)]
    observed = [_by_view(model) for model in models]
    content: dict[str, Any] = {"i": [], "j": [], "shared": [], "count": []}
    parts = [np.zeros((0, 4), "<u2")]
    for pair in pairs:
        views = sorted(pair.views, key=lambda view: rows[pair.model][view])
        places = _places(models[pair.model], observed[pair.model], views, most)
        for name, view in zip("ij", views, strict=True):
            content[name].append(rows[pair.model][view])
        content["shared"].append(pair.shared)
        content["count"].append(len(places))
        parts.append(np.rint(np.clip(places, 0, 1) * _STEPS).astype("<u2"))
    return content | {"xy": base64.b64encode(np.concatenate(parts).tobytes()).decode()}


def _pairs(number: int, model: Reconstruction) -> Iterator[_Pair]:
    shared = shared_points(model).tocoo()
    upper = shared.row < shared.col
    for a, b, count in zip(shared.row[upper], shared.col[upper], shared.data[upper], strict=True):
        yield _Pair(model=number, views=(int(a), int(b)), shared=int(count))


def _by_view(model: Reconstruction) -> list[np.ndarray]:
    """Rows of the observations of each view."""
    view = view_of_image(model)[model.tracks.obs_image]
    order = np.argsort(view, kind="stable")
    return np.split(order, np.cumsum(np.bincount(view, minlength=len(model.image_index)))[:-1])


def _places(
    model: Reconstruction, observed: list[np.ndarray], views: Sequence[int], most: int
) -> Float[np.ndarray, "point 4"]:
    """Places in both pictures as shares of their sides: spread evenly from the top of the first one to its bottom."""
    a, b = (observed[view] for view in views)
    _, in_a, in_b = np.intersect1d(model.tracks.obs_point[a], model.tracks.obs_point[b], return_indices=True)
    cameras = [model.cameras[int(model.camera_index[view])] for view in views]
    xy = [model.tracks.obs_xy[seen] / [c.width, c.height] for seen, c in zip((a[in_a], b[in_b]), cameras, strict=True)]
    order = np.argsort(xy[0][:, 1], kind="stable")
    chosen = order[np.unique(np.linspace(0, len(order) - 1, min(most, len(order))).astype(int))]
    return np.concatenate(xy, axis=1)[chosen]
