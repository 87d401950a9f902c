"""Known quantities that go into the alignment, and its result."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, kw_only=True)
class KnownImage:
    """What the user knows about one image; None: nothing. Intrinsics and depths are in grid pixels and scene units."""

    cam_from_world: Float[np.ndarray, "3 4"] | None = None
    focal_px: float | None = None
    principal_point_px: Float[np.ndarray, "2"] | None = None
    anchor_depth: Float[np.ndarray, "block_row block_col"] | None = None
    freeze_pose: bool = False
    freeze_intrinsics: bool = False
    freeze_depth: bool = False


class SolverStatus(StrEnum):
    """Why a stage of the alignment ended."""

    CONVERGED = "converged"
    MAX_ITERATIONS = "iteration limit"
    STALLED = "no step lowers the cost"
    NON_FINITE = "non-finite loss: last finite state kept"
    SKIPPED = "not run"


@dataclass(frozen=True, kw_only=True)
class StageHistory:
    """One stage of the alignment. Losses are those of the state before each step."""

    loss: Float[np.ndarray, "iteration"]
    fallback_loss: Float[np.ndarray, "iteration"]
    total: Float[np.ndarray, "iteration"]
    """What is minimised, priors included."""
    status: SolverStatus
    method: str
    """How it was solved, in words."""


@dataclass(frozen=True, kw_only=True)
class AlignmentResult:
    """Poses, intrinsics and anchor depths of one connected component. All pixels are grid pixels."""

    image_index: Int[np.ndarray, "view"]
    """Index in the ImageSet of each aligned view."""
    cam_from_world: Float[np.ndarray, "view 3 4"]
    focal_px: Float[np.ndarray, "view"]
    base_focal_px: Float[np.ndarray, "view"]
    """Focal length that the relative depths of each view belong to: the known one, or that of the predicted points."""
    principal_point_px: Float[np.ndarray, "view 2"]
    anchor_start: Int[np.ndarray, "view_plus_1"]
    anchor_depth: Float[np.ndarray, "anchor"]
    """Depth of every anchor in scene units, concatenated over views as in `Anchors`."""
    points: Float[np.ndarray, "point 3"]
    """World points of the matched pixels, both ends of every used match."""
    point_view: Int[np.ndarray, "point"]
    """View each point was seen from, and the pixel it was seen at."""
    point_xy: Float[np.ndarray, "point 2"]
    point_confidence: Float[np.ndarray, "point"]
    coarse: StageHistory
    fine: StageHistory
    pose_known: Bool[np.ndarray, "view"]
    """Views whose pose was given and frozen."""
