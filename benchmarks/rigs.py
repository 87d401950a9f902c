"""Rigs of three cameras and panoramas, rendered, with known truth.

    python benchmarks/rigs.py rig WORK           # 40 shots; relative poses are found
    python benchmarks/rigs.py blank WORK         # the same, and one camera sees a blank wall in a third of the shots
    python benchmarks/rigs.py panoramas WORK     # 20 panoramas of 360 degrees

Prints registered photographs, AUC@1 degree of all pairs (of panoramas: of their poses), and how far the poses of the
cameras in the rig are from the truth, baselines as a share of the longest one, after the scale of the model. Each run
beside the same without a rig.
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from anchorsfm.evaluation import evaluate_poses, poses_of
from anchorsfm.geometry.transforms import camera_centres, compose, fit_similarity, invert, rotation_angle_deg
from anchorsfm.mapping.config import MapperName, RigConfig
from anchorsfm.panorama.config import PanoramaConfig
from anchorsfm.pipeline import RunResult, reconstruct
from anchorsfm.run.config import PipelineConfig
from anchorsfm.scene.poses import PoseSet
from anchorsfm.synthetic import SceneConfig, SyntheticScene, make_scene, render_image
from anchorsfm.synthetic.rigs import render_panorama, with_rig

NAMES = ("left", "middle", "right")
SIZE_WH = (400, 300)
PANORAMA_WIDTH = 1536


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("rig", "blank", "panoramas"))
    parser.add_argument("work", type=Path)
    parser.add_argument("--shots", type=int, help="fewer or more (default: 40, or 20 panoramas)")
    parser.add_argument("--mapper", default="align", help="align or tracks")
    parser.add_argument("--without", action="store_true", help="also without a rig")
    args = parser.parse_args()
    print("| set | registered | AUC@1 | relative rotation, deg | baseline | CPU s |")
    print("|---|---:|---:|---:|---:|---:|", flush=True)
    if args.what == "panoramas":
        panoramas(args.work, args.shots or 20)
    else:
        rig(args.work, args.shots or 40, blank=args.what == "blank", without=args.without, mapper=args.mapper)


def rig(work: Path, shots: int, *, blank: bool, without: bool, mapper: MapperName) -> None:
    """Photographs lie in a folder for each camera, with the same names."""
    middle = make_scene(SceneConfig(num_images=shots, size_wh=SIZE_WH, arc_deg=360 * shots / 40, seed=2))
    sensors = sensor_poses()
    scene = with_rig(middle, sensors, np.array([0.9, 0.8, 0.85]) * SIZE_WH[0])
    photos = work / "photos"
    names = [f"{NAMES[k % 3]}/{k // 3:03d}.jpg" for k in range(scene.num_images)]
    rng = np.random.default_rng(0)
    for k, name in enumerate(names):
        path = photos / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if blank and k % 9 == 2:
            wall = np.clip(np.round(180 + rng.standard_normal((SIZE_WH[1], SIZE_WH[0], 3))), 0, 255).astype(np.uint8)
            Image.fromarray(wall).save(path, quality=95)
        elif not path.exists() or blank:
            Image.fromarray(render_image(scene, k)).save(path, quality=95)
    truth = truth_of(scene, names)
    config = PipelineConfig(dense=False, mapper=mapper, rig=RigConfig(file="auto"))
    result = reconstruct(photos, work / "out", config)
    row("rig, blank walls" if blank else "rig", result, truth, sensors)
    if without:
        row("without a rig", reconstruct(photos, work / "out-without", replace(config, rig=RigConfig())), truth, None)


def sensor_poses() -> np.ndarray:
    """left, middle, right; the first is the reference."""
    world_from = Rotation.from_euler("YX", [[-32, 3], [0, 0], [35, -2]], degrees=True).as_matrix()
    centre = np.array([[-0.4, 0.02, 0.0], [0.0, 0.0, 0.05], [0.4, -0.03, 0.02]])
    rotation = np.swapaxes(world_from, 1, 2)
    return np.concatenate([rotation, -rotation @ centre[:, :, None]], axis=2)


def truth_of(scene: SyntheticScene, names: list[str]) -> PoseSet:
    return PoseSet(
        names=tuple(names),
        cam_from_world=scene.cam_from_world,
        focal_px=scene.focal_px,
        size_wh=np.tile(scene.config.size_wh, (len(names), 1)),
    )


def row(name: str, result: RunResult, truth: PoseSet, sensors: np.ndarray | None) -> None:
    model = result.models[0]
    found = evaluate_poses(poses_of(model, result.images), truth)
    rotation = baseline = "-"
    if sensors is not None and model.rigs is not None:
        where = [truth.names.index(result.images.names[k]) for k in model.image_index]
        scale, _ = fit_similarity(camera_centres(model.cam_from_world), camera_centres(truth.cam_from_world)[where])
        reference, ours = (compose(poses, invert(poses[:1])) for poses in (sensors, model.rigs.sensor_from_rig))
        angle = rotation_angle_deg(ours[:, :, :3] @ np.swapaxes(reference[:, :, :3], 1, 2))
        off = np.linalg.norm(scale * camera_centres(ours) - camera_centres(reference), axis=1)
        rotation = f"{angle.max():.4f}"
        baseline = f"{100 * off.max() / np.linalg.norm(camera_centres(reference), axis=1).max():.3f} %"
    cpu = sum(stage.cpu_s for stage in result.report.stages)
    print(
        f"| {name} | {found.num_registered} of {found.num_images} | {found.auc[0]:.3f} | {rotation} | {baseline} "
        f"| {cpu:.0f} |",
        flush=True,
    )


def panoramas(work: Path, shots: int) -> None:
    """Panoramas on a closed loop, each turned by another angle and a little tilted."""
    scene = make_scene(SceneConfig(num_images=shots, size_wh=(256, 128), arc_deg=360, seed=1))
    rng = np.random.default_rng(0)
    turn = Rotation.from_euler("y", rng.uniform(-180, 180, shots)[:, None], degrees=True)
    tilt = Rotation.from_rotvec(np.radians(3) * rng.standard_normal((shots, 3)))
    rotation = np.swapaxes((turn * tilt).as_matrix(), 1, 2)
    shift = -rotation @ camera_centres(scene.cam_from_world)[:, :, None]
    scene = replace(scene, cam_from_world=np.concatenate([rotation, shift], axis=2))
    names = [f"P{k:03d}.jpg" for k in range(shots)]
    (work / "photos").mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names):
        if not (work / "photos" / name).exists():
            Image.fromarray(render_panorama(scene, k, PANORAMA_WIDTH)).save(work / "photos" / name, quality=95)
    config = PipelineConfig(dense=False, panorama=PanoramaConfig())
    result = reconstruct(work / "photos", work / "out", config)
    model, images = result.models[0], result.images
    first = {
        Path(images.names[k]).name: v for v, k in enumerate(model.image_index.tolist()) if "000/" in images.names[k]
    }
    kept = [name for name in names if name in first]
    poses = PoseSet(
        names=tuple(kept),
        cam_from_world=model.cam_from_world[[first[name] for name in kept]],
        focal_px=np.full(len(kept), np.nan),
        size_wh=np.full((len(kept), 2), 1),
    )
    found = evaluate_poses(poses, truth_of(scene, names))
    cpu = sum(stage.cpu_s for stage in result.report.stages)
    print(f"| panoramas | {found.num_registered} of {shots} | {found.auc[0]:.3f} | - | - | {cpu:.0f} |", flush=True)


if __name__ == "__main__":
    main()
