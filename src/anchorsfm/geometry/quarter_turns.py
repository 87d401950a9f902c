"""Pictures turned by quarter turns, counter-clockwise as `numpy.rot90` turns them: pixels, sizes and camera poses."""

import numpy as np
from jaxtyping import Float, Int


def turned_size_wh(size_wh: Int[np.ndarray, "image 2"], turns: Int[np.ndarray, "image"]) -> Int[np.ndarray, "image 2"]:
    """Sizes of the turned pictures."""
    return np.where((turns % 2 == 1)[:, None], size_wh[:, ::-1], size_wh)


def turned_xy(
    xy: Float[np.ndarray, "point 2"], size_wh: Int[np.ndarray, "point 2"], turns: Int[np.ndarray, "point"]
) -> Float[np.ndarray, "point 2"]:
    """Where pixels of pictures of size `size_wh` are after `turns` turns of each."""
    x, y = xy.T
    width, height = size_wh.T
    turned = np.stack([[x, y], [y, width - x], [width - x, height - y], [height - y, x]])
    return np.asarray(turned[turns % 4, :, np.arange(len(xy))], np.float64).reshape(-1, 2)


def turned_poses(
    cam_from_world: Float[np.ndarray, "view 3 4"], turns: Int[np.ndarray, "view"]
) -> Float[np.ndarray, "view 3 4"]:
    """Poses of the cameras that see the turned pictures."""
    return np.asarray(_TURN[turns % 4] @ cam_from_world)


_TURN = np.array(
    [
        [[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]
        for cos, sin in ((1, 0), (0, 1), (-1, 0), (0, -1))
    ],
    np.float64,
)  # fmt: skip
