"""Projection with any COLMAP camera model, computed by pycolmap."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pycolmap
from jaxtyping import Bool, Float
from scipy.optimize import least_squares

from anchorsfm.colmap.convert import from_pycolmap_camera, to_pycolmap_camera
from anchorsfm.scene.reconstruction import CAMERA_MODELS, Camera

FOCAL_RANGE = (0.1, 25.0)
"""Focal lengths over the long side that an adjustment may end with."""
_USUAL_FOCAL = 2.0
"""Over the long side, up to which COLMAP's limit of distortion holds."""
_SAME_PIXEL_PX = 0.1
"""A ray whose projection is further from its pixel is not the ray of that pixel."""
_WIDEST = 4.0
"""Rays further than 76 degrees from the axis say little about a camera model and would dominate a fit."""
_PULL = 1e-4
"""A distortion parameter of 1 weighs as much as one pixel that is wrong by this share of the focal length."""

_TANGENTIAL = (6, 7, 1)
_OF_DIRECTION = {
    "OPENCV": (_TANGENTIAL,),
    "FULL_OPENCV": (_TANGENTIAL,),
    "THIN_PRISM_FISHEYE": (_TANGENTIAL, (10, 11, -1)),
}
"""Pairs of distortion parameters that change when a picture is turned, and with which sign: others are radial."""


def make_camera(
    model: str, focal_px: float, width: int, height: int, principal_point_px: Float[np.ndarray, "2"] | None = None
) -> Camera:
    """An undistorted camera of a model; the principal point is the image centre unless given."""
    camera = pycolmap.Camera.create_from_model_name(1, model, float(focal_px), int(width), int(height))
    if principal_point_px is not None:
        camera.principal_point_x, camera.principal_point_y = map(float, principal_point_px)
    return from_pycolmap_camera(camera)


def camera_of_params(model: str, width: int, height: int, params: Sequence[float]) -> Camera:
    """A camera with all its parameters, from somebody else.

    Raises ValueError that says what is wrong with it.
    """
    if model not in CAMERA_MODELS:
        raise ValueError(f"the camera model {model!r} is none of {', '.join(CAMERA_MODELS)}")
    camera = make_camera(model, 1.0, width, height)
    if len(params) != len(camera.params):
        raise ValueError(f"{model} has {len(camera.params)} parameters, not {len(params)}")
    camera = replace(camera, params=tuple(map(float, params)))
    if has_absurd_params(camera):
        raise ValueError(f"its parameters are not those of a camera for pictures of {width}x{height} pixels")
    return camera


def focal_length_px(camera: Camera) -> float:
    """Mean of the horizontal and vertical focal length."""
    return float(to_pycolmap_camera(camera).mean_focal_length())


def principal_point_px(camera: Camera) -> Float[np.ndarray, "2"]:
    """(cx, cy) in COLMAP pixels."""
    entry = to_pycolmap_camera(camera)
    return np.array([entry.principal_point_x, entry.principal_point_y])


def principal_point_rows(camera: Camera) -> list[int]:
    """Where cx and cy stand among the parameters."""
    return [int(k) for k in to_pycolmap_camera(camera).principal_point_idxs()]


def focal_rows(camera: Camera) -> list[int]:
    """Where the focal length, or both, stand among the parameters."""
    return [int(k) for k in to_pycolmap_camera(camera).focal_length_idxs()]


def with_focal_length(camera: Camera, focal_px: float) -> Camera:
    """The camera with another focal length, in both directions."""
    params = np.array(camera.params)
    params[focal_rows(camera)] = focal_px
    return replace(camera, params=tuple(params.tolist()))


def with_principal_point(camera: Camera, xy_px: Float[np.ndarray, "2"]) -> Camera:
    """The camera with another principal point."""
    params = np.array(camera.params)
    params[principal_point_rows(camera)] = xy_px
    return replace(camera, params=tuple(params.tolist()))


def turned_camera(camera: Camera, turns: int) -> Camera:
    """The camera that sees the picture turned by quarter turns (see `geometry.quarter_turns`), with the same lens."""
    for _ in range(turns % 4):
        camera = _turned_once(camera)
    return camera


