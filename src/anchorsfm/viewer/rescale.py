"""The scale of a model that is looked at, set by a distance that was clicked: as `anchorsfm transform` would."""

from dataclasses import dataclass

import numpy as np

from anchorsfm.io.owned import OwnedFolder, is_ours
from anchorsfm.results.model import StoredModel, read_stored_model
from anchorsfm.results.run import StoredRun
from anchorsfm.scene.errors import AnchorSfMError, InputError
from anchorsfm.scene.progress import Progress
from anchorsfm.transform.config import TransformConfig
from anchorsfm.transform.find import find
from anchorsfm.transform.run import transform
from anchorsfm.viewer.measure import marks, measure

_SAME = 0.02
"""How far a length may be off the one in the model on disk: marks are places on a ray, not the points themselves."""


@dataclass(frozen=True, kw_only=True)
class Rescaled:
    """A model after its scale was set."""

    viewed: StoredModel
    """Read anew."""
    said: tuple[str, ...]
    """What there was to say, a line each."""


def can_be_rescaled(viewed: StoredModel) -> bool:
    """Whether a model is a result in an output folder of ours that can be written."""
    if viewed.run is None or not viewed.is_result or not viewed.run.has_report or not is_ours(viewed.run.root):
        return False
    if viewed.folder.resolve() != viewed.run.layout.model(viewed.recorded_number).resolve():
        return False
    try:
        OwnedFolder(viewed.run.root, is_output=False).require_writable()
    except AnchorSfMError:
        return False
    return True


def set_scale(viewed: StoredModel, first: int, second: int, metres: float) -> Rescaled:
    """Bring the output folder of a model to the scale in which two of its points are so far apart.

    Everything in the folder follows, is published whole or not at all, and is recorded in transform.json.

    Raises:
        InputError: the points are one place, the folder cannot be changed, or its model is no longer the one that is
            looked at.
        StorageError: something in the folder was changed since the run wrote it, or cannot be written.
    """
    if not (np.isfinite(metres) and metres > 0):
        raise InputError("give the distance in metres first")
    if viewed.run is None or not can_be_rescaled(viewed):
        raise InputError(f"{viewed.folder} is not in an output folder that can be changed")
    on_disk = _read_again(viewed)
    if not _are_same(on_disk, viewed):
        raise InputError(
            f"the model in {viewed.folder} is another one than when the viewer has read it: start the viewer again"
        )
    length = measure(viewed, first, second).length
    config = TransformConfig(model=viewed.recorded_number, distance=(*marks(viewed, first, second), f"{metres:.12g}"))
    factor = find(on_disk, config).similarity.scale
    if not abs(factor * length / metres - 1) < _SAME:
        raise InputError("these points are too close to each other: choose points that are farther apart")
    said = _Said()
    done = transform(viewed.run.root, config, said)
    return Rescaled(viewed=_read_again(viewed), said=(*said.lines, *done.notes))


def _are_same(on_disk: StoredModel, viewed: StoredModel) -> bool:
    """Whether points and cameras are still those that are drawn, in the same order and frame: of another model the
    points that were clicked are other ones, or lie elsewhere than where they are shown."""
    here, there = on_disk.model, viewed.model
    return (
        on_disk.view_names == viewed.view_names
        and np.array_equal(here.points, there.points)
        and np.array_equal(here.cam_from_world, there.cam_from_world)
    )


def _read_again(viewed: StoredModel) -> StoredModel:
    run = None if viewed.run is None else StoredRun(viewed.run.root)
    return read_stored_model(viewed.folder, number=viewed.number, run=run)


class _Said(Progress):
    """Keeps what there is to say."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, message: str) -> None:
        self.lines.append(message)

    def warn(self, message: str) -> None:
        self.lines.append(message)
