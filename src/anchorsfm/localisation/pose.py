"""The pose of one photograph from points of a model: which camera, robust pose, refinement, deviations."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from anchorsfm.colmap.cameras import focal_length_px, focal_rows, make_camera, with_focal_length
from anchorsfm.scene.reconstruction import Camera
from anchorsfm.tracks.config import AdjustConfig
from anchorsfm.tracks.resect import absolute_pose
from anchorsfm.tracks.residuals import RAYLEIGH_MEDIAN
from anchorsfm.tracks.view_fit import FEWEST, find_zoom, fit_view, view_errors

_COARSE, _FINE = 0.004, 0.003
"""Largest reprojection error as a share of the long side: of the robust pose, and after the refinement."""
_BETTER = 1.15
"""A camera that is less likely must explain as many times more points."""
_FOCALS = tuple(float(f) for f in np.geomspace(0.45, 3.0, 11))
"""Over the long side, that are tried where nothing is known."""
_SAME_LENS = 0.05
"""A focal length that the user gives belongs to the model's camera if it differs by a smaller share."""
_DISTORTION = 0.1
"""Standard deviation of the first radial term of a lens that is not the model's, before looking."""
_CENTRE = AdjustConfig().principal_point_prior
"""The same of its principal point about the middle of the picture, as a share of the long side."""
_CELLS = 8
_MIN_CELLS = 6
"""Of the 8 x 8 cells of a picture, that must have points which agree."""
_MIN_SHARE = 0.08
"""Of the matches, that must agree."""


@dataclass(frozen=True, kw_only=True)
class CameraGuess:
    """A camera that the photograph may have been taken with."""

    camera: Camera
    source: str
    """given, model, EXIF or estimated."""
    deviations: Float[np.ndarray, "param"]
    """Standard deviation of every parameter before looking, in its unit; 0: it is kept; inf: nothing is known."""

    @property
    def is_exact(self) -> bool:
        """Whether nothing of the camera is adjusted."""
        return not self.deviations.any()

    @staticmethod
    def exact(camera: Camera, source: str) -> "CameraGuess":
        """A lens that the model knows."""
        return CameraGuess(camera=camera, source=source, deviations=np.zeros(len(camera.params)))

    @staticmethod
    def usual(size_wh: tuple[int, int], focal_px: float, source: str, focal_deviation: float) -> "CameraGuess":
        """A lens of which no more is known than a focal length, with its standard deviation as a share."""
        centre_px = _CENTRE * max(size_wh)
        return CameraGuess(
            camera=make_camera("SIMPLE_RADIAL", focal_px, *size_wh),
            source=source,
            deviations=np.array([focal_deviation * focal_px, centre_px, centre_px, _DISTORTION]),
        )

    def zoomed(self, focal_px: float) -> "CameraGuess":
        """The same lens with a focal length of which nothing is known; a value to begin with."""
        deviations = self.deviations.copy()
        deviations[focal_rows(self.camera)] = np.inf
        return CameraGuess(camera=with_focal_length(self.camera, focal_px), source="estimated", deviations=deviations)


@dataclass(frozen=True, kw_only=True)
class PlacedView:
    """A pose, and how far it may be off."""

    cam_from_world: Float[np.ndarray, "3 4"]
    camera: Camera
    focal_source: str
    inlier: Bool[np.ndarray, "match"]
    error_px: float
    """Median reprojection error of the points that agree."""
    covariance: Float[np.ndarray, "6 6"]
    """Of rotation vector (radians, axes of the camera) and camera centre (world axes and units), by the noise of what
    agrees."""
    focal_deviation_px: float
    """0 where the focal length was kept."""
    open_deviations: Float[np.ndarray, "param"]
    """Standard deviation of each parameter of the camera before looking, in its unit; 0: it was not adjusted; inf:
    nothing was known."""

    @property
    def position_deviation(self) -> float:
        """Standard deviation in world units: root of the summed variances of the coordinates."""
        return float(np.sqrt(np.diag(self.covariance)[3:].sum()))

    @property
    def rotation_deviation_deg(self) -> float:
        """The same of the rotation vector."""
        return float(np.degrees(np.sqrt(np.diag(self.covariance)[:3].sum())))


def camera_guesses(
    size_wh: tuple[int, int],
    cameras: Sequence[Camera],
    *,
    focal_px: float | None,
    recorded_px: float,
    recorded_deviation: float,
) -> list[CameraGuess]:
    """Cameras to try, the likeliest first.

    Args:
        size_wh: of the photograph.
        cameras: of the model, each once.
        focal_px: what the user says.
        recorded_px: what EXIF says, NaN: nothing.
        recorded_deviation: how far it may be off, as a share.
    """
    same = [camera for camera in cameras if (camera.width, camera.height) == size_wh]
    if focal_px is not None:
        own = [camera for camera in same if abs(focal_length_px(camera) / focal_px - 1) < _SAME_LENS]
        if own:
            return [CameraGuess.exact(with_focal_length(own[0], focal_px), "given")]
        return [CameraGuess.usual(size_wh, focal_px, "given", 0.0)]
    guesses = [CameraGuess.exact(camera, "model") for camera in same]
    if np.isfinite(recorded_px):
        allowed = max(0.1, 4 * recorded_deviation)
        guesses = [g for g in guesses if abs(focal_length_px(g.camera) / recorded_px - 1) < allowed]
        guesses.append(CameraGuess.usual(size_wh, recorded_px, "EXIF", recorded_deviation))
    long_side = max(size_wh)
    return guesses + [CameraGuess.usual(size_wh, share * long_side, "estimated", np.inf) for share in _FOCALS]


