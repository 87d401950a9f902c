"""The photographs that a run begins with, without the rest of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from anchorsfm import pipeline
from anchorsfm.run.config import PipelineConfig
from anchorsfm.scene.images import ImageSet


class Stopped(Exception):
    """A run has got as far as it should."""


class Stopping:
    """A front end that keeps the photographs it is given, and ends the run."""

    def __init__(self) -> None:
        self.images: ImageSet | None = None

    def open(self, images: ImageSet, *_others: object) -> Iterator[None]:
        self.images = images
        raise Stopped


def images_of_run(source: Path | list[Path], output: Path, config: PipelineConfig) -> ImageSet:
    """Those that a front end gets; the run ends there."""
    frontend = Stopping()
    with pytest.raises(Stopped):
        pipeline.reconstruct(source, output, config, frontend=frontend)
    assert frontend.images is not None
    return frontend.images
