"""What a front end is: it looks at photographs and predicts pair by pair (docs/method.md, Predictions of a pair).

A front end works in two steps. `open` does what concerns the whole set once (features, intrinsics, the relative
scale of the pairs) and returns a `PairPredictor`; iterating over it yields one `PairPrediction` per pair, in the order
of the pair list, so that a caller may stream them and keep none.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from anchorsfm.frontend.run_settings import RunSettings
from anchorsfm.io.store import Store
from anchorsfm.io.weights.licence import LicenceRecord
from anchorsfm.scene.images import ImageGrid, ImageSet
from anchorsfm.scene.pairs import PairList, PairPrediction
from anchorsfm.scene.progress import Progress


@runtime_checkable
class PairPredictor(Protocol):
    """The set-wide work is done; predictions are made, or read from the cache, as they are asked for."""

    grid: ImageGrid
    """The grid the predictions live on."""
    detects_keypoints: bool
    """True: matches for tracks are `keypoint_matches`, which every matched pair has: verified, and the same physical
    point has the same coordinates in all pairs. False: no prediction has them; matches on the grid are made into
    keypoints."""
    keeps_predictions: bool
    """True: a prediction that was made once is read from the cache. False: predictions are too large to keep, and the
    scene graph keeps its running sums instead, so that a run that was stopped need not ask for them again."""

    @property
    def digest(self) -> str:
        """Identifies everything the predictions depend on: later stages are cached under it."""
        ...

    @property
    def focal_px(self) -> Float[np.ndarray, "image"] | None:
        """Focal lengths in original pixels. None: they follow from the predicted pointmaps, one by one."""
        ...

    @property
    def licence(self) -> LicenceRecord | None:
        """The terms of trained weights, if the predictions are made with any."""
        ...

    def __iter__(self) -> Iterator[PairPrediction]: ...

    def __len__(self) -> int: ...

    def predictions(self, rows: Sequence[int]) -> Iterator[PairPrediction]:
        """Predictions of some rows of the pair list, ascending. Each has the same bits as in a pass over all pairs."""
        ...


@runtime_checkable
class DepthOfSome(Protocol):
    """A predictor that gives depth to some pairs only; the others take next to no time."""

    num_with_depth: int
    """Pairs."""


@runtime_checkable
class Frontend(Protocol):
    """Implemented by a frozen config dataclass."""

    def open(self, images: ImageSet, pairs: PairList, store: Store, progress: Progress) -> PairPredictor: ...


@runtime_checkable
class RunFrontend(Frontend, Protocol):
    """A front end that `reconstruct` offers: see `anchorsfm.frontend.FRONTENDS`."""

    def for_run(self, run: RunSettings) -> "RunFrontend":
        """The front end with what the run decides."""
        ...
