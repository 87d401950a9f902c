"""Known poses in, points out: with and without matches along their epipolar lines.

    python benchmarks/known_poses.py exact FOLDER ...       true poses, kept
    python benchmarks/known_poses.py disturbed FOLDER ...   poses that are off, adjusted with priors of their deviations

FOLDER holds `images/` and `gt.json`. Photographs are looked at with a long side of 1024 pixels; CPU seconds are those
of the whole command. `off` is the share of points that are off the dense depth maps of another run with the true poses
by more than 2 % of their depth, of those that the maps show: the maps are matched by pixels, not by keypoints. Errors
of poses are in the frame of the truth, not aligned: median and largest.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from accuracy import pick

OFF = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("exact", "disturbed"))
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--work", type=Path, help="keep results here (default: a temporary folder)")
    parser.add_argument("--degrees", type=float, nargs="+", default=[0.1, 0.3])
    parser.add_argument("--metres", type=float, default=0.01)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    work = args.work or Path(tempfile.mkdtemp(prefix="anchorsfm-known-"))
    for folder in args.folders:
        photos = pick(folder, work / folder.name, "")
        print(f"\n{folder.name}", flush=True)
        if args.what == "exact":
            exact(photos)
        else:
            disturbed(photos, args.degrees, args.metres, args.seeds)


WAYS = {"without": ["--known.no-guided-matching"], "along the lines": []}
POSITIONS = ["--known.position-sigma", "{metres}"]
ROTATIONS = ["--known.rotation-sigma-deg", "{degrees}"]
PRIORS = {
    "positions, without": [*POSITIONS, *WAYS["without"]],
    "both, without": [*POSITIONS, *ROTATIONS, *WAYS["without"]],
    "both, along the lines": [*POSITIONS, *ROTATIONS],
}


def exact(photos: Path) -> None:
    """Points of true poses."""
    run(photos, "dense", photos / "known", ["--known.no-guided-matching", "--dense", "--cloud.depth-maps"])
    print("| matches | points | observations | track length | off | CPU s |")
    print("|---|---|---|---|---|---|")
    for name, options in WAYS.items():
        out, cpu_s = run(photos, name, photos / "known", [*options, "--no-dense"])
        entry = json.loads((out / "report.json").read_text())["models"][0]
        print(
            f"| {name} | {entry['points']} | {entry['observations']} | {entry['mean_track_length']:.2f} | "
            f"{100 * off_surfaces(out, photos / 'dense'):.2f} % | {cpu_s:.1f} |",
            flush=True,
        )


def off_surfaces(out: Path, dense: Path) -> float:
    """Share of points that are off the depth maps of a dense run in most of their photographs."""
    import anchorsfm

    model, maps = anchorsfm.load(out), anchorsfm.load(dense).depth_maps
    points, tracks = model.reconstruction.points, model.reconstruction.tracks
    shown, wrong = np.zeros((2, len(points)))
    for view, name in enumerate(model.names):
        point = tracks.obs_point[tracks.obs_image == view]
        there = maps[name]
        local = points[point] @ there.cam_from_world[:, :3].T + there.cam_from_world[:, 3]
        xy = np.floor(there.focal_px * local[:, :2] / local[:, 2:] + there.principal_point_px).astype(int)
        inside = ((xy >= 0) & (xy < there.depth.shape[::-1])).all(axis=1)
        depth = np.where(inside, there.depth[tuple(np.where(inside[:, None], xy, 0).T[::-1])], 0)
        shown[point] += depth > 0
        wrong[point] += (depth > 0) & (np.abs(local[:, 2] - depth) > OFF * depth)
    return float((2 * wrong > shown)[shown > 0].mean())


def disturbed(photos: Path, degrees: list[float], metres: float, seeds: list[int]) -> None:
    """Poses that are off by stated deviations, adjusted."""
    truth = json.loads((photos / "gt.json").read_text())
    print("| poses off by | priors, matches | rotation, degrees | position, mm | points | track length | CPU s |")
    print("|---|---|---|---|---|---|---|")
    for deviation in degrees:
        starts = [write_disturbed(photos, deviation, metres, seed) for seed in seeds]
        errors = [pose_errors(start, truth) for start in starts]
        print(f"| {deviation} degrees, {1000 * metres:.0f} mm | given | {spread(errors)} | | | |", flush=True)
        for name, options in PRIORS.items():
            errors, entries, cpus = [], [], []
            for seed, start in zip(seeds, starts, strict=True):
                adjusting = ["--known.no-freeze-poses", "--no-dense"]
                adjusting += [word.format(metres=metres, degrees=deviation) for word in options]
                out, cpu_s = run(photos, f"{name} {deviation} {seed}", start, adjusting)
                errors.append(pose_errors(out / "sparse" / "0", truth))
                entries.append(json.loads((out / "report.json").read_text())["models"][0])
                cpus.append(cpu_s)
            points = np.mean([entry["points"] for entry in entries])
            length = np.mean([entry["mean_track_length"] for entry in entries])
            print(f"| | {name} | {spread(errors)} | {points:.0f} | {length:.2f} | {np.mean(cpus):.1f} |", flush=True)


def spread(errors: list[tuple[np.ndarray, np.ndarray]]) -> str:
    """Median and largest rotation and position error over all runs."""
    rotation, position = (np.concatenate(part) for part in zip(*errors, strict=True))
    middle = f"{np.median(rotation):.3f}, {rotation.max():.3f}"
    return f"{middle} | {1000 * np.median(position):.1f}, {1000 * position.max():.1f}"


def run(photos: Path, name: str, known: Path, options: list[str]) -> tuple[Path, float]:
    """Folder and CPU seconds of a run from nothing."""
    out = photos / name.replace(" ", "-")
    command = [sys.executable, "-m", "anchorsfm", "reconstruct", str(photos / "images"), "--output", str(out)]
    command += ["--mapper", "known", "--known.model", str(known), "--quiet", *options]
    before = os.times()
    subprocess.run(command, check=True, capture_output=True)
    after = os.times()
    return out, after.children_user + after.children_system - before.children_user - before.children_system


def write_disturbed(photos: Path, degrees: float, metres: float, seed: int) -> Path:
    """The known model with poses that are off."""
    import pycolmap

    folder = photos / f"disturbed-{degrees}-{seed}"
    folder.mkdir(exist_ok=True)
    rng, model = np.random.default_rng(seed), pycolmap.Reconstruction(photos / "known")
    for image in sorted(model.images.values(), key=lambda image: image.image_id):
        pose = image.cam_from_world().matrix()
        centre = -pose[:, :3].T @ pose[:, 3] + rng.normal(0, metres, 3)
        turn = Rotation.from_rotvec(rng.normal(0, np.radians(degrees), 3)).as_matrix() @ pose[:, :3]
        image.frame.set_cam_from_world(image.camera_id, pycolmap.Rigid3d(pycolmap.Rotation3d(turn), -turn @ centre))
    model.write(folder)
    return folder


def pose_errors(folder: Path, truth: dict) -> tuple[np.ndarray, np.ndarray]:
    """Rotation errors in degrees and position errors in metres of all images of a model."""
    import pycolmap

    rotation, position = [], []
    for image in pycolmap.Reconstruction(folder).images.values():
        pose, entry = image.cam_from_world().matrix(), truth[image.name]
        true = np.column_stack([entry["R_cam_from_world"], entry["t_cam_from_world"]])
        turn = Rotation.from_matrix(pose[:, :3] @ true[:, :3].T)
        rotation.append(np.degrees(turn.magnitude()))
        position.append(np.linalg.norm(pose[:, :3].T @ pose[:, 3] - true[:, :3].T @ true[:, 3]))
    return np.array(rotation), np.array(position)


if __name__ == "__main__":
    main()
