"""Predictions as they pass: what the progress counts."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from anchorsfm.io.store import Store
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.predictions import consume
from anchorsfm.scene.pairs import PairList
from anchorsfm.scene.progress import SILENT, Progress
from anchorsfm.synthetic.oracle import SyntheticFrontend, image_set
from anchorsfm.synthetic.scenes import SceneConfig, make_scene

PAIRS = PairList(index=np.array([(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)]))


class Counting(Progress):
    """Totals and finished steps of stages by name."""

    def __init__(self) -> None:
        self.stages: dict[str, list[int | None]] = {}

    @contextmanager
    def stage(self, description: str, total: int | None = None) -> Iterator:
        counts = self.stages.setdefault(description, [total, 0])

        def advance(steps: int) -> None:
            counts[1] += steps

        yield advance


class WithLittleDepth:
    """Passes on predictions, two of them without depth."""

    num_with_depth = 3

    def __init__(self, inner) -> None:
        self.inner = inner

    def __getattr__(self, name: str):
        return getattr(self.inner, name)

    def __len__(self) -> int:
        return len(self.inner)

    def __iter__(self):
        return self.predictions(range(len(self)))

    def predictions(self, rows):
        for row, prediction in zip(rows, self.inner.predictions(rows), strict=True):
            yield replace(prediction, frame_i=None, frame_j=None) if row in (3, 4) else prediction


@pytest.mark.parametrize(("little", "mapper", "expected"), [
    (True, "align", {"dense depth of pairs": [3, 3]}),
    (False, "align", {"dense depth of pairs": [5, 5]}),
    (True, "tracks", {"pairs": [5, 5]}),
])  # fmt: skip
def test_pairs_with_depth_count_where_only_some_have_any(little: bool, mapper: str, expected: dict):
    scene = make_scene(SceneConfig(num_images=4, size_wh=(320, 240)))
    images = image_set(scene)
    predictor = SyntheticFrontend(scene=scene, grid_long_side=64).open(images, PAIRS, Store(None), SILENT)
    progress = Counting()
    config = PipelineConfig(mapper=mapper, dense=mapper == "align")
    consume(WithLittleDepth(predictor) if little else predictor, PAIRS, images, config, Store(None), progress)
    assert {name: counts for name, counts in progress.stages.items() if "pairs" in name} == expected
