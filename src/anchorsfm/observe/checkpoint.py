"""The scene graph of a front end whose predictions are too large to keep, in a way that an interrupted run continues.

Kept per pair are its matches, fallback targets and relative rotation, kept per image the running sums over its pairs so
far. After every pair the sums of its two images are written anew, under the number of pairs they contain, and the
former ones removed; so a run that was killed at any moment finds for each image exactly which pairs its sums contain,
asks the front end only for pairs that are missing in a sum, adds them in the same order, and ends with the same bits.

Sums are checked before they count: damaged ones are as good as none, and their pairs are asked for again.
"""

from collections.abc import Callable, Iterator
from dataclasses import fields, replace

import numpy as np
from jaxtyping import Int

from anchorsfm.frontend.base import PairPredictor
from anchorsfm.io.store import Store, digest
from anchorsfm.observe.canonical import CanonicalAccumulator
from anchorsfm.observe.config import GraphConfig
from anchorsfm.observe.graph import ObservedScene, SceneGraphBuilder, build_scene_graph, empty_sums, is_usable
from anchorsfm.observe.relative import with_rotation
from anchorsfm.observe.sanitise import LeftOut, sanitised
from anchorsfm.scene.errors import StorageError
from anchorsfm.scene.graph import FallbackTargets
from anchorsfm.scene.pairs import Matches, PairList, PairPrediction, PairStatus
from anchorsfm.scene.progress import SILENT, Progress

Watch = Callable[[Iterator[PairPrediction]], Iterator[PairPrediction]]


def observe(
    num_images: int,
    predictor: PairPredictor,
    pairs: PairList,
    config: GraphConfig,
    store: Store,
    watch: Watch,
    progress: Progress = SILENT,
) -> ObservedScene:
    """Condense all predictions of a front end, continuing from the store where it does not keep them itself.

    `watch` sees every prediction once, in order, without what is not finite in it; those of an earlier run come without
    pointmaps. `progress` is warned of what was left out.
    """
    left_out = LeftOut()
    if predictor.keeps_predictions or store.root is None:
        stream = watch(sanitised(iter(predictor), left_out))
        scene = build_scene_graph(num_images, stream, predictor.grid, config, pairs)
    else:
        checkpoint = _Checkpoint(predictor, pairs, config, store, left_out)
        builder = SceneGraphBuilder(num_images, predictor.grid, config, pairs, checkpoint.stored_sums)
        for _ in watch(checkpoint.run(builder)):
            pass
        scene = builder.finish()
    if left_out.pairs:
        progress.warn(str(left_out))
    return replace(scene, left_out=left_out)


class _Checkpoint:
    def __init__(
        self, predictor: PairPredictor, pairs: PairList, config: GraphConfig, store: Store, left_out: LeftOut
    ) -> None:
        self.predictor, self.pairs, self.config, self.store = predictor, pairs, config, store.local
        self.left_out = left_out
        self._included = {image: self._num_stored(image) for image in np.unique(pairs.index).tolist()}
        """How many pairs the stored sums of every image contain."""

    def run(self, builder: SceneGraphBuilder) -> Iterator[PairPrediction]:
        """Bring every pair into the builder; yield what is known about it."""
        position = _positions(self.pairs.index)
        missing = [row for row in range(len(self.pairs)) if self._is_missing(row, position[row])]
        fresh = sanitised(self.predictor.predictions(missing), self.left_out)
        waiting = iter([*missing, -1])
        next_missing = next(waiting)
        for row in range(len(self.pairs)):
            if row == next_missing:
                prediction = next(fresh)
                self._take_in(builder, row, prediction, position[row])
                next_missing = next(waiting)
            else:
                prediction = self._restore(builder, row)
            builder.count_off(prediction)
            yield prediction

    def stored_sums(self, image: int) -> CanonicalAccumulator | None:
        """The sums an earlier run had of an image, if any.

        Raises StorageError if they were there when this run began and no longer are.
        """
        count = self._included.get(image, 0)
        if not count:
            return None
        arrays = self.store.load("graph-sums", self._sums_key(image, count))
        if arrays is None:
            raise StorageError(
                f"something else changes {self.store.root} while it is in use: "
                "leave it alone and run the same command again, it continues"
            )
        sums = empty_sums(self.predictor.grid, image, self.config)
        sums.restore(arrays)
        return sums

    def _take_in(
        self,
        builder: SceneGraphBuilder,
        row: int,
        prediction: PairPrediction,
        position: Int[np.ndarray, "2"],
    ) -> None:
        """A new prediction: keep it, and add it to those sums that do not contain it yet."""
        if not is_usable(prediction):
            self._keep(builder, row, prediction)
            return
        ends = zip((prediction.i, prediction.j), position.tolist(), strict=True)
        lacking = {image: place for image, place in ends if self._included[image] < place}
        builder.add_to_sums(prediction, lacking)
        self._keep(builder, row, prediction)
        for image, place in lacking.items():
            self.store.save("graph-sums", self._sums_key(image, place), builder.sums_of(image).to_arrays())
            if self._included[image]:
                self.store.remove("graph-sums", self._sums_key(image, self._included[image]))
            self._included[image] = place

    def _keep(self, builder: SceneGraphBuilder, row: int, prediction: PairPrediction) -> None:
        """Store a pair, and give the builder what it needs of it besides the sums."""
        if not is_usable(prediction):
            builder.add_without_depth(prediction)
            self.store.save("graph-pairs-unusable", self._pair_key(row), _to_arrays(prediction, []))
            return
        prediction = with_rotation(prediction)
        targets = builder.targets(prediction)
        builder.add_condensed(prediction, targets)
        self.store.save("graph-pairs", self._pair_key(row), _to_arrays(prediction, targets))

    def _restore(self, builder: SceneGraphBuilder, row: int) -> PairPrediction:
        key = self._pair_key(row)
        arrays = self.store.load("graph-pairs", key)
        if arrays is not None:
            prediction, targets = _from_arrays(arrays)
            builder.add_condensed(prediction, targets)
            return prediction
        arrays = self.store.load("graph-pairs-unusable", key)
        if arrays is not None:
            prediction = _from_arrays(arrays)[0]
            builder.add_without_depth(prediction)
            return prediction
        # the entry was damaged; the sums contain the pair
        prediction = next(sanitised(self.predictor.predictions([row]), self.left_out))
        self._keep(builder, row, prediction)
        return prediction

    def _is_missing(self, row: int, position: Int[np.ndarray, "2"]) -> bool:
        key = self._pair_key(row)
        if self.store.has("graph-pairs-unusable", key):
            return False
        ends = zip(self.pairs.index[row].tolist(), position.tolist(), strict=True)
        return not self.store.has("graph-pairs", key) or any(self._included[image] < place for image, place in ends)

    def _num_stored(self, image: int) -> int:
        """How many pairs the fullest undamaged sums of an image contain."""
        degree = int((self.pairs.index == image).sum())
        keys = ((n, self._sums_key(image, n)) for n in range(degree, 0, -1))
        stored = (
            n for n, key in keys if self.store.has("graph-sums", key) and self.store.load("graph-sums", key) is not None
        )
        return next(stored, 0)

    def _pair_key(self, row: int) -> str:
        return digest("graph pair", self.predictor.digest, self.config, row)

    def _sums_key(self, image: int, num_included: int) -> str:
        return digest("graph sums", self.predictor.digest, self.config, image, num_included)


