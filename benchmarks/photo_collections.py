"""Collections of photographs in any order, beside PyCOLMAP's exhaustive matching and incremental mapping.

    python benchmarks/photo_collections.py mix OUT SEED FOLDER ...     photographs of several sets in one folder
    python benchmarks/photo_collections.py walk OUT COUNT           a rendered walk around a block, 640 x 480
    python benchmarks/photo_collections.py twins OUT SEED           two things that look alike, rendered
    python benchmarks/photo_collections.py run FOLDER [FOLDER ...] [--what ours tracks colmap] [--workers N]

`mix` with one FOLDER shuffles its names, and so does `walk`. FOLDER holds `images/` and, for poses to be compared,
`gt.json` (name -> R_cam_from_world, t_cam_from_world and perhaps `set`, the scene that it belongs to). `run` makes
every variant in a process of its own, on one thread if nothing else is said, and prints a table: each scene of a
collection is compared by itself, in the model that holds most of it; a model is mixed if it holds photographs of two
scenes. `alignment` is the global alignment before the adjustment. "wrong": share of the pairs of images within models
whose relative rotation or direction is off by more than 5 degrees. Twins of even seeds are never seen together. CPU
seconds are user + system time of the whole process.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
OURS = {
    "ours": [],
    "no-dense": ["--no-dense"],
    "tracks": ["--mapper", "tracks", "--no-dense"],
    "incremental": ["--mapper", "incremental", "--no-dense"],
    "global": ["--mapper", "global", "--no-dense"],
    "complete": ["--scene-graph", "complete", "--no-dense"],
}
COLUMNS = ("scene", "registered", "wrong", "RRA@5", "AUC@1", "AUC@5")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("mix")
    command.add_argument("out", type=Path)
    command.add_argument("seed", type=int)
    command.add_argument("folders", type=Path, nargs="+")
    command.set_defaults(function=lambda args: mix(args.out, args.seed, args.folders))
    command = commands.add_parser("walk")
    command.add_argument("out", type=Path)
    command.add_argument("count", type=int)
    command.add_argument("--seed", type=int, default=1)
    command.set_defaults(function=lambda args: walk(args.out, args.count, args.seed))
    command = commands.add_parser("twins")
    command.add_argument("out", type=Path)
    command.add_argument("seed", type=int)
    command.set_defaults(function=lambda args: twins(args.out, args.seed))
    command = commands.add_parser("run")
    command.add_argument("folders", type=Path, nargs="+")
    command.add_argument(
        "--what", nargs="+", choices=(*OURS, "colmap"), default=["ours", "no-dense", "tracks", "colmap"]
    )
    command.add_argument("--keep", type=Path, help="keep results below this folder (default: a temporary one)")
    command.add_argument("--workers", type=int, default=1, help="threads of a run of ours")
    command.set_defaults(function=lambda args: run(args.folders, args.what, args.keep, args.workers))
    args = parser.parse_args()
    args.function(args)


def mix(out: Path, seed: int, folders: list[Path]) -> None:
    """Links under random names, and what is known of the poses."""
    (out / "images").mkdir(parents=True)
    photos = [(folder.resolve(), file) for folder in folders for file in sorted((folder / "images").iterdir())]
    random.Random(seed).shuffle(photos)
    truth = {}
    for number, (folder, file) in enumerate(photos):
        name = f"{number:04d}{file.suffix.lower()}"
        (out / "images" / name).symlink_to(file.resolve())
        poses = folder / "gt.json"
        known = json.loads(poses.read_text()).get(file.name, {}) if poses.exists() else {}
        truth[name] = {**known, "set": folder.name}
    (out / "gt.json").write_text(json.dumps(truth))


def walk(out: Path, count: int, seed: int) -> None:
    """Render the walk, then give its photographs random names."""
    from anchorsfm.synthetic import SceneConfig, WalkConfig, make_scene, write_photographs

    rendered = out / "in-order" / "walk"
    scene = make_scene(SceneConfig(num_images=count, size_wh=(640, 480), walk=WalkConfig(), seed=seed))
    write_photographs(scene, rendered).rename(rendered / "gt.json")
    mix(out / "shuffled", seed, [rendered])


def twins(out: Path, seed: int) -> None:
    """Render twins with different surroundings, from arcs of several lengths."""
    from anchorsfm.synthetic import SceneConfig, TwinsConfig, make_scene, write_photographs

    kind = seed // 2 % 5
    if seed % 2 == 0:
        alike, count, arc_deg = TwinsConfig(), 20, (360.0, 200.0, 280.0, 150.0, 360.0)[kind]
    else:
        alike = TwinsConfig(is_divided=False, distance_m=3.0, seen_together=0.25)
        count, arc_deg = 24, (200.0, 280.0, 150.0, 200.0, 240.0)[kind]
    scene = make_scene(
        SceneConfig(num_images=count, size_wh=(640, 480), arc_deg=arc_deg, radius_m=2.3, twins=alike, seed=seed)
    )
    write_photographs(scene, out).rename(out / "gt.json")


def run(folders: list[Path], variants: list[str], keep: Path | None, workers: int) -> None:
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    for folder in folders:
        print(f"\n{folder} ({len(list((folder / 'images').iterdir()))} photographs)")
        print("| variant | CPU s | GiB | models (images) | pairs looked at | " + " | ".join(COLUMNS) + " |")
        print("|" + "---|" * (5 + len(COLUMNS)), flush=True)
        for variant in variants:
            work = (keep or Path(tempfile.mkdtemp())) / f"{folder.parent.name}-{folder.name}-{variant}"
            if variant == "colmap":
                options = [str(HERE / "colmap_baseline.py"), str(folder / "images"), str(work)]
            else:
                options = ["-m", "anchorsfm", "reconstruct", str(folder / "images"), "--output", str(work), "--quiet"]
                options += ["--classical.workers.num-workers", str(workers), *OURS[variant]]
            cpu_s, peak_gib = measured([sys.executable, *options])
            pairs = "all" if variant == "colmap" else "?"
            if variant != "colmap":
                shutil.rmtree(work / "cache", ignore_errors=True)
                if (work / "report.json").exists():
                    report = json.loads((work / "report.json").read_text())
                    pairs = str(len(report["pair_list"]["i"]))
                    # a run starts the system's figure anew with every stage
                    stages_gib = [stage["peak_memory_mib"] / 2**10 for stage in report["stages"]]
                    peak_gib = max(peak_gib, *stages_gib)
            results = {variant: work / ("all" if variant == "colmap" else "sparse")}
            if (work / "alignment").exists():
                results[f"{variant}, alignment"] = work / "alignment"
            for name, models in results.items():
                print_rows(name, models, folder, f"{cpu_s:.0f}", f"{peak_gib:.2f}", pairs)
                cpu_s = peak_gib = 0.0
            if keep is None:
                shutil.rmtree(work.parent)


def measured(command: list[str]) -> tuple[float, float]:
    """CPU seconds and peak GiB of a process; a run that finds no model is measured too."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, _, usage = os.wait4(process.pid, 0)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20


