"""Local planes: normals, and which pixels belong to the surface they were given the depth of.

The points of a plane n X = 1 have inverse depth 1/z = n K^-1 x, linear in the pixel x = (u, v, 1): a plane is fitted as
1/z = a u + b v + c around every pixel, and its normal is n = K^T (a, b, c). Pixels count by how alike their colour is,
and if their inverse depth is near that of the centre, so that planes end at edges.

Windows that straddle the edge of an object match as well one or two pixels beside it: the sky gets the depth of the
roof. Such a pixel looks like the sky around it, whose depth is unknown or another. So every pixel is asked whether
enough of the pixels around it that look alike (wider around than a window) lie on its plane.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

COLOUR_SIGMA = 12.0
"""Standard deviation of grey values on one surface."""
FIT_REACH_PX = 3
VOTE_REACH_PX, VOTE_STRIDE_PX = 9, 3
DAMPING = 1e-3
"""Pixels squared, against slopes of pixels that have hardly any company."""
JUMP = 0.03
"""Relative difference of inverse depth per pixel of distance beyond which a neighbour is on another surface."""
ON_PLANE = 0.02
"""Pixels lie on a plane if their inverse depth differs by less than this share."""
MIN_SHARE = 0.45
"""Of the pixels that look alike, this share must lie on the plane."""
MASKED_SAY = 0.5
"""Weight of masked ones: nobody looked whether they do. With their full weight a mask that ends on a wall would take a
strip of the wall along, with none a fringe of sky that a mask left beside a roof would be taken for the roof."""
ROUNDS = 2


@dataclass(frozen=True, kw_only=True)
class Planes:
    """A plane 1/z = value + du (u - u0) + dv (v - v0) around every pixel (u0, v0)."""

    value: Float32[np.ndarray, "h w"]
    du: Float32[np.ndarray, "h w"]
    dv: Float32[np.ndarray, "h w"]


def fit_planes(
    inverse_depth: Float32[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"], rgb: UInt8[np.ndarray, "h w 3"]
) -> Planes:
    """Weighted least squares around every valid pixel; flat where there are too few pixels for a slope."""
    height, width = inverse_depth.shape
    bands = cv2.split(rgb)
    s = {name: np.zeros((height, width), np.float32) for name in ("1", "u", "v", "uu", "uv", "vv", "r", "ur", "vr")}
    for du, dv in _offsets(FIT_REACH_PX, 1):
        if (du + dv) % 2:
            continue  # every other pixel, as on a chessboard, tells as much in half the time
        here, there = _overlap(height, width, du, dv)
        centre, other = inverse_depth[here], inverse_depth[there]
        difference = other - centre
        near = np.abs(difference) < JUMP * max(1.0, np.hypot(du, dv)) * np.abs(centre)
        weight = _colour_weight(bands, here, there) * (near & valid[there] & valid[here])
        s["1"][here] += weight
        s["u"][here] += weight * du
        s["v"][here] += weight * dv
        s["uu"][here] += weight * (du * du)
        s["uv"][here] += weight * (du * dv)
        s["vv"][here] += weight * (dv * dv)
        s["r"][here] += weight * difference
        s["ur"][here] += weight * difference * du
        s["vr"][here] += weight * difference * dv
    return _solve(s, inverse_depth)


def _solve(s: dict[str, Float32[np.ndarray, "h w"]], inverse_depth: Float32[np.ndarray, "h w"]) -> Planes:
    """Normal equations of every pixel, about the weighted mean; a little damping where they are singular."""
    total = np.maximum(s["1"], 1e-6)
    u, v, r = s["u"] / total, s["v"] / total, s["r"] / total
    uu, vv, uv = s["uu"] / total - u * u + DAMPING, s["vv"] / total - v * v + DAMPING, s["uv"] / total - u * v
    ur, vr = s["ur"] / total - u * r, s["vr"] / total - v * r
    determinant = uu * vv - uv * uv
    du, dv = (ur * vv - vr * uv) / determinant, (vr * uu - ur * uv) / determinant
    return Planes(value=inverse_depth + r - du * u - dv * v, du=du, dv=dv)


def on_surface(
    inverse_depth: Float32[np.ndarray, "h w"],
    planes: Planes,
    valid: Bool[np.ndarray, "h w"],
    rgb: UInt8[np.ndarray, "h w 3"],
    masked: Bool[np.ndarray, "h w"] | None = None,
) -> Bool[np.ndarray, "h w"]:
    """Valid pixels on whose plane enough of the pixels around lie that look alike.

    `masked`: pixels whose depth nobody looked for; they are not valid.
    """
    height, width = valid.shape
    bands = cv2.split(rgb)
    asked, votes = np.full((height, width), 1e-6, np.float32), []
    for du, dv in _offsets(VOTE_REACH_PX, VOTE_STRIDE_PX):
        if du == dv == 0:
            continue
        here, there = _overlap(height, width, du, dv)
        weight = _colour_weight(bands, here, there)
        if masked is not None:
            weight[masked[there]] *= MASKED_SAY
        expected = planes.value[here] + np.float32(du) * planes.du[here] + np.float32(dv) * planes.dv[here]
        close = np.abs(inverse_depth[there] - expected) < ON_PLANE * planes.value[here]
        asked[here] += weight
        votes.append((here, there, weight * close))
    for _ in range(ROUNDS):
        on_plane = np.zeros((height, width), np.float32)
        for here, there, weight in votes:
            on_plane[here] += weight * valid[there]
        valid = valid & (on_plane / asked >= MIN_SHARE)
    return valid


def normals(planes: Planes, focal_px: float, principal_point_px: np.ndarray) -> Float32[np.ndarray, "h w 3"]:
    """Unit normals in the camera's frame, towards the camera: -K^T (a, b, c) scaled to length 1."""
    height, width = planes.value.shape
    x = (np.arange(width) + 0.5 - principal_point_px[0]).astype(np.float32)
    y = (np.arange(height) + 0.5 - principal_point_px[1]).astype(np.float32)[:, None]
    at_centre = planes.value - planes.du * x - planes.dv * y
    vector = -np.stack([planes.du * np.float32(focal_px), planes.dv * np.float32(focal_px), at_centre], axis=-1)
    return vector / np.maximum(np.linalg.norm(vector, axis=-1, keepdims=True), 1e-20)


def _colour_weight(
    bands: Sequence[UInt8[np.ndarray, "h w"]], here: tuple[slice, slice], there: tuple[slice, slice]
) -> Float32[np.ndarray, "rows cols"]:
    """1 for pixels of the same colour, less for others; the band that differs most counts."""
    differences = [cv2.absdiff(band[here], band[there]) for band in bands]
    largest = cv2.max(cv2.max(differences[0], differences[1]), differences[2])
    return np.asarray(cv2.LUT(largest, _WEIGHT_OF_DIFFERENCE))


_WEIGHT_OF_DIFFERENCE = np.exp(-0.5 * (np.arange(256) / COLOUR_SIGMA) ** 2).astype(np.float32)


def _offsets(reach: int, stride: int) -> list[tuple[int, int]]:
    steps = range(-reach, reach + 1, stride)
    return [(du, dv) for dv in steps for du in steps]


def _overlap(height: int, width: int, du: int, dv: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The pixels that have a neighbour at (du, dv), and those neighbours."""
    here = slice(max(0, -dv), height - max(0, dv)), slice(max(0, -du), width - max(0, du))
    there = slice(max(0, dv), height + min(0, dv)), slice(max(0, du), width + min(0, du))
    return here, there
