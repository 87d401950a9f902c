"""What the diagrams of a model show: histograms, residual fields, the graph of images and its top view.

Residuals are projected minus observed, in original pixels. Their mean over the images of a camera, cell by cell, is
noise around zero for a right lens model; a wrong one leaves a pattern (rings for radial distortion, a common direction
for the principal point).
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from scipy.sparse.csgraph import minimum_spanning_tree

from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.geometry.upright import level_rotation, up_direction
from anchorsfm.results.record import Histogram, Links, ModelFigures, ResidualField, TopView
from anchorsfm.scene.edit import view_of_image
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.points import widest_angles_deg
from anchorsfm.tracks.residuals import residual_vectors

MAX_BINS = 40
MAX_TRACK_LENGTH = 30
"""Longer tracks count as one group."""
CELLS_ACROSS = 24
"""Most cells of a residual field along the longer side ..."""
OBSERVATIONS_PER_CELL = 40
"""... and how many observations a cell should have on average: the mean of fewer shows noise."""
MAX_LINKS_PER_IMAGE = 50
"""Pairs with common points that are listed: the strongest, at most this many times the number of images."""
KINEMATIC, SPANNING = "tree of the alignment", "maximum spanning tree of shared points"


def model_figures(
    model: Reconstruction,
    tree: Int[np.ndarray, "edge 2"] | None = None,
    up: Float[np.ndarray, "3"] | None = None,
) -> ModelFigures:
    """All diagrams of a model.

    Args:
        model: the model.
        tree: pairs of images that poses were chained along, if they were.
        up: in the world; None: what the cameras say.
    """
    vectors = residual_vectors(model)
    return ModelFigures(
        track_length=track_length_histogram(model),
        reprojection_error_px=histogram(np.linalg.norm(vectors, axis=1), MAX_BINS),
        triangulation_angle_deg=histogram(widest_angles_deg(model) if len(model.points) else np.zeros(0), MAX_BINS),
        residuals=tuple(residual_field(model, camera, vectors) for camera in range(len(model.cameras))),
        links=links(model, tree),
        top_view=top_view(model, up),
    )


def histogram(values: Float[np.ndarray, "value"], bins: int) -> Histogram:
    """Counts from 0 up to the 99.5th percentile, rounded up to a round width of the bins."""
    values = values[np.isfinite(values)]
    top = float(np.percentile(values, 99.5)) if len(values) else 1.0
    width = round_up(max(top, 1e-6) / bins)
    edges = width * np.arange(int(np.ceil(top / width)) + 1 if top > 0 else 2)
    return _histogram(values, edges)


def track_length_histogram(model: Reconstruction) -> Histogram:
    """One bin for every number of images that see a point."""
    length = np.bincount(model.tracks.obs_point, minlength=len(model.points)).astype(np.float64)
    top = int(min(length.max(initial=2), MAX_TRACK_LENGTH))
    return _histogram(length, np.arange(2.0, top + 2))


def _histogram(values: Float[np.ndarray, "value"], edges: Float[np.ndarray, "edge"]) -> Histogram:
    inside = values < edges[-1]
    counts, _ = np.histogram(values[inside], edges)
    return Histogram(
        edges=tuple(round(float(edge), 6) for edge in edges),
        counts=tuple(int(count) for count in counts),
        above=int((~inside).sum()),
        mean=short(values.mean()) if len(values) else None,
        median=short(np.median(values)) if len(values) else None,
        percentile_90=short(np.percentile(values, 90)) if len(values) else None,
    )


def round_up(width: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(width))
    return float(next(power * step for step in (1, 2, 2.5, 5, 10) if power * step >= width * (1 - 1e-9)))


def residual_field(model: Reconstruction, camera: int, vectors: Float[np.ndarray, "obs 2"]) -> ResidualField:
    """Mean residuals of one camera, in cells that are as square as they can be."""
    entry = model.cameras[camera]
    view = view_of_image(model)[model.tracks.obs_image]
    rows = np.flatnonzero((model.camera_index[view] == camera) & np.isfinite(vectors).all(axis=1))
    size_wh = np.array([entry.width, entry.height], np.float64)
    across = np.sqrt(max(len(rows), 1) / OBSERVATIONS_PER_CELL * size_wh.max() / size_wh.min())
    side = size_wh.max() / np.clip(across, 3, CELLS_ACROSS)
    columns, lines = np.maximum(np.rint(size_wh / side), 1).astype(np.int64).tolist()
    place = np.floor(model.tracks.obs_xy[rows] / size_wh * (columns, lines)).astype(np.int64)
    x, y = np.clip(place, 0, [columns - 1, lines - 1]).T
    cell, vector = y * columns + x, vectors[rows]
    count = np.bincount(cell, minlength=columns * lines)
    mean = [np.bincount(cell, v, columns * lines) / np.maximum(count, 1) for v in (*vector.T, (vector**2).sum(axis=1))]

    def known(values: Float[np.ndarray, "cell"]) -> tuple[float | None, ...]:
        return tuple(short(value) if n else None for value, n in zip(values, count, strict=True))

    return ResidualField(
        camera=camera,
        width=entry.width,
        height=entry.height,
        columns=columns,
        rows=lines,
        count=tuple(count.tolist()),
        mean_x_px=known(mean[0]),
        mean_y_px=known(mean[1]),
        rms_px=known(np.sqrt(mean[2])),
        systematic=_systematic(count, mean[0] ** 2 + mean[1] ** 2, mean[2]),
    )


def _systematic(
    count: Int[np.ndarray, "cell"], square_of_mean: Float[np.ndarray, "cell"], mean_square: Float[np.ndarray, "cell"]
) -> float | None:
    """One minus the variance within cells over the mean square of all residuals, as in an adjusted R^2."""
    observations, cells = int(count.sum()), int((count > 0).sum())
    total = float((count * mean_square).sum())
    if observations <= cells or total <= 0:
        return None
    within = float((count * (mean_square - square_of_mean)).sum())
    return round(max(0.0, 1 - within / (observations - cells) * observations / total), 4)


def links(model: Reconstruction, tree: Int[np.ndarray, "edge 2"] | None = None) -> Links:
    """Numbers of common points of all pairs of views, and the tree that holds the views together."""
    shared = shared_points(model)
    upper = shared.tocoo()
    keep = upper.row < upper.col
    rows, cols, count = upper.row[keep], upper.col[keep], upper.data[keep]
    strongest = np.argsort(-count, kind="stable")[: MAX_LINKS_PER_IMAGE * len(model.image_index)]
    order = strongest[np.lexsort((cols[strongest], rows[strongest]))]
    i, j = model.image_index[rows[order]], model.image_index[cols[order]]
    inside = np.zeros((0, 2), np.int64) if tree is None else tree[np.isin(tree, model.image_index).all(axis=1)]
    edges = inside if len(inside) else _spanning_tree(model, shared)
    return Links(
        total=len(count),
        i=tuple(i.tolist()),
        j=tuple(j.tolist()),
        shared=tuple(count[order].astype(int).tolist()),
        tree=tuple((int(a), int(b)) for a, b in np.sort(edges, axis=1)),
        tree_of=KINEMATIC if len(inside) else SPANNING,
    )


def shared_points(model: Reconstruction) -> csr_array:
    """Number of points that two views both see, (view, view); the diagonal holds what each sees."""
    view = view_of_image(model)[model.tracks.obs_image]
    size = (max(len(model.points), 1), len(model.image_index))
    seen = csr_array((np.ones(len(view), np.int64), (model.tracks.obs_point, view)), shape=size)
    return csr_array(seen.T @ seen)


def _spanning_tree(model: Reconstruction, shared: csr_array) -> Int[np.ndarray, "edge 2"]:
    between = shared.tocoo()
    off = between.row != between.col
    negative = csr_array((-between.data[off].astype(float), (between.row[off], between.col[off])), shape=shared.shape)
    row, col = minimum_spanning_tree(negative).nonzero()
    return np.stack([model.image_index[row], model.image_index[col]], axis=1).astype(np.int64)


def upright_from_world(model: Reconstruction, up: Float[np.ndarray, "3"] | None = None) -> Float[np.ndarray, "3 3"]:
    """Rotation to axes with z up and, as far as that allows, y where the cameras look on average.

    `up`: in the world; None: what the cameras say.
    """
    up = up_direction(model.cam_from_world, model.points) if up is None else up
    return level_rotation(model.cam_from_world, up)


def top_view(model: Reconstruction, up: Float[np.ndarray, "3"] | None = None) -> TopView:
    """Where the cameras stand, seen from above with the mean viewing direction up on the page.

    `up`: in the world; None: what the cameras say.
    """
    turn = upright_from_world(model, up)
    x, y, height = (camera_centres(model.cam_from_world) @ turn.T).T
    east, north, above = (tuple(short(value, 6) for value in column) for column in (x, y, height))
    a, b, c = turn[2].tolist()
    return TopView(
        image=tuple(model.image_index.tolist()),
        x=east,
        y=north,
        height=above,
        up=(short(a, 6), short(b, 6), short(c, 6)),
    )


def short(value: float | np.floating, digits: int = 4) -> float:
    """A number with as many significant digits as a reader needs."""
    return float(f"{float(value):.{digits}g}")
