"""The two views a model is grown from (docs/method.md, Mappers).

Pairs that share many tracks get a robust relative pose from the cameras' intrinsics. A pair is worth what it
triangulates well: the number of its inliers in front of both cameras whose rays meet at a wide angle, 16 degrees to
begin with and less where no pair is that wide. A camera that only turned gives such inliers only where its focal
length is wrong; it is recognised by a rotation, with the focal length free by some percent, that explains the matches
just as well: of two motions that fit, the simpler one is taken (Torr, "An assessment of information criteria for motion
model selection", CVPR 1997).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import least_squares
from scipy.sparse import csr_array, triu
from scipy.spatial.transform import Rotation

from anchorsfm.colmap.cameras import focal_length_px, normalised_from_pixels
from anchorsfm.scene.reconstruction import Camera, Tracks
from anchorsfm.scene.settings import Range, Settings

MIN_RANSAC_ITERATIONS, MAX_RANSAC_ITERATIONS = 100, 3000
_ZOOM_SPREAD = 0.1
"""The focal length of a turning camera may be wrong by about this much (log)."""
_ROTATION_SAMPLE = 300


@dataclass(frozen=True, kw_only=True)
class PairConfig(Settings):
    """Choice of the first two views."""

    min_tracks: Annotated[int, Range(8, 1_000_000)] = 30
    """Pairs that share fewer tracks are not looked at."""
    max_candidates: Annotated[int, Range(1, 1_000_000)] = 150
    """Pairs that are looked at, spread evenly from those that share most tracks to those that share fewest."""
    min_angles_deg: tuple[Annotated[float, Range(0, 90)], ...] = (16.0, 8.0, 4.0, 2.0, 1.5)
    """Triangulation angles to be content with, one after the other."""
    min_inliers: Annotated[int, Range(8, 1_000_000)] = 30
    """Inliers at the angle that a pair needs."""
    max_epipolar_error_px: Annotated[float, Range(0.05, 100)] = 4.0
    """Largest distance of an inlier from the epipolar geometry of its pair, in working pixels."""
    max_rotation_inlier_ratio: Annotated[float, Range(0, 1)] = 0.8
    """A pair of which a rotation alone explains this share has no depth."""


@dataclass(frozen=True, kw_only=True)
class InitialPair:
    """Two views and their relative pose, with a baseline of length 1."""

    i: int
    j: int
    j_from_i: Float[np.ndarray, "3 4"]
    num_inliers: int
    """Inliers at `min_angle_deg` or more."""
    min_angle_deg: float


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    i: int
    j: int
    j_from_i: Float[np.ndarray, "3 4"]
    xy_i: Float[np.ndarray, "inlier 2"]
    xy_j: Float[np.ndarray, "inlier 2"]
    tolerance: float
    """In the unit of the coordinates, which are those of the planes z = 1."""
    angle_deg: Float[np.ndarray, "front"]
    """Of the inliers in front of both cameras."""


def initial_pairs(
    tracks: Tracks,
    images: Int[np.ndarray, "available"],
    cameras: Sequence[Camera],
    camera_index: Int[np.ndarray, "image"],
    config: PairConfig,
    *,
    working_scale: Float[np.ndarray, "image"],
) -> Iterator[InitialPair]:
    """Pairs of the available images a model can be started from, the best first; none if there is none.

    Args:
        tracks: tracks of the whole ImageSet in original pixels.
        images: images to choose from.
        cameras: one per camera of the ImageSet.
        camera_index: row of `cameras` of every image.
        config: settings.
        working_scale: original pixels per working pixel of every image.
    """
    shared = _shared_tracks(tracks, images)
    shared = shared[shared[:, 2] >= config.min_tracks]
    if len(shared) > config.max_candidates:
        shared = shared[np.linspace(0, len(shared) - 1, config.max_candidates).round().astype(int)]
    plane = np.full(tracks.obs_xy.shape, np.nan)
    for row in np.unique(camera_index[images]):
        seen = np.flatnonzero(camera_index[tracks.obs_image] == row)
        plane[seen] = normalised_from_pixels(cameras[row], tracks.obs_xy[seen])
    tolerance = config.max_epipolar_error_px * working_scale
    tolerance = tolerance / np.array([focal_length_px(cameras[c]) for c in camera_index])
    observed = {int(k): np.flatnonzero((tracks.obs_image == k) & np.isfinite(plane).all(1)) for k in images}
    candidates = []
    for i, j in shared[:, :2].tolist():
        _, at_i, at_j = np.intersect1d(
            tracks.obs_point[observed[i]], tracks.obs_point[observed[j]], assume_unique=True, return_indices=True
        )
        xy_i, xy_j = plane[observed[i][at_i]], plane[observed[j][at_j]]
        candidate = _relate(i, j, xy_i, xy_j, float(np.sqrt(tolerance[i] * tolerance[j])), config)
        if candidate is not None:
            candidates.append(candidate)
    for pair, candidate in _ranked(candidates, config):
        if not _only_turned(candidate, config):
            yield pair


def _shared_tracks(tracks: Tracks, images: Int[np.ndarray, "available"]) -> Int[np.ndarray, "pair 3"]:
    """Rows (i, j, number of tracks seen by both) with i < j, those that share most first."""
    keep = np.isin(tracks.obs_image, images)
    ones = np.ones(int(keep.sum()), np.int64)
    shape = (int(images.max(initial=-1)) + 1, tracks.num_points)
    sees = csr_array((ones, (tracks.obs_image[keep], tracks.obs_point[keep])), shape=shape)
    common = triu(sees @ sees.T, k=1).tocoo()
    rows = np.stack([common.row, common.col, common.data], axis=1).astype(np.int64)
    return rows[np.lexsort((rows[:, 1], rows[:, 0], -rows[:, 2]))]


def _relate(
    i: int,
    j: int,
    xy_i: Float[np.ndarray, "match 2"],
    xy_j: Float[np.ndarray, "match 2"],
    tolerance: float,
    config: PairConfig,
) -> _Candidate | None:
    """Relative pose from coordinates on the planes z = 1; None with too few inliers."""
    import poselib

    if len(xy_i) < max(config.min_tracks, 8):
        return None
    focal = 1000.0  # only sets the unit of the thresholds
    camera = {"model": "SIMPLE_PINHOLE", "width": 0, "height": 0, "params": [focal, 0.0, 0.0]}
    pose, info = poselib.estimate_relative_pose(
        xy_i * focal,
        xy_j * focal,
        camera,
        camera,
        {
            "max_epipolar_error": tolerance * focal,
            "min_iterations": MIN_RANSAC_ITERATIONS,
            "max_iterations": MAX_RANSAC_ITERATIONS,
            "seed": 0,
        },
        {"loss_type": "CAUCHY", "loss_scale": tolerance * focal / 3},
    )
    j_from_i = np.array(pose.Rt, np.float64)
    length = float(np.linalg.norm(j_from_i[:, 3]))
    inlier = np.array(info["inliers"], bool)
    if not np.isfinite(j_from_i).all() or length < 1e-12 or inlier.sum() < config.min_inliers:
        return None
    j_from_i[:, 3] /= length
    xy_i, xy_j = xy_i[inlier], xy_j[inlier]
    return _Candidate(
        i=i,
        j=j,
        j_from_i=j_from_i,
        xy_i=xy_i,
        xy_j=xy_j,
        tolerance=tolerance,
        angle_deg=_angles_in_front_deg(xy_i, xy_j, j_from_i),
    )


def _ranked(candidates: list[_Candidate], config: PairConfig) -> list[tuple[InitialPair, _Candidate]]:
    """Pairs by the widest of the angles at which they have enough inliers, then by the number of these."""
    ranked = []
    for candidate in candidates:
        for min_angle_deg in config.min_angles_deg:
            count = int((candidate.angle_deg >= min_angle_deg).sum())
            if count >= config.min_inliers:
                pair = InitialPair(
                    i=candidate.i,
                    j=candidate.j,
                    j_from_i=candidate.j_from_i,
                    num_inliers=count,
                    min_angle_deg=min_angle_deg,
                )
                ranked.append((pair, candidate))
                break
    return sorted(ranked, key=lambda entry: (-entry[0].min_angle_deg, -entry[0].num_inliers, entry[0].i, entry[0].j))


def _angles_in_front_deg(
    xy_i: Float[np.ndarray, "match 2"], xy_j: Float[np.ndarray, "match 2"], j_from_i: Float[np.ndarray, "3 4"]
) -> Float[np.ndarray, "front"]:
    """Angle between the rays of the matches whose nearest points lie in front of both cameras.

    Least squares of a u - b v = -t over the depths (a, b) along u = R x_i and v = x_j.
    """
    u, v, t = _homogeneous(xy_i) @ j_from_i[:, :3].T, _homogeneous(xy_j), j_from_i[:, 3]
    uu, vv, uv, ut, vt = (u * u).sum(1), (v * v).sum(1), (u * v).sum(1), u @ t, v @ t
    determinant = uu * vv - uv**2  # not negative; the signs of the depths do not need the division
    front = (uv * vt - vv * ut > 0) & (uu * vt - uv * ut > 0) & (determinant > 1e-14 * uu * vv)
    sine = np.linalg.norm(np.cross(u, v), axis=1)
    return np.degrees(np.arctan2(sine, uv))[front]


def _only_turned(candidate: _Candidate, config: PairConfig) -> bool:
    """Whether x_j ~ K R K^-1 x_i explains the matches, K = diag(zoom, zoom, 1), over R and the zoom."""
    xy_i, xy_j, tolerance = candidate.xy_i, candidate.xy_j, candidate.tolerance
    sample = np.linspace(0, len(xy_i) - 1, min(len(xy_i), _ROTATION_SAMPLE)).round().astype(int)

    def residual(unknowns: Float[np.ndarray, "4"], rows: Int[np.ndarray, "row"]) -> Float[np.ndarray, "row 2"]:
        zoom = np.exp(unknowns[3])
        rotation = Rotation.from_rotvec(unknowns[:3]).as_matrix() @ candidate.j_from_i[:, :3]
        target = _homogeneous(xy_i[rows] / zoom) @ rotation.T
        return target[:, :2] / np.maximum(target[:, 2:], 1e-3) * zoom - xy_j[rows]

    def cost(unknowns: Float[np.ndarray, "4"]) -> Float[np.ndarray, "term"]:
        return np.append(residual(unknowns, sample).ravel() / tolerance, unknowns[3] / _ZOOM_SPREAD)

    fit = least_squares(cost, np.zeros(4), loss="cauchy", max_nfev=30)
    error = np.linalg.norm(residual(fit.x, np.arange(len(xy_i))), axis=1)
    return float((error < tolerance).mean()) > config.max_rotation_inlier_ratio


def _homogeneous(xy: Float[np.ndarray, "match 2"]) -> Float[np.ndarray, "match 3"]:
    return np.concatenate([xy, np.ones((len(xy), 1))], axis=1)
