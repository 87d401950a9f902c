"""Photographs of a synthetic scene, written as JPEG files with the truth beside them."""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from PIL import Image

from anchorsfm.geometry.pixels import pixel_centres
from anchorsfm.io.store import to_json, write_atomic
from anchorsfm.scene.progress import SILENT, Progress
from anchorsfm.synthetic.scenes import SyntheticScene, cast_pixels, material, rays
from anchorsfm.synthetic.solids import Hits, cast
from anchorsfm.synthetic.texture import colour

_AMBIENT = 0.35
_SUBSAMPLES = 4
"""Rays per pixel and axis where surfaces meet."""
_SENSOR_WIDTH_MM = 36.0
_MAKE, _MODEL, _EXIF_IFD, _FOCAL_LENGTH, _FOCAL_PLANE_X, _FOCAL_PLANE_UNIT = 271, 272, 0x8769, 37386, 41486, 41488


def render_depth(scene: SyntheticScene, image: int) -> Float[np.ndarray, "h w"]:
    """Depth in metres at the pixel centres."""
    width, height = scene.config.size_wh
    return cast_pixels(scene, image, pixel_centres((width, height)).reshape(-1, 2)).distance.reshape(height, width)


def render_image(scene: SyntheticScene, image: int, *, noise: float = 1.0) -> UInt8[np.ndarray, "h w 3"]:
    """One picture in sRGB, with Gaussian sensor noise of `noise` grey levels.

    One ray per pixel is enough inside a surface, its texture is band-limited; pixels where surfaces meet average many.
    """
    width, height = scene.config.size_wh
    xy = pixel_centres((width, height)).reshape(-1, 2).astype(np.float32)
    rgb, hits = _shade(scene, image, xy)
    edge = np.flatnonzero(_is_edge(hits, height, width))
    steps = ((np.arange(_SUBSAMPLES) + 0.5) / _SUBSAMPLES - 0.5).astype(np.float32)
    offsets = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    finer, _ = _shade(scene, image, (xy[edge, None] + offsets).reshape(-1, 2))
    rgb[edge] = finer.reshape(len(edge), len(offsets), 3).mean(axis=1)
    encoded = 255 * np.clip(rgb, 0, 1) ** np.float32(1 / 2.2)
    rng = np.random.default_rng([scene.config.seed, 2, image])
    encoded += noise * rng.standard_normal(encoded.shape, dtype=np.float32)
    return np.clip(np.round(encoded), 0, 255).astype(np.uint8).reshape(height, width, 3)


def _shade(
    scene: SyntheticScene, image: int, xy: Float32[np.ndarray, "ray 2"]
) -> tuple[Float32[np.ndarray, "ray 3"], Hits]:
    """Linear colours along rays: Lambert's law with one lamp, no shadows, so colours do not depend on the view."""
    origin, direction = rays(scene, image, xy)
    return shade_rays(scene, origin, direction, scene.focal_px[image])


def shade_rays(
    scene: SyntheticScene,
    origin: Float[np.ndarray, "3"],
    direction: Float32[np.ndarray, "ray 3"],
    focal_px: float,
) -> tuple[Float32[np.ndarray, "ray 3"], Hits]:
    """The same along any rays; `focal_px`: pixels per unit of length at the ends of the directions."""
    hits = cast(scene.solids, origin, direction)
    points = origin.astype(np.float32) + hits.distance[:, None] * direction
    to_light = scene.light.astype(np.float32) - points
    range_m = np.linalg.norm(to_light, axis=1)
    lambert = np.maximum((hits.normal * to_light).sum(axis=1) / range_m, 0)
    light = _AMBIENT + (1 - _AMBIENT) * lambert * 9 / (4 + range_m**2)
    facing = np.abs((hits.normal * direction).sum(axis=1)) / np.linalg.norm(direction, axis=1)
    range_px = hits.distance / np.float32(focal_px)
    if scene.config.lens is not None:  # lenses that compress the border see about equal angles with all pixels
        range_px *= np.linalg.norm(direction, axis=1)
    # A pixel's width on the surface: geometric mean over the slanted and the other direction.
    footprint = range_px / np.sqrt(np.maximum(facing, 0.1))
    return colour(scene.texture, points, material(hits), footprint) * light[:, None], hits


def _is_edge(hits: Hits, height: int, width: int) -> Bool[np.ndarray, "ray"]:
    """Whether the surface of a pixel or its orientation differs from that of a neighbour."""
    solid = hits.solid.reshape(height, width)
    normal = hits.normal.reshape(height, width, 3)
    edge = np.zeros((height, width), bool)
    for here, there in (
        ((slice(1, None),), (slice(None, -1),)),
        ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
    ):
        differs = (solid[here] != solid[there]) | ((normal[here] * normal[there]).sum(-1) < 0.9)
        edge[here] |= differs
        edge[there] |= differs
    return edge.ravel()


def write_photographs(
    scene: SyntheticScene,
    folder: Path,
    *,
    quality: int = 95,
    noise: float = 1.0,
    exif_focal: bool = False,
    progress: Progress = SILENT,
) -> Path:
    """Write `folder/images/0000.jpg` ... and `folder/truth.json`; returns the path of the truth.

    `exif_focal` stores the focal length in EXIF. Raises StorageError if the folder cannot be written.
    """
    with progress.stage("rendering photographs", scene.num_images) as advance:
        for image, name in enumerate(scene.names):
            picture = Image.fromarray(render_image(scene, image, noise=noise))
            buffer = io.BytesIO()
            exif = _focal_exif(scene, image) if exif_focal else Image.Exif()
            picture.save(buffer, "JPEG", quality=quality, subsampling=0, exif=exif)
            write_atomic(folder / "images" / name, buffer.getvalue())
            advance(1)
    write_atomic(folder / "truth.json", to_json(truth(scene)))
    return folder / "truth.json"


def truth(scene: SyntheticScene) -> dict[str, dict[str, object]]:
    """Poses, calibration matrices and cameras by image name, in the format of a truth file.

    `K` has the focal length and principal point, `camera` also the distortion (a COLMAP camera model).
    """
    return {
        name: {
            "R_cam_from_world": scene.cam_from_world[image, :, :3],
            "t_cam_from_world": scene.cam_from_world[image, :, 3],
            "K": scene.intrinsics(image),
            "camera": {"model": scene.camera(image).model, "params": list(scene.camera(image).params)},
            "width": scene.config.size_wh[0],
            "height": scene.config.size_wh[1],
        }
        for image, name in enumerate(scene.names)
    }


def _focal_exif(scene: SyntheticScene, image: int) -> Image.Exif:
    """Focal length in mm and pixels per cm of a 36 mm sensor: unlike the 35 mm equivalent, not rounded to integers."""
    pixels_per_mm = max(scene.config.size_wh) / _SENSOR_WIDTH_MM
    exif = Image.Exif()
    exif[_MAKE], exif[_MODEL] = "AnchorSfM", "synthetic"
    details = exif.get_ifd(_EXIF_IFD)
    details[_FOCAL_LENGTH] = float(scene.focal_px[image] / pixels_per_mm)
    details[_FOCAL_PLANE_X] = float(10 * pixels_per_mm)
    details[_FOCAL_PLANE_UNIT] = 3
    return exif
