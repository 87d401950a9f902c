"""A picture of cameras and points for notebooks, made without any window or network."""

import base64
import html
import io

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from anchorsfm.geometry.transforms import camera_centres, invert, transform
from anchorsfm.geometry.upright import up_direction

WIDTH, HEIGHT = 560, 360
_MARGIN_PX = 24
_LOOKING_DOWN_DEG = 30.0
_FRUSTUM = 0.06
"""Length of a drawn camera as a share of the extent of the cameras and points."""
_CAMERA_COLOUR, _BACKGROUND = (214, 69, 65), (255, 255, 255)


def draw_scene(
    cam_from_world: Float[np.ndarray, "view 3 4"], xyz: Float[np.ndarray, "point 3"], rgb: UInt8[np.ndarray, "point 3"]
) -> bytes:
    """Cameras and points seen obliquely from above, as a PNG."""
    canvas = Image.new("RGB", (WIDTH, HEIGHT), _BACKGROUND)
    if not len(cam_from_world):
        return _png(canvas)
    finite = np.isfinite(xyz).all(axis=1)
    xyz, rgb = xyz[finite], rgb[finite]
    axes = _viewing_axes(cam_from_world, xyz)
    centres = camera_centres(cam_from_world)
    low, high = _extent(np.concatenate([centres, xyz]) @ axes[:2].T, centres @ axes[:2].T)
    room = np.array([WIDTH, HEIGHT]) - 2 * _MARGIN_PX
    factor = float((room / np.maximum(high - low, 1e-12)).min())
    middle = (low + high) / 2

    def onto_canvas(points: np.ndarray) -> np.ndarray:
        flat = (points @ axes[:2].T - middle) * factor
        return np.stack([WIDTH / 2 + flat[:, 0], HEIGHT / 2 - flat[:, 1]], axis=1)

    pixels = np.array(canvas)
    order = np.argsort(-(xyz @ axes[2]), kind="stable")  # near points over far ones
    x, y = np.floor(onto_canvas(xyz)[order]).astype(np.int64).T
    seen = (x >= 0) & (x < WIDTH - 1) & (y >= 0) & (y < HEIGHT - 1)
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)) if len(xyz) < 20_000 else ((0, 0),):
        pixels[y[seen] + dy, x[seen] + dx] = rgb[order][seen]
    canvas = Image.fromarray(pixels)
    pen = ImageDraw.Draw(canvas)
    size = _FRUSTUM * float((high - low).max())
    corners = size * np.array([[0, 0, 0], [-0.5, -0.35, 1], [0.5, -0.35, 1], [0.5, 0.35, 1], [-0.5, 0.35, 1]])
    for world_from_cam in invert(cam_from_world):
        tip, *frame = [tuple(p) for p in onto_canvas(transform(world_from_cam, corners)).tolist()]
        for k, corner in enumerate(frame):
            pen.line([tip, corner], fill=_CAMERA_COLOUR)
            pen.line([corner, frame[(k + 1) % 4]], fill=_CAMERA_COLOUR)
    return _png(canvas)


def as_html(picture: bytes, caption: str, *, kind: str = "png", alt: str = "cameras and points") -> str:
    """A figure with everything in it; `picture` is a file of this kind, shown in its own size."""
    data = base64.b64encode(picture).decode()
    return (
        f'<figure style="margin:0"><img alt="{alt}" src="data:image/{kind};base64,{data}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _viewing_axes(
    cam_from_world: Float[np.ndarray, "view 3 4"], xyz: Float[np.ndarray, "point 3"]
) -> Float[np.ndarray, "3 3"]:
    """Rows: right, up and forward of the picture in the world frame, looking as the cameras do and down."""
    up = up_direction(cam_from_world, xyz)
    ahead = cam_from_world[:, 2, :3].mean(axis=0)
    ahead = ahead - (ahead @ up) * up
    if np.linalg.norm(ahead) < 1e-3:
        ahead = np.cross(up, [1.0, 0.0, 0.0] if abs(up[0]) < 0.9 else [0.0, 1.0, 0.0])
    ahead = ahead / np.linalg.norm(ahead)
    angle = np.radians(_LOOKING_DOWN_DEG)
    forward = np.cos(angle) * ahead - np.sin(angle) * up
    right = np.cross(ahead, up)
    return np.stack([right, np.cross(right, forward), forward])


def _extent(
    flat: Float[np.ndarray, "place 2"], cameras: Float[np.ndarray, "view 2"]
) -> tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2"]]:
    """Of all cameras and of most points: a few far points must not shrink the rest to a dot."""
    low, high = np.percentile(flat, [2, 98], axis=0)
    return np.minimum(low, cameras.min(axis=0)), np.maximum(high, cameras.max(axis=0))


def _png(canvas: Image.Image) -> bytes:
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
