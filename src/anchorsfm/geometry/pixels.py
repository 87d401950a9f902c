"""Where the pixels of a picture are."""

import numpy as np
from jaxtyping import Float, Int


def pixel_centres(size_wh: tuple[int, int] | Int[np.ndarray, "2"]) -> Float[np.ndarray, "h w 2"]:
    """COLMAP coordinates of all pixel centres, float64."""
    x, y = np.meshgrid(np.arange(int(size_wh[0])) + 0.5, np.arange(int(size_wh[1])) + 0.5)
    return np.stack([x, y], axis=-1)


def plane_coordinates(
    size_wh: tuple[int, int],
    focal_xy: tuple[float, float],
    principal_point_xy: tuple[float, float] | Float[np.ndarray, "2"],
    *,
    pixel_centre: float = 0.5,
) -> tuple[Float[np.ndarray, "w"], Float[np.ndarray, "h 1"]]:
    """x/z of every column and y/z of every row of a pinhole picture; they broadcast to the shape (h, w), float64."""
    x = (np.arange(size_wh[0]) + pixel_centre - principal_point_xy[0]) / focal_xy[0]
    y = (np.arange(size_wh[1]) + pixel_centre - principal_point_xy[1]) / focal_xy[1]
    return x, y[:, None]
