"""New photographs in a finished model: errors against measured poses, refusals, time.

    OMP_NUM_THREADS=1 python benchmarks/localisation.py WORK SET ... --others FOLDER ...

SET holds `images/` and `gt.json` with measured poses. A model is made of every other photograph (the first, the third
...) at 1024 px without known intrinsics, the remaining ones are localised in it, without its photographs. The model is
aligned to the truth by its own cameras (similarity, rotation from theirs): what these are off is the error of the
model, what the others are off that of the localisation. `--others`: folders of photographs of other places, all of
which must be refused.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

import anchorsfm
from anchorsfm.evaluation.sources import read_truth
from anchorsfm.geometry.transforms import camera_centres, rotation_angle_deg
from anchorsfm.results.model import read_models

EXTENSIONS = (".jpg", ".jpeg", ".png")


def photographs(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("sets", type=Path, nargs="+")
    parser.add_argument("--others", type=Path, nargs="*", default=[])
    parser.add_argument("--per-other", type=int, default=8, help="photographs of each other folder, evenly spaced")
    given = parser.parse_args()
    for folder in given.sets:
        files = photographs(folder / "images")
        output = given.work / folder.name
        if not (output / "sparse").is_dir():
            anchorsfm.reconstruct(files[::2], output, mapper="tracks", dense=False)
        kept = (output / "localisation" / "0.safetensors").stat().st_size / len(files[::2]) / 1e6
        print(f"\n{folder.name}: model of {len(files[::2])}, {len(files[1::2])} localised, {kept:.2f} MB an image kept")
        report(output, files[1::2], folder / "gt.json")
        refuse(output, given.others, given.per_other)


def report(output: Path, files: list[Path], truth_file: Path) -> None:
    """Errors of every photograph, and of the model."""
    truth, stored = read_truth(truth_file), read_models(output)[0]
    pose_of = dict(zip(truth.names, truth.cam_from_world, strict=True))
    anchorsfm.localise(files[0], output)  # libraries are loaded, kernels compiled
    start = time.process_time()
    found = anchorsfm.localise(files, output)
    each_s = (time.process_time() - start) / len(files)
    own = [pose_of[name] for name in stored.view_names]
    poses = stored.model.cam_from_world
    scale, pose = alignment(poses, np.array(own))
    print("| photograph | inliers | of | position (mm) | +- | rotation (deg) | +- | focal (px) | from |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---|")
    errors = []
    for image in found.images:
        if image.cam_from_world is None:
            print(f"| {image.name} | | {image.num_matches} | | | | | | {image.reason} |")
            continue
        position, rotation = error(image.cam_from_world, pose_of[image.name], scale, pose)
        errors.append((position, rotation))
        deviation, focal = 1000 * scale * image.position_deviation, image.camera.params[0]
        print(
            f"| {image.name} | {image.num_inliers} | {image.num_matches} | {position:.2f} | {deviation:.2f} "
            f"| {rotation:.4f} | {image.rotation_deviation_deg:.4f} | {focal:.1f} | {image.focal_source} |"
        )
    model = np.array([error(p, t, scale, pose) for p, t in zip(poses, own, strict=True)])
    print(
        f"\nmedian of localised: {np.median(errors, axis=0).round(4)} (mm, deg); of the model's own cameras: "
        f"{np.median(model, axis=0).round(4)}; {each_s:.2f} CPU s a photograph, reading the model included"
    )


def alignment(poses: np.ndarray, truth: np.ndarray) -> tuple[float, np.ndarray]:
    """Similarity to the truth: rotation from the cameras' rotations, because few centres near a line leave it open."""
    rotation = Rotation.from_matrix(np.swapaxes(truth[:, :, :3], 1, 2) @ poses[:, :, :3]).mean().as_matrix()
    source, target = camera_centres(poses) @ rotation.T, camera_centres(truth)
    from_mean, to_mean = source - source.mean(axis=0), target - target.mean(axis=0)
    scale = float((from_mean * to_mean).sum() / (from_mean**2).sum())
    return scale, np.column_stack([rotation, target.mean(axis=0) - scale * source.mean(axis=0)])


def error(cam_from_world: np.ndarray, truth: np.ndarray, scale: float, pose: np.ndarray) -> tuple[float, float]:
    """Position (mm) and rotation (degrees) of a pose of the model in the frame of the truth."""
    centre = scale * (pose[:, :3] @ camera_centres(cam_from_world)) + pose[:, 3]
    rotation = cam_from_world[:, :3] @ pose[:, :3].T
    turned = rotation_angle_deg(rotation @ truth[:, :3].T)
    return 1000 * float(np.linalg.norm(centre - camera_centres(truth))), float(turned)


def refuse(output: Path, folders: list[Path], per_folder: int) -> None:
    """Photographs of other places."""
    for folder in folders:
        if folder.name == output.name:
            continue
        files = photographs(folder)
        files = [files[k] for k in np.unique(np.linspace(0, len(files) - 1, per_folder).astype(int))]
        found = anchorsfm.localise(files, output)
        counts = [image.num_matches for image in found.images]
        print(
            f"of {folder.name}: {len(found.refused)} of {len(files)} refused ({min(counts)} to {max(counts)} matches)"
        )
        for name, image in found.placed.items():
            print(f"  placed wrongly: {name} with {image.num_inliers} inliers of {image.num_matches}")
        for reason in list(found.refused.values())[:2]:
            print(f"  {reason}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
