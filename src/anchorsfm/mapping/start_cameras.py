"""Cameras and poses of an alignment in original pixels: where triangulation and adjustment start from."""

import numpy as np
from jaxtyping import Float

from anchorsfm.colmap.cameras import CameraFit, fit_camera, make_camera
from anchorsfm.scene.alignment import AlignmentResult
from anchorsfm.scene.edit import without_points
from anchorsfm.scene.images import ImageGrid, ImageSet
from anchorsfm.scene.reconstruction import Camera, Reconstruction
from anchorsfm.scene.settings import TYPICAL_FOCAL

AUTO_MODELS = ("SIMPLE_RADIAL", "RADIAL", "OPENCV_FISHEYE")
"""From which "auto" takes the simplest that fits; a better one may be chosen when there are tracks."""
AUTO_ERROR = 0.002
"""Largest misfit of a model that "auto" takes, as a share of the image width (root mean square)."""


def start_model(
    alignment: AlignmentResult, images: ImageSet, grid: ImageGrid, camera_model: str, *, known: dict[int, Camera]
) -> Reconstruction:
    """The alignment as a model without points.

    Views of one camera of the ImageSet share a camera with the median of their focal lengths and the principal point
    in the middle, because the adjustment decides whether it is observable; cameras in `known` (by row of the
    ImageSet's cameras) are taken as they are. Distortion that the grid is free of becomes parameters of the camera
    model, as far as that has any.
    """
    rows = images.camera_index[alignment.image_index]
    used = np.unique(rows)
    focal_px = alignment.focal_px / grid.scale[alignment.image_index].mean(axis=1)
    cameras = []
    for row in used:
        image = int(alignment.image_index[rows == row][0])
        given = known.get(int(row))
        cameras.append(
            given or start_camera(camera_model, float(np.median(focal_px[rows == row])), grid, images, image)
        )
    return without_points(alignment.image_index, alignment.cam_from_world, tuple(cameras), np.searchsorted(used, rows))


def start_cameras(
    images: ImageSet,
    focal_px: Float[np.ndarray, "image"],
    camera_model: str,
    *,
    known: dict[int, Camera],
    grid: ImageGrid | None = None,
) -> tuple[Camera, ...]:
    """One camera per camera of the ImageSet with the median focal length of its images, as for `start_model`.

    `focal_px` (image,) is in original pixels; cameras where it is NaN throughout get a typical focal length. `grid`
    tells the distortion.
    """
    cameras = []
    for row in range(images.num_cameras):
        mine = images.camera_index == row
        seen = focal_px[mine][np.isfinite(focal_px[mine])]
        focal = float(np.median(seen)) if len(seen) else TYPICAL_FOCAL * float(images.size_wh[mine][0].max())
        image = int(np.flatnonzero(mine)[0])
        cameras.append(known.get(row) or start_camera(camera_model, focal, grid, images, image))
    return tuple(cameras)


def start_camera(model: str, focal_px: float, grid: ImageGrid | None, images: ImageSet, image: int) -> Camera:
    """Camera of a model that shows an image like the grid's distortion and a focal length (original pixels).

    Models without distortion, and undistorted images, keep the focal length. "auto" is the first of AUTO_MODELS that
    follows the grid's distortion well.
    """
    for name in AUTO_MODELS if model == "auto" else (model,):
        fit = _fit(name, focal_px, grid, images, image)
        if fit.error_px < AUTO_ERROR * fit.camera.width:
            break
    return fit.camera


def _fit(model: str, focal_px: float, grid: ImageGrid | None, images: ImageSet, image: int) -> CameraFit:
    width, height = images.size_wh[image].tolist()
    plain = make_camera(model, focal_px, width, height)
    distortion = None if grid is None or not grid.is_distorted(image) else grid.distortion
    if distortion is None or model in ("SIMPLE_PINHOLE", "PINHOLE"):
        return CameraFit(camera=plain, error_px=0.0)
    x, y = np.meshgrid((np.arange(24) + 0.5) / 24 * width, (np.arange(18) + 0.5) / 18 * height)
    xy = np.stack([x.ravel(), y.ravel()], axis=1)
    return fit_camera(plain, xy, (distortion.undistort(image, xy) - (width / 2, height / 2)) / focal_px)


def alignment_model(alignment: AlignmentResult, images: ImageSet, grid: ImageGrid) -> Reconstruction:
    """The alignment exactly as it is: one pinhole camera per view, with its own focal length and principal point."""
    cameras = []
    for view, image in enumerate(alignment.image_index):
        width, height = images.size_wh[image].tolist()
        focal_px = float(alignment.focal_px[view] / grid.scale[image].mean())
        centre_px = grid.to_image(int(image), alignment.principal_point_px[view][None])[0]
        cameras.append(make_camera("SIMPLE_PINHOLE", focal_px, width, height, centre_px))
    return without_points(alignment.image_index, alignment.cam_from_world, tuple(cameras), np.arange(len(cameras)))