def print_rows(name: str, models: Path, folder: Path, cpu_s: str, peak_gib: str, pairs: str) -> None:
    """One row a scene."""
    from anchorsfm.colmap.models import read_largest_model
    from anchorsfm.evaluation import evaluate_poses
    from anchorsfm.evaluation.poses import AUC_THRESHOLDS_DEG, RATE_THRESHOLDS_DEG
    from anchorsfm.scene.poses import PoseSet

    truth_file = folder / "gt.json"
    truth: dict[str, Any] = json.loads(truth_file.read_text()) if truth_file.exists() else {}
    every = [file.name for file in (folder / "images").iterdir()]
    scene_of = {photo: truth.get(photo, {}).get("set", folder.name) for photo in every}
    found: list[PoseSet] = [read_largest_model(path) for path in sorted(models.glob("*")) if path.is_dir()]
    scenes = [Counter(scene_of[photo] for photo in model.names) for model in found]
    mixed = sum(len(counts) > 1 for counts in scenes)
    sizes = ", ".join(str(len(model.names)) for model in found) + (f"; {mixed} MIXED" if mixed else "")
    for scene, total in sorted(Counter(scene_of.values()).items()):
        best = max(range(len(found)), key=lambda k: scenes[k][scene], default=-1)
        placed = scenes[best][scene] if found else 0
        cells = [scene, f"{placed}/{total}"]
        posed = {
            photo: pose for photo, pose in truth.items() if scene_of[photo] == scene and "R_cam_from_world" in pose
        }
        if placed and posed:
            cells.append(f"{wrong_share(found, posed):.3f}")
            found_poses = evaluate_poses(found[best], truth_poses(posed))
            cells.append(at(found_poses.rra, RATE_THRESHOLDS_DEG, 5))
            cells += [at(found_poses.auc, AUC_THRESHOLDS_DEG, limit) for limit in (1, 5)]
        print("| " + " | ".join([name, cpu_s, peak_gib, sizes, pairs, *cells]) + " |", flush=True)
        name = cpu_s = peak_gib = sizes = pairs = ""


def at(values: Any, thresholds_deg: tuple[int, ...], threshold_deg: int) -> str:
    return f"{values[thresholds_deg.index(threshold_deg)]:.3f}"


def wrong_share(models: list[Any], posed: dict[str, Any]) -> float:
    """Of the pairs of images that are in a model together."""
    from anchorsfm.evaluation import evaluate_poses

    off = [np.zeros(0, bool)]
    for model in models:
        held = {name: pose for name, pose in posed.items() if name in model.names}
        if len(held) >= 2:
            found = evaluate_poses(model, truth_poses(held))
            off.append(np.maximum(found.rotation_error_deg, found.translation_error_deg) > 5)
    pairs = np.concatenate(off)
    return float(pairs.mean()) if len(pairs) else 0.0


def truth_poses(posed: dict[str, Any]) -> Any:
    from anchorsfm.evaluation.sources import read_truth

    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "gt.json"
        file.write_text(json.dumps(posed))
        return read_truth(file)


if __name__ == "__main__":
    main()
