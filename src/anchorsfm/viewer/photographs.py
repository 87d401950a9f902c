"""Photographs of a model, read when they are looked at."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from anchorsfm.io.images import load_image_set
from anchorsfm.io.names import require_inside
from anchorsfm.io.pictures import load_rgb, working_size_wh
from anchorsfm.io.recent import Recent
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.reconstruction import Camera

_SAME_SHAPE = 0.02
"""Relative difference of width by height up to which a smaller copy of a photograph stands for it."""
_KEPT = 8


@dataclass(frozen=True, kw_only=True)
class Photograph:
    """Pixels of a photograph, smaller than the original as a rule."""

    rgb: UInt8[np.ndarray, "h w 3"]
    scale: Float[np.ndarray, "2"]
    """xy in these pixels = scale * xy in the model's pixels."""


class Photographs:
    """Reads photographs below a folder; the last few are kept. May be used from several threads."""

    def __init__(self, root: Path | None) -> None:
        self.root = root
        self._recent: Recent[tuple[str, int], Photograph] = Recent(_KEPT)

    def load(self, name: str, camera: Camera, max_side: int) -> Photograph:
        """The photograph `name` with its longer side at most `max_side`.

        Raises InputError if there is none, it cannot be read, or it has another shape than the camera.
        """
        if self.root is None:
            raise InputError("where the photographs lie is not known: start with --images FOLDER to see them")
        require_inside([name], self.root)
        path = self.root / name
        return self._recent.get((name, max_side), lambda: _read(path, camera, max_side))


def _read(path: Path, camera: Camera, max_side: int) -> Photograph:
    images = load_image_set([path])
    width, height = (int(side) for side in images.size_wh[0])
    if abs(width * camera.height / (height * camera.width) - 1) > _SAME_SHAPE:
        raise InputError(
            f"{path} is {width}x{height}, but its camera in the model {camera.width}x{camera.height}: not shown"
        )
    target_wh = working_size_wh(images.size_wh[0], max_side)
    rgb = load_rgb(images, 0, target_wh)
    return Photograph(rgb=rgb, scale=target_wh / np.array([camera.width, camera.height]))
