"""An output folder with photographs, as `view` meets it, made without reconstructing anything."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from anchorsfm.colmap.write import write_models
from anchorsfm.io.ply import write_ply
from anchorsfm.scene.reconstruction import Camera, Reconstruction, Tracks
from point_scene import make_lens_scene


def names_of(model: Reconstruction) -> list[str]:
    return [f"photo {k}.jpg" for k in range(len(model.image_index))]


CAMERA = Camera(model="SIMPLE_RADIAL", width=1600, height=1200, params=(1500.0, 800.0, 600.0, 0.0))


def coloured_model(num_views: int = 6, num_points: int = 400, seed: int = 0) -> Reconstruction:
    """Bright points, observations with noise of 0.5 px."""
    model = make_lens_scene((CAMERA,), num_views, num_points, noise_px=0.5, extent=2.5, seed=seed)
    rng = np.random.default_rng(seed)
    return replace(model, rgb=rng.integers(120, 255, model.points.shape).astype(np.uint8))


def without_points(model: Reconstruction) -> Reconstruction:
    nothing = np.zeros((0, 3))
    return replace(model, points=nothing, rgb=nothing.astype(np.uint8), error_px=np.zeros(0), tracks=Tracks.empty())


def write_output(folder: Path, models: list[Reconstruction], *, photographs: bool = True) -> Path:
    """OUT with models, dense clouds, report and uncertainties; photographs beside it."""
    names = names_of(models[0])
    write_models(folder / "sparse", models, names)
    for number, model in enumerate(models):
        if len(model.points):
            write_ply(folder / "dense" / f"{number}.ply", model.points + 0.01, np.full_like(model.rgb, 200))
    root = folder.parent / "photographs"
    if photographs:
        root.mkdir(exist_ok=True)
        for k, name in enumerate(names):
            rows = np.linspace(0, 255, 300, dtype=np.uint8)[:, None].repeat(400, axis=1)
            Image.fromarray(np.stack([rows, np.full_like(rows, 40 * k % 256), 255 - rows], axis=2)).save(root / name)
    report = {"image_root": str(root)}
    (folder / "report.json").write_text(json.dumps(report))
    entry = {"position": 0.003, "position_share": 0.001, "position_m": None, "rotation_deg": 0.02}
    images = [{"name": name, **entry, "weak": k == 0} for k, name in enumerate(names)]
    (folder / "uncertainty.json").write_text(
        json.dumps([{"scene_size": 3.0, "camera_params": [None], "images": images}] * len(models))
    )
    return folder


def moved(model: Reconstruction, rotation: np.ndarray, scale: float, shift: np.ndarray) -> Reconstruction:
    """The model in another frame: x_new = scale * rotation @ x + shift."""
    turned = model.cam_from_world[:, :, :3] @ rotation.T
    offset = scale * model.cam_from_world[:, :, 3] - turned @ shift
    return replace(
        model,
        cam_from_world=np.concatenate([turned, offset[:, :, None]], axis=2),
        points=scale * model.points @ rotation.T + shift,
    )
