"""One's own front ends: a base class that needs one method, and checks of what any front end says."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import uuid4

import numpy as np
from jaxtyping import Float, UInt8

from anchorsfm.api import arguments
from anchorsfm.frontend.base import Frontend, PairPredictor
from anchorsfm.io.pictures import load_rgb, working_size_wh
from anchorsfm.io.store import Store, digest
from anchorsfm.io.weights.licence import LicenceRecord
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.images import ImageGrid, ImageSet
from anchorsfm.scene.pairs import Matches, PairList, PairPrediction, PairStatus, Pointmaps
from anchorsfm.scene.progress import Progress
from anchorsfm.scene.settings import closest

_PREDICTOR_MEMBERS = ("grid", "digest", "keeps_predictions", "__len__", "__iter__", "predictions")
"""What a predictor of one's own must have; `focal_px`, `licence` and `detects_keypoints` may be left out."""
_POINTMAPS = {"frame_i": ("points_ii", "points_ji"), "frame_j": ("points_jj", "points_ij")}


class PairFrontend:
    """A front end of one's own, of which only `predict` has to be written.

    class Mine(anchorsfm.PairFrontend):
        def predict(self, rgb_i, rgb_j):
            ...
            return {"xy_i": xy_i, "xy_j": xy_j, "confidence": confidence}

    Photographs are read at `max_image_size`; what `predict` says about a pair is not kept between runs.
    """

    max_image_size = 1024
    """Long side in pixels of the pictures that `predict` gets."""
    predicts_depth = False
    """True: `predict` also gives pointmaps, which the global alignment and dense clouds need."""
    version: str | None = None
    """Names what `predict` does. Given, a run uses what earlier ones with the same name computed from its predictions;
    otherwise everything after them is computed anew."""

    def predict(
        self, rgb_i: UInt8[np.ndarray, "hi wi 3"], rgb_j: UInt8[np.ndarray, "hj wj 3"]
    ) -> Mapping[str, object] | None:
        """What the front end says about two pictures; None: they do not match.

        Keys: `xy_i`, `xy_j` (match, 2): pixels of the two pictures, (0.5, 0.5) the centre of the top-left one;
        `confidence` (match,): about 1 knows nothing, 5 is doubtful, 10 and more certain (default: 10). With depth also
        `points_ii`, `points_ji`: the points of the pixels of i (hi, wi, 3) and of j (hj, wj, 3) in the frame of camera
        i; `points_jj`, `points_ij`: those of j and of i in the frame of camera j; and for each `confidence_ii` ... as
        (h, w), at least 1.
        """
        raise NotImplementedError

    def open(self, images: ImageSet, pairs: PairList, store: Store, progress: Progress) -> "PairFrontendPredictor":
        """Of the protocol `anchorsfm.Frontend`."""
        return PairFrontendPredictor(self, images, pairs)


class PairFrontendPredictor:
    """Asks a `PairFrontend` for one pair after the other."""

    keeps_predictions = True
    detects_keypoints = False
    focal_px = None
    licence = None

    def __init__(self, frontend: PairFrontend, images: ImageSet, pairs: PairList) -> None:
        size_wh = np.stack([working_size_wh(size, frontend.max_image_size) for size in images.size_wh])
        scale = size_wh / images.size_wh
        self.grid = ImageGrid(size_wh=size_wh, scale=scale, offset=np.zeros_like(scale))
        version = frontend.version or uuid4().hex
        self.digest = digest("pair front end", type(frontend).__qualname__, version, images.digests, pairs.index)
        self._frontend, self._images, self._pairs = frontend, images, pairs.index
        self._last: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self._pairs)

    def __iter__(self) -> Iterator[PairPrediction]:
        return self.predictions(range(len(self)))

    def predictions(self, rows: Sequence[int]) -> Iterator[PairPrediction]:
        for row in rows:
            i, j = self._pairs[row].tolist()
            yield prediction_of(
                self._frontend.predict(self._rgb(i), load_rgb(self._images, j, self.grid.size_wh[j])), i, j
            )

    def _rgb(self, image: int) -> UInt8[np.ndarray, "h w 3"]:
        """The first image of a pair, which as a rule is that of the pair before."""
        if self._last is None or self._last[0] != image:
            self._last = image, load_rgb(self._images, image, self.grid.size_wh[image])
        return self._last[1]


