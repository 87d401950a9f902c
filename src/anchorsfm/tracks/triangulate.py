"""Robust multi-view triangulation of many tracks at once (docs/method.md, Triangulation).

Observation k of a track is the pixel q = (q_x, q_y) on the plane z = 1 of a camera [R | t] with rows r_x, r_y, r_z. Its
residual at a world point X, in units of the largest error tau of an inlier, is a quotient of affine forms in X,

    u = (a X + b) / (c X + d),   a = (r_xy - q r_z) / tau,   b = (t_xy - q t_z) / tau,   c = r_z,   d = t_z,

with the Jacobian (a - u c) / (c X + d), and the observation is an inlier where |u| <= 1 and c X + d > 0. Everything
below evaluates these forms on dense arrays (slot, track) of tracks with equally many observations, chunk by chunk.

 1. Hypotheses: pairs of views. The points of two rays that are nearest to each other have depths from a 2x2 system in
    closed form; they are averaged with weights 1 / depth^2, so that both see the same angular error (as in Lee and
    Civera, "Triangulation: why optimize?", BMVC 2019). A pair counts if its rays meet in front of both cameras at a
    sufficient angle.
 2. The hypothesis with the least sum of min(|u|^2, 1) wins: most inliers, and among these least residual (MSAC: Torr
    and Zisserman, CVIU 2000). Pairs come in a fixed random order, in blocks; tracks stop when the chance of a better
    pair is negligible (the usual bound of random sampling), in particular when everything is an inlier.
 3. Refinement from all inliers: one linear least squares step (depths held constant; Hartley and Sturm, CVIU 1997),
    then Gauss-Newton, with inliers selected anew in between; the best point on the way by the same sum is kept. A track
    with outliers within 2 degrees is also refined from these: a short baseline may have put its hypothesis far off.

`geometry.triangulation` makes the points of the inliers found here differentiable.
Hartley and Zisserman, "Multiple View Geometry", 12.2; hypotheses as in VGGSfM (Wang et al., CVPR 2024, 3.3).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anchorsfm.geometry.small_systems import dot, solve_3x3

_BLOCK = 16
"""Hypotheses scored at once."""
_MISS_PROBABILITY = 1e-4
"""Sampling of pairs stops when all-inlier pairs have been missed with at most this probability."""
_COARSE_ANGLE_DEG = 2.0


@dataclass(frozen=True, kw_only=True)
class RayBundle:
    """Observations of tracks, sorted by point, as normalised image coordinates with the poses they were made from."""

    point: Int[np.ndarray, "obs"]
    view: Int[np.ndarray, "obs"]
    """Row of `cam_from_world`."""
    xy: Float[np.ndarray, "obs 2"]
    """Undistorted coordinates on the plane z = 1; NaN rows are never inliers."""
    cam_from_world: Float[np.ndarray, "view 3 4"]
    tolerance: Float[np.ndarray, "obs"]
    """Largest reprojection error of an inlier, in normalised units (pixels / focal)."""


class TrackStatus(IntEnum):
    """Why a track has a point or has none."""

    OK = 0
    TOO_FEW_VIEWS = 1
    """Fewer than two usable observations."""
    SMALL_ANGLE = 2
    """No two rays, or no two rays of inliers, meet at the smallest angle."""
    BEHIND_CAMERA = 3
    """All pairs of rays of sufficient angle meet behind a camera, or in one (no baseline)."""
    NO_AGREEMENT = 4
    """No point has two inliers."""


@dataclass(frozen=True, kw_only=True)
class Triangulation:
    """One point per track."""

    points: Float[np.ndarray, "point 3"]
    """NaN where the status is not OK."""
    inlier: Bool[np.ndarray, "obs"]
    """All False for tracks without a point."""
    angle_deg: Float[np.ndarray, "point"]
    """Widest angle between two inlier rays as lines, 0 .. 90; 0 where no point has two inliers."""
    status: Int[np.ndarray, "point"]
    """Values of `TrackStatus`."""


def triangulate(
    bundle: RayBundle,
    num_points: int,
    *,
    min_angle_deg: float = 1.5,
    max_hypotheses: int = 256,
    chunk_size: int = 24_576,
    device: str | torch.device = "cpu",
) -> Triangulation:
    """Triangulate all tracks of a bundle; degenerate tracks give NaN, no inliers and a status, never an error.

    Args:
        bundle: observations sorted by point.
        num_points: number of tracks; those without observations get the status TOO_FEW_VIEWS.
        min_angle_deg: smallest angle between the rays of a hypothesis, and smallest widest angle of a point.
        max_hypotheses: largest number of view pairs that are tried for a track.
        chunk_size: observations handled at a time (whole tracks, so at least one track); bounds the memory on top of
            inputs and results to roughly 1 KiB per observation of a chunk.
        device: where to compute; large chunks suit a GPU.
    """
    points = np.full((num_points, 3), np.nan)
    inlier = np.zeros(len(bundle.point), bool)
    angle_deg = np.zeros(num_points)
    status = np.full(num_points, int(TrackStatus.TOO_FEW_VIEWS))
    with torch.inference_mode():
        views = _Views.of(bundle, device)
        for part in _dense_parts(bundle, _usable(bundle), num_points, chunk_size):
            chunk = _chunk(views, bundle, part)
            solved = _solve_chunk(chunk, min_angle_deg, max_hypotheses)
            points[part.track] = solved.points.T.cpu().numpy()
            angle_deg[part.track] = solved.angle_deg.cpu().numpy()
            status[part.track] = solved.status.cpu().numpy()
            inlier[part.rows[solved.inlier.cpu().numpy()]] = True
    return Triangulation(points=points, inlier=inlier, angle_deg=angle_deg, status=status)


def reprojection_errors(bundle: RayBundle, points: Float[np.ndarray, "point 3"]) -> Float[np.ndarray, "obs"]:
    """Distance on the plane z = 1 between projection and observation; infinite behind the camera or for NaN."""
    pose, world = bundle.cam_from_world[bundle.view], points[bundle.point]
    camera = np.einsum("nij,nj->ni", pose[:, :, :3], world) + pose[:, :, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.hypot(*(camera[:, :2] / camera[:, 2:] - bundle.xy).T)
    bad = ~(camera[:, 2] > 0) | ~np.isfinite(error)
    return np.where(bad, np.inf, error)


def widest_angle_deg(
    bundle: RayBundle,
    inlier: Bool[np.ndarray, "obs"],
    points: Float[np.ndarray, "point 3"],
    num_points: int,
    *,
    chunk_size: int = 24_576,
) -> Float[np.ndarray, "point"]:
    """Widest angle of the inlier rays of each point as lines (0 .. 90); 0 for fewer than two rays or a NaN point.

    Exact for up to 16 rays; for longer tracks the widest of what two sweeps find, which is seldom less.
    """
    angle_deg = np.zeros(num_points)
    usable = inlier & np.isfinite(bundle.cam_from_world).all((1, 2))[bundle.view]
    with torch.inference_mode():
        views = _Views.of(bundle, "cpu")
        for part in _dense_parts(bundle, usable, num_points, chunk_size):
            centre = views.centre[:, torch.from_numpy(bundle.view[part.rows])]
            point = torch.from_numpy(np.ascontiguousarray(points[part.track].T))
            angle_deg[part.track] = _widest_angle_deg(centre, point, torch.from_numpy(part.filled)).numpy()
    return angle_deg


# --- dense chunks of tracks with equally many observations -----------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Views:
    """What an observation needs of its view, one column a view."""

    pose: Float[Tensor, "12 view"]
    centre: Float[Tensor, "3 view"]

    @staticmethod
    def of(bundle: RayBundle, device: str | torch.device) -> "_Views":
        pose = torch.from_numpy(np.asarray(bundle.cam_from_world, np.float64)).to(device)
        centre = -(pose[:, :, :3].transpose(1, 2) @ pose[:, :, 3:])[:, :, 0]
        return _Views(pose=pose.reshape(-1, 12).T.contiguous(), centre=centre.T.contiguous())


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Some tracks of similar length, as rows of the bundle."""

    track: Int[np.ndarray, "track"]
    rows: Int[np.ndarray, "slot track"]
    """Rows of observations; slots beyond a track's length repeat a row and are not `filled`."""
    filled: Bool[np.ndarray, "slot track"]


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    """The affine forms of the module's docstring, and the rays. Empty slots see everything behind them."""

    a: Float[Tensor, "3 2 slot track"]
    b: Float[Tensor, "2 slot track"]
    c: Float[Tensor, "3 slot track"]
    d: Float[Tensor, "slot track"]
    ray: Float[Tensor, "3 slot track"]
    """Unit directions in the world frame; 0 in empty slots."""
    centre: Float[Tensor, "3 slot track"]
    coarse: Float[Tensor, "slot track"]
    """Square of the residual that corresponds to the coarse angle."""
    length: Int[Tensor, "track"]

    @property
    def num_slots(self) -> int:
        return self.d.shape[0]

    def select(self, track: Int[Tensor, "some"]) -> "_Chunk":
        return _Chunk(**{name: value.index_select(-1, track) for name, value in vars(self).items()})


