"""Distances between points of a model that are clicked: which points, how far apart, how exactly, and how to scale."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from anchorsfm.results.model import StoredModel
from anchorsfm.scene.printable import printable
from anchorsfm.tracks.measure import distance_between, observation_deviation_px
from anchorsfm.viewer.colours import format_number
from anchorsfm.viewer.frame import ShownFrame

_EXACT_CAMERAS = "The cameras are taken as exact: what errors they have together is not known."
_NEAR_DEG = 1.0
"""Widest angle between a click's ray and a point that it means."""
_SAME_PLACE = 0.15
"""Points near the ray count as one surface if they are at most this share further away than the nearest of them."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Two points of a model and what lies between them."""

    length: float
    deviation: float
    """Standard deviation; infinite where it is unknown."""
    counts_cameras: bool
    """Whether errors of the cameras are part of it."""
    unit: str
    command: str = ""
    """That sets the scale of the model by this distance, with METRES to be filled in; empty where none would."""

    def markdown(self, *, with_command: bool = True) -> str:
        """For the panel; with the command that sets the scale, or without."""
        sigma = f" ± {format_number(self.deviation)}" if np.isfinite(self.deviation) else ""
        text = f"**{format_number(self.length)}{sigma} {self.unit}**"
        if sigma and not self.counts_cameras:
            text += f"\n\n{_EXACT_CAMERAS}"
        return f"{text}\n\nTo set the scale by it:\n\n`{self.command}`" if self.command and with_command else text


def clicked_point(
    viewed: StoredModel, frame: ShownFrame, origin: Float[np.ndarray, "3"], direction: Float[np.ndarray, "3"]
) -> int | None:
    """The point of a model that a ray through the scene means, in the frame that is shown; None if none is near it.

    Of those near the ray it is the one closest to it on the foremost surface.
    """
    away = frame.points(viewed.model.points) - origin
    length = np.linalg.norm(away, axis=1)
    along = away @ (direction / max(float(np.linalg.norm(direction)), 1e-300))
    with np.errstate(invalid="ignore", divide="ignore"):
        off = np.arccos(np.clip(along / length, -1, 1))
    near = np.flatnonzero(np.isfinite(off) & (off < np.radians(_NEAR_DEG)) & (along > 0))
    if not len(near):
        return None
    front = near[along[near] <= along[near].min() * (1 + _SAME_PLACE)]
    return int(front[off[front].argmin()])


def measure(viewed: StoredModel, first: int, second: int) -> Measured:
    """The distance of two points of a model in its unit."""
    found = distance_between(viewed.model, first, second, observation_deviation_px(viewed.model), viewed.errors)
    return Measured(
        length=found.length,
        deviation=found.deviation,
        counts_cameras=found.counts_cameras,
        unit="m" if viewed.is_metric else "units of the model",
        command=_command(viewed, first, second) if found.length > 0 else "",
    )


def marks(viewed: StoredModel, first: int, second: int) -> tuple[str, ...]:
    """Two points of a model as the words of a measured distance: IMAGE_A x,y IMAGE_B x,y."""
    return (*_mark(viewed, first), *_mark(viewed, second))


def _command(viewed: StoredModel, first: int, second: int) -> str:
    """The `anchorsfm transform` that makes the distance a given one; only of models that are results of a run."""
    if viewed.run is None or not viewed.is_result:
        return ""
    words = " ".join(map(quoted, marks(viewed, first, second)))
    number = f" --model {viewed.recorded_number}" if viewed.recorded_number else ""
    return f"anchorsfm transform {quoted(str(viewed.run.root))}{number} --distance {words} METRES"


def _mark(viewed: StoredModel, point: int) -> tuple[str, str]:
    """A photograph and the pixel where a point projects to, whose depth is that of the nearest observation there.

    The observation is taken at whose place that depth is the point's own, or nearest to it; of several the one that
    agrees best.
    """
    tracks = viewed.model.tracks
    rows = range(*np.searchsorted(tracks.obs_point, [point, point + 1]).tolist())
    best = min(
        rows, key=lambda row: (_off_depth(viewed, row), float(np.nan_to_num(viewed.residual_px[row], nan=np.inf)))
    )
    view = int(tracks.obs_image[best])
    camera = viewed.model.cameras[int(viewed.model.camera_index[view])]
    x, y = np.clip(_projection(viewed, best), 0, (camera.width, camera.height)).tolist()
    return viewed.names[view], f"{x:.2f},{y:.2f}"


def _off_depth(viewed: StoredModel, row: int) -> float:
    """How far the depth of the observation that is nearest to where the point of one projects to is from its own."""
    tracks = viewed.model.tracks
    view = int(tracks.obs_image[row])
    there = viewed.observations(view)
    nearest = there[np.linalg.norm(tracks.obs_xy[there] - _projection(viewed, row), axis=1).argmin()]
    points = viewed.model.points[tracks.obs_point[[row, nearest]]]
    return float(abs((points[1] - points[0]) @ viewed.model.cam_from_world[view, 2, :3]))


def _projection(viewed: StoredModel, row: int) -> Float[np.ndarray, "2"]:
    """Where the point of an observation projects to; the observation itself if it does not."""
    xy = viewed.model.tracks.obs_xy[row]
    shift = viewed.residual[row]
    return np.asarray(xy + np.where(np.isfinite(shift).all(), shift, 0.0))


def quoted(word: str) -> str:
    """A word of a command, as it can be shown between backticks."""
    import shlex

    return shlex.quote(printable(word).replace("`", "'"))