def prediction_of(said: object, i: int, j: int) -> PairPrediction:
    """A prediction from what `PairFrontend.predict` returns, or a dictionary of the same keys with pixels on a grid.

    Raises InputError, naming pair and key.
    """
    place = f"the prediction of pair ({i}, {j})"
    if said is None:
        said = {}
    if not isinstance(said, Mapping):
        raise InputError(
            f"{place}: expected a dictionary with xy_i, xy_j and confidence, not {arguments.describe(said)}"
        )
    maps = {name for pair in _POINTMAPS.values() for name in pair}
    known = {"xy_i", "xy_j", "confidence", "i", "j", *maps, *(name.replace("points", "confidence") for name in maps)}
    for key in said:
        if key not in known:
            near = closest(key, known)
            hint = f"did you mean {near!r}?" if near else f"there are {', '.join(sorted(known))}"
            raise InputError(f"{place}: unknown key {key!r}, {hint}")
    matches = _matches_of(said, place)
    frames = {frame: _pointmaps_of(said, frame, place) for frame in _POINTMAPS}
    has_something = len(matches) > 0 or frames["frame_i"] is not None
    return PairPrediction(
        i=i,
        j=j,
        status=PairStatus.OK if has_something else PairStatus.UNMATCHED,
        matches=matches,
        keypoint_matches=None,
        frame_i=frames["frame_i"],
        frame_j=frames["frame_j"],
    )


def _matches_of(said: Mapping[str, object], place: str) -> Matches:
    if ("xy_i" in said) != ("xy_j" in said):
        raise InputError(f"{place}: expected both xy_i and xy_j")
    if "xy_i" not in said:
        return Matches.empty()
    xy_i, xy_j = (arguments.numbers(f"{place}: {key}", said[key], "match 2") for key in ("xy_i", "xy_j"))
    given = said.get("confidence")
    confidence = (
        np.full(len(xy_i), 10.0) if given is None else arguments.numbers(f"{place}: confidence", given, "match")
    )
    if not len(xy_i) == len(xy_j) == len(confidence):
        counts = f"{len(xy_i)}, {len(xy_j)} and {len(confidence)}"
        raise InputError(f"{place}: xy_i, xy_j and confidence have {counts} rows; expected one each per match")
    return Matches(xy_i=xy_i, xy_j=xy_j, confidence=confidence)


def _pointmaps_of(said: Mapping[str, object], frame: str, place: str) -> Pointmaps | None:
    names = _POINTMAPS[frame]
    given = [name for name in names if said.get(name) is not None]
    if not given:
        return None
    if len(given) < 2:
        raise InputError(f"{place}: expected both {names[0]} and {names[1]}")
    arrays: list[Any] = []
    for name in names:
        points = arguments.numbers(f"{place}: {name}", said[name], "h w 3", finite=False).astype(np.float32)
        key = name.replace("points", "confidence")
        given_confidence = said.get(key)
        if given_confidence is None:
            raise InputError(f"{place}: {key} is missing; expected an array (h, w), at least 1 everywhere")
        confidence = arguments.numbers(f"{place}: {key}", given_confidence, "h w", finite=False).astype(np.float32)
        if confidence.shape != points.shape[:2]:
            shapes = f"{arguments.shape_text(points.shape)} and {arguments.shape_text(confidence.shape)}"
            raise InputError(f"{place}: {name} and {key} have the shapes {shapes}; expected (h, w, 3) and (h, w)")
        arrays += [points, confidence]
    return Pointmaps(own=arrays[0], own_confidence=arrays[1], other=arrays[2], other_confidence=arrays[3])


def _focal_of(said: object, num_images: int) -> Float[np.ndarray, "image"] | None:
    if said is None:
        return None
    focal_px = arguments.numbers("frontend: its focal_px", said, "image")
    if len(focal_px) != num_images or not (focal_px > 0).all():
        raise InputError(f"frontend: its focal_px must be {num_images} numbers above 0, one per image")
    return focal_px


class CheckedFrontend:
    """A front end whose every answer is checked before it is used."""

    def __init__(self, frontend: object) -> None:
        """Raises InputError if the object is no front end."""
        if isinstance(frontend, type):
            raise InputError(f"frontend = {frontend.__name__} is a class: pass an object, {frontend.__name__}()")
        if not isinstance(frontend, Frontend) or not callable(frontend.open):
            raise InputError(
                f"frontend: expected 'classical', 'mast3r' or an object with open(images, pairs, store, progress), "
                f"not {arguments.describe(frontend)}"
            )
        self._frontend = frontend
        self.name = type(frontend).__name__
        """What the record of a run calls it."""

    def open(self, images: ImageSet, pairs: PairList, store: Store, progress: Progress) -> "CheckedPredictor":
        """Raises InputError if what the front end returns is no predictor for these images and pairs."""
        predictor = self._frontend.open(images, pairs, store, progress)
        missing = [name for name in _PREDICTOR_MEMBERS if not hasattr(predictor, name)]
        if missing:
            raise InputError(
                f"frontend.open() returned {arguments.describe(predictor)}, which lacks {', '.join(missing)}"
            )
        if not isinstance(predictor.grid, ImageGrid) or predictor.grid.size_wh.shape != (images.num_images, 2):
            raise InputError(f"frontend: its grid must be an ImageGrid of the {images.num_images} images")
        if len(predictor) != len(pairs):
            raise InputError(f"frontend: it announces {len(predictor)} predictions for {len(pairs)} pairs")
        return CheckedPredictor(predictor, images, pairs)


