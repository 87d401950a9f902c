"""Cameras and poses of an alignment in original pixels: where triangulation and adjustment start from."""

import numpy as np

from anchorsfm.colmap.cameras import make_camera
from anchorsfm.scene.alignment import AlignmentResult
from anchorsfm.scene.images import ImageGrid, ImageSet
from anchorsfm.scene.reconstruction import Camera, Reconstruction, Tracks


def start_model(
    alignment: AlignmentResult, images: ImageSet, grid: ImageGrid, camera_model: str, *, known: dict[int, Camera]
) -> Reconstruction:
    """The alignment as a model without points.

    Views of one camera of the ImageSet share a camera with the median of their focal lengths and the principal point
    in the middle, because the adjustment decides whether it is observable; cameras in `known` (by row of the
    ImageSet's cameras) are taken as they are.
    """
    rows = images.camera_index[alignment.image]
    used = np.unique(rows)
    focal_px = alignment.focal_px / grid.scale[alignment.image].mean(axis=1)
    cameras = []
    for row in used:
        width, height = images.size_wh[alignment.image[rows == row][0]].tolist()
        given = known.get(int(row))
        cameras.append(given or make_camera(camera_model, float(np.median(focal_px[rows == row])), width, height))
    return _without_points(alignment, tuple(cameras), np.searchsorted(used, rows))


def alignment_model(alignment: AlignmentResult, images: ImageSet, grid: ImageGrid) -> Reconstruction:
    """The alignment exactly as it is: one pinhole camera per view, with its own focal length and principal point."""
    cameras = []
    for view, image in enumerate(alignment.image):
        width, height = images.size_wh[image].tolist()
        focal_px = float(alignment.focal_px[view] / grid.scale[image].mean())
        centre_px = grid.to_image(int(image), alignment.principal_point_px[view][None])[0]
        cameras.append(make_camera("SIMPLE_PINHOLE", focal_px, width, height, centre_px))
    return _without_points(alignment, tuple(cameras), np.arange(len(cameras)))


def _without_points(
    alignment: AlignmentResult, cameras: tuple[Camera, ...], camera_index: np.ndarray
) -> Reconstruction:
    return Reconstruction(
        image=alignment.image.astype(np.int64),
        cam_from_world=alignment.cam_from_world.astype(np.float64),
        cameras=cameras,
        camera_index=camera_index.astype(np.int64),
        points=np.zeros((0, 3)),
        rgb=np.zeros((0, 3), np.uint8),
        error_px=np.zeros(0),
        tracks=Tracks.empty(),
    )