def _positions(pairs: Int[np.ndarray, "pair 2"]) -> Int[np.ndarray, "pair 2"]:
    """For both ends of every pair: the number of the pair among those of that image, from 1."""
    flat = pairs.ravel()
    order = np.argsort(flat, kind="stable")
    ranked = flat[order]
    place = np.empty(len(flat), np.int64)
    place[order] = np.arange(len(flat)) - np.searchsorted(ranked, ranked) + 1
    return place.reshape(-1, 2)


def _to_arrays(prediction: PairPrediction, targets: list[FallbackTargets]) -> dict[str, np.ndarray]:
    arrays = {
        "pair": np.array([prediction.i, prediction.j]),
        "status": np.array([list(PairStatus).index(prediction.status)]),
        "num_targets": np.array([len(targets)]),
    }
    for name, matches in (("matches", prediction.matches), ("keypoints", prediction.keypoint_matches)):
        if matches is not None:
            known = {f.name: getattr(matches, f.name) for f in fields(Matches)}
            arrays |= {f"{name}.{key}": _halved(values) for key, values in known.items() if values is not None}
    if prediction.j_from_i is not None:
        arrays["j_from_i"] = prediction.j_from_i
    for k, target in enumerate(targets):
        arrays |= {f"target{k}.{name}": getattr(target, name) for name in ("anchor", "xyz", "confidence")}
        arrays[f"target{k}.ends"] = np.array([target.image[:1], target.frame[:1]])  # the same in every row
    return arrays


def _halved(values: np.ndarray) -> np.ndarray:
    """In single precision where that loses nothing, as with matches at pixel centres."""
    if values.dtype == bool:
        return values
    single = values.astype(np.float32)
    return single if np.array_equal(single, values) else values


def _from_arrays(arrays: dict[str, np.ndarray]) -> tuple[PairPrediction, list[FallbackTargets]]:
    def matches(name: str) -> Matches | None:
        if f"{name}.confidence" not in arrays:
            return None
        xy_i, xy_j = (arrays[f"{name}.{end}"].astype(np.float64) for end in ("xy_i", "xy_j"))
        return Matches(
            xy_i=xy_i, xy_j=xy_j, confidence=arrays[f"{name}.confidence"], is_coarse=arrays.get(f"{name}.is_coarse")
        )

    prediction = PairPrediction(
        i=int(arrays["pair"][0]),
        j=int(arrays["pair"][1]),
        status=list(PairStatus)[int(arrays["status"][0])],
        matches=matches("matches") or Matches.empty(),
        keypoint_matches=matches("keypoints"),
        frame_i=None,
        frame_j=None,
        j_from_i=arrays.get("j_from_i"),
    )
    targets = [_target(arrays, f"target{k}") for k in range(int(arrays["num_targets"][0]))]
    return prediction, targets


def _target(arrays: dict[str, np.ndarray], name: str) -> FallbackTargets:
    anchor = arrays[f"{name}.anchor"]
    image, frame = (np.resize(end, len(anchor)).astype(np.int32) for end in arrays[f"{name}.ends"])
    return FallbackTargets(
        image=image, frame=frame, anchor=anchor, xyz=arrays[f"{name}.xyz"], confidence=arrays[f"{name}.confidence"]
    )
