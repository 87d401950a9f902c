"""Triangulation whose points have gradients with respect to pixels, poses and intrinsics."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anchorsfm.api import arguments
from anchorsfm.geometry.cameras import PARAM_NAMES, normalised_from_pixels
from anchorsfm.geometry.triangulation import optimise_points
from anchorsfm.scene.errors import InputError
from anchorsfm.tracks.triangulate import RayBundle, TrackStatus
from anchorsfm.tracks.triangulate import triangulate as triangulate_robustly


@dataclass(frozen=True, kw_only=True)
class TriangulatedPoints:
    """Points of tracks, and which observations they are made from."""

    xyz: Float[Tensor, "point 3"]
    """NaN, without gradient, where a track has no point."""
    inlier: Bool[Tensor, "obs"]
    """Observations that agree with the point of their track."""
    status: Int[np.ndarray, "point"]
    """Values of `anchorsfm.tracks.triangulate.TrackStatus`: 0 a point; 1 fewer than two usable observations;
    2 too small an angle; 3 behind a camera; 4 no two observations agree."""


def triangulate(
    xy: Any,
    *,
    point: Any,
    image: Any,
    cam_from_world: Any,
    params: Any,
    camera_model: str = "SIMPLE_PINHOLE",
    max_error_px: int | float = 4.0,
    min_angle_deg: int | float = 1.5,
) -> TriangulatedPoints:
    """Robust points of many tracks at once, differentiable by `xy`, `cam_from_world` and `params`.

    Outliers are found first, without gradient; the points then are the least-squares points of the inliers, and their
    gradient is that of the minimum.

    Args:
        xy: (obs, 2) observations in pixels.
        point: (obs,) the track of each observation, in any order.
        image: (obs,) the image of each, a row of `cam_from_world`.
        cam_from_world: (image, 3, 4) poses [R | t], x right, y down, z forward.
        params: (params,) one camera for all, or (image, params) one for each, in COLMAP's order of `camera_model`:
            (f, cx, cy) of SIMPLE_PINHOLE, (fx, fy, cx, cy) of PINHOLE.
        camera_model: a COLMAP camera model.
        max_error_px: largest reprojection error of an inlier.
        min_angle_deg: smallest triangulation angle of a point.

    Raises:
        InputError: an argument cannot be used.
    """
    model = arguments.choice("camera_model", camera_model, PARAM_NAMES)
    pixels, poses = _tensor("xy", xy, "obs 2"), _tensor("cam_from_world", cam_from_world, "image 3 4")
    rows = {name: _rows(name, value, len(pixels)) for name, value in (("point", point), ("image", image))}
    if len(pixels) and rows["image"].max() >= len(poses):
        raise InputError(f"image: {int(rows['image'].max())} is no row of cam_from_world, which has {len(poses)}")
    needed = len(PARAM_NAMES[model])
    axes = f"image {needed}" if getattr(params, "ndim", np.ndim(params)) == 2 else f"{needed}"
    intrinsics = _tensor("params", params, axes)
    if intrinsics.ndim == 2 and len(intrinsics) != len(poses):
        raise InputError(f"params: {len(intrinsics)} cameras for {len(poses)} poses; expected (image, {needed})")
    limit = arguments.number("max_error_px", max_error_px, low=0.0, above=True)
    angle = arguments.number("min_angle_deg", min_angle_deg, low=0.0, high=90.0)

    view, track = (torch.from_numpy(rows[name]) for name in ("image", "point"))
    per_obs = intrinsics[view] if intrinsics.ndim == 2 else intrinsics.expand(len(pixels), -1)
    flat = normalised_from_pixels(model, per_obs, pixels)
    focal = per_obs[:, :2].mean(dim=1) if PARAM_NAMES[model][0] == "fx" else per_obs[:, 0]
    count = int(rows["point"].max(initial=-1)) + 1
    order = np.argsort(rows["point"], kind="stable")
    bundle = RayBundle(
        point=rows["point"][order],
        view=rows["image"][order],
        xy=flat.detach().numpy()[order],
        cam_from_world=poses.detach().numpy(),
        tolerance=limit / focal.detach().numpy()[order],
    )
    robust = triangulate_robustly(bundle, count, min_angle_deg=angle)
    inlier = np.zeros(len(pixels), bool)
    inlier[order] = robust.inlier
    found = np.flatnonzero(robust.status == TrackStatus.OK)
    row_of = np.full(count, -1)
    row_of[found] = np.arange(len(found))
    kept = torch.from_numpy(inlier)
    optimal = optimise_points(
        torch.from_numpy(robust.points[found]),
        point=torch.from_numpy(row_of)[track[kept]],
        view=view[kept],
        xy=flat[kept],
        cam_from_world=poses,
        weight=focal.detach()[kept] ** 2,
    )
    xyz = optimal.new_full((count, 3), torch.nan).index_copy(0, torch.from_numpy(found), optimal)
    return TriangulatedPoints(xyz=xyz, inlier=kept, status=robust.status)


def _tensor(argument: str, value: Any, axes: str) -> Tensor:
    """In float64 on the processor, with the gradient of what was given. NaN is allowed in pixels only."""
    checked = arguments.numbers(argument, value, axes, finite=argument != "xy")
    if isinstance(value, Tensor):
        return value.cpu().double()
    return torch.from_numpy(checked)


def _rows(argument: str, value: Any, count: int) -> Int[np.ndarray, "obs"]:
    array = arguments.plain_array(argument, value)
    if array.dtype.kind not in "iu" or array.shape != (count,):
        raise InputError(
            f"{argument}: expected whole numbers (obs,) for the {count} observations of xy, "
            f"got {array.dtype} {arguments.shape_text(array.shape)}"
        )
    if len(array) and array.min() < 0:
        raise InputError(f"{argument}: expected rows counted from 0, got {array.min()}")
    return array.astype(np.int64)
