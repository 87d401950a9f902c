"""Predictions made ahead by workers elsewhere: images are encoded, then groups of pairs are predicted, into the store.

Predictions are large, so groups wait in the store only until the run has taken them in, and only some are made at a
time. Every worker holds the network once, for as long as it lives.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from anchorsfm.io.store import Store
from anchorsfm.scene.pairs import Matches, PairPrediction, PairStatus, Pointmaps

if TYPE_CHECKING:
    from anchorsfm.frontend.mast3r.predictor import Mast3rPredictor

KIND = "mast3r-pairs"
PAIRS_AHEAD = 256
"""That wait in the store: 12.6 MB each at 512x384."""
_MAPS = ("own", "own_confidence", "other", "other_confidence")


@dataclass(frozen=True, kw_only=True)
class EncodeImages:
    """Makes the tokens of images."""

    predictor: "Mast3rPredictor"

    @property
    def store(self) -> Store:
        return self.predictor.store

    def __call__(self, part: list[int]) -> None:
        """Raises InputError if an image cannot be read."""
        for image in part:
            self.predictor.tokens.save(image)


@dataclass(frozen=True, kw_only=True)
class PredictGroups:
    """Makes the predictions of groups of pairs."""

    predictor: "Mast3rPredictor"

    @property
    def store(self) -> Store:
        return self.predictor.store

    def __call__(self, part: list[tuple[int, ...]]) -> None:
        """Raises InputError if there is too little memory."""
        for group in part:
            found = self.predictor.predict_group(group, group)
            self.store.save(KIND, self.predictor.group_key(group), encode([found[row] for row in group]))


def encode(predictions: Sequence[PairPrediction]) -> dict[str, np.ndarray]:
    """The arrays of some predictions."""
    arrays = {"pair": np.array([(one.i, one.j) for one in predictions], np.int64)}
    for k, one in enumerate(predictions):
        arrays[f"{k}.status"] = np.array([list(PairStatus).index(one.status)])
        arrays |= {f"{k}.{name}": getattr(one.matches, name) for name in ("xy_i", "xy_j", "confidence")}
        for end, frame in (("i", one.frame_i), ("j", one.frame_j)):
            if frame is not None:
                arrays |= {f"{k}.{end}.{name}": getattr(frame, name) for name in _MAPS}
    return arrays


def decode(arrays: Mapping[str, np.ndarray]) -> list[PairPrediction]:
    """What `encode` was given."""

    def frame(k: int, end: str) -> Pointmaps | None:
        if f"{k}.{end}.own" not in arrays:
            return None
        return Pointmaps(**{name: arrays[f"{k}.{end}.{name}"] for name in _MAPS})

    return [
        PairPrediction(
            i=i,
            j=j,
            status=list(PairStatus)[int(arrays[f"{k}.status"][0])],
            matches=Matches(**{name: arrays[f"{k}.{name}"] for name in ("xy_i", "xy_j", "confidence")}),
            keypoint_matches=None,
            frame_i=frame(k, "i"),
            frame_j=frame(k, "j"),
        )
        for k, (i, j) in enumerate(arrays["pair"].tolist())
    ]
