"""Depth maps of aligned images as the front end and the alignment leave them (docs/method.md, Result of the alignment).

The depth of a pixel is the depth of its anchor times d(p) / d(anchor), the canonical view's relative depth. With a
focal length f other than the front end's f0 the ratio o becomes 1 + (o - 1) f0 / f, as in the alignment.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from anchorsfm.geometry.pixels import plane_coordinates
from anchorsfm.geometry.transforms import invert, transform
from anchorsfm.observe.anchors import dense_depth_ratio
from anchorsfm.observe.canonical import spread
from anchorsfm.scene.alignment import AlignmentResult
from anchorsfm.scene.graph import CanonicalView


@dataclass(frozen=True, kw_only=True)
class DenseView:
    """Depth and confidence of every pixel of a pinhole picture of one image, with its camera.

    The pixels are those of the front end's grid, or of a pinhole picture of the same size (`dense.pinhole`).
    """

    depth: Float[np.ndarray, "h w"]
    """Along the optical axis, in units of the model; 0 where nothing is known."""
    confidence: Float[np.ndarray, "h w"]
    cam_from_world: Float[np.ndarray, "3 4"]
    focal_px: float
    principal_point_px: Float[np.ndarray, "2"]

    def points(self, pixel_centre: float = 0.5) -> Float[np.ndarray, "h w 3"]:
        """World points of all pixels, in the type of the depth."""
        height, width = self.depth.shape
        focal_xy = (self.focal_px, self.focal_px)
        x, y = plane_coordinates((width, height), focal_xy, self.principal_point_px, pixel_centre=pixel_centre)
        local = np.stack([x * self.depth, y * self.depth, self.depth], axis=-1)
        return transform(invert(self.cam_from_world), local).astype(self.depth.dtype)

    def camera(self) -> dict[str, object]:
        """Size, calibration and pose of the picture, for a file."""
        height, width = self.depth.shape
        return {
            "width": width,
            "height": height,
            "focal_px": self.focal_px,
            "principal_point_px": self.principal_point_px,
            "cam_from_world": self.cam_from_world,
        }


def dense_view(result: AlignmentResult, view: int, canonical: CanonicalView, subsample: int = 8) -> DenseView:
    """Dense depth of aligned view `view` in scene units."""
    height, width = canonical.relative_depth.shape
    rows = slice(result.anchor_start[view], result.anchor_start[view + 1])
    anchor_depth = result.anchor_depth[rows].reshape(canonical.anchor_depth.shape).astype(np.float32)
    focal = float(result.focal_px[view])
    ratio = 1 + (dense_depth_ratio(canonical, subsample) - 1) * np.float32(float(result.base_focal_px[view]) / focal)
    return DenseView(
        depth=(spread(anchor_depth, (width, height), subsample) * ratio).astype(np.float32),
        confidence=canonical.confidence.astype(np.float32),
        cam_from_world=result.cam_from_world[view],
        focal_px=focal,
        principal_point_px=result.principal_point_px[view],
    )
