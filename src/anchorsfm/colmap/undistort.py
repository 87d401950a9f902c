"""Pinhole cameras for distorted ones, and where the pixels of the undistorted picture lie in the photograph.

Size and focal length of the undistorted picture are COLMAP's choice (`undistort_camera`): the focal length stays, the
picture shrinks or grows until its border fits that of the photograph. Two cuts may follow:

- The principal point is put into the middle of the picture by cutting the wider side. Trainers that know a camera as
  two angles of view (the original implementation of 3D Gaussian splatting) take the middle for granted, and an
  offset of n pixels would shift all they learn by n pixels.
- The angle of view is limited. A pixel that is seen at the angle a from the axis is 1 / cos^3 a times as large in the
  plane as in the middle: eight times at 60 degrees.

An undistorted pixel x = (x, y) has the ray ((x - cx) / fx, (y - cy) / fy, 1); its place in the photograph is the
projection of this ray by the distorted camera. A polynomial that turns back beyond its range brings far rays into the
picture again: a place counts only where the inverse of the distorted camera leads back to the same ray.
"""

from dataclasses import dataclass, replace

import numpy as np
import pycolmap
from jaxtyping import Bool, Float, Float32, UInt8

from anchorsfm.colmap.cameras import normalised_from_pixels, project
from anchorsfm.colmap.convert import from_pycolmap_camera, to_pycolmap_camera
from anchorsfm.geometry.cameras import PARAM_NAMES, is_fisheye
from anchorsfm.scene.reconstruction import Camera
from anchorsfm.scene.undistortion import UndistortConfig

_BLOCK = 4
"""Places are computed for one pixel in so many by so many."""
_BORDER_PX = 0.5
"""The picture is continued by this much beyond its edge: COLMAP fits the centres of border pixels."""
_SAME_RAY = 1e-3
"""Places lead back to their ray within this share of the focal length."""
_GRID_STEPS = 128
"""The way back is tried at so many places along the longer side."""
_SHARES = 512
"""Steps in which sides are drawn in, and places that are tried along each."""
_MIN_SIDE = 16


@dataclass(frozen=True, kw_only=True)
class Undistortion:
    """A distorted camera and the pinhole camera that takes its place."""

    source: Camera
    full: Camera
    """PINHOLE, at the scale of the photograph."""
    target: Camera
    """PINHOLE, the same view at the size that is written."""
    kept: float
    """Share of the undistorted picture that is left after centring the principal point."""

    @property
    def is_identity(self) -> bool:
        """Whether the photograph is its own undistorted picture."""
        same_size = (self.source.width, self.source.height) == (self.target.width, self.target.height)
        return same_size and _as_pinhole(self.source) == self.target.params


def plan_undistortion(camera: Camera, config: UndistortConfig) -> Undistortion:
    """The pinhole camera for a distorted one.

    Raises ValueError if hardly anything of the picture would be left.
    """
    options = pycolmap.UndistortCameraOptions()
    options.blank_pixels = config.blank_pixels
    try:
        wide = from_pycolmap_camera(pycolmap.undistort_camera(options, to_pycolmap_camera(_plain(camera))))
    except (ValueError, RuntimeError) as error:
        raise ValueError("COLMAP knows no pinhole camera for it") from error
    steepest = float(np.tan(np.radians(config.max_fov_deg) / 2))
    fx, fy, cx, cy = wide.params
    before, after = np.array([cx, cy]), np.array([wide.width - cx, wide.height - cy])
    sides = np.minimum([before, after], steepest * np.array([fx, fy]))
    if not config.blank_pixels:
        sides = sides * _visible_shares(camera, sides / [fx, fy])
    whole = float(sides.sum(axis=0).prod())
    if config.centre_principal_point:
        sides = np.tile(sides.min(axis=0), (2, 1))
    size = np.floor(sides.sum(axis=0) + 1e-6)
    width, height = (int(side) for side in size)
    if min(width, height) < _MIN_SIDE:
        raise ValueError(
            f"only {width}x{height} pixels around its principal point would be left; "
            "--undistort.no-centre-principal-point keeps more"
        )
    centre = size / 2 if config.centre_principal_point else sides[0]
    full = Camera(model="PINHOLE", width=width, height=height, params=(fx, fy, float(centre[0]), float(centre[1])))
    target = _reduced(full, config.max_side)
    return Undistortion(source=camera, full=full, target=target, kept=float(size.prod()) / whole)


