"""Depth maps as the page shows them: pictures and figures, taken down one image at a time."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from anchorsfm.geometry.transforms import transform
from anchorsfm.io.files import read_regular
from anchorsfm.io.store import digest, write_atomic
from anchorsfm.report.figures import short
from anchorsfm.report.pictures import confidence_picture, depth_picture, picture_side
from anchorsfm.results.record import DepthFigures, DepthReport
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.reconstruction import Reconstruction

_MARGIN = 1.1
"""The colour scale reaches this much beyond the depths of the triangulated points."""


class DepthLog:
    """Collects small pictures of depth maps as they are made."""

    def __init__(self, num_images: int) -> None:
        """num_images: how many there will be at most; their size depends on it."""
        self._side = picture_side(2 * num_images)
        self._limits: list[tuple[float, float]] = []
        self._images: list[DepthReport] = []
        self._pictures: dict[str, bytes] = {}

    def begin_model(self, model: Reconstruction) -> None:
        """Images added from now on belong to the next model."""
        self._limits.append(depth_limits(model))

    def add(self, image: int, depth: Float[np.ndarray, "h w"], confidence: Float[np.ndarray, "h w"]) -> None:
        """Take down a cleaned depth map: depth in world units, and the number of agreeing views, 0 where unknown."""
        known = (confidence > 0) & np.isfinite(depth) & (depth > 0)
        values = depth[known]
        marks = [short(v) for v in np.percentile(values, [2, 50, 98])] if len(values) else [None] * 3
        self._images.append(
            DepthReport(
                image=image,
                model=len(self._limits) - 1,
                known=round(float(known.mean()), 4),
                near=marks[0],
                median=marks[1],
                far=marks[2],
                median_confidence=short(np.median(confidence[known])) if len(values) else None,
            )
        )
        self._pictures[f"{image}-depth"] = depth_picture(depth, known, self._limits[-1], self._side)
        self._pictures[f"{image}-confidence"] = confidence_picture(confidence, self._side)

    def finish(self, path: Path) -> DepthFigures | None:
        """Figures of all images, whose pictures are now in a file; None, and no file, if there was none.

        Raises StorageError if the file cannot be written.
        """
        if not self._images:
            return None
        from safetensors.numpy import save

        write_atomic(path, save({name: np.frombuffer(content, np.uint8) for name, content in self._pictures.items()}))
        return DepthFigures(
            entry=_digest(self._pictures),
            limits=tuple(self._limits),
            images=tuple(self._images),
        )


def stored_pictures(path: Path, entry: str) -> dict[str, bytes]:
    """Pictures by `<image>-depth` and `<image>-confidence`, as `DepthLog.finish` has written them.

    Raises InputError if they are missing, damaged, or not those of `entry`.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        pictures = {name: content.tobytes() for name, content in load(read_regular(path)).items()}
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} with the pictures of the depth maps is {_state(error)}") from error
    if _digest(pictures) != entry:
        raise InputError(f"{path} has the depth maps of another run")
    return pictures


def _state(error: Exception) -> str:
    return "missing" if isinstance(error, FileNotFoundError) else "damaged"


def _digest(pictures: Mapping[str, bytes]) -> str:
    return digest("depth-pictures", {name: content.hex() for name, content in pictures.items()})


def depth_limits(model: Reconstruction) -> tuple[float, float]:
    """Ends of the colour scale of a model: the 2nd and 98th percentile of the depths of its points, and a margin."""
    depths = [
        transform(pose, model.points[model.tracks.obs_point[model.tracks.obs_image == image]])[:, 2]
        for image, pose in zip(model.image_index, model.cam_from_world, strict=True)
    ]
    ahead = np.concatenate([d[d > 0] for d in depths] or [np.zeros(0)])
    if not len(ahead):
        return 1.0, 10.0
    near, far = np.percentile(ahead, [2, 98])
    return short(near / _MARGIN), short(far * _MARGIN)
