"""What the front end found about every pair, noted while the predictions stream past."""

from collections import Counter
from collections.abc import Iterable, Iterator

from anchorsfm.results.record import PairColumns
from anchorsfm.scene.pairs import PairPrediction, PairStatus


class PairLog:
    """What the front end found, counted per status and per image while the predictions stream past."""

    def __init__(self) -> None:
        self.status: Counter[str] = Counter()
        self._most_matches: Counter[int] = Counter()
        self._rotations: Counter[int] = Counter()
        self._contradicted: Counter[int] = Counter()
        self._pairs: list[tuple[int, int, PairStatus, int]] = []

    def watch(self, predictions: Iterable[PairPrediction]) -> Iterator[PairPrediction]:
        """The same predictions, unchanged."""
        for prediction in predictions:
            self.status[prediction.status.value] += 1
            found = prediction.keypoint_matches if prediction.keypoint_matches is not None else prediction.matches
            self._pairs.append((prediction.i, prediction.j, prediction.status, len(found)))
            for image in (prediction.i, prediction.j):
                self._most_matches[image] = max(self._most_matches[image], len(found))
                self._rotations[image] += prediction.status == PairStatus.PURE_ROTATION
                self._contradicted[image] += prediction.status == PairStatus.CONTRADICTED
            yield prediction

    def columns(self) -> PairColumns:
        """All pairs, in their order."""
        statuses = list(PairStatus)
        return PairColumns(
            statuses=tuple(status.value for status in statuses),
            i=tuple(pair[0] for pair in self._pairs),
            j=tuple(pair[1] for pair in self._pairs),
            status=tuple(statuses.index(pair[2]) for pair in self._pairs),
            matches=tuple(pair[3] for pair in self._pairs),
        )

    def reason(self, image: int) -> str:
        """Why no usable pair reaches an image."""
        if self._rotations[image]:
            return "it matches other images, but only by a rotation of the camera: no depth"
        if self._contradicted[image]:
            return "it matches other images, but in ways that contradict each other or better confirmed pairs"
        most = self._most_matches[image]
        return f"no overlap found: at most {most} verified matches with any other image"

    def best_reason(self) -> str:
        """Why no pair at all is usable, from the image that came closest."""
        return self.reason(max(self._most_matches, key=lambda image: self._most_matches[image], default=0))
