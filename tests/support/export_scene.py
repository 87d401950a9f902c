"""A rendered scene with its true COLMAP model on disk: what exports are made from."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from anchorsfm.colmap.write import write_models
from anchorsfm.scene.reconstruction import Camera, Reconstruction, Tracks
from anchorsfm.synthetic import LensConfig, SceneConfig, SyntheticScene, make_scene, render_image
from anchorsfm.synthetic.scenes import cast_pixels, project, rays

BARREL = LensConfig(camera_model="OPENCV", params=(-0.22, 0.05, 0.002, -0.001))
PINCUSHION = LensConfig(camera_model="SIMPLE_RADIAL", params=(0.12,))
FISHEYE = LensConfig(camera_model="OPENCV_FISHEYE", params=(0.02, -0.01, 0.0, 0.0))


@dataclass(frozen=True, kw_only=True)
class ExportScene:
    scenes: tuple[SyntheticScene, ...]
    """One for each view: the same room seen through different lenses."""
    model: Reconstruction
    names: tuple[str, ...]
    folder: Path
    """With images/ and sparse/0."""


def write_export_scene(
    folder: Path,
    names: tuple[str, ...] = ("0000.png", "0001.png", "0002.png"),
    lenses: tuple[LensConfig | None, ...] = (BARREL, PINCUSHION, None),
    *,
    size_wh: tuple[int, int] = (240, 180),
    offset_px: tuple[float, float] = (6.0, -3.0),
    focal: float = 0.9,
    photographs: bool = True,
) -> ExportScene:
    """View k is taken through lens k (modulo their number); views with one lens share a camera."""
    config = SceneConfig(
        num_images=len(names), size_wh=size_wh, principal_point_offset_px=offset_px, arc_deg=30.0, focal=focal, seed=1
    )
    of_lens = [make_scene(replace(config, lens=lens)) for lens in lenses]
    scenes = tuple(of_lens[k % len(lenses)] for k in range(len(names)))
    model = true_model(scenes, [k % len(lenses) for k in range(len(names))])
    if photographs:
        for view, (scene, name) in enumerate(zip(scenes, names, strict=True)):
            path = folder / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(render_image(scene, view, noise=0.0)).save(path, quality=98)
    write_models(folder / "sparse", [model], names)
    return ExportScene(scenes=scenes, model=model, names=names, folder=folder)


def true_model(scenes: tuple[SyntheticScene, ...], camera_index: list[int], per_image: int = 60) -> Reconstruction:
    """True cameras and points on surfaces, with exact observations."""
    width, height = scenes[0].config.size_wh
    rng = np.random.default_rng(5)
    points, rows = [], []
    for view, scene in enumerate(scenes):
        xy = rng.uniform([0, 0], [width, height], (per_image, 2))
        centre, direction = rays(scene, view, xy)
        hits = cast_pixels(scene, view, xy)
        points.append((centre + hits.distance[:, None] * direction)[np.isfinite(direction).all(1)])
    cloud = np.concatenate(points)
    for view, scene in enumerate(scenes):
        xy, depth = project(scene, view, cloud)
        with np.errstate(invalid="ignore"):
            seen = np.flatnonzero((depth > 0) & ((xy > 0) & (xy < [width, height])).all(1))
        rows += [(point, view, *xy[point]) for point in seen.tolist()]
    rows.sort()
    table = np.array(rows)
    used, obs_point = np.unique(table[:, 0].astype(int), return_inverse=True)
    first = {row: view for view, row in reversed(list(enumerate(camera_index)))}
    cameras = tuple(scenes[first[row]].camera(first[row]) for row in range(max(camera_index) + 1))
    return Reconstruction(
        image_index=np.arange(len(scenes)),
        cam_from_world=scenes[0].cam_from_world,
        cameras=cameras,
        camera_index=np.array(camera_index),
        points=cloud[used],
        rgb=rng.integers(0, 256, (len(used), 3)).astype(np.uint8),
        error_px=np.zeros(len(used)),
        tracks=Tracks(obs_point=obs_point, obs_image=table[:, 1].astype(np.int64), obs_xy=table[:, 2:]),
    )


def undistorted_by_opencv(camera: Camera, xy: np.ndarray) -> np.ndarray:
    """Coordinates on the plane z = 1, by OpenCV instead of the library under test; places are COLMAP's pixels.

    Fixed-point iteration: add what the projection misses.
    """
    import cv2

    if camera.model in ("SIMPLE_PINHOLE", "SIMPLE_RADIAL"):
        f, cx, cy, k1 = (*camera.params, 0.0)[:4]
        fx, fy, coefficients = f, f, np.array([k1, 0.0, 0.0, 0.0])
    else:
        fx, fy, cx, cy = camera.params[:4]
        coefficients = np.array(camera.params[4:])
    matrix, none = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), np.zeros(3)
    plane = (xy - [cx, cy]) / [fx, fy]
    for _ in range(200):
        rays = np.column_stack([plane, np.ones(len(plane))]).reshape(-1, 1, 3)
        if camera.model == "OPENCV_FISHEYE":
            found = cv2.fisheye.projectPoints(rays, none, none, matrix, coefficients)[0]
        else:
            found = cv2.projectPoints(rays, none, none, matrix, coefficients)[0]
        plane = plane + (xy - found.reshape(-1, 2)) / [fx, fy]
    return plane
