"""Which pairs to look at, and what a front end says about them: the first two blocks of the alignment."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from anchorsfm.api import arguments, images
from anchorsfm.api.display import progress_of
from anchorsfm.api.frontends import CheckedFrontend, prediction_of
from anchorsfm.api.settings import with_settings
from anchorsfm.frontend import FRONTENDS
from anchorsfm.frontend.base import Frontend, PairPredictor
from anchorsfm.io.store import Store, digest
from anchorsfm.pairing import make_pairs as pairs_of_graph
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.images import ImageGrid, ImageSet
from anchorsfm.scene.pairs import PairList, PairPrediction, Pointmaps
from anchorsfm.scene.progress import SILENT, Progress

ImagePairs = str | Sequence[Any] | np.ndarray | Tensor | PairList
"""A scene graph such as "complete" or "swin-5", or pairs: rows [(0, 1), ...], names, or dictionaries with `idx`."""


def make_pairs(
    images: Any,
    scene_graph: str = "complete",
    *,
    prefilter: str | None = None,
    similarity: Any = None,
    seed: int = 0,
) -> list[tuple[int, int]]:
    """Pairs of images to look at, as rows i < j, each once.

    Args:
        images: how many, their names, or anything that `predict_pairs` takes.
        scene_graph: complete, swin-K, logwin-K (each also with -noncyclic), oneref-I, retrieval-A-K, auto, pairs:FILE.
        prefilter: drop pairs further apart than N in order: seqN, or cycN for a closed loop.
        similarity: (image, image) for retrieval, larger is more alike.
        seed: of what retrieval and auto leave to chance.

    Raises:
        InputError: an argument cannot be used.
    """
    names = _names_of(images)
    if not isinstance(scene_graph, str):
        raise InputError(f"scene_graph: expected a string such as 'swin-5', not {arguments.describe(scene_graph)}")
    if similarity is not None:
        count = len(names)
        similarity = arguments.numbers("similarity", similarity, f"{count} {count}")
    found = pairs_of_graph(
        len(names),
        scene_graph,
        names=names,
        prefilter=prefilter,
        similarity=similarity,
        seed=arguments.whole("seed", seed, low=0),
    )
    return [(int(i), int(j)) for i, j in found.index]


class Predictions:
    """What a front end says about pairs of images, made as it is asked for and read from the cache where it was before.

    Iterating gives one `PairPrediction` per pair, in the order of `pairs`.
    """

    def __init__(self, images: ImageSet, predictor: PairPredictor, pairs: PairList, store: Store) -> None:
        self.images = images
        self.predictor = predictor
        self.store = store
        self.pair_list = pairs

    @property
    def names(self) -> tuple[str, ...]:
        """Of all images."""
        return self.images.names

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Rows of the images of each pair, i < j."""
        return [(int(i), int(j)) for i, j in self.pair_list.index]

    @property
    def grid(self) -> ImageGrid:
        """The grid of pixels that predictions live on, with the way to original pixels."""
        return self.predictor.grid

    def __len__(self) -> int:
        return len(self.pair_list)

    def __iter__(self) -> Iterator[PairPrediction]:
        return iter(self.predictor)

    def __repr__(self) -> str:
        return f"<Predictions: {len(self)} pairs of {self.images.num_images} images>"


def predict_pairs(
    images: Any,
    pairs: ImagePairs = "complete",
    frontend: str | Frontend = "classical",
    *,
    cache: str | Path | None = None,
    focal_px: int | float | None = None,
    progress: bool | Progress | None = None,
    **settings: object,
) -> Predictions:
    """Ask a front end about pairs of images.

    Args:
        images: a folder, files, arrays (height, width, 3), or ready predictions (see `as_predictions`), to which no
            other argument applies.
        pairs: a scene graph or a list of pairs.
        frontend: "classical", "mast3r", an object of your own, or a network of `load_mast3r`.
        cache: folder for what is computed: another call with the same images goes on from there.
        focal_px: focal length of all images in original pixels, if known.
        progress: as for `reconstruct`.
        settings: of a front end that is given by name, such as `weights=` or `features__max_keypoints=`.

    Raises:
        InputError: an argument or image cannot be used.
    """
    if are_ready(images):
        _require_nothing_else(pairs, frontend, cache, focal_px, settings)
        return images if isinstance(images, Predictions) else as_predictions(images)
    with progress_of(progress) as shown:
        return _open(images, pairs, frontend, cache, focal_px, shown, settings)


