"""Bent models pulled onto their recorded positions (docs/method.md, Recorded positions).

Errors of poses add up along a strip, so that a long one is bent by many times what positions are wrong by. Then cameras
that are close to each other are off together, as neither noise nor a wrong position is. A model that is off in this way
by more than `_BENT` claimed deviations is pulled: adjusted with every other position as a prior, as long as that brings
it nearer to the others, which take no part. Then all positions that go along with those around them are priors as they
are. What comes of it is kept if the photographs bear it out: their own errors must not rise by more than
`_MAX_ERROR_RISE`.
"""

import warnings
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial import KDTree

from anchorsfm.colmap.bundle import Held, PositionPriors
from anchorsfm.geometry.similarity import Similarity
from anchorsfm.geometry.transforms import camera_centres, fit_similarity
from anchorsfm.mapping.placement import MEDIAN_OF_THREE, MIN_POSITIONS, OUTLIER, Placement, place, similarity_of_most
from anchorsfm.scene.edit import moved, select_points, with_cameras, with_more_points, with_poses_of
from anchorsfm.scene.progress import SILENT, Advance, Progress
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.adjust import AdjustResult, readjust
from anchorsfm.tracks.config import AdjustConfig
from anchorsfm.tracks.points import triangulate_model
from anchorsfm.tracks.residuals import with_errors
from anchorsfm.tracks.selection import spread_points

_BENT = 2.0
"""Claimed deviations that neighbours are off together, from which on a model may be bent."""
_AROUND = 15
"""Cameras whose positions say together where one of them is to go."""
_PULL = 1.5
"""Deviations of the priors of a pull are that part of what positions are off. Much stronger ones tear views at the ends
of a strip from the points, whose robust loss lets them go."""
_PULLS, _SETTLINGS = 30, 5
_NEARER = 0.8
"""A pull that leaves more than this share of what positions are off was in vain."""
_MAX_ERROR_RISE = 1.05
"""Of the median reprojection error."""
_SAME_PLACE = 1e-3
"""Of the extent of places along a line: differences below it say nothing of a slope."""
_PART = 0.25
"""Share of positions that may disagree with a model together with those around them."""


@dataclass(frozen=True, kw_only=True)
class Bend:
    """How the shape of a model differs from that of its recorded positions, where neighbours say so together.

    Each camera is to go where the positions of the cameras around it ask for together: a bend asks neighbours for
    nearly the same, noise and wrong positions do not.
    """

    similarity: Similarity
    """From the model onto `position`."""
    position: Float[np.ndarray, "view 3"]
    """Where the cameras are to be; NaN without a record."""
    deviations: Float[np.ndarray, "view 3"]
    """How far that is, in deviations of the records; NaN without a record."""
    goes_along: Bool[np.ndarray, "view"]
    """Whether the record is as far off as those around it."""
    factor: float
    """Of the deviations that records have from those around them over the claimed ones, at least 1."""

    @property
    def size(self) -> float:
        """Root mean square of the deviations."""
        return float(np.sqrt(np.nanmean(self.deviations**2)))

    @staticmethod
    def of(
        model: Reconstruction, position: Float[np.ndarray, "view 3"], sigma: Float[np.ndarray, "view 3"]
    ) -> "Bend | None":
        """None: the positions do not differ, or are too few."""
        centres = camera_centres(model.cam_from_world)
        known = np.flatnonzero(np.isfinite(position).all(axis=1))
        if len(known) < MIN_POSITIONS:
            return None
        source = centres[known]
        scale, pose, spread = similarity_of_most(source, position[known], sigma[known], z_is_up=False)
        if not np.isfinite(spread):
            return None
        _, near = KDTree(source).query(source, min(_AROUND, len(known)))
        for _ in range(2):  # first the similarity that is best for half of them, then the one of all
            moved_to = scale * source @ pose[:, :3].T + pose[:, 3]
            wanted = moved_to + _along_neighbours(source[near], (position[known] - moved_to)[near])
            scale, pose = fit_similarity(source, wanted)
        similarity = Similarity(scale=scale, pose=pose)
        at, off = np.full((2, *centres.shape), np.nan)
        at[known] = wanted
        off[known] = (wanted - similarity.points(source)) / sigma[known]
        alone = np.linalg.norm((position[known] - wanted) / sigma[known], axis=1)
        factor = max(float(np.median(alone)) / MEDIAN_OF_THREE, 1.0)
        goes_along = np.zeros(len(centres), bool)
        goes_along[known] = alone < factor * OUTLIER
        return Bend(similarity=similarity, position=at, deviations=off, goes_along=goes_along, factor=factor)


