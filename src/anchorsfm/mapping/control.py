"""Models in the frame of surveyed points that are marked in their photographs (docs/method.md, Ground control points).

Marks of a point are triangulated with the cameras of the model. The similarity that brings these places onto the
surveyed ones is found from three points at a time, as the one with the smallest median distance, and then from all that
are near enough. With it the model is adjusted once more with the surveyed points held where they are: their marks are
observations like others. Check points have no say in any of this.
"""

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float

from anchorsfm.colmap.cameras import project
from anchorsfm.geometry.similarity import Similarity
from anchorsfm.geometry.transforms import fit_similarities, fit_similarity, transform
from anchorsfm.scene.edit import moved, select_observations, view_of_image, with_points
from anchorsfm.scene.ground import GroundPoints
from anchorsfm.scene.reconstruction import Reconstruction, Tracks
from anchorsfm.tracks.adjust import readjust
from anchorsfm.tracks.config import AdjustConfig
from anchorsfm.tracks.focal_prior import JudgedModel
from anchorsfm.tracks.points import ray_bundle
from anchorsfm.tracks.triangulate import triangulate
from anchorsfm.tracks.uncertainty import estimate_uncertainty

MIN_POINTS = 3
"""Control points that a frame needs."""
_NEAR = 4.0
"""Points further from the similarity than so many median distances, and than `_EXACT_PX`, are wrong ..."""
_EXACT_PX = 10.0
"""... as their marks would be seen."""
_FLAT = 0.01
"""Points whose spread across their longest extent is a smaller share of it lie on a line."""
_MAX_SAMPLES = 3000
_MARK_ERROR_PX = 50.0
"""Marks further from where the others say are not triangulated with them."""
_MIN_ANGLE_DEG = 0.5


@dataclass(frozen=True, kw_only=True)
class Controlled:
    """How a model agrees with surveyed points. Rows are those of `GroundPoints`."""

    is_used: Bool[np.ndarray, "point"]
    """Control points that the model was adjusted with."""
    residual_m: Float[np.ndarray, "point 3"]
    """Place by the marks minus the surveyed one; NaN for points that fewer than two photographs of the model show."""
    residual_px: Float[np.ndarray, "mark"]
    """Distance of each mark from where the surveyed point projects; NaN where its photograph is in no model."""
    problem: str | None = None
    """Why the model is not in the frame of the points; residuals are NaN then."""

    def rms_m(self, which: Bool[np.ndarray, "point"]) -> tuple[float, float]:
        """Horizontally and vertically, of some points."""
        rows = self.residual_m[which & np.isfinite(self.residual_m).all(axis=1)]
        if not len(rows):
            return float("nan"), float("nan")
        return float(np.sqrt((rows[:, :2] ** 2).sum(axis=1).mean())), float(np.sqrt((rows[:, 2] ** 2).mean()))


def with_control(judged: JudgedModel, ground: GroundPoints, config: AdjustConfig) -> tuple[JudgedModel, Controlled]:
    """A model brought onto the control points and adjusted with them, where they determine its frame.

    Models whose poses are given, and such that were not adjusted, are only brought onto them.
    """
    model = judged.result.at_optimum
    places = triangulated(model, ground)
    usable = np.flatnonzero(~ground.is_check & np.isfinite(places).all(axis=1))
    nothing = Controlled(
        is_used=np.zeros(len(ground.names), bool),
        residual_m=np.full((len(ground.names), 3), np.nan),
        residual_px=np.full(len(ground.point), np.nan),
    )
    if len(usable) < MIN_POINTS:
        problem = f"only {len(usable)} control points are marked in two of its photographs, {MIN_POINTS} are needed"
        return judged, replace(nothing, problem=problem)
    if _on_a_line(ground.xyz_m[usable]) or _on_a_line(places[usable]):
        return judged, replace(nothing, problem="its control points lie on a line, or in one place")
    if judged.result.held.sets_frame or judged.result.held.pose.any():
        return judged, replace(nothing, problem="its poses are given, so control points do not move it")
    scale, pose, agree = _similarity(places[usable], ground.xyz_m[usable], _pixel_m(model, places[usable]))
    if agree.sum() < MIN_POINTS or 2 * agree.sum() <= len(usable):
        problem = f"only {int(agree.sum())} of {len(usable)} control points agree on one place"
        return judged, replace(nothing, problem=problem)
    used = np.zeros(len(ground.names), bool)
    used[usable[agree]] = True
    result = judged.result
    if result.adjusted:
        start = moved(model, scale, pose)
        result = readjust(
            result, start, config, options=result.options, held=result.held, fixed=_fixed(start, ground, used)
        )
        judged = JudgedModel(result=result, uncertainty=replace(estimate_uncertainty(result), metric=True))
    else:
        judged = JudgedModel(
            result=replace(result, model=moved(result.model, scale, pose)),
            uncertainty=replace(judged.uncertainty.moved(Similarity(scale=scale, pose=pose)), metric=True),
        )
    final = judged.result.at_optimum
    residual = triangulated(final, ground) - ground.xyz_m
    return judged, replace(nothing, is_used=used, residual_m=residual, residual_px=_mark_errors(final, ground))