def _turned_once(camera: Camera) -> Camera:
    params = np.array(camera.params)
    params[focal_rows(camera)] = params[focal_rows(camera)[::-1]]
    x, y = principal_point_rows(camera)
    params[[x, y]] = params[y], camera.width - params[x]
    for first, second, sign in _OF_DIRECTION.get(camera.model, ()):
        params[[first, second]] = -sign * params[second], sign * params[first]
    return replace(camera, width=camera.height, height=camera.width, params=tuple(params.tolist()))


def has_absurd_params(camera: Camera) -> bool:
    """Focal length outside `FOCAL_RANGE` x the long side, or distortion above 1, COLMAP's own limit.

    The rational model may have larger coefficients: numerator and denominator nearly cancel. So may long lenses: what
    bends their picture by as many pixels is a coefficient that grows with the square of the focal length.
    """
    largest = 10.0 if camera.model == "FULL_OPENCV" else 1.0
    stretched = focal_length_px(camera) / (_USUAL_FOCAL * max(camera.width, camera.height))
    largest *= max(1.0, stretched) ** 2
    return bool(to_pycolmap_camera(camera).has_bogus_params(*FOCAL_RANGE, largest))


def describe_params(camera: Camera) -> str:
    """Focal length, principal point and largest distortion, in words."""
    rows = to_pycolmap_camera(camera).extra_params_idxs()
    distortion = max((camera.params[row] for row in rows), key=abs, default=0.0)
    x, y = principal_point_px(camera)
    return (
        f"focal length {focal_length_px(camera):.0f} px, principal point {x:.0f}, {y:.0f} px, distortion "
        f"{distortion:.2g} of a picture of {camera.width}x{camera.height} px"
    )


def normalised_from_pixels(camera: Camera, xy_px: Float[np.ndarray, "point 2"]) -> Float[np.ndarray, "point 2"]:
    """Undistorted coordinates on the plane z = 1; NaN for pixels without a ray that meets it."""
    if not len(xy_px):
        return np.zeros((0, 2))
    entry, xy_px = to_pycolmap_camera(camera), np.asarray(xy_px, np.float64)
    plane = np.array(entry.cam_from_img(xy_px))
    if camera.model.endswith("FISHEYE"):
        # PyCOLMAP answers for rays of 90 degrees and more too, with places on the plane that other rays meet
        back = np.asarray(entry.img_from_cam(np.column_stack([plane, np.ones(len(plane))])))
        plane[~(np.abs(back - xy_px).max(axis=1) < _SAME_PIXEL_PX)] = np.nan
    return plane


def normalised_per_pixel(camera: Camera, xy_px: Float[np.ndarray, "point 2"]) -> Float[np.ndarray, "point"]:
    """How long a pixel is on the plane z = 1 at every point: root of the area that a square pixel covers there.

    1 / focal length for a pinhole; towards the border of a wide lens a pixel covers much more of the plane.
    """
    flat = np.full(len(xy_px), 1 / focal_length_px(camera))
    if camera.model in ("SIMPLE_PINHOLE", "PINHOLE") or not len(xy_px):
        return flat
    half = 0.5
    ends = [normalised_from_pixels(camera, xy_px + step) for step in ((half, 0), (-half, 0), (0, half), (0, -half))]
    along_x, along_y = ends[0] - ends[1], ends[2] - ends[3]
    area = np.abs(along_x[:, 0] * along_y[:, 1] - along_x[:, 1] * along_y[:, 0])
    return np.where(np.isfinite(area), np.sqrt(area), flat)


def project(
    camera: Camera, points_in_cam: Float[np.ndarray, "point 3"]
) -> tuple[Float[np.ndarray, "point 2"], Bool[np.ndarray, "point"]]:
    """Pixels of points in the camera frame, and which of them lie in front of the camera."""
    in_front = points_in_cam[:, 2] > 0
    if in_front.all():  # as a rule, and without copies
        xy = to_pycolmap_camera(camera).img_from_cam(np.asarray(points_in_cam, np.float64))
    else:
        xy = np.full((len(points_in_cam), 2), np.nan)
        if in_front.any():
            xy[in_front] = to_pycolmap_camera(camera).img_from_cam(np.asarray(points_in_cam[in_front], np.float64))
    return xy, in_front & np.isfinite(xy[:, 0]) & np.isfinite(xy[:, 1])