def straightened(
    result: AdjustResult,
    position: Float[np.ndarray, "view 3"],
    sigma: Float[np.ndarray, "view 3"],
    config: AdjustConfig,
    progress: Progress = SILENT,
) -> tuple[AdjustResult, Placement] | None:
    """A bent model pulled onto the positions, and how these agree with it then; None: it is not bent, or stays so.

    Every other position takes no part in the pulls and says whether they help. Large models are pulled with a selection
    of their points, as their cameras were adjusted before.
    """
    whole, thins = result, len(position) > config.all_points_up_to
    if not _is_bent(result.model, position, sigma):
        return None
    if thins:
        result = replace(result, model=spread_points(result.at_optimum), added_points=0)
    bent = result
    with progress.stage("straightening by recorded positions") as advance:
        result = _pulled(bent, position, sigma, config, advance)
        if result is bent:
            return None
        result, placed = _settled(result, position, sigma, config, advance)
    if isinstance(placed, str) or not placed.is_believable:
        return None
    if np.median(result.at_optimum.error_px) > _MAX_ERROR_RISE * np.median(bent.at_optimum.error_px):
        return None
    if thins:
        result = _with_all_points(result, whole, config)
    # residuals of positions that a model was adjusted to say nothing of how exact these are
    return result, replace(placed, sigma_m=np.fmax(placed.sigma_m, sigma))


def _halves(position: Float[np.ndarray, "view 3"]) -> tuple[Float[np.ndarray, "view 3"], Float[np.ndarray, "view 3"]]:
    """Every other of the known positions, and those between."""
    known = np.flatnonzero(np.isfinite(position).all(axis=1))
    first, second = position.copy(), position.copy()
    first[known[1::2]], second[known[::2]] = np.nan, np.nan
    return first, second


def _is_bent(model: Reconstruction, position: Float[np.ndarray, "view 3"], sigma: Float[np.ndarray, "view 3"]) -> bool:
    bend = Bend.of(model, _halves(position)[1], sigma)
    return bend is not None and bend.size > _BENT


def _pulled(
    result: AdjustResult,
    position: Float[np.ndarray, "view 3"],
    sigma: Float[np.ndarray, "view 3"],
    config: AdjustConfig,
    advance: Advance,
) -> AdjustResult:
    """The model brought to every other position as long as it comes nearer to the others, too."""
    pulling, judging = _halves(position)
    before = Bend.of(result.model, judging, sigma)
    for _ in range(_PULLS):
        bend = Bend.of(result.model, pulling, sigma)
        if bend is None or before is None:
            break
        sigma_m = sigma * max(bend.size / _PULL, 1)
        tried = adjusted_with(result, bend.similarity, bend.position, sigma_m, config)
        after = Bend.of(tried.model, judging, sigma)
        if after is None or after.size > _NEARER * before.size:
            break
        result, before = tried, after
        advance(1)
    return result


def _settled(
    result: AdjustResult,
    position: Float[np.ndarray, "view 3"],
    sigma: Float[np.ndarray, "view 3"],
    config: AdjustConfig,
    advance: Advance,
) -> tuple[AdjustResult, Placement | str]:
    """The model adjusted with all positions as they are claimed, and how they agree with it."""
    placed = place(camera_centres(result.model.cam_from_world), position, sigma)
    for _ in range(_SETTLINGS):
        bend = Bend.of(result.model, position, sigma)
        if bend is None:
            break
        wanted = np.where(bend.goes_along[:, None], position, bend.position)
        result = adjusted_with(result, bend.similarity, wanted, bend.factor * sigma, config)
        before, placed = placed, place(camera_centres(result.model.cam_from_world), position, sigma)
        advance(1)
        if not isinstance(before, str) and not isinstance(placed, str) and not _is_nearer(placed, before):
            break
    return result, placed


