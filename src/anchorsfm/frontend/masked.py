"""Predictions of pairs without what masks hide: nothing is known of masked pixels, and no match lies in one."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from anchorsfm.frontend.base import DepthOfSome, PairPredictor
from anchorsfm.io.recent import Recent
from anchorsfm.io.store import digest
from anchorsfm.io.weights.licence import LicenceRecord
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.masks import uses
from anchorsfm.scene.pairs import Matches, PairPrediction, PairStatus, Pointmaps

_KEPT = 64
"""Masks that stay in memory unpacked."""


def masked(predictor: PairPredictor, images: ImageSet) -> PairPredictor:
    """A predictor that knows nothing of masked pixels; the same one where nothing is masked."""
    return predictor if images.masks is None else MaskedPredictor(predictor, images)


class MaskedPredictor:
    """Takes what masks hide out of the predictions of another predictor."""

    def __init__(self, inner: PairPredictor, images: ImageSet) -> None:
        self._inner, self._images = inner, images
        self.grid = inner.grid
        self.digest = digest("masked", inner.digest, images.contents)
        self.detects_keypoints = inner.detects_keypoints
        self.keeps_predictions = inner.keeps_predictions
        if isinstance(inner, DepthOfSome):
            self.num_with_depth = inner.num_with_depth
        self._on_grid: Recent[int, Bool[np.ndarray, "h w"] | None] = Recent(_KEPT)
        self._pixels: Recent[int, Bool[np.ndarray, "h w"] | None] = Recent(_KEPT)

    @property
    def focal_px(self) -> Float[np.ndarray, "image"] | None:
        return self._inner.focal_px

    @property
    def licence(self) -> LicenceRecord | None:
        return self._inner.licence

    def __len__(self) -> int:
        return len(self._inner)

    def __iter__(self) -> Iterator[PairPrediction]:
        return (self._without(prediction) for prediction in self._inner)

    def predictions(self, rows: Sequence[int]) -> Iterator[PairPrediction]:
        return (self._without(prediction) for prediction in self._inner.predictions(rows))

    def _without(self, prediction: PairPrediction) -> PairPrediction:
        i, j = prediction.i, prediction.j
        if self._mask(i) is None and self._mask(j) is None:
            return prediction
        keypoints = prediction.keypoint_matches
        kept = replace(
            prediction,
            matches=self._matches(prediction.matches, i, j, on_grid=True),
            keypoint_matches=None if keypoints is None else self._matches(keypoints, i, j, on_grid=False),
            frame_i=None if prediction.frame_i is None else self._pointmaps(prediction.frame_i, i, j),
            frame_j=None if prediction.frame_j is None else self._pointmaps(prediction.frame_j, j, i),
        )
        left = len(kept.matches) + (0 if kept.keypoint_matches is None else len(kept.keypoint_matches))
        if left or prediction.status is not PairStatus.OK:
            return kept
        return replace(kept, status=PairStatus.UNMATCHED, frame_i=None, frame_j=None)

    def _matches(self, matches: Matches, i: int, j: int, *, on_grid: bool) -> Matches:
        keep = self._uses(i, matches.xy_i, on_grid=on_grid) & self._uses(j, matches.xy_j, on_grid=on_grid)
        if keep.all():
            return matches
        return Matches(
            xy_i=matches.xy_i[keep],
            xy_j=matches.xy_j[keep],
            confidence=matches.confidence[keep],
            is_coarse=None if matches.is_coarse is None else matches.is_coarse[keep],
        )

    def _pointmaps(self, maps: Pointmaps, own: int, other: int) -> Pointmaps:
        return replace(
            maps,
            own_confidence=self._confidence(maps.own_confidence, own),
            other_confidence=self._confidence(maps.other_confidence, other),
        )

    def _confidence(self, confidence: Float[np.ndarray, "h w"], image: int) -> Float[np.ndarray, "h w"]:
        """1, which says nothing, in masked pixels."""
        use = self._on_grid.get(image, lambda: self._grid_mask(image))
        return confidence if use is None else np.where(use, confidence, confidence.dtype.type(1))

    def _uses(self, image: int, xy: Float[np.ndarray, "point 2"], *, on_grid: bool) -> Bool[np.ndarray, "point"]:
        pixels = self._mask(image)
        if pixels is None:
            return np.ones(len(xy), bool)
        at = self.grid.to_image(image, xy) if on_grid else xy
        return uses(pixels, at, self._images.size_wh[image])

    def _mask(self, image: int) -> Bool[np.ndarray, "h w"] | None:
        return self._pixels.get(image, lambda: self._images.mask_pixels(image))

    def _grid_mask(self, image: int) -> Bool[np.ndarray, "h w"] | None:
        if self._mask(image) is None:
            return None
        width, height = self.grid.size_wh[image].tolist()
        x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        return self._uses(image, np.stack([x.ravel(), y.ravel()], axis=1), on_grid=True).reshape(height, width)