def distortion_px(camera: Camera, steps: int = 24) -> Float[np.ndarray, "sample"]:
    """How far the distortion moves a grid of pixels over the image, against a pinhole of the same focal length."""
    xy = _pixel_grid(camera, steps)
    plane = normalised_from_pixels(camera, xy)
    entry = to_pycolmap_camera(camera)
    focal = np.array([entry.focal_length_x, entry.focal_length_y])
    return np.asarray(np.linalg.norm(plane * focal + principal_point_px(camera) - xy, axis=1))


def convert_camera(camera: Camera, model: str, *, steps: int = 24) -> Camera:
    """The camera of another model that looks most alike over the image; the principal point is kept."""
    if camera.model == model:
        return camera
    xy = _pixel_grid(camera, steps)
    start = make_camera(model, focal_length_px(camera), camera.width, camera.height, principal_point_px(camera))
    return fit_camera(start, xy, normalised_from_pixels(camera, xy)).camera


@dataclass(frozen=True, kw_only=True)
class CameraFit:
    """A camera fitted to rays of pixels."""

    camera: Camera
    error_px: float
    """Root mean square distance between the pixels and the projections of their rays."""


def fit_camera(start: Camera, xy_px: Float[np.ndarray, "point 2"], plane: Float[np.ndarray, "point 2"]) -> CameraFit:
    """Focal lengths and distortion with which a camera sees rays at given pixels; the principal point stays.

    Robust least squares, with a weak pull of the distortion parameters to zero, because in some models several do
    nearly the same. Rays that are NaN, or meet the plane z = 1 further out than `_WIDEST`, are left out: they are few
    pixels, and no polynomial in the tangent follows them.

    Args:
        start: model, size and principal point; its focal length is where the fit starts.
        xy_px: pixels all over the image.
        plane: undistorted coordinates of their rays on the plane z = 1.
    """
    entry = to_pycolmap_camera(start)
    of_focal, distortion_rows = focal_rows(start), list(entry.extra_params_idxs())
    free = np.array(sorted({*of_focal, *distortion_rows}))
    near = np.linalg.norm(np.nan_to_num(plane, nan=np.inf), axis=1) < _WIDEST
    rays, xy = np.concatenate([plane[near], np.ones((int(near.sum()), 1))], axis=1), xy_px[near]
    focal = focal_length_px(start)
    scale = np.where(np.isin(free, of_focal), focal, 1.0)
    pull = np.where(np.isin(free, distortion_rows), _PULL * focal, 0.0)

    def candidate(values: Float[np.ndarray, "free"]) -> Camera:
        params = np.array(start.params)
        params[free] = values * scale
        return replace(start, params=tuple(params.tolist()))

    def miss_px(values: Float[np.ndarray, "free"]) -> Float[np.ndarray, "row"]:
        found, visible = project(candidate(values), rays)
        return np.asarray(np.where(visible[:, None], found - xy, float(start.width)).ravel())

    def residual(values: Float[np.ndarray, "free"]) -> Float[np.ndarray, "row"]:
        return np.concatenate([miss_px(values), pull * values])

    first = np.array(start.params)[free] / scale
    found = least_squares(residual, first, loss="soft_l1", f_scale=0.01 * start.width, max_nfev=200).x
    if has_absurd_params(candidate(found)):
        found = first
    return CameraFit(camera=candidate(found), error_px=float(np.sqrt(2 * (miss_px(found) ** 2).mean())))


def _pixel_grid(camera: Camera, steps: int) -> Float[np.ndarray, "sample 2"]:
    x, y = np.meshgrid((np.arange(steps) + 0.5) / steps, (np.arange(steps) + 0.5) / steps)
    return np.stack([x.ravel() * camera.width, y.ravel() * camera.height], axis=1)


def field_of_view_deg(camera: Camera) -> float:
    """Angle between the rays of opposite image corners; of the focal length alone where a corner has no ray."""
    corners = np.array([[0.0, 0.0], [camera.width, camera.height]])
    plane = normalised_from_pixels(camera, corners)
    if not np.isfinite(plane).all():
        diagonal = float(np.hypot(camera.width, camera.height))
        return float(np.degrees(2 * np.arctan(diagonal / 2 / focal_length_px(camera))))
    return float(np.degrees(np.arctan(np.linalg.norm(plane, axis=1))).sum())
