"""What photographs show of a model's points: what is clear first, all where that leaves a doubt."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from anchorsfm.features.base import Detector
from anchorsfm.features.methods import make_detector
from anchorsfm.localisation.candidates import PointFinder, PointMatches
from anchorsfm.localisation.index import ModelIndex
from anchorsfm.scene.images import ImageSet

_CLEAR_CONTRAST = 0.0125
"""Least contrast of the keypoints of the first look: fainter ones cost as much and match less often."""


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

    def first(self, image: int, enough: int) -> Iterator[PointMatches]:
        """Points that a photograph shows clearly, by the few images that look most like it; what is not asked for is
        not done.

        Args:
            image: of the photographs.
            enough: points without which it is no use.

        Raises InputError if the photograph cannot be read.
        """
        yield from self.finder.first(self.clear.detect(self.images, image), enough)

    def all(self, image: int) -> PointMatches:
        """All points that a photograph shows. Raises InputError if it cannot be read."""
        return self.finder.all(self.every.detect(self.images, image))