def triangulated(model: Reconstruction, ground: GroundPoints) -> Float[np.ndarray, "point 3"]:
    """Places of points by their marks; NaN where fewer than two photographs of the model show them."""
    tracks, rows = _tracks(model, ground, np.ones(len(ground.names), bool))
    places = np.full((len(ground.names), 3), np.nan)
    if tracks.num_points:
        bundle = ray_bundle(model, tracks, np.full(len(model.image_index), _MARK_ERROR_PX))
        found = triangulate(bundle, tracks.num_points, min_angle_deg=_MIN_ANGLE_DEG)
        count = np.bincount(tracks.obs_point[found.inlier], minlength=tracks.num_points)
        places[rows[count >= 2]] = found.points[count >= 2]
    return places


def _tracks(model: Reconstruction, ground: GroundPoints, which: Bool[np.ndarray, "point"]) -> tuple[Tracks, np.ndarray]:
    """Marks in the photographs of a model as tracks, and the row of the point of each."""
    keep = np.isin(ground.image, model.image_index) & which[ground.point]
    rows, point = np.unique(ground.point[keep], return_inverse=True)
    tracks = Tracks(obs_point=point.reshape(-1), obs_image=ground.image[keep], obs_xy=ground.xy_px[keep])
    tracks, old = select_observations(tracks, np.ones(len(tracks.obs_point), bool))
    return tracks, rows[old]


def _fixed(model: Reconstruction, ground: GroundPoints, used: Bool[np.ndarray, "point"]) -> Reconstruction:
    """Surveyed points with their marks as points of a model."""
    tracks, rows = _tracks(model, ground, used)
    return with_points(model, tracks, ground.xyz_m[rows])


def _on_a_line(places: Float[np.ndarray, "point 3"]) -> bool:
    extent = np.linalg.svd(places - places.mean(axis=0), compute_uv=False)
    return bool(not extent[0] > 0 or extent[1] < _FLAT * extent[0])


def _pixel_m(model: Reconstruction, places: Float[np.ndarray, "point 3"]) -> float:
    """Width of a pixel at the points, in units of the model."""
    in_camera = np.einsum("ij,pj->pi", model.cam_from_world[:, 2, :3], places) + model.cam_from_world[:, 2, 3]
    depth = np.median(in_camera[in_camera > 0]) if (in_camera > 0).any() else 0.0
    size = np.median([max(camera.width, camera.height) for camera in model.cameras])
    return float(depth / size)


def _similarity(
    source: Float[np.ndarray, "point 3"], target: Float[np.ndarray, "point 3"], pixel: float
) -> tuple[float, Float[np.ndarray, "3 4"], Bool[np.ndarray, "point"]]:
    """Scale, pose and the points that agree."""
    if len(source) == MIN_POINTS:
        return *fit_similarity(source, target), np.ones(MIN_POINTS, bool)
    samples = np.array(list(combinations(range(len(source)), MIN_POINTS)))
    if len(samples) > _MAX_SAMPLES:
        samples = samples[np.random.default_rng(0).choice(len(samples), _MAX_SAMPLES, replace=False)]
    scale, pose = fit_similarities(source[samples], target[samples], np.ones(samples.shape))
    placed = scale[:, None, None] * source @ np.swapaxes(pose[:, :, :3], 1, 2) + pose[:, None, :, 3]
    distance = np.linalg.norm(placed - target, axis=2)
    score = np.median(distance, axis=1)
    best = int(np.where(np.isfinite(score) & (scale > 0), score, np.inf).argmin())
    agree = distance[best] <= max(_NEAR * float(score[best]), _EXACT_PX * pixel * float(scale[best]))
    if agree.sum() < MIN_POINTS:
        return float(scale[best]), pose[best], agree
    factor, moved_by = fit_similarity(source[agree], target[agree])
    return factor, moved_by, agree


def _mark_errors(model: Reconstruction, ground: GroundPoints) -> Float[np.ndarray, "mark"]:
    """Pixels between marks and where the surveyed points project."""
    error = np.full(len(ground.point), np.nan)
    known = np.flatnonzero(np.isin(ground.image, model.image_index))
    view = view_of_image(model)[ground.image[known]]
    for mark, row in zip(known.tolist(), view.tolist(), strict=True):
        place = transform(model.cam_from_world[row], ground.xyz_m[ground.point[mark]][None])
        xy = project(model.cameras[model.camera_index[row]], place)[0]
        error[mark] = float(np.linalg.norm(xy[0] - ground.xy_px[mark]))
    return error
