"""What photographs show of a model's points: little effort first, more where it does not do."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from anchorsfm.features.base import Detector
from anchorsfm.features.methods import make_detector
from anchorsfm.localisation.candidates import PointFinder, PointMatches
from anchorsfm.localisation.index import ModelIndex
from anchorsfm.scene.images import ImageSet

_CLEAR_CONTRAST = 0.0125
"""Least contrast of the keypoints of the first look: fainter ones cost as much and match less often."""
_FEW = 6
"""Most images of the model that these are compared with."""


@dataclass(frozen=True, kw_only=True)
class PhotographReader:
    """Finds points of a model in photographs."""

    images: ImageSet
    finder: PointFinder
    every: Detector
    """Of all keypoints, as of the photographs of the model."""
    clear: Detector
    """Of those with more contrast."""

    @staticmethod
    def of(images: ImageSet, index: ModelIndex, *, max_candidates: int) -> "PhotographReader":
        settings = index.settings.features
        contrast = max(_CLEAR_CONTRAST, settings.contrast_threshold)
        return PhotographReader(
            images=images,
            finder=PointFinder(index=index, max_candidates=max_candidates),
            every=make_detector(settings),
            clear=make_detector(replace(settings, contrast_threshold=contrast)),
        )

    def looks(self, image: int, enough: int | None) -> Iterator[PointMatches]:
        """What a photograph shows, found with more effort each time; nothing is done before it is asked for.

        Args:
            image: of the photographs.
            enough: points that may do; None: only as many as there are.

        Raises InputError if the photograph cannot be read.
        """
        if enough is not None and self.clear.digest != self.every.digest:
            clear = self.clear.detect(self.images, image)
            yield from (found for found in self.finder.find(clear, enough, _FEW) if len(found.point) >= enough)
        yield from self.finder.find(self.every.detect(self.images, image), enough)
