"""Models in the metric frame of the recorded positions of their photographs (docs/method.md, Recorded positions).

A model is first made without them. The positions agree with it if more than half of them do, and if they determine
rotation and scale (`placement`); a long model may have to be straightened first (`straightening`). Then it is adjusted
once more with them as priors.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from anchorsfm.geometry.similarity import Similarity
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.geometry.upright import is_upside_down, up_direction
from anchorsfm.mapping.placement import UPSIDE_DOWN, Placement, place
from anchorsfm.mapping.straightening import adjusted_with, largest_change, problem_of_parts, straightened
from anchorsfm.scene.edit import moved
from anchorsfm.scene.positions import GeoPositions
from anchorsfm.scene.progress import SILENT, Progress
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.adjust import AdjustResult, readjust
from anchorsfm.tracks.config import AdjustConfig
from anchorsfm.tracks.focal_prior import FocalPriors, JudgedModel, is_better_determined, settle_focal_lengths
from anchorsfm.tracks.uncertainty import estimate_uncertainty


@dataclass(frozen=True, kw_only=True)
class Georeferenced:
    """What recorded positions came to for one model."""

    mode: str
    """check, align or prior: what was done with them; control: the model is in their frame by other means."""
    residual_m: Float[np.ndarray, "view 3"]
    """Model minus record, to the east, to the north and upwards; NaN without a record."""
    agrees: Bool[np.ndarray, "view"]
    """Views whose records are no outliers."""
    sigma_m: Float[np.ndarray, "view 3"]
    """Standard deviations of the records."""
    enu_from_model: Similarity | None = None
    """The way to the frame of the records from another one that the model was brought into since; None: it is in it."""
    problem: str | None = None
    """Why the model is not in the frame of the records or, if it is because that was asked for, should not be."""
    straightened_m: float | None = None
    """How far cameras of the model were moved against each other, at most, because it was bent; None: it was not."""

    @property
    def outliers(self) -> Bool[np.ndarray, "view"]:
        """Views whose records contradict the model."""
        return np.asarray(np.isfinite(self.residual_m).all(axis=1) & ~self.agrees)

    def rms_m(self) -> Float[np.ndarray, "3"]:
        """Root mean square residuals by axis, of records that agree."""
        return np.asarray(np.sqrt((self.residual_m[self.agrees] ** 2).mean(axis=0)))


def recorded_positions(
    model: Reconstruction, geo: GeoPositions
) -> tuple[Float[np.ndarray, "view 3"], Float[np.ndarray, "view 3"]]:
    """What is recorded of the views of a model in the local frame, and its deviations; NaN without a record."""
    position, sigma = geo.enu_m[model.image_index], geo.sigma_m[model.image_index]
    if model.rigs is not None:
        position = _one_of_each_frame(position, model.rigs.frames(model.image_index))
    return position, sigma


def georeference(
    judged: JudgedModel,
    free: AdjustResult,
    geo: GeoPositions,
    mode: str,
    config: AdjustConfig,
    focal: FocalPriors,
    progress: Progress = SILENT,
) -> tuple[JudgedModel, Georeferenced]:
    """A model in the frame of the recorded positions, adjusted with them, as far as they agree with it.

    Args:
        judged: the model.
        free: the same before records of focal lengths were brought in: these are weighed anew with the positions.
        geo: recorded positions of the ImageSet.
        mode: auto, check, align or prior. Models whose frame or poses are given are checked only.
        config: of the adjustment.
        focal: recorded focal lengths of its cameras.
        progress: has a stage where a bent model is straightened.
    """
    model = judged.result.at_optimum
    position, sigma = recorded_positions(model, geo)
    has_frame = judged.result.held.sets_frame or bool(judged.result.held.pose.any())
    centres = camera_centres(model.cam_from_world)
    result, placed = judged.result, place(centres, position, sigma)
    problem = placed if isinstance(placed, str) else placed.problem
    is_straightened = False
    if mode in ("auto", "prior") and not has_frame and judged.result.adjusted:
        straight = straightened(judged.result, position, sigma, config, progress)
        if straight is not None and (mode == "prior" or straight[1].problem is None):
            result, placed = straight
            problem, is_straightened = placed.problem, True
    if isinstance(placed, str):
        nothing = np.full_like(position, np.nan)
        agrees = np.zeros(len(position), bool)
        return judged, Georeferenced(mode="check", residual_m=nothing, agrees=agrees, sigma_m=sigma, problem=problem)
    problem = problem or _doubt(result.model, placed, position, sigma)
    if has_frame:
        mode, problem = "check", None
    elif mode == "auto":
        mode = "check" if problem else "prior"
    if mode == "prior" and not judged.result.adjusted:  # poses are to stay as the mapper found them
        mode = "align"
    if mode == "check":
        residual = placed.similarity.points(centres) - position
        found = Georeferenced(
            mode=mode, residual_m=residual, agrees=placed.agrees, sigma_m=placed.sigma_m, problem=problem
        )
        return judged, found
    if mode == "align":
        result = replace(judged.result, model=moved(judged.result.model, placed.scale, placed.pose))
        uncertainty = replace(judged.uncertainty.moved(placed.similarity), metric=True)
        judged = JudgedModel(result=result, uncertainty=uncertainty)
    else:
        judged = _with_priors(result, free, placed, position, config, focal)
    placed_centres = camera_centres(judged.result.model.cam_from_world)
    return judged, Georeferenced(
        mode=mode,
        residual_m=placed_centres - position,
        agrees=placed.agrees,
        sigma_m=placed.sigma_m,
        problem=problem,
        straightened_m=largest_change(centres, placed_centres) if is_straightened else None,
    )


def compare_in_frame(judged: JudgedModel, geo: GeoPositions, enu_from_model: Similarity | None = None) -> Georeferenced:
    """Recorded positions beside a model that stays as it is: in their frame, or `enu_from_model` leads to it."""
    centres = camera_centres(judged.result.model.cam_from_world)
    if enu_from_model is not None:
        centres = enu_from_model.points(centres)
    images = judged.result.model.image_index
    position, sigma = geo.enu_m[images], geo.sigma_m[images]
    placed = place(centres, position, sigma)
    agrees = np.zeros(len(images), bool)
    if not isinstance(placed, str):
        agrees, sigma = placed.agrees, placed.sigma_m
    return Georeferenced(
        mode="align", residual_m=centres - position, agrees=agrees, sigma_m=sigma, enu_from_model=enu_from_model
    )


def _doubt(
    model: Reconstruction,
    placed: Placement,
    position: Float[np.ndarray, "view 3"],
    sigma: Float[np.ndarray, "view 3"],
) -> str | None:
    """What speaks against positions that agree with most of a model."""
    if is_upside_down(placed.similarity.rotation @ up_direction(model.cam_from_world, model.points)):
        return UPSIDE_DOWN
    return problem_of_parts(model, placed, position, sigma)


def _one_of_each_frame(
    position: Float[np.ndarray, "view 3"], frame: Int[np.ndarray, "view"]
) -> Float[np.ndarray, "view 3"]:
    """Positions without those of further views of a frame, which one receiver recorded: they are not independent."""
    known = np.flatnonzero((frame >= 0) & np.isfinite(position).all(axis=1))
    _, first = np.unique(frame[known], return_index=True)
    position = position.copy()
    position[np.setdiff1d(known, known[first])] = np.nan
    return position


def _with_priors(
    result: AdjustResult,
    free: AdjustResult,
    placed: Placement,
    position: Float[np.ndarray, "view 3"],
    config: AdjustConfig,
    focal: FocalPriors,
) -> JudgedModel:
    """The model adjusted with the positions that agree; where they help to find its focal lengths, these anew."""
    agreeing = placed.agreeing(position)
    result = adjusted_with(result, placed.similarity, agreeing, placed.sigma_m, config, free.held)
    if any(result.focal) and is_better_determined(result):
        options = replace(free.options, refine_focal=True)
        result = readjust(replace(result, focal=()), result.at_optimum, config, options=options, held=result.held)
        return settle_focal_lengths(result, focal, config)
    return JudgedModel(result=result, uncertainty=estimate_uncertainty(result))
