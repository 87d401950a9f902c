"""How much of a photograph is looked at before it is placed."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from test_candidates import SETTINGS, descriptors, features

from anchorsfm.features.base import Features
from anchorsfm.features.methods import make_detector
from anchorsfm.io.weights.licence import LicenceRecord
from anchorsfm.localisation.candidates import PointFinder
from anchorsfm.localisation.index import ModelIndex
from anchorsfm.localisation.looks import PhotographReader
from anchorsfm.scene.images import ImageSet

IMAGES = ImageSet(
    root=Path("photos"),
    names=("a.jpg",),
    size_wh=np.array([[1000, 750]]),
    camera_index=np.zeros(1, np.int64),
    focal_prior_px=np.full(1, np.nan),
    digests=("a",),
)


@dataclass
class CountingDetector:
    """Finds what it is told to."""

    found: Features
    digest: str
    calls: int = 0
    is_concurrent: bool = True
    licence: LicenceRecord | None = None

    def detect(self, images: ImageSet, image: int) -> Features:
        self.calls += 1
        return self.found


@pytest.fixture
def shown() -> np.ndarray:
    return descriptors(np.random.default_rng(0), 400)


def reader_of(shown: np.ndarray, num_clear: int) -> PhotographReader:
    """Of a photograph that shows all points of two images, of which some have contrast."""
    count = len(shown)
    index = ModelIndex(
        settings=SETTINGS,
        num_points=count,
        descriptor=np.tile(shown, (2, 1)),
        point=np.tile(np.arange(count, dtype=np.int32), 2),
        start=np.arange(3) * count,
    )
    return PhotographReader(
        images=IMAGES,
        finder=PointFinder(index=index, max_candidates=20),
        every=CountingDetector(features(shown), "every"),
        clear=CountingDetector(features(shown[:num_clear]), "clear"),
    )


def test_faint_keypoints_are_not_looked_for_before_they_are_needed(shown: np.ndarray) -> None:
    reader = reader_of(shown, 350)
    first = reader.first(0, 300)
    assert reader.clear.calls == reader.every.calls == 0
    assert [len(found.point) for found in first] == [350] and (reader.clear.calls, reader.every.calls) == (1, 0)
    assert len(reader.all(0).point) == 400 and (reader.clear.calls, reader.every.calls) == (1, 1)


def test_too_few_clear_points_are_no_use(shown: np.ndarray) -> None:
    assert not list(reader_of(shown, 200).first(0, 300))


@pytest.mark.parametrize("contrast", [0.005, 0.03])
def test_all_keypoints_are_those_of_the_model_and_clear_ones_never_more(contrast: float) -> None:
    index = ModelIndex(
        settings=replace(SETTINGS, contrast_threshold=contrast),
        num_points=0,
        descriptor=np.zeros((0, 128), np.uint8),
        point=np.zeros(0, np.int32),
        start=np.zeros(1, np.int64),
    )
    reader = PhotographReader.of(IMAGES, index, max_candidates=20)
    assert reader.every.digest == make_detector(index.settings.features).digest
    assert (reader.clear.digest == reader.every.digest) == (contrast == 0.03)
