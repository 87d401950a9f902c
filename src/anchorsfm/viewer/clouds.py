"""Points to draw: filtered, thinned and coloured."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, UInt8

from anchorsfm.results.model import StoredModel
from anchorsfm.viewer.colours import Colouring, Legend, model_colours, scale_colours
from anchorsfm.viewer.frame import FAR_AWAY, SCENE_RADIUS, ShownFrame

PointColour = Literal["photographs", "reprojection error", "track length", "model"]
POINT_COLOURS: tuple[PointColour, ...] = get_args(PointColour)
CameraColour = Literal["plain", "points seen", "reprojection error", "position uncertainty", "model"]
CAMERA_COLOURS: tuple[CameraColour, ...] = get_args(CameraColour)
_CONFIDENCE = ("confidence", "quality")
"""What programs call a property of PLY vertices that says how certain they are."""
PLAIN_CAMERA = (70, 130, 220)
WEAK_CAMERA = (230, 60, 60)
"""Of plain cameras whose pose is weakly held."""


@dataclass(frozen=True, kw_only=True)
class PointFilter:
    """Which points are drawn."""

    min_track_length: int = 2
    max_error_px: float = np.inf
    min_confidence: float = 0.0
    """Of dense points that have a confidence."""
    max_points: int = 500_000
    """More are thinned to so many, the same ones each time."""


@dataclass(frozen=True, kw_only=True)
class DrawnPoints:
    """Points of a model in the frame that is shown."""

    xyz: Float[np.ndarray, "point 3"]
    rgb: UInt8[np.ndarray, "point 3"]
    legend: Legend | None
    total: int
    """Points there are before any filter."""


def sparse_cloud(viewed: StoredModel, frame: ShownFrame, colour: PointColour, keep: PointFilter) -> DrawnPoints:
    """The points of a model. The scale of the colours is that of all points, whatever is filtered out."""
    xyz = frame.points(viewed.model.points)
    error = np.nan_to_num(viewed.point_error_px, nan=np.inf)
    wanted = (viewed.track_length >= keep.min_track_length) & (error <= keep.max_error_px) & is_near(xyz)
    rows = thin(wanted, keep.max_points)
    coloured = _point_colours(viewed, colour)
    return DrawnPoints(xyz=xyz[rows], rgb=coloured.rgb[rows], legend=coloured.legend, total=len(xyz))


def _point_colours(viewed: StoredModel, colour: PointColour) -> Colouring:
    match colour:
        case "photographs":
            return Colouring(rgb=viewed.model.rgb)
        case "reprojection error":
            return scale_colours(viewed.point_error_px, "mean reprojection error of a point (px)")
        case "track length":
            return scale_colours(viewed.track_length.astype(float), "images that see a point", logarithmic=True)
        case "model":
            return Colouring(rgb=model_colours(np.full(len(viewed.model.points), viewed.number)))


def camera_colours(viewed: StoredModel, colour: CameraColour) -> Colouring:
    """Colours of the cameras of a model."""
    match colour:
        case "plain":
            weak = [name in viewed.precision and viewed.precision[name].weak for name in viewed.names]
            return Colouring(rgb=np.where(np.array(weak)[:, None], WEAK_CAMERA, PLAIN_CAMERA).astype(np.uint8))
        case "points seen":
            return scale_colours(viewed.points_seen.astype(float), "points that an image sees", logarithmic=True)
        case "reprojection error":
            return scale_colours(viewed.view_error_px, "mean reprojection error of an image (px)")
        case "position uncertainty":
            known = [viewed.precision[name].position_share if name in viewed.precision else None
                     for name in viewed.names]  # fmt: skip
            share = np.array([np.nan if value is None else 100 * value for value in known], float)
            return scale_colours(share, "position uncertainty (% of scene size)", logarithmic=True)
        case "model":
            return Colouring(rgb=model_colours(np.full(len(viewed.names), viewed.number)))


@dataclass(frozen=True, kw_only=True)
class DrawnCloud:
    """A dense cloud as read, thinned once, in the frame that is shown."""

    xyz: Float[np.ndarray, "point 3"]
    rgb: UInt8[np.ndarray, "point 3"]
    confidence: Float[np.ndarray, "point"] | None
    total: int
    """Points in the file."""

    def filtered(self, min_confidence: float) -> "DrawnCloud":
        """The points of at least this confidence."""
        if self.confidence is None:
            return self
        keep = self.confidence >= min_confidence
        return replace(self, xyz=self.xyz[keep], rgb=self.rgb[keep], confidence=self.confidence[keep])


def read_dense(viewed: StoredModel, frame: ShownFrame, max_points: int) -> DrawnCloud:
    """The dense cloud of a model, which must have one.

    Raises InputError if the file cannot be read.
    """
    stored = viewed.read_cloud()
    assert stored is not None
    xyz = frame.points(stored.xyz)
    rows = thin(is_near(xyz), max_points)
    rgb = stored.rgb if stored.rgb is not None else np.full((len(xyz), 3), 160, np.uint8)
    confidence = next((stored.others[name] for name in _CONFIDENCE if name in stored.others), None)
    return DrawnCloud(
        xyz=xyz[rows],
        rgb=rgb[rows],
        confidence=None if confidence is None else confidence[rows].astype(float),
        total=len(xyz),
    )


def thin(wanted: Bool[np.ndarray, "point"], max_points: int) -> np.ndarray:
    """Rows that are wanted, at most `max_points` of them, chosen at random but always the same."""
    rows = np.flatnonzero(wanted)
    if len(rows) <= max_points:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, max_points, replace=False))


def is_near(xyz: Float[np.ndarray, "point 3"]) -> Bool[np.ndarray, "point"]:
    """Points in the frame that is shown that are finite and not far away from everything."""
    return np.isfinite(xyz).all(axis=1) & (np.abs(xyz).max(axis=1, initial=0.0) < FAR_AWAY * SCENE_RADIUS)