def place(
    xy_px: Float[np.ndarray, "match 2"],
    points: Float[np.ndarray, "match 3"],
    guesses: Sequence[CameraGuess],
    *,
    min_inliers: int,
) -> PlacedView | str:
    """The pose of a photograph, or why it has none.

    Args:
        xy_px: keypoints in original pixels.
        points: the point of the model that each may show.
        guesses: cameras, the likeliest first; all of one size.
        min_inliers: fewer points that agree are no evidence.
    """
    if len(xy_px) < min_inliers:
        return f"only {len(xy_px)} of its keypoints look like points of the model ({min_inliers} are needed)"
    best: tuple[float, CameraGuess, Float[np.ndarray, "3 4"]] | None = None
    for guess in guesses:
        if guess.source == "estimated" and best is not None and best[0] >= 0.5 * len(xy_px):
            break  # a camera that explains most matches is the right one
        size = max(guess.camera.width, guess.camera.height)
        found = absolute_pose(guess.camera, xy_px, points, _COARSE * size)
        if found is None:
            continue
        count = int(found.inlier.sum())
        is_of_another_kind = best is not None and guess.source != best[1].source
        if best is None or count > best[0] * (_BETTER if is_of_another_kind else 1.0):
            best = (count, guess, found.cam_from_world)
    if best is None:
        return "no pose agrees with its matches"
    view = _refined(xy_px, points, best[1], best[2])
    if best[1].source == "model":
        view = _zoomed(xy_px, points, best[1], view)
    reason = _doubt(view, xy_px, min_inliers)
    return view if reason is None else reason


def _doubt(view: PlacedView, xy_px: Float[np.ndarray, "match 2"], min_inliers: int) -> str | None:
    """Why a pose is not believed; None if it is."""
    count, total = int(view.inlier.sum()), len(xy_px)
    if count < max(min_inliers, _MIN_SHARE * total):
        return f"only {count} of {total} matched points agree with a pose, as by chance"
    size = np.array([view.camera.width, view.camera.height], float)
    cell = np.clip((xy_px[view.inlier] / size * _CELLS).astype(int), 0, _CELLS - 1)
    if len(np.unique(cell, axis=0)) < _MIN_CELLS:
        return f"the {count} points that agree with a pose are all in one spot of the picture"
    if not np.isfinite(view.position_deviation) or not np.isfinite(view.rotation_deviation_deg):
        return f"the {count} points that agree do not determine a pose"
    return None


def _zoomed(
    xy_px: Float[np.ndarray, "match 2"],
    points: Float[np.ndarray, "match 3"],
    guess: CameraGuess,
    view: PlacedView,
) -> PlacedView:
    """A view by the model's camera as it is, or with a focal length of its own if the points say that it has another:
    pictures of one size come from other lenses, zoomed or cropped ones too, and a pose makes up for much of it."""
    coarse_px = _COARSE * max(view.camera.width, view.camera.height)
    found = find_zoom(view.camera, view.cam_from_world, xy_px, points, view.inlier, max_error_px=coarse_px)
    if found is None:
        return view
    changed = _refined(xy_px, points, guess.zoomed(focal_length_px(found.camera)), found.cam_from_world)
    return changed if changed.inlier.sum() > view.inlier.sum() else view


def _refined(
    xy_px: Float[np.ndarray, "match 2"],
    points: Float[np.ndarray, "match 3"],
    guess: CameraGuess,
    pose: Float[np.ndarray, "3 4"],
) -> PlacedView:
    """Least squares of the reprojection errors (Cauchy loss) over the pose and what is open of the camera.

    The deviations are those of the residuals' own spread: noise of the keypoints and of the points of the model alike.
    """
    camera, size = guess.camera, max(guess.camera.width, guess.camera.height)
    limit_px, coarse_px = _FINE * size, _COARSE * size
    error = view_errors(camera, pose, xy_px, points)
    inlier = error < coarse_px
    covariance = np.full((7, 7), np.nan)
    for largest_px in (coarse_px, limit_px, limit_px):
        if inlier.sum() < FEWEST:
            break
        noise_px = max(float(np.median(error[inlier])) / RAYLEIGH_MEDIAN, 1e-3)
        fit = fit_view(
            camera,
            pose,
            xy_px[inlier],
            points[inlier],
            noise_px=noise_px,
            expected=guess.camera,
            deviations=guess.deviations,
        )
        pose, camera, covariance = fit.cam_from_world, fit.camera, fit.covariance
        error = view_errors(camera, pose, xy_px, points)
        inlier = error < largest_px
    return PlacedView(
        cam_from_world=pose,
        camera=camera,
        focal_source=guess.source,
        inlier=inlier,
        error_px=float(np.median(error[inlier])) if inlier.any() else np.nan,
        covariance=covariance[:6, :6],
        focal_deviation_px=float(np.sqrt(covariance[6, 6])) if guess.deviations[0] else 0.0,
        open_deviations=guess.deviations,
    )