class CheckedPredictor:
    """Passes everything on. Raises InputError, naming the pair, where a prediction is not what it should be."""

    def __init__(self, predictor: PairPredictor, images: ImageSet, pairs: PairList) -> None:
        self._predictor, self._pairs, self._names = predictor, pairs.index, images.names
        self.grid, self.digest = predictor.grid, str(predictor.digest)
        self.keeps_predictions = bool(predictor.keeps_predictions)
        self.detects_keypoints = bool(getattr(predictor, "detects_keypoints", False))
        self.focal_px = _focal_of(getattr(predictor, "focal_px", None), images.num_images)
        self.licence: LicenceRecord | None = getattr(predictor, "licence", None)
        if self.licence is not None and not isinstance(self.licence, LicenceRecord):
            raise InputError(f"frontend: its licence must be a LicenceRecord, not {arguments.describe(self.licence)}")

    def __len__(self) -> int:
        return len(self._pairs)

    def __iter__(self) -> Iterator[PairPrediction]:
        return self._checked(iter(self._predictor), range(len(self)))

    def predictions(self, rows: Sequence[int]) -> Iterator[PairPrediction]:
        return self._checked(self._predictor.predictions(rows), rows)

    def _checked(self, predictions: Iterator[PairPrediction], rows: Sequence[int]) -> Iterator[PairPrediction]:
        for row in rows:
            i, j = self._pairs[row].tolist()
            place = f"frontend: the prediction of {self._names[i]}, {self._names[j]}"
            try:
                prediction = next(predictions)
            except StopIteration:
                raise InputError(f"{place} is missing: there are fewer predictions than pairs") from None
            if not isinstance(prediction, PairPrediction):
                raise InputError(f"{place} must be a PairPrediction, not {arguments.describe(prediction)}")
            if (prediction.i, prediction.j) != (i, j):
                raise InputError(f"{place} is that of pair ({prediction.i}, {prediction.j}): expected ({i}, {j})")
            self._check_matches(f"{place}: matches", prediction.matches)
            if self.detects_keypoints and prediction.keypoint_matches is None and len(prediction.matches):
                raise InputError(f"{place} has no keypoint_matches, though the predictor says detects_keypoints = True")
            if prediction.keypoint_matches is not None:
                if not self.detects_keypoints:
                    raise InputError(
                        f"{place} has keypoint_matches: set detects_keypoints = True on the predictor to have them used"
                    )
                self._check_matches(f"{place}: keypoint_matches", prediction.keypoint_matches)
            for name, maps, own, other in (
                ("frame_i", prediction.frame_i, i, j),
                ("frame_j", prediction.frame_j, j, i),
            ):
                if maps is not None:
                    self._check_map(f"{place}: {name}.own", maps.own, maps.own_confidence, own)
                    self._check_map(f"{place}: {name}.other", maps.other, maps.other_confidence, other)
            yield prediction

    def _check_matches(self, place: str, matches: Matches) -> None:
        count = len(arguments.numbers(f"{place}.confidence", matches.confidence, "match", finite=False))
        for end in ("xy_i", "xy_j"):
            xy = arguments.numbers(f"{place}.{end}", getattr(matches, end), "match 2", finite=False)
            if len(xy) != count:
                raise InputError(f"{place}: {len(xy)} rows of {end} but {count} confidences")

    def _check_map(
        self, place: str, points: Float[np.ndarray, "h w 3"], confidence: Float[np.ndarray, "h w"], image: int
    ) -> None:
        width, height = self.grid.size_wh[image].tolist()
        if np.shape(points) != (height, width, 3) or np.shape(confidence) != (height, width):
            shapes = (
                f"{arguments.shape_text(np.shape(points))} and confidence {arguments.shape_text(np.shape(confidence))}"
            )
            raise InputError(f"{place} has shape {shapes}: expected ({height}, {width}, 3) and ({height}, {width})")