def are_ready(images: Any) -> bool:
    """Whether predictions are at hand: no front end is asked."""
    if isinstance(images, (list, tuple)) and images:
        return isinstance(images[0], (Mapping, PairPrediction))
    return isinstance(images, Predictions)


def _require_nothing_else(
    pairs: ImagePairs, frontend: object, cache: object, focal_px: object, settings: Mapping[str, object]
) -> None:
    """Raise InputError for what only a front end that is asked can follow."""
    given = {
        "pairs": not (isinstance(pairs, str) and pairs == "complete"),
        "frontend": frontend != "classical",
        "cache": cache is not None,
        "focal_px": focal_px is not None,
        **dict.fromkeys(settings, True),
    }
    for name in (name for name, is_given in given.items() if is_given):
        way_out = "what is known goes into intrinsics" if name == "focal_px" else "leave it out"
        raise InputError(f"{name} has no effect on predictions that are ready: {way_out}")


def _open(
    pictures: Any,
    pairs: ImagePairs,
    frontend: str | Frontend,
    cache: str | Path | None,
    focal_px: int | float | None,
    progress: Progress,
    settings: Mapping[str, object],
) -> Predictions:
    chosen: Frontend
    if isinstance(frontend, str):
        kind = FRONTENDS[arguments.choice("frontend", frontend, FRONTENDS)]
        chosen = with_settings(kind(), settings)
    else:
        chosen = CheckedFrontend(frontend)
        if settings:
            raise InputError(f"{next(iter(settings))} is a setting of a front end given by name; set it on the object")
    found = images.open_images(pictures, focal_px=focal_px, progress=progress)
    if found.num_images < 2:
        raise InputError(f"images: found {found.num_images}, at least two are needed")
    if isinstance(pairs, str):
        rows = make_pairs(found.names, pairs)
        if not rows:
            raise InputError(f"pairs = {pairs!r} has no pair of the {found.num_images} images")
    else:
        rows = arguments.pair_rows("pairs", pairs, found.names)
    listed = PairList(index=np.array(rows, np.int64))
    store = Store(None if cache is None else arguments.path("cache", cache))
    return Predictions(found, chosen.open(found, listed, store, progress), listed, store)


def as_predictions(predictions: Sequence[Any], names: Sequence[str] | None = None) -> Predictions:
    """Predictions that are at hand already, of whatever network, for `condense` and `sparse_global_alignment`.

    Args:
        predictions: one `PairPrediction` per pair, or one dictionary: `i`, `j` (rows of the images, or names), `xy_i`,
            `xy_j` (match, 2): pixels, (0.5, 0.5) the centre of the top-left one; `confidence` (match,), and pointmaps
            (h, w, 3) `points_ii`, `points_ji` in the frame of camera i, `points_jj`, `points_ij` in that of j, each
            with `confidence_ii` ... (h, w), at least 1.
        names: of the images, in order.

    Raises:
        InputError: names the pair and what is wrong with it.
    """
    if not isinstance(predictions, (list, tuple)) or not predictions:
        raise InputError(f"predictions: expected a list with one entry per pair, not {arguments.describe(predictions)}")
    known = names if names is not None else _numbered(predictions)
    made = [_ready(f"predictions[{k}]", entry, known) for k, entry in enumerate(predictions)]
    ordered = sorted(made, key=lambda prediction: (prediction.i, prediction.j))
    for first, second in pairwise(ordered):
        if (first.i, first.j) == (second.i, second.j):
            raise InputError(f"predictions: the pair ({first.i}, {first.j}) comes twice")
    count = len(names) if names is not None else max(p.j for p in ordered) + 1
    size_wh = _sizes(ordered, count)
    listed = images.described_images(names or [str(k) for k in range(count)], size_wh)
    grid = ImageGrid(size_wh=size_wh, scale=np.ones((count, 2)), offset=np.zeros((count, 2)))
    pairs = PairList(index=np.array([(p.i, p.j) for p in ordered], np.int64))
    return Predictions(listed, _Listed(ordered, grid), pairs, Store(None))