def _visible_shares(camera: Camera, sides: Float[np.ndarray, "2 2"]) -> Float[np.ndarray, "2 2"]:
    """How much of a rectangle around the optical axis can stay so that all of it is in the photograph.

    COLMAP fits the border of the photograph, parts of which may have no ray: first each side is drawn in until the axis
    to it is visible, then all together until the border is.

    Args:
        camera: distorted.
        sides: (left, top) and (right, bottom) distances on the plane z = 1.
    """
    share = np.ones((2, 2))
    if _border_is_visible(camera, sides):
        return share
    steps = np.linspace(0, 1, _SHARES)
    for end, sign in ((0, -1.0), (1, 1.0)):
        for axis in (0, 1):
            plane = np.zeros((_SHARES, 2))
            plane[:, axis] = sign * sides[end, axis] * steps
            visible = np.logical_and.accumulate(_is_visible(camera, plane))
            share[end, axis] = steps[max(int(visible.sum()) - 1, 0)]
    low, high = 0.0, 1.0
    while high - low > 1 / _SHARES:
        middle = (low + high) / 2
        low, high = (middle, high) if _border_is_visible(camera, middle * share * sides) else (low, middle)
    return share * low


def _border_is_visible(camera: Camera, sides: Float[np.ndarray, "2 2"]) -> bool:
    (left, top), (right, bottom) = sides
    along = np.linspace(0, 1, _SHARES)
    across, down = (left + right) * along - left, (top + bottom) * along - top
    edges = [np.stack(np.broadcast_arrays(across, y), axis=1) for y in (-top, bottom)]
    edges += [np.stack(np.broadcast_arrays(x, down), axis=1) for x in (-left, right)]
    return bool(_is_visible(camera, np.concatenate(edges)).all())


def _is_visible(camera: Camera, plane: Float[np.ndarray, "point 2"]) -> Bool[np.ndarray, "point"]:
    """Whether rays meet a pixel of the photograph that looks along them."""
    place, same = _places(camera, plane)
    return same & _inside(place[:, 0] - 0.5, camera.width) & _inside(place[:, 1] - 0.5, camera.height)


def _places(
    camera: Camera, plane: Float[np.ndarray, "point 2"]
) -> tuple[Float[np.ndarray, "point 2"], Bool[np.ndarray, "point"]]:
    """COLMAP pixels of rays, and whether the inverse of the camera leads back to the rays."""
    place, seen = project(camera, np.column_stack([plane, np.ones(len(plane))]))
    place = np.where(seen[:, None], place, -np.inf)
    back = normalised_from_pixels(camera, np.where(seen[:, None], place, 0.0))
    with np.errstate(invalid="ignore"):
        same = np.abs(back - plane).max(axis=1) < _SAME_RAY * (1 + np.square(plane).sum(axis=1))
    return place, seen & same


def undistort_points(plan: Undistortion, xy_px: Float[np.ndarray, "point 2"]) -> Float[np.ndarray, "point 2"]:
    """Pixels of the photograph to pixels of the undistorted picture; NaN for pixels without a ray that meets it."""
    fx, fy, cx, cy = plan.target.params
    return normalised_from_pixels(plan.source, xy_px) * [fx, fy] + [cx, cy]


