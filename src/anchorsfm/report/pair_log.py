"""What the front end found about every pair, noted while the predictions stream past."""

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Int

from anchorsfm.results.record import PairColumns
from anchorsfm.scene.pairs import PairPrediction, PairStatus


class PairLog:
    """What the front end found, counted per status and per image while the predictions stream past."""

    def __init__(self) -> None:
        self.status: Counter[str] = Counter()
        self._most_matches: Counter[int] = Counter()
        self._of_status: Counter[tuple[int, PairStatus]] = Counter()
        self._pairs: list[tuple[int, int, PairStatus, int]] = []
        self._num_confirmed = 0
        self._methods: list[tuple[str, ...]] = []

    def watch(self, predictions: Iterable[PairPrediction]) -> Iterator[PairPrediction]:
        """The same predictions, unchanged."""
        for prediction in predictions:
            self.status[prediction.status.value] += 1
            found = prediction.keypoint_matches if prediction.keypoint_matches is not None else prediction.matches
            self._pairs.append((prediction.i, prediction.j, prediction.status, len(found)))
            self._methods.append(prediction.methods)
            for image in (prediction.i, prediction.j):
                self._most_matches[image] = max(self._most_matches[image], len(found))
                self._of_status[image, prediction.status] += 1
            yield prediction

    def believe(self, confirmed: Int[np.ndarray, "confirmed 2"], rejected: Int[np.ndarray, "rejected 2"]) -> None:
        """What comparing all pairs that were seen came to."""
        self._num_confirmed = len(confirmed)
        contradicted = {(i, j) for i, j in rejected.tolist()}
        for row, (i, j, status, matches) in enumerate(self._pairs):
            if (i, j) in contradicted:
                self._pairs[row] = (i, j, PairStatus.CONTRADICTED, matches)
                self.status[status.value] -= 1
                self.status[PairStatus.CONTRADICTED.value] += 1
                for image in (i, j):
                    self._of_status[image, status] -= 1
                    self._of_status[image, PairStatus.CONTRADICTED] += 1

    def belief(self) -> dict[str, int]:
        """Number of pairs that match by what others say about them."""
        contradicted = self.status[PairStatus.CONTRADICTED.value]
        matched = sum(self.status.values()) - self.status[PairStatus.UNMATCHED.value]
        unconfirmed = matched - contradicted - self._num_confirmed
        return {"confirmed": self._num_confirmed, "unconfirmed": unconfirmed, "contradicted": contradicted}

    def columns(self) -> PairColumns:
        """All pairs, in their order."""
        statuses = list(PairStatus)
        methods = sorted(set(self._methods) - {()})
        return PairColumns(
            statuses=tuple(status.value for status in statuses),
            i=tuple(pair[0] for pair in self._pairs),
            j=tuple(pair[1] for pair in self._pairs),
            status=tuple(statuses.index(pair[2]) for pair in self._pairs),
            matches=tuple(pair[3] for pair in self._pairs),
            methods=tuple(" + ".join(names) for names in methods),
            method=tuple(methods.index(names) if names else -1 for names in self._methods) if methods else (),
        )

    def reason(self, image: int) -> str:
        """Why no usable pair reaches an image."""
        if self._of_status[image, PairStatus.PURE_ROTATION]:
            return "it matches other images, but only by a rotation of the camera: no depth"
        if self._of_status[image, PairStatus.CONTRADICTED]:
            return "it matches other images, but in ways that contradict each other or better confirmed pairs"
        most = self._most_matches[image]
        return f"no overlap found: at most {most} verified matches with any other image"

    def best_reason(self) -> str:
        """Why no pair at all is usable, from the image that came closest."""
        return self.reason(max(self._most_matches, key=lambda image: self._most_matches[image], default=0))