def _usable(bundle: RayBundle) -> Bool[np.ndarray, "obs"]:
    known_view = np.isfinite(bundle.cam_from_world).all((1, 2))
    return np.isfinite(bundle.xy).all(1) & (bundle.tolerance > 0) & known_view[bundle.view]


def _dense_parts(
    bundle: RayBundle, usable: Bool[np.ndarray, "obs"], num_points: int, chunk_size: int
) -> Iterator[_Part]:
    """Tracks with at least two usable observations, by number of slots, at most `chunk_size` slots at a time."""
    row_of = np.flatnonzero(usable)
    length = np.bincount(bundle.point[row_of], minlength=num_points)
    start = np.cumsum(length) - length
    slots = _slots(length)
    for num_slots in np.unique(slots[length >= 2]).tolist():
        same = np.flatnonzero((slots == num_slots) & (length >= 2))
        place = np.arange(num_slots)[:, None]
        size = max(1, chunk_size // num_slots)
        for begin in range(0, len(same), size):
            track = same[begin : begin + size]
            filled = place < length[track]
            yield _Part(track=track, rows=row_of[start[track] + np.where(filled, place, 0)], filled=filled)


def _slots(length: Int[np.ndarray, "track"]) -> Int[np.ndarray, "track"]:
    """Lengths, those above 16 rounded up by at most an eighth, so that there are few different ones."""
    step = 2 ** np.maximum(np.ceil(np.log2(np.maximum(length, 1))).astype(np.int64) - 4, 0)
    return -(-length // step) * step


def _chunk(views: _Views, bundle: RayBundle, part: _Part) -> _Chunk:
    device = views.pose.device
    load = lambda values: torch.from_numpy(values[part.rows]).to(device)  # noqa: E731
    shape = part.rows.shape
    view = load(bundle.view).flatten()
    pose = views.pose.index_select(1, view).view(3, 4, *shape)
    x, y = load(np.asarray(bundle.xy, np.float64)).movedim(-1, 0).contiguous()
    scale = 1 / load(np.asarray(bundle.tolerance, np.float64))
    filled = torch.from_numpy(part.filled).to(device)
    forms = torch.stack(
        [(pose[0] - x * pose[2]) * scale, (pose[1] - y * pose[2]) * scale], dim=1
    )  # (4, 2, slot, track)
    ray = x * pose[0, :3] + y * pose[1, :3] + pose[2, :3]
    square = x * x + y * y + 1
    ray *= square.rsqrt()
    depth = pose[2].clone()
    if not part.filled.all():
        empty = ~filled
        forms.masked_fill_(empty, 0.0)
        forms[3].masked_fill_(empty, 1.0)
        depth.masked_fill_(empty, 0.0)
        depth[3].masked_fill_(empty, -1.0)
        ray.masked_fill_(empty, 0.0)
    # an angle moves a projection by at least angle * length of the ray (z = 1), across the radius
    coarse = (np.deg2rad(_COARSE_ANGLE_DEG) * scale) ** 2 * square
    return _Chunk(
        a=forms[:3],
        b=forms[3],
        c=depth[:3],
        d=depth[3],
        ray=ray,
        centre=views.centre.index_select(1, view).view(3, *shape),
        coarse=coarse.clamp(min=1.0),
        length=filled.sum(0),
    )


# --- solving a chunk -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Solved:
    points: Float[Tensor, "3 track"]
    inlier: Bool[Tensor, "slot track"]
    angle_deg: Float[Tensor, "track"]
    status: Int[Tensor, "track"]


@dataclass(frozen=True, kw_only=True)
class _Hypothesis:
    """The best one of each track so far."""

    points: Float[Tensor, "3 track"]
    """NaN where there is none."""
    cost: Float[Tensor, "track"]
    wide: Bool[Tensor, "track"]
    """Some pair of rays has a sufficient angle."""
    in_front: Bool[Tensor, "track"]
    """Some such pair meets in front of both cameras."""


def _solve_chunk(chunk: _Chunk, min_angle_deg: float, max_hypotheses: int) -> _Solved:
    best = _best_hypothesis(chunk, min_angle_deg, max_hypotheses)
    points = _refined(chunk, best.points, best.cost)
    inlier = _squared_errors(chunk, points) <= 1
    agreed = inlier.sum(0) >= 2
    angle_deg = torch.where(agreed, _widest_angle_deg(chunk.centre, points, inlier), 0.0)
    status = torch.full_like(chunk.length, int(TrackStatus.OK))
    status[angle_deg < min_angle_deg] = int(TrackStatus.SMALL_ANGLE)
    status[~agreed] = int(TrackStatus.NO_AGREEMENT)
    status[~best.in_front] = int(TrackStatus.BEHIND_CAMERA)
    status[~best.wide] = int(TrackStatus.SMALL_ANGLE)
    good = status == int(TrackStatus.OK)
    return _Solved(
        points=torch.where(good, points, torch.nan), inlier=inlier & good, angle_deg=angle_deg, status=status
    )


def _best_hypothesis(chunk: _Chunk, min_angle_deg: float, max_hypotheses: int) -> _Hypothesis:
    """Try pairs in blocks; the tracks that can hardly gain from more pairs leave."""
    pairs = torch.from_numpy(_view_pairs(chunk.num_slots, max_hypotheses)).to(chunk.d.device)
    best = _try_pairs(chunk, pairs[:, :_BLOCK], min_angle_deg)
    open_tracks = torch.arange(len(chunk.length), device=chunk.d.device)
    for begin in range(_BLOCK, pairs.shape[1], _BLOCK):
        rest = chunk.select(open_tracks)
        still = ~_settled(rest, best.points[:, open_tracks], begin)
        open_tracks = open_tracks[still]
        if not len(open_tracks):
            break
        new = _try_pairs(rest.select(torch.nonzero(still)[:, 0]), pairs[:, begin : begin + _BLOCK], min_angle_deg)
        better = new.cost < best.cost[open_tracks]
        winners = open_tracks[better]
        best.points[:, winners] = new.points[:, better]
        best.cost[winners] = new.cost[better]
        best.wide[open_tracks] |= new.wide
        best.in_front[open_tracks] |= new.in_front
    return best


def _settled(chunk: _Chunk, points: Float[Tensor, "3 track"], num_tried: int) -> Bool[Tensor, "track"]:
    """Whether a pair of inliers has almost certainly been among those tried."""
    count = (_squared_errors(chunk, points) <= 1).sum(0).double()
    length = chunk.length.double()
    share = (count * (count - 1) / (length * (length - 1))).clamp(0, 1)
    return num_tried * torch.log1p(-share) <= np.log(_MISS_PROBABILITY)


@lru_cache(maxsize=64)
def _view_pairs(num_slots: int, max_hypotheses: int) -> Int[np.ndarray, "2 pair"]:
    """Pairs of slots in a random order that depends on nothing but the arguments."""
    first, second = np.triu_indices(num_slots, 1)
    generator = np.random.default_rng(num_slots)
    chosen = generator.choice(len(first), min(len(first), max_hypotheses), replace=False)
    return np.stack([first[chosen], second[chosen]])


def _try_pairs(chunk: _Chunk, pairs: Int[Tensor, "2 pair"], min_angle_deg: float) -> _Hypothesis:
    points, wide, in_front = _two_view_points(chunk, pairs, np.sin(np.deg2rad(min_angle_deg)) ** 2)
    cost = torch.where(in_front, _costs(chunk, points), torch.inf)
    cost, winner = cost.min(0)
    chosen = points.gather(1, winner.expand(3, 1, -1))[:, 0]
    in_front = in_front.any(0)
    return _Hypothesis(points=torch.where(in_front, chosen, torch.nan), cost=cost, wide=wide.any(0), in_front=in_front)


def _two_view_points(
    chunk: _Chunk, pairs: Int[Tensor, "2 pair"], min_sine_squared: float
) -> tuple[Float[Tensor, "3 pair track"], Bool[Tensor, "pair track"], Bool[Tensor, "pair track"]]:
    """Points of pairs of rays o + s r, p + t q; whether the angle suffices; whether also both depths are positive."""
    o, p = (chunk.centre.index_select(1, slot) for slot in pairs)
    r, q = (chunk.ray.index_select(1, slot) for slot in pairs)
    between = p - o
    cosine, along_r, along_q = dot(r, q), dot(between, r), dot(between, q)
    length = dot(r, r)  # 1, or 0 in an empty slot
    sine_squared = length * dot(q, q) - cosine * cosine
    wide = (sine_squared >= min_sine_squared) & (sine_squared > 1e-14)
    s = (along_r - cosine * along_q) / sine_squared
    t = (cosine * along_r - along_q) / sine_squared
    in_front = wide & (s > 0) & (t > 0)
    share = t * t / (s * s + t * t)  # 1/s^2 over 1/s^2 + 1/t^2
    points = torch.lerp(p.addcmul_(q, t), o.addcmul_(r, s), share)
    return points, wide, in_front


def _costs(chunk: _Chunk, points: Float[Tensor, "3 pair track"]) -> Float[Tensor, "pair track"]:
    """Sum of min(|u|^2, 1) over the slots."""
    cost = torch.zeros_like(points[0])
    for slot in range(chunk.num_slots):
        depth = _affine(chunk.c[:, slot], chunk.d[slot], points).clamp_(min=1e-100)
        error = _affine(chunk.a[:, 0, slot], chunk.b[0, slot], points).square_()
        other = _affine(chunk.a[:, 1, slot], chunk.b[1, slot], points)
        cost += error.addcmul_(other, other).div_(depth.square_()).clamp_(max=1.0)
    return cost


def _affine(
    coefficients: Float[Tensor, "3 *form"], constant: Float[Tensor, "*form"], points: Float[Tensor, "3 *point"]
) -> Float[Tensor, "*both"]:
    """Coefficients . points + constant, with broadcasting."""
    value = torch.addcmul(constant, coefficients[0], points[0])
    return value.addcmul_(coefficients[1], points[1]).addcmul_(coefficients[2], points[2])


def _refined(
    chunk: _Chunk, start: Float[Tensor, "3 track"], start_cost: Float[Tensor, "track"]
) -> Float[Tensor, "3 track"]:
    """Least squares from the inliers, and, where others are within the coarse angle, also from these."""
    error = _squared_errors(chunk, start)
    points, cost = _descend(chunk, start, start_cost, error <= 1)
    doubtful = torch.nonzero(((error <= chunk.coarse) & (_squared_errors(chunk, points) > 1)).any(0))[:, 0]
    if len(doubtful):
        some = chunk.select(doubtful)
        again, again_cost = _descend(some, start[:, doubtful], cost[doubtful], error[:, doubtful] <= some.coarse)
        points[:, doubtful] = torch.where(again_cost < cost[doubtful], again, points[:, doubtful])
    return points


def _descend(
    chunk: _Chunk,
    start: Float[Tensor, "3 track"],
    start_cost: Float[Tensor, "track"],
    inlier: Bool[Tensor, "slot track"],
) -> tuple[Float[Tensor, "3 track"], Float[Tensor, "track"]]:
    """A linear step and Gauss-Newton steps with inliers selected in between; the best point and its cost."""
    best, best_cost = start, start_cost
    points = start
    for linear in (True, False):
        points = _step(chunk, points, inlier, linear=linear)
        points = _step(chunk, points, inlier, linear=False)
        error = _squared_errors(chunk, points)
        cost = error.clamp(max=1.0).sum(0)
        better = cost < best_cost
        best, best_cost = torch.where(better, points, best), torch.where(better, cost, best_cost)
        inlier = error <= 1
    return best, best_cost


def _squared_errors(chunk: _Chunk, points: Float[Tensor, "3 track"]) -> Float[Tensor, "slot track"]:
    """|u|^2, infinite behind the camera, in empty slots, and for NaN points."""
    depth = _affine(chunk.c, chunk.d, points)
    numerator = _affine(chunk.a, chunk.b, points)
    error = torch.addcmul(numerator[0] * numerator[0], numerator[1], numerator[1]) / depth.square()
    return torch.where((depth > 0) & (error >= 0), error, torch.inf)


def _step(
    chunk: _Chunk, points: Float[Tensor, "3 track"], inlier: Bool[Tensor, "slot track"], *, linear: bool
) -> Float[Tensor, "3 track"]:
    """One least-squares step from the inliers; `linear` takes their depths for constants."""
    depth = _affine(chunk.c, chunk.d, points)
    inverse_depth = torch.where(inlier, 1 / depth, 0.0)
    residual = _affine(chunk.a, chunk.b, points) * inverse_depth
    jacobian = chunk.a if linear else chunk.a - residual * chunk.c[:, None]
    rows = (jacobian * inverse_depth).flatten(1, 2)
    residual = residual.flatten(0, 1)
    gradient = torch.stack([(row * residual).sum(0) for row in rows])
    products = {(i, j): (rows[i] * rows[j]).sum(0) for i in range(3) for j in range(i, 3)}
    hessian = torch.stack([torch.stack([products[min(i, j), max(i, j)] for j in range(3)]) for i in range(3)])
    step, _ = solve_3x3(hessian, gradient)
    return points - step


def _widest_angle_deg(
    centre: Float[Tensor, "3 slot track"], points: Float[Tensor, "3 track"], used: Bool[Tensor, "slot track"]
) -> Float[Tensor, "track"]:
    """Of the lines from the points to the used centres: all pairs up to 16, else the farthest from the farthest ray."""
    ray = points[:, None] - centre
    ray = ray * dot(ray, ray).rsqrt()
    ray = torch.where(used, ray, torch.nan)
    if ray.shape[1] <= 16:
        cosines = [dot(ray[:, :-k], ray[:, k:]).abs_() for k in range(1, ray.shape[1])]
        least = torch.cat(cosines).nan_to_num_(nan=1.0).amin(0)
    else:
        reference = torch.nan_to_num(ray).sum(1)
        for _ in range(3):
            least, farthest = dot(ray, reference[:, None].expand_as(ray)).abs().nan_to_num_(nan=torch.inf).min(0)
            reference = ray.gather(1, farthest.expand(3, 1, -1))[:, 0]
    return torch.rad2deg(torch.arccos(least.clamp(max=1.0)))