@dataclass(frozen=True, kw_only=True)
class SourceMap:
    """Where the pixels of an undistorted picture lie in the photograph."""

    plan: Undistortion
    x: Float32[np.ndarray, "h w"]
    y: Float32[np.ndarray, "h w"]
    """Of the pixels of `plan.full`, in OpenCV's convention: (0, 0) is the centre of the top-left pixel."""
    valid: Bool[np.ndarray, "h w"] | None
    """Which pixels of `plan.full` have a source; None: all."""

    def resample(self, picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
        """The undistorted picture; black without a source.

        Cubic interpolation (within 1 % of the error of Lanczos, in a sixth of its time); area means where it shrinks.
        """
        import cv2

        warped = cv2.remap(picture, self.x, self.y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        if self.valid is not None:
            warped[~self.valid] = 0
        return np.asarray(cv2.resize(warped, self._size_wh, interpolation=cv2.INTER_AREA))

    def resample_mask(self, mask: UInt8[np.ndarray, "h w"] | None) -> UInt8[np.ndarray, "h2 w2"]:
        """255 where the undistorted picture shows pixels that the mask (0: ignore; None: nothing to ignore) keeps."""
        import cv2

        if mask is None:
            kept = np.full(self.x.shape, 255, np.uint8)
        else:
            binary = np.where(mask > 0, np.uint8(255), np.uint8(0))
            kept = np.asarray(
                cv2.remap(binary, self.x, self.y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE), np.uint8
            )
        if self.valid is not None:
            kept[~self.valid] = 0
        return np.asarray(cv2.resize(kept, self._size_wh, interpolation=cv2.INTER_NEAREST))

    @property
    def _size_wh(self) -> tuple[int, int]:
        return self.plan.target.width, self.plan.target.height


def source_map(plan: Undistortion) -> SourceMap:
    """Places of all pixels of the undistorted picture in the photograph.

    Exact in the middle of blocks of `_BLOCK` pixels and linear in between: off by less than 0.01 px (measured with
    lenses of 58 to 153 degrees on 240 to 6000 pixels).
    """
    import cv2

    width, height = plan.full.width, plan.full.height
    columns, rows = -(-width // _BLOCK) + 2, -(-height // _BLOCK) + 2  # a block beyond each border
    across, down = (np.arange(columns) - 0.5) * _BLOCK, (np.arange(rows) - 0.5) * _BLOCK
    plane = _plane(plan, np.stack(np.meshgrid(across, down), axis=-1).reshape(-1, 2))
    place, seen = project(plan.source, np.column_stack([plane, np.ones(len(plane))]))
    nodes = np.where(seen[:, None], place, -np.inf).reshape(rows, columns, 2).astype(np.float32) - np.float32(0.5)
    all_places = cv2.resize(nodes, (columns * _BLOCK, rows * _BLOCK), interpolation=cv2.INTER_LINEAR)
    inner = all_places[_BLOCK : _BLOCK + height, _BLOCK : _BLOCK + width]
    x, y = np.ascontiguousarray(inner[..., 0]), np.ascontiguousarray(inner[..., 1])
    valid = _inside(x, plan.source.width) & _inside(y, plan.source.height) & _leads_back(plan)
    if valid.all():
        return SourceMap(plan=plan, x=x, y=y, valid=None)
    x[~valid], y[~valid] = 0, 0
    return SourceMap(plan=plan, x=x, y=y, valid=valid)


def has_blank_pixels(plan: Undistortion) -> bool:
    """Whether some pixel of the undistorted picture has no source; looks along its border and at a grid."""
    width, height = plan.full.width, plan.full.height
    first, last = np.array([0.5, 0.5]), np.array([width - 0.5, height - 0.5])
    sides = np.stack([-_plane(plan, first), _plane(plan, last)])
    return not (_border_is_visible(plan.source, sides) and _leads_back(plan).all())


def _plane(plan: Undistortion, pixels: Float[np.ndarray, "*pixel 2"]) -> Float[np.ndarray, "*pixel 2"]:
    """Coordinates of undistorted pixels on the plane z = 1."""
    fx, fy, cx, cy = plan.full.params
    return (pixels - [cx, cy]) / [fx, fy]


def _leads_back(plan: Undistortion) -> Bool[np.ndarray, "h w"]:
    """Whether the places of pixels have the rays of those pixels; tried on a grid, smooth in between."""
    import cv2

    width, height = plan.full.width, plan.full.height
    step = max(width, height) / _GRID_STEPS
    columns, rows = max(2, round(width / step)), max(2, round(height / step))
    across, down = (np.arange(columns) + 0.5) * width / columns, (np.arange(rows) + 0.5) * height / rows
    plane = _plane(plan, np.stack(np.meshgrid(across, down), axis=-1).reshape(-1, 2))
    _, same = _places(plan.source, plane)
    coarse = same.reshape(rows, columns).astype(np.uint8)
    if not coarse.all():
        coarse = cv2.erode(coarse, np.ones((3, 3), np.uint8))
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST), bool)


def _inside(place: np.ndarray, size: int) -> np.ndarray:
    return (place >= -0.5 - _BORDER_PX) & (place <= size - 0.5 + _BORDER_PX)


def _reduced(camera: Camera, max_side: int | None) -> Camera:
    longer = max(camera.width, camera.height)
    if max_side is None or longer <= max_side:
        return camera
    width = max(1, round(camera.width * max_side / longer))
    height = max(1, round(camera.height * max_side / longer))
    scale = np.array([width / camera.width, height / camera.height])
    params = np.array(camera.params) * np.tile(scale, 2)
    return replace(camera, width=width, height=height, params=tuple(params.tolist()))


def _plain(camera: Camera) -> Camera:
    """The camera as PINHOLE if all its distortion is zero."""
    params = _as_pinhole(camera)
    return camera if params is None else replace(camera, model="PINHOLE", params=params)


def _as_pinhole(camera: Camera) -> tuple[float, ...] | None:
    """fx, fy, cx, cy of a camera without distortion; None for the others."""
    if camera.model not in PARAM_NAMES or is_fisheye(camera.model):
        return None
    value = dict(zip(PARAM_NAMES[camera.model], camera.params, strict=True))
    focal = (value.pop("f"),) * 2 if "f" in value else (value.pop("fx"), value.pop("fy"))
    centre = (value.pop("cx"), value.pop("cy"))
    return None if any(value.values()) else (*focal, *centre)