def _with_all_points(thinned: AdjustResult, whole: AdjustResult, config: AdjustConfig) -> AdjustResult:
    """The adjusted cameras with the points that the model had, triangulated anew."""
    cameras = with_cameras(with_poses_of(whole.at_optimum, thinned.model), thinned.model.cameras)
    long_side_px = np.array([max(camera.width, camera.height) for camera in cameras.cameras], float)
    model = triangulate_model(
        cameras,
        cameras.tracks,
        max_error_px=config.second_error * long_side_px[cameras.camera_index],
        min_angle_deg=config.min_angle_deg,
        keep_all=True,
    )
    if whole.added_points:  # an adjustment makes these anew, of their observations
        own = len(whole.at_optimum.points)
        model = with_more_points(model, select_points(whole.model, whole.model.tracks.obs_point >= own))
    return replace(thinned, model=with_errors(model), added_points=whole.added_points)


def _along_neighbours(
    places: Float[np.ndarray, "place around 3"], values: Float[np.ndarray, "place around 3"]
) -> Float[np.ndarray, "place 3"]:
    """At the first of each row of places the value of the line through those of all, along their longest direction.

    By repeated medians (Siegel 1982), which up to half of the values may be wrong of.
    """
    offset = places - places[:, :1]
    centred = offset - offset.mean(axis=1, keepdims=True)
    axis = np.linalg.svd(centred, full_matrices=False)[2][:, 0]
    along = np.einsum("pki,pi->pk", offset, axis)
    step = along[:, :, None] - along[:, None, :]
    step[np.abs(step) <= _SAME_PLACE * np.ptp(along, axis=1)[:, None, None]] = np.nan
    slopes = (values[:, :, None] - values[:, None, :]) / step[..., None]
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # places of which all are the same
        slope = np.nan_to_num(np.nanmedian(np.nanmedian(slopes, axis=2), axis=1))
    return np.asarray(np.median(values - slope[:, None] * along[..., None], axis=1))


def problem_of_parts(
    model: Reconstruction,
    placed: Placement,
    position: Float[np.ndarray, "view 3"],
    sigma: Float[np.ndarray, "view 3"],
) -> str | None:
    """Whether positions agree with a part of a model only: which of the two is wrong in the other part is not known."""
    bend = Bend.of(model, position, sigma)
    if bend is None:
        return None
    known, apart = int(np.isfinite(position).all(axis=1).sum()), int((bend.goes_along & ~placed.agrees).sum())
    if apart <= _PART * known:
        return None
    return f"{apart} of {known} are off together with those around them: a part of the model is bent, or they are wrong"


def _is_nearer(placed: Placement, before: Placement) -> bool:
    return max(placed.factor) < _NEARER * max(before.factor) or bool(placed.agrees.sum() > before.agrees.sum())


def largest_change(before: Float[np.ndarray, "view 3"], after: Float[np.ndarray, "view 3"]) -> float:
    """Of the shape that places have, in the unit of the later ones."""
    scale, pose = fit_similarity(before, after)
    return float(np.linalg.norm(Similarity(scale=scale, pose=pose).points(before) - after, axis=1).max())


def adjusted_with(
    result: AdjustResult,
    similarity: Similarity,
    position: Float[np.ndarray, "view 3"],
    sigma_m: Float[np.ndarray, "view 3"],
    config: AdjustConfig,
    held: Held | None = None,
) -> AdjustResult:
    """The model moved by a similarity and adjusted with positions."""
    held = replace(held or result.held, positions=PositionPriors(position=position, sigma=sigma_m), rotations=None)
    start = moved(result.at_optimum, similarity.scale, similarity.pose)
    return readjust(result, start, config, options=result.options, held=held)