class _Listed:
    """Predictions in memory."""

    keeps_predictions = True
    focal_px = None
    licence = None

    def __init__(self, predictions: Sequence[PairPrediction], grid: ImageGrid) -> None:
        self.grid = grid
        self.detects_keypoints = all(p.keypoint_matches is not None for p in predictions)
        self._predictions = predictions
        self.digest = digest("predictions", [[p.i, p.j, p.matches] for p in predictions])

    def __len__(self) -> int:
        return len(self._predictions)

    def __iter__(self) -> Iterator[PairPrediction]:
        return iter(self._predictions)

    def predictions(self, rows: Sequence[int]) -> Iterator[PairPrediction]:
        return (self._predictions[row] for row in rows)


def with_pointmap_confidence(prediction: PairPrediction) -> PairPrediction:
    """Matches as confident as the pointmaps at their pixels, both in the frame of the first image."""
    maps, matches = prediction.frame_i, prediction.matches
    if maps is None or not len(matches):
        return prediction
    found = [
        _at(confidence, xy)
        for confidence, xy in ((maps.own_confidence, matches.xy_i), (maps.other_confidence, matches.xy_j))
    ]
    confidence = np.sqrt(found[0] * found[1])
    return replace(prediction, matches=replace(matches, confidence=confidence))


def _at(values: Float[np.ndarray, "h w"], xy: Float[np.ndarray, "point 2"]) -> Float[np.ndarray, "point"]:
    x, y = np.clip(np.floor(xy).astype(np.int64), 0, np.array(values.shape[::-1]) - 1).T
    return np.asarray(values, np.float64)[y, x]


def _numbered(predictions: Sequence[Any]) -> list[str]:
    """Names of images that are only counted."""
    ends = [entry.get(end) for entry in predictions if isinstance(entry, Mapping) for end in ("i", "j")]
    return [str(k) for k in range(1 + max((int(end) for end in ends if isinstance(end, (int, np.integer))), default=0))]


def _ready(place: str, entry: Any, names: Sequence[str]) -> PairPrediction:
    if isinstance(entry, PairPrediction):
        return entry
    if not isinstance(entry, Mapping) or "i" not in entry or "j" not in entry:
        what = f"keys {', '.join(map(str, entry))}" if isinstance(entry, Mapping) else arguments.describe(entry)
        raise InputError(f"{place}: expected a PairPrediction or a dictionary with i, j, xy_i, xy_j ..., not {what}")
    i, j = (arguments.image_rows(f"{place}: {end}", entry[end], names) for end in ("i", "j"))
    if i >= j:
        raise InputError(f"{place}: expected i < j, got ({i}, {j})")
    return prediction_of({key: value for key, value in entry.items() if key not in ("i", "j")}, i, j)


def _sizes(predictions: Sequence[PairPrediction], count: int) -> np.ndarray:
    """Width and height of every image, from its pointmaps."""
    size_wh = np.zeros((count, 2), np.int64)

    def learn(place: str, image: int, points: np.ndarray) -> None:
        height, width = points.shape[:2]
        if size_wh[image].any() and size_wh[image].tolist() != [width, height]:
            other = f"({size_wh[image][1]}, {size_wh[image][0]}, 3)"
            raise InputError(f"{place}: pointmaps of image {image} have the shapes ({height}, {width}, 3) and {other}")
        size_wh[image] = width, height

    for prediction in predictions:
        i, j = prediction.i, prediction.j
        ends: tuple[tuple[Pointmaps | None, int, int], ...] = ((prediction.frame_i, i, j), (prediction.frame_j, j, i))
        for maps, own, other in ends:
            if maps is not None:
                learn(f"predictions of pair ({i}, {j})", own, maps.own)
                learn(f"predictions of pair ({i}, {j})", other, maps.other)
    missing = np.flatnonzero(~size_wh.any(axis=1)).tolist()
    if missing:
        raise InputError(f"predictions: no pair has pointmaps of image {missing[0]}, which the alignment needs")
    return size_wh


def _names_of(value: Any) -> tuple[str, ...]:
    if isinstance(value, Predictions):
        return value.names
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return tuple(str(k) for k in range(arguments.whole("images", value, low=2)))
    if isinstance(value, ImageSet):
        return value.names
    if isinstance(value, (list, tuple)) and value and all(isinstance(name, (str, Path)) for name in value):
        return tuple(str(name) for name in value)
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, Mapping) for item in value):
        return tuple(str(item.get("instance", item.get("idx", k))) for k, item in enumerate(value))
    return images.open_images(value, progress=SILENT).names
