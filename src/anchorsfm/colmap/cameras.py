"""Projection with any COLMAP camera model, computed by pycolmap."""

import numpy as np
import pycolmap
from jaxtyping import Bool, Float

from anchorsfm.colmap.convert import from_pycolmap_camera, to_pycolmap_camera
from anchorsfm.scene.reconstruction import Camera

CAMERA_MODELS = (
    "SIMPLE_PINHOLE",
    "PINHOLE",
    "SIMPLE_RADIAL",
    "RADIAL",
    "OPENCV",
    "FULL_OPENCV",
    "SIMPLE_RADIAL_FISHEYE",
    "RADIAL_FISHEYE",
    "OPENCV_FISHEYE",
    "THIN_PRISM_FISHEYE",
)
"""Camera models offered to users."""


def make_camera(
    model: str, focal_px: float, width: int, height: int, principal_point_px: Float[np.ndarray, "2"] | None = None
) -> Camera:
    """An undistorted camera of a model; the principal point is the image centre unless given."""
    camera = pycolmap.Camera.create_from_model_name(1, model, float(focal_px), int(width), int(height))
    if principal_point_px is not None:
        camera.principal_point_x, camera.principal_point_y = map(float, principal_point_px)
    return from_pycolmap_camera(camera)


def focal_length_px(camera: Camera) -> float:
    """Mean of the horizontal and vertical focal length."""
    return float(to_pycolmap_camera(camera).mean_focal_length())


def principal_point_px(camera: Camera) -> Float[np.ndarray, "2"]:
    """(cx, cy) in COLMAP pixels."""
    entry = to_pycolmap_camera(camera)
    return np.array([entry.principal_point_x, entry.principal_point_y])


def has_absurd_params(camera: Camera) -> bool:
    """Focal length outside 0.1 .. 10 x the long side, or distortion above 1 (COLMAP's own limits)."""
    return bool(to_pycolmap_camera(camera).has_bogus_params(0.1, 10.0, 1.0))


def normalised_from_pixels(camera: Camera, xy_px: Float[np.ndarray, "point 2"]) -> Float[np.ndarray, "point 2"]:
    """Undistorted coordinates on the plane z = 1; NaN where the model cannot be inverted."""
    if not len(xy_px):
        return np.zeros((0, 2))
    return np.asarray(to_pycolmap_camera(camera).cam_from_img(np.asarray(xy_px, np.float64)))


def project(
    camera: Camera, points_in_cam: Float[np.ndarray, "point 3"]
) -> tuple[Float[np.ndarray, "point 2"], Bool[np.ndarray, "point"]]:
    """Pixels of points in the camera frame, and which of them lie in front of the camera."""
    in_front = points_in_cam[:, 2] > 1e-9
    xy = np.full((len(points_in_cam), 2), np.nan)
    if in_front.any():
        xy[in_front] = to_pycolmap_camera(camera).img_from_cam(np.asarray(points_in_cam[in_front], np.float64))
    return xy, in_front & np.isfinite(xy).all(axis=1)
