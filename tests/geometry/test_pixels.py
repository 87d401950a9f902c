"""Where pixels are."""

import numpy as np

from anchorsfm.geometry.pixels import pixel_centres, plane_coordinates


def test_rays_of_pixels_project_to_their_centres():
    size_wh, focal_xy, centre = (4, 3), (50.0, 60.0), (1.5, 2.0)
    x, y = plane_coordinates(size_wh, focal_xy, centre)
    plane = np.stack(np.broadcast_arrays(x, y), axis=-1)
    assert plane.shape == (3, 4, 2)
    assert np.allclose(plane * focal_xy + centre, pixel_centres(size_wh))
    assert pixel_centres(size_wh)[0, 0].tolist() == [0.5, 0.5]
    assert np.allclose(plane_coordinates(size_wh, focal_xy, centre, pixel_centre=0.0)[0] * 50 + 1.5, [0, 1, 2, 3])
