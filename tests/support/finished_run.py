"""An output folder with everything that can lie in one, made without a reconstruction."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from anchorsfm.colmap.write import write_models
from anchorsfm.io.layout import Layout
from anchorsfm.io.owned import OwnedFolder
from anchorsfm.io.ply import PointCloud, write_mesh, write_ply
from anchorsfm.localisation.index import VERSION, IndexSettings, ModelIndex, write_index
from anchorsfm.results.errors import write_errors
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.error_modes import ErrorModes
from report_scene import write_synthetic_run


def write_finished_run(output: Path, num_images: int = 6) -> Reconstruction:
    """An output folder of ours with a model on a ring around a ball, y down, and photographs beside it."""
    work = output.parent / f"{output.name}-work"
    (model,) = write_synthetic_run(work, num_images, num_missing=0, num_dense=3000)
    shutil.move(work / "photos", output.parent / "photos")
    layout = Layout(work)
    model = _as_small_as_its_photographs(model)
    shutil.rmtree(layout.models)
    write_models(layout.models, [model], [f"{view:04d}.jpg" for view in range(num_images)])
    report = json.loads(layout.report.read_text())
    report["image_root"] = str(output.parent / "photos")
    layout.report.write_text(json.dumps(report))
    layout.uncertainty.write_text(json.dumps([entry["uncertainty"] for entry in report["models"]]))
    rng = np.random.default_rng(3)
    cloud = rng.standard_normal((3000, 3))
    cloud /= np.linalg.norm(cloud, axis=1, keepdims=True)
    cloud[1500:] = np.stack([*rng.uniform(-1.8, 1.8, (2, 1500)), np.full(1500, 1.0)], axis=1)[:, [0, 2, 1]]
    normal = cloud.copy()
    normal[1500:] = [0, -1, 0]
    rgb = np.rint(128 + 100 * normal).astype(np.uint8)
    write_ply(layout.cloud(0), cloud, rgb, normal=normal, confidence=rng.uniform(1, 3, 3000))
    corners = PointCloud(xyz=cloud[:90], rgb=rgb[:90], others={"value": np.arange(90, dtype=np.float32)})
    write_mesh(layout.mesh(0), corners, np.arange(90).reshape(30, 3))
    cameras = {}
    for view, pose in enumerate(model.cam_from_world):
        name = f"{view:04d}.jpg"
        for kind in ("depth", "confidence"):
            path = layout.depth_map(name, kind)
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.full((3, 4), 2.5, np.float32))
        camera = {"width": 4, "height": 3, "focal_px": 5.0, "principal_point_px": [2, 1.5]}
        cameras[name] = {"model": 0, **camera, "cam_from_world": pose.tolist()}
    layout.depth_cameras.write_text(json.dumps(cameras))
    settings = IndexSettings(
        version=VERSION, max_image_size=1024, max_keypoints=9, contrast_threshold=0.01, max_ratio=0.8
    )
    of_image = [model.tracks.obs_point[model.tracks.obs_image == view] for view in range(num_images)]
    index = ModelIndex(
        settings=settings,
        num_points=len(model.points),
        descriptor=rng.integers(0, 255, (sum(map(len, of_image)), 128)).astype(np.uint8),
        point=np.concatenate(of_image).astype(np.int32),
        start=np.cumsum([0, *map(len, of_image)]),
    )
    write_index(layout.localisation(0), index)
    modes = ErrorModes(
        rotation=0.001 * rng.standard_normal((4, num_images, 3)),
        position=0.01 * rng.standard_normal((4, num_images, 3)),
        params=rng.standard_normal((4, len(model.cameras[0].params))),
    )
    write_errors(layout.errors(0), modes, [f"{view:04d}.jpg" for view in range(num_images)])
    with OwnedFolder(output).publication() as publication:
        shutil.copytree(work, publication.path, dirs_exist_ok=True)
        publication.publish([""])
    shutil.rmtree(work)
    return model


def _as_small_as_its_photographs(model: Reconstruction) -> Reconstruction:
    """320x240 instead of 1600x1200 pixels."""
    camera = replace(model.cameras[0], width=320, height=240, params=(300.0, 160.0, 120.0, 0.01))
    tracks = replace(model.tracks, obs_xy=model.tracks.obs_xy / 5)
    return replace(model, cameras=(camera,), tracks=tracks)
